"""What each setting of Eq. 4 to 7 does: scores on the validation split over its values, as tables and figures of docs/parts.md.

Every value is trained for every seed, with everything else as in params.yaml; all values of a seed start from the same initialization. Runs
that the table has already, for this part or another, are not repeated, unless settings or data changed; after a change of the code, start with `--fresh`.

    python benchmarks/parts.py [--dataset demo] [--parts delta_a draws] [--seeds 0] [--parallel 1] [--fresh]
        [--output docs/parts/NAME.csv] [--page docs/parts.md] [--work benchmarks/results/parts]

`--parts` without names trains nothing, and only writes the page. The test split is never read.
"""

from __future__ import annotations

import pipeline  # noqa: F401  # isort: skip  (before NumPy and torch: it sets how their threads wait)

import argparse
import csv
import json
import math
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.common.config import TrainingSettings, load_params
from pipeline.common.errors import DivergenceError, SettingsError
from pipeline.common.files import fingerprint, write_csv, write_text
from pipeline.common.project import CLIPS_FILE, DATA_FOLDER, HISTORY_FILE, INITIAL_RUN, MODEL_FILE, seed_folder
from pipeline.common.text_table import MISSING, Table
from pipeline.evaluation.labels import label_of
from pipeline.evaluation.response_maps import load_model_for
from pipeline.figures.lines import Line, LinePanel, line_panels
from pipeline.figures.style import save
from pipeline.search.data import open_data
from pipeline.search.space import row_settings, with_values
from pipeline.search.validation import Validation
from pipeline.shards.reader import ShardSet
from pipeline.training.history import read_history
from pipeline.training.train import Execution, initialize, train

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


def values_of(part: Part, settings: TrainingSettings) -> list[Any]:
    """Return the values of a part, with those of params.yaml for each row, in order."""
    own = [getattr(row_settings(settings, part.of or row), part.setting) for row in part.rows]
    values = list(dict.fromkeys([*part.values, *own]))
    return sorted(values, key=lambda value: _rank(part.setting, value))


@dataclass(frozen=True)
class Runner:
    """Trains and scores values, for all seeds at once."""

    settings: TrainingSettings
    train: ShardSet
    validation: Validation
    clips: Path
    seeds: Sequence[int]
    work: Path
    parallel: int

    def changed(self, name: str, row: str, value: Any) -> TrainingSettings:
        """Return the settings with one value. Raises SettingsError if it does not fit the others."""
        return with_values(self.settings, PARTS[name].of or row, {PARTS[name].setting: value})

    def conditions(self, settings: TrainingSettings, row: str) -> str:
        """Return a digest of all that a score depends on, except for the seed and the code."""
        own = {} if row == INITIAL_RUN else row_settings(settings, row).model_dump(mode="json")
        block = settings.model_dump(mode="json", include={"batch_size", "encoder", "augmentation", "initialize"})
        data = [self.train.content_digest, self.validation.shards.content_digest, self.validation.metric]
        return fingerprint({"block": block, "row": own, "data": data})[:12]

    def points(self, name: str, row: str, value: Any) -> Iterator[Point]:
        """Yield a line of the table for each seed."""
        settings, began = self.changed(name, row, value), time.perf_counter()
        keywords = {"settings": settings, "seeds": self.seeds, "execution": Execution(n_parallel=self.parallel)}
        start = self.work / INITIAL_RUN / fingerprint(settings.initialize.model_dump(mode="json"))[:12]
        initialize(self.train, start, **keywords)
        folder = start
        if row != INITIAL_RUN:
            folder = self.work / "run"
            train(self.train, start, folder, method=row, clips=self.clips, **keywords)
        seconds = (time.perf_counter() - began) / len(self.seeds)
        for seed in self.seeds:
            run = seed_folder(folder, self.seeds, seed)
            model = load_model_for(run / MODEL_FILE, self.validation.shards)
            last = read_history(run / HISTORY_FILE)[-1]
            yield {
                **{"part": name, "row": row, "value": json.dumps(value), "seed": seed},
                "metric": self.validation.metric,
                "score": f"{self.validation.score(model, f'{row}, {value}'):.6g}",
                **{key: _number(last[key]) for key in ("positives_per_clip", "sounding_fraction")},
                "seconds": round(seconds),
                "conditions": self.conditions(settings, row),
            }
        if folder != start:
            shutil.rmtree(folder)


