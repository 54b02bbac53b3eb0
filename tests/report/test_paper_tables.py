"""Tables 1 and 2: which rows, in which order, with whose numbers, in every rendering."""

from __future__ import annotations

import csv
import html.parser
import re
import statistics
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from pipeline.common.text_table import Table
from pipeline.evaluation.labels import LABELS
from pipeline.manifests.boxes import Box
from pipeline.methods.registry import METHODS
from pipeline.report.page.templating import render_template
from pipeline.report.published import TABLE_1, TABLE_2, Published
from pipeline.report.sections.paper_tables import (
    ROWS_1,
    ROWS_2,
    PaperRow,
    paper_rows,
    paper_sections,
    paper_table,
)
from pipeline.scoring.baselines import content_free_maps
from pipeline.scoring.protocols import PROTOCOLS
from tests.support.projects import ROOT


def scores(success, auc, *, seeds=None):
    metrics = {}
    for key, value in (("success_rate", success), ("auc", auc)):
        metrics |= {key: value, f"{key}_low": value - 0.03, f"{key}_high": value + 0.02}
        if seeds:
            metrics[f"{key}_seeds"] = [value + step for step in seeds]
    return metrics


CONTENT_FREE = {"random": scores(0.05, 0.126), "all_ones": scores(0.04, 0.144)}
TRAINED = {
    "iterative": scores(0.55, 0.5, seeds=(-0.06, 0.02, 0.04)),
    "initial": scores(0.3, 0.4, seeds=(0.0, 0.0, 0.0)),
    "my_method": scores(0.2, 0.3, seeds=(-0.01, 0.0, 0.01)),
}


def source(folder, *, dataset="demo", split="test", threshold=0.5, protocol="paper256", title="A <set>", metrics=None):
    evaluation = SimpleNamespace(threshold=threshold, protocol=protocol)
    card = SimpleNamespace(title=title, evaluation=evaluation)
    return SimpleNamespace(
        folder=folder,
        manifest=Path("data_manifests") / dataset,
        split=split,
        seeds=[0, 1, 2],
        shown="iterative",
        card=card,
        train_shards=range(9876),
        metrics=TRAINED if metrics is None else metrics,
        content_free=CONTENT_FREE,
    )


def cells(line):
    return [cell.strip().replace("**", "") for cell in line.strip("|\n").split("|")]


