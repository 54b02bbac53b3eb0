"""The demo's six background types.

Conventions
-----------
Fields are float32 (row, col) or (row, col, channel) and cover the whole canvas; colors are 0-255.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable

import numpy as np
from PIL import Image

SIDE = 160  # frame width and height, pixels
BORDER = 24  # extra background on each side, so that the camera can pan without leaving the canvas
_CANVAS = SIDE + 2 * BORDER


def draw_background(kind: str, *, hue: float | None, rng: np.random.Generator) -> Image.Image:
    """Draw one background type on the whole canvas (RGB).

    `hue` is a shift of the usual colors, in turns [0, 1); None keeps them.
    """
    field = _BACKGROUNDS[kind](rng)
    # Surface grain, like that of the sprites (`drawing._shaded`).
    field *= 1 + 0.05 * rng.standard_normal((_CANVAS, _CANVAS, 1), dtype=np.float32)
    image = Image.fromarray(np.clip(field, 0, 255).astype(np.uint8))
    return image if hue is None else _recolored(image, hue)


def _recolored(image: Image.Image, hue: float) -> Image.Image:
    shifted, saturation, value = image.convert("HSV").split()
    shifted = shifted.point([(i + round(255 * hue)) % 256 for i in range(256)])
    return Image.merge("HSV", (shifted, saturation, value)).convert("RGB")


def _noise(rng: np.random.Generator, cells: int, *, blocky: bool = False) -> np.ndarray:
    """Return smooth (or blocky) zero-mean noise, float32 (row, col), from a grid of `cells` x `cells` values."""
    grid = Image.fromarray(rng.standard_normal((cells, cells), dtype=np.float32))
    method = Image.Resampling.NEAREST if blocky else Image.Resampling.BICUBIC
    return np.asarray(grid.resize((_CANVAS, _CANVAS), method))


def _grid() -> tuple[np.ndarray, np.ndarray]:
    """Return canvas coordinates in pixels: y (row, 1) and x (1, col)."""
    steps = np.arange(_CANVAS, dtype=np.float32)
    return steps[:, None], steps[None, :]


def _color(rng: np.random.Generator, hue: float, saturation: float, value: float, spread: float = 1.0) -> np.ndarray:
    """Return a random RGB color close to the given HSV color, float32 (3,)."""
    h, s, v = (hue, saturation, value) + spread * rng.uniform(-1, 1, 3) * (0.03, 0.12, 0.12)
    return np.array(colorsys.hsv_to_rgb(h % 1, np.clip(s, 0, 1), np.clip(v, 0, 1)), dtype=np.float32) * 255


def _mix(a: np.ndarray, b: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Interpolate linearly from ``a`` (where `weight`, (row, col), is 0) to ``b`` (where it is 1)."""
    return a + (b - a) * np.clip(weight, 0, 1).astype(np.float32)[..., None]


def _bricks(rng: np.random.Generator) -> np.ndarray:
    y, x = _grid()
    height = rng.uniform(11, 18)
    width = height * rng.uniform(1.7, 2.3)
    y, x = y + rng.uniform(0, height), x + rng.uniform(0, width)
    row = np.floor(y / height).astype(int)
    # Every other row is shifted by half a brick.
    across = x / width + 0.5 * (row % 2)
    column = np.floor(across).astype(int)
    joint = np.maximum((y / height % 1) * height < 2, (across % 1) * width < 2)
    tint = rng.uniform(0.75, 1.15, (40, 40)).astype(np.float32)[row, column]
    brick = _color(rng, 0.02, 0.55, 0.55) * (tint + 0.06 * _noise(rng, 60))[..., None]
    return _mix(brick, _color(rng, 0.08, 0.2, 0.75), joint)


def _checker(rng: np.random.Generator) -> np.ndarray:
    y, x = _grid()
    cell = rng.uniform(18, 32)
    row, column = ((y + rng.uniform(0, cell)) // cell).astype(int), ((x + rng.uniform(0, cell)) // cell).astype(int)
    tint = rng.uniform(0.9, 1.1, (20, 20)).astype(np.float32)[row, column]
    hue, gray = rng.uniform(), rng.uniform(0.05, 0.25)
    pair = _mix(_color(rng, hue, gray, 0.40), _color(rng, hue, gray, 0.75), (row + column) % 2)
    return pair * (tint + 0.04 * _noise(rng, 50))[..., None]


def _leaves(rng: np.random.Generator) -> np.ndarray:
    level = _noise(rng, int(rng.integers(9, 16))) + 0.5 * _noise(rng, 36, blocky=True)
    dark, bright = _color(rng, 0.27, 0.6, 0.28), _color(rng, 0.20, 0.5, 0.62)
    return _mix(dark, bright, np.floor(level * 1.5 + 2) / 4)


def _wood(rng: np.random.Generator) -> np.ndarray:
    y, x = _grid()
    if rng.uniform() < 0.5:
        y, x = x, y
    warp = 5 * _noise(rng, 5) + 1.5 * _noise(rng, 12)
    rings = np.sin((y + warp + 0.15 * x) * np.float32(2 * np.pi / rng.uniform(9, 18)))
    return _mix(
        _color(rng, 0.06, 0.65, 0.38), _color(rng, 0.08, 0.55, 0.68), 0.5 + 0.4 * rings + 0.12 * _noise(rng, 70)
    )


def _night(rng: np.random.Generator) -> np.ndarray:
    y, x = _grid()
    top, bottom = _color(rng, 0.72, 0.45, 0.20), _color(rng, 0.68, 0.4, 0.30)
    field = _mix(top, bottom, y / _CANVAS + 0 * x)
    cx, cy, reach = rng.uniform(0, _CANVAS), rng.uniform(0, _CANVAS), rng.uniform(30, 70)
    glow = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * reach**2))
    field = _mix(field, _color(rng, rng.uniform(), 0.35, 0.6), 0.8 * glow)
    stars = rng.integers(0, _CANVAS - 1, (45, 2))
    field[stars[:, 0], stars[:, 1]] += rng.uniform(40, 160, (45, 1)).astype(np.float32)
    return field + 6 * _noise(rng, 16)[..., None]


def _landscape(rng: np.random.Generator) -> np.ndarray:
    y, x = _grid()
    sky = _mix(_color(rng, 0.57, 0.45, 0.75), _color(rng, 0.55, 0.2, 0.9), y / _CANVAS + 0.1 * _noise(rng, 6))
    hill = _mix(
        _color(rng, 0.29, 0.5, 0.30),
        _color(rng, 0.24, 0.45, 0.55),
        0.5 + 0.3 * _noise(rng, 42) + 0.2 * _noise(rng, 10),
    )
    horizon = rng.uniform(0.35, 0.7) * _CANVAS + 10 * np.sin(x / rng.uniform(15, 40) + rng.uniform(0, 6))
    return _mix(sky, hill, (y - horizon) / 2 + 0.5)


_BACKGROUNDS: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "bricks": _bricks,
    "checker": _checker,
    "leaves": _leaves,
    "wood": _wood,
    "night": _night,
    "landscape": _landscape,
}
