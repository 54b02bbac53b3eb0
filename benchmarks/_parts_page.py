"""The settings that `parts.py` measures, its table, and the page that it writes from the tables of all datasets."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.common.files import write_text
from pipeline.common.project import INITIAL_RUN
from pipeline.common.text_table import MISSING, Table
from pipeline.evaluation.labels import label_of
from pipeline.figures.lines import Line, LinePanel, line_panels
from pipeline.figures.style import save

TAU = (0.03, 0.05, 0.07, 0.1, 0.2, 0.3, 0.5)
ABLATION = ("itr", "itr_intra", "iterative")
INTRA, INTER = ("itr_intra", "iterative"), ("itr_inter", "iterative")


@dataclass(frozen=True)
class Part:
    """A setting, the values to try besides that of params.yaml, and the rows to try them on; `of` has the setting, if not the row."""

    setting: str
    values: tuple[Any, ...]
    rows: tuple[str, ...]
    of: str | None = None


PARTS = {
    "delta_v": Part("delta_v", (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95), ABLATION),
    "delta_v_start": Part("delta_v_start", (None, 0.9, 0.95, 0.99), ABLATION),
    "delta_v_silent": Part("delta_v_silent", (None, 0.2, 0.4, 0.6, 0.8), INTRA),
    "cells": Part("cells", (1, 2, 4, 8, 0), ABLATION),
    "draws": Part("draws", (1, 2, 4, 8, 32), ABLATION),
    "temperature": Part("temperature", TAU, ("initial", *ABLATION)),
    "initialize_temperature": Part("temperature", TAU, (INITIAL_RUN, "iterative"), INITIAL_RUN),
    "delta_a": Part("delta_a", (0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99), INTER),
    "relation_share": Part("relation_share", (None, 0.02, 0.05, 0.1, 0.2), INTER),
    "relation_from": Part("relation_from", ("previous", "initialization", "either"), INTER),
    "teacher_decay": Part("teacher_decay", (0.0, 0.9, 0.97, 0.99), ABLATION),
}
COLUMNS = (
    "part",
    "row",
    "value",
    "seed",
    "metric",
    "score",
    "positives_per_clip",
    "sounding_fraction",
    "seconds",
    "conditions",
)
KEY = ("part", "row", "value", "seed")
Point = dict[str, Any]


def read_points(table: Path) -> list[Point]:
    """Read a table that `measure` wrote. Raises ValueError for another table."""
    with open(table, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise ValueError(
                f"{table}: not a table of this script; move it to another folder, or choose another --output"
            )
        return list(reader)


def write_page(page: Path, tables: Sequence[Path]) -> None:
    """Put tables and figures between `<!-- PART -->` and `<!-- end -->`, for each part that was measured on a dataset."""
    text, datasets = page.read_text(encoding="utf-8"), {table.stem: read_points(table) for table in tables}
    for name in PARTS:
        head, mark, rest = text.partition(f"<!-- {name} -->\n")
        if not mark:
            raise ValueError(f"{page}: no line <!-- {name} -->")
        _, end, tail = rest.partition("<!-- end -->")
        measured = {dataset: [each for each in points if each["part"] == name] for dataset, points in datasets.items()}
        measured = {dataset: points for dataset, points in measured.items() if points}
        links = {table.stem: _link(table, page) for table in tables}
        body = "".join(f"\n{markdown(name, dataset, points, links[dataset])}" for dataset, points in measured.items())
        if panels := [panel for dataset, points in measured.items() for panel in curves(name, dataset, points)]:
            figure = tables[0].parent / f"{name}.png"
            save(line_panels(panels), figure)
            body += f"\n![Score over {PARTS[name].setting}]({_link(figure, page)})\n"
        text = f"{head}{mark}{body}{end}{tail}"
    write_text(page, text)


def scores_of(points: Sequence[Point]) -> dict[tuple[str, str], list[float]]:
    """Return the scores in percent by row and value, in the order of the table."""
    scores: dict[tuple[str, str], list[float]] = {}
    for each in points:
        scores.setdefault((each["row"], each["value"]), []).append(100 * float(each["score"]))
    return scores


def markdown(name: str, dataset: str, points: Sequence[Point], link: str) -> str:
    """Return the table of a part on a dataset: a line per value, a column per row; for parts of y, the positives of the last row too."""
    scores = scores_of(points)
    rows = list(dict.fromkeys(row for row, _ in scores))
    values = sorted({value for _, value in scores}, key=lambda value: rank(PARTS[name].setting, json.loads(value)))
    related = name.startswith(("delta_a", "relation"))
    lines = []
    for value in values:
        cells = [_cell(scores.get((row, value), [])) for row in rows]
        if related:
            own = [each for each in points if (each["row"], each["value"]) == (rows[-1], value)]
            cells.append(_cell([float(each["positives_per_clip"]) for each in own if each["positives_per_clip"]]))
        lines.append((_shown(value), *cells))
    header = (PARTS[name].setting, *map(label_of, rows), *(["positives per clip"] if related else []))
    seeds = ", ".join(sorted({str(each["seed"]) for each in points}, key=int))
    metric = points[0]["metric"].replace("_", " ")
    return f"{dataset}: {metric} in percent, seeds {seeds} ([CSV]({link}))\n\n{Table(header, tuple(lines)).markdown()}"


def curves(name: str, dataset: str, points: Sequence[Point]) -> list[LinePanel]:
    """Return a panel with a line per row over the values that are numbers; none if fewer than two are."""
    lines = []
    scores = scores_of(points)
    for row in dict.fromkeys(row for row, _ in scores):
        by_value = {json.loads(value): found for (of, value), found in scores.items() if of == row}
        numbers = sorted(v for v in by_value if isinstance(v, int | float) and not (name == "cells" and v == 0))
        means = [float(np.mean(by_value[v])) for v in numbers]
        low, high = ([float(end(by_value[v])) for v in numbers] for end in (np.min, np.max))
        if len(numbers) > 1:
            lines.append(Line(label_of(row), numbers, means, low, high))
    return [LinePanel(dataset, PARTS[name].setting, lines)] if lines else []


def rank(setting: str, value: Any) -> float:
    """Return a number to sort values by: none first, and the mean over all cells (0) after any number of them; words in their order."""
    if isinstance(value, str):
        return PARTS[setting].values.index(value)
    if value is None:
        return -1.0
    return math.inf if setting == "cells" and value == 0 else value


def _link(path: Path, page: Path) -> str:
    return Path(os.path.relpath(path, page.parent)).as_posix()


def _cell(values: Sequence[float]) -> str:
    if not values:
        return MISSING
    spread = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{np.mean(values):.1f}{spread}"


def _shown(value: str) -> str:
    return "none" if value == "null" else str(json.loads(value))
