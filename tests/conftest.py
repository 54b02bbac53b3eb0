"""What every test gets: one thread, and an environment that no other test has changed."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

# Threads wait for each other longer than such small tensors take. Set before anything imports torch, and inherited by
# every process that a test starts.
os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(autouse=True)
def _own_environment() -> Iterator[None]:
    """Undo what a test changed in the environment; commands that run in this process change it on purpose."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)
