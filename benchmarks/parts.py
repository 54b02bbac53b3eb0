"""What each setting of Eq. 4 to 7 does: scores on the validation split over its values, as tables and figures of docs/parts.md.

Every value is trained for every seed, with everything else as in params.yaml; all values of a seed start from the same initialization. Runs
that the table has already, for this part or another, are not repeated, unless settings or data changed. After a change of the code, start with
`--fresh`, which measures the given parts again.

    python benchmarks/parts.py [--dataset demo] [--parts delta_a draws] [--seeds 0] [--parallel 1] [--fresh]
        [--output docs/parts/NAME.csv] [--page docs/parts.md] [--work benchmarks/results/parts]

`--parts` without names trains nothing, and only writes the page. The test split is never read.
"""

from __future__ import annotations

import pipeline  # noqa: F401  # isort: skip  (before NumPy and torch: it sets how their threads wait)

import argparse
import json
import math
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _parts_page import COLUMNS, KEY, PARTS, Part, Point, rank, read_points, write_page

from pipeline.common.config import TrainingSettings, load_params
from pipeline.common.errors import DivergenceError, SettingsError
from pipeline.common.files import fingerprint, write_csv
from pipeline.common.project import CLIPS_FILE, DATA_FOLDER, HISTORY_FILE, INITIAL_RUN, MODEL_FILE, seed_folder
from pipeline.evaluation.response_maps import load_model_for
from pipeline.search.data import open_data
from pipeline.search.space import row_settings, with_values
from pipeline.search.validation import Validation
from pipeline.shards.reader import ShardSet
from pipeline.training.history import read_history
from pipeline.training.train import Execution, initialize, train


def values_of(part: Part, settings: TrainingSettings) -> list[Any]:
    """Return the values of a part, with those of params.yaml for each row, in order."""
    own = [getattr(row_settings(settings, part.of or row), part.setting) for row in part.rows]
    values = list(dict.fromkeys([*part.values, *own]))
    return sorted(values, key=lambda value: rank(part.setting, value))


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
        data = [self.train.content_digest, self.validation.conditions]
        return fingerprint({"block": block, "row": own, "data": data})[:12]

    def current(self, name: str) -> dict[tuple[str, str], str]:
        """Return the conditions of each row and value of a part, as the table has them; values that do not fit are left out."""
        found = {}
        for row in PARTS[name].rows:
            for value in values_of(PARTS[name], self.settings):
                try:
                    found[row, json.dumps(value)] = self.conditions(self.changed(name, row, value), row)
                except SettingsError as error:
                    print(f"{name}, {row}, {value}: left out: {error}")
        return found

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
    """Train what is missing in a table, drop what is out of date, and write the table after each value."""
    points = read_points(table) if table.is_file() else []
    if fresh:
        points = [each for each in points if each["part"] not in names]
    for name in names:
        current = runner.current(name)
        # Lines of other settings or data are out of date, with any seed: a mean must not mix them.
        points = [p for p in points if p["part"] != name or current.get((p["row"], p["value"])) == p["conditions"]]
        for (row, value), conditions in current.items():
            reusable = [each for each in points if each["part"] in names] if fresh else points
            key = {"part": name, "row": row, "value": value}
            found = [{**each, **key} for each in known(reusable, row, conditions, runner.seeds)]
            if found and all(each in points for each in found):
                continue
            try:
                found = found or list(runner.points(name, row, json.loads(value)))
            except (DivergenceError, SettingsError) as error:
                print(f"{name}, {row}, {value}: left out: {error}")
                continue
            same = {(*key.values(), str(seed)) for seed in runner.seeds}
            points = [each for each in points if tuple(str(each[column]) for column in KEY) not in same] + found
            write_csv(table, COLUMNS, [[each[column] for column in COLUMNS] for each in points])
            print(f"{name}, {row}, {value}: " + ", ".join(each["score"] for each in found))
    for name in PARTS.keys() - set(names):
        current = runner.current(name)
        if any(p["part"] == name and current.get((p["row"], p["value"])) != p["conditions"] for p in points):
            print(f"{name}: measured with other settings or data; measure it again (--parts {name})")
    return points


def known(points: Sequence[Point], row: str, conditions: str, seeds: Sequence[int]) -> list[Point]:
    """Return a line for each seed of a run that was measured, perhaps for another part: the value of params.yaml is in all of them."""
    by_seed = {int(each["seed"]): each for each in points if (each["row"], each["conditions"]) == (row, conditions)}
    return [by_seed[seed] for seed in seeds] if by_seed.keys() >= set(seeds) else []


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"


def main(words: Sequence[str] | None = None) -> None:
    """Train what is missing, write the table of the dataset, and the page from the tables of all datasets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--dataset", default="demo")
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--parallel", type=int, default=1, help="seeds trained at the same time")
    parser.add_argument("--fresh", action="store_true", help="measure the given parts again")
    parser.add_argument("--output", type=Path, help="default: docs/parts/DATASET.csv")
    parser.add_argument("--page", type=Path, default=Path("docs/parts.md"))
    parser.add_argument("--work", type=Path, default=Path("benchmarks/results/parts"))
    given = parser.parse_args(words)
    params, table = load_params(Path("params.yaml")), given.output or Path("docs/parts", f"{given.dataset}.csv")
    if given.dataset not in params.training:
        parser.error(f"--dataset {given.dataset}: params.yaml has {', '.join(params.training)}")
    for each in sorted(table.parent.glob("*.csv")):
        try:
            read_points(each)  # before hours of training
        except ValueError as error:
            parser.error(str(error))
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
