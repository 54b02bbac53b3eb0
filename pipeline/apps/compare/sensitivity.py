"""How scores depend on one setting: finished experiments → a table and a picture.

Conventions
-----------
Experiments are what ``dvc exp show --json`` prints. A setting is a dotted key of params.yaml, or a bare name such as
``delta_v``: then it is the one of ``training.DATASET.iterate`` that a variant really trains with, which its own entry of
``methods`` may override. Success rate and AUC are fractions in [0, 1]; an interval is the bootstrap 95 % interval over clips.

Only experiments that differ in nothing else are compared. Those that agree in all other settings form one series; where
there are several, each is a block of the table and a line of the picture, and is called by the settings in which it differs
from the others. `variants` and `cross_datasets` decide what is run and not how it comes out, so they may differ; so may
settings that change files and no score, such as `extract.clips_per_shard`. A series with one value says nothing of the setting and is left out. Of several experiments at one value, the latest counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from matplotlib.figure import Figure

from pipeline.common.errors import EvaluationError
from pipeline.common.project import METRICS_FILE, PARAMS_FILE, RESULTS_FOLDER
from pipeline.figures.lines import Line, LinePanel, line_panels
from pipeline.scoring.tables import Table, interval, label_of

METRICS = {"success_rate": "success rate", "auc": "AUC"}
NOT_COMPARED = ("variants", "cross_datasets")
# Dotted keys, or their last part: how much lies in a file, when to give up, and what stays of a run.
WITHOUT_EFFECT = ("extract.clips_per_shard", "extract.clip_time_limit_s", "extract.max_reject_fraction", "keep_epochs")
_ABSENT = object()


@dataclass(frozen=True)
class Experiment:
    """One finished experiment.

    Attributes
    ----------
    name : str
    time : str
        When it ended, in a form that sorts.
    params : Mapping[str, Any]
        The contents of params.yaml.
    metrics : Mapping[str, Mapping[str, Any]]
        Path of each metrics file → its flat contents.
    """

    name: str
    time: str
    params: Mapping[str, Any]
    metrics: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Point:
    """The scores of one variant at one value of the setting."""

    value: float
    experiment: str
    metrics: Mapping[str, Any]


@dataclass(frozen=True)
class Series:
    """Experiments of one variant that differ in the setting alone.

    Attributes
    ----------
    variant : str
    others : Mapping[str, Any]
        Dotted keys and values in which this series differs from another one of the same variant.
    points : sequence of Point
        By rising value, each value once.
    """

    variant: str
    others: Mapping[str, Any]
    points: Sequence[Point]

    @property
    def label(self) -> str:
        """How the series is called in table and picture."""
        notes = ", ".join(f"{key.split('.')[-1]} {value}" for key, value in self.others.items())
        return f"{label_of(self.variant)}, {notes}" if notes else label_of(self.variant)


def read_experiments(text: str) -> list[Experiment]:
    """Read the finished experiments from the output of ``dvc exp show --json``.

    The workspace and the commits themselves are left out: settings in them may have been changed after their scores were
    made. So are experiments that are queued, are running, or have failed.

    Raises
    ------
    EvaluationError
        The text is something else.
    """
    try:
        entries = json.loads(text)
        finished = []
        for entry in entries:
            for experiment in entry.get("experiments") or ():
                # One that runs in the workspace has its new settings, and the scores of the one before.
                if (experiment.get("executor") or {}).get("state", "success") != "success":
                    continue
                # Without a checkpoint in it, an experiment has one revision.
                revision = (experiment.get("revs") or [{}])[0]
                finished += _finished(revision, experiment.get("name"))
    except (ValueError, AttributeError, TypeError) as error:
        raise EvaluationError(f"not the output of `dvc exp show --json` ({error})") from None
    return finished


def compare(
    experiments: Sequence[Experiment], setting: str, *, dataset: str, split: str, variants: Sequence[str] = ()
) -> list[Series]:
    """Return one series for each variant and each choice of the other settings.

    Parameters
    ----------
    experiments : sequence of Experiment
    setting : str
        A dotted key of params.yaml, or a bare name of an `iterate` setting.
    dataset : str
        Experiments on other datasets are left out.
    split : str
        So are scores of other splits.
    variants : sequence of str
        Empty takes all that were scored.

    Raises
    ------
    EvaluationError
        No two experiments have scores at different values of the setting and agree in all else.
    """
    found: dict[tuple[str, str], dict[float, tuple[str, Point]]] = {}
    others: dict[tuple[str, str], dict[str, Any]] = {}
    own = [each for each in experiments if each.params.get("dataset") == dataset]
    own = [each for each in own if _split(each) == split]
    for experiment in own:
        for variant, metrics in _scores(experiment, dataset):
            keys = _effective_keys(setting, dataset, variant)
            value = next((v for key in keys if (v := _at(experiment.params, key)) is not _ABSENT), None)
            if (variants and variant not in variants) or isinstance(value, bool) or not isinstance(value, int | float):
                continue
            rest = _other_settings(experiment.params, dataset, variant, without=keys)
            key = (variant, json.dumps(rest, sort_keys=True))
            others[key] = rest
            points = found.setdefault(key, {})
            if value not in points or points[value][0] <= experiment.time:
                points[value] = (experiment.time, Point(float(value), experiment.name, metrics))
    swept = {key: [points[value][1] for value in sorted(points)] for key, points in found.items() if len(points) > 1}
    if not swept:
        raise EvaluationError(
            f"{setting}: of {len(experiments)} finished experiments, {len(own)} scored {dataset} on the split {split!r}, and "
            f"no two of them differ in this setting alone; queue some, as docs/experiments.md shows"
        )
    return [
        Series(variant, _differences(others[variant, rest], [others[k] for k in swept if k[0] == variant]), points)
        for (variant, rest), points in sorted(swept.items())
    ]


def sensitivity_table(series: Sequence[Series], setting: str) -> Table:
    """Return a row for each value of each series: success rate and AUC in percent, with their intervals."""
    rows = [
        (each.label, f"{point.value:g}", *(interval(point.metrics, key) for key in METRICS))
        for each in series
        for point in each.points
    ]
    return Table(("", setting, *METRICS.values()), tuple(rows))


def sensitivity_rows(series: Sequence[Series]) -> tuple[list[str], list[list[Any]]]:
    """Return header and lines of a CSV file: series, variant, value, experiment, then fractions with their intervals."""
    keys = [key + end for key in METRICS for end in ("", "_low", "_high")]
    lines = [
        [each.label, each.variant, point.value, point.experiment, *(point.metrics[key] for key in keys)]
        for each in series
        for point in each.points
    ]
    return ["series", "variant", "value", "experiment", *keys], lines


def sensitivity_figure(series: Sequence[Series], setting: str) -> Figure:
    """Return success rate and AUC against the setting, one line for each series, with the intervals over clips."""

    def line(each: Series, key: str) -> Line:
        y, low, high = ([point.metrics[key + end] for point in each.points] for end in ("", "_low", "_high"))
        return Line(each.label, [point.value for point in each.points], y, low, high)

    return line_panels(
        [LinePanel(title, setting, [line(each, key) for each in series]) for key, title in METRICS.items()]
    )


def _finished(revision: Mapping[str, Any], name: str | None) -> list[Experiment]:
    data = revision.get("data")
    if revision.get("error") or not data or not data.get("metrics"):
        return []
    params = data["params"].get(PARAMS_FILE, {}).get("data")
    metrics = {path: content["data"] for path, content in data["metrics"].items() if content.get("data")}
    label = name or revision.get("name") or str(revision.get("rev"))[:7]
    return [Experiment(label, str(data.get("timestamp")), params, metrics)] if params else []


def _scores(experiment: Experiment, dataset: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each variant with its metrics: those in ``results/DATASET/VARIANT/metrics.json``, all of this experiment."""
    keys = [key + end for key in METRICS for end in ("", "_low", "_high")]
    for path, metrics in experiment.metrics.items():
        parts = PurePosixPath(path).parts
        own = len(parts) == 4 and parts[:2] == (RESULTS_FOLDER, dataset) and parts[3] == METRICS_FILE
        if own and all(key in metrics for key in keys) and metrics.get("split") == _split(experiment):
            yield parts[2], metrics


