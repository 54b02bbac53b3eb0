"""Train several seeds in parallel on one machine, or one seed as several ranks: processes with an equal share of torch's threads.

A small network gains little from a second thread: training three seeds in parallel on two cores takes two thirds of the time of
training them one after another.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial

import torch
import torch.distributed as dist
from tqdm import tqdm

from pipeline.common.console import QUIET_VARIABLE, is_quiet
from pipeline.common.errors import TrainingError
from pipeline.common.processes import interrupts_deferred
from pipeline.model.ranks import joined


def run_in_parallel(
    tasks: Sequence[Callable[[], object]], *, n_parallel: int, limited_by: str = "SOUNDSPOT_SEEDS_AT_ONCE"
) -> None:
    """Call each task in its own process, `n_parallel` of them at a time, and wait for all.

    Parameters
    ----------
    tasks : sequence of callable
        Picklable.
    n_parallel : int >= 1
        Each process gets an equal share of this process's threads, at least one. Results that depend on the number of threads
        therefore depend on `n_parallel`, but not on the number of tasks. A script must call this under
        ``if __name__ == "__main__":``, because each process imports the script again.
    limited_by : str
        Where the user has set `n_parallel`, for the message.

    Raises
    ------
    TrainingError
        A process was killed, or could not start.
    Exception
        The first exception of a task; the other tasks are terminated.
    """
    if not tasks:
        return
    threads = max(1, torch.get_num_threads() // n_parallel)
    context = multiprocessing.get_context("spawn")  # forking a process with threads can deadlock
    processes = min(n_parallel, len(tasks))
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_begin, initargs=(threads,))
    children_before = set(multiprocessing.active_children())
    try:
        with interrupts_deferred():
            futures = [pool.submit(task) for task in tasks]
            # When work is submitted, a pool first updates the list of processes that it watches, then starts a process for the work.
            # It would not notice the death of the last process until another task ends, hours later. So submit one more task.
            pool.submit(_nothing)
        for future in as_completed(futures):
            future.result()
    except BrokenProcessPool:
        raise TrainingError(
            f"a training process terminated unexpectedly: out of memory ({n_parallel} run in parallel; lower {limited_by}), "
            "killed, or unable to start (see above). Run the command again: it resumes"
        ) from None
    except BaseException:
        for child in set(multiprocessing.active_children()) - children_before:
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def run_as_ranks(task: Callable[[str], object], *, n_ranks: int, device: str) -> None:
    """Call a task in several processes, which train together (see `pipeline.model.ranks`), as torchrun would.

    Parameters
    ----------
    task : callable
        Picklable; gets the name of its rank's device.
    n_ranks : int >= 1
    device : str
        "auto", "cpu" or "cuda".

    Raises
    ------
    TrainingError, Exception
        As in `run_in_parallel`.
    """
    # The ranks meet here. In this process, so that the one that fails first can say so, whichever it is.
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    environment = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "WORLD_SIZE": str(n_ranks),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
    }
    tasks = [partial(_as_rank, rank, environment, is_quiet(), device, task) for rank in range(n_ranks)]
    run_in_parallel(tasks, n_parallel=n_ranks, limited_by="SOUNDSPOT_PROCESSES")


def _as_rank(
    rank: int, environment: Mapping[str, str], quiet: bool, device: str, task: Callable[[str], object]
) -> None:
    os.environ.update(environment, RANK=str(rank), LOCAL_RANK=str(rank))
    if rank == 0 and not quiet:
        os.environ.pop(QUIET_VARIABLE)  # there is only one progress bar
    with joined(device) as own_device:
        task(own_device)


def _nothing() -> None:
    pass


def _begin(threads: int) -> None:
    torch.set_num_threads(threads)
    # tqdm's own lock is a semaphore of the system: a process that is terminated would leave it behind, and Python would warn about it.
    tqdm.set_lock(threading.RLock())
    os.environ[QUIET_VARIABLE] = "1"  # the progress bars of several processes would overwrite each other
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Windows, where `interrupts_deferred` does nothing
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Exit when the parent is killed: it can no longer stop its children, which would write into the next run's folder."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