def measure(runner: Runner, names: Sequence[str], table: Path, *, fresh: bool) -> list[Point]:
    """Train what is missing in a table, and write the table after each value."""
    points = [] if fresh or not table.is_file() else read_points(table)
    for name in names:
        for row in PARTS[name].rows:
            for value in values_of(PARTS[name], runner.settings):
                key = {"part": name, "row": row, "value": json.dumps(value)}
                try:
                    found = known(points, row, runner.conditions(runner.changed(name, row, value), row), runner.seeds)
                    found = [{**each, **key} for each in found]
                    if found and all(each in points for each in found):
                        continue
                    found = found or list(runner.points(name, row, value))
                except (DivergenceError, SettingsError) as error:
                    print(f"{name}, {row}, {value}: left out: {error}")
                    continue
                # Lines of the same value under other conditions are out of date.
                same = {(*key.values(), str(seed)) for seed in runner.seeds}
                points = [each for each in points if tuple(str(each[column]) for column in KEY) not in same] + found
                write_csv(table, COLUMNS, [[each[column] for column in COLUMNS] for each in points])
                print(f"{name}, {row}, {value}: " + ", ".join(each["score"] for each in found))
    return points


def known(points: Sequence[Point], row: str, conditions: str, seeds: Sequence[int]) -> list[Point]:
    """Return a line for each seed of a run that was measured, perhaps for another part: the value of params.yaml is in all of them."""
    by_seed = {int(each["seed"]): each for each in points if (each["row"], each["conditions"]) == (row, conditions)}
    return [by_seed[seed] for seed in seeds] if by_seed.keys() >= set(seeds) else []


def read_points(table: Path) -> list[Point]:
    """Read a table that `measure` wrote."""
    with open(table, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


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
        body = "".join(f"\n{markdown(name, dataset, points)}" for dataset, points in measured.items())
        if panels := [panel for dataset, points in measured.items() for panel in curves(name, dataset, points)]:
            figure = tables[0].parent / f"{name}.png"
            save(line_panels(panels), figure)
            body += f"\n![Score over {PARTS[name].setting}]({figure.relative_to(page.parent).as_posix()})\n"
        text = f"{head}{mark}{body}{end}{tail}"
    write_text(page, text)


def scores_of(points: Sequence[Point]) -> dict[tuple[str, str], list[float]]:
    """Return the scores in percent by row and value, in the order of the table."""
    scores: dict[tuple[str, str], list[float]] = {}
    for each in points:
        scores.setdefault((each["row"], each["value"]), []).append(100 * float(each["score"]))
    return scores


def markdown(name: str, dataset: str, points: Sequence[Point]) -> str:
    """Return the table of a part on a dataset: a line per value, a column per row; for parts of y, the positives of the last row too."""
    scores = scores_of(points)
    rows = list(dict.fromkeys(row for row, _ in scores))
    values = sorted({value for _, value in scores}, key=lambda value: _rank(PARTS[name].setting, json.loads(value)))
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
    return f"{dataset}: {metric} in percent, seeds {seeds} ([CSV](parts/{dataset}.csv))\n\n{Table(header, tuple(lines)).markdown()}"


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


def _rank(setting: str, value: Any) -> float:
    """Return a number to sort values by: none first, and the mean over all cells (0) after any number of them; words in their order."""
    if isinstance(value, str):
        return PARTS[setting].values.index(value)
    if value is None:
        return -1.0
    return math.inf if setting == "cells" and value == 0 else value


def _cell(values: Sequence[float]) -> str:
    if not values:
        return MISSING
    spread = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{np.mean(values):.1f}{spread}"


def _shown(value: str) -> str:
    return "none" if value == "null" else str(json.loads(value))


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"


def main(words: Sequence[str] | None = None) -> None:
    """Train what is missing, write the table of the dataset, and the page from the tables of all datasets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--dataset", default="demo")
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--parallel", type=int, default=1, help="seeds trained at the same time")
    parser.add_argument("--fresh", action="store_true", help="do not keep earlier values")
    parser.add_argument("--output", type=Path, help="default: docs/parts/DATASET.csv")
    parser.add_argument("--page", type=Path, default=Path("docs/parts.md"))
    parser.add_argument("--work", type=Path, default=Path("benchmarks/results/parts"))
    given = parser.parse_args(words)
    params, table = load_params(Path("params.yaml")), given.output or Path("docs/parts", f"{given.dataset}.csv")
    if given.dataset not in params.training:
        parser.error(f"--dataset {given.dataset}: params.yaml has {', '.join(params.training)}")
    if given.parts:
        shards, validation = open_data(Path(), given.dataset, params, metric=None, device="auto", workers=None)
        runner = Runner(
            params.training[given.dataset],
            shards,
            validation,
            Path(DATA_FOLDER, given.dataset, CLIPS_FILE),
            given.seeds,
            given.work / given.dataset,
            given.parallel,
        )
        measure(runner, given.parts, table, fresh=given.fresh)
    write_page(given.page, sorted(table.parent.glob("*.csv")))


if __name__ == "__main__":
    main()
