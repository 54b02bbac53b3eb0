"""The report's success curves (Figure 3), in panels that stay readable with every row of both tables."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pipeline.common.errors import EvaluationError
from pipeline.common.files import write_csv
from pipeline.common.project import SUCCESS_CURVE_FILE
from pipeline.figures.figures import Curve, save, success_panels
from pipeline.report.source import ABLATION, COMPARED, OURS, Section, Source
from pipeline.scoring.baselines import score_content_free
from pipeline.scoring.metrics import THRESHOLDS
from pipeline.scoring.summary import SHUFFLED
from pipeline.scoring.tables import label_of

STEM = "figure3_success_curves"


def success_section(source: Source) -> Section:
    """Draw the success curves of all rows (Figure 3)."""
    columns = {name: _read_curves(source.results / name / SUCCESS_CURVE_FILE) for name in source.variants}
    evaluation = source.card.evaluation
    scored = score_content_free(source.scored_shards, source.manifest, split=source.split, evaluation=evaluation)
    gray = {name: by_rule[""].curve for name, by_rule in scored.items()}
    panels = {title: panel_curves(names, columns, gray) for title, names in panel_names(source.variants).items()}
    save(success_panels(THRESHOLDS, panels, threshold=evaluation.threshold), source.folder / f"{STEM}.png")
    rows = [(name, "model", curves["success_rate"]) for name, curves in columns.items()]
    rows += [(name, "shuffled", curves[SHUFFLED + "success_rate"]) for name, curves in columns.items()]
    rows += [(name, "content_free", curve) for name, curve in gray.items()]
    lines = [
        [name, kind, float(threshold), float(rate)]
        for name, kind, curve in rows
        for threshold, rate in zip(THRESHOLDS, curve, strict=True)
    ]
    write_csv(source.folder / f"{STEM}.csv", ["row", "kind", "threshold", "success_rate"], lines)
    text = (
        "Share of clips whose cIoU reaches each threshold. The area under a curve is the table's AUC. Gray: rows that know "
        "nothing of the clip. Dotted: the model of the same color, given the sound of another clip; the data have this "
        "curve of every model."
    )
    return Section("Success over thresholds (Figure 3)", text, f"{STEM}.png", (f"{STEM}.csv",), kind="curves")


def panel_names(variants: Sequence[str]) -> dict[str, list[str]]:
    """Return the panels of Figure 3: title → the trained variants in it, `iterative` first in each that has it.

    A panel that would show nothing but what another shows is left out; every variant is in one at least.
    """
    others = [name for name in variants if name not in (*COMPARED, *ABLATION)]
    origins = [system for system in COMPARED if any(name.startswith(f"{system}_") for name in others)]
    panels = {
        "The systems of Table 1": [OURS, *COMPARED],
        "The parts of the method (Table 2)": [OURS, *ABLATION],
        "Variants of the other systems": [OURS, *origins, *others],
    }
    # dict.fromkeys drops the second mention of a name and keeps the order.
    trained = {title: [name for name in dict.fromkeys(names) if name in variants] for title, names in panels.items()}
    kept: list[str] = []
    for title in sorted(trained, key=lambda title: -len(trained[title])):
        if trained[title] and not any(set(trained[title]) <= set(trained[other]) for other in kept):
            kept.append(title)
    return {title: names for title, names in trained.items() if title in kept}


def panel_curves(
    names: Sequence[str], columns: Mapping[str, Mapping[str, np.ndarray]], gray: Mapping[str, np.ndarray]
) -> list[Curve]:
    """Return one panel's curves: its models, the first one's with shuffled audio, and the content-free rows."""
    curves = [Curve(label_of(name), columns[name]["success_rate"]) for name in names]
    # One dotted curve tells how much of a score is the sound's; one of each model would hide the models.
    curves.append(Curve(label_of(names[0]), columns[names[0]][SHUFFLED + "success_rate"], "shuffled"))
    return curves + [Curve(label_of(name), curve, "content_free") for name, curve in gray.items()]


def _read_curves(path: Path) -> dict[str, np.ndarray]:
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        raise EvaluationError(f"{path}: no such curve; run `dvc repro evaluate@{path.parent.name}`") from None
    return {key: np.array([float(row[key]) for row in rows]) for key in rows[0]}
