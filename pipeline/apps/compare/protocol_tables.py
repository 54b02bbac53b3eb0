"""Tables of evaluation protocols: their definitions, and the scores of the same response maps under each of them.

Conventions
-----------
Tables in the terminal and in Markdown show percent with one decimal, CSV and JSON files hold fractions (see `pipeline.scoring.summary`). A cell
``48.2 / 49.0`` is success rate / AUC. Counts of degenerate cases are those of `pipeline.scoring.results.COUNTS`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.apps.compare.rescore import RescoredRow
from pipeline.common.errors import EvaluationError
from pipeline.common.files import write_csv, write_json, write_text
from pipeline.common.text_table import MISSING, Table
from pipeline.scoring.protocols import ScoringProtocol
from pipeline.scoring.results import COUNTS
from pipeline.scoring.tables import METRICS, interval

FURTHER_METRICS = {
    "iiou": "IIoU",
    "iauc": "IAUC",
    "average_precision": "AP",
    "max_f1": "max-F1",
    "localization_accuracy": "LocAcc",
    "nsa": "NSA",
    "nsa_agnostic": "silent outside boxes",
}
_COUNT_TITLES = {
    "n_clips": "scored",
    "n_skipped_silent": "no sounding box",
    "n_skipped_empty": "boxes without a pixel",
    "n_missing_maps": "no map",
    "n_boxes_outside": "boxes off the grid",
}


def rules_table(protocols: Sequence[ScoringProtocol]) -> Table:
    """Return the fields of each protocol, one row per protocol."""
    header = ("protocol", "grid", "box edges", "ground truth", "map", "enlarged", "region", "success", "also")
    return Table(header, tuple(_fields(protocol) for protocol in protocols))


def rules_text(protocols: Sequence[ScoringProtocol]) -> str:
    """Return the table of the protocols and, below it, the source of each."""
    sources = "".join(f"{protocol.name}\n    {protocol.source}\n" for protocol in protocols)
    return f"{rules_table(protocols).text()}\n{sources}"


def rates_table(rows: Sequence[RescoredRow]) -> Table:
    """Return success rate / AUC of each row under each protocol, in percent, and the range over the protocols."""
    names = list(rows[0].metrics)
    ranged = len(names) > 1
    cells = []
    for row in rows:
        values = [(metrics["success_rate"], metrics["auc"]) for metrics in row.metrics.values()]
        spread = [tuple(max(column) - min(column) for column in zip(*values, strict=True))] if ranged else []
        cells.append((row.label, *(f"{100 * success:.1f} / {100 * area:.1f}" for success, area in [*values, *spread])))
    return Table(("success / AUC", *names, *(["range"] if ranged else [])), tuple(cells))


def further_table(rows: Sequence[RescoredRow]) -> Table | None:
    """Return the metrics that only some protocols define, in percent, or None if there are none."""
    columns = [
        (name, key)
        for name in rows[0].metrics
        for key in FURTHER_METRICS
        if any(key in row.metrics[name] for row in rows)
    ]
    if not columns:
        return None
    cells = [
        (
            row.label,
            *(f"{100 * row.metrics[name][key]:.1f}" if key in row.metrics[name] else MISSING for name, key in columns),
        )
        for row in rows
    ]
    return Table(("further metrics", *(f"{FURTHER_METRICS[key]}, {name}" for name, key in columns)), tuple(cells))


def quadrant_table(rows: Sequence[RescoredRow]) -> Table | None:
    """Return the quadrant accuracy of each row in percent, with its interval; None if the clips are not mosaics.

    It is the same under all protocols, except that they may skip different clips; that of the first one is shown.
    """
    of_rows = [next(iter(row.metrics.values())) for row in rows]
    if "quadrant_chance" not in of_rows[0]:
        return None
    chance = f"{100 * of_rows[0]['quadrant_chance']:.1f}"
    cells = [(row.label, interval(values, "quadrant_accuracy")) for row, values in zip(rows, of_rows, strict=True)]
    return Table(("any protocol", f"quadrant accuracy (chance {chance})"), tuple(cells))


def counts_table(rows: Sequence[RescoredRow]) -> Table:
    """Return, for each protocol, its success threshold and how many clips or boxes were scored or skipped.

    Only the number of flat maps differs between rows; the last column names the rows that have any.
    """
    lines = []
    for name, metrics in rows[0].metrics.items():
        flat = [f"{row.label} {row.metrics[name]['n_flat_maps']}" for row in rows if row.metrics[name]["n_flat_maps"]]
        counts = (str(metrics[key]) for key in _COUNT_TITLES)
        lines.append((name, f"cIoU >= {metrics['threshold']:g}", *counts, ", ".join(flat) or "0"))
    return Table(("clips", "success", *_COUNT_TITLES.values(), "flat maps"), tuple(lines))


def fitted(table: Table, *, width: int) -> list[Table]:
    """Split a table into tables at most `width` characters wide, each with the first column."""
    widths = [max(len(cells[i]) for cells in (table.header, *table.rows)) for i in range(len(table.header))]
    blocks: list[list[int]] = [[]]
    for column in range(1, len(widths)):
        if blocks[-1] and widths[0] + sum(widths[i] + 2 for i in [*blocks[-1], column]) > width:
            blocks.append([])
        blocks[-1].append(column)
    return [_columns(table, [0, *block]) for block in blocks]


def write_rescored(path: Path, rows: Sequence[RescoredRow], *, facts: Mapping[str, Any]) -> None:
    """Write all scores in the format given by the path's suffix.

    Parameters
    ----------
    path : Path
        ``.csv``: one line per row and protocol, every metric as a fraction. ``.json``: `facts`, and under ``rows`` the
        flat scores of each row by protocol. ``.md``: the tables of the terminal, unsplit.
    rows : sequence of RescoredRow
    facts : mapping
        What was scored and how, such as dataset and split.

    Raises
    ------
    EvaluationError
        The suffix is none of these.
    """
    check_output(path)
    if path.suffix == ".csv":
        _write_csv(path, rows)
    elif path.suffix == ".json":
        listed = [{"row": row.name, "shuffled": row.shuffled, "protocols": row.metrics} for row in rows]
        write_json(path, {**facts, "rows": listed})
    else:
        tables = [rates_table(rows), quadrant_table(rows), further_table(rows), counts_table(rows)]
        write_text(path, "\n".join(table.markdown() for table in tables if table))


def check_output(path: Path) -> None:
    """Raise EvaluationError if `write_rescored` does not support the path's suffix."""
    if path.suffix not in (".csv", ".json", ".md"):
        raise EvaluationError(f"{path}: the file name must end in .csv, .json or .md")


