"""Line plots over a number, such as the epoch or a setting. Conventions: `pipeline.figures.style`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from pipeline.figures.style import COLORS, FONT_SIZE, GRAY, GRID_GRAY, MARKERS, new_figure


@dataclass(frozen=True)
class Line:
    """One line of a panel.

    Attributes
    ----------
    label : str
        Lines with the same label have the same color in every panel.
    x, y : sequence of float
        NaN leaves a gap.
    low, high : sequence of float
        Ends of the interval around each value; empty if there is none.
    reference : bool
        Whether it is drawn gray and dashed, for comparison with the other lines.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    reference: bool = False


@dataclass(frozen=True)
class LinePanel:
    """One set of axes with its lines."""

    title: str
    x_label: str
    lines: Sequence[Line]


def line_panels(panels: Sequence[LinePanel]) -> Figure:
    """Return panels side by side with a common legend. Vertical axes start at 0."""
    figure = new_figure(width=3.1 * len(panels) + 2.4, height=3.4, layout="constrained")
    # Colors follow the first appearance of a label in any panel.
    labels = list(dict.fromkeys(line.label for panel in panels for line in panel.lines if not line.reference))
    handles: dict[str, Line2D] = {}
    for axes, panel in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True):
        for line in panel.lines:
            if line.reference:
                (handle,) = axes.plot(line.x, line.y, color=GRAY, linestyle="--", linewidth=1.2)
            else:
                place = labels.index(line.label)
                color, marker = COLORS[place % len(COLORS)], MARKERS[place % len(MARKERS)]
                (handle,) = axes.plot(line.x, line.y, linewidth=1.6, markersize=4, color=color, marker=marker)
                if len(line.low):
                    axes.fill_between(line.x, line.low, line.high, color=color, alpha=0.15, linewidth=0)
            handles.setdefault(line.label, handle)
        axes.set_title(panel.title, fontsize=FONT_SIZE + 0.5)
        axes.set_xlabel(panel.x_label, fontsize=FONT_SIZE)
        axes.tick_params(labelsize=FONT_SIZE - 1)
        axes.set_ylim(bottom=0)
        # No tick at epoch 2.5.
        if all(float(x).is_integer() for line in panel.lines for x in line.x):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(color=GRID_GRAY, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(
        list(handles.values()), list(handles), loc="outside right upper", frameon=False, fontsize=FONT_SIZE - 0.5
    )
    return figure
