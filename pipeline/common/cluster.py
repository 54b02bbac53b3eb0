"""Independent tasks on Dask: a cluster of local processes, or a scheduler given by its address.

A task is a call of one function with its own arguments. Arguments and results are small (paths, settings, counts);
arrays go through files, never through the scheduler. Local workers are processes of one thread each, so that decoders
and torch do not compete for cores; they live in a temporary folder, die with this process however it ends, and leave
Ctrl-C to it.
"""

from __future__ import annotations

import itertools
import logging
import os
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import dask
from distributed import Client, LocalCluster, as_completed
from distributed.comm.addressing import parse_address, parse_host_port
from distributed.scheduler import KilledWorker
from tqdm import tqdm

from pipeline.common.console import progress_disabled
from pipeline.common.errors import ClusterError

SCHEDULER_VARIABLE = "DASK_SCHEDULER_ADDRESS"
_ANSWER_WITHIN_S = 20
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
# The terminal sends Ctrl-C to the whole process group; only the parent shall answer it, by closing the cluster.
_IGNORE_INTERRUPT = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"


def run_tasks(
    function: Callable[..., Any],
    tasks: Sequence[tuple[Any, ...]],
    *,
    scheduler: str | None,
    workers: int | None,
    label: str,
) -> Iterator[tuple[int, Any]]:
    """Call ``function(*task)`` for every task and yield the results as they come, with a progress bar.

    Parameters
    ----------
    function : callable
        A function at the top level of an importable module.
    tasks : sequence of tuple
        The arguments of each call.
    scheduler : str or None
        Address of a Dask scheduler, such as ``tcp://host:8786``. None takes the environment variable
        ``DASK_SCHEDULER_ADDRESS`` and, where that is unset, starts local processes for the time of the run.
    workers : int or None
        Number of local processes, at least 1; None takes the number of cores that this process may use.
    label : str
        What is done, for the progress bar and for messages.

    Yields
    ------
    index : int
        Position of the task in `tasks`; the order is that of completion.
    result
        What the call returned.

    Raises
    ------
    ClusterError
        The scheduler does not answer or has no workers, or a worker died twice over the same task (``.task`` is then
        its index).
    Exception
        Whatever a task raises; the remaining tasks are given up.
    """
    if not tasks:
        return
    with _client(scheduler or os.environ.get(SCHEDULER_VARIABLE), workers, len(tasks), label) as client:
        waiting = iter(enumerate(tasks))
        index_of: dict[Any, int] = {}
        completed = as_completed(loop=client.loop)

        def submit(count: int) -> None:
            # No more than there are threads: when a worker dies, the task it was at is the only one to blame.
            # A task may have side effects (files), so equal tasks are not merged: pure=False.
            for index, task in itertools.islice(waiting, max(count, 0)):
                future = client.submit(function, *task, pure=False)
                index_of[future.key] = index
                completed.add(future)

        submit(_capacity(client))
        for future in tqdm(completed, total=len(tasks), desc=label, unit="task", disable=progress_disabled()):
            index = index_of.pop(future.key)
            try:
                result = future.result()
            except KilledWorker:
                message = f"{label}: the process working on task {index} died twice (out of memory?)"
                raise ClusterError(message, task=index) from None
            submit(_capacity(client) - len(index_of))
            yield index, result


def _capacity(client: Client) -> int:
    return max(1, sum(client.nthreads().values()))


@contextmanager
def _client(address: str | None, workers: int | None, n_tasks: int, label: str) -> Iterator[Client]:
    if address is None:
        if workers is not None and workers < 1:
            raise ClusterError(f"{label}: {workers} workers; give at least 1")
        with _local_client(min(workers or _available_cores(), n_tasks)) as client:
            yield client
        return
    try:
        scheme, place = parse_address(address)
        if scheme in ("tcp", "tls"):
            parse_host_port(place)  # a client that is given no port hangs when it is let go
        client = Client(address, timeout=_ANSWER_WITHIN_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"{label}: no Dask scheduler answers at {address!r} ({error}); check --scheduler and {SCHEDULER_VARIABLE}"
        ) from None
    with client:
        try:
            client.wait_for_workers(1, timeout=60)
        except TimeoutError:
            raise ClusterError(f"{label}: the Dask scheduler at {address} has no workers; start some") from None
        yield client


@contextmanager
def _local_client(workers: int) -> Iterator[Client]:
    """Start `workers` processes of one thread each, and end them at once if the block raises."""
    settings: dict[str, Any] = {
        "distributed.scheduler.allowed-failures": 1,  # a task that killed two workers is not tried again
        "distributed.admin.log-length": 0,
        "distributed.worker.memory.pause": False,  # a paused worker would wait for ever
    }
    with (
        tempfile.TemporaryDirectory(prefix="soundspot-") as folder,
        dask.config.set({**settings, "temporary-directory": folder}),
    ):
        cluster = LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            # No dashboard; its port is bound all the same, so any free one.
            dashboard_address=None,
            scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
            silence_logs=logging.CRITICAL,
            local_directory=folder,
            memory_limit=0,
            env=_ONE_THREAD,
            preload=[_IGNORE_INTERRUPT],
        )
        with cluster, Client(cluster, set_as_default=False) as client:
            try:
                yield client
            except BaseException:
                _kill_workers(cluster)
                raise


def _kill_workers(cluster: LocalCluster) -> None:
    """End the worker processes now; a polite close would wait for the tasks they are at."""
    for nanny in cluster.workers.values():
        nanny.auto_restart = False
        if nanny.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(nanny.pid, signal.SIGKILL)


def _available_cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # absent on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
