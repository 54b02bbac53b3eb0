"""The section on training diagnostics: the numbers of the histories, and a warning for each run that ended collapsed."""

from __future__ import annotations

import csv
import math
from types import SimpleNamespace

import pytest

from pipeline.common.errors import EvaluationError
from pipeline.report.sections.diagnostics import collapse_warnings, diagnostics_section, read_histories
from pipeline.training.diagnostics import COLUMNS, collapse
from pipeline.training.history import start_row, write_history

HEALTHY = dict(zip(COLUMNS, (0.25, 0.4375, 0.31, 0.125, 12.0, 40.0), strict=True))


def make_source(folder, **runs):
    """Write the histories of `runs`, one list of changed columns per epoch, for seed 0; seed 4 stays healthy."""
    for name, epochs in runs.items():
        for seed_folder, changes in ((folder / name, epochs), (folder / name / "seed_4", [{}] * len(epochs))):
            seed_folder.mkdir(parents=True)
            rows = [start_row({**HEALTHY, **each, "epoch": epoch}) for epoch, each in enumerate(changes)]
            write_history(seed_folder / "history.csv", seed_folder / "timings.csv", rows)
    return SimpleNamespace(
        runs=folder,
        folder=folder / "report",
        variants=list(runs),
        ordered=list(runs)[::-1],
        seeds=[0, 4],
        seed=0,
        shown=list(runs)[-1],
    )


def table_rows(text):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]


def test_the_numbers_are_those_of_the_histories(tmp_path):
    source = make_source(
        tmp_path, initial=[{}, {}], iterative=[{"audio_gap": math.nan}, {"border_peaks": 0.5, "loss_share": 0.9123}]
    )
    histories = read_histories(source)
    section = diagnostics_section(source, histories)
    rows = list(csv.DictReader((source.folder / section.data[0]).open()))
    assert [(row["variant"], row["seed"], row["epoch"]) for row in rows] == [
        (name, seed, epoch) for name in ("initial", "iterative") for seed in "04" for epoch in "01"
    ]
    assert [row["border_peaks"] for row in rows] == ["0.25"] * 5 + ["0.5"] + ["0.25"] * 2
    assert [rows[4][column] for column in COLUMNS] == ["0.25", "0.4375", "0.31", "", "12", "40"]
    first, last = table_rows(section.text)[2:4]
    assert first == ["0", "–", "25.0", "43.8", "0.31", "–", "12.0", "40.0"]
    assert last == ["1", "91.2", "50.0", "43.8", "0.31", "0.12", "12.0", "40.0"]
    assert table_rows(section.text)[-2] == ["iterative (Eq. 7)", *last[1:]]
    panels = {panel.title: panel for panel in section.chart.panels}
    # No loss is known, so there is no panel of it.
    assert list(panels) == [
        "relative loss",
        "peaks on the border",
        "cosine of audio",
        "audio gap",
        "rank of audio",
        "rank of frames",
    ]
    curves = {curve.label: curve.values for curve in panels["peaks on the border"].curves}
    assert curves == {"iterative (Eq. 7)": (0.25, 0.5), "initial (Eq. 3)": (0.25, 0.25), "chance": (0.4375, 0.4375)}
    assert panels["audio gap"].curves[0].values == (None, 0.125)
    assert [panel.percent for panel in panels.values()] == [True, True, False, False, False, False]
    assert collapse_warnings(histories) == []


def test_a_run_that_ended_collapsed_is_named(tmp_path):
    bad = {"border_peaks": 0.999}
    source = make_source(tmp_path, initial=[{}, bad, {}], iterative=[bad, {}, bad])
    assert collapse_warnings(read_histories(source)) == [
        f"**Warning:** iterative (Eq. 7), seed 0: {collapse({'epoch': 2, 'steps': 0, 'loss_share': math.nan, **HEALTHY, **bad})}."
    ]


def test_a_run_without_a_history_names_the_stage(tmp_path):
    source = make_source(tmp_path, iterative=[{}])
    (tmp_path / "iterative/seed_4/history.csv").unlink()
    with pytest.raises(EvaluationError, match=r"seed_4: no history\.csv; run `dvc repro train`"):
        read_histories(source)
