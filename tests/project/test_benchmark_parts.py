"""The script that measures what each setting does, on a tiny world in memory: its table, its page, and what it does not train again."""

from __future__ import annotations

import csv
import importlib
import json
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
import yaml

from pipeline.common.config import ADDITIONS, AugmentationSettings, load_params
from tests.support.projects import ROOT
from tests.support.synthetic import make_settings, make_world

PAGE = "# Parts\n\n<!-- delta_a -->\nold\n<!-- end -->\n\ntext\n\n<!-- cells -->\n<!-- end -->\n\n<!-- draws -->\n<!-- end -->\n"


class Score:
    """Stands for the validation split: the score depends on the weights alone."""

    metric = "success_rate"
    conditions: ClassVar = {"boxes": "of the test"}

    def __init__(self, shards):
        self.shards, self.scored = shards, []

    def score(self, model, name):
        self.scored.append(name)
        return 0.5 + 0.4 * float(model.encoders.visual.conv1.weight.detach().tanh().mean())


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """The script in a project whose dataset is in memory; `validation` counts what is scored."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    module = importlib.import_module("benchmarks.parts")
    settings = make_settings(augmentation=AugmentationSettings(flip=False))
    block = json.loads(settings.model_dump_json())
    block["initialize"]["epochs"] = block["iterate"]["epochs"] = 1
    params = {"dataset": "tiny", "variants": ["itr"], "seeds": [0], "extract": {}, "training": {"tiny": block}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    world = make_world(16, size=32)[0]
    validation = Score(world)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "open_data", lambda *_, **__: (world, validation))
    small = {
        "delta_a": replace(module.PARTS["delta_a"], values=(0.5, 0.9)),
        "cells": replace(module.PARTS["cells"], values=(0, 2), rows=("itr",)),
        "draws": replace(module.PARTS["draws"], values=(2,), rows=("itr",)),
    }
    for name in list(module.PARTS):
        monkeypatch.delitem(module.PARTS, name)
    for name, part in small.items():
        monkeypatch.setitem(module.PARTS, name, part)
    monkeypatch.setattr(module, "validation", validation, raising=False)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/parts.md").write_text(PAGE)
    return module


def rows(path="docs/parts/tiny.csv"):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_it_measures_each_value_once(parts, capsys):
    words = ["--dataset", "tiny", "--seeds", "0", "1", "--parts"]
    parts.main([*words, "delta_a"])
    measured = rows()
    # 0.8 is the value of the settings.
    expected = {
        (row, value, seed) for row in ("itr_inter", "iterative") for value in ("0.5", "0.8", "0.9") for seed in "01"
    }
    assert {(each["row"], each["value"], each["seed"]) for each in measured} == expected
    assert all(0 < float(each["score"]) < 1 for each in measured)
    positives = {each["value"]: float(each["positives_per_clip"]) for each in measured if each["row"] == "itr_inter"}
    assert positives["0.5"] > positives["0.9"]

    page = Path("docs/parts.md").read_text()
    assert "old" not in page
    assert "text\n\n<!-- cells -->\n<!-- end -->" in page
    assert "tiny: success rate in percent, seeds 0, 1" in page
    table = page.split("<!-- delta_a -->")[1].split("<!-- end -->")[0]
    assert [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| 0")] == [
        "0.5",
        "0.8",
        "0.9",
    ]
    assert (Path("docs/parts/delta_a.png")).stat().st_size > 1000

    scored = len(parts.validation.scored)
    parts.main([*words, "delta_a", "cells"])
    assert len(parts.validation.scored) == scored + 3 * 2  # one, two and all cells of itr, of two seeds
    assert [each["value"] for each in rows() if each["part"] == "cells" and each["seed"] == "0"] == ["1", "2", "0"]
    parts.main([*words, "cells", "draws"])
    assert len(parts.validation.scored) == scored + 4 * 2  # two draws; one draw of one cell is in the part `cells`
    (one,) = [each for each in rows() if (each["part"], each["value"], each["seed"]) == ("draws", "1", "0")]
    assert {**one, "part": "cells"} in rows()
    earlier = rows()
    parts.main([*words, "delta_a", "--fresh"])
    again = [each for each in rows() if each["part"] == "delta_a"]
    assert len(parts.validation.scored) == scored + 4 * 2 + 6 * 2
    assert [{**each, "seconds": ""} for each in again] == [{**each, "seconds": ""} for each in measured]
    assert [each for each in rows() if each["part"] != "delta_a"] == [e for e in earlier if e["part"] != "delta_a"]
    assert not list(Path("benchmarks/results/parts/tiny").glob("run/*.pt"))


@pytest.mark.slow
def test_a_mean_does_not_mix_settings(parts, capsys):
    words = ["--dataset", "tiny", "--parts"]
    parts.main([*words, "cells", "draws", "--seeds", "0", "1"])
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["training"]["tiny"]["iterate"]["learning_rate"] *= 2
    Path("params.yaml").write_text(yaml.safe_dump(params))
    capsys.readouterr()

    parts.main([*words, "cells", "--seeds", "0"])
    assert {each["seed"] for each in rows() if each["part"] == "cells"} == {"0"}
    assert {each["seed"] for each in rows() if each["part"] == "draws"} == {"0", "1"}
    assert "draws: measured with other settings or data; measure it again (--parts draws)" in capsys.readouterr().out


def test_another_table_is_refused_before_anything_is_trained(parts, capsys):
    Path("docs/parts").mkdir()
    Path("docs/parts/mine.csv").write_text("a,b\n1,2\n")
    with pytest.raises(SystemExit):
        parts.main(["--dataset", "tiny", "--parts", "cells"])
    assert "mine.csv: not a table of this script" in capsys.readouterr().err
    assert parts.validation.scored == []


def test_links_are_relative_to_the_page(parts, tmp_path):
    output = tmp_path / "elsewhere/tables/tiny.csv"
    output.parent.mkdir(parents=True)
    lines = [["cells", "itr", value, 0, "auc", 0.5, "", "0.1", 1, "c"] for value in (1, 2)]
    with open(output, "w", newline="") as file:
        csv.writer(file).writerows([parts.COLUMNS, *lines])
    parts.main(["--dataset", "tiny", "--output", str(output), "--parts"])
    text = Path("docs/parts.md").read_text()
    assert "[CSV](../elsewhere/tables/tiny.csv)" in text
    assert "(../elsewhere/tables/cells.png)" in text


def test_the_page_is_written_from_the_tables_alone(parts):
    Path("docs/parts").mkdir()
    lines = [
        ["itr", json.dumps(value), seed, score] for value, seed, score in ((0, 0, 0.5), (1, 0, 0.25), (1, 1, 0.35))
    ]
    with open("docs/parts/other.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(parts.COLUMNS)
        for row, value, seed, score in lines:
            writer.writerow(["cells", row, value, seed, "quadrant_accuracy", score, "", "0.1", 1, "c"])
    parts.main(["--dataset", "tiny", "--parts"])
    table = Path("docs/parts.md").read_text().split("<!-- cells -->")[1].split("<!-- end -->")[0]
    assert "other: quadrant accuracy in percent, seeds 0, 1 ([CSV](parts/other.csv))" in table
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("|")]
    assert cells[2:] == [["1", "30.0 ± 7.1"], ["0", "50.0"]]
    assert parts.validation.scored == []


def test_the_page_has_a_place_for_every_part_and_every_setting_of_ours(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    module, page = importlib.import_module("benchmarks.parts"), (ROOT / "docs/parts.md").read_text()
    for name in module.PARTS:
        assert page.count(f"<!-- {name} -->\n") == 1
    assert page.count("<!-- end -->") == len(module.PARTS)
    assert {*ADDITIONS} <= {part.setting for part in module.PARTS.values()}
    assert [name for name in ADDITIONS if f"`{name}" not in page] == []


def test_the_values_of_every_dataset_fit(monkeypatch):
    """Otherwise a part would be left out when it is measured, hours later."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    module = importlib.import_module("benchmarks.parts")
    settings = load_params(ROOT / "params.yaml").training
    for part in module.PARTS.values():
        for dataset in ("demo", "real"):
            for value in module.values_of(part, settings[dataset]):
                for row in part.rows:
                    module.with_values(settings[dataset], part.of or row, {part.setting: value})
