"""`dvc repro` from nothing to the report: every artifact is there, and a second run does nothing."""

from __future__ import annotations

import csv
import json

import h5py
import pytest

from tests.support.prepared_project import EPOCHS, N_SHARDS, TEST, TRAIN
from tests.support.projects import repro

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # the first test may wait for the prepared project


def test_every_artifact_is_there(prepared):
    clips = list(csv.DictReader((prepared / "data/demo/clips.csv").open()))
    assert {clip["split"] for clip in clips} == {"train", "validation", "test"}
    shards = sorted((prepared / "data/demo/shards/train").glob("*.h5"))
    assert [path.name for path in shards] == [f"shard-0000{n}.h5" for n in range(N_SHARDS)]

    artifacts = sorted((prepared / "runs/demo/iterative/pseudo_labels").iterdir())
    assert [path.name for path in artifacts] == [f"epoch_00{n}.h5" for n in range(EPOCHS + 1)]
    with h5py.File(artifacts[-1]) as file:
        assert file["clip_id"].shape == (TRAIN,)
        assert file.attrs["epoch"] == EPOCHS

    results = prepared / "results/demo"
    metrics = json.loads((results / "iterative/scores.json").read_text())
    assert metrics["n_clips"] == TEST
    assert 0 <= metrics["success_rate_low"] <= metrics["success_rate"] <= metrics["success_rate_high"] <= 1
    baselines = json.loads((results / "baselines.json").read_text())
    assert {"random", "all_ones", "centered_gaussian"} <= set(baselines)
    assert "iterative (Eq. 7)" in (results / "report/table.md").read_text()


def test_a_second_run_does_nothing(project):
    assert repro(project) == []
