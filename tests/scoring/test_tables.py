"""Comparison tables: what stands in which cell, in every rendering."""

from __future__ import annotations

import csv

import pytest

from pipeline.evaluation.labels import LABELS
from pipeline.scoring.tables import (
    METRICS,
    Row,
    comparison,
    normalization_note,
    per_seed,
    quadrant_note,
    summary,
    with_shuffled,
    write_comparison_csv,
)

USUAL = [metric for metric in METRICS if metric != "quadrant_accuracy"]


def scores(value: float, *, prefixes: tuple[str, ...] = ("", "median_"), metrics=USUAL) -> dict:
    keys = [prefix + metric for prefix in prefixes for metric in metrics]
    return {key + end: value + step for key in keys for end, step in (("", 0), ("_low", -0.03), ("_high", 0.05))}


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|\n").split("|")]


def test_markdown_shows_percent_with_intervals():
    lines = comparison([Row("iterative", scores(0.528))], labels=LABELS).markdown().splitlines()
    assert cells(lines[0]) == ["", "success", "AUC", "mean cIoU", "mean IoU", "pointing"]
    assert cells(lines[1]) == ["---", "---:", "---:", "---:", "---:", "---:"]
    assert cells(lines[2]) == ["iterative (Eq. 7)"] + ["52.8 (49.8–57.8)"] * 5


def test_the_shuffled_row_reads_its_own_keys():
    metrics = scores(0.5) | scores(0.1, prefixes=("shuffled_", "shuffled_median_"))
    rows = with_shuffled("my_method", metrics)
    lines = comparison(rows, rule="median_", labels=LABELS).markdown().splitlines()
    assert cells(lines[2])[:2] == ["my_method", "50.0 (47.0–55.0)"]
    assert cells(lines[3])[:2] == ["my_method, shuffled audio", "10.0 (7.0–15.0)"]


def test_a_metric_that_one_row_lacks_is_a_dash_and_one_that_all_lack_is_no_column():
    full = scores(0.5)
    part = {key: value for key, value in full.items() if not key.startswith("pointing")}
    lines = comparison([Row("a", full), Row("b", part)], labels=LABELS).markdown().splitlines()
    assert cells(lines[2])[-1] == "50.0 (47.0–55.0)"
    assert cells(lines[3])[-1] == "–"
    assert "pointing" not in comparison([Row("b", part)], labels=LABELS).markdown()


def test_rows_with_a_normalization_of_their_own_are_named():
    metrics = {
        "initial": {},
        "mssl": {"normalization": "relu-max"},
        "mssl_stage1_eq2_eq1": {"normalization": "min-max"},
    }
    note = normalization_note(metrics, "min-max", labels=LABELS)
    assert note.count(".") == 1
    assert note.index("relu-max") < note.index("min-max") < note.index(": MSSL.")
    other = normalization_note(metrics, "relu-max", labels={"mssl_stage1_eq2_eq1": "stage one"})
    assert other.index("min-max") < other.index("relu-max") < other.index(": stage one.")
    assert normalization_note({"initial": {}}, "min-max", labels=LABELS) == ""


def test_terminal_columns_line_up():
    lines = summary([Row("random", scores(0.05)), Row("iterative", scores(0.9))], labels=LABELS).text().splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[2].startswith("random map")
    assert "5.0 ±4.0" in lines[2]
    assert "90.0 ±4.0" in lines[3]


def test_per_seed_leaves_out_rows_without_seeds():
    seeded = scores(0.5) | {"success_rate_seeds": [0.4, 0.6], "auc_seeds": [0.3, 0.35]}
    table = per_seed([Row("random", scores(0.1)), Row("itr", seeded)], labels=LABELS)
    assert table.header == ("", "success", "AUC")
    assert table.rows == (("itr", "40.0 / 60.0", "30.0 / 35.0"),)


def test_csv_holds_fractions_of_every_row_and_rule(tmp_path):
    metrics = scores(0.5) | scores(0.1, prefixes=("shuffled_",))
    write_comparison_csv(tmp_path / "table.csv", [Row("random", scores(0.2)), *with_shuffled("itr", metrics)])
    rows = list(csv.DictReader((tmp_path / "table.csv").open()))
    assert [(r["row"], r["shuffled"], r["rule"]) for r in rows] == [
        ("random", "0", "protocol"),
        ("random", "0", "median"),
        ("itr", "0", "protocol"),
        ("itr", "0", "median"),
        ("itr", "1", "protocol"),
        ("itr", "1", "median"),
    ]
    assert float(rows[0]["auc"]) == pytest.approx(0.2)
    assert float(rows[4]["success_rate_low"]) == pytest.approx(0.07)
    assert rows[5]["success_rate"] == ""


def test_mosaics_have_a_column_everywhere_and_other_datasets_have_none(tmp_path):
    own, other = scores(0.5, metrics=METRICS), scores(0.25, prefixes=("shuffled_",), metrics=METRICS)
    seeds = {f"{key}_seeds": [0.4, 0.6] for key in ("success_rate", "auc", "quadrant_accuracy")}
    mosaics = [Row("random", scores(0.1, metrics=METRICS)), *with_shuffled("itr", own | other | seeds)]
    usual = [Row("itr", scores(0.5) | seeds)]

    table = comparison(mosaics, labels=LABELS)
    assert (table.header[-1], [row[-1] for row in table.rows]) == (
        "quadrant",
        ["10.0 (7.0–15.0)", "50.0 (47.0–55.0)", "25.0 (22.0–30.0)"],
    )
    assert "25.0 ±4.0" in summary(mosaics, labels=LABELS).text()
    assert per_seed(mosaics, labels=LABELS).header[-1] == "quadrant"
    assert per_seed(mosaics, labels=LABELS).rows[0][-1] == "40.0 / 60.0"
    write_comparison_csv(tmp_path / "mosaics.csv", mosaics)
    rows = list(csv.DictReader((tmp_path / "mosaics.csv").open()))
    assert [float(row["quadrant_accuracy"]) for row in rows if row["rule"] == "protocol"] == [0.1, 0.5, 0.25]

    write_comparison_csv(tmp_path / "usual.csv", usual)
    shown = [
        comparison(usual, labels=LABELS).markdown(),
        summary(usual, labels=LABELS).text(),
        *per_seed(usual, labels=LABELS).header,
        (tmp_path / "usual.csv").read_text(),
    ]
    assert not [text for text in shown if "quadrant" in text]


def test_the_chance_of_a_cell_is_stated():
    assert "reach 37.5%" in quadrant_note({"quadrant_chance": 0.375})
    assert quadrant_note({"success_rate": 0.4}) == ""
