"""Multiple sound sources localization (MSSL; Qian et al., ECCV 2020): a row of Table 1, and the upper rows of Table 2.

Stage I learns which frames and audio belong together, and classifies each; stage II aligns, for each class, audio features with visual
features. The map shows where the classes that are heard are seen. The `…_eq2` and `…_eq1` rows only change how a map is read. How we
read the rows, our choices and their reasons: docs/methods.md, "MSSL".

Conventions
-----------
A batch has k pairs; there are C classes. Raw encoder features are (k, channels, h, w) for frames and (k, channels, mel', time') for
audio. A class layer is a 1×1 convolution on them: its mean over cells is the logit of the class, its positive part the class
activation map (CAM). Heads and losses are computed in float32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.common.config import Count, Fraction, IterationSettings, LabeledSettings, Positive
from pipeline.common.hdf5 import NamedArray
from pipeline.methods.base import Batch, Method
from pipeline.methods.mssl.losses import (
    activated_features,
    active,
    alignment_loss,
    class_weights,
    classification_loss,
    correspondence_loss,
    present,
    weighted_map,
)
from pipeline.model.encoders import AudioVisualModel
from pipeline.model.inference import localize_by_response
from pipeline.model.transfer import HostBuffers
from pipeline.pseudo_labels.artifact import PseudoLabels
from pipeline.shards.reader import ShardSet

HEADS = "mssl"


class CommonSettings(IterationSettings):
    """Settings of every row."""

    hidden: Count = 128  # units in the hidden layer of the correspondence
    class_threshold: Fraction = 0.3  # probability above which a class counts as heard or seen


class MSSLSettings(CommonSettings, LabeledSettings):
    """Settings of the rows with class labels; the ones below are only for `mssl`."""

    stage_two_share: Annotated[float, Field(gt=0, le=1)] = 0.5  # fraction of the epochs, at the end; rounded up
    projection_hidden: Count = 1024
    projection_dim: Count = 128
    margin: Positive = 1.4  # see `alignment_loss`


class UnlabeledSettings(CommonSettings):
    """Settings of the rows without class labels."""

    untrained_classes: Count = 7  # number of random classes; MSSL has 7 classes


class Heads(HostBuffers):
    """The layers that MSSL adds to the model, and the stage of the weights."""

    HOST = ("stage_two",)
    stage_two: Tensor  # bool, scalar

    def __init__(self, model: AudioVisualModel, *, hidden: int, n_classes: int) -> None:
        super().__init__()
        # Together, these are the first layer of a perceptron on [v, a]; split, each of the k² pairs only costs an addition.
        self.pair_visual = nn.Linear(model.dim, hidden)
        self.pair_audio = nn.Linear(model.dim, hidden, bias=False)
        self.pair_logit = nn.Linear(hidden, 1)
        self.visual_classes = nn.Conv2d(model.visual.dim, n_classes, 1)
        self.audio_classes = nn.Conv2d(model.audio.dim, n_classes, 1)
        self.register_buffer("stage_two", torch.tensor(False))

    def add_projections(self, model: AudioVisualModel, *, hidden: int, dim: int) -> None:
        """Add the layers of stage II."""
        self.visual_projection = _projection(model.visual.dim, hidden, dim)
        self.audio_projection = _projection(model.audio.dim, hidden, dim)

    def correspondence(self, visual: Tensor, audio: Tensor) -> Tensor:
        """Return the logits of all pairs of frames (k, d) and audio (k, d): (k, k)."""
        # i h, j h -> i j h -> i j
        pairs = F.relu(self.pair_visual(visual)[:, None] + self.pair_audio(audio)[None])
        logits: Tensor = self.pair_logit(pairs).squeeze(2)
        return logits

    def heard(self, sounds: Tensor, activation: Tensor) -> Tensor:
        """Return the projected audio feature of each class: (k, C, p), L2-normalized."""
        return F.normalize(self.audio_projection(activated_features(sounds, activation)), dim=2)

    def seen(self, features: Tensor, activation: Tensor) -> Tensor:
        """Return the projected visual feature of each class: (k, C, p), L2-normalized."""
        return F.normalize(self.visual_projection(activated_features(features, activation)), dim=2)

    def cells(self, features: Tensor) -> Tensor:
        """Return the frames' cells, projected like `seen`: (k, h, w, p), L2-normalized."""
        return F.normalize(self.visual_projection(features.permute(0, 2, 3, 1)), dim=3)