def _split(experiment: Experiment) -> str:
    return str(experiment.params.get("score_split", "test"))


def _effective_keys(setting: str, dataset: str, variant: str) -> list[str]:
    """Return where a setting may stand; the first place that has it counts."""
    if "." in setting:
        return [setting]
    block = f"training.{dataset}"
    return [f"{block}.methods.{variant}.{setting}", f"{block}.iterate.{setting}"]


def _other_settings(params: Mapping[str, Any], dataset: str, variant: str, *, without: Sequence[str]) -> dict[str, Any]:
    """Return dotted key → value of all else that decides a variant's scores: not other datasets' and methods' settings."""
    block = params["training"][dataset]
    methods = {variant: block.get("methods", {}).get(variant, {})}
    relevant = {key: value for key, value in params.items() if key not in NOT_COMPARED}
    relevant["training"] = {dataset: {**block, "methods": methods}}
    ignored = {*without, *WITHOUT_EFFECT}
    return {key: value for key, value in _flat(relevant).items() if not {key, key.split(".")[-1]} & ignored}


def _differences(own: Mapping[str, Any], every: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    keys = [key for key in own if any(each.get(key, _ABSENT) != own[key] for each in every)]
    return {key: own[key] for key in keys}


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat |= _flat(inner, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _at(value: Any, key: str) -> Any:
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return _ABSENT
        value = value[part]
    return value
