"""Run independent tasks on Dask: on local processes, or on a scheduler given by its address.

A task is one call of a function. Arguments and results should be small (paths, settings, counts); arrays go through files,
not through the scheduler. Local workers are processes with one thread each, so that decoders and torch do not compete for
cores. They use a temporary folder, terminate together with this process however it ends, and never see Ctrl-C.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import dask
from distributed import Client, LocalCluster, as_completed
from distributed.comm import connect
from distributed.comm.addressing import parse_address, parse_host_port
from distributed.scheduler import KilledWorker
from distributed.security import Security
from tqdm import tqdm

from pipeline.common.access import may_pass
from pipeline.common.console import is_verbose, progress_disabled
from pipeline.common.errors import ClusterError, SoundspotError
from pipeline.common.processes import interrupts_deferred, scratch_folder
from pipeline.common.text_table import printable

SCHEDULER_VARIABLE = "DASK_SCHEDULER_ADDRESS"
_CONNECT_TIMEOUT_S = 20
# Ours: a network drive that fails over comes back within a minute.
_RETRY_AFTER_S = (5, 60)
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


def run_tasks(
    function: Callable[..., Any],
    tasks: Sequence[tuple[Any, ...]],
    *,
    scheduler: str | None,
    workers: int | None,
    label: str,
) -> Iterator[tuple[int, Any]]:
    """Call ``function(*task)`` for every task, and yield results as they are completed, with a progress bar.

    Parameters
    ----------
    function : callable
        Must be importable: defined at the top level of a module.
    tasks : sequence of tuple
        The arguments of each call.
    scheduler : str or None
        Address of a Dask scheduler, such as ``tcp://host:8786``. None: the environment variable ``DASK_SCHEDULER_ADDRESS``, or
        local processes for the duration of the run if it is not set.
    workers : int or None
        Number of local processes, at least 1; None: the number of cores available to this process.
    label : str
        Name of the work, for the progress bar and messages.

    Yields
    ------
    index : int
        Position of the task in `tasks`. Results come in order of completion.
    result
        Return value of the call.

    Raises
    ------
    ClusterError
        The scheduler does not respond or has no workers, or a task killed its worker, also alone (its index is in ``.task``).
    Exception
        Any exception of a task; the remaining tasks are canceled. If the cause may pass, such as an error of a network drive
        (`pipeline.common.access.may_pass`), the task is first tried again twice, on any scheduler. So a task must be repeatable.
    """
    if not tasks:
        return
    with _client(scheduler or os.environ.get(SCHEDULER_VARIABLE), workers, len(tasks), label) as client:
        queue = _Queue(client, function, tasks)
        queue.fill()
        with tqdm(total=len(tasks), desc=printable(label), unit="task", disable=progress_disabled()) as bar:
            for future in queue.completed:
                index = queue.index_of.pop(future.key)
                try:
                    result = future.result()
                except KilledWorker:
                    if not queue.suspect(index):
                        message = f"{label}: the worker process of task {index} terminated unexpectedly, repeatedly (out of memory?)"
                        raise ClusterError(message, task=index) from None
                    queue.fill()
                    continue
                except (OSError, SoundspotError) as error:
                    if not (may_pass(error) and queue.retry(index)):
                        raise
                    continue
                queue.fill()
                bar.update()
                yield index, result


class _Queue:
    """The tasks that a client still has to run, and the few of them that are submitted."""

    def __init__(self, client: Client, function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]]) -> None:
        self.completed = as_completed(loop=client.loop)
        self.index_of: dict[Any, int] = {}
        self._client, self._function, self._tasks = client, function, tasks
        self._waiting = deque(range(len(tasks)))
        self._retries: Counter[int] = Counter()
        self._suspects: set[int] = set()

    def fill(self) -> None:
        """Submit one task per thread, and one more, so that no thread waits while this process handles a result."""
        # If a worker dies, so does the spare task that may be in it. Then there is none, and the next death has one cause.
        limit = max(1, sum(self._client.nthreads().values())) + (not self._suspects)
        while self._waiting and len(self.index_of) < limit:
            self._submit(self._waiting.popleft(), wait_s=0)

    def suspect(self, index: int) -> bool:
        """Try a task again that was in workers that died; return False if it has been tried alone already."""
        if index in self._suspects:
            return False
        self._suspects.add(index)
        self._waiting.appendleft(index)
        return True

    def retry(self, index: int) -> bool:
        """Submit a task again, to run after a pause; return False if it has been tried too often."""
        if self._retries[index] == len(_RETRY_AFTER_S):
            return False
        self._submit(index, wait_s=_RETRY_AFTER_S[self._retries[index]])
        self._retries[index] += 1
        return True

    def _submit(self, index: int, *, wait_s: float) -> None:
        # pure=False: tasks write files, so Dask must not merge tasks with equal arguments.
        future = self._client.submit(_call, self._function, self._tasks[index], wait_s, pure=False)
        self.index_of[future.key] = index
        self.completed.add(future)


def _call(function: Callable[..., Any], arguments: tuple[Any, ...], wait_s: float) -> Any:
    time.sleep(wait_s)
    return function(*arguments)


@contextmanager
def _client(address: str | None, workers: int | None, n_tasks: int, label: str) -> Iterator[Client]:
    if address is None:
        if workers is not None and workers < 1:
            raise ClusterError(f"{label}: {workers} workers; use at least 1")
        with _local_client(min(workers or available_cores(), n_tasks)) as client:
            yield client
        return
    try:
        scheme, place = parse_address(address)
        if scheme in ("tcp", "tls"):
            parse_host_port(place)  # without a port the client would hang on close
        asyncio.run(_reach(address))
        with interrupts_deferred():
            client = Client(address, timeout=_CONNECT_TIMEOUT_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"{label}: no Dask scheduler answers at {address!r} ({error}); check --scheduler and {SCHEDULER_VARIABLE}"
        ) from None
    with client:
        try:
            client.wait_for_workers(1, timeout=60)
        except TimeoutError:
            raise ClusterError(f"{label}: the Dask scheduler at {address} has no workers; start at least one") from None
        yield client


async def _reach(address: str) -> None:
    """Connect and disconnect. Ctrl-C ends this wait at once; a `Client` interrupted in its own wait can block when it is closed."""
    comm = await connect(address, timeout=_CONNECT_TIMEOUT_S, **Security().get_connection_args("client"))
    await comm.close()


@contextmanager
def _local_client(workers: int) -> Iterator[Client]:
    """Start `workers` processes with one thread each, and kill them immediately if the block raises."""
    if not is_verbose():
        # `silence_logs` below does not silence the console's own handler.
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
    settings: dict[str, Any] = {
        "distributed.scheduler.allowed-failures": 1,  # do not retry a task that killed two workers
        "distributed.admin.log-length": 0,
        "distributed.worker.memory.pause": False,  # a paused worker would wait forever
        # Dask's default also makes malloc return freed memory at once. The next array then takes new pages, which costs a third of the time.
        "distributed.nanny.pre-spawn-environ": _ONE_THREAD,
    }
    with (
        scratch_folder() as folder,
        _environment_restored(),
        dask.config.set({**settings, "temporary-directory": str(folder)}),
    ):
        cluster, stack = None, ExitStack()
        try:
            with interrupts_deferred():
                cluster = LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    processes=True,
                    # Dask binds the dashboard port even without a dashboard; port 0 takes any free one.
                    dashboard_address=None,
                    scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
                    silence_logs=logging.CRITICAL,
                    local_directory=str(folder),
                    memory_limit=0,
                    env=_ONE_THREAD,
                )
                stack.enter_context(cluster)
                client = stack.enter_context(Client(cluster, set_as_default=False))
            yield client
        except BaseException:
            if cluster is not None:
                _kill_workers(cluster)
            raise
        finally:
            with interrupts_deferred():
                stack.close()


@contextmanager
def _environment_restored() -> Iterator[None]:
    """Undo changes of this process's environment: Dask sets variables of its workers here, and later child processes would get them."""
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _kill_workers(cluster: LocalCluster) -> None:
    """Kill the worker processes. A regular close would wait for their current tasks."""
    for nanny in cluster.workers.values():
        nanny.auto_restart = False
        if nanny.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(nanny.pid, signal.SIGKILL)


def available_cores() -> int:
    """Return the number of cores available to this process, which is that of local workers."""
    if hasattr(os, "sched_getaffinity"):  # absent on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
