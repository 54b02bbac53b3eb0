"""Overlays: heat maps, regions and boxes are drawn where they belong, and legends fit."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from PIL import Image

from pipeline.figures.overlays import Panel, overlay_grid
from pipeline.figures.style import DPI, save
from pipeline.manifests.boxes import Box


def pixels(figure, path) -> np.ndarray:
    save(figure, path)
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def panel_pixels(tmp_path, panel: Panel) -> np.ndarray:
    """Return the pixels of a figure's only panel."""
    figure = overlay_grid([[panel]], columns=["x"], side=2)
    image = pixels(figure, tmp_path / "panel.png")
    left, right, bottom, top = (round(DPI * inches) for inches in figure.axes[0].images[0].get_extent())
    return image[top:bottom, left:right]


def test_heat_lies_where_the_response_is_and_lets_the_frame_through_elsewhere(tmp_path):
    heat = np.zeros((4, 4))
    heat[0, 3] = 1
    image = panel_pixels(tmp_path, Panel(np.full((32, 32, 3), 120, np.uint8), heatmap=heat))
    middle = len(image) // 2
    top_right, bottom_left = image[: middle // 2, -middle // 2 :], image[-middle // 2 :, : middle // 2]
    assert top_right[10:20, -20:-10].mean() > 150
    assert np.median(bottom_left) == 120


@pytest.mark.parametrize(("sounding", "share"), [(True, 0.97), (False, 0.75)])
def test_sounding_boxes_are_solid_and_silent_ones_dashed(tmp_path, sounding, share):
    box = Box("clip", "bell", "", sounding, 0.25, 0.25, 0.75, 0.75)
    image = panel_pixels(tmp_path, Panel(np.full((32, 32, 3), 120, np.uint8), boxes=[box]))
    n = len(image)
    edge = image[n // 4 - 2 : n // 4 + 3, n // 4 : 3 * n // 4].max(axis=(0, 2)) > 220
    assert edge.mean() >= share if sounding else 0.3 < edge.mean() < share
    assert (image[n // 2, n // 2] == 120).all()


def test_grid_has_a_panel_for_every_cell_and_says_what_is_drawn(tmp_path):
    frame = np.full((16, 16, 3), 90, np.uint8)
    heat = np.linspace(0, 1, 16).reshape(4, 4)
    boxes = [Box("clip", "bell", "", True, 0.1, 0.1, 0.4, 0.4), Box("clip", "drum", "", False, 0.5, 0.5, 0.9, 0.9)]
    rows = [[Panel(frame, boxes), Panel(frame, boxes, heat, heat > 0.5, caption="cIoU 0.50")]] * 3
    figure = overlay_grid(rows, columns=["frame", "ours"], names=["first", "second", "third"])
    (axes,) = figure.axes
    # The frame of each panel, and a heat map over every second one.
    places = [tuple(image.get_extent()) for image in axes.images]
    assert [places.count(place) for place in dict.fromkeys(places)] == [1, 2] * 3
    assert [text.get_text() for text in axes.texts] == ["frame", "first", "ours", "cIoU 0.50"] + [
        text for name in ("second", "third") for text in (name, "cIoU 0.50")
    ]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "sounding",
        "silent",
        "sounding region found",
        "response from 0 to 1",
    ]
    assert pixels(figure, tmp_path / "grid.png").std() > 5


def test_a_dollar_sign_is_a_character(tmp_path):
    panel = Panel(np.full((16, 16, 3), 90, np.uint8), caption="a$b_$c")
    figure = overlay_grid([[panel]], columns=["$100^$"], names=["$_$ coins"])
    # Parsed as a formula, the heading would end the drawing with an error.
    assert pixels(figure, tmp_path / "grid.png").std() > 5
    assert [text.get_text() for text in figure.axes[0].texts] == ["$100^$", "$_$ coins", "a$b_$c"]
    assert not any(text.get_parse_math() for text in figure.axes[0].texts)


@pytest.mark.parametrize("n_columns", [1, 2, 6])
def test_long_titles_and_the_legend_stay_inside_the_figure(tmp_path, n_columns):
    frame = np.full((16, 16, 3), 90, np.uint8)
    boxes = [Box("clip", "bell", "", sounding, 0.1, 0.1, 0.4, 0.4) for sounding in (True, False)]
    row = [Panel(frame, boxes, np.eye(4), np.eye(4) > 0.5, caption="clip")] * n_columns
    figure = overlay_grid([row, row], columns=["a title of far more words than one line of a panel holds"] * n_columns)
    save(figure, tmp_path / "grid.png")
    legend = figure.legends[0].get_window_extent()
    texts = figure.axes[0].texts
    titles = [text.get_window_extent() for text in texts if "title" in text.get_text()]
    assert len(titles) == n_columns
    assert all(
        0 <= box.x0 < box.x1 <= figure.bbox.x1 and 0 <= box.y0 < box.y1 <= figure.bbox.y1 for box in [legend, *titles]
    )
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(titles))
    lowest = min(text.get_window_extent().y0 for text in texts if text.get_text() == "clip")
    assert legend.y1 <= lowest


@pytest.mark.parametrize(("filled", "outlined"), [(0, False), (1, True), (16, False)])
def test_an_outline_is_drawn_around_a_part_of_the_frame_only(filled, outlined):
    region = np.arange(16).reshape(4, 4) < filled
    figure = overlay_grid([[Panel(np.zeros((8, 8, 3), np.uint8), region=region)]], columns=["x"], side=2)
    (axes,) = figure.axes
    assert bool(axes.collections) == outlined
    if outlined:
        (path,) = axes.collections[0].get_paths()
        left, _, _, top = axes.images[0].get_extent()
        # A quarter of a panel of 2 inches.
        assert path.vertices.min(axis=0) == pytest.approx((left, top), abs=1e-9)
        assert path.vertices.max(axis=0) == pytest.approx((left + 0.5, top + 0.5), abs=1e-9)
