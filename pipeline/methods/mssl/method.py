"""Multiple sound sources localization (MSSL; Qian et al., ECCV 2020): a row of Table 1, and the upper rows of Table 2.

Stage I learns which frames and sounds belong together, and the classes of each; stage II also brings what a sound says of
a class near to what its frame does. The sounding region is where the classes that are heard are seen.

Conventions
-----------
k pairs in a batch, C classes. The raw features of the encoders are (k, channels, h, w) for frames and (k, channels,
mel', time') for sounds; a class layer is a 1×1 convolution on them, whose mean over cells is the logit of the class and
whose positive part is the class activation map (CAM). All heads and losses run in float32.

The rows of Table 2, as we read the paper (§4.3, "Comparison with MSSL"):

- `mssl`: stage I, then stage II; the map is the similarity of each cell with what the sound says of its classes.
- `mssl_stage1`: stage I alone; the map is the CAM of the frame, weighted by the classes that are heard.
- `…_unlabeled`: the correspondence alone teaches the encoders. The class layers stay as they were drawn, so that the map
  is that of random classes, which would explain the paper's 10.8 against 42.2.
- `…_eq2`: the CAM gives way to the response ⟨V, a⟩.
- `…_eq1`: maps are stretched from their minimum to their maximum (Eq. 1). Without it they are divided by their maximum,
  negative responses cut off: MSSL's own rule, and the difference between two rows of the table.

The last two change only how a map is read: rows of stage I with the same labels train to the same weights, bit by bit, and
where the first of them is there already, the others take its weights instead of training again.

Where the sources leave it open, or do not fit what all methods share:

- Start, optimizer and schedule are those of every other method; MSSL has SGD with a smaller rate in stage II.
- The correspondence reads V and a before their L2 normalization. Without a projection, as in the paper's setting, these are
  the encoders' raw features, as in MSSL; with one, it learns, too, and Eq. 2 has something to say.
- Labels are the training set's (see `pipeline.training.class_labels`). MSSL takes them from two pretrained classifiers, of frames and
  of sounds, whose probabilities it sums up into 7 classes; a label file can hold those of one.
- Other clips' sounds of the same class are wrong pairs, in both stages, as in the public code.
- A class that is active nowhere has no feature and takes no part in stage II, neither in its loss nor in its map; a sound in
  which no class is active has a flat map. The public code goes on with the projection of zeros.
- One target serves frame and sound. Where labels name only what sounds, as in a mosaic of playing and silent instruments,
  frames learn that what is silent is not there: MSSL, with labels of each kind, does not say so.
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
from pipeline.pseudo_labels.artifact import PseudoLabels
from pipeline.shards.reader import ShardSet

HEADS = "mssl"


class CommonSettings(IterationSettings):
    """Settings of every row."""

    hidden: Count = 128  # units of the correspondence's hidden layer
    class_threshold: Fraction = 0.3  # probability above which a class is heard or seen


class MSSLSettings(CommonSettings, LabeledSettings):
    """Settings of the rows with labels; those after the first two play a part in `mssl` alone."""

    stage_two_share: Annotated[float, Field(gt=0, le=1)] = 0.5  # of the epochs, the last ones; rounded up
    projection_hidden: Count = 1024
    projection_dim: Count = 128
    margin: Positive = 1.4  # see `alignment_loss`


class UnlabeledSettings(CommonSettings):
    """Settings of the rows without labels."""

    untrained_classes: Count = 7  # how many random classes the map is made from; MSSL has 7


class Heads(nn.Module):
    """The layers of MSSL's own, and which stage the weights are in."""

    stage_two: Tensor  # bool, scalar

    def __init__(self, model: AudioVisualModel, *, hidden: int, n_classes: int) -> None:
        super().__init__()
        # Together the first layer of a perceptron on [v, a], so that all pairs cost one sum each.
        self.pair_visual = nn.Linear(model.dim, hidden)
        self.pair_audio = nn.Linear(model.dim, hidden, bias=False)
        self.pair_logit = nn.Linear(hidden, 1)
        self.visual_classes = nn.Conv2d(model.visual.dim, n_classes, 1)
        self.audio_classes = nn.Conv2d(model.audio.dim, n_classes, 1)
        self.register_buffer("stage_two", torch.tensor(False))

    def add_projections(self, model: AudioVisualModel, *, hidden: int, dim: int) -> None:
        """Add what stage II needs."""
        self.visual_projection = _projection(model.visual.dim, hidden, dim)
        self.audio_projection = _projection(model.audio.dim, hidden, dim)

    def correspondence(self, visual: Tensor, audio: Tensor) -> Tensor:
        """Return the logit of each pair of a frame (k, d) with a sound (k, d): (k, k)."""
        # i h, j h -> i j h -> i j
        pairs = F.relu(self.pair_visual(visual)[:, None] + self.pair_audio(audio)[None])
        logits: Tensor = self.pair_logit(pairs).squeeze(2)
        return logits

    def heard(self, sounds: Tensor, activation: Tensor) -> Tensor:
        """Return what sounds say of each class: (k, C, p), L2-normalized."""
        return F.normalize(self.audio_projection(activated_features(sounds, activation)), dim=2)

    def seen(self, features: Tensor, activation: Tensor) -> Tensor:
        """Return what frames show of each class: (k, C, p), L2-normalized."""
        return F.normalize(self.visual_projection(activated_features(features, activation)), dim=2)

    def cells(self, features: Tensor) -> Tensor:
        """Return the cells of frames in the space of `heard` and `seen`: (k, h, w, p), L2-normalized."""
        return F.normalize(self.visual_projection(features.permute(0, 2, 3, 1)), dim=3)


