"""Dot plots: rows of a comparison, one below the other, in panels that share them. Conventions: `pipeline.figures.style`.

The rows of a group have one color. A value is a vertical stroke, its interval a bar, and each seed a dot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.figures.style import COLORS, FONT_SIZE, GRAY, GRID_GRAY, new_figure

ROW_HEIGHT = 0.25  # inches
PUBLISHED_MARKERS = "Ds^v"


@dataclass(frozen=True)
class Dots:
    """A measured value.

    Attributes
    ----------
    value, low, high : float
        Mean and ends of its interval.
    seeds : sequence of float
        The value of each seed; empty if there are none.
    """

    value: float
    low: float
    high: float
    seeds: Sequence[float] = ()


@dataclass(frozen=True)
class DotPanel:
    """One set of axes.

    Attributes
    ----------
    title, x_label : str
    measured : mapping of str to Dots
        Row → value. Rows without one stay empty.
    printed : mapping of str to mapping
        Series → row → values to show as open markers, without intervals; a legend names the series.
    """

    title: str
    x_label: str
    measured: Mapping[str, Dots]
    printed: Mapping[str, Mapping[str, Sequence[float]]]


def dot_panels(groups: Mapping[str, Sequence[str]], panels: Sequence[DotPanel]) -> Figure:
    """Return panels side by side.

    Parameters
    ----------
    groups : mapping of str to sequence of str
        Title of a group → its rows, from top to bottom; rows have different names. The last group is drawn gray.
    panels : sequence of DotPanel
        Each has its own horizontal axis, from 0.
    """
    places, titles = _places(groups)
    colors = dict(zip(groups, [*COLORS[: len(groups) - 1], GRAY], strict=True))
    figure = new_figure(
        width=2.6 + 2.1 * len(panels), height=1.1 + ROW_HEIGHT * (len(places) + len(titles)), layout="constrained"
    )
    for number, (axes, panel) in enumerate(
        zip(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels, strict=True)
    ):
        for title, rows in groups.items():
            for row in rows:
                if row in panel.measured:
                    _draw_row(axes, places[row], panel.measured[row], color=colors[title])
        _draw_printed(axes, places, panel.printed)
        _style(axes, panel)
        if number == 0:
            _label(axes, places, titles, colors)
    handles = {
        label: handle for axes in figure.axes for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    if handles:
        figure.legend(
            list(handles.values()), list(handles), loc="outside lower right", ncols=2, frameon=False, fontsize=FONT_SIZE
        )
    return figure


def _places(groups: Mapping[str, Sequence[str]]) -> tuple[dict[str, int], dict[str, int]]:
    """Return the vertical position of each row and of each group's title."""
    places: dict[str, int] = {}
    titles: dict[str, int] = {}
    position = 0
    for title, rows in groups.items():
        titles[title] = position
        for row in rows:
            position += 1
            places[row] = position
        position += 1
    return places, titles


def _draw_row(axes: Axes, y: int, dots: Dots, *, color: str) -> None:
    axes.plot([dots.low, dots.high], [y, y], color=color, linewidth=6, alpha=0.3, solid_capstyle="butt")
    axes.plot([dots.value], [y], color=color, marker="|", markersize=10, markeredgewidth=2)
    axes.scatter(dots.seeds, np.full(len(dots.seeds), y), s=14, color=color, edgecolor="white", linewidth=0.5, zorder=3)


def _draw_printed(axes: Axes, places: Mapping[str, int], printed: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    for series, (name, rows) in enumerate(printed.items()):
        points = [(value, places[row]) for row, values in rows.items() for value in values if row in places]
        x, y = zip(*points, strict=True) if points else ((), ())
        marker = PUBLISHED_MARKERS[series % len(PUBLISHED_MARKERS)]
        axes.scatter(
            x, y, marker=marker, s=26, facecolor="white", edgecolor="black", linewidth=1.1, label=name, clip_on=False
        )


def _style(axes: Axes, panel: DotPanel) -> None:
    axes.set_title(panel.title, fontsize=FONT_SIZE + 1.5, loc="left")
    axes.set_xlabel(panel.x_label, fontsize=FONT_SIZE + 0.5)
    right = axes.get_xlim()[1]
    # A little to the left of 0, so that a stroke at 0 is not on the edge.
    axes.set_xlim(-0.02 * right, right)
    axes.tick_params(labelsize=FONT_SIZE)
    axes.tick_params(axis="y", length=0)
    axes.grid(color=GRID_GRAY, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _label(axes: Axes, places: Mapping[str, int], titles: Mapping[str, int], colors: Mapping[str, str]) -> None:
    """Write the names of rows and groups at the left of the first panel."""
    axes.set_yticks([*titles.values(), *places.values()], [*titles, *places], fontsize=FONT_SIZE + 0.5)
    axes.set_ylim(max(places.values()) + 0.7, -0.6)
    for label, color in zip(axes.get_yticklabels(), colors.values(), strict=False):
        label.set_fontweight("bold")
        label.set_color(color)
