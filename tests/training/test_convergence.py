"""`until_converged`: when a run ends early, what it leaves, and that it resumes and repeats like any other run."""

import hashlib
import math

import numpy as np
import pytest

from pipeline.apps.inspection.verify import verify_artifacts
from pipeline.apps.inspection.views import find_artifacts
from pipeline.common.config import Convergence, IterationSettings
from pipeline.common.errors import SettingsError
from pipeline.methods.build import method_settings
from pipeline.methods.registry import METHODS
from pipeline.pseudo_labels.artifact import PseudoLabels
from pipeline.training.checkpoints import load_model
from pipeline.training.history import converged, read_history
from pipeline.training.train import initialize, train
from tests.support.synthetic import make_settings, make_world

# Masks of neighboring epochs always overlap a little, so these runs end after two of their four epochs.
RULE = {"mask_iou": 1e-6, "patience": 2}
EPOCHS, KEPT = 4, 5
SEEDS = [0]


@pytest.fixture(scope="module")
def world():
    return make_world(24, size=32)[0]


def changed(**values):
    settings = make_settings()
    iterate = settings.iterate.model_dump() | {"epochs": EPOCHS, "keep_epochs": KEPT} | values
    return settings.model_copy(update={"iterate": IterationSettings(**iterate)})


@pytest.fixture(scope="module")
def initial(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "initialize"
    initialize(world, folder, settings=changed(), seeds=SEEDS, device="cpu")
    return folder


def run(world, initial, folder, *, method="itr", **values):
    train(world, initial, folder, method=method, settings=changed(**values), seeds=SEEDS, device="cpu")
    return folder


@pytest.fixture(scope="module")
def ended(world, initial, tmp_path_factory):
    return run(world, initial, tmp_path_factory.mktemp("runs") / "ended", until_converged=RULE)


def digests(folder):
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != "timings.csv"]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


class TestRule:
    @pytest.mark.parametrize(
        ("overlaps", "ends"),
        [
            ([], False),
            ([0.96], False),
            ([0.96, 0.94], False),
            ([0.94, 0.96], False),
            ([0.96, 0.95], True),
            ([0.5, 0.95, 0.99], True),
            ([0.99, 0.99, 0.5], False),
            ([math.nan, 0.99], False),
        ],
    )
    def test_the_last_epochs_count(self, overlaps, ends):
        rows = [{"mask_iou_previous": each} for each in (math.nan, *overlaps)]
        assert converged(rows, Convergence(mask_iou=0.95, patience=2)) is ends
        assert not converged([], Convergence(mask_iou=0.95, patience=2))

    @pytest.mark.parametrize(
        "wrong",
        [{"mask_iou": 0.95}, {"mask_iou": 0, "patience": 1}, {"mask_iou": 1.1, "patience": 1}, {**RULE, "patience": 0}],
    )
    def test_out_of_range(self, wrong):
        with pytest.raises(ValueError, match="until_converged"):
            changed(until_converged=wrong)

    def test_not_while_delta_v_moves(self):
        with pytest.raises(ValueError, match=r"until_converged.*delta_v_start"):
            changed(until_converged=RULE, delta_v_start=0.9)

    def test_only_methods_that_iterate_on_their_maps_read_it(self):
        settings = changed(until_converged=RULE)
        settings = settings.model_copy(update={"methods": {name: {} for name in METHODS}})
        reads = {name for name in METHODS if method_settings(settings, name).until_converged}
        assert reads == {"itr", "itr_intra", "itr_inter", "iterative"}
        own = settings.model_copy(update={"methods": {"initial": {"until_converged": RULE}}})
        with pytest.raises(SettingsError, match="initial does not read until_converged"):
            method_settings(own, "initial")

    def test_without_it_files_do_not_name_it(self):
        assert "until_converged" not in changed().iterate.model_dump()


class TestRun:
    def test_the_epochs_are_those_of_a_run_without_it(self, world, initial, ended, tmp_path):
        whole = run(world, initial, tmp_path / "whole")
        rows, all_rows = read_history(ended / "history.csv"), read_history(whole / "history.csv")
        assert len(rows) == 3
        assert len(all_rows) == EPOCHS + 1
        np.testing.assert_equal(rows, all_rows[:3])
        for epoch in range(3):
            one, other = (PseudoLabels.open(each / f"pseudo_labels/epoch_{epoch:03d}.h5") for each in (ended, whole))
            np.testing.assert_array_equal(one.response, other.response)
        model, same = load_model(ended / "model.pt"), load_model(whole / "weights/epoch_002.pt")
        assert model.description["epoch"] == 2
        for value, expected in zip(
            model.encoders.state_dict().values(), same.encoders.state_dict().values(), strict=True
        ):
            assert value.equal(expected)

    def test_it_leaves_the_files_of_its_own_epochs(self, world, initial, ended, capsys):
        assert sorted(each for each in digests(ended) if "/" in each) == [
            *(f"pseudo_labels/epoch_00{epoch}.h5" for epoch in range(3)),
            *(f"weights/epoch_00{epoch}.pt" for epoch in range(2)),
        ]
        assert verify_artifacts(find_artifacts(ended), shards=world).n_problems == 0
        before = digests(ended)
        run(world, initial, ended, until_converged=RULE)
        assert "finished and unchanged" in capsys.readouterr().err
        assert digests(ended) == before

    def test_it_says_that_it_converged_once(self, world, initial, tmp_path, capsys):
        run(world, initial, tmp_path / "run", until_converged=RULE)
        lines = capsys.readouterr().err.splitlines()
        assert lines[0] == "itr, seed 0: training up to 4 epochs of 3 steps, 8 clips each"
        (line,) = (each for each in lines if "converged" in each)
        assert line.startswith("itr, seed 0: converged after epoch 2: mask IoU 0.")

    @pytest.mark.parametrize("where", ["loop.save", "loop.finish"])
    def test_a_run_that_is_interrupted_ends_with_the_same_bytes(
        self, world, initial, ended, tmp_path, monkeypatch, where
    ):
        """Before the state of the last epoch is written, and between that and the end."""
        calls = []
        real = getattr(__import__("pipeline.training.loop", fromlist=["loop"]), where.split(".")[1])

        def stop(*arguments):
            calls.append(arguments)
            if where == "loop.finish" or len(calls) == 2:
                raise KeyboardInterrupt
            return real(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(f"pipeline.training.{where}", stop)
            with pytest.raises(KeyboardInterrupt):
                run(world, initial, tmp_path / "run", until_converged=RULE)
        assert (tmp_path / "run/state.pt").exists()
        if where == "loop.finish":
            monkeypatch.setattr("pipeline.training.loop.train_epoch", lambda *_: pytest.fail("an epoch too many"))
        run(world, initial, tmp_path / "run", until_converged=RULE)
        assert digests(tmp_path / "run") == digests(ended)

    def test_another_rule_trains_from_scratch(self, world, initial, tmp_path, capsys):
        folder = run(world, initial, tmp_path / "run", until_converged=RULE)
        run(world, initial, folder, until_converged={"mask_iou": 1.0, "patience": 1})
        assert "its settings" in capsys.readouterr().err
        assert len(read_history(folder / "history.csv")) == EPOCHS + 1  # masks never stand still
