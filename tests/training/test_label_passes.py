"""Methods that do not learn from pseudo-labels label the training set only after the epochs that are kept."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pipeline.apps.inspection.verify import verify_artifacts
from pipeline.apps.inspection.views import find_artifacts, list_epochs
from pipeline.common.errors import EvaluationError
from pipeline.common.project import labels_path
from pipeline.methods.build import method_class
from pipeline.methods.registry import METHODS
from pipeline.report.epoch_quality import after_last_epoch, mean_over_seeds, measure_run
from pipeline.report.examples import read_epoch_maps
from pipeline.training import loop
from pipeline.training.artifacts import artifact_paths, history_by_artifact, labels_by_epoch
from pipeline.training.checkpoints import load_model
from pipeline.training.history import read_history
from pipeline.training.train import initialize, train
from tests.support.synthetic import make_settings, make_world, write_clip_list

READERS = {"dsol", "dsol_two_stage", "itr", "itr_intra", "itr_inter", "iterative"}
OTHERS = [name for name, spec in METHODS.items() if name not in READERS | {"untouched"} and not spec.trains_as]
EPOCHS = 3


@pytest.fixture(scope="module")
def world():
    return make_world(16, size=32)[0]


@pytest.fixture(scope="module")
def initial(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "initialize"
    initialize(world, folder, settings=make_settings(), seeds=[0])
    return folder


def settings_with(keep):
    return make_settings(iterate=make_settings().iterate.model_copy(update={"epochs": EPOCHS, "keep_epochs": keep}))


def run(world, initial, folder, method, *, keep):
    clips = write_clip_list(folder.parent / "clips.csv", world.clip_ids)
    train(world, initial, folder, method=method, settings=settings_with(keep), seeds=[0], clips=clips)
    return folder


def weights(folder):
    return load_model(folder / "model.pt").encoders.state_dict()


@pytest.mark.parametrize("method", METHODS)
def test_which_methods_read_labels(method):
    assert method_class(method).reads_labels == (method in READERS)


@pytest.mark.parametrize("method", OTHERS)
def test_without_labels_such_a_method_trains_to_the_same_weights(world, initial, tmp_path, method):
    few, all_ = (run(world, initial, tmp_path / f"{keep}" / method, method, keep=keep) for keep in (2, EPOCHS + 1))
    assert list(labels_by_epoch(few)) == [0, EPOCHS]
    assert list(labels_by_epoch(all_)) == list(range(EPOCHS + 1))
    expected = weights(all_)
    assert all(torch.equal(value, expected[name]) for name, value in weights(few).items())


@pytest.mark.parametrize("method", ["dsol", "iterative"])
def test_a_method_that_reads_labels_has_those_of_each_epoch(world, initial, tmp_path, method):
    assert list(labels_by_epoch(run(world, initial, tmp_path / "run", method, keep=2))) == list(range(EPOCHS + 1))


@pytest.fixture(scope="module")
def folder(world, initial, tmp_path_factory):
    return run(world, initial, tmp_path_factory.mktemp("few") / "initial", "initial", keep=3)


class TestSomeEpochs:
    """With three checkpoints: the start, epoch 2 and the last."""

    def test_labels_and_weights_are_of_the_same_epochs(self, folder):
        epochs = list(labels_by_epoch(folder))
        assert epochs == [0, 2, 3]
        assert [f"epoch_{epoch:03d}.pt" for epoch in epochs[:-1]] == sorted(
            p.name for p in (folder / "weights").iterdir()
        )

    def test_the_history_has_what_was_measured(self, folder):
        labeled = list(labels_by_epoch(folder))
        for row in read_history(folder / "history.csv")[1:]:
            epoch = row["epoch"]
            assert math.isnan(row["sounding_fraction"]) == (epoch not in labeled)
            assert math.isnan(row["positives_per_clip"]) == (epoch - 1 not in labeled)
            assert math.isnan(row["mask_iou_previous"]) == (not {epoch, epoch - 1} <= set(labeled))
            assert math.isfinite(row["loss"])

    def test_inspection_finds_all_and_misses_one(self, world, folder, initial, tmp_path):
        found = verify_artifacts(find_artifacts(folder), shards=world)
        assert (found.problems, [each.problems for each in found.artifacts]) == ([], [[], [], []])
        assert [each.epoch for each in list_epochs(find_artifacts(folder), center=False)] == list(
            labels_by_epoch(folder)
        )
        own = run(world, initial, tmp_path / "initial", "initial", keep=3)
        middle = labels_by_epoch(own)[list(labels_by_epoch(own))[1]]
        middle.unlink()
        assert str(middle) in verify_artifacts(find_artifacts(own), shards=world).problems[0]
        with pytest.raises(EvaluationError, match=middle.name):
            artifact_paths(own)
        labels_path(own, 1).write_bytes(labels_path(own, 0).read_bytes())
        assert any(
            "epoch 1 is not one" in each for each in verify_artifacts(find_artifacts(own), shards=world).problems
        )

    def test_the_report_shows_common_epochs_and_no_value_of_another_epoch(self, world, initial, folder, tmp_path):
        iterative = run(world, initial, tmp_path / "iterative", "iterative", keep=3)
        folders = {"iterative": iterative, "initial": folder}
        maps = read_epoch_maps(folders, world.clip_ids[:2])
        assert maps.epochs == list(labels_by_epoch(folder))
        assert maps.response.shape[:3] == (2, 2, 3)  # clip, method, epoch
        two = run(world, initial, tmp_path / "two" / "initial", "initial", keep=2)
        rows = measure_run(two, "initial", 0, world.clip_ids, [], None)
        # The labels of epoch 2, from which Eq. 6 would have related clips in epoch 3, do not exist.
        assert math.isnan(after_last_epoch(mean_over_seeds(rows)["initial"])["positives_per_clip"])

    @pytest.mark.parametrize("interrupted_in", [2, 3])
    def test_an_interrupted_run_resumes_to_the_same_files(
        self, world, initial, folder, tmp_path, interrupted_in, monkeypatch
    ):
        def stop(run, state, *further):
            if state.epoch + 1 == interrupted_in:
                raise KeyboardInterrupt
            return train_epoch(run, state, *further)

        train_epoch = loop.train_epoch
        with monkeypatch.context() as patch:
            patch.setattr(loop, "train_epoch", stop)
            with pytest.raises(KeyboardInterrupt):
                run(world, initial, tmp_path / "initial", "initial", keep=3)
        rows = read_history(tmp_path / "initial/history.csv")
        assert rows[-1]["epoch"] == interrupted_in - 1
        np.testing.assert_equal(history_by_artifact(tmp_path / "initial")[0], rows[0])
        run(world, initial, tmp_path / "initial", "initial", keep=3)
        names = [
            "model.pt",
            "history.csv",
            *(f"pseudo_labels/{path.name}" for path in labels_by_epoch(folder).values()),
        ]
        for name in names:
            assert (tmp_path / "initial" / name).read_bytes() == (folder / name).read_bytes()
