"""The report page without a mouse: by keyboard alone, with a finger on a phone, and by links to one clip."""

from __future__ import annotations

import time

import pytest

from tests.support.chromium import open_page, press_until
from tests.support.page_world import CIOU, TEST, TRAIN

pytestmark = pytest.mark.slow
DESKTOP = {"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce"}
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True, "reduced_motion": "reduce"}
RANKING = sorted(TEST, key=lambda clip_id: -CIOU["iterative"][clip_id])


@pytest.fixture
def desktop(browser, address):
    page = open_page(browser, address, **DESKTOP)
    yield page
    page.close()


@pytest.fixture
def phone(browser, address):
    page = open_page(browser, address, **PHONE)
    yield page
    page.close()


def shown(page, gallery="scored"):
    return page.locator(f"#gallery-{gallery} [data-role=title]").evaluate("title => title.firstChild.textContent")


def state(page, gallery="scored"):
    """The selected clip, the displayed epoch, and the checked map."""
    epoch = page.locator(f"#gallery-{gallery} [data-role=epoch-text]").inner_text()
    method = page.locator(f"#gallery-{gallery} .options label:has(input:checked)").inner_text()
    return shown(page, gallery), epoch, method


def until(page, condition):
    # The page's own policy forbids Playwright to evaluate a condition by itself.
    end = time.monotonic() + 20
    while not page.evaluate(condition):
        assert time.monotonic() < end, condition
        page.wait_for_timeout(50)


def in_view(page, gallery="scored"):
    """The visible share of the viewer's image below the page's header."""
    return page.locator(f"#gallery-{gallery} [data-role=view]").evaluate(
        """(view) => { const box = view.getBoundingClientRect();
          const header = document.querySelector(".top").offsetHeight;
          return (Math.min(box.bottom, innerHeight) - Math.max(box.top, header)) / box.height; }"""
    )


def test_the_gallery_opens_on_the_median_clip(desktop):
    assert shown(desktop) == RANKING[6]
    assert shown(desktop, "training") == TRAIN[0]
    # A page that was just opened has no state worth a link.
    assert desktop.evaluate("location.hash") == ""


def test_by_keyboard_from_the_strip_to_a_link(browser, desktop):
    desktop.keyboard.press("Tab")
    assert desktop.evaluate("document.activeElement.matches('.skip')")
    # The sections and the theme come first; the six clips are one stop.
    press_until(desktop, "Tab", "document.activeElement.matches('.six a')", most=16)
    desktop.keyboard.press("ArrowRight")
    desktop.keyboard.press("Enter")
    until(desktop, "document.activeElement.matches('#gallery-scored .cards button')")
    assert shown(desktop) == RANKING[2]
    assert in_view(desktop) > 0.9
    desktop.keyboard.press("ArrowRight")
    assert shown(desktop) == RANKING[3]
    desktop.keyboard.press("m")
    # Cards are moved when another method has other scores; the focus must stay on the clip.
    assert desktop.evaluate("document.activeElement.getAttribute('aria-label')").startswith(RANKING[3])
    assert state(desktop)[2] == "initial (Eq. 3)"
    # The menu of the order comes before the list, and the first clip in the new order has audio.
    press_until(desktop, "Shift+Tab", "document.activeElement.dataset.role === 'sort'", most=8)
    desktop.keyboard.press("End")
    press_until(desktop, "Tab", "document.activeElement.matches('#gallery-scored .cards button')", most=8)
    desktop.keyboard.press("Home")
    assert shown(desktop) == TEST[0]
    desktop.keyboard.press("p")
    until(desktop, "galleries[0].part('audio').currentTime > 0")
    desktop.keyboard.press("p")
    press_until(desktop, "Shift+Tab", "document.activeElement.dataset.role === 'play'", most=30)
    desktop.keyboard.press("Enter")
    assert state(desktop)[1] == "epoch 0 of 2"
    until(desktop, "galleries[0].part('play').getAttribute('aria-label') === 'Play epochs'")
    press_until(desktop, "Tab", "document.activeElement.dataset.role === 'epoch'", most=1)
    desktop.keyboard.press("ArrowLeft")
    until(desktop, "location.hash.includes('epoch=1')")
    assert desktop.evaluate("location.hash") == f"#clip={TEST[0]}&epoch=1&method=initial"
    other = open_page(browser, desktop.url, **DESKTOP)
    assert state(other) == state(desktop) == (TEST[0], "epoch 1 of 2", "initial (Eq. 3)")
    other.close()


