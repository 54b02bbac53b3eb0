"""The commands of the pages about DVC run: clusters, data, Git and remotes."""

from __future__ import annotations

import pytest

from tests.support.documentation import pages
from tests.support.documented_commands import run_page

PAGES = [page for page in pages() if page.name in ("cluster.md", "datasets.md", "dvc.md")]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # the first test may wait for the prepared project


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page_run(page, reader):
    run_page(page, reader)
