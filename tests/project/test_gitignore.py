"""`git add .` takes results that belong in Git, and nothing else that a user makes."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.support.projects import ROOT

IN_GIT = (
    "params.yaml",
    "dvc.lock",
    "docs/images/demo.gif",
    "docs/images/demo.mp4",
    "docs/search/demo.csv",
    "data_manifests/street/train.csv",
    "data_manifests/street/test_boxes.csv",
    "data_manifests/street/import_report.json",
    "data/street/coverage.json",
    "data/street/fingerprints.json",
    "results/street/baselines.json",
    "results/street/iterative/metrics.json",
    "results/street/iterative/scores.json",
    "results/street/on/vggss/iterative/scores.json",
    "weights/resnet18-imagenet.pth.dvc",
)
NOT_IN_GIT = (
    "videos/walk.mp4",
    "videos/notes.txt",
    "street/walk.MOV",
    "recordings/dog.wav",
    "photos/dog/1.jpg",
    "boxes.csv",
    "rules.csv",
    "changes.html",
    "clip.png",
    "labels.npz",
    "regions.json",
    "iterative.pt",
    "iterative.onnx",
    "images/train-00042.png",
    "localized/walk.json",
    "dvc_plots/index.html",
    "weights/resnet18-imagenet.pth",
    "data/street/clips.csv",
    "data/street/shards/test/shard-00000.h5",
    "runs/street/iterative/model.pt",
    "results/street/iterative/scores.csv",
    "results/street/report/index.html",
    "results/street/maps/iterative/calibration.json",
)


@pytest.fixture(scope="module")
def added(tmp_path_factory):
    """The files that Git adds in a folder with all of them."""
    folder = tmp_path_factory.mktemp("project")
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    subprocess.run(["git", "config", "core.ignorecase", "false"], cwd=folder, check=True)
    shutil.copy(ROOT / ".gitignore", folder)
    for name in (*IN_GIT, *NOT_IN_GIT):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    subprocess.run(["git", "add", "."], cwd=folder, check=True)
    done = subprocess.run(["git", "ls-files"], cwd=folder, check=True, capture_output=True, text=True)
    return set(done.stdout.splitlines())


@pytest.mark.parametrize("name", IN_GIT)
def test_what_belongs_in_git_is_added(added, name):
    assert name in added


@pytest.mark.parametrize("name", NOT_IN_GIT)
def test_everything_else_is_not(added, name):
    assert name not in added
