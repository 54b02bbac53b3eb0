"""The scores of one dataset, as the stages `evaluate`, `baselines` and `report` have written them.

Conventions
-----------
A metric is named as in ``scores.json``: ``success_rate``, ``auc`` and, for mosaics, ``quadrant_accuracy``; with the prefix
``shuffled_``, frames had the audio of other clips. Values per seed and clip are fractions, under the protocol of the dataset's card.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.common.errors import EvaluationError
from pipeline.common.project import BASELINES_FILE, CLIP_SCORES_FILE, SCORES_FILE, stage_name
from pipeline.common.tables import read_records
from pipeline.methods.registry import METHODS
from pipeline.scoring.metrics import FloatArray, auc, curve_of_each_clip, succeeds
from pipeline.scoring.summary import SHUFFLED, read_baselines, read_scores

METRIC_NAMES = {"success_rate": "success rate", "auc": "AUC", "quadrant_accuracy": "quadrant accuracy"}
_SAME = ("split", "protocol", "threshold", "n_clips")  # what the rows of one dataset have in common
_TOLERANCE = 1e-6


@dataclass(frozen=True)
class TrainedRow:
    """The scores of one variant.

    Attributes
    ----------
    metrics : mapping of str to Any
        ``scores.json``.
    seeds : tuple of int
    clip_ids : tuple of str
        In alphabetical order.
    values : mapping of str to float64 array, shape (seed, clip)
        Metric → score of each seed and clip.
    """

    metrics: Mapping[str, Any]
    seeds: tuple[int, ...]
    clip_ids: tuple[str, ...]
    values: Mapping[str, FloatArray]


@dataclass(frozen=True)
class Results:
    """All scores on one dataset.

    Attributes
    ----------
    name : str
    folder : Path
        ``results/NAME``.
    rows : mapping of str to TrainedRow
        Trained variants in the order of METHODS, then all others.
    content_free : mapping of str to mapping
        Content-free baseline → flat metrics.
    """

    name: str
    folder: Path
    rows: Mapping[str, TrainedRow]
    content_free: Mapping[str, Mapping[str, Any]]

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that every row has, the primary one first: quadrant accuracy for mosaics, otherwise success rate."""
        every = [name for name in METRIC_NAMES if all(name in row.values for row in self.rows.values())]
        return tuple(sorted(every, key=lambda name: name != "quadrant_accuracy"))

    @property
    def primary(self) -> str:
        """The metric that verdicts are based on."""
        return self.metrics[0]

    @property
    def any_row(self) -> TrainedRow:
        """A row, for what all rows have in common."""
        return next(iter(self.rows.values()))

    @property
    def missing(self) -> list[str]:
        """The rows of the paper's tables that were not trained."""
        return [name for name, spec in METHODS.items() if (spec.table_1 or spec.table_2) and name not in self.rows]


def read_results(folder: Path) -> Results:
    """Read ``results/NAME``: every variant that has scores, and the content-free baselines.

    Raises
    ------
    EvaluationError
        There are none, a file is damaged, or rows belong to different clips, splits or protocols.
    """
    scored = {path.parent.name for path in folder.glob(f"*/{SCORES_FILE}")}
    if not scored:
        raise EvaluationError(f"{folder}: no variant has scores; run `dvc repro`")
    ordered = [*(name for name in METHODS if name in scored), *sorted(scored - METHODS.keys())]
    rows = {name: read_row(folder / name) for name in ordered}
    content_free = read_baselines(folder / BASELINES_FILE)
    if not content_free:
        raise EvaluationError(
            f"{folder / BASELINES_FILE}: no baselines; run `dvc repro -f -s baselines@{folder.resolve().name}`"
        )
    _check_alike(folder, rows, content_free)
    return Results(folder.resolve().name, folder, rows, content_free)


def read_row(folder: Path) -> TrainedRow:
    """Read ``scores.json`` and ``scores.csv`` of one variant. Raises EvaluationError if they are damaged or do not match."""
    again = f"run `dvc repro {stage_name('evaluate', folder)}`"
    metrics, path = read_scores(folder / SCORES_FILE), folder / CLIP_SCORES_FILE
    records = read_records(path, EvaluationError)
    try:
        seeds = tuple(int(seed) for seed in metrics["seeds"])
        clip_ids = tuple(sorted({record["clip_id"] for record in records}))
        lines = {(int(record["seed"]), record["clip_id"]): record for record in records}
        if len(lines) != len(records) or lines.keys() != {(seed, clip_id) for seed in seeds for clip_id in clip_ids}:
            raise ValueError(f"it needs one line for each clip and each of the seeds {', '.join(map(str, seeds))}")
        ordered = [[lines[seed, clip_id] for clip_id in clip_ids] for seed in seeds]
        values = _values(ordered, threshold=metrics["threshold"])
        differing = [key for key, each in values.items() if not abs(each.mean() - metrics[key]) <= _TOLERANCE]
    except (KeyError, TypeError, ValueError) as error:
        raise EvaluationError(f"{path}: damaged, or not of the same run as {SCORES_FILE} ({error}); {again}") from None
    if differing:
        raise EvaluationError(f"{path}: its {differing[0]} is not that of {SCORES_FILE}; {again}")
    return TrainedRow(metrics, seeds, clip_ids, values)


def _values(lines: Sequence[Sequence[Mapping[str, str]]], *, threshold: float) -> dict[str, FloatArray]:
    """Return the metrics of `TrainedRow.values` from the lines of ``scores.csv`` by seed and clip."""
    values: dict[str, FloatArray] = {}
    for prefix in ("", SHUFFLED):
        ciou = np.array([[float(line[f"{prefix}ciou"]) for line in of_seed] for of_seed in lines])
        values[f"{prefix}success_rate"] = succeeds(ciou, threshold).astype(np.float64)
        values[f"{prefix}auc"] = auc(curve_of_each_clip(ciou))
        if "quadrant" in lines[0][0]:
            hits = [[float(line[f"{prefix}quadrant"]) for line in of_seed] for of_seed in lines]
            values[f"{prefix}quadrant_accuracy"] = np.array(hits)
    return values


def _check_alike(folder: Path, rows: Mapping[str, TrainedRow], content_free: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise EvaluationError if the rows of a dataset were not scored on the same clips in the same way."""
    (first, reference), *others = rows.items()
    for name, row in others:
        if row.clip_ids != reference.clip_ids:
            raise EvaluationError(f"{folder}: {first} and {name} were scored on different clips; run `dvc repro`")
    every = {name: row.metrics for name, row in rows.items()} | dict(content_free)
    for key in _SAME:
        for name, metrics in every.items():
            if metrics.get(key) != reference.metrics.get(key):
                values = f"{reference.metrics.get(key)!r} and {metrics.get(key)!r}"
                raise EvaluationError(f"{folder}: {first} and {name} differ in {key} ({values}); run `dvc repro`")
