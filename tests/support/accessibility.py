"""What makes a page hard to use: WCAG AA and good practice as axe-core checks them, faint controls, small targets, sideways scrolling."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from tests.support.chromium import IN_CI

if IN_CI:  # a skip would go unnoticed there
    import axe_playwright_python.sync_playwright as axe
else:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python")

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True, "reduced_motion": "reduce"}
DESKTOP = {"viewport": {"width": 1400, "height": 900}, "reduced_motion": "reduce"}
CONTROLS = "button, select, input, summary, audio, [role=button], nav a, .six a, label"
TARGET = 40  # pixels that a finger needs
LEAST_CONTRAST = 3  # WCAG 1.4.11: parts of controls and of figures

# Controls that carry a label are as large as the label. Of two nested ones, the outer one counts.
_SMALL = """([selector, least]) => [...document.querySelectorAll(selector)].filter((each) => each.checkVisibility()
  && !each.parentElement.closest(selector) && getComputedStyle(each).clipPath === "none")
  .map((each) => [each, each.getBoundingClientRect()]).filter(([, box]) => box.width > 0 && Math.min(box.width, box.height) < least)
  .map(([each, box]) => `small target ${box.width.toFixed()}x${box.height.toFixed()}: ${each.outerHTML.slice(0, 90)}`)"""

_WIDE = """() => document.documentElement.scrollWidth <= innerWidth && innerWidth === screen.width ? [] :
  [`${document.documentElement.scrollWidth} pixels wide`, ...[...document.querySelectorAll("body *")]
    .filter((each) => each.getBoundingClientRect().right > screen.width + 1).slice(0, 5).map((each) => each.outerHTML.slice(0, 90))]"""

# A color is compared with the first opaque background below it.
_FAINT = """([selector, property, least]) => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const color = (text) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = text; canvas.fillRect(0, 0, 1, 1); return canvas.getImageData(0, 0, 1, 1).data; };
  const luminance = (rgb) => [...rgb.slice(0, 3)].map((value) => value / 255)
    .map((value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
    .reduce((sum, value, i) => sum + value * [0.2126, 0.7152, 0.0722][i], 0);
  const below = (each) => { for (let at = each.parentElement; at; at = at.parentElement) {
    const rgba = color(getComputedStyle(at).backgroundColor); if (rgba[3] === 255) return rgba; } return [255, 255, 255]; };
  return [...document.querySelectorAll(selector)].filter((each) => each.checkVisibility() && !each.disabled).map((each) => {
    const [high, low] = [luminance(color(getComputedStyle(each)[property])), luminance(below(each))].sort((a, b) => b - a);
    return [each, (high + 0.05) / (low + 0.05)];
  }).filter(([, ratio]) => ratio < least).map(([each, ratio]) => `faint ${property}, ${ratio.toFixed(2)}: ${each.outerHTML.slice(0, 90)}`); }"""


def violations(page: Any, *, without: Iterable[str] = ()) -> list[str]:
    """Return what axe-core finds, as `rule: element`; `without` names rules that are left out."""
    rules = {rule: {"enabled": False} for rule in without}
    found = axe.Axe().run(page, options={"resultTypes": ["violations"], "rules": rules}).response["violations"]
    return [f"{each['id']}: {node['html'][:90]}" for each in found for node in each["nodes"]]


def small_targets(page: Any, controls: str = CONTROLS) -> list[str]:
    """Return the visible controls that are too small for a finger."""
    return page.evaluate(_SMALL, [controls, TARGET])


def sideways(page: Any) -> list[str]:
    """Return what makes the page wider than the screen."""
    return page.evaluate(_WIDE)


def faint(page: Any, selector: str, property: str) -> list[str]:
    """Return the elements whose border, line or fill is too close to the background."""
    return page.evaluate(_FAINT, [selector, property, LEAST_CONTRAST])
