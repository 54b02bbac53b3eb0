"""Each named rule against its published formula, written out here and independent of the fields."""

import math
from dataclasses import replace
from functools import cache
from typing import NamedTuple

import numpy as np
import pytest

from pipeline.common.errors import EvaluationError
from pipeline.manifests.boxes import Box
from pipeline.scoring.protocols import PROTOCOLS, get_protocol
from pipeline.scoring.score import score, score_all

# --- the published pieces, plainly --------------------------------------------------------------------------------


def taps(position, side, kind):
    """Cells and weights that make up one output position of one axis."""
    base = math.floor(position)
    fraction = position - base
    if kind == "bilinear":
        pairs = [(base, 1 - fraction), (base + 1, fraction)]
    else:
        pairs = []
        for offset in (-1, 0, 1, 2):
            x, a = abs(fraction - offset), -0.75
            inner = (a + 2) * x**3 - (a + 3) * x**2 + 1
            outer = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
            pairs.append((base + offset, inner if x <= 1 else outer))
    return [(min(max(cell, 0), side - 1), weight) for cell, weight in pairs]


@cache
def weights(side, size, kind, align_corners):
    """What each of `side` cells gives to each of `size` pixels of one axis."""
    matrix = np.zeros((size, side))
    for pixel in range(size):
        position = pixel * (side - 1) / (size - 1) if align_corners else (pixel + 0.5) * side / size - 0.5
        if kind == "bilinear":
            position = max(position, 0.0)
        for cell, weight in taps(position, side, kind):
            matrix[pixel, cell] += weight
    return matrix


def resize(cells, size, kind, align_corners):
    matrix = weights(len(cells), size, kind, align_corners)
    return matrix @ cells @ matrix.T


def min_max(values):
    return (values - values.min()) / (values.max() - values.min())


