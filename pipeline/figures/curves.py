"""Success curves: the share of clips whose cIoU reaches each threshold (Figure 3).

Success rates are fractions, shape (thresholds,). Conventions of all figures: `pipeline.figures.style`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pipeline.figures.style import COLORS, FONT_SIZE, GRAY, GRID_GRAY, LIGHT_GRAY, MARKERS, new_figure

LONG_DASHES = (0, (5, 1.5))  # line style once every color has been used
DASHES = ("--", "-.", (0, (1, 1.2)), (0, (9, 2)))


@dataclass(frozen=True)
class Curve:
    """Success rate over cIoU thresholds.

    Attributes
    ----------
    label : str
    success_rate : np.ndarray [shape=(thresholds,)]
        Fractions.
    kind : str
        ``"model"``, ``"shuffled"`` (drawn thin, in the color of the model with the same label) or ``"content_free"``.
    """

    label: str
    success_rate: np.ndarray
    kind: str = "model"


def success_curves(thresholds: np.ndarray, curves: Sequence[Curve], *, threshold: float | None = None) -> Figure:
    """Return a figure with one panel of success curves; see `success_panels`."""
    return success_panels(thresholds, {"": curves}, threshold=threshold)


def success_panels(
    thresholds: np.ndarray, panels: Mapping[str, Sequence[Curve]], *, threshold: float | None = None
) -> Figure:
    """Return a figure with panels of success curves, one below the other.

    Parameters
    ----------
    thresholds : np.ndarray [shape=(thresholds,)]
    panels : mapping of str to sequence of Curve
        Title → curves. Colors and markers follow the order of the models in a panel, so a model that comes first in
        every panel looks the same in all of them.
    threshold : float or None
        Threshold of the reported success rate, marked by a thin vertical line.
    """
    figure = new_figure(width=8.4, height=0.6 + 4.0 * len(panels), layout="constrained")
    for axes, (title, curves) in zip(figure.subplots(len(panels), squeeze=False)[:, 0], panels.items(), strict=True):
        axes.set_title(title, fontsize=FONT_SIZE + 1, loc="left")
        _draw_curves(axes, thresholds, curves, threshold=threshold)
    axes.set_xlabel("cIoU threshold")
    return figure


def _draw_curves(axes: Axes, thresholds: np.ndarray, curves: Sequence[Curve], *, threshold: float | None) -> None:
    if threshold is not None:
        axes.axvline(threshold, color="#bbbbbb", linewidth=0.8, zorder=0)
        axes.annotate(
            f" success rate at {threshold:g}", (threshold, 0.985), color=GRAY, fontsize=FONT_SIZE - 1.5, va="top"
        )
    models = [curve.label for curve in curves if curve.kind == "model"]
    baselines = [curve.label for curve in curves if curve.kind == "content_free"]
    for curve in curves:
        style = _curve_style(curve, models, baselines)
        axes.plot(thresholds, curve.success_rate, label=curve.label, zorder=3 if curve.kind == "model" else 2, **style)
    axes.set(xlim=(0, 1), ylim=(0, 1.005), ylabel="success rate (share of clips)")
    axes.grid(color=GRID_GRAY, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    _draw_legend(axes, curves)


def _curve_style(curve: Curve, models: Sequence[str], baselines: Sequence[str]) -> dict[str, Any]:
    if curve.kind == "content_free":
        position = baselines.index(curve.label)
        color = (GRAY, LIGHT_GRAY)[position % 2]
        return {"color": color, "linewidth": 1.4, "linestyle": DASHES[position % len(DASHES)]}
    position = models.index(curve.label) if curve.label in models else len(models)
    color = COLORS[position % len(COLORS)]
    if curve.kind == "shuffled":
        return {"color": color, "linewidth": 0.9, "linestyle": ":"}
    style = {"color": color, "linewidth": 1.8, "linestyle": "-" if position < len(COLORS) else LONG_DASHES}
    # Markers start at different thresholds, so that curves that coincide remain visible.
    return style | {"marker": MARKERS[position % len(MARKERS)], "markersize": 3.6, "markevery": (position % 3, 3)}


def _draw_legend(axes: Axes, curves: Sequence[Curve]) -> None:
    handles, _ = axes.get_legend_handles_labels()
    labeled = list(zip(handles, curves, strict=True))
    shown = [(handle, curve.label) for handle, curve in labeled if curve.kind == "model"]
    shuffled = [(handle, f"{curve.label}, shuffled audio") for handle, curve in labeled if curve.kind == "shuffled"]
    if len(shuffled) > 1:
        # Shuffled curves have the colors of their models, so one gray entry explains them all.
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
