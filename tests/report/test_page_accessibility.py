"""The report page for everybody: contrast, names, headings, targets for a finger, and a phone's width, in both themes."""

from __future__ import annotations

import pytest

from tests.support.accessibility import DESKTOP, PHONE, faint, sideways, small_targets, violations
from tests.support.chromium import open_page

pytestmark = pytest.mark.slow
# The shadow at the edge of a table that scrolls is a gradient, over which no contrast can be computed.
EVERYTHING_OPEN = """() => { for (const each of document.querySelectorAll("details")) each.open = true;
  for (const each of document.querySelectorAll(".scroll")) each.style.background = "var(--panel)"; }"""
# One defect for each check, all on one page.
DEFECTS = """() => {
  document.documentElement.removeAttribute("lang"); document.title = "";
  document.querySelector("meta[name=viewport]").content = "width=device-width, user-scalable=no";
  document.documentElement.style.setProperty("--soft", "#999999");
  document.documentElement.style.setProperty("--control", "#cccccc");
  document.documentElement.style.setProperty("--c1", "#ffddcc");
  const theme = document.getElementById("theme"); theme.textContent = ""; theme.removeAttribute("aria-label");
  theme.style.cssText = "min-width: 0; min-height: 0; width: 20px; height: 20px";
  const select = document.querySelector("select"); select.closest("label").replaceWith(select);
  const title = document.querySelector("h3"); title.outerHTML = "<h5>too deep</h5>";
  document.querySelector(".grid img").removeAttribute("alt");
  document.querySelector(".lead").style.cssText = "width: 500px; max-width: none";
  fetch("https://example.invalid/").catch(() => {}); }"""


def faint_parts(page):
    """Borders of controls, and lines of charts."""
    borders = ".quiet, select, input[type=search], .options input:not(:checked) + span"
    return faint(page, borders, "borderTopColor") + faint(page, ".plot .curve", "stroke")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("device", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_page_is_for_everybody(browser, address, device, theme):
    page = open_page(browser, address, color_scheme=theme, **device)
    page.evaluate(EVERYTHING_OPEN)
    # A curve that is switched off is dimmed, and its name must still be readable.
    page.locator("[data-chart=curves] .legend button").last.click()
    assert violations(page) == []
    assert faint_parts(page) == []
    assert sideways(page) == []
    if device is PHONE:
        assert small_targets(page) == []
    assert page.evaluate(
        "[...document.querySelectorAll('[id]')].map((each) => each.id).every((id, i, all) => all.indexOf(id) === i)"
    )
    page.close()


def test_every_check_can_fail(browser, address):
    page = open_page(browser, address, bypass_csp=True, color_scheme="light", **PHONE)
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    page.evaluate(EVERYTHING_OPEN)
    page.evaluate(DEFECTS)
    rules = {each.split(":")[0] for each in violations(page)}
    names = {"button-name", "select-name", "image-alt"}
    assert rules >= {"html-has-lang", "document-title", "meta-viewport", "color-contrast", "heading-order", *names}
    # A table's text has a background of its own.
    assert any("<small>" in each for each in violations(page) if each.startswith("color-contrast"))
    assert {each.split(",")[0] for each in faint_parts(page)} == {"faint borderTopColor", "faint stroke"}
    assert len(small_targets(page)) == 1
    assert any('class="lead"' in each for each in sideways(page))
    assert requests == ["https://example.invalid/"]
    page.close()
