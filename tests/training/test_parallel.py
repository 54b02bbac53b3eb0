"""Training in parallel processes: their share of the cores, and what happens when one or all of them are stopped."""

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

from pipeline.common.console import report
from pipeline.common.errors import TrainingError
from pipeline.training.parallel import run_in_parallel
from pipeline.training.train import Execution, initialize
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
    report("asleep")
    note(path)
    time.sleep(3600)  # longer than any test may take, so that no test can pass by waiting


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "timed out"
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


def test_each_task_has_a_process_and_its_share_of_the_threads(tmp_path, threads):
    threads(5)
    paths = [tmp_path / str(i) for i in range(3)]
    run_in_parallel([partial(note, path) for path in paths], n_parallel=2)
    assert {tuple(path.read_text().split()[1:]) for path in paths} == {("2", "1")}
    assert os.getpid() not in map(pid_of, paths)
    threads(1)
    run_in_parallel([partial(note, paths[0])], n_parallel=3)
    assert paths[0].read_text().split()[1] == "1"


def test_no_tasks_start_no_process():
    before = multiprocessing.active_children()
    run_in_parallel([], n_parallel=2)
    assert multiprocessing.active_children() == before


def test_the_first_error_stops_the_others(tmp_path):
    path, later = tmp_path / "sleeper", tmp_path / "later"
    with pytest.raises(TrainingError, match="the loss is nan"):
        run_in_parallel([partial(sleep, path), partial(fail, path), partial(sleep, later)], n_parallel=2)
    assert is_gone(pid_of(path))
    assert not later.exists() or is_gone(pid_of(later))


@pytest.mark.timeout(120)
@pytest.mark.parametrize("seconds", [0, 0.5])
def test_a_process_that_is_killed_is_an_error_with_advice(tmp_path, monkeypatch, seconds):
    """Immediately, even if the last process starts after the pool has updated the list of processes that it watches."""
    start = ProcessPoolExecutor._adjust_process_count

    def start_late(pool):
        time.sleep(seconds)
        start(pool)

    monkeypatch.setattr(ProcessPoolExecutor, "_adjust_process_count", start_late)
    path = tmp_path / "sleeper"
    with pytest.raises(TrainingError, match=r"terminated.*\(2 run in parallel.*SOUNDSPOT_SEEDS_AT_ONCE"):
        run_in_parallel([partial(sleep, path), partial(die, path)], n_parallel=2)
    wait_for(lambda: is_gone(pid_of(path)))


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_all_processes_exit_with_their_parent(tmp_path, sent):
    paths = [tmp_path / "a", tmp_path / "b"]
    program = tmp_path / "parent.py"
    program.write_text(
        "import sys\nfrom functools import partial\nfrom pathlib import Path\n"
        "from pipeline.training.parallel import run_in_parallel\nfrom tests.training.test_parallel import sleep\n"
        "if __name__ == '__main__':\n"
        "    run_in_parallel([partial(sleep, Path(path)) for path in sys.argv[1:]], n_parallel=2)\n"
    )
    with subprocess.Popen(
        [sys.executable, program, *paths],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell makes background processes ignore SIGINT, and children inherit this.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as parent:
        wait_for(lambda: all(path.is_file() for path in paths))
        if sent == signal.SIGINT:
            os.killpg(parent.pid, sent)  # like Ctrl-C in a terminal
        else:
            parent.send_signal(sent)
        _, errors = parent.communicate(timeout=120)
        assert parent.returncode != 0
        # The parent may print a traceback, the workers must not.
        assert errors.count("Traceback") <= 1
        # A parent that is killed cannot clean up itself.
        assert sent == signal.SIGKILL or "leaked" not in errors
    wait_for(lambda: all(is_gone(pid_of(path)) for path in paths), 20)


def test_seeds_in_parallel_give_the_same_bytes_as_one_after_another(tmp_path, threads):
    world, settings, seeds = make_world(24)[0], make_settings(), [0, 3, 4]
    threads(1)
    initialize(world, tmp_path / "apart", settings=settings, seeds=seeds, device="cpu")
    initialize(
        world, tmp_path / "together", settings=settings, seeds=seeds, device="cpu", execution=Execution(n_parallel=3)
    )
    assert digests(tmp_path / "together") == digests(tmp_path / "apart")
    # A missing run is trained again; finished runs are kept.
    model = tmp_path / "together" / "seed_3" / "model.pt"
    kept = (tmp_path / "together" / "model.pt").stat().st_mtime_ns
    model.unlink()
    initialize(
        world, tmp_path / "together", settings=settings, seeds=seeds, device="cpu", execution=Execution(n_parallel=3)
    )
    assert digests(tmp_path / "together") == digests(tmp_path / "apart")
    assert (tmp_path / "together" / "model.pt").stat().st_mtime_ns == kept
