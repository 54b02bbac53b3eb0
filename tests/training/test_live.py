"""What a run shows while it trains: its loss curve, its lines, and its logs, which a resumed run writes without repeated rows."""

import csv
import json
import math
import os
import subprocess
import sys

import pytest

from pipeline.common.errors import PackageError
from pipeline.training.history import LOGGED
from pipeline.training.live import curve as curve_module
from pipeline.training.live.curve import LossCurve
from pipeline.training.live.lines import report_epoch, seconds_left
from pipeline.training.train import Execution, initialize, train
from tests.support.synthetic import make_settings, make_world

N_CLIPS, BATCH, EPOCHS = 24, 8, 2


@pytest.fixture(scope="module")
def world():
    return make_world(N_CLIPS, size=32)[0]


def interrupt(monkeypatch, *, after_epoch):
    """Stop a run once it has saved an epoch and trained the next one."""
    from pipeline.training.loop import label_training_set

    def stop(run, state, epoch):
        if epoch > after_epoch:
            raise KeyboardInterrupt
        return label_training_set(run, state, epoch)

    monkeypatch.setattr("pipeline.training.loop.label_training_set", stop)


def run_interrupted(world, project, monkeypatch, *, live):
    """Initialize and train `itr`, whose second epoch is interrupted and repeated."""
    settings, runs = make_settings(batch_size=BATCH), project / "runs/demo"
    initialize(world, runs / "initialize", settings=settings, seeds=[0], execution=Execution(live=live))

    def go_on():
        train(
            world,
            runs / "initialize",
            runs / "itr",
            method="itr",
            settings=settings,
            seeds=[0],
            execution=Execution(live=live),
        )

    with monkeypatch.context() as patch:
        interrupt(patch, after_epoch=1)
        with pytest.raises(KeyboardInterrupt):
            go_on()
    yield "interrupted"
    go_on()
    yield "finished"


class TestCurve:
    def test_every_step_is_a_point_of_a_short_run(self):
        curve = LossCurve(6)
        for loss in (3.0, 2.0, 1.0):
            curve.add(loss)
        curve.end_epoch()
        assert curve.points == [(1, 3.0), (2, 2.0), (3, 1.0)]

    def test_a_long_run_has_means_that_end_with_the_epoch(self, monkeypatch):
        monkeypatch.setattr(curve_module, "MOST_POINTS", 4)
        curve = LossCurve(10)  # points of three steps, epochs of five
        for epoch in range(2):
            for step in range(5):
                curve.add(10 * epoch + step)
            curve.end_epoch()
        assert curve.points == [(3, 1.0), (5, 3.5), (8, 11.0), (10, 13.5)]

    def test_restored_it_goes_on(self):
        whole, half = LossCurve(4), LossCurve(4)
        for loss in (4.0, 3.0):
            whole.add(loss)
            half.add(loss)
        again = LossCurve(4)
        again.restore(half.content())
        for loss in (2.0, 1.0):
            whole.add(loss)
            again.add(loss)
        assert again.points == whole.points
        with pytest.raises((KeyError, ValueError, TypeError)):
            again.restore({"curve.steps": [1, 2], "curve.losses": [1.0]})


def history(*seconds):
    start = dict.fromkeys(LOGGED, math.nan) | {"epoch": 0, "steps": 0}
    row = dict.fromkeys(LOGGED, math.nan) | {"loss": 2.31049, "mask_iou_previous": 0.87, "pairs_per_second": 1203.4}
    return [start, *(row | {"epoch": i, "steps": 100 * i, "seconds": each} for i, each in enumerate(seconds, start=1))]


class TestLines:
    def test_an_epoch_is_one_short_line(self, capsys):
        report_epoch("itr, seed 0", history(70.0, 60.0), epochs=10)
        line = "itr, seed 0: epoch 2 of 10: loss 2.31, mask IoU 0.870, 1203 clips/s, took 01:00, 08:00 left\n"
        assert capsys.readouterr().err == line

    def test_what_is_unknown_or_over_is_left_out(self, capsys):
        rows = history(60.0)
        rows[-1]["mask_iou_previous"] = math.nan
        report_epoch("initialize, seed 0", rows, epochs=1)
        assert capsys.readouterr().err == "initialize, seed 0: epoch 1 of 1: loss 2.31, 1203 clips/s, took 01:00\n"
        assert seconds_left(rows[:1], epochs=1) == 0

    def test_a_piped_run_prints_its_length_and_each_epoch_and_no_bar(self, world, tmp_path, capsys):
        initialize(world, tmp_path / "run", settings=make_settings(batch_size=BATCH), seeds=[0])
        lines = capsys.readouterr().err.splitlines()
        assert lines[0] == f"initialize, seed 0: training {EPOCHS} epochs of 3 steps, {BATCH} clips each"
        assert [line.split(":")[1] for line in lines[1:]] == [" epoch 1 of 2", " epoch 2 of 2"]

    def test_lines_of_several_processes_do_not_mix(self):
        script = (
            "import sys; from pipeline.common.console import report\nfor _ in range(200): report(sys.argv[1] * 300)"
        )
        read, write = os.pipe()
        # Unbuffered: every write is a system call.
        both = [subprocess.Popen([sys.executable, "-u", "-c", script, name], stderr=write) for name in "ab"]
        os.close(write)
        with open(read) as lines:
            assert sorted(lines) == ["a" * 300 + "\n"] * 200 + ["b" * 300 + "\n"] * 200
        assert [each.wait() for each in both] == [0, 0]


