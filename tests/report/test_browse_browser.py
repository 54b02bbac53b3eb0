"""`soundspot browse` in a headless browser: pages of clips, search, links, and the viewer that it shares with the report."""

from __future__ import annotations

import threading
import time

import pytest

from pipeline.manifests.prepared import read_prepared_clips
from pipeline.report.browse import run_clips
from pipeline.report.browse.run_clips import RunClips
from pipeline.report.browse.server import BrowseServer
from tests.support.chromium import open_page, press_until
from tests.support.page_world import HOSTILE, TRAIN, make_source

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    source = make_source(tmp_path_factory.mktemp("world"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_clips, "PAGE_CLIPS", 4)
        listed = {clip.clip_id: clip for clip in read_prepared_clips(source.clips, "train")}
        clips = RunClips(source.runs / "iterative", source.train_shards, listed, source.media_root)
        with BrowseServer(clips, title=HOSTILE) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
            thread.start()
            yield server
            server.shutdown()
            thread.join()


@pytest.fixture
def page(browser, server):
    page = open_page(browser, server.address, viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    page.messages = []
    page.on("console", lambda message: page.messages.append(message.text))
    page.on("pageerror", lambda error: page.messages.append(str(error)))
    yield page
    assert page.messages == []
    assert page.evaluate("window.pwned === undefined")
    page.close()


def listed(page):
    return page.locator(".cards button").evaluate_all(
        "all => all.map((each) => each.getAttribute('aria-label').split(',')[0])"
    )


def shown(page):
    return page.locator("[data-role=title]").evaluate("title => title.firstChild.textContent")


def until(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_pages_are_turned_and_arrows_move_inside_them(page):
    assert (listed(page), shown(page)) == (TRAIN[:4], TRAIN[0])
    assert page.locator("[data-role=earlier]").is_disabled()
    page.locator("[data-role=later]").click()
    until(lambda: listed(page) == TRAIN[4:8])
    assert page.locator("[data-role=count]").inner_text().startswith("Clips 5 to 8 of 9.")
    page.locator(".cards button").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("[")
    assert shown(page) == TRAIN[5]
    until(lambda: page.evaluate("location.hash") == f"#clip={TRAIN[5]}&epoch=1&method=iterative")
    page.locator("[data-role=later]").click()
    until(lambda: listed(page) == TRAIN[8:])
    assert page.locator("[data-role=later]").is_disabled()


def test_search_label_and_sort_ask_the_server(page):
    page.locator("[data-role=text]").fill("06")
    until(lambda: listed(page) == ["train-06"])
    page.locator("[data-role=text]").fill("nothing like that")
    until(lambda: page.locator("[data-role=count]").inner_text() == "No clips match these filters.")
    page.locator("[data-role=reset]").click()
    until(lambda: listed(page) == TRAIN[:4])
    page.locator("[data-role=label]").select_option(label="drum")
    until(lambda: listed(page) == TRAIN[1::2])
    page.locator("[data-role=reset]").click()
    until(lambda: listed(page) == TRAIN[:4])
    page.locator("[data-role=sort]").select_option("largest")
    until(lambda: "of 9" in page.locator("[data-role=count]").inner_text())


def test_a_link_finds_its_page(browser, server):
    address = f"{server.address}#clip=train-07&epoch=0&method=iterative"
    page = open_page(browser, address, viewport={"width": 1280, "height": 900})
    assert (listed(page), shown(page)) == (TRAIN[4:8], "train-07")
    assert page.locator("[data-role=epoch-text]").inner_text() == "epoch 0 of 2"
    page.evaluate("location.hash = '#clip=nothing'")
    until(lambda: page.locator("#missing").is_visible())
    assert page.locator("#missing").inner_text() == "There is no clip nothing on this page. It is not in this run."
    page.close()


def test_audio_comes_from_the_server(page):
    audio = page.locator("[data-role=audio]")
    until(lambda: audio.evaluate("audio => audio.readyState >= 3"))
    assert audio.evaluate("audio => audio.duration") == pytest.approx(0.5, abs=0.06)
    page.locator(".cards button").nth(1).click()
    assert not audio.is_visible()


def test_by_keyboard_from_the_search_to_a_link(browser, page):
    press_until(page, "Tab", "document.activeElement.dataset.role === 'text'", most=20)
    page.keyboard.type("06")
    until(lambda: listed(page) == ["train-06"])
    press_until(page, "Tab", "document.activeElement.dataset.role === 'reset'", most=4)
    page.keyboard.press("Enter")
    until(lambda: listed(page) == TRAIN[:4])
    press_until(page, "Tab", "document.activeElement.dataset.role === 'later'", most=2)
    for first in (4, 8):
        page.keyboard.press("Enter")
        until(lambda first=first: listed(page) == TRAIN[first : first + 4])
    # The button is disabled on the last page; the cards still come next, and those before them one step back.
    press_until(page, "Tab", "document.activeElement.matches('.cards button')", most=1)
    press_until(page, "Shift+Tab", "document.activeElement.dataset.role === 'earlier'", most=1)
    page.keyboard.press("Enter")
    until(lambda: listed(page) == TRAIN[4:8])
    press_until(page, "Tab", "document.activeElement.matches('.cards button')", most=2)
    page.keyboard.press("End")
    page.keyboard.press("[")
    until(lambda: page.evaluate("location.hash") == f"#clip={TRAIN[7]}&epoch=1&method=iterative")
    other = open_page(browser, page.url)
    assert (listed(other), shown(other)) == (TRAIN[4:8], TRAIN[7])
    assert other.locator("[data-role=epoch-text]").inner_text() == "epoch 1 of 2"
    other.close()


def test_on_a_phone_pages_are_turned_from_the_end_of_the_list(browser, server):
    phone = {
        "viewport": {"width": 390, "height": 320},
        "has_touch": True,
        "is_mobile": True,
        "reduced_motion": "reduce",
    }
    page = open_page(browser, server.address, **phone)
    page.evaluate("scrollTo({ top: document.documentElement.scrollHeight, behavior: 'instant' })")
    later, header = page.locator("[data-role=later]"), page.locator(".top").bounding_box()
    until(lambda: header["height"] - 1 <= later.bounding_box()["y"] < 320)
    later.tap()
    until(lambda: listed(page) == TRAIN[4:8])
    page.locator(".cards button").nth(3).tap()
    until(lambda: shown(page) == TRAIN[7])
    until(lambda: -1 <= page.locator("[data-role=view]").bounding_box()["y"] < 160)
    page.locator("[data-role=play]").tap()
    until(lambda: page.locator("[data-role=play]").get_attribute("aria-label") == "Play epochs")
    assert page.locator("[data-role=epoch-text]").inner_text() == "epoch 2 of 2"
    page.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_is_for_everybody(browser, server, theme):
    from tests.support.accessibility import PHONE, sideways, small_targets, violations

    page = open_page(browser, server.address, color_scheme=theme, **PHONE)
    assert violations(page) == []
    assert small_targets(page) == []
    assert sideways(page) == []
    page.close()
