"""The real `dvc repro` on a tiny rendered dataset: end to end, single stages, changed settings, kill -9.

prepare → extract@train, extract@test → initialize → train@initial, train@iterative → evaluate@… → report
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import h5py
import pytest
import yaml

from pipeline.datasets.demo.dataset import write_manifest
from tests.support.projects import DVC, ROOT, copy_project, environment, read_params, repro, shrunk, write_params

pytestmark = pytest.mark.slow


def tiny_params() -> dict:
    params = read_params(ROOT)
    return params | {
        "dataset": "tiny",
        "variants": ["initial", "iterative"],
        "training": {"tiny": shrunk(params["training"]["demo"], batch_size=8, epochs=3)},
        "extract": params["extract"] | {"clips_per_shard": 16},
    }


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project with a dataset of 48 + 16 clips, run once from nothing."""
    folder = tmp_path_factory.mktemp("project")
    copy_project(folder)
    write_params(folder, tiny_params())
    write_manifest(folder / "data_manifests" / "tiny", seed=3, train=48, validation=4, test=16)
    card = folder / "data_manifests" / "tiny" / "dataset.yaml"
    card.write_text(card.read_text().replace("data/demo/media", "data/tiny/media"))
    repro(folder)
    return folder


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every shard, pseudo-label file and model below a folder."""
    kinds = ("*.h5", "model.pt", "rejects.csv")
    files = sorted(file for kind in kinds for file in folder.rglob(kind))
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def set_param(folder: Path, key: str, value: object) -> None:
    params = read_params(folder)
    *parents, last = key.split(".")
    block = params
    for parent in parents:
        block = block[parent]
    block[last] = value
    write_params(folder, params)


def kill_when(folder: Path, there: Path, *arguments: str) -> None:
    """Start `dvc repro`, and kill it with all its children as soon as a file is there."""
    process = subprocess.Popen(
        [*DVC, "repro", *arguments],
        cwd=folder,
        env=environment(),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for _ in range(3000):
        if there.exists() or process.poll() is not None:
            break
        time.sleep(0.02)
    assert process.poll() is None, "the pipeline ended before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_end_to_end_leaves_every_artifact(project):
    clips = list(csv.DictReader((project / "data/tiny/clips.csv").open()))
    assert {clip["split"] for clip in clips} == {"train", "validation", "test"}
    assert [f.name for f in sorted((project / "data/tiny/shards/train").glob("*.h5"))] == [
        f"shard-0000{n}.h5" for n in range(3)
    ]
    for variant in ("initial", "iterative"):
        artifacts = sorted((project / "runs/tiny" / variant / "pseudo_labels").iterdir())
        assert [a.name for a in artifacts] == [f"epoch_00{n}.h5" for n in range(4)]
        with h5py.File(artifacts[-1]) as file:
            assert file["clip_id"].shape == (48,)
            assert file.attrs["epoch"] == 3
        metrics = json.loads((project / "results/tiny" / variant / "metrics.json").read_text())
        assert metrics["n_clips"] == 16
        assert 0 <= metrics["success_rate_low"] <= metrics["success_rate"] <= metrics["success_rate_high"] <= 1
    assert {"random", "all_ones", "centered_gaussian"} <= set(
        json.loads((project / "results/tiny/baselines.json").read_text())
    )
    assert "iterative (Eq. 7)" in (project / "results/tiny/report/table.md").read_text()


def test_a_second_run_does_nothing(project):
    assert repro(project) == []


def test_single_stages_rerun_alone_and_give_the_same_bytes(project):
    before = digests(project)
    assert repro(project, "--force", "--single-item", "extract@train") == ["extract@train"]
    assert repro(project, "--force", "--single-item", "train@iterative") == ["train@iterative"]
    assert digests(project) == before
    assert repro(project) == []


def test_a_changed_threshold_trains_again_without_extracting(project):
    before = digests(project)
    set_param(project, "training.tiny.methods.iterative", {"delta_v": 0.5})
    ran = repro(project)
    assert ran == ["train@iterative", "evaluate@iterative", "report"]
    assert digests(project)["runs/tiny/iterative/model.pt"] != before["runs/tiny/iterative/model.pt"]
    set_param(project, "training.tiny.methods.iterative", {})
    repro(project)
    assert digests(project) == before


def test_a_changed_list_reruns_the_stages_of_its_split_alone(project):
    before, path = digests(project), project / "data_manifests/tiny/test.csv"
    listed = path.read_text()
    path.write_text("".join(listed.splitlines(keepends=True)[:-1]))
    boxes = project / "data_manifests/tiny/test_boxes.csv"
    known = boxes.read_text()
    boxes.write_text("".join(line for line in known.splitlines(keepends=True) if not line.startswith("test-00015,")))
    of_test = ["extract@test", "baselines", "evaluate@initial", "evaluate@iterative", "report"]
    assert repro(project) == ["prepare", *of_test]
    assert json.loads((project / "results/tiny/initial/metrics.json").read_text())["n_clips"] == 15
    path.write_text(listed)
    boxes.write_text(known)
    repro(project)
    assert digests(project) == before


def test_models_are_scored_on_a_dataset_that_has_no_training_split(project):
    elsewhere, own = (project / "data_manifests" / name for name in ("elsewhere", "tiny"))
    elsewhere.mkdir()
    for name in ("test.csv", "test_boxes.csv"):
        shutil.copy(own / name, elsewhere)
    card = yaml.safe_load((own / "dataset.yaml").read_text())
    del card["render"]
    (elsewhere / "dataset.yaml").write_text(yaml.safe_dump(card))
    set_param(project, "cross_datasets", ["elsewhere"])
    stages = ["prepare_cross", "extract_cross", "baselines_cross", "evaluate_cross"]
    ran = repro(project)
    assert {stage.split("@")[0] for stage in ran} == set(stages)
    assert len(ran) == 5  # the last one for each variant
    results = project / "results" / "tiny"
    for variant in ("initial", "iterative"):
        own_scores, scores = (
            json.loads((folder / variant / "metrics.json").read_text())
            for folder in (results, results / "on/elsewhere")
        )
        assert scores == own_scores  # the same clips under another name
    set_param(project, "cross_datasets", [])
    for folder in (elsewhere, project / "data" / "elsewhere", results / "on"):
        shutil.rmtree(folder)
    assert repro(project) == []


def test_kill_during_extract_resumes_to_the_same_bytes(project):
    before = digests(project)
    shards = project / "data/tiny/shards/train"
    shutil.rmtree(shards)
    first = shards / "shard-00000.h5"
    kill_when(project, first, "--force", "--single-item", "extract@train")
    assert not (shards / "rejects.csv").exists(), "killed too late to show anything"
    kept = first.stat().st_mtime_ns
    repro(project, "extract@train")
    assert first.stat().st_mtime_ns == kept, "the finished shard was made again"
    assert digests(project) == before


def test_kill_during_train_resumes_to_the_same_bytes(project):
    before = digests(project)
    run = project / "runs/tiny/iterative"
    shutil.rmtree(run)
    second = run / "pseudo_labels" / "epoch_001.h5"
    kill_when(project, second, "--force", "--single-item", "train@iterative")
    assert not (run / "model.pt").exists(), "killed too late to show anything"
    repro(project)
    assert digests(project) == before


def test_a_wrong_setting_is_one_clear_line(project):
    text = (project / "params.yaml").read_text()
    try:
        set_param(project, "training.tiny.iterate.delta_v", 1.5)
        done = subprocess.run(
            [*DVC, "repro", "train@iterative"],
            cwd=project,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        (project / "params.yaml").write_text(text)
    assert done.returncode != 0
    assert "training.tiny.iterate.delta_v" in done.stderr
    assert "1.5" in done.stderr
    assert "Traceback" not in done.stderr
