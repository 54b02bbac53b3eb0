"""What a method is: all in which one system of the tables differs from another.

Encoders, shards, the loop, checkpoints and evaluation are shared. A new method is one file with a class that fulfils
`Method`, and one entry in `pipeline.methods.METHODS`.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from pipeline.batches import Batch
from pipeline.encoders import AudioVisualModel
from pipeline.pseudo_labels import PseudoLabels
from pipeline.shards import ShardSet


class Method(Protocol):
    """A way to train the model, and to read a response map from it. Methods keep no state: it belongs in the model."""

    def prepare(self, model: AudioVisualModel) -> None:
        """Put layers of the method's own into `model.heads`. Called once, before weights are loaded or trained."""
        return

    def start_epoch(self, model: AudioVisualModel, shards: ShardSet, labels: PseudoLabels | None) -> None:
        """Do what an epoch needs first, such as clustering the training set; results go into buffers of `model.heads`."""
        return

    def loss(self, model: AudioVisualModel, batch: Batch) -> Tensor:
        """Return the scalar to minimise on one batch."""
        ...

    def localize(self, model: AudioVisualModel, frames: Tensor, log_mel: Tensor) -> tuple[Tensor, Tensor]:
        """Return raw response maps R (n, h, w) and L2-normalised audio embeddings a (n, d) of un-augmented pairs.

        Both come from one call, because nearly every map needs the embedding, which the pseudo-labels keep.
        """
        ...
