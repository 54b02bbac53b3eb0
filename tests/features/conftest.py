"""Features are computed in the process of the test: starting Dask takes seconds, and the test of the command does it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest


@pytest.fixture(scope="package", autouse=True)
def in_this_process() -> Iterator[None]:
    def run_here(function: Callable[..., Any], tasks: list[tuple[Any, ...]], **_: Any) -> Iterator[tuple[int, Any]]:
        for index, task in enumerate(tasks):
            yield index, function(*task)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.features.compute.run_tasks", run_here)
        yield
