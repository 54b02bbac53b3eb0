"""The report's comparison of scores: the table of all rows under each rule, and the success curves (Figure 3)."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import EvaluationError
from pipeline.evaluation import THRESHOLDS, score_content_free
from pipeline.figures import Curve, save, success_curves
from pipeline.files import write_csv, write_text
from pipeline.report_parts import Section, Source
from pipeline.summaries import SHUFFLED
from pipeline.tables import Row, comparison, label_of, per_seed, rules, with_shuffled, write_comparison_csv

RULE_TITLES = {"": "the card's protocol", "median_": "the median rule", "fixed_": "a fixed threshold of 0.5"}


def comparison_section(
    source: Source, content_free: Mapping[str, Mapping[str, Any]], metrics: Mapping[str, Mapping[str, Any]]
) -> Section:
    """Write ``table.md`` and ``table.csv``: all metrics of all rows under each rule."""
    rows = [Row(name, values) for name, values in content_free.items()]
    models = [row for name, values in metrics.items() for row in with_shuffled(name, values)]
    parts = [
        f"Scores on the split `{source.split}`, in percent, with the bootstrap 95 % interval over clips. The first rows know "
        "nothing of the clip; *shuffled audio* is the model of the row above, given the sound of another clip."
    ]
    for rule in rules([*rows, *models]):
        parts += [f"Under {RULE_TITLES[rule]}:", comparison([*rows, *models], rule=rule).markdown().strip()]
    if len(source.seeds) > 1:
        parts += ["Each seed, under the card's protocol:", per_seed(models, seeds=source.seeds).markdown().strip()]
    text = "\n\n".join(parts)
    write_text(source.folder / "table.md", text + "\n")
    write_comparison_csv(source.folder / "table.csv", [*rows, *models])
    return Section("Comparison", text, data=("table.md", "table.csv"))


def success_section(source: Source) -> Section:
    """Draw the success curves of all rows (Figure 3)."""
    curves = []
    for name in source.variants:
        columns = _read_curves(source.results / name / "success_curve.csv")
        curves.append(Curve(label_of(name), columns["success_rate"]))
        curves.append(Curve(label_of(name), columns[SHUFFLED + "success_rate"], "shuffled"))
    evaluation = source.card.evaluation
    scored = score_content_free(source.scored_shards, source.manifest, split=source.split, evaluation=evaluation)
    curves += [Curve(label_of(name), by_rule[""].curve, "content_free") for name, by_rule in scored.items()]
    save(success_curves(THRESHOLDS, curves, threshold=evaluation.threshold), source.folder / "success_curves.png")
    lines = [
        [curve.label, curve.kind, float(threshold), float(rate)]
        for curve in curves
        for threshold, rate in zip(THRESHOLDS, curve.success_rate, strict=True)
    ]
    write_csv(source.folder / "success_curves.csv", ["row", "kind", "threshold", "success_rate"], lines)
    text = (
        "Share of clips whose cIoU reaches each threshold (Figure 3 of the paper). The area under a curve is the "
        "table's AUC. Grey: rows that know nothing of the clip. Dotted: the model of the same colour, given the sound "
        "of another clip."
    )
    return Section("Success over thresholds", text, "success_curves.png", ("success_curves.csv",))


def _read_curves(path: Path) -> dict[str, np.ndarray]:
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        raise EvaluationError(f"{path}: no such curve; run `dvc repro evaluate@{path.parent.name}`") from None
    return {key: np.array([float(row[key]) for row in rows]) for key in rows[0]}
