"""Tasks on Dask: results, errors, and no process left behind however the run ends."""

import errno
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from distributed import LocalCluster

from pipeline.common.cluster import _Queue, run_tasks
from pipeline.common.errors import ClusterError, ExtractionError
from pipeline.common.files import storing

SLEEPERS = """
import sys, time
from pathlib import Path
from pipeline.common.cluster import run_tasks

def sleep(marker):
    Path(marker).touch()
    time.sleep(60)

if __name__ == "__main__":
    tasks = [(f"{sys.argv[1]}/{n}.started",) for n in range(4)]
    for _ in run_tasks(sleep, tasks, scheduler=None, workers=2, label="sleep"):
        pass
"""

INTERRUPTED = """
import os, signal, socket, sys, threading, time
import click, psutil
from pipeline.common.console import run_command

def interrupt(*_):
    os.killpg(0, signal.SIGINT)

def when_a_worker_starts():
    while not any("spawn_main" in word for child in psutil.Process().children() for word in child.cmdline()):
        time.sleep(0.001)
    interrupt()

def work(number):
    return number

@click.command()
def main():
    from pipeline.common import cluster

    scheduler = None
    if sys.argv[1] == "start":
        threading.Thread(target=when_a_worker_starts, daemon=True).start()
    if sys.argv[1] == "connect":  # to a scheduler that does not answer
        server = socket.create_server(("127.0.0.1", 0))
        scheduler = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        threading.Timer(1, interrupt).start()
    if sys.argv[1] == "stop":
        close = cluster.LocalCluster.close

        def close_interrupted(*arguments, **options):
            cluster.LocalCluster.close = close  # called again as the program ends
            interrupt()
            return close(*arguments, **options)

        cluster.LocalCluster.close = close_interrupted
    for _ in cluster.run_tasks(work, [(1,), (2,)], scheduler=scheduler, workers=2, label="work"):
        pass
    print("finished")

if __name__ == "__main__":
    run_command(main, [])
"""


def threads_and_folder(number: int) -> tuple[int, str | None, str]:
    return number, os.environ.get("OMP_NUM_THREADS"), os.getcwd()


def variables_of_memory(number: int) -> list[str]:
    return [name for name in os.environ if name.startswith("MALLOC")]


def die(number: int) -> int:
    if number == 2:
        os._exit(1)
    time.sleep(0.2)
    return number


def test_every_task_gives_its_result_from_a_process_of_one_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setattr("pipeline.common.cluster.progress_disabled", lambda: False)  # as on a terminal

    results = dict(run_tasks(threads_and_folder, [(n,) for n in range(5)], scheduler=None, workers=2, label="count up"))

    assert results == {n: (n, "1", str(tmp_path)) for n in range(5)}
    assert list(tmp_path.iterdir()) == []
    out, err = capfd.readouterr()
    assert out == ""
    assert err.strip().splitlines()[-1].split("\r")[-1].startswith("count up: 100%")


@pytest.mark.parametrize("ends", ["normally", "with an error"])
def test_variables_of_the_workers_do_not_stay_in_this_process(monkeypatch: pytest.MonkeyPatch, ends: str) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    monkeypatch.setenv("SOUNDSPOT_TEST", "before")
    before = dict(os.environ)

    results = run_tasks(variables_of_memory, [(1,), (2,)], scheduler=None, workers=1, label="work")
    try:
        for _, variables in results:
            # With Dask's default, 65536, later child processes would train at two thirds of the speed, and so would these workers.
            assert variables == []
            assert os.environ["OMP_NUM_THREADS"] == "1"  # set for the workers, as long as they live
            if ends == "with an error":
                raise KeyError
    except KeyError:
        results.close()  # type: ignore[attr-defined]

    assert dict(os.environ) == before


def test_no_bar_is_drawn_into_a_file(capfd: pytest.CaptureFixture[str]) -> None:
    assert list(run_tasks(divmod, [(7, 2)], scheduler=None, workers=1, label="count up")) == [(0, (3, 1))]
    assert capfd.readouterr() == ("", "")


def test_no_tasks_need_no_cluster() -> None:
    assert list(run_tasks(divmod, [], scheduler="tcp://127.0.0.1:1", workers=None, label="nothing")) == []


def test_an_error_of_a_task_comes_through() -> None:
    with pytest.raises(ZeroDivisionError):
        list(run_tasks(divmod, [(1, 1), (1, 0)], scheduler=None, workers=1, label="divide"))


def test_a_task_that_kills_its_worker_is_named() -> None:
    with pytest.raises(ClusterError, match=r"deadly: .*task 2 ") as caught:
        list(run_tasks(die, [(n,) for n in range(4)], scheduler=None, workers=2, label="deadly"))

    assert caught.value.task == 2


def test_a_scheduler_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.common.cluster._CONNECT_TIMEOUT_S", 1)
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", "tcp://127.0.0.1:1")

    for address in ("foo", "tcp://foo", "tcp://foo:bar"):
        with pytest.raises(ClusterError, match=rf"'{address}' \((missing port|invalid literal)"):
            list(run_tasks(pow, [(2, 3)], scheduler=address, workers=None, label="t"))
    with pytest.raises(ClusterError, match=r"'tcp://127.0.0.1:1'.*--scheduler"):
        list(run_tasks(divmod, [(1, 1)], scheduler=None, workers=None, label="divide"))


