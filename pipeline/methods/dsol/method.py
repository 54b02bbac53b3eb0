"""DSOL: localize objects without sound first, as entries of a dictionary, then match what is seen to what is heard.

Source: Hu et al., "Discriminative Sounding Objects Localization via Self-supervised Audiovisual Matching", NeurIPS 2020,
and its public code where the text is silent. The two rows:

`dsol_two_stage`, the whole system. Stage one learns a location map from audio-visual correspondence; each of its epochs
starts with k-means of the clips' object features, and the clusters serve as pseudo-classes, which both encoders learn to
tell apart. Stage two freezes the clusters' mean features, the dictionary, as keys of class masks, and learns to make the
classes that the frame sounds with those that the sound is of.

`dsol`, the comparison of the seed paper (its section 4): stage two alone, from pretrained encoders, with CAM (Zhou et
al., CVPR 2016) in place of the dictionary. The CAM there are those of classifiers pretrained on labeled data, which
encoders started from Eq. 3 do not have. Ours: the clips' object features under the initial model are clustered once, and
one linear classifier of the clusters is fitted to the same object features, another to the sounds; the first one's
weights give the CAM, the second one's probabilities are p_a. Both are frozen, as theirs are. (A classifier of the whole
frame's pooled features, which CAM has by the book, is of little use where a frame holds several objects and their class is
only a cluster: on the demo it names half of its own training clips, and finds half as many objects.)

Conventions
-----------
V (n, d, h, w) and a (n, d) are L2-normalized, c is the number of clusters. l = σ(w · cos(V, a)) is the location map, w a learned
factor; m the class masks; p_so which classes sound in the frame; p_a which classes are heard. Losses are in float32.

Where the sources leave something open, or the code departs from the text, ours:

- The mask of an object feature is Eq. 2 on the pseudo-labels of the epoch before (the code: l above a fixed 0.05, dilated,
  which covers nearly the whole frame until w has grown). The initialization has made such labels, so pseudo-classes exist
  from the first epoch on, and the code's first epochs without clusters fall away.
- Clusters are numbered after those of the epoch before, by the clips that they share, and the class layers go on; the code
  sets them back to random each epoch because its numbers are arbitrary. Correspondence and classification are summed in
  every step instead of taking turns for whole passes.
- The dictionary of stage two is the mean object feature of the last pseudo-classes under stage one's final weights.
- p_a of every training clip is computed once, when stage two starts: what the code's frozen copy of the stage-one network
  gives, without the copy. For new clips a linear layer on a keeps learning p_a; no gradient of it reaches the encoders.
- A false pair is the frame with the sound of the clip before it in the shuffled batch; as in the code, it may be of the same kind.
- The code's flag `minimize`, by its comment off at first and on later, is on in every call; it has no counterpart here.
- The class-agnostic map, which neither source defines, is l · Σ_c p_a(c) m_c; in stage one cos(V, a), from which l follows.
  Not l itself: most of the frame lies near its upper end, and a threshold at half of its range covers far too much.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, cast

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.common.config import Count, IterationSettings, NonNegative, Positive
from pipeline.common.errors import SettingsError
from pipeline.common.hdf5 import NamedArray
from pipeline.methods.base import Batch, Method
from pipeline.methods.dsol.clusters import cluster, dictionary, linear_classifier, match_clusters
from pipeline.methods.dsol.losses import category_logits, class_masks, correspondence_loss, matching_loss
from pipeline.methods.dsol.objects import ClipFeatures, clip_features, object_features
from pipeline.model.encoders import AudioVisualModel
from pipeline.model.equations import response_map
from pipeline.pseudo_labels.artifact import PseudoLabels
from pipeline.shards.reader import ShardSet

HEAD = "dsol"
INITIAL_SCALE = 5.0  # w at first, as in the public code
BEFORE, STAGE_ONE, STAGE_TWO = range(3)


class DsolSettings(IterationSettings):
    """Of both rows; the defaults are those of the public code where it has them."""

    clusters: Annotated[int, Field(ge=2)] = 11  # pseudo-classes; the code's number of instruments in MUSIC
    stage_one_epochs: Count = 1  # of `epochs`; read by the two-stage form alone
    silence_grid: Count = (
        1  # parts a side in which a false pair must be silent in stage two; the code's 2 is for mosaics
    )
    correspondence_weight: NonNegative = 0.5  # λ, of the correspondence in stage two
    class_temperature: Positive = 0.05  # of the class layers; ours, for features of length 1
    match_temperature: Positive = 0.02  # of p_so; ours, see `dsol_losses.category_logits`


class DsolHead(nn.Module):
    """What DSOL adds to the model.

    Attributes
    ----------
    scale : Parameter (1,)
        w of the location map.
    image_classes, audio_classes : nn.Linear
        The class layers; the first is there in the two-stage form alone.
    stage : Tensor () int64
        BEFORE any epoch, STAGE_ONE or STAGE_TWO.
    pseudo_class : Tensor (clip,) int64
    dictionary : Tensor (cluster, feature) float32
        The keys of the class masks: mean object features, or the weights of the CAM.
    audio_distribution : Tensor (clip, cluster) float32
        p_a; zeros before stage two.
    """

    stage: Tensor
    pseudo_class: Tensor
    dictionary: Tensor
    audio_distribution: Tensor

    def __init__(self, dim: int, *, n_clips: int, clusters: int, two_stage: bool) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((1,), INITIAL_SCALE))
        self.audio_classes = nn.Linear(dim, clusters)
        if two_stage:
            self.image_classes = nn.Linear(dim, clusters)
        self.register_buffer("stage", torch.tensor(BEFORE))
        self.register_buffer("pseudo_class", torch.zeros(n_clips, dtype=torch.int64))
        self.register_buffer("dictionary", torch.zeros(clusters, dim))
        self.register_buffer("audio_distribution", torch.zeros(n_clips, clusters))

    def location_logits(self, features: Tensor, audio: Tensor) -> Tensor:
        """w · cos(V, a), (n, h, w)."""
        return self.scale * response_map(features, audio)


class Dsol(Method):
    """DSOL, whole or its second stage alone.

    Parameters
    ----------
    settings : DsolSettings
    two_stage : bool
        Whether there is a stage one; without it, CAM takes the place of the dictionary.

    Raises
    ------
    SettingsError
        Stage one would leave no epoch for stage two.
    """

    Settings: ClassVar[type[IterationSettings]] = DsolSettings

    def __init__(self, settings: DsolSettings, *, two_stage: bool) -> None:
        if two_stage and settings.stage_one_epochs >= settings.epochs:
            raise SettingsError(
                f"stage_one_epochs {settings.stage_one_epochs} of epochs {settings.epochs} leaves none for stage two; "
                "lower it or raise `epochs`"
            )
        self.settings = settings
        self.two_stage = two_stage
        self.stage_one_epochs = settings.stage_one_epochs if two_stage else 0

    def prepare(self, model: AudioVisualModel, *, n_clips: int, classes: Sequence[str]) -> None:
        """Put a `DsolHead` into the model. Raises SettingsError: there are fewer clips than clusters."""
        clusters = self.settings.clusters
        if n_clips < clusters:
            raise SettingsError(f"clusters {clusters} is more than the {n_clips} training clips; lower it")
        model.heads[HEAD] = DsolHead(model.dim, n_clips=n_clips, clusters=clusters, two_stage=self.two_stage)

    def start_epoch(
        self, model: AudioVisualModel, shards: ShardSet, labels: PseudoLabels | None, *, epoch: int, seed: int
    ) -> Mapping[str, NamedArray]:
        """Cluster the training set (stage one), or freeze what stage two takes from it (its first epoch).

        Raises SettingsError where the maps have fewer cells a side than `silence_grid`.

        Returns
        -------
        mapping
            `pseudo_class` (clip,), `dictionary` (cluster, feature) and, in stage two, `audio_distribution` (clip, cluster).
        """
        head = dsol_head(model)
        cells = shards.image_size // model.cell_stride
        if self.settings.silence_grid > cells:
            raise SettingsError(
                f"silence_grid {self.settings.silence_grid} is finer than the response maps, which have {cells} cells a side; "
                "lower it"
            )
        if epoch <= self.stage_one_epochs + 1:
            features = clip_features(model, shards, labels, delta_v=self.settings.delta_v)
            if epoch <= self.stage_one_epochs:
                self._start_stage_one_epoch(head, features, seed=seed)
            elif self.two_stage:
                self._freeze_dictionary(head, features)
            else:
                self._freeze_classifiers(head, features, seed=seed)
        made = {
            "pseudo_class": (("clip",), head.pseudo_class.cpu().numpy()),
            "dictionary": (("cluster", "feature"), head.dictionary.cpu().numpy()),
        }
        if head.stage == STAGE_TWO:
            made["audio_distribution"] = (("clip", "cluster"), head.audio_distribution.cpu().numpy())
        return made

    def _start_stage_one_epoch(self, head: DsolHead, features: ClipFeatures, *, seed: int) -> None:
        clusters = self.settings.clusters
        found = cluster(features.objects, clusters=clusters, seed=seed)
        if head.stage == STAGE_ONE:
            found = match_clusters(found, head.pseudo_class.cpu().numpy(), clusters=clusters)
        head.pseudo_class.copy_(torch.from_numpy(found))
        head.dictionary.copy_(torch.from_numpy(dictionary(features.objects, found, clusters=clusters)))
        head.stage.fill_(STAGE_ONE)

    def _freeze_dictionary(self, head: DsolHead, features: ClipFeatures) -> None:
        pseudo_class = head.pseudo_class.cpu().numpy()
        keys = dictionary(features.objects, pseudo_class, clusters=self.settings.clusters)
        with torch.no_grad():
            heard = self._heard(head, torch.from_numpy(features.audio).to(head.dictionary)).softmax(dim=1)
        self._begin_stage_two(head, keys, heard)

    def _freeze_classifiers(self, head: DsolHead, features: ClipFeatures, *, seed: int) -> None:
        clusters = self.settings.clusters
        found = cluster(features.objects, clusters=clusters, seed=seed)
        head.pseudo_class.copy_(torch.from_numpy(found))
        weights, _ = linear_classifier(features.objects, found, clusters=clusters)
        _, heard = linear_classifier(features.audio, found, clusters=clusters)
        self._begin_stage_two(head, weights, torch.from_numpy(heard))

    def _begin_stage_two(self, head: DsolHead, keys: np.ndarray, heard: Tensor) -> None:
        head.dictionary.copy_(torch.from_numpy(keys))
        head.audio_distribution.copy_(heard)
        head.stage.fill_(STAGE_TWO)

    def loss(self, model: AudioVisualModel, batch: Batch) -> Tensor:
        """Correspondence + classification of object and sound (stage one), or KL + λ correspondence (stage two)."""
        head = dsol_head(model)
        if head.stage == BEFORE:
            raise ValueError("DSOL has no pseudo-classes yet; start_epoch makes them")
        features = model.encode_frames(batch.frames)  # V (k, d, h, w)
        audio = model.encode_audio(batch.log_mel)  # a (k, d)
        rows = torch.from_numpy(batch.rows).to(audio.device)
        with torch.autocast(audio.device.type, enabled=False):
            if head.stage == STAGE_ONE:
                return self._stage_one(head, features, audio, rows, batch)
            return self._stage_two(head, features, audio, rows)

    def _stage_one(self, head: DsolHead, features: Tensor, audio: Tensor, rows: Tensor, batch: Batch) -> Tensor:
        positive, negative = _pairs(head, features, audio)
        objects = object_features(features, batch.previous_response, delta_v=self.settings.delta_v)
        seen, heard = head.image_classes(objects) / self.settings.class_temperature, self._heard(head, audio)
        target = head.pseudo_class[rows]
        return (
            correspondence_loss(positive, negative, grid=1)
            + F.cross_entropy(seen, target)
            + F.cross_entropy(heard, target)
        )

    def _stage_two(self, head: DsolHead, features: Tensor, audio: Tensor, rows: Tensor) -> Tensor:
        positive, negative = _pairs(head, features, audio)
        sounding = category_logits(
            class_masks(features, head.dictionary), positive.sigmoid(), temperature=self.settings.match_temperature
        )
        heard = head.audio_distribution[rows]
        match = matching_loss(sounding, heard)
        correspondence = correspondence_loss(positive, negative, grid=self.settings.silence_grid)
        followed = F.cross_entropy(self._heard(head, audio.detach()), heard)
        return match + self.settings.correspondence_weight * correspondence + followed

    def _heard(self, head: DsolHead, audio: Tensor) -> Tensor:
        """Logits of p_a, (n, c)."""
        logits: Tensor = head.audio_classes(audio) / self.settings.class_temperature
        return logits

    def localize(self, model: AudioVisualModel, frames: Tensor, log_mel: Tensor) -> tuple[Tensor, Tensor]:
        """l · Σ_c p_a(c) m_c in stage two, cos(V, a) before."""
        head = dsol_head(model)
        features, audio = model.encode_frames(frames), model.encode_audio(log_mel)
        if head.stage != STAGE_TWO:
            return response_map(features, audio), audio
        location = head.location_logits(features, audio).sigmoid()
        heard = self._heard(head, audio).softmax(dim=1)
        # n c h w, n c -> n h w
        return location * (class_masks(features, head.dictionary) * heard[:, :, None, None]).sum(dim=1), audio

    def class_maps(self, model: AudioVisualModel, frames: Tensor, log_mel: Tensor) -> Tensor:
        """One map for each cluster, (n, c, h, w) in [0, 1]: softmax over the clusters of l · m_c, over the classes' temperature.

        As the public code scores them, with 3 · l · m_c of its unbounded features. Where nothing of a class sounds, all clusters
        have about 1 / c. Raises ValueError before stage two, which first has both factors.
        """
        head = dsol_head(model)
        if head.stage != STAGE_TWO:
            raise ValueError("DSOL has class maps from stage two on")
        features, audio = model.encode_frames(frames), model.encode_audio(log_mel)
        location = head.location_logits(features, audio).sigmoid()
        logits = class_masks(features, head.dictionary) * location[:, None] / self.settings.class_temperature
        return logits.softmax(dim=1)

    def audio_clusters(self, model: AudioVisualModel) -> np.ndarray:
        """Return p_a of every training clip (clip, cluster); rows sum to 1 from stage two on."""
        return np.asarray(dsol_head(model).audio_distribution.cpu())


def dsol_head(model: AudioVisualModel) -> DsolHead:
    """Return what `Dsol.prepare` put into the model."""
    return cast(DsolHead, model.heads[HEAD])


def _pairs(head: DsolHead, features: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
    """Location logits of the true pairs, and of each frame with the sound of the clip before."""
    return head.location_logits(features, audio), head.location_logits(features, audio.roll(1, dims=0))
