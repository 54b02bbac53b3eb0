"""Frozen backbones run once: from `dvc repro` to the report on stored features, and what reruns when files are lost."""

from __future__ import annotations

import json

import pytest

from pipeline.common.config import load_params
from pipeline.features.reader import FeatureSet, open_clips
from pipeline.shards.reader import ShardSet
from tests.support.feature_world import write_weights
from tests.support.prepared_project import EPOCHS, N_SHARDS, TEST, TRAIN
from tests.support.projects import digests, kill_when, repro, set_param

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # the first test may wait for the prepared project
SPLITS = ("train", "test")
ON_FEATURES = ["initialize@demo", "train@demo-iterative", "evaluate@demo-iterative", "report@demo"]


def freeze(project, side):
    backbone = getattr(load_params(project / "params.yaml").training["demo"].encoder, side)
    weights = write_weights(project / f"{side}.pth", visual=backbone, channels_in={"visual": 3, "audio": 1}[side])
    frozen = {**backbone.model_dump(mode="json"), "weights": weights.name, "trainable": "none"}
    set_param(project, f"training.demo.encoder.{side}", frozen)


def test_frozen_backbones_run_once(project):
    for split in SPLITS:  # the demo's backbone is trained
        assert [path.name for path in (project / "data/demo/features" / split).iterdir()] == [".record.json"]
    for side in ("visual", "audio"):
        freeze(project, side)
    set_param(project, "training.demo.augmentation.roll_audio", False)
    features = project / "data/demo/features"

    # Killed after its first file, the stage keeps that file and resumes.
    first = features / "train/features-00000.h5"
    kill_when(project, first, "--single-item", "features@demo-train")
    assert not (features / "train/features-00002.h5").exists(), "killed too late to show anything"
    kept = first.stat().st_mtime_ns

    assert sorted(repro(project)) == sorted([*(f"features@demo-{split}" for split in SPLITS), *ON_FEATURES])

    assert first.stat().st_mtime_ns == kept, "the finished file was made again"
    settings = load_params(project / "params.yaml").training["demo"]
    for split, n_clips, views in (("train", TRAIN, 2), ("test", TEST, 1)):
        shards = ShardSet.open(project / "data/demo/shards" / split)
        clips = open_clips(shards, features / split, settings)
        assert isinstance(clips, FeatureSet)
        assert (len(clips), clips.n_views, clips.sides) == (n_clips, views, ("visual", "audio"))
    assert len(sorted(features.glob("train/*.h5"))) == N_SHARDS
    assert len(sorted((project / "runs/demo/iterative/pseudo_labels").glob("*.h5"))) == EPOCHS + 1
    metrics = json.loads((project / "results/demo/iterative/scores.json").read_text())
    assert metrics["n_clips"] == TEST
    assert "iterative (Eq. 7)" in (project / "results/demo/report/table.md").read_text()

    # Files that are lost come back in the same bytes, and nothing else runs.
    before = digests(project)
    for name in ("train/features-00001.h5", "test/features-00000.h5"):
        (features / name).unlink()
    assert sorted(repro(project)) == [f"features@demo-{split}" for split in sorted(SPLITS)]
    assert digests(project) == before
