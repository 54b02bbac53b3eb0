"""A headless Chromium for tests of pages. Importing this module skips the importing module if there is none, except in CI."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
IN_CI = bool(os.environ.get("CI"))
TIMEOUT_MS = 120_000
if BROWSER is None:
    reason = f"none of {', '.join(NAMES)} is installed; on Debian: apt-get install chromium"
    if IN_CI:  # a skip would go unnoticed there
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason, allow_module_level=True)
if IN_CI:
    import playwright.sync_api as playwright
else:
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")


@contextmanager
def launched() -> Iterator[Any]:
    """Yield a browser."""
    with playwright.sync_playwright() as tools:
        # The sandbox needs rights that root in a container does not have; the page is the project's own.
        options = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = tools.chromium.launch(executable_path=BROWSER, args=options, timeout=TIMEOUT_MS)
        yield browser
        browser.close()


def open_page(browser: Any, address: str, **options: Any) -> Any:
    """Open a page in a context of its own and wait until its script is done."""
    page = browser.new_page(**options)
    page.set_default_timeout(TIMEOUT_MS)
    page.goto(address)
    page.wait_for_selector("html[data-ready]")
    return page


def press_until(page: Any, key: str, condition: str, *, most: int = 30) -> None:
    """Press a key, `most` times at most, until a JavaScript condition holds."""
    for _ in range(most):
        page.keyboard.press(key)
        if page.evaluate(condition):
            return
    raise AssertionError(f"{condition} does not hold after {key} was pressed {most} times")
