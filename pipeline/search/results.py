"""The table of all trials of a dataset, ``docs/search/NAME.csv``, and the winner of each row.

Columns: row; number of the trial; its state (complete, pruned or failed); epochs; metric; score on the validation split, empty if
training failed; seconds; an identifier of what all rows must share (data, encoders, seed, start, pruning); the searched settings as JSON.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.common.config import OptimizationSettings
from pipeline.common.errors import SearchError
from pipeline.common.files import write_csv
from pipeline.common.project import INITIAL_RUN
from pipeline.common.reading import parse_json
from pipeline.methods.registry import METHODS
from pipeline.search.study import Trial

COLUMNS = ("row", "trial", "state", "epochs", "metric", "score", "seconds", "conditions", "settings")
STATES = ("complete", "pruned", "failed")
# Rows that are not searched: they are trained as the winner of another row, so that the two differ in one thing.
FOLLOWERS = {name: spec.temperature_of for name, spec in METHODS.items() if spec.temperature_of}


@dataclass(frozen=True)
class Line:
    """One trial of the table.

    Attributes
    ----------
    row : str
    trial : Trial
    epochs : int
    metric : str
    conditions : str
    """

    row: str
    trial: Trial
    epochs: int
    metric: str
    conditions: str


@dataclass(frozen=True)
class Winner:
    """The best trial of a row.

    Attributes
    ----------
    row : str
    trial : Trial
    n_trials : int
        Number of trials that it is the best of.
    metric : str
    """

    row: str
    trial: Trial
    n_trials: int
    metric: str


def table_path(project: Path, dataset: str) -> Path:
    """Path of the table of a dataset's trials."""
    return project / "docs" / "search" / f"{dataset}.csv"


def figure_path(table: Path) -> Path:
    """Path of the plot of a table."""
    return table.with_suffix(".png")


def write_table(path: Path, lines: Iterable[Line]) -> None:
    """Write a table atomically, its rows in the order of the paper's tables."""
    order = {name: place for place, name in enumerate([INITIAL_RUN, *METHODS])}
    cells = []
    for line in sorted(lines, key=lambda each: (order.get(each.row, len(order)), each.row, each.trial.number)):
        trial = line.trial
        score = "" if trial.score is None else repr(trial.score)
        settings = json.dumps(dict(trial.settings), sort_keys=True)
        cells.append(
            [
                line.row,
                trial.number,
                trial.state,
                line.epochs,
                line.metric,
                score,
                f"{trial.seconds:.1f}",
                line.conditions,
                settings,
            ]
        )
    write_csv(path, COLUMNS, cells)


def read_table(path: Path) -> list[Line]:
    """Read a table. Raises SearchError if it is missing or malformed; the message names the line."""
    if not path.is_file():
        raise SearchError(f"{path}: no such file; run `soundspot search`")
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise SearchError(f"{path}: its columns are not {', '.join(COLUMNS)}")
        return [_line(cells, f"{path}, line {reader.line_num}") for cells in reader]


def update_table(path: Path, row: str, lines: Iterable[Line]) -> None:
    """Replace the lines of one row, and keep those of the others."""
    kept = [line for line in (read_table(path) if path.is_file() else []) if line.row != row]
    write_table(path, [*kept, *lines])


def best_trial(trials: Iterable[Trial]) -> Trial | None:
    """Return the complete trial with the highest score, the earliest of several; None if there is none."""
    complete = [each for each in trials if each.state == "complete" and each.score is not None]
    return max(complete, key=lambda each: (each.score, -each.number), default=None)


def winners(path: Path) -> dict[str, Winner]:
    """Return the winner of each row of a table.

    Raises
    ------
    SearchError
        The table is missing or malformed, or its rows cannot be compared: they have different numbers of trials, epochs, metrics or
        conditions; or no trial of a row is complete.
    """
    by_row: dict[str, list[Line]] = {}
    for line in read_table(path):
        by_row.setdefault(line.row, []).append(line)
    lines = [line for each in by_row.values() for line in each]
    # The initialization has its own number of epochs, and starts from nothing.
    others = [line for line in lines if line.row != INITIAL_RUN]
    _check_equal(path, "numbers of trials", [(row, len(each)) for row, each in by_row.items()])
    _check_equal(path, "metrics", [(line.row, line.metric) for line in lines])
    _check_equal(path, "epochs", [(line.row, line.epochs) for line in others])
    _check_equal(path, "conditions", [(line.row, line.conditions) for line in others])
    found = {}
    for row, lines in by_row.items():
        best = best_trial(line.trial for line in lines)
        if best is None:
            raise SearchError(f"{path}: no trial of {row} is complete; widen its space, or lower its learning rates")
        found[row] = Winner(row, best, len(lines), lines[0].metric)
    return found


def settings_to_write(found: Mapping[str, Winner]) -> dict[str, dict[str, Any]]:
    """Return the settings of all winners by row, and those of the rows that follow one (FOLLOWERS)."""
    settings = {row: dict(winner.trial.settings) for row, winner in found.items()}
    shared = OptimizationSettings.model_fields
    for row, leader in FOLLOWERS.items():
        if leader in settings:
            settings[row] = {name: value for name, value in settings[leader].items() if name in shared}
    return settings


def _check_equal(path: Path, what: str, values: Iterable[tuple[str, Any]]) -> None:
    rows: dict[Any, list[str]] = {}
    for row, value in dict.fromkeys(values):
        rows.setdefault(value, []).append(row)
    if len(rows) > 1:
        groups = "; ".join(f"{value}: {', '.join(names)}" for value, names in rows.items())
        raise SearchError(f"{path}: rows with different {what} ({groups}); search them again with the same {what}")


def _line(cells: Mapping[str, Any], where: str) -> Line:
    try:
        settings = parse_json(cells["settings"], where, SearchError)
        score = float(cells["score"]) if cells["score"] else None
        trial = Trial(int(cells["trial"]), cells["state"], dict(settings), score, float(cells["seconds"]))
        if trial.state not in STATES:
            raise ValueError(f"state {trial.state!r}")
        return Line(cells["row"], trial, int(cells["epochs"]), cells["metric"], cells["conditions"])
    except (TypeError, ValueError) as error:
        raise SearchError(f"{where}: malformed ({error}); restore the file, or search again") from None
