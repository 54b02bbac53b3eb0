"""Pictures: success curves, heat maps over frames, maps over the epochs.

Conventions
-----------
A function takes arrays and returns a matplotlib `Figure`; none touches pyplot, so nothing is global and no display is
needed. Frames are uint8 (row, column, channel); heat maps are float in [0, 1], (row, column), of any size, and are laid
over the whole frame; boxes are fractions of the frame, origin top left. Colors are Okabe and Ito's, which people with
the common kinds of color blindness can tell apart, and no meaning rests on color alone. The same input gives the same
bytes of PNG.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from pipeline.common.files import replacing
from pipeline.manifests.boxes import Box

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GRAY = "#6e6e6e"
LIGHT_GRAY = "#a3a3a3"
MARKERS = "osD^vPX*"  # one more than the colors, so that 56 curves differ
SECOND_ROUND = (0, (5, 1.5))  # of the colors
DASHES = ("--", "-.", (0, (1, 1.2)), (0, (9, 2)))
HEAT_MAP = "inferno"
REGION_COLOR = "#56B4E9"
BOX_LINES: dict[bool, Any] = {True: "-", False: (0, (3, 2))}
BOX_STROKE = withStroke(linewidth=2.6, foreground="black")
FONT_SIZE = 9
LEGEND_WIDTH = 1.95  # inches of the longest entry below a grid
DPI = 150


@dataclass(frozen=True)
class Curve:
    """Success rate over cIoU thresholds.

    Attributes
    ----------
    label : str
    success_rate : np.ndarray [shape=(thresholds,)]
        Fractions.
    kind : str
        ``"model"``, ``"shuffled"`` (drawn thin in the color of the model of the same label) or ``"content_free"``.
    """

    label: str
    success_rate: np.ndarray
    kind: str = "model"


@dataclass(frozen=True)
class Panel:
    """One frame with whatever is drawn over it.

    Attributes
    ----------
    frame : np.ndarray [shape=(row, column, 3), dtype=uint8]
    boxes : sequence of Box
        Sounding boxes are drawn solid, silent ones dashed.
    heat : np.ndarray or None
        Heat map in [0, 1].
    region : np.ndarray or None
        The sounding region that the heat map was cut into, bool (row, column), of any size; its outline is drawn.
    caption : str
        A few characters below the frame.
    """

    frame: np.ndarray
    boxes: Sequence[Box] = ()
    heat: np.ndarray | None = None
    region: np.ndarray | None = None
    caption: str = ""


def success_curves(thresholds: np.ndarray, curves: Sequence[Curve], *, threshold: float | None = None) -> Figure:
    """Return the share of clips whose cIoU reaches each threshold, as `success_panels` draws it."""
    return success_panels(thresholds, {"": curves}, threshold=threshold)


def success_panels(
    thresholds: np.ndarray, panels: Mapping[str, Sequence[Curve]], *, threshold: float | None = None
) -> Figure:
    """Return Figure 3: the share of clips whose cIoU reaches each threshold, one panel below the other.

    Parameters
    ----------
    thresholds : np.ndarray [shape=(thresholds,)]
    panels : mapping of str to sequence of Curve
        Title → its curves. Colors and markers follow the order of a panel's models, so a model that comes first in each
        looks the same in all.
    threshold : float or None
        The threshold of the success rate, marked by a thin vertical line.
    """
    figure = _figure(width=8.4, height=0.6 + 4.0 * len(panels))
    figure.set_layout_engine("constrained")
    for axes, (title, curves) in zip(figure.subplots(len(panels), squeeze=False)[:, 0], panels.items(), strict=True):
        axes.set_title(title, fontsize=FONT_SIZE + 1, loc="left")
        _draw_curves(axes, thresholds, curves, threshold=threshold)
    axes.set_xlabel("cIoU threshold")
    return figure


def overlay_grid(
    rows: Sequence[Sequence[Panel]], *, columns: Sequence[str], names: Sequence[str] | None = None, side: float = 1.45
) -> Figure:
    """Return a grid of frames with heat maps and boxes: Figures 4, 5 and 6 in one form.

    Parameters
    ----------
    rows : sequence of sequence of Panel
        All rows as long as `columns`.
    columns : sequence of str
        Headings above the first row, broken into lines where they are wider than a panel.
    names : sequence of str, optional
        What stands to the left of each row.
    side : float
        Inches of one panel.
    """
    # A title may be as wide as its panel: 12 characters of this size to the inch.
    titles = ["\n".join(wrap(column, max(8, int(12 * side)))) for column in columns]
    top = 0.3 + 0.14 * max(title.count("\n") for title in titles)
    captions = any(panel.caption for row in rows for panel in row)
    row_height = side + (0.24 if captions else 0.06)
    left = 0.15 + 0.085 * max((len(line) for name in names for line in name.split("\n")), default=0) if names else 0.05
    handles = _overlay_handles([panel for row in rows for panel in row])
    width = max(left + len(columns) * (side + 0.06), LEGEND_WIDTH if handles else 0)
    per_line = max(1, int(width / LEGEND_WIDTH))
    bottom = 0.08 + 0.22 * -(-len(handles) // per_line) if handles else 0
    height = top + len(rows) * row_height + bottom
    figure = _figure(width=width, height=height)
    if handles:
        figure.legend(handles=handles, loc="lower center", ncols=per_line, frameon=False, fontsize=FONT_SIZE - 0.5)
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
    """Draw one frame, its heat map, the outline of the sounding region and the boxes."""
    extent = (0, 1, 1, 0)
    axes.imshow(panel.frame, extent=extent, interpolation="lanczos")
    if panel.heat is not None:
        # Weak responses let the frame through, so that it stays recognizable where nothing sounds.
        axes.imshow(
            panel.heat,
            extent=extent,
            cmap=HEAT_MAP,
            vmin=0,
            vmax=1,
            alpha=0.25 + 0.55 * np.clip(panel.heat, 0, 1),
            interpolation="bilinear",
        )
    if panel.region is not None and 0 < panel.region.mean() < 1:
        # Padding closes the outline where the region touches the edge.
        mask = np.pad(panel.region, 1).astype(float)
        y, x = ((np.arange(-1, n - 1) + 0.5) / (n - 2) for n in mask.shape)
        axes.contour(x, y, mask, [0.5], colors=[REGION_COLOR], linewidths=1.0)
    for box in panel.boxes:
        _draw_box(axes, box)
    axes.set(xlim=(0, 1), ylim=(1, 0), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    if panel.caption:
        axes.set_xlabel(panel.caption, fontsize=FONT_SIZE - 1.5, labelpad=2)


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all, without a date or a program's version."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})


def _figure(*, width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _draw_curves(axes: Axes, thresholds: np.ndarray, curves: Sequence[Curve], *, threshold: float | None) -> None:
    if threshold is not None:
        axes.axvline(threshold, color="#bbbbbb", linewidth=0.8, zorder=0)
        axes.annotate(
            f" success rate at {threshold:g}", (threshold, 0.985), color=GRAY, fontsize=FONT_SIZE - 1.5, va="top"
        )
    models = [curve.label for curve in curves if curve.kind == "model"]
    gray = [curve.label for curve in curves if curve.kind == "content_free"]
    for curve in curves:
        style = _curve_style(curve, models, gray)
        axes.plot(thresholds, curve.success_rate, label=curve.label, zorder=3 if curve.kind == "model" else 2, **style)
    axes.set(xlim=(0, 1), ylim=(0, 1.005), ylabel="success rate (share of clips)")
    axes.grid(color="#e4e4e4", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    _legend_beside(axes, curves)


def _curve_style(curve: Curve, models: Sequence[str], gray: Sequence[str]) -> dict[str, Any]:
    if curve.kind == "content_free":
        position = gray.index(curve.label)
        color = (GRAY, LIGHT_GRAY)[position % 2]
        return {"color": color, "linewidth": 1.4, "linestyle": DASHES[position % len(DASHES)]}
    position = models.index(curve.label) if curve.label in models else len(models)
    color = COLORS[position % len(COLORS)]
    if curve.kind == "shuffled":
        return {"color": color, "linewidth": 0.9, "linestyle": ":"}
    style = {"color": color, "linewidth": 1.8, "linestyle": "-" if position < len(COLORS) else SECOND_ROUND}
    return style | {"marker": MARKERS[position % len(MARKERS)], "markersize": 3.6, "markevery": (position % 3, 3)}


def _legend_beside(axes: Axes, curves: Sequence[Curve]) -> None:
    handles, _ = axes.get_legend_handles_labels()
    labeled = list(zip(handles, curves, strict=True))
    shown = [(handle, curve.label) for handle, curve in labeled if curve.kind == "model"]
    shuffled = [(handle, f"{curve.label}, shuffled audio") for handle, curve in labeled if curve.kind == "shuffled"]
    if len(shuffled) > 1:
        shuffled = [(Line2D([], [], color=GRAY, linewidth=0.9, linestyle=":"), "the same, shuffled audio")]
    shown += shuffled
    shown += [(handle, curve.label) for handle, curve in labeled if curve.kind == "content_free"]
    axes.legend(
        [h for h, _ in shown],
        [label for _, label in shown],
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        frameon=False,
        fontsize=FONT_SIZE - 0.5,
        handlelength=2.8,
        borderaxespad=0,
    )


def _draw_box(axes: Axes, box: Box) -> None:
    rectangle = Rectangle((box.x0, box.y0), box.x1 - box.x0, box.y1 - box.y0, fill=False, edgecolor="white")
    # A dark line below the white one keeps the box visible on any background.
    rectangle.set(linewidth=1.3, linestyle=BOX_LINES[box.sounding], path_effects=[BOX_STROKE])
    axes.add_patch(rectangle)


def _overlay_handles(panels: Sequence[Panel]) -> list[Line2D]:
    style: dict[str, Any] = {"color": "white", "linewidth": 1.3, "path_effects": [BOX_STROKE]}
    handles = []
    for sounding, label in ((True, "sounding"), (False, "silent")):
        if any(box.sounding == sounding for panel in panels for box in panel.boxes):
            handles.append(Line2D([], [], linestyle=BOX_LINES[sounding], label=label, **style))
    if any(panel.region is not None for panel in panels):
        handles.append(Line2D([], [], color=REGION_COLOR, label="sounding region found"))
    return handles
