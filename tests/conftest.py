"""What every test gets: one thread, and an environment that no other test has changed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

# Threads wait for each other longer than such small tensors take. Set before anything imports torch, and inherited by
# every process that a test starts.
os.environ["OMP_NUM_THREADS"] = "1"


@contextmanager
def _environment_restored() -> Iterator[None]:
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture(autouse=True)
def _own_environment() -> Iterator[None]:
    """Undo what a test changed in the environment; commands that run in this process change it on purpose."""
    with _environment_restored():
        yield


@pytest.fixture(scope="module")
def one_worker() -> Iterator[None]:
    """Let all tests of a module share one Dask worker, since each start of one imports torch."""
    from distributed import LocalCluster

    with (
        _environment_restored(),  # Dask puts its workers' MALLOC_TRIM_THRESHOLD_ there
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster,
    ):
        os.environ["DASK_SCHEDULER_ADDRESS"] = cluster.scheduler_address
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the files that take longest, so that no process of tests is left with one of them at the end.

    The very first one makes the project that other files copy, so that no other process of tests waits for it.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    first = "test_repro_end_to_end.py"
    items.sort(
        key=lambda item: (item.path not in slow, item.path.name != first, item.path.parent.name != "project"),
    )
