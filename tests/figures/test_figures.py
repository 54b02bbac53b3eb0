"""Pictures: they open, show what they should where they should, and have the same bytes each time."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from PIL import Image

from pipeline.figures.figures import Curve, Panel, overlay_grid, save, success_curves, success_panels
from pipeline.manifests.boxes import Box

THRESHOLDS = np.arange(21) / 20


def pixels(figure, path) -> np.ndarray:
    save(figure, path)
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def falling(power: float) -> np.ndarray:
    return 1 - THRESHOLDS**power


def test_success_curves_draw_every_curve_once(tmp_path):
    curves = [
        Curve("ours", falling(2)),
        Curve("ours", falling(0.5), "shuffled"),
        Curve("ones", falling(1), "content_free"),
    ]
    figure = success_curves(THRESHOLDS, curves, threshold=0.5)
    (axes,) = figure.axes
    drawn = [line.get_ydata() for line in axes.lines if len(line.get_ydata()) == 21]
    assert all(np.array_equal(line, curve.success_rate) for line, curve in zip(drawn, curves, strict=True))
    colors = [line.get_color() for line in axes.lines if len(line.get_ydata()) == 21]
    assert colors[0] == colors[1] != colors[2]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "ours",
        "ours, shuffled audio",
        "ones",
    ]
    assert pixels(figure, tmp_path / "curve.png").std() > 5


def test_panels_hold_their_own_curves_and_the_first_model_looks_the_same_in_each():
    panels = {
        "one": [Curve("ours", falling(2)), Curve("a", falling(1))],
        "two": [Curve("ours", falling(2)), Curve("b", falling(0.3)), Curve("c", falling(0.1))],
    }
    figure = success_panels(THRESHOLDS, panels)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["one", "two"]
    assert [[line.get_label() for line in axes.lines] for axes in figure.axes] == [["ours", "a"], ["ours", "b", "c"]]
    first, second = (axes.lines[0] for axes in figure.axes)
    assert (first.get_color(), first.get_marker()) == (second.get_color(), second.get_marker())


def test_fifteen_models_all_look_different():
    (axes,) = success_curves(THRESHOLDS, [Curve(f"model {i}", falling(i + 1)) for i in range(15)]).axes
    styles = {(line.get_color(), line.get_linestyle(), line.get_marker()) for line in axes.lines}
    assert len(styles) == 15
    # Even without the markers, which are small.
    assert len({(line.get_color(), line.get_linestyle()) for line in axes.lines[:14]}) == 14


def test_shuffled_curves_of_several_models_share_one_entry():
    kinds = ("model", "shuffled")
    (axes,) = success_curves(THRESHOLDS, [Curve(name, falling(1), kind) for name in "ab" for kind in kinds]).axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b", "the same, shuffled audio"]


def test_png_has_the_same_bytes_each_time(tmp_path):
    for name in ("a.png", "b.png"):
        save(success_curves(THRESHOLDS, [Curve("ours", falling(2))]), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert not list(tmp_path.glob("*.tmp"))


def test_every_part_of_the_legend_lies_inside_the_picture(tmp_path):
    labels = ["a rather long name of a method", "mean of the boxes elsewhere"]
    figure = success_curves(THRESHOLDS, [Curve(label, falling(2), "content_free") for label in labels])
    save(figure, tmp_path / "curve.png")
    legend = figure.axes[0].get_legend().get_window_extent()
    assert 0 <= legend.x0 < legend.x1 <= figure.bbox.x1
    assert 0 <= legend.y0 < legend.y1 <= figure.bbox.y1


def panel_pixels(tmp_path, panel: Panel) -> np.ndarray:
    """The pixels of a picture's only panel."""
    figure = overlay_grid([[panel]], columns=["x"], side=2)
    image = pixels(figure, tmp_path / "panel.png")
    box = figure.axes[0].get_position()
    rows, columns = image.shape[:2]
    return image[
        round((1 - box.y1) * rows) : round((1 - box.y0) * rows), round(box.x0 * columns) : round(box.x1 * columns)
    ]


def test_heat_lies_where_the_response_is_and_lets_the_frame_through_elsewhere(tmp_path):
    heat = np.zeros((4, 4))
    heat[0, 3] = 1
    image = panel_pixels(tmp_path, Panel(np.full((32, 32, 3), 120, np.uint8), heat=heat))
    middle = len(image) // 2
    top_right, bottom_left = image[: middle // 2, -middle // 2 :], image[-middle // 2 :, : middle // 2]
    assert top_right[10:20, -20:-10].mean() > 150
    assert bottom_left.mean() == pytest.approx(0.75 * 120, abs=4)


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
    assert len(figure.axes) == 6
    assert [axes.get_title() for axes in figure.axes[:2]] == ["frame", "ours"]
    assert [axes.get_ylabel() for axes in figure.axes[::2]] == ["first", "second", "third"]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["sounding", "silent", "sounding region found"]
    assert pixels(figure, tmp_path / "grid.png").std() > 5


@pytest.mark.parametrize("n_columns", [1, 2, 6])
def test_long_titles_and_the_legend_stay_inside_the_picture(tmp_path, n_columns):
    frame = np.full((16, 16, 3), 90, np.uint8)
    boxes = [Box("clip", "bell", "", sounding, 0.1, 0.1, 0.4, 0.4) for sounding in (True, False)]
    row = [Panel(frame, boxes, np.eye(4), np.eye(4) > 0.5, caption="clip")] * n_columns
    figure = overlay_grid([row, row], columns=["a title of far more words than one line of a panel holds"] * n_columns)
    save(figure, tmp_path / "grid.png")
    legend = figure.legends[0].get_window_extent()
    titles = [axes.title.get_window_extent() for axes in figure.axes[:n_columns]]
    assert all(
        0 <= box.x0 < box.x1 <= figure.bbox.x1 and 0 <= box.y0 < box.y1 <= figure.bbox.y1 for box in [legend, *titles]
    )
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(titles))
    lowest = min(axes.xaxis.label.get_window_extent().y0 for axes in figure.axes)
    assert legend.y1 <= lowest


@pytest.mark.parametrize(("filled", "outlined"), [(0, False), (1, True), (16, False)])
def test_an_outline_is_drawn_around_a_part_of_the_frame_only(filled, outlined):
    region = np.arange(16).reshape(4, 4) < filled
    figure = overlay_grid([[Panel(np.zeros((8, 8, 3), np.uint8), region=region)]], columns=["x"])
    assert bool(figure.axes[0].collections) == outlined
    if outlined:
        (path,) = figure.axes[0].collections[0].get_paths()
        assert path.vertices.min() == pytest.approx(0, abs=1e-9)
        assert path.vertices.max() == pytest.approx(0.25, abs=1e-9)
