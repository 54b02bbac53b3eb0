"""What the browser tests of the report share."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a report page that all tests of a module open."""
    from tests.support.page_world import make_page

    return make_page(tmp_path_factory.mktemp("page")).as_uri()


@pytest.fixture(scope="module")
def browser():
    from tests.support.chromium import launched  # skips where there is no browser

    with launched() as chromium:
        yield chromium
