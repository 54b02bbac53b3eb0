"""The commands and the Python of each page of the documentation run; the long pages have files of their own."""

from __future__ import annotations

import pytest

from tests.support.documentation import blocks, pages
from tests.support.documented_commands import commands_to_run, run_page, run_python

LONG = {"cluster.md", "datasets.md", "dvc.md", "experiments.md", "tutorial.md", "tutorial-dvc.md"}
PAGES = [page for page in pages() if page.name not in LONG]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # the first test may wait for the prepared project


@pytest.mark.parametrize("page", [page for page in PAGES if commands_to_run(page)], ids=lambda page: page.name)
def test_the_commands_of_a_page_run(page, reader):
    run_page(page, reader)


@pytest.mark.parametrize(
    "page", [page for page in pages() if any(b.language == "python" for b in blocks(page))], ids=lambda page: page.name
)
def test_the_python_of_a_page_runs(page, reader):
    run_python(page)
