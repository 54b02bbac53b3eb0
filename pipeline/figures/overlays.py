"""Frames with heat maps, regions and boxes drawn over them (Figures 4 to 6).

Conventions
-----------
Frames are uint8 (row, column, channel). Heat maps are float in [0, 1], (row, column), of any size, and cover the whole
frame. Boxes are fractions of the frame, origin top left. Conventions of all figures: `pipeline.figures.style`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from textwrap import wrap
from typing import Any, cast

import numpy as np
from contourpy import contour_generator
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from pipeline.figures.heatmap import painted, upsampled
from pipeline.figures.labels import color_bar
from pipeline.figures.style import FONT_SIZE, new_figure
from pipeline.manifests.boxes import Box

REGION_COLOR = "#56B4E9"
BOX_LINES: dict[bool, Any] = {True: "-", False: (0, (3, 2))}
# A dark line below the white one keeps a box visible on any background.
BOX_STROKE = withStroke(linewidth=2.6, foreground="black")
LEGEND_WIDTH = 1.95  # inches, for the longest entry
PANEL_PIXELS = 256  # smallest side of a painted map
POINTS = 72  # per inch
BAR_STEPS = 24  # colors of the color bar


@dataclass(frozen=True)
class Panel:
    """One frame and what is drawn over it.

    Attributes
    ----------
    frame : np.ndarray [shape=(row, column, 3), dtype=uint8]
    boxes : sequence of Box
        Sounding boxes are drawn solid, silent ones dashed.
    heatmap : np.ndarray or None
        Response in [0, 1], (row, column).
    region : np.ndarray or None
        Predicted sounding region, bool (row, column), of any size; its outline is drawn.
    caption : str
        A few characters below the frame.
    """

    frame: np.ndarray
    boxes: Sequence[Box] = ()
    heatmap: np.ndarray | None = None
    region: np.ndarray | None = None
    caption: str = ""


def overlay_grid(
    rows: Sequence[Sequence[Panel]], *, columns: Sequence[str], names: Sequence[str] | None = None, side: float = 1.45
) -> Figure:
    """Return a grid of panels, with a legend below it.

    Parameters
    ----------
    rows : sequence of sequence of Panel
        Each row has one panel per column.
    columns : sequence of str
        Headings above the first row; long ones are wrapped.
    names : sequence of str, optional
        Labels to the left of the rows.
    side : float
        Width and height of a panel in inches.
    """
    # At this font size an inch holds about 12 characters.
    titles = ["\n".join(wrap(column, max(8, int(12 * side)))) for column in columns]
    top = 0.3 + 0.14 * max(title.count("\n") for title in titles)
    captions = any(panel.caption for row in rows for panel in row)
    row_height = side + (0.24 if captions else 0.06)
    left = 0.15 + 0.085 * max((len(line) for name in names for line in name.split("\n")), default=0) if names else 0.05
    handles = _legend_handles([panel for row in rows for panel in row])
    width = max(left + len(columns) * (side + 0.06), LEGEND_WIDTH if handles else 0)
    per_line = max(1, int(width / LEGEND_WIDTH))
    bottom = 0.08 + 0.22 * -(-len(handles) // per_line) if handles else 0
    height = top + len(rows) * row_height + bottom
    figure = new_figure(width=width, height=height)
    if handles:
        figure.legend(
            *zip(*handles, strict=True),
            handler_map={tuple: HandlerTuple(ndivide=None, pad=0)},
            loc="lower center",
            ncols=per_line,
            frameon=False,
            fontsize=FONT_SIZE - 0.5,
        )
    # One set of axes for all panels, in inches from the top left: each further one would take longer than drawing the panel.
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0), autoscale_on=False)
    axes.set_axis_off()
    # Names and captions come from data: $ is a character, not the start of a formula.
    text = partial(axes.text, parse_math=False)
    for i, row in enumerate(rows):
        for j, panel in enumerate(row):
            x, y = left + j * (side + 0.06), top + i * row_height
            draw_panel(axes, panel, left=x, top=y, side=side)
            if i == 0:
                text(x + side / 2, y - 4 / POINTS, titles[j], ha="center", va="bottom", fontsize=FONT_SIZE)
            if j == 0 and names:
                text(x - 6 / POINTS, y + side / 2, names[i], ha="right", va="center", fontsize=FONT_SIZE)
            if panel.caption:
                text(
                    x + side / 2, y + side + 2 / POINTS, panel.caption, ha="center", va="top", fontsize=FONT_SIZE - 1.5
                )
    return figure


def draw_panel(axes: Axes, panel: Panel, *, left: float = 0, top: float = 0, side: float = 1) -> None:
    """Draw a frame, its heat map, the outline of the sounding region, and the boxes into a square of axes whose y points down.

    `left`, `top` and `side` are in the coordinates of the axes, which should not adapt to what is drawn.
    """
    place: dict[str, Any] = {"extent": (left, left + side, top + side, top), "aspect": "auto"}
    axes.imshow(panel.frame, interpolation="lanczos", **place)
    if panel.heatmap is not None:
        # Values are interpolated rather than colors, as everywhere else.
        rows, columns = (max(length, PANEL_PIXELS) for length in panel.heatmap.shape)
        finer = panel.heatmap.shape != (rows, columns)
        heat = upsampled(panel.heatmap, height=rows, width=columns) if finer else panel.heatmap
        axes.imshow(painted(heat), interpolation="antialiased", **place)
    if panel.region is not None and 0 < panel.region.mean() < 1:
        # Padding closes the outline where the region touches the frame border.
        mask = np.pad(panel.region, 1).astype(float)
        y, x = ((np.arange(-1, n - 1) + 0.5) / (n - 2) for n in mask.shape)
        outline = contour_generator(left + side * x, top + side * y, mask).lines(0.5)
        axes.add_collection(
            LineCollection(cast(list[np.ndarray], outline), colors=[REGION_COLOR], linewidths=1.0), autolim=False
        )
    for box in panel.boxes:
        corner, size = (left + side * box.x0, top + side * box.y0), (side * (box.x1 - box.x0), side * (box.y1 - box.y0))
        rectangle = Rectangle(corner, *size, fill=False, edgecolor="white", linewidth=1.3)
        rectangle.set(linestyle=BOX_LINES[box.sounding], path_effects=[BOX_STROKE])
        axes.add_artist(rectangle)


def _legend_handles(panels: Sequence[Panel]) -> list[tuple[Any, str]]:
    style: dict[str, Any] = {"color": "white", "linewidth": 1.3, "path_effects": [BOX_STROKE]}
    handles: list[tuple[Any, str]] = []
    for sounding, label in ((True, "sounding"), (False, "silent")):
        if any(box.sounding == sounding for panel in panels for box in panel.boxes):
            handles.append((Line2D([], [], linestyle=BOX_LINES[sounding], **style), label))
    if any(panel.region is not None for panel in panels):
        handles.append((Line2D([], [], color=REGION_COLOR), "sounding region found"))
    if any(panel.heatmap is not None for panel in panels):
        steps = tuple(Rectangle((0, 0), 1, 1, facecolor=color / 255, linewidth=0) for color in color_bar(BAR_STEPS))
        handles.append((steps, "response from 0 to 1"))
    return handles
