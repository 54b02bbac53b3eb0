"""One training run: its specification, its data, its device and its method."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch

from pipeline.common.seeding import derive_seed
from pipeline.methods.base import Batch, Method
from pipeline.methods.build import build_method
from pipeline.methods.trained_model import TrainedModel
from pipeline.model.encoders import AudioVisualModel
from pipeline.pseudo_labels.artifact import PseudoLabels
from pipeline.shards.reader import ShardSet
from pipeline.training.batches import PreviousEpoch, training_batches
from pipeline.training.diagnostics import diagnose
from pipeline.training.history import label_measures
from pipeline.training.live.writers import Log
from pipeline.training.run_folder import RunFolder
from pipeline.training.spec import RunSpec

EpochHook = Callable[[int, TrainedModel], None]  # gets an epoch that ends, before it is saved, and the model


def no_hook(epoch: int, model: TrainedModel) -> None:
    """Do nothing at the end of an epoch."""


@dataclass(frozen=True)
class TrainingRun:
    """The fixed inputs of a run. What changes during training is in `pipeline.training.state.TrainingState`.

    Attributes
    ----------
    spec : RunSpec
    shards : ShardSet
        The training split.
    device : torch.device
    compiled : bool
        Whether torch.compile compiles the backbones.
    on_epoch : callable
        Called at the end of each epoch. It may raise to end the run; the model must stay as it is.
    live : str
        Which log to write while training, see `pipeline.training.live.writers`.
    """

    spec: RunSpec
    shards: ShardSet
    device: torch.device
    on_epoch: EpochHook = no_hook
    live: Log = "off"
    compiled: bool = False

    @property
    def folder(self) -> RunFolder:
        """The folder that the run is written to."""
        return self.spec.folder

    @property
    def epochs(self) -> int:
        """Number of epochs; the most, with `until_converged`."""
        return self.spec.iteration.epochs

    @property
    def n_pairs(self) -> int:
        """Number of pairs per epoch, without an incomplete last batch."""
        return self.n_steps * self.spec.batch_size

    @property
    def n_steps(self) -> int:
        """Number of steps per epoch."""
        return len(self.shards) // self.spec.batch_size

    @cached_property
    def method(self) -> Method:
        """The method to train."""
        return build_method(self.spec.method, self.spec.iteration)

    def batches(self, epoch: int, *, cell_stride: int, labels: PseudoLabels | None) -> Iterator[Batch]:
        """Yield the augmented batches of an epoch, with R̃ and y (Eq. 6) from the previous epoch's pseudo-labels."""
        spec = self.spec
        return training_batches(
            self.shards,
            batch_size=spec.batch_size,
            augmentation=spec.augmentation,
            cell_stride=cell_stride,
            key=spec.rng_key(epoch),
            previous=self._previous_epoch(labels),
            targets=spec.classes.targets if spec.classes else None,
            device=self.device,
            epoch=epoch,
        )

    def diagnose(self, model: AudioVisualModel) -> dict[str, float]:
        """Look for a collapse of the model on a sample of the training clips, see `pipeline.training.diagnostics`."""
        trained = TrainedModel(model, self.method)
        return diagnose(trained, self.shards, batch_size=self.spec.batch_size, device=self.device)

    def measure(
        self, model: AudioVisualModel, labels: PseudoLabels | None, previous: PseudoLabels | None
    ) -> dict[str, float]:
        """Return what `history.csv` has about the pseudo-labels of an epoch, those of the previous one, and the model."""
        return label_measures(labels, previous) | self.diagnose(model)

    def start_seed(self, epoch: int) -> int:
        """Return the seed for `Method.start_epoch`."""
        return derive_seed(*self.spec.rng_key(epoch), "start")

    def _previous_epoch(self, labels: PseudoLabels | None) -> PreviousEpoch | None:
        if labels is None:
            return None
        iteration = self.spec.iteration
        related_by = [labels] if iteration.relation_from != "initialization" else []
        if iteration.relation_from != "previous":
            related_by.append(PseudoLabels.open(self.folder.labels(0)))
        return PreviousEpoch.of(
            labels,
            self.shards,
            delta_a=iteration.delta_a,
            center_audio=iteration.center_audio,
            share=iteration.relation_share,
            related_by=related_by,
        )
