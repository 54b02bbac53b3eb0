"""Pseudo-labels as text for a terminal: tables, bars, and maps drawn with characters.

Conventions
-----------
Tables show percent with one decimal. A map is drawn with two characters per cell: solid above δ_v, shaded in three steps
below, and the peak is marked. `plain` restricts the output to ASCII.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.apps.inspection.measures import Comparison, Histogram
from pipeline.apps.inspection.views import ClipView, EpochSummary, Neighborhood
from pipeline.common.text_table import MISSING, Table

_SHADES, _SOLID, _PEAK = ("  ", "··", "░░", "▒▒"), "██", "◆◆"
_PLAIN_SHADES, _PLAIN_SOLID, _PLAIN_PEAK = ("  ", "..", "::", "++"), "##", "@@"
BAR = 40  # characters of the longest bar
NAMES = {"delta_v": "δ_v", "delta_a": "δ_a"}
PASSES = {"delta_v": "above", "delta_a": "at or above"}  # Eq. 4, Eq. 6


def epochs_text(summaries: Sequence[EpochSummary], *, plain: bool = False) -> str:
    """Return the table of `list_epochs`, one line per epoch, and a warning if the last one shows a collapse."""
    missing = "-" if plain else MISSING

    def cell(each: EpochSummary, name: str, form: str, *, scale: float = 1) -> str:
        value = each.diagnostics[name]
        return missing if value is None else format(scale * value, form)

    header = (
        *("epoch", "objective", "clips", "sounding %", "change %", "related per clip"),
        *("border/chance %", "cosine", "gap", "rank a", "rank V", "MB"),
    )
    rows = [
        (
            str(each.epoch),
            each.objective,
            str(each.clips),
            f"{100 * each.sounding_fraction:.1f}",
            missing if each.change is None else f"{100 * each.change:.1f}",
            f"{'' if each.positives_exact else '~'}{each.positives_per_clip:.1f}",
            "/".join(cell(each, name, ".1f", scale=100) for name in ("border_peaks", "border_cells")),
            cell(each, "audio_cosine", ".2f"),
            cell(each, "audio_gap", ".2f"),
            cell(each, "audio_rank", ".1f"),
            cell(each, "visual_rank", ".1f"),
            f"{each.bytes / 1e6:.1f}",
        )
        for each in summaries
    ]
    last = summaries[-1]
    found = f"warning: epoch {last.epoch}: {last.collapse}\n" if last.collapse else ""
    return Table(header, tuple(rows)).text() + found


def clip_text(view: ClipView, *, plain: bool = False) -> str:
    """Return one clip's numbers, its map, and the table of its nearest clips by audio."""
    (row, col), (x, y) = view.peak, view.peak_xy
    lines = [
        f"{view.clip_id}, epoch {view.epoch} ({view.objective})",
        f"response {view.response_min:.4g} to {view.response_max:.4g}",
        f"sounding {100 * view.sounding_fraction:.1f}% of the cells (above {view.delta_v:g} of the range)",
        f"peak     row {row}, column {col}: x {x:.2f}, y {y:.2f} of the frame",
        "",
        map_text(np.array(view.response), delta_v=view.delta_v, plain=plain),
    ]
    return "\n".join(lines) + "\n" + neighbors_text(view.neighborhood)


def map_text(response: np.ndarray, *, delta_v: float, plain: bool = False) -> str:
    """Draw R̃ (h, w) with characters, in a frame."""
    shades, solid, peak = (_PLAIN_SHADES, _PLAIN_SOLID, _PLAIN_PEAK) if plain else (_SHADES, _SOLID, _PEAK)
    level = np.minimum(response / max(delta_v, 1e-9) * len(shades), len(shades) - 1).astype(int)
    sounding = response > np.float32(delta_v)
    corner, flat, wall = ("+", "-", "|") if plain else ("·", "─", "│")
    edge = corner + flat * (2 * response.shape[1]) + corner
    top = np.unravel_index(int(response.argmax()), response.shape)
    lines = [
        wall
        + "".join(
            peak if (row, col) == top and response.any() else solid if sounding[row, col] else shades[level[row, col]]
            for col in range(response.shape[1])
        )
        + wall
        for row in range(response.shape[0])
    ]
    return "\n".join([edge, *lines, edge]) + "\n"


def neighbors_text(found: Neighborhood) -> str:
    """Return the table of a clip's nearest clips by audio, and how many clips Eq. 6 relates to it."""
    rows = [(each.clip_id, f"{each.similarity:.4f}", "yes" if each.related else "no") for each in found.neighbors]
    centered = "mean subtracted" if found.centered else "mean not subtracted"
    table = Table(("nearest by audio", "similarity", f"y = 1 at {found.delta_a:g}"), tuple(rows)).text()
    return f"{table}{found.n_related} other clips have y = 1 with it ({centered})\n"


def comparison_text(comparison: Comparison, *, plain: bool = False) -> str:
    """Return the distribution of mask IoUs as bars, and the clips that changed most."""
    edges = np.linspace(0, 1, len(comparison.counts) + 1)
    only = [
        f"{n} clips only in {path}; "
        for n, path in (
            (comparison.clips_only_before, comparison.before),
            (comparison.clips_only_after, comparison.after),
        )
        if n
    ]
    rows = [
        (
            each.clip_id,
            f"{each.mask_iou:.3f}",
            f"{100 * each.sounding_fraction_before:.1f}",
            f"{100 * each.sounding_fraction_after:.1f}",
        )
        for each in comparison.most_changed
    ]
    quantiles = ", ".join(f"{name} {value:.3f}" for name, value in comparison.quantiles.items())
    return (
        f"mask IoU of {comparison.clips} clips: mean {comparison.mean_mask_iou:.3f}, {quantiles}; "
        f"{''.join(only)}{100 * comparison.unchanged:.1f}% unchanged\n\n"
        + bars(edges, comparison.counts, plain=plain)
        + "\n"
        + Table(("most changed", "mask IoU", "sounding % before", "after"), tuple(rows)).text()
    )


def histogram_text(histogram: Histogram, *, plain: bool = False) -> str:
    """Return a histogram as bars, with the bin of the threshold marked."""
    edges = np.linspace(histogram.low, histogram.high, len(histogram.counts) + 1)
    name = histogram.mark_name if plain else NAMES[histogram.mark_name]
    note = "" if histogram.exact else " (from a sample of clips)"
    return (
        f"{histogram.name}: {100 * histogram.above:.2f}% {PASSES[histogram.mark_name]} {name} = {histogram.mark:g}{note}\n"
        + bars(edges, histogram.counts, mark=histogram.mark, mark_name=name, plain=plain)
    )


def bars(
    edges: np.ndarray, counts: Sequence[int], *, mark: float | None = None, mark_name: str = "", plain: bool = False
) -> str:
    """Draw counts as horizontal bars, one line per bin, with their share of the total."""
    total, most = max(sum(counts), 1), max(*counts, 1)
    edges = np.round(edges, 9)  # a mark on an edge belongs to the bin above, as in the histogram
    marked = -1 if mark is None else min(max(int(np.searchsorted(edges, mark, side="right")) - 1, 0), len(counts) - 1)
    lines = []
    for i, count in enumerate(counts):
        length = -(-BAR * count // most)  # rounded up, so that a nonzero count is visible
        bar = ("#" if plain else "█") * length
        arrow = f"  {'<-' if plain else '←'} {mark_name}" if i == marked else ""
        lines.append(f"{edges[i]:6.2f} to {edges[i + 1]:5.2f} {100 * count / total:6.2f}%  {bar}{arrow}".rstrip())
    return "\n".join(lines) + "\n"
