"""A stage that is killed resumes and ends in the same bytes as one that is not."""

from __future__ import annotations

import shutil

import pytest

from tests.support.projects import digests, kill_when, repro

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # the first test may wait for the prepared project


def test_extract_keeps_the_finished_shards(project):
    before = digests(project)
    shards = project / "data/demo/shards/train"
    shutil.rmtree(shards)
    first = shards / "shard-00000.h5"
    kill_when(project, first, "--force", "--single-item", "extract@demo-train")
    assert not (shards / "shards.json").exists(), "killed too late to show anything"
    kept = first.stat().st_mtime_ns

    repro(project, "extract@demo-train")

    assert first.stat().st_mtime_ns == kept, "the finished shard was made again"
    assert digests(project) == before


def test_train_resumes_after_the_finished_epochs(project):
    before = digests(project)
    run = project / "runs/demo/iterative"
    shutil.rmtree(run)
    kill_when(project, run / "pseudo_labels" / "epoch_001.h5", "--force", "--single-item", "train@demo-iterative")
    assert not (run / "model.pt").exists(), "killed too late to show anything"

    # Without the report, which writes none of the compared files.
    repro(project, "evaluate")

    assert digests(project) == before
