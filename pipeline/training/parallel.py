"""Several trainings at once on one machine, each in a process of its own with its share of torch's threads.

A small net gains little from a second thread: three trainings on two cores take two thirds of the time of one after the other.
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


def run_side_by_side(tasks: Sequence[Callable[[], None]], *, at_once: int) -> None:
    """Call each task in a process of its own, `at_once` of them at a time, and wait for all.

    Parameters
    ----------
    tasks : sequence of callable
        Can be pickled.
    at_once : int >= 1
        Each process has the threads of this one, divided by as many, and at least one: a result that depends on the number
        of threads depends on `at_once`, and not on how many tasks there are. A script that asks for more than one needs
        ``if __name__ == "__main__":``, as each process reads it again.

    Raises
    ------
    TrainingError
        A process was killed, or could not start.
    Exception
        The first that a task raises; the other tasks are stopped where they are.
    """
    if not tasks:
        return
    threads = max(1, torch.get_num_threads() // at_once)
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    processes = min(at_once, len(tasks))
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_begin, initargs=(threads,))
    children_before = set(multiprocessing.active_children())
    try:
        with _no_interrupts():  # the processes inherit it: Ctrl-C is for this one, which stops the others
            futures = [pool.submit(task) for task in tasks]
            # A pool looks anew at which processes may die when it is given work, but just before it starts one for it: the death
            # of the last would not be noticed before another task ends, hours later. This comes when all have been started.
            pool.submit(_nothing)
        for future in as_completed(futures):
            future.result()
    except BrokenProcessPool:
        raise TrainingError(
            f"a training process ended before its time: it was killed, perhaps for want of memory ({at_once} run at once; set "
            "SOUNDSPOT_SEEDS_AT_ONCE lower), or could not start (see above). Run the stage again: it goes on where it stood"
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
    os.environ[QUIET_VARIABLE] = "1"  # the bars of several processes would overwrite each other
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
    """A parent that is killed cannot stop its children, and they would write beside the run that follows."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
