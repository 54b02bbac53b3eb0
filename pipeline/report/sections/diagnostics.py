"""Diagnostics of training that need no boxes, over the epochs: has a model collapsed?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from pipeline.common.errors import EvaluationError
from pipeline.common.files import write_csv
from pipeline.common.project import seed_folder, stage_name
from pipeline.common.text_table import MISSING, Table
from pipeline.evaluation.labels import label_of
from pipeline.report.section import Chart, ChartCurve, ChartPanel, Section, chart_values
from pipeline.report.source import Source
from pipeline.training.artifacts import history_by_artifact
from pipeline.training.diagnostics import COLUMNS, SAMPLE, collapse

TITLE = "Training: loss and collapse"
FILE = "training_diagnostics.csv"
MEASURES = ("loss_share", *COLUMNS)
CHANCE = {"border_peaks": "border_cells"}  # value → its chance level
HEADER = (
    "loss, % of uninformed",
    "peaks on the border, %",
    "cells on it, %",
    "cosine of audio",
    "audio gap",
    "rank of audio",
    "rank of frames",
)
PANELS = {
    "loss": "loss",
    "loss_share": "relative loss",
    "border_peaks": "peaks on the border",
    "audio_cosine": "cosine of audio",
    "audio_gap": "audio gap",
    "audio_rank": "rank of audio",
    "visual_rank": "rank of frames",
}
SHARES = ("loss_share", "border_peaks")
Rows = Sequence[Mapping[str, float]]
Histories = Mapping[tuple[str, int], Rows]  # by variant and seed


def read_histories(source: Source) -> Histories:
    """Read the history of every variant and seed. Raises EvaluationError or TrainingError if one is missing or damaged."""
    return {(name, seed): _history(source, name, seed) for name in source.variants for seed in source.seeds}


def diagnostics_section(source: Source, histories: Histories) -> Section:
    """Write the diagnostics of every variant, seed and epoch."""
    write_csv(
        source.folder / FILE,
        ["variant", "seed", "epoch", *MEASURES],
        [
            [name, seed, int(row["epoch"]), *("" if math.isnan(row[key]) else f"{row[key]:.6g}" for key in MEASURES)]
            for (name, seed), rows in histories.items()
            for row in rows
        ],
    )
    shown = {str(int(row["epoch"])): row for row in histories[source.shown, source.seed]}
    last = {label_of(name): histories[name, source.seed][-1] for name in source.ordered}
    parts = [
        f"Diagnostics that training computes before the first epoch and after every epoch, without boxes, on at most {SAMPLE} training "
        "clips: the loss relative to that of an uninformed model; the share of response peaks on the border of the frame, next to the "
        "share of cells on it (chance); the mean cosine of the audio embeddings of different clips; how much higher the peak is with "
        "the clip's own audio than with another clip's, as a fraction of the range of the map; and the effective ranks of the audio and "
        f"of the visual features. Losses of different methods cannot be compared, relative losses can. Seed {source.seed}.",
        f"“{label_of(source.shown)}” by epoch:",
        _table("epoch", shown),
    ]
    if len(last) > 1:
        parts += ["All variants after their last epoch:", _table("", last)]
    chart = training_chart({name: histories[name, source.seed] for name in source.ordered})
    return Section(TITLE, "\n\n".join(parts), data=(FILE,), kind="training", chart=chart)


def training_chart(histories: Mapping[str, Rows]) -> Chart:
    """Return the loss and the diagnostics of each variant over the epochs, for the page."""
    epochs = sorted({int(row["epoch"]) for rows in histories.values() for row in rows})
    panels = []
    for key, title in PANELS.items():
        curves = [ChartCurve(label_of(name), "model", _values(rows, key, epochs)) for name, rows in histories.items()]
        if key in CHANCE:
            some = next(iter(histories.values()))
            curves.append(ChartCurve("chance", "content_free", _values(some, CHANCE[key], epochs)))
        if any(value is not None for curve in curves for value in curve.values):
            panels.append(ChartPanel(title, title, curves, percent=key in SHARES))
    return Chart(title=TITLE, x="epoch", x_values=epochs, mark=None, panels=panels)


def collapse_warnings(histories: Histories) -> list[str]:
    """Return a sentence in Markdown for each run whose last epoch shows a collapse."""
    found = {run: collapse(rows[-1]) for run, rows in histories.items()}
    return [f"**Warning:** {label_of(name)}, seed {seed}: {signs}." for (name, seed), signs in found.items() if signs]


def _history(source: Source, name: str, seed: int) -> Rows:
    folder = seed_folder(source.runs / name, source.seeds, seed)
    rows = list(history_by_artifact(folder).values())
    if not rows:
        raise EvaluationError(f"{folder}: no history.csv; run `dvc repro {stage_name('train', folder)}`")
    return rows


def _values(rows: Rows, key: str, epochs: Sequence[int]) -> tuple[float | None, ...]:
    by_epoch = {int(row["epoch"]): row[key] for row in rows}
    return chart_values(by_epoch.get(epoch, math.nan) for epoch in epochs)


def _table(corner: str, lines: Mapping[str, Mapping[str, float]]) -> str:
    cells = [(label, *(_cell(row[key], key) for key in MEASURES)) for label, row in lines.items()]
    return Table((corner, *HEADER), tuple(cells)).markdown().strip()


def _cell(value: float, key: str) -> str:
    if math.isnan(value):
        return MISSING
    return (
        f"{100 * value:.1f}"
        if key.startswith(("border", "loss"))
        else f"{value:.1f}"
        if "rank" in key
        else f"{value:.2f}"
    )
