"""Log of a run: ``history.csv``, which is reproducible, and ``timings.csv``, which is not.

Columns of the history: steps of the optimizer so far; mean loss; the same as a share of the loss of an uninformed model
(`Method.uninformed_loss`); mean IoU of the sounding masks with those of the previous epoch; mean fraction of sounding cells; mean number
of other clips that Eq. 6 relates to a clip; and `pipeline.training.diagnostics.COLUMNS`. Row 0, before the first epoch, has the
diagnostics only. Columns of the timings: seconds of the epoch; pairs per second of training; fraction of training spent waiting for
batches; fraction of the epoch spent labeling the training set.
"""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from pipeline.common.config import Convergence
from pipeline.common.errors import TrainingError
from pipeline.common.files import write_csv
from pipeline.pseudo_labels.artifact import PseudoLabels
from pipeline.training.diagnostics import COLUMNS as DIAGNOSTICS

# Timings have their own file, so that all other files of a run are reproducible byte by byte.
OF_LABELS = ("mask_iou_previous", "sounding_fraction", "positives_per_clip")
HISTORY = ("epoch", "steps", "loss", "loss_share", *OF_LABELS, *DIAGNOSTICS)
TIMINGS = ("epoch", "seconds", "pairs_per_second", "data_wait_fraction", "label_pass_fraction")
LOGGED = HISTORY + TIMINGS[1:]

Item = TypeVar("Item")


class Waited(Iterator[Item]):
    """Iterate over items, and add up in `seconds` how long the caller waits for them.

    This includes everything on the caller's thread until the item is returned, but not pending work on a GPU.
    """

    def __init__(self, items: Iterable[Item]) -> None:
        self._items = iter(items)
        self.seconds = 0.0

    def __next__(self) -> Item:
        start = time.perf_counter()
        try:
            return next(self._items)
        finally:
            self.seconds += time.perf_counter() - start


class EpochTimer:
    """Measures the timings of one epoch, which starts when the timer is created."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._trained = self._labeled = self._start
        self._batches: Waited[object] | None = None

    def waiting(self, batches: Iterable[Item]) -> Iterator[Item]:
        """Return the batches, and measure the time spent waiting for them."""
        waited = Waited(batches)
        self._batches = waited  # type: ignore[assignment]
        return waited

    def trained(self) -> None:
        """Mark the end of the training steps; the label pass follows."""
        self._trained = time.perf_counter()

    def labeled(self) -> None:
        """Mark the end of the label pass."""
        self._labeled = time.perf_counter()

    def timings(self, n_pairs: int) -> dict[str, float]:
        """Return the timings of the epoch, which ends now."""
        end = time.perf_counter()
        training = self._trained - self._start
        return {
            "seconds": end - self._start,
            "pairs_per_second": n_pairs / training,
            "data_wait_fraction": (self._batches.seconds if self._batches else 0.0) / training,
            "label_pass_fraction": (self._labeled - self._trained) / (end - self._start),
        }


def label_measures(labels: PseudoLabels | None, previous: PseudoLabels | None) -> dict[str, float]:
    """Return the history's columns about pseudo-labels; NaN if there are none."""
    return {
        "mask_iou_previous": labels.mask_iou(previous) if labels and previous else math.nan,
        "sounding_fraction": float(labels.sounding_fraction.mean()) if labels else math.nan,
    }


def start_row(diagnostics: Mapping[str, float]) -> dict[str, float]:
    """Return row 0 of the history."""
    return {**dict.fromkeys(LOGGED, math.nan), "epoch": 0, "steps": 0, **diagnostics}


def write_history(history_path: Path, timings_path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Write ``history.csv``, one row per epoch and row 0, and ``timings.csv``, one row per epoch."""
    for path, columns, written in ((history_path, HISTORY, rows), (timings_path, TIMINGS, rows[1:])):
        write_csv(path, columns, [[_cell(row[name]) for name in columns] for row in written])


def read_history(path: Path) -> list[dict[str, float]]:
    """Read ``history.csv``: row 0 and one row per epoch. Writing the rows again gives the same file.

    Raises
    ------
    FileNotFoundError
    TrainingError
        The file is damaged.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            header, *lines = csv.reader(file)
        if tuple(header) != HISTORY:
            raise ValueError("other columns")
        rows = [dict(zip(HISTORY, (float(cell or "nan") for cell in line), strict=True)) for line in lines]
        if not rows or [row["epoch"] for row in rows] != list(range(len(rows))):
            raise ValueError("epochs are missing")
    except (ValueError, csv.Error) as error:
        raise TrainingError(f"{path}: damaged ({error}); remove the run's folder and run its stage again") from None
    return rows


def converged(rows: Sequence[Mapping[str, float]], rule: Convergence) -> bool:
    """Return whether the sounding masks have stopped moving: in each of the last `patience` epochs they overlap those of the epoch before."""
    # Row 0 has no epoch before it.
    return len(rows) > rule.patience and all(
        row["mask_iou_previous"] >= rule.mask_iou for row in rows[-rule.patience :]
    )


def _cell(value: float) -> str:
    # Counts of steps have more than six digits in long runs.
    return "" if math.isnan(value) else f"{value:.0f}" if float(value).is_integer() else f"{value:.6g}"