def median(values):
    return np.sort(values, axis=None)[values.size // 2]


def oracle(values, g):
    k = int((g != 0).sum()) or values.size // 2
    return np.sort(values, axis=None)[values.size - k]


def grid_zero_based(pixels, size):  # the 256 grid of MSSL, at any size
    g = np.zeros((size, size))
    for box in pixels:
        xmin, ymin, xmax, ymax = (math.floor((value - 1) / 256 * size + 0.5) for value in box)
        g[ymin:ymax, xmin:xmax] += 1
    return g


def grid_one_based(pixels, size):
    g = np.zeros((size, size))
    for box in pixels:
        xmin, ymin, xmax, ymax = (int(size * int(value) / 256) for value in box)
        g[ymin:ymax, xmin:xmax] += 1
    return g


def grid_fractions(pixels, size):
    g = np.zeros((size, size))
    for box in pixels:
        xmin, ymin, xmax, ymax = (int(np.clip((value - 1) / 256, 0, 1) * size) for value in box)
        g[ymin:ymax, xmin:xmax] += 1
    return g


def grid_sizes(boxes, size):
    """Fill [y:y + h, x:x + w] of rows [x, y, w, h], each number rounded down for itself."""
    g = np.zeros((size, size))
    for x, y, w, h in boxes:
        column, row = int(x * size), int(y * size)
        g[row : row + int(h * size), column : column + int(w * size)] += 1
    return g


def shared(g):
    return np.minimum(g / 2, 1)


def union(g):
    return (g > 0).astype(float)


def ciou(region, g):
    return (region * g).sum() / (g.sum() + np.count_nonzero(region & (g == 0)))


class Part(NamedTuple):
    """A map on the grid, what of it sounds, where the line was drawn, and the truth."""

    m: np.ndarray
    region: np.ndarray
    line: float
    g: np.ndarray


def above(m, line, g):
    return [Part(m, m > line, line, g)]


def from_on(m, line, g):
    return [Part(m, m >= line, line, g)]


def value(parts):
    values = [ciou(part.region, part.g) for part in parts]
    return sum(values) / len(values)


# --- the rules ----------------------------------------------------------------------------------------------------


def paper(raw, pixels, size):
    return above(resize(min_max(raw), size, "bilinear", False), 0.5, shared(grid_zero_based(pixels, size)))


def paper_median(raw, pixels, size):
    m = resize(min_max(raw), size, "bilinear", False)
    return above(m, median(m), shared(grid_zero_based(pixels, size)))


def mssl(raw, pixels, size, threshold=0.5):
    m = resize(np.maximum(raw, 0), size, "bilinear", False)
    return above(m / m.max(), threshold, shared(grid_zero_based(pixels, size)))


def mssl_calmetric(raw, pixels, size):
    return mssl(raw, pixels, size, threshold=0.001)


def lvs(raw, pixels, size):
    m = 1 - min_max(-resize(raw, size, "bilinear", False))
    return above(m, median(m), shared(grid_one_based(pixels, size)))


def ezvsl(raw, pixels, size, kind="bilinear", align_corners=True, g=None):
    m = min_max(resize(raw, size, kind, align_corners))
    return from_on(m, median(m), shared(grid_one_based(pixels, size)) if g is None else g)


def ezvsl_validate(raw, pixels, size):
    return ezvsl(raw, pixels, size, "bicubic", False)


def sspl(raw, pixels, size):
    m = min_max(resize(raw, size, "bilinear", False))
    return from_on(m, 0.5, shared(grid_one_based(pixels, size)))


def sslalignment(raw, pixels, size):
    m = min_max(resize(raw, size, "bilinear", True))
    return above(m, median(m), shared(grid_one_based(pixels, size)))


def sslalignment_adaptive(raw, pixels, size):
    m, g = min_max(resize(raw, size, "bilinear", True)), shared(grid_one_based(pixels, size))
    return above(m, oracle(m, g), g)


def iiou(raw, pixels, size):
    m = min_max(resize(raw, size, "bilinear", True))
    return above(m, median(m), union(grid_zero_based(pixels, size)))


def iiou_adaptive(raw, pixels, size):
    m, g = min_max(resize(raw, size, "bilinear", True)), union(grid_zero_based(pixels, size))
    return above(m, oracle(m, g), g)


def slavc(raw, pixels, size):
    return ezvsl(raw, pixels, size, "bicubic", True)


def slavc_vggss(raw, pixels, size):
    return ezvsl(raw, pixels, size, "bicubic", True, union(grid_fractions(pixels, size)))


def vggss(raw, pixels, size):
    m = 1 - min_max(-resize(raw, size, "bilinear", False))
    return above(m, median(m), union(grid_fractions(pixels, size)))


def ezvsl_vggss(raw, pixels, size):
    return ezvsl(raw, pixels, size, g=union(grid_fractions(pixels, size)))


def sslalignment_vggss(raw, pixels, size):
    m = min_max(resize(raw, size, "bilinear", False))
    return above(m, median(m), union(grid_fractions(pixels, size)))


def sslalignment_vggss_adaptive(raw, pixels, size):
    m, g = min_max(resize(raw, size, "bilinear", False)), union(grid_fractions(pixels, size))
    return above(m, oracle(m, g), g)


def music_a(raw, boxes, size):
    m = resize(min_max(raw), size, "bilinear", False)
    truths = [union(grid_sizes(own, size)) for own in (boxes[::2], boxes[1::2])]  # as `sources` in `clip_boxes`
    return [part for g in truths if g.any() for part in above(m, 0.5 * m.max(), g)]


def music_b(raw, boxes, size):
    m = resize(min_max(raw), size, "bilinear", False)
    return above(m, 0.5 * m.max(), union(grid_sizes(boxes, size)))


PUBLISHED = {
    "paper256": paper,
    "paper256-median": paper_median,
    "mssl256": mssl,
    "mssl256-calmetric": mssl_calmetric,
    "lvs224-median": lvs,
    "ezvsl224-median": ezvsl,
    "ezvsl224-validate": ezvsl_validate,
    "sspl224": sspl,
    "sslalignment224-median": sslalignment,
    "sslalignment224-adaptive": sslalignment_adaptive,
    "iiou224": iiou,
    "iiou224-adaptive": iiou_adaptive,
    "slavc224": slavc,
    "slavc-vggss224": slavc_vggss,
    "vggss224": vggss,
    "ezvsl-vggss224": ezvsl_vggss,
    "sslalignment-vggss224-median": sslalignment_vggss,
    "sslalignment-vggss224-adaptive": sslalignment_vggss_adaptive,
    "music-synthetic-a": music_a,
    "music-synthetic-b": music_b,
}
SIZED = {"music-synthetic-a", "music-synthetic-b"}


def clip_boxes(clip_id, rows, name=""):
    """Boxes as the project has them, of rows in the form in which the rule's data are published."""
    corners = [
        (row[0], row[1], row[0] + row[2], row[1] + row[3]) if name in SIZED else tuple((v - 1) / 256 for v in row)
        for row in rows
    ]
    return [Box(clip_id, ("cello", "flute")[k % 2], f"annotator_{k}", True, *box) for k, box in enumerate(corners)]


def random_rows(generator, n_boxes, name=""):
    """Corners in pixels from 1 of a 256×256 frame; for `SIZED` rules [x, y, w, h] in fractions, off every grid."""
    rows = []
    for _ in range(n_boxes):
        x, y = (int(value) for value in generator.integers(1, 150, size=2))
        width, height = (int(value) for value in generator.integers(40, 107, size=2))
        if name in SIZED:
            rows.append(tuple((v + generator.random()) / 260 for v in (x - 1, y - 1, width, height)))
        else:
            rows.append((x, y, x + width, y + height))
    return rows


def checkerboard():
    return np.indices((7, 7)).sum(axis=0) % 2


def staircase(generator):
    """Few levels, both ends of the range present: many pixels tie exactly with the threshold."""
    cells = generator.integers(0, 5, size=(7, 7)) / 4
    cells[0, 0], cells[-1, -1] = 0, 1
    return cells


def adversarial_maps(generator):
    peak, ramp = np.zeros((7, 7)), np.tile(np.arange(7) / 8, (7, 1))
    peak[3, 3] = 1.0
    ramp[0, 6] = 1.0
    halves = np.repeat([0.0, 0.5, 1.0], [20, 9, 20]).reshape(7, 7)
    return [checkerboard() * 1.0, 1.0 - checkerboard(), peak, ramp, halves, staircase(generator), staircase(generator)]


def test_every_protocol_has_its_published_formula_here():
    assert set(PUBLISHED) == set(PROTOCOLS)
    for name, protocol in PROTOCOLS.items():
        assert get_protocol(name) is protocol
        assert protocol.source
        assert f"{protocol.size}" in name or name.startswith("music-synthetic")


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_formula(name):
    # 7 → 28 and, with aligned corners, 7 → 25 have weights that are exact in binary, so that ties with the threshold are
    # ties in float32 too.
    protocol = replace(PROTOCOLS[name], size=25 if PROTOCOLS[name].align_corners else 28)
    generator = np.random.default_rng(0)
    maps = [generator.normal(size=(7, 7)) for _ in range(6)] + adversarial_maps(generator)
    ids = [f"clip_{k}" for k in range(len(maps))]
    rows = [random_rows(generator, int(generator.integers(2, 5)), name) for _ in maps]

    scores = score(
        np.stack(maps), ids, [b for i, p in zip(ids, rows, strict=True) for b in clip_boxes(i, p, name)], protocol
    )

    expected = [value(PUBLISHED[name](m, p, protocol.size)) for m, p in zip(maps, rows, strict=True)]
    assert scores.clip_ids == tuple(ids)
    np.testing.assert_allclose(scores.ciou, expected, rtol=0, atol=1e-9)
    assert len(set(np.round(expected, 6))) > 5


# In pixels from 1 to 257, where the frame ends.
ADVERSARIAL_BOXES = {
    "whole frame": [(1, 1, 257, 257)] * 2,
    "whole frame and a part": [(1, 1, 257, 257), (60, 70, 130, 90)],
    "first pixel": [(1, 1, 2, 2)] * 2,
    "last pixel": [(256, 256, 257, 257)] * 2,
    "corners": [(1, 256, 2, 257), (256, 1, 257, 2)],
    "first and last row": [(1, 1, 257, 2), (1, 256, 257, 257)],
    "first and last column": [(1, 1, 2, 257), (256, 1, 257, 257)],
    "one pixel inside": [(129, 129, 130, 130), (100, 57, 101, 58)],
    "from the edge": [(1, 40, 90, 257), (1, 1, 90, 200)],
    "to the edge": [(200, 1, 257, 90), (140, 3, 257, 257)],
    "nested": [(50, 50, 200, 200), (80, 80, 120, 120)],
    "nested three times": [(40, 30, 220, 210), (80, 80, 180, 160), (81, 81, 82, 82)],
    "identical": [(33, 65, 129, 193)] * 3,
    "touching sides": [(20, 20, 100, 100), (100, 20, 180, 100)],
    "touching corners": [(20, 20, 100, 100), (100, 100, 180, 180)],
    "almost touching": [(20, 20, 100, 100), (101, 20, 180, 100)],
    "disjoint": [(1, 1, 30, 30), (200, 200, 257, 257), (100, 1, 140, 20)],
}
ROUNDING = 1e-6  # of a map in [0, 1]: more than what float32 loses where it is normalized and enlarged


def any_pixels(generator):
    """Boxes of any size and place, one pixel and the whole frame among them."""
    edges = [np.sort(generator.choice(np.arange(1, 258), (2, 2), replace=False), axis=0) for _ in range(3)]
    return [tuple(int(v) for v in corners.ravel()) for corners in edges]


def sized(x0, y0, x1, y1):
    """Corners in pixels from 1 of a 256×256 frame as [x, y, w, h] in fractions."""
    return tuple(v / 256 for v in (x0 - 1, y0 - 1, x1 - x0, y1 - y0))


def bounds(parts):
    """The least and the most that a clip can score if pixels within rounding of the line may fall on either side."""
    ends = []
    for m, region, line, g in parts:
        near = np.abs(m - line) <= ROUNDING
        if np.count_nonzero(near) == 1 and m[near] == line:
            near[:] = False  # the pixel that drew the line itself; it lies where the comparison puts it
        ends.append((ciou(np.where(near, g == 0, region), g), ciou(np.where(near, g > 0, region), g)))
    low, high = (sum(each) / len(ends) for each in zip(*ends, strict=True))
    return low, high


def test_the_reference_enlarges_as_the_double_sum_says():
    cells = np.random.default_rng(4).normal(size=(5, 5))
    for kind in ("bilinear", "bicubic"):
        for align_corners in (False, True):
            small = resize(cells, 12, kind, align_corners)
            for row, col in ((0, 0), (3, 7), (11, 4)):
                places = [
                    p * 4 / 11 if align_corners else max((p + 0.5) * 5 / 12 - 0.5, 0 if kind == "bilinear" else -1)
                    for p in (row, col)
                ]
                down, along = (taps(place, 5, kind) for place in places)
                plain = sum(a * b * cells[r][c] for r, a in down for c, b in along)
                assert small[row, col] == pytest.approx(plain, abs=1e-12)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_formula_on_its_own_grid(name):
    """Equal to the last bit, but for pixels within float32 rounding of the threshold, which may fall on either side."""
    protocol, side = PROTOCOLS[name], PROTOCOLS[name].size // 16
    generator = np.random.default_rng(1)
    pixels = {**ADVERSARIAL_BOXES, **{f"random {k}": any_pixels(generator) for k in range(40 - len(ADVERSARIAL_BOXES))}}
    # A frame has structure: half of the maps are smooth.
    maps = generator.normal(size=(len(pixels), side, side))
    maps[::2] = [weights(4, side, "bicubic", True) @ m[:4, :4] @ weights(4, side, "bicubic", True).T for m in maps[::2]]
    maps = maps.astype(np.float32)
    rows = {clip_id: [sized(*own) for own in each] if name in SIZED else each for clip_id, each in pixels.items()}
    boxes = [box for clip_id, own in rows.items() for box in clip_boxes(clip_id, own, name)]

    scores = score(maps, list(pixels), boxes, protocol)

    parts = [PUBLISHED[name](m.astype(np.float64), p, protocol.size) for m, p in zip(maps, rows.values(), strict=True)]
    there = [bool(each) and each[0].g.any() for each in parts]  # a box may be less than a pixel of a smaller grid
    assert scores.clip_ids == tuple(clip_id for clip_id, is_there in zip(pixels, there, strict=True) if is_there)
    low, high = np.array([bounds(each) for each, is_there in zip(parts, there, strict=True) if is_there]).T
    expected = np.array([value(each) for each, is_there in zip(parts, there, strict=True) if is_there])
    certain = low == high
    np.testing.assert_array_equal(scores.ciou[certain], expected[certain])
    assert ((low <= scores.ciou) & (scores.ciou <= high)).all()
    assert (high - low).max() < 0.02
    assert certain.sum() >= 20


@pytest.mark.parametrize("name", [n for n, p in PROTOCOLS.items() if p.normalization != "relu-max"])
def test_scale_and_offset_of_a_map_do_not_matter(name):
    generator = np.random.default_rng(2)
    maps = generator.integers(0, 17, size=(6, 8, 8)) / 16
    ids = [str(k) for k in range(6)]
    boxes = [b for i in ids for b in clip_boxes(i, random_rows(generator, 3))]

    plain = score(maps, ids, boxes, PROTOCOLS[name])
    moved = score(maps * 2.0**-12 - 3.0, ids, boxes, PROTOCOLS[name])

    np.testing.assert_allclose(plain.ciou, moved.ciou, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(plain.pointing, moved.pointing)


def test_mirrored_maps_and_boxes_score_the_same():
    generator = np.random.default_rng(3)
    maps = generator.random((4, 16, 16))
    ids = list("abcd")
    boxes = [Box(i, "s", "a", True, *np.sort(generator.integers(0, 65, (2, 2)) / 64, axis=0).ravel()) for i in ids]
    mirrored = [replace(b, x0=1 - b.x1, x1=1 - b.x0) for b in boxes]
    # The floor of a mirrored edge is another pixel; on a 256 grid these boxes need no rounding.
    protocols = [p for p in PROTOCOLS.values() if p.rounding == "nearest" and p.size == 256]

    there = score_all(maps, ids, boxes, protocols)
    back = score_all(maps[:, :, ::-1], ids, mirrored, protocols)

    for protocol in protocols:
        # The mirrored sums are rounded in another order, which may flip a pixel.
        np.testing.assert_allclose(there[protocol.name].ciou, back[protocol.name].ciou, atol=5e-4)
        np.testing.assert_allclose(there[protocol.name].pointing, back[protocol.name].pointing)


def test_unknown_protocol_is_named_and_the_others_listed():
    with pytest.raises(EvaluationError, match=r"'lvs'.*paper256, .*music-synthetic-b"):
        get_protocol("lvs")
