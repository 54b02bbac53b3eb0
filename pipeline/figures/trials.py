"""The trials of a search: for each row its trials as dots, and the best so far as a line."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipeline.figures.style import COLORS, FONT_SIZE, GRAY, GRID_GRAY, new_figure

COLUMNS = 4


@dataclass(frozen=True)
class TrialDot:
    """One trial.

    Attributes
    ----------
    number : int
    state : str
        "complete", "pruned" or "failed".
    score : float or None
        In [0, 1].
    """

    number: int
    state: str
    score: float | None


def trial_panels(rows: Mapping[str, Sequence[TrialDot]], *, metric: str) -> Figure:
    """Return one panel per row, on a common scale in percent. A cross is a trial that failed, an open dot one that was pruned."""
    n_columns = min(COLUMNS, len(rows))
    n_lines = math.ceil(len(rows) / n_columns)
    figure = new_figure(width=2.5 * n_columns + 0.6, height=1.9 * n_lines + 0.5, layout="constrained")
    panels = np.atleast_1d(figure.subplots(n_lines, n_columns, sharex=True, sharey=True)).ravel()
    for axes, (row, trials) in zip(panels, rows.items(), strict=False):
        _draw(axes, trials)
        axes.set_title(row, fontsize=FONT_SIZE)
    # After all rows are drawn: setting a limit ends the scaling to the data, in all panels because they share the axis.
    panels[0].set_ylim(0, 1.06 * max(100 * (trial.score or 0) for trials in rows.values() for trial in trials) or 1)
    for axes in panels[len(rows) :]:
        axes.set_visible(False)
    figure.supxlabel("trial; 0 has the settings of params.yaml", fontsize=FONT_SIZE)
    figure.supylabel(f"{metric} on validation, %", fontsize=FONT_SIZE)
    return figure


def _draw(axes: Axes, trials: Sequence[TrialDot]) -> None:
    def points(state: str) -> tuple[list[int], list[float]]:
        chosen = [trial for trial in trials if trial.state == state]
        return [each.number for each in chosen], [100 * (each.score or 0) for each in chosen]

    numbers, scores = points("complete")
    axes.scatter(numbers, scores, s=16, color=COLORS[0], zorder=3)
    axes.scatter(*points("pruned"), s=16, facecolors="none", edgecolors=COLORS[0], zorder=3)
    axes.scatter(*points("failed"), s=22, marker="x", color=COLORS[1], zorder=3, clip_on=False)
    if scores:
        axes.step(numbers, np.maximum.accumulate(scores), where="post", color=GRAY, linewidth=1.2)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(labelsize=FONT_SIZE - 1)
    axes.grid(color=GRID_GRAY, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
