"""The demo's ten kinds of objects, as polygons.

Conventions
-----------
A shape is a list of patches, back to front. Points are float64 (point, 2), x to the right and y down, in the object's
own units. Only proportions matter, because the scene scales each rotated shape to the planned size. The bounding box
therefore follows from the points, without drawing anything.
`variation` holds four numbers in [0, 1) that vary the proportions and the counts (petals, teeth, stripes) of a kind.
Each kind has its own texture, so that a network can recognize it from a quarter of the object.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pipeline.datasets.demo.polygons import Patch, bar, ellipse, line, polygon, profile

Variation = tuple[float, float, float, float]


def shape(kind: str, variation: Variation) -> list[Patch]:
    """Return the patches of one object.

    Parameters
    ----------
    kind : str
        One of `KINDS` or `CLUTTER`.
    variation : tuple of four floats in [0, 1)

    Returns
    -------
    list of Patch
    """
    return _SHAPES[kind](*variation)


def _bell(a: float, b: float, c: float, d: float) -> list[Patch]:
    y = np.linspace(-0.85, 0.62, 14)
    rise = (y + 0.85) / 1.47
    half = 0.26 + 0.24 * rise**0.6 + (0.22 + 0.16 * a) * rise**5
    rim = float(half[-1])
    patches = [
        ellipse(0, -0.92, 0.15, 0.16, "shade", edge=True),
        ellipse(0, 0.78, 0.17, 0.17, "shade", edge=True),
        profile(y, half, "main", edge=True),
    ]
    for at in (0.30, 0.62 + 0.1 * b):
        i = int(at * 13)
        patches.append(bar(-half[i] * 0.96, y[i], half[i] * 0.96, y[i] + 0.07, "shade"))
    patches.append(profile(y[1:-2], half[1:-2] * (0.18 + 0.12 * c), "light"))
    patches.append(ellipse(0, 0.62, rim + 0.06, 0.12 + 0.05 * d, "light", edge=True))
    patches.append(ellipse(0, 0.63, rim - 0.10, 0.055, "shade"))
    return patches


def _drum(a: float, b: float, c: float, d: float) -> list[Patch]:
    height, taper, teeth = 0.62 + 0.25 * a, 0.05 + 0.15 * b, 5 + int(3 * c)
    body = [(-1.0, -height), (1.0, -height), (1 - taper, height), (0.5, height + 0.1), (-0.5, height + 0.1)]
    body.append((-1 + taper, height))
    patches = [polygon(body, "main", edge=True)]
    x = np.linspace(-0.93 + taper / 2, 0.93 - taper / 2, 2 * teeth + 1)
    swing = np.where(np.arange(2 * teeth + 1) % 2 == 0, height * 0.72, -height * 0.38)
    patches.append(line(list(zip(x, swing, strict=True)), 0.20, "pale"))
    patches.append(bar(-1 + taper, height * 0.80, 1 - taper, height * 0.97, "accent"))
    patches.append(ellipse(0, -height, 1.0, 0.20 + 0.1 * d, "accent", edge=True))
    patches.append(ellipse(0, -height, 0.86, 0.13 + 0.1 * d, "light"))
    return patches


def _guitar(a: float, b: float, c: float, d: float) -> list[Patch]:
    low, high = 0.58 + 0.1 * a, 0.42 + 0.08 * b
    neck = -1.25 - 0.25 * c
    patches = [
        ellipse(0, 0.62, low, 0.50, "main", edge=True),
        ellipse(0, 0.02, high, 0.40, "main", edge=True),
        ellipse(0, 0.62, low * 0.84, 0.41, "light"),
        ellipse(0, 0.04, high * 0.8, 0.36, "light"),
        ellipse(0, 0.62, low * 0.62, 0.31, "main"),
        bar(-0.12, neck, 0.12, 0.16, "shade", edge=True),
        bar(-0.20, neck - 0.28, 0.20, neck, "ink", edge=True),
        ellipse(0, 0.26, 0.23, 0.21, "ink"),
        bar(-0.28, 0.74, 0.28, 0.84, "ink"),
    ]
    for fret in np.linspace(neck + 0.12, -0.1, 5 + int(2 * d)):
        patches.append(bar(-0.12, fret, 0.12, fret + 0.05, "pale"))
    patches += [bar(x - 0.018, -0.1, x + 0.018, 0.78, "pale") for x in (-0.08, 0.0, 0.08)]
    return patches


def _pipes(a: float, b: float, c: float, d: float) -> list[Patch]:
    count = 6 + int(3 * a)
    edges = np.linspace(-1, 1, count + 1)
    step = (0.55 + 0.3 * b) / count
    patches = []
    for i in range(count):
        bottom = 0.85 - i * step * (1 if d < 0.5 else -1) - (step * count if d >= 0.5 else 0)
        patches.append(bar(edges[i] + 0.03, -0.8, edges[i + 1] - 0.03, bottom, "main" if i % 2 else "shade", edge=True))
        patches.append(bar(edges[i] + 0.08, -0.78, edges[i] + 0.14, bottom - 0.04, "light"))
        patches.append(bar(edges[i] + 0.06, -0.78, edges[i + 1] - 0.06, -0.66, "ink"))
    for y in (-0.45, -0.05 - 0.1 * c):
        patches.append(line([(-1.06, y), (1.06, y + 0.06)], 0.13, "pale"))
    return patches


def _bird(a: float, b: float, c: float, d: float) -> list[Patch]:
    plump = 0.48 + 0.12 * a
    patches = [
        polygon([(0.45, 0.0), (1.25, -0.35 - 0.2 * b), (1.3, -0.1), (1.2, 0.12), (0.5, 0.45)], "shade", edge=True),
        polygon([(-0.9, -0.45), (-1.3, -0.26 - 0.1 * c), (-0.88, -0.16)], "accent", edge=True),
        ellipse(0.05, 0.22, 0.82, plump, "main", edge=True, turn=-0.1),
        ellipse(-0.62, -0.32, 0.40, 0.38, "main", edge=True),
        ellipse(-0.45, 0.10, 0.42, 0.35, "main"),
        ellipse(-0.25, 0.42, 0.45, plump * 0.42, "light"),
        ellipse(0.28, 0.12, 0.50, 0.30, "accent", edge=True, turn=0.25),
    ]
    for row in range(3):
        for column in range(3):
            x, y = 0.02 + 0.22 * column + 0.05 * row, -0.05 + 0.16 * row + 0.07 * column
            patches.append(ellipse(x, y, 0.085, 0.055, "pale", n=10))
    patches.append(ellipse(-0.70, -0.40, 0.15, 0.15, "white", n=16))
    patches.append(ellipse(-0.72, -0.40, 0.075 + 0.03 * d, 0.08, "ink", n=12))
    return patches


def _gong(a: float, b: float, c: float, d: float) -> list[Patch]:
    squash, rings = 0.78 + 0.22 * a, 5 + int(3 * b)
    patches = []
    for i in range(rings):
        radius = 1 - i / rings
        patches.append(ellipse(0, 0, radius, radius * squash, "shade" if i % 2 else "light", edge=i == 0))
    patches.append(ellipse(0, 0, 0.10 + 0.08 * c, (0.10 + 0.08 * c) * squash, "pale" if d < 0.5 else "ink"))
    return patches


def _gear(a: float, b: float, c: float, d: float) -> list[Patch]:
    teeth, root = 8 + int(4 * a), 0.74 + 0.06 * b
    angle = np.arange(teeth * 4) * (2 * np.pi / (teeth * 4))
    radius = np.tile([root, 1.0, 1.0, root], teeth)
    outline = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    patches = [Patch(outline, "main", edge=True), ellipse(0, 0, 0.60, 0.60, "shade"), ellipse(0, 0, 0.52, 0.52, "pale")]
    holes = 5 + int(3 * c)
    for turn in np.arange(holes) * (2 * np.pi / holes):
        patches.append(ellipse(0.36 * np.cos(turn), 0.36 * np.sin(turn), 0.11, 0.11, "ink", n=12))
    patches.append(ellipse(0, 0, 0.2, 0.2, "main", edge=True))
    patches.append(ellipse(0, 0, 0.07 + 0.04 * d, 0.07 + 0.04 * d, "ink", n=12))
    return patches


def _flower(a: float, b: float, c: float, d: float) -> list[Patch]:
    petals, width = 5 + int(3 * a), 0.24 + 0.08 * b
    patches = []
    for turn in np.arange(petals) * (2 * np.pi / petals):
        x, y = np.cos(turn), np.sin(turn)
        patches.append(ellipse(0.60 * x, 0.60 * y, 0.42, width * 6 / (petals + 1), "main", edge=True, turn=turn))
        patches.append(ellipse(0.58 * x, 0.58 * y, 0.32, 0.045, "light", turn=turn, n=12))
    core = 0.24 + 0.06 * c
    patches.append(ellipse(0, 0, core, core, "accent", edge=True))
    for turn in np.arange(6) * (np.pi / 3) + d:
        patches.append(ellipse(0.6 * core * np.cos(turn), 0.6 * core * np.sin(turn), 0.045, 0.045, "ink", n=8))
    return patches


def _beanie(a: float, b: float, c: float, d: float) -> list[Patch]:
    stripes, tall = 5 + 2 * int(2 * a), 1.0 + 0.25 * b
    level = np.linspace(-1, 0, 10)
    dome = np.sqrt(1 - level**2) * 0.88
    patches = [ellipse(0, -tall, 0.16 + 0.1 * c, 0.17, "accent", edge=True), profile(level * tall, dome, "main", True)]
    cuts = np.linspace(-1, 1, stripes + 1)
    for i in range(0, stripes, 2):
        left = np.stack([dome * cuts[i] * 0.96, level * tall * 0.97], axis=1)
        right = np.stack([dome * cuts[i + 1] * 0.96, level * tall * 0.97], axis=1)
        patches.append(Patch(np.concatenate([left, right[::-1]]), "accent"))
    depth = 0.30 + 0.1 * d
    patches.append(bar(-0.98, -0.06, 0.98, depth, "main", edge=True))
    for x in np.linspace(-0.88, 0.88, 13):
        patches.append(bar(x - 0.025, -0.02, x + 0.025, depth - 0.04, "shade"))
    return patches


def _trumpet(a: float, b: float, c: float, d: float) -> list[Patch]:
    y = np.linspace(-1.25, 0.95, 16)
    rise = (y + 1.25) / 2.2
    half = 0.09 + 0.10 * rise + (0.5 + 0.16 * a) * rise ** (4.5 + 2 * b)
    mouth = float(half[-1])
    patches = [bar(0.02, -0.55, 0.42, 0.12, "shade", edge=True), bar(0.12, -0.44, 0.32, 0.02, "light")]
    for i in range(3):
        at = -0.52 + 0.2 * i
        patches.append(bar(0.36, at, 0.64 + 0.08 * c, at + 0.11, "pale", edge=True))
    patches.append(profile(y, half, "main", edge=True))
    patches.append(profile(y[:-1], half[:-1] * 0.3, "light"))
    for i in (1, 3, 5, 9, 11, 13):
        patches.append(bar(-half[i], y[i] - 0.035, half[i], y[i] + 0.035, "ink"))
    patches.append(ellipse(0, -1.28, 0.17, 0.10, "pale", edge=True))
    patches.append(ellipse(0, 0.95, mouth + 0.05, 0.15 + 0.06 * d, "accent", edge=True))
    patches.append(ellipse(0, 0.96, mouth * 0.75, 0.08 + 0.04 * d, "ink"))
    return patches


def _pebble(a: float, b: float, c: float, d: float) -> list[Patch]:
    return [ellipse(0, 0, 1, 0.4 + 0.6 * a, "main", n=8 + int(20 * b))]


def _card(a: float, b: float, c: float, d: float) -> list[Patch]:
    slant = 0.3 * (b - 0.5)
    return [polygon([(-1, -0.4 - 0.5 * a), (1, -0.4 - 0.5 * a + slant), (1, 0.9), (-1, 0.9 - slant)], "main")]


_KINDS: dict[str, Callable[[float, float, float, float], list[Patch]]] = {
    "bell": _bell,
    "drum": _drum,
    "guitar": _guitar,
    "pipes": _pipes,
    "bird": _bird,
    "gong": _gong,
    "gear": _gear,
    "flower": _flower,
    "beanie": _beanie,
    "trumpet": _trumpet,
}
_CLUTTER = {"pebble": _pebble, "card": _card}
_SHAPES = {**_KINDS, **_CLUTTER}

KINDS = tuple(_KINDS)
CLUTTER = tuple(_CLUTTER)
