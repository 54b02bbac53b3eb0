"""The interface of a method: its loss, how it reads a response map, and what it does before an epoch.

Encoders, shards, the training loop, checkpoints and evaluation are shared by all methods. A new method is one file with a class
that implements `Method`, and one entry in `pipeline.methods.registry`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from pipeline.common.config import IterationSettings
from pipeline.common.hdf5 import NamedArray
from pipeline.model.encoders import AudioVisualModel
from pipeline.pseudo_labels.artifact import PseudoLabels
from pipeline.shards.reader import ShardSet


@dataclass(frozen=True)
class Batch:
    """k training pairs.

    Attributes
    ----------
    frames : Tensor (k, 3, H, W) uint8 or float32, 0..255
    log_mel : Tensor (k, mel, time) float32
    rows : np.ndarray (k,) int64
        Positions of the clips in the shards.
    previous_response : Tensor (k, h, w) float32 in [0, 1], or None
        R̃ of the previous epoch, augmented like `frames`; None before there are pseudo-labels.
    relation : Tensor (k, k) bool, or None
        y of Eq. 6, from the previous epoch's audio embeddings.
    targets : Tensor (k, classes) float32 in [0, 1], or None
        Class labels of the clips; None for methods that learn without labels.
    generator : torch.Generator
        On the CPU, for the method's own random draws.
    """

    frames: Tensor
    log_mel: Tensor
    rows: np.ndarray
    previous_response: Tensor | None
    relation: Tensor | None
    targets: Tensor | None
    generator: torch.Generator


class Method(Protocol):
    """One way to train the model and to read a response map from it. Methods keep no state: state lives in `model.heads`.

    Attributes
    ----------
    Settings : type
        Class of the method's settings. A subclass of IterationSettings adds settings of its own, with defaults; a subclass of
        LabeledSettings declares that the method learns from class labels, which it then gets as `Batch.targets`.
    normalization : str or None
        The method's own normalization of its maps; None leaves it to the scoring protocol.
    """

    Settings: ClassVar[type[IterationSettings]] = IterationSettings
    normalization: Literal["min-max", "relu-max"] | None = None

    def prepare(self, model: AudioVisualModel, *, n_clips: int, classes: Sequence[str]) -> None:
        """Add the method's own layers and buffers to `model.heads`. Called once, before weights are loaded or trained.

        Parameters
        ----------
        model : AudioVisualModel
        n_clips : int
            Clips of the training set.
        classes : sequence of str
            Names of the classes, in the order of `Batch.targets`.
        """
        return

    def start_epoch(
        self, model: AudioVisualModel, shards: ShardSet, labels: PseudoLabels | None, *, epoch: int, seed: int
    ) -> Mapping[str, NamedArray]:
        """Do what an epoch needs first, such as clustering the training set; results go into buffers of `model.heads`.

        Parameters
        ----------
        model : AudioVisualModel
            On its device, with the weights at the end of the previous epoch; weights and statistics must not change.
        shards : ShardSet
            The training set.
        labels : PseudoLabels or None
            Of the previous epoch.
        epoch : int
            The epoch that starts; 1 is the first after the initialization.
        seed : int
            For everything random here.

        Returns
        -------
        mapping of str to (axes, array)
            What is worth storing for inspection, beside `clip_id` along the axis "clip"; written to
            ``pseudo_labels/start_NNN.h5``. An empty mapping writes nothing.
        """
        return {}

    def loss(self, model: AudioVisualModel, batch: Batch) -> Tensor:
        """Return the scalar to minimize on one batch."""
        ...

    def localize(self, model: AudioVisualModel, frames: Tensor, log_mel: Tensor) -> tuple[Tensor, Tensor]:
        """Return raw response maps R (n, h, w) and L2-normalized audio embeddings a (n, d) of un-augmented pairs.

        One call returns both, because nearly every map needs the embedding, which the pseudo-labels store.
        """
        ...

    def class_maps(self, model: AudioVisualModel, frames: Tensor, log_mel: Tensor) -> Tensor | None:
        """Return one map (n, c, h, w) for each cluster that the method found, in [0, 1]; None for a method without clusters."""
        return None

    def audio_clusters(self, model: AudioVisualModel) -> np.ndarray | None:
        """Return the cluster distribution of the audio of every training clip (clip, cluster); None without clusters."""
        return None
