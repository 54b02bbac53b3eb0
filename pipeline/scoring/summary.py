"""Per-clip scores → flat mappings, over rules and seeds.

Conventions
-----------
Scores are flat mappings of fractions, as ``metrics.json`` holds them. A key is ``<audio><rule><metric>``:

- `audio` is empty, or ``shuffled_``: every frame was given the sound of another clip, so what is left is what the
  method knows without hearing;
- `rule` is empty for the card's protocol; ``median_`` and ``fixed_`` are the same protocol with the pixels above the median
  (half of them, or fewer where many are equal), or those above 0.5 of the normalized map, as the sounding region. The card's own
  rule is not repeated;
- `metric` is ``success_rate``, ``auc``, ``mean_ciou``, ``mean_iou``, ``pointing_accuracy``, or one that only some
  protocols have. Each has ``_low`` and ``_high``, its bootstrap 95 % interval over clips.

A row of ``baselines.json`` also has ``success_curve``: success rate at the 21 cIoU thresholds 0, 0.05, …, 1 under the
card's protocol.

``split`` and, for a model, ``seeds`` say what was scored, ``protocol`` and ``threshold`` by which rule; ``normalization``
stands there if the method's own took the place of the protocol's.

With several seeds a metric is the mean over them, ``<key>_seeds`` lists them, and the interval is that of the clips' (or
frames') means over the seeds: it says how far the choice of clips decides the value, and the list says how far the seed does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.common.errors import EvaluationError
from pipeline.scoring.protocols import Protocol
from pipeline.scoring.results import Scores, samples, summarize, with_intervals

SHUFFLED = "shuffled_"


def scoring_rules(protocol: Protocol) -> dict[str, Protocol]:
    """Return the protocol under ``""``, and beside it ``median_`` and ``fixed_`` unless it has that rule already."""
    rules = {"": protocol}
    if protocol.threshold_rule != "median":
        rules["median_"] = replace(protocol, name=f"{protocol.name}, median", threshold_rule="median", extras=())
    if (protocol.threshold_rule, protocol.map_threshold) != ("fixed", 0.5):
        name = f"{protocol.name}, fixed 0.5"
        rules["fixed_"] = replace(protocol, name=name, threshold_rule="fixed", map_threshold=0.5, extras=())
    return rules


def flat_metrics(runs: Sequence[Mapping[str, Scores]]) -> dict[str, Any]:
    """Boil the scores of one run per seed down to one flat mapping.

    Parameters
    ----------
    runs : sequence of mapping of str to Scores
        By prefix; the same prefixes and clips in each.

    Returns
    -------
    dict
        See the module's conventions; counts, ``protocol`` and ``threshold`` have no prefix. Pointing does not depend on
        the rule and stands only under the card's protocol.
    """
    metrics: dict[str, Any] = {}
    for prefix in runs[0]:
        values, facts = _mean_over_seeds([run[prefix] for run in runs])
        if prefix not in ("", SHUFFLED):
            values = {key: value for key, value in values.items() if not key.startswith("pointing_accuracy")}
        metrics |= {prefix + key: value for key, value in values.items()}
        if prefix == "":
            own_facts = facts
    return metrics | own_facts


def mean_curves(runs: Sequence[Mapping[str, Scores]]) -> dict[str, np.ndarray]:
    """Return the mean over seeds of each prefix's success curve, float64, shape (21,)."""
    return {prefix: np.mean([run[prefix].curve for run in runs], axis=0) for prefix in runs[0]}


def read_baselines(path: Path) -> dict[str, dict[str, Any]]:
    """Read ``baselines.json``: row → flat scores. Raises EvaluationError if it is missing."""
    again = "dvc repro baselines"
    rows = _read_json(path, again=again)
    for name, scores in rows.items():
        if not isinstance(scores, dict) or not isinstance(scores.get("success_rate"), float):
            raise EvaluationError(f"{path}: the row {name!r} holds no scores; run `{again}`")
    return rows


def read_metrics(path: Path) -> dict[str, Any]:
    """Read one ``metrics.json``. Raises EvaluationError if it is missing."""
    return _read_json(path, again=f"dvc repro evaluate@{path.parent.name}")


def _mean_over_seeds(runs: Sequence[Scores]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the metrics of one prefix, and the counts and settings."""
    summaries = [summarize(scores) for scores in runs]
    keys = [key for key, value in summaries[0].items() if isinstance(value, float) and key != "threshold"]
    facts = {key: value for key, value in summaries[0].items() if key not in keys}
    facts["n_flat_maps"] = max(each["n_flat_maps"] for each in summaries)
    if len(runs) == 1:
        return {key: summaries[0][key] for key in keys}, facts
    means = {key: float(np.mean([each[key] for each in summaries])) for key in keys}
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
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("no mapping")
    except FileNotFoundError:
        raise EvaluationError(f"{path}: no such scores; run `{again}`") from None
    except ValueError as error:
        raise EvaluationError(f"{path}: not readable as scores ({error}); run `{again}`") from None
    return content
