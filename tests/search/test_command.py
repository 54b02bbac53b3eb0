"""`soundspot search` from the command line, from media to winners in params.yaml."""

from __future__ import annotations

import pytest
import yaml

from pipeline.cli.main import soundspot
from pipeline.common.config import load_params
from pipeline.common.console import run_command
from pipeline.datasets.demo.dataset import write_manifest
from pipeline.search import search as search_module
from pipeline.search.results import Line, read_table, winners, write_table
from pipeline.search.study import Trial
from tests.support.feature_world import write_shards
from tests.support.projects import ROOT, read_params, shrunk, write_params

SPACES = {
    "initialize": {"temperature": {"low": 0.03, "high": 0.3, "log": True}},
    "itr": {"temperature": {"low": 0.1, "high": 0.6}, "delta_v": [0.7, 0.85]},
    "mssl_stage1": {"class_threshold": {"low": 0.1, "high": 0.6}},
}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A tiny demo dataset of which nothing is rendered or extracted yet."""
    params = read_params(ROOT)
    training = {"demo": shrunk(params["training"]["demo"], batch_size=8)}
    search = {"trials": 2, "spaces": {"demo": SPACES}}
    write_params(tmp_path, params | {"training": training, "variants": ["itr"], "search": search})
    write_manifest(tmp_path / "data_manifests/demo", seed=3, train=24, validation=8, test=4)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOUNDSPOT_WORKERS", "1")
    return tmp_path


def run(*words):
    with pytest.raises(SystemExit) as end:
        run_command(soundspot, ["search", *words])
    return int(end.value.code or 0)


@pytest.mark.slow
def test_from_media_to_winners(project, capsys, monkeypatch):
    """The metric is one that differs between barely trained models."""
    assert run("--metric", "mean_ciou") == 0
    assert "initialize" in capsys.readouterr().out
    table = project / "docs/search/demo.csv"
    lines = read_table(table)
    assert [line.row for line in lines] == [row for row in ("initialize", "mssl_stage1", "itr") for _ in range(2)]
    assert {line.metric for line in lines} == {"mean_ciou"}
    assert table.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert not (project / "data/demo/shards/test").exists()

    (project / "params.yaml").write_text(f"# kept\n{(project / 'params.yaml').read_text()}")
    assert run("--write") == 0
    text = (project / "params.yaml").read_text()
    assert text.startswith("# kept\n")
    assert text.count("winner of 2 trials on validation, docs/search/demo.csv") == 3
    settings = load_params(project / "params.yaml").training["demo"]
    found = winners(table)
    assert settings.initialize.temperature == found["initialize"].trial.settings["temperature"]
    assert settings.methods["itr"] == found["itr"].trial.settings

    # Now params.yaml has other first values; the finished trials still count.
    monkeypatch.setattr(search_module.TrialRunner, "run", None)
    before = table.read_bytes()
    assert run("--metric", "mean_ciou") == 0
    assert table.read_bytes() == before
    assert run("--rows", "itr") == 1
    assert "other metric" in capsys.readouterr().err


def test_without_a_table_nothing_is_written(project, capsys):
    before = (project / "params.yaml").read_bytes()
    assert run("--write") == 1
    assert "docs/search/demo.csv: no such file" in capsys.readouterr().err
    assert (project / "params.yaml").read_bytes() == before


def test_winners_need_the_same_budget_for_every_row(project, capsys):
    before = (project / "params.yaml").read_bytes()
    lines = [
        Line(row, Trial(0, "complete", {"temperature": 0.2}, 0.5), 2, "auc", "abc") for row in ("initialize", "itr")
    ]
    write_table(project / "docs/search/demo.csv", lines)
    assert run("--write") == 1
    assert "no trials of mssl_stage1;" in capsys.readouterr().err
    assert (project / "params.yaml").read_bytes() == before


@pytest.mark.parametrize(("rows", "kept"), [(["--rows", "itr"], ["initialize", "mssl_stage1"]), ([], [])])
def test_starting_a_row_over_keeps_the_others(project, monkeypatch, rows, kept):
    for row in SPACES:
        (project / "search/demo" / row).mkdir(parents=True)
    monkeypatch.setattr("pipeline.search.data.open_data", lambda *_, **__: (None, None))
    monkeypatch.setattr(search_module.Search, "run", lambda *_, **__: None)
    assert run("--fresh", *rows) == 0
    assert sorted(path.name for path in (project / "search/demo").iterdir() if path.is_dir()) == kept


def test_shards_of_another_card_are_refused(project, capsys):
    write_shards(project / "data/demo/shards/train", counts=(8,))
    (project / "data/demo/clips.csv").write_text("split,clip_id,video,frame,audio,centre_s,label\ntrain,a,a.mp4,,,,\n")
    assert run() == 1
    assert "demo/shards/train: extracted with" in capsys.readouterr().err


def test_only_a_validation_split_with_boxes_is_searched_on(project, capsys):
    (project / "data_manifests/demo/validation_boxes.csv").unlink()
    assert run() == 1
    assert "validation_boxes.csv: no such file" in capsys.readouterr().err
    assert not (project / "data").exists()


def test_a_misspelled_row_is_found_before_anything_is_rendered(project, capsys):
    assert run("--rows", "itr_intra") == 1
    assert "no row 'itr_intra'" in capsys.readouterr().err
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["search"]["spaces"]["demo"]["itr"]["delta_w"] = [0.5]
    write_params(project, params)
    assert run() == 1
    assert "no setting 'delta_w'; close: delta_v" in capsys.readouterr().err
    assert not (project / "data").exists()
