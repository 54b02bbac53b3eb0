"""DSOL (Hu et al., NeurIPS 2020): a dictionary of objects, silent or not, and which of them are heard.

`dsol_two_stage` is the full method. Stage one learns a location map from audio-visual correspondence, with clusters of object features
as pseudo-classes; stage two freezes the clusters' means as dictionary and matches the classes seen sounding to those heard. `dsol` is
stage two alone, with CAM instead of the dictionary, as the paper compares it (its section 4). Our choices and their reasons:
docs/methods.md, "DSOL".

Conventions
-----------
V (n, d, h, w) and a (n, d) are L2-normalized; c is the number of clusters. l = σ(w · cos(V, a)) is the location map with a learned
scale w, m are the class masks, p_so the classes that sound in the frame, p_a the classes that are heard. Losses are in float32.
"""

from __future__ import annotations

import math
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
from pipeline.model.transfer import HostBuffers, send
from pipeline.pseudo_labels.artifact import PseudoLabels
from pipeline.shards.reader import ShardSet

HEAD = "dsol"
INITIAL_SCALE = 5.0  # w at first, as in the public code
LOG_2 = math.log(2)
BEFORE, STAGE_ONE, STAGE_TWO = range(3)


class DsolSettings(IterationSettings):
    """Settings of both rows; defaults are those of the public code where it has them."""

    clusters: Annotated[int, Field(ge=2)] = 11  # pseudo-classes; the code uses the number of instruments in MUSIC
    stage_one_epochs: Count = 1  # part of `epochs`; only for `dsol_two_stage`
    silence_grid: Count = 1  # of `correspondence_loss` in stage two; 2 in the code, for mosaics
    correspondence_weight: NonNegative = 0.5  # λ, weight of the correspondence in stage two
    class_temperature: Positive = 0.05  # of the class layers; ours, for unit-length features
    match_temperature: Positive = 0.02  # of p_so; ours, see `category_logits`


class DsolHead(HostBuffers):
    """Layers and buffers that DSOL adds to the model.

    Attributes
    ----------
    scale : Parameter (1,)
        w of the location map.
    image_classes, audio_classes : nn.Linear
        The class layers; `image_classes` only exists for `dsol_two_stage`.
    stage : Tensor () int64
        BEFORE (no epoch started yet), STAGE_ONE or STAGE_TWO.
    pseudo_class : Tensor (clip,) int64
    dictionary : Tensor (cluster, feature) float32
        Keys of the class masks: mean object features, or the weights of the CAM.
    audio_distribution : Tensor (clip, cluster) float32
        p_a; zeros before stage two.
    """

    HOST = ("stage",)
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
        """Return w · cos(V, a), (n, h, w)."""
        return self.scale * response_map(features, audio)


