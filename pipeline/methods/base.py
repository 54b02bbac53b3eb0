"""The interface of a method: its loss, how it reads a response map, and what it computes before an epoch.

All methods share the encoders, shards, training loop, checkpoints and evaluation. To add a method, write one file with a class that
implements `Method`, and add an entry to `pipeline.methods.registry`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from pipeline.common.config import OURS, IterationSettings
from pipeline.common.hdf5 import NamedArray
from pipeline.model.encoders import AudioVisualModel
from pipeline.pseudo_labels.artifact import PseudoLabels
from pipeline.shards.reader import ShardSet


@dataclass(frozen=True)
class Batch:
    """k training pairs.

    If several ranks train together, `frames` and `log_mel` have this rank's part of the pairs. The backbones of a model in training mode
    return the features of all (see `pipeline.model.ranks`), and everything else in a batch has all pairs as well.

    Attributes
    ----------
    frames : Tensor (k, 3, H, W) uint8 or float32, 0..255
        Or stored features of a frozen backbone, (k, channels, h, w) float16; `AudioVisualModel.visual_features` takes both.
    log_mel : Tensor (k, mel, time) float32
        Or stored features of a frozen backbone, (k, channels, mel', time') float16; `AudioVisualModel.audio_maps` takes both.
    rows : np.ndarray (k,) int64
        Indices of the clips in the shards.
    previous_response : Tensor (k, h, w) float32 in [0, 1], or None
        R̃ of the previous epoch, augmented like `frames`; None if there are no pseudo-labels of it.
    relation : Tensor (k, k) bool, or None
        y of Eq. 6, from the previous epoch's audio embeddings.
    targets : Tensor (k, 2, classes) float32 in [0, 1], or None
        Class labels of the frames, ``[:, 0]``, and of the audio, ``[:, 1]``; NaN where unknown. None for methods that learn without
        class labels.
    generator : torch.Generator
        For the method's own random draws; on the CPU.
    epoch : int
        The epoch that the batch is part of; the first is 1.
    """

    frames: Tensor
    log_mel: Tensor
    rows: np.ndarray
    previous_response: Tensor | None
    relation: Tensor | None
    targets: Tensor | None
    generator: torch.Generator
    epoch: int = 1


class Method(Protocol):
    """One way to train the model and to read a response map from it. Methods are stateless: state is in `model.heads`.

    Attributes
    ----------
    Settings : type
        Class of the method's settings. A subclass of IterationSettings adds settings, with defaults. A subclass of
        LabeledSettings declares that the method learns from class labels, which it gets as `Batch.targets`.
    reads_labels : bool
        Whether the method learns from the pseudo-labels of the previous epoch: from `Batch.previous_response` or `Batch.relation`, or in
        `start_epoch`. Without, the training set is labeled only after the epochs whose weights are kept (`keep_epochs`), for inspection;
        in the epochs after the others, these arguments are None.
    normalization : str or None
        How the method normalizes its maps; None leaves the choice to the scoring protocol.
    """

    Settings: ClassVar[type[IterationSettings]] = IterationSettings
    reads_labels: ClassVar[bool] = True
    normalization: Literal["min-max", "relu-max"] | None = None

    @classmethod
    def unread(cls, **switches: bool) -> frozenset[str]:
        """Return which of `OURS`, the settings that the paper does not have, the method does not read with these constructor switches.

        A method that does not train on the previous epoch's maps does not converge in the paper's sense, so it does not read
        `until_converged`, and trains all `epochs`.
        """
        return frozenset(OURS)

    def check(self, *, n_clips: int, cells: int) -> None:
        """Raise SettingsError if the settings do not suit the data. Called before anything is trained.

        Parameters
        ----------
        n_clips : int
            Number of training clips.
        cells : int
            Cells per side of a response map that its frame fills entirely.
        """

    def prepare(self, model: AudioVisualModel, *, n_clips: int, classes: Sequence[str]) -> None:
        """Add the method's own layers and buffers to `model.heads`. Called once, before weights are loaded or trained.

        Parameters
        ----------
        model : AudioVisualModel
        n_clips : int
            Number of training clips.
        classes : sequence of str
            Class names, in the order of the last axis of `Batch.targets`.
        """
        return

    def start_epoch(
        self, model: AudioVisualModel, shards: ShardSet, labels: PseudoLabels | None, *, epoch: int, seed: int
    ) -> Mapping[str, NamedArray]:
        """Compute what the epoch needs, such as clusters of the training set, and store it in buffers of `model.heads`.

        Parameters
        ----------
        model : AudioVisualModel
            With the weights at the end of the previous epoch, which must not change, nor may the BatchNorm statistics.
        shards : ShardSet
            The training set.
        labels : PseudoLabels or None
            Pseudo-labels of the previous epoch, see `reads_labels`.
        epoch : int
            The epoch that starts; 1 is the first after the initialization.
        seed : int
            Seed for any randomness.

        Returns
        -------
        mapping of str to (axes, array)
            Arrays to store for inspection in ``pseudo_labels/start_NNN.h5``, together with `clip_id` along the axis "clip".
            If empty, nothing is written.
        """
        return {}

    def loss(self, model: AudioVisualModel, batch: Batch) -> Tensor:
        """Return the scalar to minimize on one batch."""
        ...

    def uninformed_loss(self, model: AudioVisualModel, batch: Batch) -> Tensor | float:
        """Return the value of `loss` for an uninformed model, in closed form; NaN if there is none.

        Such a model returns the same features for every frame, cell and audio, with what is free chosen to minimize the loss: for a
        margin loss the distance of all pairs, for a classifier the class frequencies of the batch. It is the yardstick of `loss`,
        which differs between methods and settings: training that ends there has collapsed, or has not begun to learn.
        """
        return math.nan

    def localize(self, model: AudioVisualModel, frames: Tensor, log_mel: Tensor) -> tuple[Tensor, Tensor]:
        """Return raw response maps R (n, h, w) and L2-normalized audio embeddings a (n, d) of un-augmented pairs.

        One call returns both: pseudo-labels store both, and nearly every map is computed from the embedding. `frames` and
        `log_mel` may be stored features, as in a `Batch`.
        """
        ...

    def class_maps(self, model: AudioVisualModel, frames: Tensor, log_mel: Tensor) -> Tensor | None:
        """Return one map per cluster, (n, c, h, w) in [0, 1]; None for a method without clusters."""
        return None

    def audio_clusters(self, model: AudioVisualModel) -> np.ndarray | None:
        """Return the cluster distribution of every training clip's audio, (clip, cluster); None for a method without clusters."""
        return None
