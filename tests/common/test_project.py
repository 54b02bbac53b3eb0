"""Project paths, from the path of a model and from the name of a variant."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.common.project import find_variant, labels_path, locate, seed_folder, stage_name, start_path, weights_path


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("p/runs/demo/itr/model.pt", ("demo", "itr", ())),
        ("p/runs/demo/itr/seed_3/model.pt", ("demo", "itr", ("seed_3",))),
        ("p/runs/old/runs/demo/itr/model.pt", ("demo", "itr", ())),
        ("p/runs/demo/itr/deeper/model.pt", None),
        ("p/runs/demo/model.pt", None),
        ("p/models/demo/itr/model.pt", None),
    ],
)
def test_a_model_is_located_by_its_path(tmp_path, path, found):
    paths = locate(tmp_path / path)
    assert (paths and (paths.dataset, paths.variant, paths.seed_part)) == found
    if paths:
        assert paths.project == (tmp_path / path.split(f"/runs/{paths.dataset}/")[0])
        assert paths.calibration == paths.project.joinpath(
            "results", paths.dataset, "maps", paths.variant, *paths.seed_part, "calibration.json"
        )


def test_the_first_seed_has_the_run_folder_itself(tmp_path):
    assert seed_folder(tmp_path, [4, 7], 4) == tmp_path
    assert seed_folder(tmp_path, [4, 7], 7) == tmp_path / "seed_7"


def test_files_of_an_epoch():
    run = Path("run")
    assert labels_path(run, 0) == run / "pseudo_labels/epoch_000.h5"
    assert start_path(run, 12) == run / "pseudo_labels/start_012.h5"
    assert weights_path(run, 1000) == run / "weights/epoch_1000.pt"


@pytest.mark.parametrize(
    ("stage", "folder", "name"),
    [
        ("train", "runs/demo/iterative", "train@demo-iterative"),
        ("train", "/a/runs/old/runs/own-set/itr/seed_12", "train@own-set-itr"),
        ("train", "elsewhere/itr", "train"),
        ("extract", "data/demo/shards/test", "extract@demo-test"),
        ("evaluate", "results/demo/iterative", "evaluate@demo-iterative"),
        ("evaluate", "/a/results/demo/maps/iterative", "evaluate@demo-iterative"),
        ("evaluate", "results/demo/on/vggss/itr", "evaluate_cross@demo-vggss-itr"),
        ("evaluate", "results/demo/on/vggss/maps/itr", "evaluate_cross@demo-vggss-itr"),
    ],
)
def test_the_stage_that_writes_a_folder(stage, folder, name):
    assert stage_name(stage, Path(folder)) == name


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Runs of two variants, of which one has no model."""
    monkeypatch.chdir(tmp_path)
    for name in ("good", "noisy"):
        (tmp_path / "runs/squares" / name / "pseudo_labels").mkdir(parents=True)
    (tmp_path / "runs/squares/good/model.pt").touch()
    return tmp_path


def find(word, holding="model.pt", dataset="squares"):
    return find_variant(word, dataset=dataset, seeds=[0, 7], holding=holding)


def test_a_variant_and_its_seeds(project):
    found = find("good")
    assert (found.folder, found.exists) == (Path("runs/squares/good"), True)
    assert found.folder_of_seed(None) == found.folder_of_seed(0) == found.folder
    assert found.folder_of_seed(7) == found.folder / "seed_7"
    assert found.folder_of_seed(3) is None


def test_a_seed_with_a_folder_exists_whatever_the_settings(project):
    (project / "runs/squares/good/seed_3").mkdir()
    assert find("good").folder_of_seed(3) == Path("runs/squares/good/seed_3")


def test_available_variants_hold_the_file_that_is_looked_for(project):
    assert (find("nosy").exists, find("nosy").available) == (False, ["good"])
    assert find("nosy", holding="pseudo_labels").available == ["good", "noisy"]
    assert not find("noisy").exists
    assert (find("good", dataset="none").available, find("good", dataset="none").folder) == ([], Path("runs/none/good"))
