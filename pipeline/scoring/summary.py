"""Flat metrics over threshold rules and seeds: the contents of ``scores.json``, ``metrics.json`` and ``baselines.json``.

Conventions
-----------
Metrics are flat mappings of fractions. A key is ``<audio><rule><metric>``:

- `audio` is empty, or ``shuffled_``: every frame got the audio of another clip, so the score shows what the method
  achieves from the frame alone.
- `rule` is empty for the card's protocol. ``median_`` and ``fixed_`` are the same protocol with another sounding region:
  the pixels above the median (half of them, or fewer if many are equal), or those above 0.5 of the normalized map. A rule
  that is the card's own is not repeated.
- `metric` is ``success_rate``, ``auc``, ``mean_ciou``, ``mean_iou``, ``pointing_accuracy``, for mosaics
  ``quadrant_accuracy``, or one that only some protocols have. Each has ``_low`` and ``_high``, its bootstrap 95% interval over clips.

A row of ``baselines.json`` also has ``success_curve``: success rate at the 21 cIoU thresholds 0, 0.05, …, 1 under the
card's protocol.

``split``, ``protocol``, ``threshold`` and, for a model, ``seeds`` describe what was scored and how. ``quadrant_chance`` is
the quadrant accuracy of cells chosen at random. ``normalization`` is
present if the method's own replaces the protocol's.

With several seeds, a metric is the mean over seeds and ``<key>_seeds`` lists the value of each. The interval is then
computed from each clip's (or frame's) mean over seeds: it shows the variation over clips, the list the variation over
seeds.

``metrics.json`` is what DVC shows, the few numbers of `main_metrics`. Everything else reads ``scores.json``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.common.errors import EvaluationError
from pipeline.common.project import stage_name
from pipeline.common.reading import read_json
from pipeline.scoring.protocols import ScoringProtocol
from pipeline.scoring.results import Scores, samples, summarize, with_intervals

SHUFFLED = "shuffled_"
_OF_THE_MAP = ("pointing_accuracy", "quadrant_accuracy")  # the same under every threshold rule
_FACTS = ("threshold", "quadrant_chance")  # floats that are no scores
# Key in metrics.json → key in scores.json. Short, because `dvc metrics show` prints all of them on one line.
_MAIN = {
    "success_rate": "success_rate",
    "auc": "auc",
    "mean_ciou": "mean_ciou",
    "pointing": "pointing_accuracy",
    "quadrant": "quadrant_accuracy",
    "shuffled": f"{SHUFFLED}success_rate",
}
# What every reader of scores.json may rely on.
_NEEDED = (
    *("split", "seeds", "protocol", "threshold", "n_clips"),
    *(key + end for key in ("success_rate", "auc") for end in ("", "_low", "_high")),
    f"{SHUFFLED}success_rate",
)
_DIGITS = 4  # of metrics.json: a hundredth of a percent, finer than any interval


def scoring_rules(protocol: ScoringProtocol) -> dict[str, ScoringProtocol]:
    """Return the protocol under ``""``, plus its variants ``median_`` and ``fixed_`` unless it already has that rule."""
    rules = {"": protocol}
    if protocol.threshold_rule != "median":
        rules["median_"] = replace(protocol, name=f"{protocol.name}, median", threshold_rule="median", extras=())
    if (protocol.threshold_rule, protocol.map_threshold) != ("fixed", 0.5):
        name = f"{protocol.name}, fixed 0.5"
        rules["fixed_"] = replace(protocol, name=name, threshold_rule="fixed", map_threshold=0.5, extras=())
    return rules


def flat_metrics(runs: Sequence[Mapping[str, Scores]]) -> dict[str, Any]:
    """Summarize the scores of one run per seed in one flat mapping.

    Parameters
    ----------
    runs : sequence of mapping of str to Scores
        Scores by prefix ``<audio><rule>``; the same prefixes and clips in each run.

    Returns
    -------
    dict
        See the module's conventions. Counts, ``protocol``, ``threshold`` and ``quadrant_chance`` have no prefix. Pointing
        and quadrant accuracy do not depend on the rule, so they are reported only for the card's protocol.
    """
    metrics: dict[str, Any] = {}
    for prefix in runs[0]:
        values, facts = _mean_over_seeds([run[prefix] for run in runs])
        if prefix not in ("", SHUFFLED):
            values = {key: value for key, value in values.items() if not key.startswith(_OF_THE_MAP)}
        metrics |= {prefix + key: value for key, value in values.items()}
        if prefix == "":
            own_facts = facts
    return metrics | own_facts


def main_metrics(scores: Mapping[str, Any], content_free: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Return the contents of ``metrics.json``: at most seven fractions, rounded to four digits.

    Parameters
    ----------
    scores : mapping
        The contents of ``scores.json``.
    content_free : mapping of str to mapping
        Baseline → its flat metrics.

    Returns
    -------
    dict
        ``success_rate``, ``auc``, ``mean_ciou``, ``pointing`` (accuracy) and, for mosaics, ``quadrant`` (accuracy);
        ``shuffled``, the success rate with the audio of other clips; ``best_baseline``, see `best_baseline`.
    """
    metrics = {name: round(scores[key], _DIGITS) for name, key in _MAIN.items() if key in scores}
    if content_free:
        metrics["best_baseline"] = round(content_free[best_baseline(content_free)]["success_rate"], _DIGITS)
    return metrics