def read_csv(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def body(path):
    return [cells(line) for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("|")][2:]


class Cells(html.parser.HTMLParser):
    """The texts of all cells, and whether every tag was closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.rows = [], []

    def handle_starttag(self, tag, attrs):
        if tag == "meta":
            return
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def test_table_1_has_the_papers_rows_then_further_methods_then_content_free_rows(tmp_path):
    paper_sections(source(tmp_path, dataset="soundnet_flickr"))
    rows = body(tmp_path / "table1.md")
    names = ["Random", "Attention", "DMC", "MSSL", "DSOL", "Ours", "my_method", "all ones"]
    assert [row[0] for row in rows] == names
    assert rows[0][:3] == ["Random", "5.0 (2.0–7.0)", "12.6 (9.6–14.6)"]
    assert rows[1] == ["Attention", "–", "–", "42.1", "43.8"]
    # The standard deviation of -6, 2, 4 is the root of (36 + 4 + 16) / 2.
    assert rows[5][:3] == ["Ours", "55.0 ± 5.3 (52.0–57.0)", "50.0 ± 5.3 (47.0–52.0)"]


def test_rows_that_are_not_trained_are_folded(tmp_path):
    first, _ = paper_sections(source(tmp_path, dataset="soundnet_flickr"))
    shown, whole = (
        [cells(line)[0] for line in text.splitlines() if line.startswith("|")][2:]
        for text in (first.text, first.folded[0][1])
    )
    assert shown == ["Random", "Ours", "my_method", "all ones"]
    assert whole == [row[0] for row in body(tmp_path / "table1.md")]
    assert paper_sections(source(tmp_path))[0].folded == []


def test_table_2_has_all_rows_and_every_content_free_one(tmp_path):
    ours = [
        "untouched",
        "initial_matched",
    ]  # the paper does not have them, so they are left out unless they are trained
    for choices, left_out in (
        ({"metrics": dict.fromkeys(ROWS_2, TRAINED["initial"])}, []),
        ({"dataset": "soundnet_flickr"}, ours),
    ):
        paper_sections(source(tmp_path, **choices))
        names = [row["name"] for row in read_csv(tmp_path / "table2.csv")]
        assert names == [*(name for name in ROWS_2 if name not in left_out), "random", "all_ones"]
    assert len(ROWS_2) == 12 + len(ours)
    assert [row[1] for row in body(tmp_path / "table2.md")].count("–") == 10
    assert body(tmp_path / "table2.md")[7][:2] == ["Ours: initial", "30.0 ± 0.0 (27.0–32.0)"]


def test_our_own_rows_have_no_published_values(tmp_path):
    metrics = dict.fromkeys(("untouched", "initial", "initial_matched", "iterative"), TRAINED["initial"])
    paper_sections(source(tmp_path, dataset="soundnet_flickr", metrics=metrics))
    for number, follows in ((1, ["Ours"]), (2, ["Ours: initial", "Ours: initial, τ of the last row"])):
        rows = body(tmp_path / f"table{number}.md")
        labels = [row[0] for row in rows]
        place = labels.index("Initialized, untouched")
        assert labels[place + 1 : place + 1 + len(follows)] == follows
        assert rows[place][3:] == ["–", "–"]
    assert "“Initialized, untouched”" in (tmp_path / "table1.md").read_text().split("|")[0]
    paper_sections(source(tmp_path))
    assert "untouched" not in (tmp_path / "table1.md").read_text()


def test_rows_with_neither_a_model_nor_a_published_value_are_left_out(tmp_path):
    paper_sections(source(tmp_path))
    assert [row[0] for row in body(tmp_path / "table1.md")] == ["Random", "Ours", "my_method", "all ones"]
    assert [row["name"] for row in read_csv(tmp_path / "table2.csv")] == ["initial", "iterative", "random", "all_ones"]
    assert "–" not in {cell for row in body(tmp_path / "table2.md") for cell in row}


@pytest.mark.parametrize("dataset", ["soundnet_flickr", "soundnet_flickr_20k", "music_synthetic"])
def test_the_papers_values_stand_beside_ours_on_the_papers_datasets(tmp_path, dataset):
    threshold, protocol = (0.3, "music-synthetic-b") if dataset == "music_synthetic" else (0.5, "paper256")
    section, _ = paper_sections(source(tmp_path, dataset=dataset, threshold=threshold, protocol=protocol))
    pairs = {"soundnet_flickr": "10,000", "soundnet_flickr_20k": "20,000", "music_synthetic": "25,000"}[dataset]
    assert f"{pairs} pairs, ours on 9,876" in section.text
    header = cells((tmp_path / "table1.md").read_text().split("\n\n")[1].splitlines()[0])
    assert header == ["", f"cIoU@{threshold}", "AUC", f"cIoU@{threshold}, paper", "AUC, paper"]
    ours = next(row for row in body(tmp_path / "table1.md") if row[0] == "Ours")
    expected = {
        "soundnet_flickr": ["71.0", "58.0"],
        "soundnet_flickr_20k": ["74.7", "59.6"],
        "music_synthetic": ["25.1", "21.9"],
    }
    assert ours[3:] == expected[dataset]
    random = next(row for row in body(tmp_path / "table1.md") if row[0] == "Random")
    assert random[3:] == (
        ["–", "–"] if dataset == "soundnet_flickr_20k" else list(map(str, TABLE_1[dataset].rows["random"]))
    )
    assert len(body(tmp_path / "table2.md")[0]) == (5 if dataset == "soundnet_flickr" else 3)


@pytest.mark.parametrize(
    "other", [{"dataset": "demo"}, {"split": "validation"}, {"threshold": 0.3}, {"protocol": "paper256-median"}]
)
def test_the_papers_values_stand_nowhere_else(tmp_path, other):
    section, _ = paper_sections(source(tmp_path, **{"dataset": "soundnet_flickr"} | other))
    assert "The paper reports no values" in section.text
    assert "71.0" not in section.text
    assert {row["success_rate_paper"] for row in read_csv(tmp_path / "table1.csv")} == {""}


def test_a_table_names_its_rows_that_have_a_normalization_of_their_own(tmp_path):
    metrics = TRAINED | {"mssl": scores(0.3, 0.3) | {"normalization": "relu-max"}}
    for section in paper_sections(source(tmp_path, metrics=metrics)):
        assert section.text.count(": MSSL.") == 1
    for section in paper_sections(source(tmp_path)):
        assert "relu-max" not in section.text


def test_csv_holds_fractions_with_deviation_and_published_value(tmp_path):
    paper_sections(source(tmp_path, dataset="soundnet_flickr"))
    rows = {row["name"]: row for row in read_csv(tmp_path / "table2.csv")}
    own = rows["iterative"]
    assert (float(own["success_rate"]), float(own["success_rate_paper"])) == (0.55, 0.71)
    assert float(own["auc_sd"]) == pytest.approx(statistics.stdev([0.44, 0.52, 0.54]))
    assert (float(own["auc_low"]), float(own["auc_high"])) == (pytest.approx(0.47), pytest.approx(0.52))
    assert (rows["itr"]["success_rate"], rows["itr"]["success_rate_paper"]) == ("", "0.642")
    assert (rows["random"]["success_rate_sd"], rows["random"]["success_rate_paper"]) == ("", "")


def test_mosaics_add_their_accuracy_with_own_and_with_shuffled_audio(tmp_path):
    def of_mosaics(metrics, own, shuffled=None):
        further = {"quadrant_chance": 0.25, "quadrant_accuracy_seeds": [own - 0.02, own, own + 0.02]}
        for key, value in (("quadrant_accuracy", own), ("shuffled_quadrant_accuracy", shuffled)):
            if value is not None:
                further |= {key: value, f"{key}_low": value - 0.01, f"{key}_high": value + 0.01}
        return metrics | further

    metrics = {name: of_mosaics(values, 0.65, 0.27) for name, values in TRAINED.items()}
    page = source(tmp_path, dataset="soundnet_flickr", metrics=metrics)
    page.content_free = {"random": of_mosaics(scores(0.05, 0.126), 0.245)}
    _, section = paper_sections(page)
    header = cells(section.text.split("\n\n")[1].splitlines()[0])
    assert header == ["", "cIoU@0.5", "AUC", "cIoU@0.5, paper", "AUC, paper", "quadrant", "quadrant, shuffled audio"]
    rows = {row[0]: row[1:] for row in body(tmp_path / "table2.md")}
    assert rows["Ours: initial"][-4:] == ["57.8", "52.1", "65.0 ± 2.0 (64.0–66.0)", "27.0 (26.0–28.0)"]
    assert rows["MSSL"][-2:] == ["–", "–"]
    assert rows["random map"][-2:] == ["24.5 ± 2.0 (23.5–25.5)", "–"]
    assert "25.0%" in section.text
    (own,) = [row for row in read_csv(tmp_path / "table2.csv") if row["name"] == "initial"]
    assert (float(own["quadrant_accuracy"]), float(own["quadrant_accuracy_sd"])) == (0.65, pytest.approx(0.02))
    assert (float(own["shuffled_quadrant_accuracy_low"]), "quadrant_accuracy_paper" in own) == (0.26, False)
    paper_sections(source(tmp_path))
    assert "quadrant" not in (tmp_path / "table2.csv").read_text() + (tmp_path / "table2.md").read_text()


def test_html_says_what_markdown_says_and_escapes_everything(tmp_path):
    odd = {**TRAINED, "<b>&mine": scores(0.2, 0.3)}
    paper_sections(source(tmp_path, metrics=odd))
    page = (tmp_path / "table1.html").read_text(encoding="utf-8")
    parser = Cells()
    parser.feed(page.removeprefix("<!doctype html>"))
    assert parser.open == []
    assert parser.rows[1:] == body(tmp_path / "table1.md")
    assert "<b>" not in page
    assert "A &lt;set&gt;" in page
    assert "http" not in page  # nothing is fetched
    assert "&lt;script&gt;" in render_template("table.html", title="<script>", text="", table=Table(("",), ()))


def test_one_seed_has_no_deviation():
    table = paper_table([PaperRow("a", "a", scores(0.5, 0.4, seeds=(0.0,)))], threshold=0.5, published=False)
    assert table.rows == (("a", "50.0 (47.0–52.0)", "40.0 (37.0–42.0)"),)


def test_what_a_row_lacks_is_a_dash():
    published = Published(0.5, ("paper256",), "2 pairs", {"dmc": (1.0, 2.0)})
    rows = paper_rows({"mssl": "MSSL", "dmc": "DMC"}, {"mssl": scores(0.5, 0.4)}, {}, published=published)
    assert paper_table(rows, threshold=0.5, published=True).rows == (
        ("MSSL", "50.0 (47.0–52.0)", "40.0 (37.0–42.0)", "–", "–"),
        ("DMC", "–", "–", "1.0", "2.0"),
    )


def test_published_values_are_of_rows_that_the_tables_have():
    for table, rows in ((TABLE_1, ROWS_1), (TABLE_2, ROWS_2)):
        for name, column in table.items():
            assert set(column.rows) <= set(rows), name
            assert set(column.protocols) <= set(PROTOCOLS), name
            assert all(0 < value < 100 for pair in column.rows.values() for value in pair)
    # What the text of the paper says of them: MUSIC-Synthetic counts from 0.3, and the full method is its best row.
    assert TABLE_1["music_synthetic"].threshold == 0.3
    for column in (*TABLE_1.values(), *TABLE_2.values()):
        assert max(column.rows, key=lambda name: column.rows[name]) == "iterative"


def test_make_tables_trains_every_row():
    done = subprocess.run(["make", "-n", "tables"], cwd=ROOT, capture_output=True, text=True, check=True)
    (variants,) = re.findall(r"variants=\[([a-z0-9_,]+)\]", done.stdout)
    assert sorted(variants.split(",")) == sorted((set(ROWS_1) | set(ROWS_2)) - {"random"})
    (seeds,) = re.findall(r"seeds=\[([0-9,]+)\]", done.stdout)
    assert len(set(seeds.split(","))) >= 5


def test_every_row_but_the_random_one_is_a_method():
    assert set(ROWS_1) | set(ROWS_2) <= set(METHODS) | {"random"}


def test_every_row_has_a_label_and_settings_for_every_dataset():
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    blind = set(content_free_maps(["a"], prior_boxes=[Box("b", "x", "y", True, 0, 0, 1, 1)]))
    of_the_papers = (set(ROWS_1) | set(ROWS_2)) - {"random"}
    assert of_the_papers | blind <= set(LABELS) <= set(METHODS) | blind
    for block in params["training"].values():
        assert of_the_papers <= set(block["methods"]) <= set(METHODS)


def test_rows_of_mssl_stand_in_the_papers_order():
    assert list(ROWS_2)[:7] == [
        "mssl",
        "mssl_stage1",
        "mssl_stage1_unlabeled",
        "mssl_stage1_eq2",
        "mssl_stage1_unlabeled_eq2",
        "mssl_stage1_eq2_eq1",
        "mssl_stage1_unlabeled_eq2_eq1",
    ]
    assert [row.label for row in paper_rows(ROWS_2, {name: {} for name in ROWS_2}, {})][
        5
    ] == "MSSL stage I w/ Eq. 2 and 1"