class MSSL(Method):
    """Both stages, or the first one.

    Parameters
    ----------
    settings : MSSLSettings
        UnlabeledSettings for `UnlabeledMSSL`.
    stage_two : bool
        The last epochs, by `stage_two_share`, also learn by stage II.
    eq2 : bool
        The map is the response ⟨V, a⟩; for stage I only.
    eq1 : bool
        Min-max normalization of the maps.
    """

    Settings: ClassVar[type[IterationSettings]] = MSSLSettings

    def __init__(
        self, settings: CommonSettings, *, stage_two: bool = False, eq2: bool = False, eq1: bool = False
    ) -> None:
        self.settings = settings
        self.labeled = isinstance(settings, LabeledSettings)
        self.second = settings if stage_two and isinstance(settings, MSSLSettings) else None
        if stage_two and (eq2 or self.second is None):
            raise ValueError("stage II needs labels, and has a map of its own")
        self.eq2 = eq2
        self.normalization: Literal["min-max", "relu-max"] = "min-max" if eq1 else "relu-max"

    def prepare(self, model: AudioVisualModel, *, n_clips: int, classes: Sequence[str]) -> None:
        """Make the heads; without labels the class layers are for so many classes as the settings say."""
        settings = self.settings
        n_classes = settings.untrained_classes if isinstance(settings, UnlabeledSettings) else len(classes)
        heads = Heads(model, hidden=settings.hidden, n_classes=n_classes)
        if self.second:
            heads.add_projections(model, hidden=self.second.projection_hidden, dim=self.second.projection_dim)
        model.heads[HEADS] = heads

    def start_epoch(
        self, model: AudioVisualModel, shards: ShardSet, labels: PseudoLabels | None, *, epoch: int, seed: int
    ) -> Mapping[str, NamedArray]:
        """Note in the model whether this epoch belongs to stage II."""
        if self.second:
            last = math.ceil(self.second.stage_two_share * self.second.epochs)
            _heads(model).stage_two.fill_(epoch > self.second.epochs - last)
        return {}

    def loss(self, model: AudioVisualModel, batch: Batch) -> Tensor:
        """Correspondence; with labels also the classes of frames and sounds, and in stage II their alignment."""
        features, sounds = model.visual_features(batch.frames), model.audio_maps(batch.log_mel)
        visual = model.project_frames(features).mean(dim=(2, 3))
        audio = model.project_audio(model.pool_audio(sounds))
        with torch.autocast(features.device.type, enabled=False):
            heads = _heads(model)
            loss = correspondence_loss(heads.correspondence(visual, audio))
            if self.labeled:
                if batch.targets is None:
                    raise ValueError("this row of MSSL needs the clips' labels, the batch has none")
                features, sounds = features.float(), sounds.float()
                seen, heard = heads.visual_classes(features), heads.audio_classes(sounds)
                for maps in (seen, heard):
                    loss = loss + classification_loss(maps.mean(dim=(2, 3)), batch.targets)
                if self.second and heads.stage_two:
                    loss = loss + alignment_loss(
                        heads.heard(sounds, F.relu(heard.detach())),
                        heads.seen(features, F.relu(seen.detach())),
                        audible=present(heard, threshold=self.second.class_threshold),
                        visible=present(seen, threshold=self.second.class_threshold),
                        margin=self.second.margin,
                    )
        return loss

    def localize(self, model: AudioVisualModel, frames: Tensor, log_mel: Tensor) -> tuple[Tensor, Tensor]:
        """Return the row's map, before it is normalized (see the module), and a of Eq. 1."""
        if self.eq2:
            return localize_by_response(model, frames, log_mel)
        heads, features, sounds = _heads(model), model.visual_features(frames), model.audio_maps(log_mel)
        heard = heads.audio_classes(sounds)
        maps = heads.visual_classes(features)
        usable = None
        if heads.stage_two:
            # n C p, n h w p -> n C h w
            maps = torch.einsum("ncp,nhwp->nchw", heads.heard(sounds, F.relu(heard)), heads.cells(features))
            usable = active(heard)
        weights = class_weights(heard.mean(dim=(2, 3)), threshold=self.settings.class_threshold, usable=usable)
        audio = F.normalize(model.project_audio(model.pool_audio(sounds)), dim=1)
        return weighted_map(maps, weights), audio


class UnlabeledMSSL(MSSL):
    """Stage I without labels: the correspondence alone."""

    Settings: ClassVar[type[IterationSettings]] = UnlabeledSettings


def _heads(model: AudioVisualModel) -> Heads:
    return cast(Heads, model.heads[HEADS])


def _projection(channels: int, hidden: int, dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, dim))
