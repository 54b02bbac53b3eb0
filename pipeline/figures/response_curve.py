"""The response of a video over time, as a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from pipeline.figures.style import COLORS, FONT_SIZE, GRAY, GRID_GRAY, new_figure

_LABELS = {"sounding": "sounding", "not found": "source not found", "silent": "no sound"}
_STYLES: dict[str, dict[str, Any]] = {
    "sounding": {"color": COLORS[0], "marker": "o"},
    "not found": {"color": COLORS[1], "marker": "x"},
    "silent": {"color": GRAY, "marker": "|"},
}


def response_curve(maps: Sequence[Mapping[str, Any]]) -> Figure:
    """Return a figure of the highest response of each map over time, with one marker for each verdict.

    Parameters
    ----------
    maps : sequence of mappings
        `maps` of the JSON that `soundspot localize` writes for a video.
    """
    times = np.array([each["time_s"] for each in maps])
    # A silent window has no response: a gap in the line, and a mark at its foot.
    values = np.array([np.nan if each["response"] is None else each["response"] for each in maps], dtype=float)
    verdicts = np.array([each["verdict"] for each in maps])
    figure = new_figure(width=8, height=2.6, layout="constrained")
    axes = figure.add_subplot()
    axes.plot(times, values, color=COLORS[0], linewidth=1, alpha=0.5)
    foot = np.nanmin(values) if np.isfinite(values).any() else 0.0
    for verdict, style in _STYLES.items():
        chosen = verdicts == verdict
        if chosen.any():
            heights = np.where(np.isnan(values), foot, values)[chosen]
            axes.plot(times[chosen], heights, linestyle="", markersize=3.5, label=_LABELS[verdict], **style)
    axes.set_xlabel("time in s", fontsize=FONT_SIZE)
    axes.set_ylabel("highest response", fontsize=FONT_SIZE)
    axes.tick_params(labelsize=FONT_SIZE - 1)
    axes.grid(color=GRID_GRAY, linewidth=0.6)
    # Above the axes, where it covers no value.
    axes.legend(fontsize=FONT_SIZE - 1, frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=3)
    return figure
