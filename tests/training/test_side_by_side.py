"""Trainings in processes of their own: their share of the cores, and what becomes of them when one of them or all is stopped."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import psutil
import pytest
import torch

from pipeline.common.errors import TrainingError
from pipeline.training.parallel import run_in_parallel
from pipeline.training.train import initialize
from tests.support.projects import ROOT
from tests.support.synthetic import make_settings, make_world
from tests.training.test_training import digests

pytestmark = pytest.mark.slow  # each process imports torch


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def note(path):
    path.with_suffix(".tmp").write_text(f"{os.getpid()} {torch.get_num_threads()} {os.environ['TQDM_DISABLE']}")
    path.with_suffix(".tmp").rename(path)


def sleep(path):
    note(path)
    time.sleep(3600)  # longer than a test may take, so that none can pass by waiting for it


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)


def fail(path):
    wait_for(path.is_file)
    raise TrainingError("the loss is nan")


def die(path):
    wait_for(path.is_file)
    os.kill(os.getpid(), signal.SIGKILL)


def pid_of(path):
    return int(path.read_text().split()[0])


def is_gone(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_each_has_a_process_and_its_share_of_the_threads(tmp_path, threads):
    threads(5)
    paths = [tmp_path / str(i) for i in range(3)]
    run_in_parallel([partial(note, path) for path in paths], at_once=2)
    assert {tuple(path.read_text().split()[1:]) for path in paths} == {("2", "1")}
    assert os.getpid() not in map(pid_of, paths)
    threads(1)
    run_in_parallel([partial(note, paths[0])], at_once=3)
    assert paths[0].read_text().split()[1] == "1"


def test_no_task_is_no_process():
    before = multiprocessing.active_children()
    run_in_parallel([], at_once=2)
    assert multiprocessing.active_children() == before


def test_the_first_error_stops_the_others(tmp_path):
    path, later = tmp_path / "sleeper", tmp_path / "later"
    with pytest.raises(TrainingError, match="the loss is nan"):
        run_in_parallel([partial(sleep, path), partial(fail, path), partial(sleep, later)], at_once=2)
    assert is_gone(pid_of(path))
    assert not later.exists() or is_gone(pid_of(later))


@pytest.mark.timeout(120)
@pytest.mark.parametrize("seconds", [0, 0.5])
def test_a_process_that_is_killed_is_an_error_with_advice(tmp_path, monkeypatch, seconds):
    """At once, also where the last process is started so late that the pool has already looked at which there are."""
    start = ProcessPoolExecutor._adjust_process_count

    def start_late(pool):
        time.sleep(seconds)
        start(pool)

    monkeypatch.setattr(ProcessPoolExecutor, "_adjust_process_count", start_late)
    path = tmp_path / "sleeper"
    with pytest.raises(
        TrainingError, match=r"a training process ended before its time.*\(2 run at once; set SOUNDSPOT"
    ):
        run_in_parallel([partial(sleep, path), partial(die, path)], at_once=2)
    wait_for(lambda: is_gone(pid_of(path)))


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_all_end_with_the_first_process(tmp_path, sent):
    paths = [tmp_path / "a", tmp_path / "b"]
    program = tmp_path / "parent.py"
    program.write_text(
        "import sys\nfrom functools import partial\nfrom pathlib import Path\n"
        "from pipeline.training.parallel import run_in_parallel\nfrom tests.training.test_side_by_side import sleep\n"
        "if __name__ == '__main__':\n"
        "    run_in_parallel([partial(sleep, Path(path)) for path in sys.argv[1:]], at_once=2)\n"
    )
    with subprocess.Popen(
        [sys.executable, program, *paths],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A process that a shell started in the background ignores it, and so do its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as parent:
        wait_for(lambda: all(path.is_file() for path in paths))
        if sent == signal.SIGINT:
            os.killpg(parent.pid, sent)  # as a terminal does
        else:
            parent.send_signal(sent)
        _, told = parent.communicate(timeout=120)
        assert parent.returncode != 0
        # Its own traceback, and none of the others.
        assert told.count("Traceback") <= 1
    wait_for(lambda: all(is_gone(pid_of(path)) for path in paths), 20)


def test_seeds_side_by_side_end_in_the_same_bytes_as_one_after_the_other(tmp_path, threads):
    world, settings, seeds = make_world(24)[0], make_settings(), [0, 3, 4]
    threads(1)
    initialize(world, tmp_path / "apart", settings=settings, seeds=seeds, device="cpu")
    initialize(world, tmp_path / "together", settings=settings, seeds=seeds, device="cpu", at_once=3)
    assert digests(tmp_path / "together") == digests(tmp_path / "apart")
    # What is missing is made; what is there stays.
    model = tmp_path / "together" / "seed_3" / "model.pt"
    kept = (tmp_path / "together" / "model.pt").stat().st_mtime_ns
    model.unlink()
    initialize(world, tmp_path / "together", settings=settings, seeds=seeds, device="cpu", at_once=3)
    assert digests(tmp_path / "together") == digests(tmp_path / "apart")
    assert (tmp_path / "together" / "model.pt").stat().st_mtime_ns == kept
