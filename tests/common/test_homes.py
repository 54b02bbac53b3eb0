"""Where runs lie: from a model's path, and from a variant's name."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.common.errors import SettingsError
from pipeline.common.project import find_home, find_run
from tests.cli.test_evaluate import PARAMS


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
def test_where_a_model_lies(tmp_path, path, found):
    home = find_home(tmp_path / path)
    assert (home and (home.dataset, home.variant, home.seed_part)) == found
    if home:
        assert home.project == (tmp_path / path.split(f"/runs/{home.dataset}/")[0])
        assert home.calibration == home.project.joinpath(
            "results", home.dataset, "maps", home.variant, *home.seed_part, "calibration.json"
        )


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Runs of two variants, of which one has no model."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(PARAMS)
    for name in ("good", "noisy"):
        (tmp_path / "runs/squares" / name / "pseudo_labels").mkdir(parents=True)
    (tmp_path / "runs/squares/good/model.pt").touch()
    return tmp_path


def find(word, holding="model.pt", dataset=None, params_path=Path("params.yaml")):
    return find_run(word, dataset=dataset, params_path=params_path, holding=holding)


def test_a_variant_and_its_seeds(project):
    found = find("good")
    assert (found.folder, found.is_there) == (Path("runs/squares/good"), True)
    assert found.of_seed(None) == found.of_seed(0) == found.folder
    assert found.of_seed(7) == found.folder / "seed_7"
    assert found.of_seed(3) is None


def test_a_seed_with_a_folder_is_there_whatever_the_settings_say(project):
    (project / "runs/squares/good/seed_3").mkdir()
    assert find("good").of_seed(3) == Path("runs/squares/good/seed_3")


def test_the_others_are_all_that_hold_what_is_looked_for(project):
    assert (find("nosy").is_there, find("nosy").others) == (False, ["good"])
    assert find("nosy", holding="pseudo_labels").others == ["good", "noisy"]
    assert not find("noisy").is_there
    assert (find("good", dataset="none").others, find("good", dataset="none").folder) == ([], Path("runs/none/good"))


def test_settings_that_are_not_there(project):
    with pytest.raises(SettingsError, match=r"none\.yaml: no such file"):
        find("good", params_path=Path("none.yaml"))
