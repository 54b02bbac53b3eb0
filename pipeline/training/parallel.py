"""Train several seeds in parallel on one machine, each in its own process with its share of torch's threads.

A small net gains little from a second thread: three trainings in parallel on two cores take two thirds of the time that they
take one by one.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

import torch

from pipeline.common.console import QUIET_VARIABLE
from pipeline.common.errors import TrainingError


def run_in_parallel(tasks: Sequence[Callable[[], None]], *, n_parallel: int) -> None:
    """Call each task in its own process, `n_parallel` of them at a time, and wait for all.

    Parameters
    ----------
    tasks : sequence of callable
        Picklable.
    n_parallel : int >= 1
        Each process gets an equal share of this one's threads, at least one. Results that depend on the number of threads
        therefore depend on `n_parallel`, but not on how many tasks there are. A script that uses more than one needs
        ``if __name__ == "__main__":``, because each process imports it again.

    Raises
    ------
    TrainingError
        A process was killed, or could not start.
    Exception
        The first that a task raises; the other tasks are terminated.
    """
    if not tasks:
        return
    threads = max(1, torch.get_num_threads() // n_parallel)
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    processes = min(n_parallel, len(tasks))
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_begin, initargs=(threads,))
    children_before = set(multiprocessing.active_children())
    try:
        with _no_interrupts():  # inherited by the processes: Ctrl-C is for this one, which stops the others
            futures = [pool.submit(task) for task in tasks]
            # A pool updates the list of processes that it watches when work is submitted, but before it starts a process for it:
            # it would miss the death of the last one until another task ends, hours later. This extra task comes after all.
            pool.submit(_nothing)
        for future in as_completed(futures):
            future.result()
    except BrokenProcessPool:
        raise TrainingError(
            f"a training process terminated unexpectedly: out of memory ({n_parallel} run in parallel; lower SOUNDSPOT_SEEDS_AT_ONCE), "
            "killed, or unable to start (see above). Run the stage again: it resumes"
        ) from None
    except BaseException:
        for child in set(multiprocessing.active_children()) - children_before:
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _nothing() -> None:
    pass


def _begin(threads: int) -> None:
    torch.set_num_threads(threads)
    os.environ[QUIET_VARIABLE] = "1"  # the progress bars of several processes would overwrite each other
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where it is not inherited
    threading.Thread(target=_end_with_parent, daemon=True).start()


@contextmanager
def _no_interrupts() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _end_with_parent() -> None:
    """Exit when the parent is killed: it cannot stop its children then, and they would write beside the next run."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
