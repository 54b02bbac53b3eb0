"""Datasets are independent: making another one active reruns and loses nothing, and neither does a clone."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support.prepared_project import GIT
from tests.support.projects import DVC, digests, environment, read_params, repro, set_param

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # the first test may wait for the prepared project
TRAINED = ["prepare@own", "extract@own-train", "features@own-train", "initialize@own", "train@own-iterative"]


def run(folder: Path, *command: str) -> str:
    """Run a command and return what it printed."""
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def add_own_dataset(folder: Path) -> None:
    """Add a dataset `own`, of the first clips of the demo's lists and with the demo's settings."""
    demo, own = (folder / "data_manifests" / name for name in ("demo", "own"))
    own.mkdir()
    for name, lines in (("train.csv", 17), ("test.csv", 5)):
        (own / name).write_text("".join((demo / name).open().readlines()[:lines]))
    tested = [line.split(",")[0] for line in (own / "test.csv").open()]
    boxes = [line for line in (demo / "test_boxes.csv").open() if line.split(",")[0] in tested]
    (own / "test_boxes.csv").write_text("".join(boxes))
    card = yaml.safe_load((demo / "dataset.yaml").read_text())
    del card["render"]
    (own / "dataset.yaml").write_text(yaml.safe_dump(card))
    set_param(folder, "training.own", read_params(folder)["training"]["demo"])


def commit(folder: Path) -> None:
    run(folder, "git", "add", ".")
    run(folder, *GIT, "commit", "-q", "-m", "results")


def test_another_active_dataset_reruns_and_loses_nothing(project):
    before = digests(project)
    add_own_dataset(project)
    set_param(project, "dataset", "own")
    assert repro(project, "train") == TRAINED
    set_param(project, "dataset", "demo")
    assert repro(project) == []
    after = digests(project)
    assert before.items() <= after.items()
    assert {"runs/own/initialize/model.pt", "runs/own/iterative/model.pt"} <= after.keys() - before.keys()

    # DVC removes the other dataset's files from the workspace. It restores them later, except for runs and shards.
    run(project, *DVC, "checkout")
    assert not (project / "runs/own/iterative").exists()
    set_param(project, "dataset", "own")
    printed = run(project, *DVC, "repro", "train")
    assert printed.count("checksums verified, kept") == 3
    assert "from scratch" not in printed
    assert digests(project) == after

    # A change of one dataset reruns its stages alone.
    clips = project / "data_manifests/own/train.csv"
    clips.write_text("".join(clips.open().readlines()[:-1]))
    assert set(repro(project, "extract")) == {"prepare@own", "extract@own-train", "extract@own-test"}
    set_param(project, "dataset", "demo")
    assert repro(project) == []


def test_a_clone_is_up_to_date_once_it_has_the_data(project, tmp_path):
    run(project, *DVC, "remote", "add", "-d", "store", str(tmp_path / "store"))
    commit(project)
    run(project, *DVC, "push")
    clone = tmp_path / "clone"
    run(tmp_path, "git", "clone", "-q", str(project), str(clone))
    run(clone, *DVC, "pull")
    assert run(clone, *DVC, "status").strip() == "Data and pipelines are up to date."
    assert repro(clone) == []
    shutil.rmtree(clone / "results/demo/report")
    assert run(clone, *DVC, "checkout").split() == ["A", "results/demo/report/"]