class Dsol(Method):
    """DSOL: both stages, or the second one only.

    Parameters
    ----------
    settings : DsolSettings
    two_stage : bool
        Whether to train stage one; without it, CAM replaces the dictionary.

    Raises
    ------
    SettingsError
        Stage one would leave no epoch for stage two.
    """

    Settings: ClassVar[type[IterationSettings]] = DsolSettings

    def __init__(self, settings: DsolSettings, *, two_stage: bool) -> None:
        if two_stage and settings.stage_one_epochs >= settings.epochs:
            raise SettingsError(
                f"stage_one_epochs {settings.stage_one_epochs} leaves none of the {settings.epochs} epochs for stage two; "
                "lower it or raise `epochs`"
            )
        self.settings = settings
        self.two_stage = two_stage
        self.stage_one_epochs = settings.stage_one_epochs if two_stage else 0

    def check(self, *, n_clips: int, cells: int) -> None:
        """Raise SettingsError if there are fewer clips than clusters, or fewer cells per side than `silence_grid`."""
        self._check_clips(n_clips)
        self._check_cells(cells)

    def _check_clips(self, n_clips: int) -> None:
        if n_clips < self.settings.clusters:
            raise SettingsError(
                f"clusters {self.settings.clusters} exceeds the number of training clips, {n_clips}; lower it"
            )

    def _check_cells(self, cells: int) -> None:
        if self.settings.silence_grid > cells:
            raise SettingsError(
                f"silence_grid {self.settings.silence_grid} exceeds the {cells} cells per side of the response maps; lower it"
            )

    def prepare(self, model: AudioVisualModel, *, n_clips: int, classes: Sequence[str]) -> None:
        """Add a `DsolHead` to the model. Raises SettingsError if there are fewer clips than clusters."""
        self._check_clips(n_clips)
        clusters = self.settings.clusters
        model.heads[HEAD] = DsolHead(model.dim, n_clips=n_clips, clusters=clusters, two_stage=self.two_stage)

    def start_epoch(
        self, model: AudioVisualModel, shards: ShardSet, labels: PseudoLabels | None, *, epoch: int, seed: int
    ) -> Mapping[str, NamedArray]:
        """Cluster the training set in stage one; freeze the dictionary and p_a before the first epoch of stage two.

        Raises SettingsError if the maps have fewer cells per side than `silence_grid`.

        Returns
        -------
        mapping
            `pseudo_class` (clip,), `dictionary` (cluster, feature) and, in stage two, `audio_distribution` (clip, cluster).
        """
        head = dsol_head(model)
        self._check_cells(shards.image_size // model.cell_stride)
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
            # k-means numbers its clusters arbitrarily; the class layers would otherwise start over every epoch.
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
        """Return correspondence + classification of object and audio (stage one), or KL + λ · correspondence (stage two)."""
        head = dsol_head(model)
        if head.stage == BEFORE:
            raise ValueError("DSOL has no pseudo-classes yet; call start_epoch first")
        features = model.encode_frames(batch.frames)  # V (k, d, h, w)
        audio = model.encode_audio(batch.log_mel)  # a (k, d)
        rows = send(torch.from_numpy(batch.rows), audio.device)
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
        # The class layer learns p_a for new clips; detached, so that its gradient does not reach the encoders.
        followed = F.cross_entropy(self._heard(head, audio.detach()), heard)
        return match + self.settings.correspondence_weight * correspondence + followed

    def uninformed_loss(self, model: AudioVisualModel, batch: Batch) -> Tensor:
        """Return log 2 + 2 H(p) in stage one, and 2 H(p̄) - mean H(p_a) + λ log 2 in stage two.

        Correspondence: every location logit is 0, which costs log 2. Classification: every clip gets the frequencies p of the
        pseudo-classes in the batch, or the mean p̄ of its p_a; the divergence from p_a then is H(p̄) - mean H(p_a). H is the entropy.
        """
        head = dsol_head(model)
        rows = send(torch.from_numpy(batch.rows), head.pseudo_class.device)
        if head.stage != STAGE_TWO:
            return 2 * _entropy(F.one_hot(head.pseudo_class[rows], self.settings.clusters).float().mean(dim=0)) + LOG_2
        heard = head.audio_distribution[rows]
        return 2 * _entropy(heard.mean(dim=0)) - _entropy(heard).mean() + self.settings.correspondence_weight * LOG_2

    def _heard(self, head: DsolHead, audio: Tensor) -> Tensor:
        """Return logits of p_a, (n, c)."""
        return cast(Tensor, head.audio_classes(audio) / self.settings.class_temperature)

    def localize(self, model: AudioVisualModel, frames: Tensor, log_mel: Tensor) -> tuple[Tensor, Tensor]:
        """Return l · Σ_c p_a(c) m_c in stage two, cos(V, a) before; and a."""
        head = dsol_head(model)
        features, audio = model.encode_frames(frames), model.encode_audio(log_mel)
        if head.stage != STAGE_TWO:
            return response_map(features, audio), audio
        location = head.location_logits(features, audio).sigmoid()
        heard = self._heard(head, audio).softmax(dim=1)
        # n c h w, n c -> n h w
        return location * (class_masks(features, head.dictionary) * heard[:, :, None, None]).sum(dim=1), audio

    def class_maps(self, model: AudioVisualModel, frames: Tensor, log_mel: Tensor) -> Tensor:
        """Return one map per cluster, (n, c, h, w) in [0, 1]: the softmax over clusters of l · m_c / `class_temperature`.

        The public code scores the softmax of 3 · l · m_c of its unbounded features. Where nothing sounds, every cluster is at about
        1 / c. Raises ValueError before stage two, when the masks do not exist yet.
        """
        head = dsol_head(model)
        if head.stage != STAGE_TWO:
            raise ValueError("DSOL has no class maps before stage two")
        features, audio = model.encode_frames(frames), model.encode_audio(log_mel)
        location = head.location_logits(features, audio).sigmoid()
        logits = class_masks(features, head.dictionary) * location[:, None] / self.settings.class_temperature
        return logits.softmax(dim=1)

    def audio_clusters(self, model: AudioVisualModel) -> np.ndarray:
        """Return p_a of every training clip, (clip, cluster); rows sum to 1 from stage two on."""
        return np.asarray(dsol_head(model).audio_distribution.cpu())


def _entropy(probabilities: Tensor) -> Tensor:
    return torch.special.entr(probabilities).sum(dim=-1)


def dsol_head(model: AudioVisualModel) -> DsolHead:
    """Return the head that `Dsol.prepare` added to the model."""
    return cast(DsolHead, model.heads[HEAD])


def _pairs(head: DsolHead, features: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
    """Return the location logits of the true pairs, and of each frame with the audio of the preceding clip."""
    return head.location_logits(features, audio), head.location_logits(features, audio.roll(1, dims=0))
