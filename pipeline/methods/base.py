"""What a method is: all in which one system of the tables differs from another.

Encoders, shards, the loop, checkpoints and evaluation are shared. A new method is one file with a class that fulfils
`Method`, and one entry in `pipeline.methods.METHODS`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, Protocol

from torch import Tensor

from pipeline.common.config import IterationSettings
from pipeline.common.hdf5 import NamedArray
from pipeline.model.encoders import AudioVisualModel
from pipeline.pseudo_labels.artifact import PseudoLabels
from pipeline.shards.reader import ShardSet
from pipeline.training.batches import Batch


class Method(Protocol):
    """A way to train the model, and to read a response map from it. Methods keep no state: it belongs in the model.

    Attributes
    ----------
    Settings : type
        What the method is made from. A subclass of IterationSettings has settings of the method's own, with defaults; one
        of LabeledSettings says that the method learns from the clips' labels, and only then there are any.
    normalization : str or None
        How the method defines its maps where that is not the scoring protocol's own normalization; None leaves it to
        the protocol.
    """

    Settings: ClassVar[type[IterationSettings]] = IterationSettings
    normalization: Literal["min-max", "relu-max"] | None = None

    def prepare(self, model: AudioVisualModel, *, n_clips: int, classes: Sequence[str]) -> None:
        """Put layers and buffers of the method's own into `model.heads`. Called once, before weights are loaded or trained.

        Parameters
        ----------
        model : AudioVisualModel
        n_clips : int
            Clips of the training set.
        classes : sequence of str
            The classes that the clips are labeled with, in the order of `Batch.targets`.
        """
        return

    def start_epoch(
        self, model: AudioVisualModel, shards: ShardSet, labels: PseudoLabels | None, *, epoch: int, seed: int
    ) -> Mapping[str, NamedArray]:
        """Do what an epoch needs first, such as clustering the training set; results go into buffers of `model.heads`.

        Parameters
        ----------
        model : AudioVisualModel
            On its device, with the weights of the end of the epoch before; weights and statistics must stay as they are.
        shards : ShardSet
            The training set.
        labels : PseudoLabels or None
            Of the epoch before.
        epoch : int
            Which one starts; 1 is the first after the initialization.
        seed : int
            From which all that is random here follows.

        Returns
        -------
        mapping of str to (axes, array)
            What is worth keeping for a reader, beside `clip_id` along the axis "clip"; written to
            ``pseudo_labels/start_NNN.h5``. Empty writes nothing.
        """
        return {}

    def loss(self, model: AudioVisualModel, batch: Batch) -> Tensor:
        """Return the scalar to minimize on one batch."""
        ...

    def localize(self, model: AudioVisualModel, frames: Tensor, log_mel: Tensor) -> tuple[Tensor, Tensor]:
        """Return raw response maps R (n, h, w) and L2-normalized audio embeddings a (n, d) of un-augmented pairs.

        Both come from one call, because nearly every map needs the embedding, which the pseudo-labels keep.
        """
        ...
