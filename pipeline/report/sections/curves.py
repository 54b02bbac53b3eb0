"""Success curves (Figure 3): fraction of clips whose cIoU reaches each threshold.

The rows of both tables are spread over panels, so that each panel stays readable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.common.errors import EvaluationError
from pipeline.common.files import write_csv
from pipeline.common.project import SUCCESS_CURVE_FILE, stage_name
from pipeline.common.tables import read_records
from pipeline.evaluation.labels import label_of
from pipeline.figures.curves import Curve, success_panels
from pipeline.figures.style import save
from pipeline.report.section import Chart, ChartCurve, ChartPanel, Section, chart_values
from pipeline.report.source import ABLATION, COMPARED, OURS, Source
from pipeline.scoring.metrics import THRESHOLDS
from pipeline.scoring.summary import SHUFFLED

STEM = "figure3_success_curves"


@dataclass(frozen=True)
class SuccessCurves:
    """Success rate at each of `THRESHOLDS`, float64 (21,), mean over the seeds.

    Attributes
    ----------
    model, shuffled : mapping of str to np.ndarray
        Variant → curve with its own audio, and with the audio of another clip.
    content_free : mapping of str to np.ndarray
        Content-free baseline → curve.
    """

    model: Mapping[str, np.ndarray]
    shuffled: Mapping[str, np.ndarray]
    content_free: Mapping[str, np.ndarray]

    def panels(self) -> dict[str, list[Curve]]:
        """Return the panels of Figure 3: title → curves."""
        return {title: self._panel(names) for title, names in panel_names(list(self.model)).items()}

    def _panel(self, names: Sequence[str]) -> list[Curve]:
        curves = [Curve(label_of(name), self.model[name]) for name in names]
        # One dotted curve shows how much of a score depends on the audio; one per model would hide the models.
        curves.append(Curve(label_of(names[0]), self.shuffled[names[0]], "shuffled"))
        return curves + [Curve(label_of(name), curve, "content_free") for name, curve in self.content_free.items()]


def success_section(source: Source) -> Section:
    """Draw the success curves of all rows (Figure 3)."""
    curves = read_success_curves(source)
    threshold = source.card.evaluation.threshold
    save(success_panels(THRESHOLDS, curves.panels(), threshold=threshold), source.folder / f"{STEM}.png")
    _write_csv(source.folder / f"{STEM}.csv", curves)
    text = (
        "Fraction of clips whose cIoU reaches each threshold; the area under a curve is the AUC in the tables. Gray: "
        "content-free baselines. Dotted: the model of the same color, given the audio of another clip; the CSV file has this "
        "curve for every model."
    )
    return Section(
        "Success over thresholds (Figure 3)",
        text,
        f"{STEM}.png",
        (f"{STEM}.csv",),
        kind="curves",
        chart=success_chart(curves, threshold=threshold),
    )


def read_success_curves(source: Source) -> SuccessCurves:
    """Read the curves of all rows. Raises EvaluationError if a variant has none."""
    columns = {name: _read_columns(source.results / name / SUCCESS_CURVE_FILE) for name in source.variants}
    return SuccessCurves(
        model={name: each["success_rate"] for name, each in columns.items()},
        shuffled={name: each[SHUFFLED + "success_rate"] for name, each in columns.items()},
        content_free={name: np.array(row["success_curve"]) for name, row in source.content_free.items()},
    )


def success_chart(curves: SuccessCurves, *, threshold: float) -> Chart:
    """Return the panels of Figure 3 as a chart for the page."""
    return Chart(
        title="Success rate over cIoU thresholds",
        x="cIoU threshold",
        x_values=THRESHOLDS.tolist(),
        mark=(threshold, f"success rate at {threshold:g}"),
        panels=[
            ChartPanel(title, "success rate", [_chart_curve(curve) for curve in panel])
            for title, panel in curves.panels().items()
        ],
    )


def panel_names(variants: Sequence[str]) -> dict[str, list[str]]:
    """Return the panels of Figure 3: title → its trained variants, `iterative` first if the panel has it.

    A panel that only repeats curves of another is left out; every variant is in at least one.
    """
    others = [name for name in variants if name not in (*COMPARED, *ABLATION)]
    origins = [system for system in COMPARED if any(name.startswith(f"{system}_") for name in others)]
    panels = {
        "Systems of Table 1": COMPARED,
        "Ablation (Table 2)": ABLATION,
        "Variants of other systems": [OURS, *origins, *others],
    }
    # dict.fromkeys drops the second mention of a name and keeps the order.
    trained = {title: [name for name in dict.fromkeys(names) if name in variants] for title, names in panels.items()}
    # Largest first, so that of two nested panels the smaller one is dropped.
    kept: list[str] = []
    for title in sorted(trained, key=lambda title: -len(trained[title])):
        if trained[title] and not any(set(trained[title]) <= set(trained[other]) for other in kept):
            kept.append(title)
    return {title: names for title, names in trained.items() if title in kept}


def _read_columns(path: Path) -> dict[str, np.ndarray]:
    again = f"run `dvc repro {stage_name('evaluate', path.parent)}`"
    if not path.is_file():
        raise EvaluationError(f"{path}: no such curve; {again}")
    rows = read_records(path, EvaluationError)
    try:
        return {key: np.array([float(row[key]) for row in rows]) for key in rows[0]}
    except (IndexError, ValueError) as error:
        raise EvaluationError(f"{path}: damaged ({error}); {again}") from None


def _write_csv(path: Path, curves: SuccessCurves) -> None:
    by_kind = {"model": curves.model, "shuffled": curves.shuffled, "content_free": curves.content_free}
    lines = [
        [name, kind, float(threshold), float(rate)]
        for kind, rows in by_kind.items()
        for name, curve in rows.items()
        for threshold, rate in zip(THRESHOLDS, curve, strict=True)
    ]
    write_csv(path, ["row", "kind", "threshold", "success_rate"], lines)


def _chart_curve(curve: Curve) -> ChartCurve:
    label = f"{curve.label}, shuffled audio" if curve.kind == "shuffled" else curve.label
    return ChartCurve(label, curve.kind, chart_values(curve.success_rate))
