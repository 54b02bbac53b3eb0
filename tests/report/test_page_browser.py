"""The report page in a headless browser: what it shows, what its controls do, and what it must not do."""

from __future__ import annotations

import time

import pytest

from tests.support.chromium import TIMEOUT_MS
from tests.support.page_world import CIOU, TEST, TRAIN

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def opened(browser, address):
    """The page at desktop size, all console messages since it was opened, and every address that it requested."""
    page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
    page.set_default_timeout(TIMEOUT_MS)
    messages, requests = [], []
    page.on("console", lambda message: messages.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(address)
    page.wait_for_selector("html[data-ready]")
    return page, messages, requests


@pytest.fixture
def page(opened):
    """The page as it was when opened: every control back at its default."""
    page = opened[0]
    page.evaluate(
        """() => { for (const gallery of galleries) {
          gallery.part("opacity").value = 65; gallery.part("outline").checked = true;
          if (gallery.part("boxes")) gallery.part("boxes").checked = true;
          if (gallery.part("epoch")) gallery.part("epoch").value = gallery.part("epoch").max;
          gallery.radios[gallery.data.shown].checked = true;
          gallery.part("low").value = 0; gallery.part("high").value = 100;
          gallery.reset(); gallery.show(gallery.order[0]);
        } scrollTo({ top: 0, behavior: "instant" }); document.activeElement.blur(); }"""
    )
    return page


def canvas_digest(page, gallery):
    """A digest of the pixels of the selected clip."""
    return page.evaluate(
        """(name) => { const canvas = document.querySelector(`#gallery-${name} canvas[role=img]`);
          const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          let digest = 0; for (let i = 0; i < data.length; i++) digest = (digest * 31 + data[i]) | 0; return digest; }""",
        gallery,
    )


def part(page, gallery, role):
    return page.locator(f"#gallery-{gallery} [data-role={role}]")


def listed(page, gallery):
    """The clip ids of the cards, in order."""
    names = page.locator(f"#gallery-{gallery} .cards button").evaluate_all(
        "all => all.map((each) => each.getAttribute('aria-label'))"
    )
    return [name.split(",")[0] for name in names]


def slide(page, gallery, role, value):
    part(page, gallery, role).evaluate(
        "(input, value) => { input.value = value; input.dispatchEvent(new Event('input', {bubbles: true})); }", value
    )


def shown(page, gallery):
    return part(page, gallery, "title").evaluate("title => title.firstChild.textContent")


def test_opens_without_console_messages_and_without_the_network(opened, address):
    _, messages, requests = opened
    assert messages == []
    assert {url.split(":")[0] for url in requests} <= {"file", "data"}
    assert [url for url in requests if url.startswith("file")] == [address]


def test_hostile_text_is_text(page):
    assert page.evaluate("window.pwned === undefined")
    assert "<script>" in page.title()
    assert "<script>" in page.locator("h1").inner_text()
    assert page.locator("script").count() == 2
    part(page, "scored", "label").select_option(label="bell")
    assert page.evaluate("document.querySelectorAll('img[src=x], main script').length") == 0
    hostile = next(clip_id for clip_id in TEST if int(clip_id[-2:]) % 3 == 2)
    part(page, "scored", "reset").click()
    page.locator(f"#gallery-scored .cards button[aria-label^='{hostile}']").click()
    assert "onerror" in part(page, "scored", "title").inner_text()
    assert page.evaluate("window.pwned === undefined")


def test_nothing_but_the_pages_own_script_may_run_and_nothing_load(page):
    blocked = page.evaluate(
        """async () => {
          const events = [];
          document.addEventListener("securitypolicyviolation", (event) => events.push(event.effectiveDirective));
          const script = document.createElement("script"); script.textContent = "window.pwned = 3"; document.head.append(script);
          const image = document.createElement("img"); image.src = "https://example.invalid/x.png"; document.body.append(image);
          await fetch("https://example.invalid/").catch(() => {});
          await new Promise((done) => setTimeout(done, 50));
          script.remove(); image.remove();
          return events; }"""
    )
    assert set(blocked) == {"script-src-elem", "img-src", "connect-src"}
    assert page.evaluate("window.pwned === undefined")


def test_epoch_slider_changes_the_canvas_and_its_label(page):
    seen = {}
    for epoch in (0, 1, 2):
        slide(page, "training", "epoch", epoch)
        seen[epoch] = canvas_digest(page, "training")
        assert part(page, "training", "epoch-text").inner_text() == f"epoch {epoch} of 2"
        assert f"after epoch {epoch}" in part(page, "training", "view").get_attribute("aria-label")
    assert len(set(seen.values())) == 3


def test_the_slider_goes_through_the_epochs_of_scored_clips_and_leaves_their_order(page):
    order, seen, values = listed(page, "scored"), set(), set()
    for epoch in (0, 1, 2):
        slide(page, "scored", "epoch", epoch)
        seen.add(canvas_digest(page, "scored"))
        values.add(part(page, "scored", "facts").inner_text().split(",")[0])
        assert part(page, "scored", "epoch-text").inner_text() == f"epoch {epoch} of 2"
        assert listed(page, "scored") == order
    assert (len(seen), len(values)) == (3, 3)
    part(page, "scored", "result").select_option("success")
    slide(page, "scored", "epoch", 0)
    assert set(listed(page, "scored")) == {clip_id for clip_id in TEST if CIOU["iterative"][clip_id] >= 0.5}


def test_methods_differ_and_none_is_the_bare_frame(page):
    seen = []
    for label in ("iterative (Eq. 7)", "initial (Eq. 3)", "none"):
        page.locator("#gallery-scored .options label", has_text=label).click()
        seen.append(canvas_digest(page, "scored"))
    assert len(set(seen)) == 3
    page.locator("#gallery-scored .strip button").nth(0).click()
    assert canvas_digest(page, "scored") == seen[0]
    assert page.locator("#gallery-scored .strip button").nth(0).get_attribute("aria-pressed") == "true"


@pytest.mark.parametrize("role", ["boxes", "outline"])
def test_toggles_change_the_canvas_and_back(page, role):
    before = canvas_digest(page, "scored")
    part(page, "scored", role).uncheck()
    assert canvas_digest(page, "scored") != before
    part(page, "scored", role).check()
    assert canvas_digest(page, "scored") == before


def test_without_opacity_boxes_and_outline_the_frame_is_left(page):
    for role in ("boxes", "outline"):
        part(page, "scored", role).uncheck()
    with_map = canvas_digest(page, "scored")
    slide(page, "scored", "opacity", 0)
    bare = canvas_digest(page, "scored")
    slide(page, "scored", "opacity", 100)
    assert len({with_map, bare, canvas_digest(page, "scored")}) == 3
    page.locator("#gallery-scored .options label", has_text="none").click()
    assert canvas_digest(page, "scored") == bare


def test_pixels_are_those_of_the_map(page):
    """The brightest pixel of the heat lies where the protocol's upsampled map has its maximum."""
    where = page.evaluate(
        """() => { const { data, cells } = galleries[0];
          const values = upsample(data, cells[0][0][2], 4, 4, 1);
          let best = 0; values.forEach((value, i) => { if (value > values[best]) best = i; });
          return [cells[0][0][2].indexOf(255), Math.floor(best / 256), best % 256]; }"""
    )
    row, column = divmod(where[0], 4)
    assert where[1] // 64 == row
    assert where[2] // 64 == column


def test_sorting_and_filters_change_what_is_listed(page):
    ciou = CIOU["iterative"]
    assert listed(page, "scored") == sorted(TEST, key=lambda clip_id: -ciou[clip_id])
    part(page, "scored", "sort").select_option("worst")
    assert listed(page, "scored") == sorted(TEST, key=ciou.get)
    part(page, "scored", "sort").select_option("changed")
    changes = dict(page.evaluate("DATA.galleries.scored.clips.map((clip) => [clip.id, clip.change[0]])"))
    assert listed(page, "scored") == sorted(TEST, key=lambda clip_id: (-changes[clip_id], clip_id))
    part(page, "scored", "sort").select_option("name")
    part(page, "scored", "label").select_option(label="drum")
    assert listed(page, "scored") == TEST[1::3]
    part(page, "scored", "reset").click()
    slide(page, "scored", "low", 50)
    slide(page, "scored", "high", 80)
    assert set(listed(page, "scored")) == {clip_id for clip_id in TEST if 0.5 <= ciou[clip_id] <= 0.8}
    part(page, "scored", "reset").click()
    part(page, "scored", "result").select_option("failure")
    assert set(listed(page, "scored")) == {clip_id for clip_id in TEST if ciou[clip_id] < 0.5}
    assert part(page, "scored", "count").inner_text().startswith(f"{len(listed(page, 'scored'))} of 12 clips")
    slide(page, "scored", "high", 0)
    assert part(page, "scored", "count").inner_text() == "No clips match these filters."


def test_filters_follow_the_method(page):
    part(page, "scored", "result").select_option("success")
    page.locator("#gallery-scored .options label", has_text="initial").click()
    assert set(listed(page, "scored")) == {clip_id for clip_id in TEST if CIOU["initial"][clip_id] >= 0.5}


def test_arrows_go_from_clip_to_clip_wherever_the_focus_is(page):
    order = listed(page, "scored")
    page.locator("#gallery-scored .cards button").first.focus()
    page.keyboard.press("ArrowRight")
    assert shown(page, "scored") == order[1]
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith(order[1])
    page.keyboard.press("End")
    assert shown(page, "scored") == order[-1]
    page.keyboard.press("ArrowRight")
    assert shown(page, "scored") == order[-1]
    page.keyboard.press("Home")
    page.keyboard.press("ArrowDown")
    assert order.index(shown(page, "scored")) > 1
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("ArrowLeft")
    assert order.index(shown(page, "scored")) >= 1
    # Each list has one stop for Tab.
    assert page.locator("#gallery-scored .cards button[tabindex='0']").count() == 1


def test_letters_switch_what_is_drawn(page):
    page.locator("#gallery-training .cards button").first.focus()
    page.keyboard.press("[")
    assert part(page, "training", "epoch-text").inner_text() == "epoch 1 of 2"
    page.keyboard.press("o")
    assert not part(page, "training", "outline").is_checked()
    page.keyboard.press("-")
    assert part(page, "training", "opacity").input_value() == "55"
    page.keyboard.press("m")
    assert page.locator("#gallery-training input[type=radio]:checked").get_attribute("value") == "1"
    page.locator("#gallery-scored .cards button").first.focus()
    page.keyboard.press("b")
    assert not part(page, "scored", "boxes").is_checked()


def test_controls_keep_their_own_keys(page):
    before = shown(page, "scored")
    part(page, "scored", "sort").focus()
    page.keyboard.press("ArrowDown")
    assert part(page, "scored", "sort").input_value() == "worst"
    assert listed(page, "scored") == sorted(TEST, key=CIOU["iterative"].get)
    part(page, "scored", "low").focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert part(page, "scored", "low").input_value() == "3"
    assert shown(page, "scored") == before


def wait_until(element, condition, *, seconds=20):
    """Ask again and again from outside: the page's own policy forbids it to evaluate a condition by itself."""
    end = time.monotonic() + seconds
    while not element.evaluate(condition):
        assert time.monotonic() < end, condition
        time.sleep(0.05)


def test_audio_plays_if_the_media_existed(page):
    page.locator("#gallery-scored .cards button[aria-label^='test-07']").click()
    audio = part(page, "scored", "audio")
    wait_until(audio, "audio => audio.readyState >= 3")
    state = audio.evaluate("audio => [audio.duration, audio.error, audio.hidden]")
    assert state[0] == pytest.approx(0.5, abs=0.06)
    assert state[1:] == [None, False]
    page.keyboard.press("p")
    wait_until(audio, "audio => audio.currentTime > 0")
    page.locator("#gallery-scored .cards button[aria-label^='test-01']").click()
    assert not audio.is_visible()
    assert "test-01.mp4 was missing" in part(page, "scored", "note").inner_text()
    assert part(page, "scored", "mel").evaluate("image => image.naturalWidth") == 20


def test_curves_are_read_by_pointer_and_by_key(page):
    plot = page.locator("[data-chart=curves] .plot")
    plot.scroll_into_view_if_needed()
    plot.hover(position={"x": 44, "y": 100})
    readout = page.locator("[data-chart=curves] .readout")
    assert "cIoU threshold 0\n" in readout.inner_text()
    assert "100.0%" in readout.inner_text()
    plot.focus()
    page.keyboard.press("Home")
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    assert readout.inner_text().split("\n")[:3] == ["cIoU threshold 0.5", "iterative (Eq. 7)", "50.0%"]
    assert "initial (Eq. 3) 40.0" in page.locator("[data-chart=curves] p[aria-live]").inner_text()
    page.keyboard.press("Escape")
    assert not readout.is_visible()
    page.locator("[data-chart=curves] summary").click()
    rows = page.locator("[data-chart=curves] tbody tr")
    rows.nth(20).wait_for(state="attached")  # they are made when the table is opened
    assert rows.count() == 21


def test_dark_by_the_system_and_by_the_button(page):
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.emulate_media(color_scheme="dark")
    dark = page.evaluate(background)
    assert dark != light
    page.locator("#theme").click()
    assert page.evaluate(background) == light
    page.emulate_media(color_scheme="light")
    page.locator("#theme").click()
    assert page.evaluate(background) == dark
    page.locator("#theme").click()
    assert page.evaluate(background) == light


def test_training_clips_are_sorted_by_their_change(page):
    assert listed(page, "training") == TRAIN
    part(page, "training", "sort").select_option("changed")
    changes = dict(page.evaluate("DATA.galleries.training.clips.map((clip) => [clip.id, clip.change[0]])"))
    assert listed(page, "training") == sorted(TRAIN, key=lambda clip_id: (-changes[clip_id], clip_id))
