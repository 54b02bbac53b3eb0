"""Success curves: every curve is drawn, legends fit, and the PNG has the same bytes each time."""

from __future__ import annotations

import numpy as np
from PIL import Image

from pipeline.figures.curves import Curve, success_curves, success_panels
from pipeline.figures.style import save

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


def test_every_part_of_the_legend_lies_inside_the_figure(tmp_path):
    labels = ["a rather long name of a method", "mean of other splits' boxes"]
    figure = success_curves(THRESHOLDS, [Curve(label, falling(2), "content_free") for label in labels])
    save(figure, tmp_path / "curve.png")
    legend = figure.axes[0].get_legend().get_window_extent()
    assert 0 <= legend.x0 < legend.x1 <= figure.bbox.x1
    assert 0 <= legend.y0 < legend.y1 <= figure.bbox.y1
