"""What a run prints: one line when it starts and one per epoch, also where no progress bar can be shown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from tqdm import tqdm

from pipeline.common.config import Convergence
from pipeline.common.console import report
from pipeline.training.diagnostics import collapse

Row = Mapping[str, float]


def report_start(name: str, *, epochs: int, n_steps: int, batch_size: int, up_to: bool) -> None:
    """Print how long the run will be; `up_to` says that it may converge earlier."""
    limit = "up to " if up_to else ""
    report(
        f"{name}: training {limit}{epochs} {'epoch' if epochs == 1 else 'epochs'} of {n_steps} steps, {batch_size} clips each"
    )


def report_epoch(name: str, rows: Sequence[Row], *, epochs: int) -> None:
    """Print the last epoch to stderr, above a progress bar if there is one, and a warning if it is the first that shows a collapse.

    ``history.csv`` and ``timings.csv`` have everything; the line has what tells a run that learns from one that does not.
    """
    row = rows[-1]
    shown = {
        "loss": f"loss {row['loss']:.4g}",
        "mask_iou_previous": f"mask IoU {row['mask_iou_previous']:.3f}",
        "pairs_per_second": f"{row['pairs_per_second']:.4g} clips/s",
        "seconds": f"took {tqdm.format_interval(row['seconds'])}" if not math.isnan(row["seconds"]) else "",
    }
    values = [text for column, text in shown.items() if not math.isnan(row[column])]
    left = seconds_left(rows, epochs=epochs)
    if left:
        values.append(f"{tqdm.format_interval(left)} left")
    report(f"{name}: epoch {row['epoch']:g} of {epochs}: {', '.join(values)}")
    signs = [collapse(row) for row in rows]
    if signs[-1] and not any(signs[:-1]):
        report(f"warning: {name}, epoch {len(rows) - 1}: {signs[-1]}")


def report_convergence(name: str, rows: Sequence[Row], rule: Convergence) -> None:
    """Print that the run ends before its last epoch, and why."""
    reached = ", ".join(f"{row['mask_iou_previous']:.3f}" for row in rows[-rule.patience :])
    report(f"{name}: converged after epoch {len(rows) - 1}: mask IoU {reached}, at least {rule.mask_iou:g}")


def seconds_left(rows: Sequence[Row], *, epochs: int) -> float:
    """Return the seconds that the epochs after the last row take, if each takes as long as that one; 0 if that is unknown."""
    seconds = rows[-1]["seconds"]
    return 0.0 if math.isnan(seconds) else seconds * (epochs - (len(rows) - 1))