def test_arrows_scroll_the_page_while_no_gallery_is_in_view(desktop):
    desktop.keyboard.press("ArrowDown")
    until(desktop, "scrollY > 0")
    assert shown(desktop) == RANKING[6]
    desktop.evaluate("galleries[0].root.scrollIntoView({ behavior: 'instant' })")
    desktop.keyboard.press("ArrowRight")
    assert shown(desktop) == RANKING[7]


def test_groups_of_buttons_are_one_stop_for_tab(desktop):
    for group, each in ((".six", "a"), ("#gallery-scored .strip", "button"), ("[data-chart=curves] .legend", "button")):
        assert desktop.locator(f"{group} {each}").count() > 1
        assert desktop.locator(f"{group} {each}:not([tabindex='-1'])").count() == 1
    strip = desktop.locator("#gallery-scored .strip button")
    strip.nth(0).focus()
    before = shown(desktop)
    desktop.keyboard.press("ArrowRight")
    assert strip.nth(1).evaluate("button => button === document.activeElement && button.tabIndex === 0")
    assert shown(desktop) == before
    desktop.keyboard.press("Enter")
    assert state(desktop)[2] == "initial (Eq. 3)"
    # A table that fits has nothing to scroll.
    assert desktop.locator(".scroll").first.evaluate("table => table.tabIndex") == -1


def test_a_link_shows_the_same_clip_in_the_same_state(browser, address):
    clip = TEST[4]
    page = open_page(browser, f"{address}#clip={clip}&epoch=0&method=initial", **DESKTOP)
    assert state(page) == (clip, "epoch 0 of 2", "initial (Eq. 3)")
    assert in_view(page) > 0.9
    page.evaluate("location.hash = '#clip=train-03&epoch=1&method=iterative'")
    until(page, "galleries[1].data.clips[galleries[1].current].id === 'train-03'")
    assert state(page, "training") == ("train-03", "epoch 1 of 2", "iterative (Eq. 7)")
    assert state(page) == (clip, "epoch 0 of 2", "initial (Eq. 3)")
    page.keyboard.press("ArrowRight")
    until(page, "location.hash.includes('train-04')")
    assert page.evaluate("location.hash") == "#clip=train-04&epoch=1&method=iterative&gallery=training"
    # A clip that the filters hide, a map that does not exist, and a clip that the page does not have.
    page.locator("#gallery-scored [data-role=result]").select_option("failure")
    page.evaluate("(id) => { location.hash = `#clip=${id}&epoch=9&method=none`; }", RANKING[0])
    until(page, f"galleries[0].data.clips[galleries[0].current].id === '{RANKING[0]}'")
    assert state(page)[2] == "none"
    page.evaluate("location.hash = '#clip=nothing'")
    until(page, "!document.getElementById('missing').hidden")
    assert page.locator("#missing").inner_text().startswith("There is no clip nothing on this page.")
    assert shown(page) == RANKING[0]
    page.evaluate("(id) => { location.hash = `#clip=${id}`; }", RANKING[1])
    until(page, "document.getElementById('missing').hidden")
    assert shown(page) == RANKING[1]
    page.close()


