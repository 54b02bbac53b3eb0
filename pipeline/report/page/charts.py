"""The page's charts, from the CSV files that the report's sections leave beside it.

A chart is a JSON-like mapping: ``id``, ``title``, ``x`` and ``y`` (names of the axes), ``x_values``, ``percent`` (whether
values are shares, shown in percent), ``mark`` (an x that is pointed out, and its words) and ``panels``, each with a
``title`` and ``curves`` of ``label``, ``kind`` ("model", "shuffled" or "content_free") and ``values``, null where there
is none.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.figures.figures import Curve
from pipeline.report.sections import curves as report_curves
from pipeline.report.sections import relation as report_relation
from pipeline.report.sections.curves import panel_curves, panel_names
from pipeline.report.source import OURS, Source
from pipeline.scoring.summary import SHUFFLED
from pipeline.scoring.tables import label_of

RELATION_PANELS = {"precision": "alike", "recall": "related", "mask_iou_previous": ""}  # values → those by chance


def success_chart(source: Source) -> dict[str, Any]:
    """Return the success curves (Figure 3) in the panels of the picture."""
    rows = _read(source.folder / f"{report_curves.STEM}.csv")
    thresholds = sorted({float(row["threshold"]) for row in rows})
    curves: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        curves.setdefault((row["kind"], row["row"]), []).append(float(row["success_rate"]))
    columns = {
        name: {
            "success_rate": np.array(curves["model", name]),
            SHUFFLED + "success_rate": np.array(curves["shuffled", name]),
        }
        for name in source.variants
    }
    gray = {name: np.array(values) for (kind, name), values in curves.items() if kind == "content_free"}
    threshold = source.card.evaluation.threshold
    return {
        "id": "success",
        "title": "Success rate over cIoU thresholds",
        "x": "cIoU threshold",
        "y": "success rate",
        "x_values": thresholds,
        "percent": True,
        "mark": [threshold, f"success rate at {threshold:g}"],
        "panels": [
            {"title": title, "curves": [_curve(curve) for curve in panel_curves(names, columns, gray)]}
            for title, names in panel_names(source.variants).items()
        ],
    }


def relation_chart(source: Source) -> dict[str, Any]:
    """Return precision and recall of y and the IoU of sounding masks over the epochs, means over the seeds."""
    rows = _read(source.folder / f"{report_relation.STEM}.csv")
    epochs = sorted({int(row["epoch"]) for row in rows})
    # First, as among the success curves: the same method has the same color in both.
    names = sorted(source.variants, key=lambda name: name != OURS)
    panels = []
    for key, chance in RELATION_PANELS.items():
        lines = [
            {"label": label_of(name), "kind": "model", "values": _over_epochs(rows, name, key, epochs)}
            for name in names
        ]
        if chance:
            values = _over_epochs(rows, names[0], chance, epochs)
            label = f"chance, for {label_of(names[0])}"
            lines.append({"label": label, "kind": "content_free", "values": values})
        if any(value is not None for line in lines for value in line["values"]):
            panels.append({"title": report_relation.COLUMNS[key], "curves": lines})
    return {
        "id": "relation",
        "title": "What each epoch leaves, over the epochs",
        "x": "epoch",
        "y": "share",
        "x_values": epochs,
        "percent": True,
        "mark": None,
        "panels": panels,
    }


def _curve(curve: Curve) -> dict[str, Any]:
    label = f"{curve.label}, shuffled audio" if curve.kind == "shuffled" else curve.label
    return {"label": label, "kind": curve.kind, "values": [round(float(value), 5) for value in curve.success_rate]}


def _over_epochs(
    rows: Sequence[Mapping[str, str]], variant: str, key: str, epochs: Sequence[int]
) -> list[float | None]:
    values: list[float | None] = []
    for epoch in epochs:
        known = [
            float(row[key]) for row in rows if (row["variant"], int(row["epoch"])) == (variant, epoch) and row[key]
        ]
        values.append(round(float(np.mean(known)), 5) if known else None)
    return values


def _read(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
