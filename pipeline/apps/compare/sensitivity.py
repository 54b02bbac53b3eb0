"""How scores depend on one setting: finished DVC experiments → a table, a CSV file and a figure.

Conventions
-----------
Experiments are the rows of `dvc.api.exp_show`: flat, with dotted keys, newest first, numbers as float and everything else
as text. DVC prefixes a column with its file (``params.yaml:seeds``) only if several files have that key. Only their settings are
used: the scores, with their intervals, are those of each experiment's ``scores.json`` in Git.

A setting is a dotted key of params.yaml, or a bare name such as ``delta_v``. A bare name means the value of
``training.DATASET.iterate`` that a variant really trains with, which its entry of ``methods`` may override.

Only experiments that differ in nothing else are compared. Experiments that agree in all other settings form one series,
labeled by the settings in which it differs from other series. A series with a single value shows nothing and is left out.
Success rate, AUC and the quadrant accuracy of mosaics are fractions in [0, 1]; intervals are bootstrap 95% intervals over clips.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.common.config import Params
from pipeline.common.errors import EvaluationError
from pipeline.common.project import PARAMS_FILE, SCORES_FILE, results_folder
from pipeline.common.reading import parse_yaml
from pipeline.common.text_table import Table
from pipeline.evaluation.labels import label_of
from pipeline.figures.lines import Line, LinePanel, line_panels
from pipeline.scoring.tables import interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METRICS = {"success_rate": "success rate", "auc": "AUC", "quadrant_accuracy": "quadrant accuracy"}
REQUIRED = ("success_rate", "auc")  # the other metrics are shown if every experiment has them
ENDS = ("", "_low", "_high")
# Dotted keys, or their last part, that do not change a score: what is run, file sizes, time limits, what is kept.
WITHOUT_EFFECT = {
    "variants",
    "cross_datasets",
    "extract.clips_per_shard",
    "extract.clip_time_limit_s",
    "extract.max_reject_fraction",
    "keep_epochs",
}
Experiment = Mapping[str, Any]
ReadScores = Callable[
    [str, Path], Mapping[str, Any] | None
]  # revision and path in the project → scores.json, None if absent


@dataclass(frozen=True)
class Point:
    """The scores of one variant at one value of the setting."""

    value: float
    experiment: str
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Series:
    """Experiments of one variant that differ in the setting only.

    Attributes
    ----------
    variant : str
    others : Mapping[str, Any]
        Dotted keys and values in which this series differs from others of the same variant.
    points : sequence of Point
        By increasing value, each value once.
    """

    variant: str
    others: Mapping[str, Any]
    points: Sequence[Point]

    @property
    def label(self) -> str:
        """Name of the series in table and figure."""
        texts = (f"{value:g}" if isinstance(value, float) else value for value in self.others.values())
        notes = [f"{key.split('.')[-1]} {text}" for key, text in zip(self.others, texts, strict=True)]
        return ", ".join([label_of(self.variant), *notes])


def compare(
    experiments: Sequence[Experiment],
    setting: str,
    *,
    read_scores: ReadScores,
    dataset: str,
    split: str,
    variants: Sequence[str] = (),
) -> list[Series]:
    """Return one series per variant and combination of the other settings.

    Parameters
    ----------
    experiments : sequence of Experiment
    setting : str
        A dotted key of params.yaml, or the bare name of an `iterate` setting.
    read_scores : callable
        Reads a file of an experiment, by its revision.
    dataset : str
        Experiments on other datasets are left out.
    split : str
        So are experiments that scored other splits.
    variants : sequence of str
        Empty: all that were scored.

    Raises
    ------
    EvaluationError
        No two experiments have scores at different values of the setting and agree in all others.
    """
    finished = [each for each in experiments if _is_finished(each)]
    own = [e for e in finished if _param(e, "dataset") == dataset and (_param(e, "score_split") or "test") == split]
    found: dict[tuple[str, tuple[tuple[str, Any], ...]], dict[float, Point]] = {}
    for experiment in own:
        for variant, metrics in _scores(experiment, read_scores, dataset, split):
            keys = _effective_keys(setting, dataset, variant)
            value = next((v for key in keys if (v := _param(experiment, key)) is not None), None)
            if (variants and variant not in variants) or not isinstance(value, float):
                continue
            rest = _other_settings(experiment, dataset, variant, without=keys)
            # Newest first: of several experiments at one value the latest counts.
            point = Point(value, experiment["Experiment"] or experiment["rev"], metrics)
            found.setdefault((variant, rest), {}).setdefault(value, point)
    swept = {key: [points[value] for value in sorted(points)] for key, points in found.items() if len(points) > 1}
    if not swept:
        raise EvaluationError(
            f"{setting}: of {len(finished)} finished experiments, {len(own)} scored {dataset} on the split {split!r}, and "
            "no two of them differ in this setting alone; queue some as in docs/experiments.md"
        )
    series = []
    for (variant, rest), points in sorted(swept.items(), key=lambda item: (item[0][0], str(item[0][1]))):
        same_variant = [dict(other) for name, other in swept if name == variant]
        others = {key: value for key, value in rest if any(each.get(key) != value for each in same_variant)}
        series.append(Series(variant, others, points))
    return series


def sensitivity_table(series: Sequence[Series], setting: str) -> Table:
    """Return one row per series and value: its metrics in percent, with their intervals."""
    metrics = _metrics(series)
    rows = [
        (each.label, f"{point.value:g}", *(interval(point.metrics, key) for key in metrics))
        for each in series
        for point in each.points
    ]
    return Table(("", setting, *metrics.values()), tuple(rows))


def sensitivity_rows(series: Sequence[Series]) -> tuple[list[str], list[list[Any]]]:
    """Return header and lines of the CSV file: series, variant, value, experiment, then fractions with intervals."""
    keys = [key + end for key in _metrics(series) for end in ENDS]
    lines = [
        [each.label, each.variant, point.value, point.experiment, *(point.metrics[key] for key in keys)]
        for each in series
        for point in each.points
    ]
    return ["series", "variant", "value", "experiment", *keys], lines


def sensitivity_figure(series: Sequence[Series], setting: str) -> Figure:
    """Plot each metric against the setting, one line per series, with the intervals over clips."""

    def line(each: Series, key: str) -> Line:
        y, low, high = ([point.metrics[key + end] for point in each.points] for end in ENDS)
        return Line(each.label, [point.value for point in each.points], y, low, high)

    return line_panels(
        [LinePanel(title, setting, [line(each, key) for each in series]) for key, title in _metrics(series).items()]
    )


def _metrics(series: Sequence[Series]) -> dict[str, str]:
    """Return key and title of the metrics that every point has."""
    points = [point for each in series for point in each.points]
    return {key: title for key, title in METRICS.items() if all(key in point.metrics for point in points)}


def _is_finished(experiment: Experiment) -> bool:
    """Tell whether an experiment has ended well.

    Workspace and commits ("baseline") do not count, because their settings may be newer than their scores. The same goes
    for an experiment that runs in the workspace.
    """
    return experiment["typ"] != "baseline" and experiment["State"] in (None, "Success")


def _param(experiment: Experiment, key: str) -> Any:
    return experiment.get(f"{PARAMS_FILE}:{key}", experiment.get(key))


def _scores(
    experiment: Experiment, read_scores: ReadScores, dataset: str, split: str
) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield each variant with the metrics of its ``results/DATASET/VARIANT/scores.json``."""
    for variant in parse_yaml(_param(experiment, "variants") or "[]", "variants", EvaluationError):
        scores = read_scores(experiment["rev"], results_folder(Path(), dataset) / str(variant) / SCORES_FILE) or {}
        keys = [key + end for key in METRICS for end in ENDS]
        own = {key: scores[key] for key in keys if isinstance(scores.get(key), float)}
        if scores.get("split") == split and all(key + end in own for key in REQUIRED for end in ENDS):
            yield variant, own


def _effective_keys(setting: str, dataset: str, variant: str) -> list[str]:
    """Return the keys that may hold a setting; the first one present wins."""
    if "." in setting:
        return [setting]
    block = f"training.{dataset}"
    return [f"{block}.methods.{variant}.{setting}", f"{block}.iterate.{setting}"]


def _other_settings(
    experiment: Experiment, dataset: str, variant: str, *, without: Sequence[str]
) -> tuple[tuple[str, Any], ...]:
    """Return all other settings that decide a variant's scores, without those of other datasets and methods."""
    block = f"training.{dataset}."
    settings = {}
    for column, value in experiment.items():
        key = column.removeprefix(f"{PARAMS_FILE}:")
        ignored = {key, key.split(".")[-1]} & {*without, *WITHOUT_EFFECT}
        if value is None or ignored or key.split(".")[0] not in Params.model_fields:
            continue
        if key.startswith("training.") and not key.startswith(block):
            continue
        if key.startswith(f"{block}methods.") and not key.startswith(f"{block}methods.{variant}."):
            continue
        settings[key] = value
    return tuple(sorted(settings.items()))
