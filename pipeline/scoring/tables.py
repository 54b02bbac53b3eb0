"""Tables of scores for reports, the terminal and CSV files.

Conventions
-----------
The metrics of a row are the flat mapping of ``scores.json`` or of one entry in ``baselines.json``: fractions in [0, 1],
each with its 95% interval ``<key>_low``, ``<key>_high``. A key is ``<audio><rule><metric>``, see
`pipeline.scoring.summary`. Tables for people show percent with one decimal; CSV files contain fractions.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.common.files import write_csv
from pipeline.common.text_table import MISSING, Table

METRICS = {
    "success_rate": "success",
    "auc": "AUC",
    "mean_ciou": "mean cIoU",
    "mean_iou": "mean IoU",
    "pointing_accuracy": "pointing",
    "quadrant_accuracy": "quadrant",
}


@dataclass(frozen=True)
class Row:
    """One row of a comparison: a method or baseline, its metrics, and which audio it got.

    Attributes
    ----------
    name : str
        The variant or baseline, as in folder names and ``baselines.json``.
    metrics : Mapping[str, Any]
        Flat metrics, fractions.
    audio : str
        Empty for the clip's own audio, ``"shuffled_"`` for the audio of another clip.
    """

    name: str
    metrics: Mapping[str, Any]
    audio: str = ""

    def label(self, labels: Mapping[str, str]) -> str:
        """Return the text of the first column, given the display names of variants and baselines."""
        label = labels.get(self.name, self.name)
        return f"{label}, shuffled audio" if self.audio else label


def normalization_note(metrics: Mapping[str, Mapping[str, Any]], usual: str, *, labels: Mapping[str, str]) -> str:
    """Return a note on the methods whose own normalization replaces the protocol's; empty if there are none.

    Parameters
    ----------
    metrics : mapping of str to mapping
        Variant → flat metrics.
    usual : str
        The protocol's normalization.
    labels : mapping of str to str
        Display names; a name without one is shown as it is.
    """
    rows: dict[str, list[str]] = {}
    for name, values in metrics.items():
        if values.get("normalization", usual) != usual:
            rows.setdefault(values["normalization"], []).append(labels.get(name, name))
    return " ".join(
        f"Normalized by {own}, as the method defines it, instead of the protocol's {usual}: {', '.join(names)}."
        for own, names in rows.items()
    )


def with_shuffled(name: str, metrics: Mapping[str, Any]) -> list[Row]:
    """Return the row of a model, followed by its row with shuffled audio."""
    return [Row(name, metrics), Row(name, metrics, audio="shuffled_")]


def quadrant_note(metrics: Mapping[str, Any]) -> str:
    """Return what the column "quadrant" shows, given the flat metrics of any row; empty if there is no such column."""
    if "quadrant_chance" not in metrics:
        return ""
    return (
        "Quadrant accuracy is the share of clips in which the mosaic cell with the largest mean response sounds; cells "
        f"chosen at random reach {100 * metrics['quadrant_chance']:.1f}%."
    )


def comparison(
    rows: Sequence[Row], *, rule: str = "", labels: Mapping[str, str], metrics: Collection[str] = tuple(METRICS)
) -> Table:
    """Return a table of metrics under one rule, in percent with 95% intervals.

    Parameters
    ----------
    rows : sequence of Row
    rule : str
        Empty for the card's protocol, or ``"median_"``, ``"fixed_"``. A missing metric is shown as a dash.
    labels : mapping of str to str
        Display names of variants and baselines.
    metrics : collection of str
        Those of `METRICS` to show, if any row has them.
    """
    shown = [metric for metric in _present(rows, rule) if metric in metrics]
    cells = [
        (row.label(labels), *(interval(row.metrics, row.audio + rule + metric) for metric in shown)) for row in rows
    ]
    return Table(("", *(METRICS[metric] for metric in shown)), tuple(cells))


def summary(rows: Sequence[Row], *, labels: Mapping[str, str]) -> Table:
    """Return the compact table for a terminal: each metric ± half its interval, and two metrics of the median rule."""
    columns = {metric: METRICS[metric] for metric in _present(rows)}
    columns |= {"median_success_rate": "success, median", "median_auc": "AUC, median"}
    cells = [(row.label(labels), *(plus_minus(row.metrics, row.audio + key) for key in columns)) for row in rows]
    return Table(("percent", *columns.values()), tuple(cells))


def per_seed(rows: Sequence[Row], *, labels: Mapping[str, str]) -> Table:
    """Return the values of each seed in percent, ``60.8 / 51.5``, for the rows that have them.

    The columns are success rate, AUC and quadrant accuracy.
    """
    keys = [key for key in ("success_rate", "auc", "quadrant_accuracy") if key in _present(rows)]
    having = [row for row in rows if all(row.audio + key + "_seeds" in row.metrics for key in keys)]
    cells = [
        (
            row.label(labels),
            *(" / ".join(f"{100 * value:.1f}" for value in row.metrics[f"{row.audio}{key}_seeds"]) for key in keys),
        )
        for row in having
    ]
    return Table(("", *(METRICS[key] for key in keys)), tuple(cells))


def interval(metrics: Mapping[str, Any], key: str) -> str:
    """Return ``52.8 (49.7–55.9)`` in percent, or a dash if the key is absent."""
    if key not in metrics:
        return MISSING
    value, low, high = (100 * metrics[key + end] for end in ("", "_low", "_high"))
    return f"{value:.1f} ({low:.1f}–{high:.1f})"


def plus_minus(metrics: Mapping[str, Any], key: str) -> str:
    """Return ``52.8 ±3.1`` in percent, where ± is half the width of the interval, or a dash if the key is absent."""
    if key not in metrics:
        return MISSING
    # Percent, halved.
    half = 50 * (metrics[key + "_high"] - metrics[key + "_low"])
    return f"{100 * metrics[key]:.1f} ±{half:.1f}"


def write_comparison_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write one line per row and rule: each metric as a fraction with its interval, empty if absent.

    Columns: ``row``, ``shuffled`` (1 if the model got the audio of another clip), ``rule`` (``protocol``,
    ``median`` or ``fixed``), then ``<metric>, <metric>_low, <metric>_high`` for each metric that any row has.
    """
    keys = [metric + end for metric in _present(rows) for end in ("", "_low", "_high")]
    lines = [
        [row.name, int(bool(row.audio)), rule.rstrip("_") or "protocol"]
        + [row.metrics.get(row.audio + rule + key, "") for key in keys]
        for row in rows
        for rule in rules(rows)
    ]
    write_csv(path, ["row", "shuffled", "rule", *keys], lines)


def _present(rows: Sequence[Row], rule: str = "") -> list[str]:
    """Return the metrics that any row has under a rule. So only mosaics have a column for quadrant accuracy."""
    return [metric for metric in METRICS if any(row.audio + rule + metric in row.metrics for row in rows)]


def rules(rows: Sequence[Row]) -> list[str]:
    """Return the rules that occur in `rows`: empty (the card's protocol), ``median_``, ``fixed_``."""
    return [
        rule
        for rule in ("", "median_", "fixed_")
        if any(row.audio + rule + "success_rate" in row.metrics for row in rows)
    ]
