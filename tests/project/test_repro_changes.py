"""A change reruns the stages that it concerns and no others, and a stage that is forced gives the same bytes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import pytest
import yaml

from tests.support.prepared_project import TEST
from tests.support.projects import DVC, digests, environment, repro, set_param

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # the first test may wait for the prepared project


def test_a_single_stage_reruns_alone_and_gives_the_same_bytes(project, monkeypatch):
    before = digests(project)
    shutil.rmtree(project / "data/demo/shards/train")
    monkeypatch.setitem(os.environ, "SOUNDSPOT_FRESH", "1")  # otherwise the shards are restored from DVC's cache
    assert repro(project, "--force", "--single-item", "extract@demo-train") == ["extract@demo-train"]
    monkeypatch.delitem(os.environ, "SOUNDSPOT_FRESH")
    assert digests(project) == before
    assert repro(project) == []


def test_a_changed_threshold_trains_again_without_extracting(project):
    before = digests(project)
    set_param(project, "training.demo.methods.iterative", {"delta_v": 0.5})
    assert repro(project) == ["train@demo-iterative", "evaluate@demo-iterative", "report@demo"]
    after = digests(project)
    changed = {path for path in before if after[path] != before[path]}
    assert "runs/demo/iterative/model.pt" in changed
    assert all(path.startswith(("runs/demo/iterative/", "results/")) for path in changed)


def test_a_changed_list_reruns_the_stages_of_its_split_alone(project):
    clips, boxes = (project / "data_manifests/demo" / name for name in ("test.csv", "test_boxes.csv"))
    last = f"test-{TEST - 1:05d},"
    for path in (clips, boxes):
        path.write_text("".join(line for line in path.open() if not line.startswith(last)))
    # Without the report, which takes as long as the other stages together.
    ran = repro(project, "evaluate")
    # The order of stages that do not need each other is DVC's own.
    assert ran[:2] == ["prepare@demo", "extract@demo-test"]
    assert sorted(ran[2:]) == ["baselines@demo", "evaluate@demo-iterative", "features@demo-test"]
    metrics = json.loads((project / "results/demo/iterative/scores.json").read_text())
    assert metrics["n_clips"] == TEST - 1


def test_a_further_variant_and_a_dataset_without_training_clips_run_their_own_stages_alone(project):
    own, elsewhere = (project / "data_manifests" / name for name in ("demo", "elsewhere"))
    elsewhere.mkdir()
    for name in ("test.csv", "test_boxes.csv"):
        shutil.copy(own / name, elsewhere)
    card = yaml.safe_load((own / "dataset.yaml").read_text())
    del card["render"]
    (elsewhere / "dataset.yaml").write_text(yaml.safe_dump(card))
    set_param(project, "variants", ["initial", "iterative"])
    set_param(project, "cross_datasets", ["elsewhere"])

    ran = repro(project)

    of_variant = {"train@demo-initial", "evaluate@demo-initial", "report@demo"}
    of_dataset = {"prepare_cross@elsewhere", "extract_cross@elsewhere-test", "baselines_cross@demo-elsewhere"}
    of_both = {f"evaluate_cross@demo-elsewhere-{variant}" for variant in ("initial", "iterative")}
    assert set(ran) == of_variant | of_dataset | of_both
    results = project / "results" / "demo"
    for variant in ("initial", "iterative"):
        own_scores, scores = (
            json.loads((folder / variant / "scores.json").read_text()) for folder in (results, results / "on/elsewhere")
        )
        assert scores == own_scores  # the same clips under another name


def test_a_wrong_setting_is_one_clear_line(project):
    set_param(project, "training.demo.iterate.delta_v", 1.5)
    done = subprocess.run(
        [*DVC, "repro", "train@demo-iterative"],
        cwd=project,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "training.demo.iterate.delta_v" in done.stderr
    assert "1.5" in done.stderr
    assert "Traceback" not in done.stderr
