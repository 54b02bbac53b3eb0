"""Clips are tagged in the process of the test: starting Dask takes seconds, and the test of the command does it."""

from __future__ import annotations

import pytest


@pytest.fixture
def in_this_process(monkeypatch):
    def run_here(function, tasks, **_):
        for index, task in enumerate(tasks):
            yield index, function(*task)

    monkeypatch.setattr("pipeline.apps.tag.run.run_tasks", run_here)