class MSSL(Method):
    """MSSL: both stages, or the first one only.

    Parameters
    ----------
    settings : MSSLSettings
        UnlabeledSettings for `UnlabeledMSSL`.
    stage_two : bool
        Whether the last epochs (`stage_two_share`) add the loss of stage II.
    eq2 : bool
        Whether the map is the response ⟨V, a⟩; for stage I only.
    eq1 : bool
        Whether maps are min-max normalized.
    """

    Settings: ClassVar[type[IterationSettings]] = MSSLSettings
    reads_labels = False

    def __init__(
        self, settings: CommonSettings, *, stage_two: bool = False, eq2: bool = False, eq1: bool = False
    ) -> None:
        self.settings = settings
        self.labeled = isinstance(settings, LabeledSettings)
        self.second = settings if stage_two and isinstance(settings, MSSLSettings) else None
        if stage_two and (eq2 or self.second is None):
            raise ValueError("stage_two requires MSSLSettings, and cannot be combined with eq2")
        self.eq2 = eq2
        self.normalization: Literal["min-max", "relu-max"] = "min-max" if eq1 else "relu-max"

    def prepare(self, model: AudioVisualModel, *, n_clips: int, classes: Sequence[str]) -> None:
        """Add the heads; without class labels, `untrained_classes` gives the number of classes."""
        settings = self.settings
        n_classes = settings.untrained_classes if isinstance(settings, UnlabeledSettings) else len(classes)
        heads = Heads(model, hidden=settings.hidden, n_classes=n_classes)
        if self.second:
            heads.add_projections(model, hidden=self.second.projection_hidden, dim=self.second.projection_dim)
        model.heads[HEADS] = heads

    def start_epoch(
        self, model: AudioVisualModel, shards: ShardSet, labels: PseudoLabels | None, *, epoch: int, seed: int
    ) -> Mapping[str, NamedArray]:
        """Record in the model whether this epoch belongs to stage II."""
        if self.second:
            last = math.ceil(self.second.stage_two_share * self.second.epochs)
            _heads(model).stage_two.fill_(epoch > self.second.epochs - last)
        return {}

    def loss(self, model: AudioVisualModel, batch: Batch) -> Tensor:
        """Return the correspondence loss, plus classification with class labels, plus alignment in stage II."""
        features, sounds = model.visual_features(batch.frames), model.audio_maps(batch.log_mel)
        visual = model.project_frames(features).mean(dim=(2, 3))
        audio = model.project_audio(model.pool_audio(sounds))
        with torch.autocast(features.device.type, enabled=False):
            heads = _heads(model)
            loss = correspondence_loss(heads.correspondence(visual, audio))
            if self.labeled:
                if batch.targets is None:
                    raise ValueError("this row of MSSL requires class labels, but batch.targets is None")
                features, sounds = features.float(), sounds.float()
                seen, heard = heads.visual_classes(features), heads.audio_classes(sounds)
                for maps, targets in zip((seen, heard), batch.targets.unbind(1), strict=True):
                    loss = loss + classification_loss(maps.mean(dim=(2, 3)), targets)
                if self.second and heads.stage_two:
                    # Detached: the alignment trains the features, not the activations that weight them.
                    loss = loss + alignment_loss(
                        heads.heard(sounds, F.relu(heard.detach())),
                        heads.seen(features, F.relu(seen.detach())),
                        audible=present(heard, threshold=self.second.class_threshold),
                        visible=present(seen, threshold=self.second.class_threshold),
                        margin=self.second.margin,
                    )
        return loss

    def uninformed_loss(self, model: AudioVisualModel, batch: Batch) -> Tensor:
        """Return log 2 + H_frames + H_audio + m²/2; without class labels only the first term, before stage II without the last.

        Correspondence: every pair has logit 0. Classification: every clip gets the class frequencies p of the batch, which cost
        H = -mean_c (p_c log p_c + (1 - p_c) log(1 - p_c)), over the clips whose target is known. Alignment: all features are at the
        distance m/2.
        """
        loss = torch.tensor(math.log(2))
        if batch.targets is not None:
            known = (~batch.targets.isnan()).sum(dim=0)  # (2, C)
            frequency = batch.targets.float().nansum(dim=0) / known.clamp_min(1)
            entropy = F.binary_cross_entropy(frequency, frequency, reduction="none")
            # Weighted like `classification_loss`, whose mean is over the known targets; a side without any costs 0.
            loss = loss + ((known * entropy).sum(dim=1) / known.sum(dim=1).clamp_min(1)).sum()
            if self.second and _heads(model).stage_two:
                loss = loss + self.second.margin**2 / 2
        return loss

    def localize(self, model: AudioVisualModel, frames: Tensor, log_mel: Tensor) -> tuple[Tensor, Tensor]:
        """Return the row's map before normalization, and a."""
        if self.eq2:
            return localize_by_response(model, frames, log_mel)
        heads, features, sounds = _heads(model), model.visual_features(frames), model.audio_maps(log_mel)
        heard = heads.audio_classes(sounds)
        maps = heads.visual_classes(features)
        usable = None
        if heads.stage_two:
            # The similarity of each cell to what is heard of each class: n C p, n h w p -> n C h w
            maps = torch.einsum("ncp,nhwp->nchw", heads.heard(sounds, F.relu(heard)), heads.cells(features))
            usable = active(heard)
        weights = class_weights(heard.mean(dim=(2, 3)), threshold=self.settings.class_threshold, usable=usable)
        audio = F.normalize(model.project_audio(model.pool_audio(sounds)), dim=1)
        return weighted_map(maps, weights), audio


class UnlabeledMSSL(MSSL):
    """Stage I without class labels: only the correspondence is trained."""

    Settings: ClassVar[type[IterationSettings]] = UnlabeledSettings


def _heads(model: AudioVisualModel) -> Heads:
    return cast(Heads, model.heads[HEADS])


def _projection(channels: int, hidden: int, dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, dim))
