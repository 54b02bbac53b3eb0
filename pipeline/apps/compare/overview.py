"""The scores of all trained variants of a dataset, one line each: ``scores.json`` and ``baselines.json`` → tables.

Values are in percent, with the bootstrap 95% interval over clips.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.common.project import BASELINES_FILE, SCORES_FILE
from pipeline.common.text_table import MISSING, Table, counted
from pipeline.evaluation.labels import label_of
from pipeline.methods.registry import METHODS
from pipeline.scoring.summary import SHUFFLED, best_baseline, read_baselines, read_scores
from pipeline.scoring.tables import interval

OURS = "iterative"
FEW_CLIPS = 100  # ours; with fewer, the 95% interval of a rate near 50%, 1.96 standard errors, exceeds ± 10 points
# Variants that agree in these are comparable. A variant that is no longer in `variants` keeps the scores of an earlier setting.
_ALIKE = ("split", "protocol", "threshold", "n_clips", "seeds")
_OF_BASELINES = ("split", "protocol", "threshold", "n_clips")


def read_variants(folder: Path) -> dict[str, dict[str, Any]]:
    """Read the scores of each variant in ``results/NAME``: `OURS` first, then in the order of the registry, others last.

    Raises
    ------
    EvaluationError
        A file is damaged.
    """
    scored = {path.parent.name for path in folder.glob(f"*/{SCORES_FILE}")}
    known = [name for name in (OURS, *METHODS) if name in scored]
    ordered = dict.fromkeys([*known, *sorted(scored)])
    return {name: read_scores(folder / name / SCORES_FILE) for name in ordered}


def overview(folder: Path) -> list[tuple[str, Table]]:
    """Return a title and a table for each group of comparable variants; usually one, and none without scores.

    Parameters
    ----------
    folder : Path
        ``results/NAME``, or ``results/NAME/on/OTHER``.

    Raises
    ------
    EvaluationError
        A file is damaged, or the baselines are missing.
    """
    groups: dict[str, dict[str, dict[str, Any]]] = {}
    for name, scores in read_variants(folder).items():
        groups.setdefault(repr([scores.get(key) for key in _ALIKE]), {})[name] = scores
    content_free = read_baselines(folder / BASELINES_FILE) if groups else {}
    return [_group(rows, content_free) for rows in groups.values()]


def _group(rows: Mapping[str, Mapping[str, Any]], content_free: Mapping[str, Mapping[str, Any]]) -> tuple[str, Table]:
    facts = next(iter(rows.values()))
    comparable = {
        name: values
        for name, values in content_free.items()
        if all(values.get(key) == facts.get(key) for key in _OF_BASELINES)
    }
    best = best_baseline(comparable) if comparable else None
    baseline = f"{100 * comparable[best]['success_rate']:.1f} {label_of(best)}" if best else MISSING
    mosaics = "quadrant_chance" in facts
    header = ("percent", "success", "AUC", "minus shuffled", "best baseline", *(["quadrant"] if mosaics else []))
    cells = tuple(
        (
            label_of(name),
            interval(scores, "success_rate"),
            interval(scores, "auc"),
            _gap(scores),
            baseline,
            *([interval(scores, "quadrant_accuracy")] if mosaics else []),
        )
        for name, scores in rows.items()
    )
    return _title(facts, mosaics), Table(header, cells)


def _gap(scores: Mapping[str, Any]) -> str:
    """How much success a variant loses with the audio of other clips, in percentage points."""
    return f"{100 * (scores['success_rate'] - scores[f'{SHUFFLED}success_rate']):.1f}"


def _doubt(n_clips: int) -> str:
    """Return how uncertain a rate is, if there are few clips: the bootstrap interval, of at most n values, is then too narrow."""
    return "" if n_clips >= FEW_CLIPS else f" (few: a rate near 50% is ± {98 / math.sqrt(n_clips):.0f} points)"


def _title(facts: Mapping[str, Any], mosaics: bool) -> str:
    seeds = facts["seeds"]
    return (
        f"split {facts['split']}, {counted(facts['n_clips'], 'clip')}{_doubt(facts['n_clips'])}, protocol {facts['protocol']}, success at cIoU ≥ "
        f"{facts['threshold']:g}"
        + (f", means over {len(seeds)} seeds" if len(seeds) > 1 else "")
        + (f", quadrant chance {100 * facts['quadrant_chance']:.1f}" if mosaics else "")
    )