def tsv(project, run, column):
    with open(project / f"live/runs/demo/{run}/plots/metrics/{column}.tsv", newline="") as file:
        return [(int(row["step"]), float(row[column])) for row in csv.DictReader(file, delimiter="\t")]


def losses(project, run):
    with open(project / f"runs/demo/{run}/history.csv", newline="") as file:
        return [float(row["loss"]) for row in list(csv.DictReader(file))[1:]]


class TestDvcLive:
    def test_a_run_that_resumes_has_every_step_once(self, world, tmp_path, monkeypatch):
        pytest.importorskip("dvclive")
        monkeypatch.setenv("DVCLIVE_RESUME", "true")  # the user's own setting must not repeat rows either
        n = N_CLIPS // BATCH
        go = run_interrupted(world, tmp_path, monkeypatch, live="dvclive")
        next(go)
        shown = json.loads((tmp_path / "live/metrics/demo/itr.json").read_text())
        assert (shown["step"], shown["epoch"], shown["learning_rate"]) == (2 * n, 2, 0.001)
        assert shown["clips_per_second"] > 0
        assert len(tsv(tmp_path, "itr", "loss")) == 2 * n
        assert len(tsv(tmp_path, "itr", "mask_iou_previous")) == 1
        next(go)
        rows = tsv(tmp_path, "itr", "loss")
        assert [step for step, _ in rows] == list(range(1, 2 * n + 1))
        for epoch, loss in enumerate(losses(tmp_path, "itr")):
            mean = sum(value for _, value in rows[epoch * n : (epoch + 1) * n]) / n
            assert mean == pytest.approx(loss, rel=1e-5)
        assert [step for step, _ in tsv(tmp_path, "itr", "mask_iou_previous")] == [n, 2 * n]
        # A finished run leaves its plots, and no columns in `dvc exp show`.
        assert not list(tmp_path.glob("live/metrics/demo/*.json"))

    def test_seeds_have_their_own_files(self, world, tmp_path):
        pytest.importorskip("dvclive")
        settings = make_settings(batch_size=BATCH)
        initialize(
            world,
            tmp_path / "runs/demo/initialize",
            settings=settings,
            seeds=[0, 3],
            execution=Execution(n_parallel=2, live="auto"),
        )
        first, second = (tsv(tmp_path, run, "loss") for run in ("initialize", "initialize-seed_3"))
        assert [step for step, _ in first] == [step for step, _ in second]
        assert first != second

    def test_a_repository_without_a_commit_trains_without_a_log(self, world, tmp_path, monkeypatch, capsys):
        pytest.importorskip("dvclive")
        monkeypatch.chdir(tmp_path)
        for command in (["git", "init", "--quiet"], [sys.executable, "-m", "dvc", "init", "--quiet"]):
            subprocess.run(command, check=True)
        settings = make_settings(batch_size=BATCH)
        initialize(
            world, tmp_path / "runs/demo/initialize", settings=settings, seeds=[0], execution=Execution(live="auto")
        )
        assert "no log for DVC" in capsys.readouterr().err
        assert (tmp_path / "runs/demo/initialize/model.pt").is_file()

    @pytest.mark.parametrize(("folder", "live"), [("runs/demo/initialize", "off"), ("elsewhere", "dvclive")])
    def test_no_log(self, world, tmp_path, folder, live):
        initialize(
            world,
            tmp_path / folder,
            settings=make_settings(batch_size=BATCH),
            seeds=[0],
            execution=Execution(live=live),
        )
        assert not list(tmp_path.rglob("live"))

    @pytest.mark.parametrize(("live", "extra"), [("dvclive", "live"), ("tensorboard", "tensorboard")])
    def test_a_missing_package_is_named(self, world, tmp_path, monkeypatch, live, extra):
        monkeypatch.setitem(sys.modules, "dvclive", None)
        monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
        with pytest.raises(PackageError, match=rf"{live}.*\[{extra}\]"):
            initialize(
                world,
                tmp_path / "runs/demo/initialize",
                settings=make_settings(),
                seeds=[0],
                execution=Execution(live=live),
            )
        initialize(
            world,
            tmp_path / "runs/demo/initialize",
            settings=make_settings(),
            seeds=[0],
            execution=Execution(live="auto"),
        )

    def test_a_log_changes_no_file_of_the_run(self, world, tmp_path):
        pytest.importorskip("dvclive")
        settings = make_settings(batch_size=BATCH)
        for project, live in (("with", "dvclive"), ("without", "off")):
            initialize(
                world,
                tmp_path / project / "runs/demo/initialize",
                settings=settings,
                seeds=[0],
                execution=Execution(live=live),
            )
        files = [
            {path.name: path.read_bytes() for path in (tmp_path / project / "runs").rglob("*") if path.is_file()}
            for project in ("with", "without")
        ]
        assert all(each.pop("timings.csv") for each in files)
        assert files[0] == files[1]


class TestTensorBoard:
    def test_a_run_that_resumes_has_every_step_once(self, world, tmp_path, monkeypatch):
        accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
        for _ in run_interrupted(world, tmp_path, monkeypatch, live="tensorboard"):
            pass
        events = accumulator.EventAccumulator(str(tmp_path / "live/tensorboard/demo/itr"))
        events.Reload()
        n = N_CLIPS // BATCH
        assert [event.step for event in events.Scalars("loss")] == list(range(1, 2 * n + 1))
        assert [event.step for event in events.Scalars("epoch/loss")] == [n, 2 * n]
        assert [event.value for event in events.Scalars("epoch/loss")] == pytest.approx(
            losses(tmp_path, "itr"), rel=1e-5
        )
