"""Boxes → grids: the public formulae in plain loops, the consensus rules, and what lies outside the frame."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.manifests.boxes import Box
from pipeline.scoring.ground_truth import ground_truth, pixel_edges

EDGES = st.lists(st.integers(1, 256), min_size=2, max_size=2, unique=True).map(sorted)
PIXEL_BOXES = st.lists(
    st.tuples(EDGES, EDGES).map(lambda e: (e[0][0], e[1][0], e[0][1], e[1][1])), min_size=2, max_size=6
)


def boxes_of(pixels, annotators=None, sources=None):
    """Boxes from 1-based pixels of a 256×256 frame."""
    return [
        Box(
            "clip",
            sources[k] if sources else "annotators",
            annotators[k] if annotators else f"annotator_{k}",
            True,
            *((value - 1) / 256 for value in box),
        )
        for k, box in enumerate(pixels)
    ]


def mssl_map(pixels):
    g = np.zeros((256, 256))
    for xmin, ymin, xmax, ymax in pixels:
        for row in range(ymin - 1, ymax - 1):
            for col in range(xmin - 1, xmax - 1):
                g[row, col] += 1
    return np.minimum(g / 2, 1)


def lvs_map(pixels):
    g = np.zeros((224, 224))
    for box in pixels:
        xmin, ymin, xmax, ymax = (int(224 * value / 256) for value in box)
        g[ymin:ymax, xmin:xmax] += 1
    g /= 2
    g[g > 1] = 1
    return g


@settings(max_examples=8, deadline=None)
@given(PIXEL_BOXES)
def test_several_annotators_give_the_published_maps(pixels):
    (nearest,) = ground_truth(boxes_of(pixels), 256, rounding="nearest", consensus="annotators")
    (floored,) = ground_truth(boxes_of(pixels), 224, rounding="one-based-floor", consensus="annotators")

    np.testing.assert_array_equal(nearest.g, mssl_map(pixels))
    np.testing.assert_array_equal(floored.g, lvs_map(pixels))


def test_every_published_pixel_survives_the_way_through_a_csv_file():
    pixels = np.arange(1, 257)
    written = np.array([float(f"{(p - 1) / 256:.6f}") for p in pixels])

    edges = pixel_edges(np.stack([written] * 4, axis=1), 224, rounding="one-based-floor")[:, 0]

    np.testing.assert_array_equal(edges, [int(224 * int(p) / 256) for p in pixels])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-0.2, 1.2), min_size=4, max_size=4))
def test_floor_is_what_public_code_does_with_fractions(corners):
    edges = pixel_edges([corners], 224, rounding="floor")[0]

    assert edges.tolist() == [int(min(max(value, 0.0), 1.0) * 224) for value in corners]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 10_000), min_size=4, max_size=4))
def test_corner_and_size_are_rounded_down_each_for_itself(numbers):
    x, y, width, height = (number / 20_000 for number in numbers)

    edges = pixel_edges([(x, y, x + width, y + height)], 224, rounding="xywh-floor")[0]

    # In whole numbers, so that no rounding of ours decides.
    column, row, columns, rows = (224 * number // 20_000 for number in numbers)
    assert edges.tolist() == [column, row, column + columns, row + rows]


def test_the_far_edge_is_a_sum_of_two_floors():
    box = (0.1, 0.6, 0.1 + 0.2, 0.6 + 0.3)  # 22.4, 134.4; 44.8 × 67.2

    assert pixel_edges([box], 224, rounding="xywh-floor")[0].tolist() == [22, 134, 22 + 44, 134 + 67]
    assert pixel_edges([box], 224, rounding="floor")[0].tolist() == [22, 134, 67, 201]


def test_one_annotator_is_believed_and_several_must_agree():
    inside = np.zeros((256, 256), bool)
    inside[127:191, 63:127] = True
    pixels = [(64, 128, 128, 192)]

    (rendered,) = ground_truth(boxes_of(pixels), 256, rounding="nearest", consensus="annotators")
    np.testing.assert_array_equal(rendered.g, inside.astype(float))

    two_objects = [*pixels, (200, 200, 220, 220)]
    (one_person,) = ground_truth(boxes_of(two_objects, "aa"), 256, rounding="nearest", consensus="annotators")
    (two_people,) = ground_truth(boxes_of(two_objects, "ab"), 256, rounding="nearest", consensus="annotators")
    assert set(np.unique(one_person.g)) == {0, 1}
    assert set(np.unique(two_people.g)) == {0, 0.5}
    assert one_person.mass == 64 * 64 + 20 * 20 == 2 * two_people.mass


def test_two_overlapping_boxes_of_one_annotator_are_their_union():
    pixels = [(1, 1, 101, 101), (51, 51, 151, 151)]
    public = mssl_map(pixels)  # whose boxes they are is lost there
    (one_person,) = ground_truth(boxes_of(pixels, "aa"), 256, rounding="nearest", consensus="annotators")
    (two_people,) = ground_truth(boxes_of(pixels, "ab"), 256, rounding="nearest", consensus="annotators")

    assert set(np.unique(public)) == {0, 0.5, 1}
    np.testing.assert_array_equal(one_person.g, public > 0)
    assert one_person.mass == 2 * 100 * 100 - 50 * 50
    np.testing.assert_array_equal(two_people.g, public)


def test_masks_and_sums_describe_one_map():
    pixels = [(10, 10, 100, 100), (50, 50, 150, 150), (60, 60, 90, 90)]
    (truth,) = ground_truth(boxes_of(pixels), 256, rounding="nearest", consensus="annotators")

    assert truth.mass == truth.g.sum()
    assert truth.n_support == np.count_nonzero(truth.g)
    np.testing.assert_array_equal(truth.full, truth.g == 1)
    np.testing.assert_array_equal(truth.support, truth.g > 0)


def test_each_source_gets_the_union_of_its_own_boxes():
    pixels = [(1, 1, 65, 65), (129, 129, 193, 193), (33, 33, 97, 97)]
    boxes = boxes_of(pixels, sources=["cello", "flute", "cello"])

    cello, flute = ground_truth(boxes, 256, rounding="nearest", consensus="per-source")

    assert cello.mass == cello.n_support == 2 * 64 * 64 - 32 * 32
    assert flute.mass == 64 * 64
    assert not (cello.support & flute.support).any()


def test_silent_boxes_never_enter():
    silent = Box("clip", "cello", "a", False, 0, 0, 1, 1)

    assert ground_truth([silent], 224, rounding="floor", consensus="union") == []
    (truth,) = ground_truth([silent, *boxes_of([(1, 1, 9, 9)])], 256, rounding="nearest", consensus="annotators")
    assert truth.mass == 64


@pytest.mark.parametrize("corners", [(1.1, 0.2, 1.4, 0.5), (-0.5, 0.1, 0.0, 0.2), (0.25, 0.5, 0.25, 0.5)])
def test_a_box_with_nothing_left_is_counted(corners):
    (truth,) = ground_truth([Box("clip", "s", "a", True, *corners)], 224, rounding="nearest", consensus="annotators")

    assert (truth.n_outside, truth.n_support, truth.mass) == (1, 0, 0)


def test_a_box_over_the_edge_is_cut():
    (truth,) = ground_truth(
        [Box("clip", "s", "a", True, -0.5, 0.5, 0.5, 1.5)], 100, rounding="nearest", consensus="union"
    )

    assert truth.n_outside == 0
    expected = np.zeros((100, 100), bool)
    expected[50:, :50] = True
    np.testing.assert_array_equal(truth.support, expected)
