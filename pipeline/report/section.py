"""What a section of the report hands on: its text, its files, and the chart that the HTML page draws.

Charts hold the numbers themselves, so the page shows exactly what the section wrote to CSV without reading it back.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ChartCurve:
    """One curve of an interactive chart.

    Attributes
    ----------
    label : str
    kind : str
        ``"model"``, ``"shuffled"`` or ``"content_free"``; decides color and dashes.
    values : sequence of float or None
        One per x value of the chart; None leaves a gap.
    """

    label: str
    kind: str
    values: Sequence[float | None]


@dataclass(frozen=True)
class ChartPanel:
    """One set of axes; the page shows one panel of a chart at a time.

    Attributes
    ----------
    title, y : str
        `y` labels the axis.
    curves : sequence of ChartCurve
    percent : bool
        Whether the values are fractions to be shown in percent.
    """

    title: str
    y: str
    curves: Sequence[ChartCurve]
    percent: bool = True


@dataclass(frozen=True)
class Chart:
    """An interactive chart, ready to be stored as JSON.

    Attributes
    ----------
    title : str
    x : str
        Axis label.
    x_values : sequence of float
        Shared by all panels.
    mark : (float, str) or None
        An x value to mark, and its label.
    panels : sequence of ChartPanel
    """

    title: str
    x: str
    x_values: Sequence[float]
    mark: tuple[float, str] | None
    panels: Sequence[ChartPanel]


@dataclass(frozen=True)
class Grid:
    """A table of clips: each row has one cell per column, and each cell a frame, uint8 (row, column, 3), its clip and a caption."""

    columns: Sequence[str]
    rows: Sequence[Sequence[tuple[np.ndarray, str, str]]]


@dataclass(frozen=True)
class Section:
    """One section of the report.

    Attributes
    ----------
    title : str
    text : str
        Markdown: what is shown, and how it was chosen.
    figure : str
        File name of a PNG in the report's folder, or empty.
    data : tuple of str
        File names of the numbers behind it.
    kind : str
        What the HTML page shows in place of the figure: ``"curves"``, ``"relation"`` or ``"training"`` (a chart), ``"maps"`` (gallery
        of scored clips), ``"epochs"`` (gallery of training clips), or empty.
    chart : Chart or None
        Set for the kinds of chart.
    grid : Grid or None
        What the page shows in place of a figure of clips.
    folded : sequence of (str, str)
        Titles and Markdown of what only some readers look for; the page folds it.
    """

    title: str
    text: str
    figure: str = ""
    data: tuple[str, ...] = ()
    kind: str = ""
    chart: Chart | None = None
    grid: Grid | None = None
    folded: Sequence[tuple[str, str]] = ()

    def markdown(self) -> str:
        """Return the text, and what the page folds below it."""
        return "\n\n".join([self.text.strip(), *(f"### {title}\n\n{text}" for title, text in self.folded)])


def chart_values(values: Iterable[float]) -> tuple[float | None, ...]:
    """Return values for a `ChartCurve`: rounded to keep the page small, NaN as None, because JSON has no NaN."""
    return tuple(None if math.isnan(value) else round(float(value), 5) for value in values)
