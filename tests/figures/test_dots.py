"""Dot plots: each value, interval and seed in the place of its row."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.figures.dots import DotPanel, Dots, dot_panels

GROUPS = {"Ours": ["a", "b"], "Others": ["c"], "None": ["d"]}


def heights(axes):
    """Return the vertical position of each label."""
    labels = (label.get_text() for label in axes.get_yticklabels())
    return dict(zip(labels, axes.get_yticks().tolist(), strict=True))


def test_every_number_is_in_its_row():
    measured = {"a": Dots(30, 25, 36, [28, 32]), "d": Dots(0, 0, 0)}
    printed = {"Flickr": {"b": [50, 51], "elsewhere": [9]}}
    panels = [DotPanel("x", "success", measured, {}), DotPanel("paper", "success", {}, printed)]
    first, second = dot_panels(GROUPS, panels).axes
    y = heights(first)
    assert sorted(y, key=y.get) == ["Ours", "a", "b", "Others", "c", "None", "d"]
    lines = [(line.get_xdata(), set(line.get_ydata())) for line in first.lines]
    assert [(list(x), at) for x, at in lines] == [
        ([25, 36], {y["a"]}),
        ([30], {y["a"]}),
        ([0, 0], {y["d"]}),
        ([0], {y["d"]}),
    ]
    np.testing.assert_array_equal(first.collections[0].get_offsets(), [(28, y["a"]), (32, y["a"])])
    np.testing.assert_array_equal(second.collections[0].get_offsets(), [(50, y["b"]), (51, y["b"])])
    # The first row is at the top.
    assert first.yaxis.get_inverted() or first.get_ylim()[0] > first.get_ylim()[1]


@pytest.mark.parametrize("values", [{}, {"a": Dots(0, 0, 0, [0])}])
def test_nothing_but_zeros_is_drawn(values):
    (axes,) = dot_panels(GROUPS, [DotPanel("x", "y", values, {})]).axes
    left, right = axes.get_xlim()
    assert left < 0 < right