def best_baseline(content_free: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the name of the content-free baseline with the highest success rate; the first one of several."""
    return max(content_free, key=lambda name: content_free[name]["success_rate"])


def mean_curves(runs: Sequence[Mapping[str, Scores]]) -> dict[str, np.ndarray]:
    """Return the success curve of each prefix, averaged over seeds, float64 (21,)."""
    return {prefix: np.mean([run[prefix].curve for run in runs], axis=0) for prefix in runs[0]}


def read_baselines(path: Path) -> dict[str, dict[str, Any]]:
    """Read ``baselines.json``: baseline → flat metrics. Raises EvaluationError if it is missing or unusable."""
    again = "dvc repro baselines"
    rows = _read_json(path, again=again)
    for name, scores in rows.items():
        if not isinstance(scores, dict) or not isinstance(scores.get("success_rate"), float):
            raise EvaluationError(f"{path}: the baseline {name!r} has no scores; run `{again}`")
    return rows


def read_scores(path: Path) -> dict[str, Any]:
    """Read a ``scores.json``. Raises EvaluationError if it is missing, damaged, or of another version."""
    again = f"dvc repro {stage_name('evaluate', path.parent)}"
    scores = _read_json(path, again=again)
    if missing := [key for key in _NEEDED if key not in scores]:
        raise EvaluationError(f"{path}: has no {', '.join(missing)}; run `{again}`")
    return scores


def _mean_over_seeds(runs: Sequence[Scores]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the metrics of one prefix, and its counts and settings."""
    summaries = [summarize(scores) for scores in runs]
    keys = [key for key, value in summaries[0].items() if isinstance(value, float) and key not in _FACTS]
    facts = {key: value for key, value in summaries[0].items() if key not in keys}
    # The only count that depends on the model, hence on the seed.
    facts["n_flat_maps"] = max(each["n_flat_maps"] for each in summaries)
    if len(runs) == 1:
        return {key: summaries[0][key] for key in keys}, facts
    means = {key: float(np.mean([each[key] for each in summaries])) for key in keys}
    # The interval describes the variation over clips, so each clip is averaged over seeds first.
    for of_seeds in zip(*map(samples, runs), strict=True):
        averages = {name: np.mean([sample[name] for sample in of_seeds], axis=0) for name in of_seeds[0]}
        intervals = with_intervals(averages)
        means |= {key: value for key, value in intervals.items() if key not in averages}
    metrics: dict[str, Any] = {}
    for key, value in means.items():
        metrics[key] = value
        if not key.endswith(("_low", "_high")):
            metrics[f"{key}_seeds"] = [each[key] for each in summaries]
    return metrics, facts


def _read_json(path: Path, *, again: str) -> dict[str, Any]:
    if not path.is_file():
        raise EvaluationError(f"{path}: no scores; run `{again}`")
    try:
        content = read_json(path, EvaluationError)
    except EvaluationError as error:
        raise EvaluationError(f"{error}; run `{again}`") from None
    if not isinstance(content, dict):
        raise EvaluationError(f"{path}: not a scores file; run `{again}`")
    return content
