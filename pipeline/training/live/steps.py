"""The steps of one epoch: their losses, and the progress bar.

A GPU computes while the program continues. Reading a loss waits for it, so the losses stay on the device and are read every
READ_EVERY steps and at the end of the epoch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import TracebackType

import numpy as np
from torch import Tensor
from tqdm import tqdm

from pipeline.common.errors import DivergenceError
from pipeline.methods.base import Batch

READ_EVERY = 20  # steps
OnRead = Callable[[Sequence[float]], None]


def no_reader(losses: Sequence[float]) -> None:
    """Do nothing with losses."""


class EpochSteps:
    """Collects the steps of one epoch. A context manager: at the end of the block all steps have been read.

    Parameters
    ----------
    name : str
        The run and the epoch, for errors.
    kept : str
        What an error says about earlier epochs.
    bar : tqdm, optional
        Moves by the pairs of each step, and is closed at the end.
    on_read : callable
        Gets losses in the order of the steps, each once.
    """

    def __init__(self, name: str, *, kept: str, bar: tqdm | None = None, on_read: OnRead = no_reader) -> None:
        self._name, self._kept = name, kept
        self._bar, self._on_read = bar, on_read
        self._unread: list[tuple[Tensor, Tensor | float, Tensor | None, int]] = []
        self._losses: list[float] = []
        self._uninformed: list[float] = []
        self._positives: list[float] = []

    def __call__(self, batch: Batch, loss: Tensor, uninformed: Tensor | float) -> None:
        """Take over one step, after the step of the optimizer.

        Parameters
        ----------
        batch : Batch
        loss : Tensor, scalar
            On any device; not read yet.
        uninformed : Tensor or float
            See `Method.uninformed_loss`.

        Raises
        ------
        DivergenceError
            The loss of this or one of the last READ_EVERY steps is not finite.
        """
        related = None if batch.relation is None else batch.relation.sum()
        self._unread.append((loss.detach(), uninformed, related, len(batch.rows)))
        if len(self._unread) == READ_EVERY:
            self._read()
        if self._bar is not None:
            self._bar.update(len(batch.rows))

    def __enter__(self) -> EpochSteps:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            # A loss that is not finite is the cause of errors in later steps, so it is reported in their place.
            if error is None or (isinstance(error, Exception) and not isinstance(error, DivergenceError)):
                self._read()
        finally:
            if self._bar is not None:
                self._bar.close()

    def measures(self) -> dict[str, float]:
        """Return what ``history.csv`` has about the batches: `loss`, `loss_share` and `positives_per_clip`."""
        loss, loss_of_nothing = float(np.mean(self._losses)), float(np.mean(self._uninformed))
        return {
            "loss": loss,
            "loss_share": loss / loss_of_nothing if loss_of_nothing else math.nan,
            "positives_per_clip": float(np.mean(self._positives)) if self._positives else math.nan,
        }

    def _read(self) -> None:
        steps, self._unread = self._unread, []
        before = len(self._losses)
        for loss, uninformed, related, k in steps:
            value = float(loss)
            if not math.isfinite(value):
                raise DivergenceError(
                    f"{self._name}, batch {len(self._losses) + 1}: the loss is {value}; lower the learning rate or raise the "
                    f"temperature. {self._kept}"
                )
            self._losses.append(value)
            self._uninformed.append(float(uninformed))
            if related is not None:
                self._positives.append(float(related) / k - 1)
        if steps:
            self._on_read(self._losses[before:])
