"""Frames with heat maps, regions and boxes drawn over them (Figures 4 to 6).

Conventions
-----------
Frames are uint8 (row, column, channel). Heat maps are float in [0, 1], (row, column), of any size, and cover the whole
frame. Boxes are fractions of the frame, origin top left. Conventions of all figures: `pipeline.figures.style`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
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
    for i, row in enumerate(rows):
        for j, panel in enumerate(row):
            axes = figure.add_axes(
                (
                    (left + j * (side + 0.06)) / width,
                    (height - top - i * row_height - side) / height,
                    side / width,
                    side / height,
                )
            )
            draw_panel(axes, panel)
            if i == 0:
                axes.set_title(titles[j], fontsize=FONT_SIZE, pad=4)
            if j == 0 and names:
                axes.set_ylabel(names[i], rotation=0, ha="right", va="center", labelpad=6, fontsize=FONT_SIZE)
    return figure


def draw_panel(axes: Axes, panel: Panel) -> None:
    """Draw a frame, its heat map, the outline of the sounding region, and the boxes."""
    extent = (0, 1, 1, 0)
    axes.imshow(panel.frame, extent=extent, interpolation="lanczos")
    if panel.heatmap is not None:
        # Values are interpolated rather than colors, as everywhere else.
        rows, columns = (max(side, PANEL_PIXELS) for side in panel.heatmap.shape)
        heat = upsampled(panel.heatmap, height=rows, width=columns)
        axes.imshow(painted(heat), extent=extent, interpolation="antialiased")
    if panel.region is not None and 0 < panel.region.mean() < 1:
        # Padding closes the outline where the region touches the frame border.
        mask = np.pad(panel.region, 1).astype(float)
        y, x = ((np.arange(-1, n - 1) + 0.5) / (n - 2) for n in mask.shape)
        axes.contour(x, y, mask, [0.5], colors=[REGION_COLOR], linewidths=1.0)
    for box in panel.boxes:
        _draw_box(axes, box)
    axes.set(xlim=(0, 1), ylim=(1, 0), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    if panel.caption:
        axes.set_xlabel(panel.caption, fontsize=FONT_SIZE - 1.5, labelpad=2)


def _draw_box(axes: Axes, box: Box) -> None:
    rectangle = Rectangle((box.x0, box.y0), box.x1 - box.x0, box.y1 - box.y0, fill=False, edgecolor="white")
    rectangle.set(linewidth=1.3, linestyle=BOX_LINES[box.sounding], path_effects=[BOX_STROKE])
    axes.add_patch(rectangle)


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