def test_a_given_scheduler_is_used() -> None:
    with LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, protocol="tcp://", dashboard_address=None
    ) as cluster:
        results = dict(
            run_tasks(divmod, [(7, 2), (9, 3)], scheduler=cluster.scheduler_address, workers=None, label="divide")
        )

    assert results == {0: (3, 1), 1: (3, 0)}


def test_workers_are_at_least_one() -> None:
    with pytest.raises(ClusterError, match="divide: 0 workers"):
        list(run_tasks(divmod, [(1, 1)], scheduler=None, workers=0, label="divide"))


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_an_interrupted_run(tmp_path: Path, kind: signal.Signals) -> None:
    script = tmp_path / "sleepers.py"
    script.write_text(SLEEPERS)
    with subprocess.Popen(
        [sys.executable, script, tmp_path],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A test run in the background of a shell would hand down that Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        workers = wait_for_workers(process.pid, tmp_path)
        # Ctrl-C reaches the whole group, kill -9 its one target.
        (os.killpg if kind == signal.SIGINT else os.kill)(process.pid, kind)
        _, err = process.communicate(timeout=60)

    assert process.returncode == -kind
    assert psutil.wait_procs(workers, timeout=60)[1] == []
    assert err.count("KeyboardInterrupt") == (kind == signal.SIGINT)


@pytest.mark.parametrize("moment", ["start", "connect", "stop"])
def test_ctrl_c_while_dask_starts_or_stops_is_one_line(tmp_path: Path, moment: str) -> None:
    script, scratch = tmp_path / "script.py", tmp_path / "scratch"
    script.write_text(INTERRUPTED)
    scratch.mkdir()
    done = subprocess.run(
        [sys.executable, script, moment],
        env=os.environ | {"TMPDIR": str(scratch)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert (done.returncode, done.stdout, done.stderr.strip()) == (130, "", "interrupted")
    assert [each for each in psutil.process_iter(["cmdline"]) if str(script) in (each.info["cmdline"] or [])] == []
    assert list(scratch.iterdir()) == []


def wait_for_workers(pid: int, folder: Path) -> list[psutil.Process]:
    """Wait until both worker processes run a task, and return all child processes of the run."""
    for _ in range(600):
        time.sleep(0.1)
        if len(list(folder.glob("*.started"))) == 2:
            return psutil.Process(pid).children(recursive=True)
    raise AssertionError("no workers")


def fail_at_first(folder: Path, number: int, n_failures: int, code: int) -> int:
    """Fail as a network drive does, the first times that a task runs."""
    tries = len(list(folder.glob(f"{number}-*")))
    (folder / f"{number}-{tries}").touch()
    if number == 1 and tries < n_failures:
        raise OSError(code, os.strerror(code), str(folder))
    return number


def fail_as_a_library(folder: Path) -> None:
    (folder / str(len(list(folder.iterdir())))).touch()
    with storing(folder, ExtractionError):
        raise OSError(errno.ESTALE, "stale file handle")


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.common.cluster._RETRY_AFTER_S", (0.01, 0.01))


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    with LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, protocol="tcp://", dashboard_address=None
    ) as cluster:
        yield cluster.scheduler_address


@pytest.mark.usefixtures("short_pauses")
def test_an_error_that_passes_is_tried_again(tmp_path: Path, scheduler: str) -> None:
    tasks = [(tmp_path, n, 2, errno.ESTALE) for n in range(5)]

    results = dict(run_tasks(fail_at_first, tasks, scheduler=scheduler, workers=None, label="t"))

    assert results == {n: n for n in range(5)}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0-0", "1-0", "1-1", "1-2", "2-0", "3-0", "4-0"]


@pytest.mark.usefixtures("short_pauses")
@pytest.mark.parametrize(("code", "n_tries"), [(errno.EIO, 3), (errno.ENOSPC, 1), (errno.EACCES, 1)])
def test_an_error_that_stays_comes_through(tmp_path: Path, scheduler: str, code: int, n_tries: int) -> None:
    with pytest.raises(OSError) as caught:
        list(run_tasks(fail_at_first, [(tmp_path, 1, 9, code)], scheduler=scheduler, workers=None, label="t"))

    assert caught.value.errno == code
    assert len(list(tmp_path.iterdir())) == n_tries


@pytest.mark.usefixtures("short_pauses")
def test_an_error_of_the_library_keeps_its_cause(tmp_path: Path, scheduler: str) -> None:
    with pytest.raises(ExtractionError, match="cannot be written"):
        list(run_tasks(fail_as_a_library, [(tmp_path,)], scheduler=scheduler, workers=None, label="t"))

    assert len(list(tmp_path.iterdir())) == 3
    error = pickle.loads(pickle.dumps(stale()))
    assert (str(error), error.errno) == (str(stale()), errno.ESTALE)


def stale() -> ExtractionError:
    error = ExtractionError("message")
    error.errno = errno.ESTALE
    return error


def test_one_task_more_than_threads_is_submitted(scheduler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    in_flight = []
    submit = _Queue._submit

    def counting(queue: _Queue, index: int, *, wait_s: float) -> None:
        submit(queue, index, wait_s=wait_s)
        in_flight.append(len(queue.index_of))

    monkeypatch.setattr(_Queue, "_submit", counting)

    assert len(list(run_tasks(divmod, [(n, 2) for n in range(9)], scheduler=scheduler, workers=None, label="t"))) == 9
    assert max(in_flight) == 3
