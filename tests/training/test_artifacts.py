"""Artifacts of a run in the order of epochs, and the setting `center_audio` of its model."""

from __future__ import annotations

import pytest

from pipeline.common.errors import CheckpointError, EvaluationError
from pipeline.common.project import labels_path
from pipeline.common.record import write_record
from pipeline.training.artifacts import artifact_paths, centers_audio, labels_by_epoch
from pipeline.training.checkpoints import write_checkpoint
from tests.support.labeled_runs import make_run


def test_artifacts_are_sorted_by_number(tmp_path):
    folder = tmp_path / "pseudo_labels"
    folder.mkdir()
    for name in ("epoch_1000.h5", "epoch_101.h5", "epoch_000.h5", "epoch_001.h5.tmp", "start_001.h5", "epoch_x.h5"):
        (folder / name).touch()
    assert list(labels_by_epoch(tmp_path)) == [0, 101, 1000]
    assert [path.name for path in artifact_paths(tmp_path)] == ["epoch_000.h5", "epoch_101.h5", "epoch_1000.h5"]


def test_an_artifact_that_the_finished_run_recorded_may_not_be_missing(tmp_path):
    run = make_run(tmp_path / "itr")
    write_record(run, code="", files={f"pseudo_labels/epoch_00{epoch}.h5": "" for epoch in range(3)} | {"model.pt": ""})
    assert len(artifact_paths(run)) == 3
    labels_path(run, 1).unlink()
    with pytest.raises(EvaluationError, match=r"epoch_001\.h5.*repro train`"):
        artifact_paths(run)


def test_a_run_without_artifacts_names_the_variant_and_not_the_seed(tmp_path):
    with pytest.raises(EvaluationError, match=r"itr/seed_4/pseudo_labels.*train@demo-itr`"):
        artifact_paths(tmp_path / "runs/demo/itr/seed_4")


@pytest.mark.parametrize("center", [True, False])
def test_centering_is_read_from_the_model(tmp_path, center):
    assert centers_audio(make_run(tmp_path / "run", center_audio=center)) is center


def test_a_missing_or_damaged_model_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"model\.pt: no such file"):
        centers_audio(tmp_path)
    (tmp_path / "model.pt").write_bytes(b"no model")
    with pytest.raises(CheckpointError, match=r"model\.pt: no readable setting"):
        centers_audio(tmp_path)
    write_checkpoint(tmp_path / "model.pt", {"iteration": "{}"})
    with pytest.raises(CheckpointError, match=r"model\.pt.*center_audio"):
        centers_audio(tmp_path)
