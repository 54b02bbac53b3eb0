"""Each named rule against its published formula, written out here in plain loops and independent of the fields."""

import math
from dataclasses import replace

import numpy as np
import pytest

from pipeline.errors import EvaluationError
from pipeline.manifests import Box
from pipeline.protocols import PROTOCOLS, get_protocol
from pipeline.scoring import score, score_all

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


def resize(cells, size, kind, align_corners):
    side = len(cells)
    axis = []
    for pixel in range(size):
        position = pixel * (side - 1) / (size - 1) if align_corners else (pixel + 0.5) * side / size - 0.5
        if kind == "bilinear":
            position = max(position, 0.0)
        axis.append(taps(position, side, kind))
    result = np.zeros((size, size))
    for row in range(size):
        for col in range(size):
            result[row, col] = sum(
                row_weight * col_weight * cells[r][c] for r, row_weight in axis[row] for c, col_weight in axis[col]
            )
    return result


def min_max(values):
    return (values - values.min()) / (values.max() - values.min())


def median(values):
    return sorted(values.ravel())[values.size // 2]


def oracle(values, g):
    k = int((g != 0).sum()) or values.size // 2
    return sorted(values.ravel())[values.size - k]


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
    hit = mass = false_positives = 0.0
    for p, value in zip(region.ravel(), g.ravel(), strict=True):
        mass += value
        hit += value * p
        false_positives += p and value == 0
    return hit / (mass + false_positives)


# --- the rules ----------------------------------------------------------------------------------------------------


def paper(raw, pixels, size):
    return ciou(resize(min_max(raw), size, "bilinear", False) > 0.5, shared(grid_zero_based(pixels, size)))


def paper_median(raw, pixels, size):
    m = resize(min_max(raw), size, "bilinear", False)
    return ciou(m > median(m), shared(grid_zero_based(pixels, size)))


def mssl(raw, pixels, size, threshold=0.5):
    m = resize(np.maximum(raw, 0), size, "bilinear", False)
    return ciou(m / m.max() > threshold, shared(grid_zero_based(pixels, size)))


def mssl_calmetric(raw, pixels, size):
    return mssl(raw, pixels, size, threshold=0.001)


def lvs(raw, pixels, size):
    m = 1 - min_max(-resize(raw, size, "bilinear", False))
    return ciou(m > median(m), shared(grid_one_based(pixels, size)))


def ezvsl(raw, pixels, size, kind="bilinear", align_corners=True, g=None):
    m = min_max(resize(raw, size, kind, align_corners))
    return ciou(m >= median(m), shared(grid_one_based(pixels, size)) if g is None else g)


def ezvsl_validate(raw, pixels, size):
    return ezvsl(raw, pixels, size, "bicubic", False)


def sspl(raw, pixels, size):
    m = min_max(resize(raw, size, "bilinear", False))
    return ciou(m >= 0.5, shared(grid_one_based(pixels, size)))


def sslalignment(raw, pixels, size):
    m = min_max(resize(raw, size, "bilinear", True))
    return ciou(m > median(m), shared(grid_one_based(pixels, size)))


def sslalignment_adaptive(raw, pixels, size):
    m, g = min_max(resize(raw, size, "bilinear", True)), shared(grid_one_based(pixels, size))
    return ciou(m > oracle(m, g), g)


def iiou(raw, pixels, size):
    m = min_max(resize(raw, size, "bilinear", True))
    return ciou(m > median(m), union(grid_zero_based(pixels, size)))


def iiou_adaptive(raw, pixels, size):
    m, g = min_max(resize(raw, size, "bilinear", True)), union(grid_zero_based(pixels, size))
    return ciou(m > oracle(m, g), g)


def slavc(raw, pixels, size):
    return ezvsl(raw, pixels, size, "bicubic", True)


def slavc_vggss(raw, pixels, size):
    return ezvsl(raw, pixels, size, "bicubic", True, union(grid_fractions(pixels, size)))


def vggss(raw, pixels, size):
    m = 1 - min_max(-resize(raw, size, "bilinear", False))
    return ciou(m > median(m), union(grid_fractions(pixels, size)))


def music_a(raw, boxes, size):
    m = resize(min_max(raw), size, "bilinear", False)
    even, odd = boxes[::2], boxes[1::2]  # as `sources` in `clip_boxes`
    values = [ciou(m > 0.5 * m.max(), union(grid_sizes(own, size))) for own in (even, odd) if own]
    return sum(values) / len(values)


def music_b(raw, boxes, size):
    m = resize(min_max(raw), size, "bilinear", False)
    return ciou(m > 0.5 * m.max(), union(grid_sizes(boxes, size)))


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
    # A small grid keeps plain loops fast. 7 → 28 and, with aligned corners, 7 → 25 have weights that are exact in
    # binary, so that ties with the threshold are ties in float32 too.
    protocol = replace(PROTOCOLS[name], size=25 if PROTOCOLS[name].align_corners else 28)
    generator = np.random.default_rng(0)
    maps = [generator.normal(size=(7, 7)) for _ in range(6)] + adversarial_maps(generator)
    ids = [f"clip_{k}" for k in range(len(maps))]
    rows = [random_rows(generator, int(generator.integers(2, 5)), name) for _ in maps]

    scores = score(
        np.stack(maps), ids, [b for i, p in zip(ids, rows, strict=True) for b in clip_boxes(i, p, name)], protocol
    )

    expected = [PUBLISHED[name](m, p, protocol.size) for m, p in zip(maps, rows, strict=True)]
    assert scores.clip_ids == tuple(ids)
    np.testing.assert_allclose(scores.ciou, expected, rtol=0, atol=1e-9)
    assert len(set(np.round(expected, 6))) > 5


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_formula_on_its_own_grid(name):
    protocol = PROTOCOLS[name]
    generator = np.random.default_rng(1)
    raw = generator.normal(size=(14, 14)).astype(np.float32)
    rows = random_rows(generator, 3, name)

    scores = score(raw[None], ["clip"], clip_boxes("clip", rows, name), protocol)

    # A pixel within float32 rounding of the threshold may fall on the other side.
    expected = PUBLISHED[name](raw.astype(np.float64), rows, protocol.size)
    assert scores.ciou[0] == pytest.approx(expected, abs=2 / protocol.size**2 / 0.05)


@pytest.mark.parametrize("name", [n for n, p in PROTOCOLS.items() if p.normalisation != "relu-max"])
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
    with pytest.raises(EvaluationError, match=r"unknown protocol 'lvs'; there are paper256, .*music-synthetic-b"):
        get_protocol("lvs")