def protocols_as_json(protocols: Sequence[ScoringProtocol]) -> list[dict[str, Any]]:
    """Return the fields of each protocol as JSON-like values."""
    return [asdict(protocol) | {"extras": list(protocol.extras)} for protocol in protocols]


def _write_csv(path: Path, rows: Sequence[RescoredRow]) -> None:
    found = {key for row in rows for metrics in row.metrics.values() for key in metrics}
    with_interval = [key for key in (*METRICS, *FURTHER_METRICS) if key in found]
    keys = [key + end for key in with_interval for end in ("", "_low", "_high") if key + end in found]
    keys += [key for key in ("quadrant_chance", *COUNTS, "n_frames") if key in found]
    lines = [
        [row.name, int(row.shuffled), name, metrics["threshold"], *(metrics.get(key, "") for key in keys)]
        for row in rows
        for name, metrics in row.metrics.items()
    ]
    write_csv(path, ["row", "shuffled", "protocol", "threshold", *keys], lines)


def _fields(protocol: ScoringProtocol) -> tuple[str, ...]:
    regions = {
        "fixed": f"{protocol.map_threshold:g}",
        "relative-to-max": f"{protocol.map_threshold:g} of the maximum",
        "median": "median",
        "oracle-area": "the true area",
    }
    return (
        protocol.name,
        str(protocol.size),
        protocol.rounding,
        protocol.consensus,
        protocol.normalization,
        f"{protocol.interpolation}{', corners aligned' if protocol.align_corners else ''}",
        f"{protocol.comparator} {regions[protocol.threshold_rule]}",
        f"cIoU >= {protocol.success_threshold:g}",
        ", ".join(protocol.extras) or MISSING,
    )


def _columns(table: Table, columns: Sequence[int]) -> Table:
    header, *rows = (tuple(cells[i] for i in columns) for cells in (table.header, *table.rows))
    return Table(header, tuple(rows))
