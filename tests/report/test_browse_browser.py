"""`soundspot browse` in a headless browser: pages of clips, search, links, and the viewer that it shares with the report."""

from __future__ import annotations

import threading
import time

import pytest

from pipeline.manifests.prepared import read_prepared_clips
from pipeline.report.browse import run_clips
from pipeline.report.browse.run_clips import RunClips
from pipeline.report.browse.server import BrowseServer
from tests.support.chromium import launched, open_page
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


@pytest.fixture(scope="module")
def browser():
    with launched() as chromium:
        yield chromium


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