def test_on_a_phone_from_a_tapped_clip_to_a_link(browser, phone):
    card = phone.locator("#gallery-scored .cards button").nth(10)
    card.scroll_into_view_if_needed()
    assert in_view(phone) <= 0
    card.tap()
    until(phone, "document.querySelector('#gallery-scored [data-role=view]').getBoundingClientRect().top >= 0")
    assert shown(phone) == RANKING[10]
    assert in_view(phone) > 0.9
    phone.locator(".six a").nth(5).tap()
    until(phone, f"galleries[0].data.clips[galleries[0].current].id === '{RANKING[11]}'")
    assert in_view(phone) > 0.9
    gallery = phone.locator("#gallery-scored")
    gallery.locator(".strip button").nth(1).tap()
    gallery.locator("[data-role=play]").tap()
    until(phone, "galleries[0].part('play').getAttribute('aria-label') === 'Play epochs'")
    assert state(phone) == (RANKING[11], "epoch 2 of 2", "initial (Eq. 3)")
    gallery.locator("[data-role=audio]").tap(position={"x": 20, "y": 20})
    until(phone, "galleries[0].part('audio').currentTime > 0")
    gallery.locator("[data-role=result]").select_option("failure")
    gallery.locator(".cards button").nth(2).tap()
    clip = sorted((each for each in TEST if CIOU["initial"][each] < 0.5), key=CIOU["initial"].get)[-3]
    until(phone, f"location.hash.includes('clip={clip}')")
    other = open_page(browser, phone.url, **PHONE)
    assert state(other) == state(phone) == (clip, "epoch 2 of 2", "initial (Eq. 3)")
    assert in_view(other) > 0.9
    other.close()


def test_range_sliders_cannot_cross(desktop):
    values = desktop.evaluate(
        """() => { const low = galleries[0].part("low"), high = galleries[0].part("high");
          const set = (input, value) => { input.value = value; input.dispatchEvent(new Event("input", { bubbles: true })); };
          set(high, 60); set(low, 80); const first = [low.value, high.value];
          set(low, 30); set(high, 10); return [...first, low.value, high.value]; }"""
    )
    assert values == ["60", "60", "30", "30"]


@pytest.mark.parametrize(
    ("value", "text"), [(0.496, "0.496"), (0.49996, "0.49996"), (0.5, "0.50"), (0.504, "0.50"), (0.494, "0.49")]
)
def test_a_score_is_shown_on_its_own_side_of_the_threshold(desktop, value, text):
    assert desktop.evaluate("value => galleries[0].score(value)", value) == text


def test_the_section_in_view_is_marked(phone):
    for section in ("relation", "scored"):
        phone.evaluate("id => document.getElementById(id).scrollIntoView({ behavior: 'instant' })", section)
        until(phone, f"document.querySelector('nav [aria-current]')?.hash === '#{section}'")
        assert phone.locator("nav [aria-current]").count() == 1
    # The mark itself is inside the part of the navigation that can be seen.
    box, nav = (phone.locator(each).bounding_box() for each in ("nav [aria-current]", "nav"))
    assert nav["x"] - 1 <= box["x"] < nav["x"] + nav["width"] - 20


def test_curves_below_zero_and_above_one_stay_inside_their_axes(desktop):
    outside = """() => { const root = document.querySelector("[data-chart=training]"), svg = root.querySelector("svg").getBoundingClientRect();
      return [...root.querySelectorAll(".plot .curve, .plot .mark")].filter((each) => { const box = each.getBoundingClientRect();
        return box.top < svg.top + 20 || box.bottom > svg.bottom - 30; }).length; }"""
    for panel in ("loss", "audio gap"):
        desktop.locator("[data-chart=training] .options label", has_text=panel).click()
        assert desktop.locator("[data-chart=training] .plot .mark").count() >= 2
        assert desktop.evaluate(outside) == 0
    labels = desktop.locator("[data-chart=training] .plot text").all_text_contents()
    assert "-0.6" in labels
    assert "0" in labels
