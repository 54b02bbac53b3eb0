"""Labels on images and video frames with a heat map: a line of text, and the color bar of the map.

Conventions: `pipeline.figures.heatmap`. A label is part of a layer, so that it costs nothing per frame.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipeline.figures.heatmap import Layer, Matrix, heatmap_rgba, to_yuv

_BADGE_WEIGHT = 90  # of 256: share of the image that remains visible behind a notice
_SMALLEST = 180  # pixels: the shorter side of an image that has room for a readable color bar
_BACKGROUND = 24  # gray level behind the color bar
_BEHIND = 128  # gray level that the colors of the bar are painted over, as they are over an image


class _Bar(NamedTuple):
    """A color bar: its place in the image, even, and its pixels, uint8 (row, col, 3), both sides even."""

    top: int
    left: int
    pixels: np.ndarray


def color_bar(length: int) -> np.ndarray:
    """Return the colors of a heat map from 0 to 1 as they look over a gray image: uint8 (length, 3) RGB."""
    rgba = heatmap_rgba()[np.linspace(0, 255, length).round().astype(int)].astype(np.float64)
    share = rgba[:, 3:] / 255
    return np.rint(share * rgba[:, :3] + (1 - share) * _BEHIND).astype(np.uint8)


def add_rgb_bar(layer: Layer, *, height: int, width: int) -> None:
    """Add the color bar, in the lower right corner, to the layer of an RGB image; images of few pixels get none."""
    if bar := _bar(height, width):
        _paste(layer, slice(None), (height, width, 3), bar, bar.pixels)


def add_yuv420_bar(layer: Layer, *, height: int, width: int, matrix: Matrix) -> None:
    """Add the color bar, in the lower right corner, to the layer of a packed yuv420p image; images of few pixels get none."""
    if (bar := _bar(height, width)) is None:
        return
    n = height * width
    y, u, v = to_yuv(bar.pixels, matrix)
    _paste(layer, slice(n), (height, width), bar, y)
    half = bar._replace(top=bar.top // 2, left=bar.left // 2)
    for start, plane in ((n, u), (n + n // 4, v)):
        _paste(layer, slice(start, start + n // 4), (height // 2, width // 2), half, plane[::2, ::2])


def rgb_notice(text: str, *, height: int, width: int) -> Layer:
    """Return a layer that draws one line of text in the upper left corner of RGB images."""
    back, ink = _notice(text, height, width)
    weight, paint = _notice_plane(back, ink, dark=0, bright=255)
    return Layer(np.repeat(weight, 3), np.repeat(paint, 3))


def yuv420_notice(text: str, *, height: int, width: int) -> Layer:
    """Return a layer that draws one line of text in the upper left corner of packed yuv420p images."""
    back, ink = _notice(text, height, width)
    luma = _notice_plane(back, ink, dark=16, bright=235)
    chroma = _notice_plane(back[::2, ::2], ink[::2, ::2], dark=128, bright=128)
    weights, paints = zip(luma, chroma, chroma, strict=True)
    return Layer(np.concatenate(weights), np.concatenate(paints))


@lru_cache(maxsize=4)
def _bar(height: int, width: int) -> _Bar | None:
    if min(height, width) < _SMALLEST:
        return None
    size = max(10, height // 40)
    font: Any = ImageFont.load_default(size=size)
    pad, long = size // 2, max(12 * size, width // 6)
    image = Image.new("RGB", (_even(long + 2 * pad), _even(2 * size + 3 * pad)), (_BACKGROUND,) * 3)
    image.paste(Image.fromarray(color_bar(long)[None]).resize((long, size)), (pad, pad))
    draw = ImageDraw.Draw(image)
    for x, text, anchor in ((pad, "0", "la"), (pad + long // 2, "response", "ma"), (pad + long, "1", "ra")):
        draw.text((x, 2 * pad + size - size // 4), text, fill=(255, 255, 255), font=font, anchor=anchor)
    margin = _even(max(4, height // 60))
    return _Bar(_even(height - image.height - margin), _even(width - image.width - margin), np.asarray(image))


def _even(value: int) -> int:
    return value - value % 2


def _paste(layer: Layer, part: slice, shape: tuple[int, ...], bar: _Bar, pixels: np.ndarray) -> None:
    rows = slice(bar.top, bar.top + pixels.shape[0])
    columns = slice(bar.left, bar.left + pixels.shape[1])
    layer.weight[part].reshape(shape)[rows, columns] = 0
    layer.paint[part].reshape(shape)[rows, columns] = pixels.astype(np.uint16) * 256


def _notice(text: str, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the background box of a text, bool, and its ink, float in [0, 1], both (height, width)."""
    font: Any = ImageFont.load_default(size=max(9, height // 24))
    left, top, right, bottom = (int(edge) for edge in font.getbbox(text))
    pad = max(2, height // 90)
    ink, back = Image.new("L", (width, height)), np.zeros((height, width), dtype=bool)
    ImageDraw.Draw(ink).text((2 * pad - left, 2 * pad - top), text, fill=255, font=font)
    back[pad : bottom - top + 3 * pad, pad : right - left + 3 * pad] = True
    return back, np.asarray(ink) / 255.0 * back


def _notice_plane(back: np.ndarray, ink: np.ndarray, *, dark: int, bright: int) -> tuple[np.ndarray, np.ndarray]:
    weight = np.where(back, np.round(_BADGE_WEIGHT * (1 - ink)), 256).astype(np.uint16)
    paint = (256 - _BADGE_WEIGHT) * dark * (1 - ink) + 256 * bright * ink
    limit = 65535 - 255.0 * weight  # weight · byte + paint must fit in 16 bits
    return weight.ravel(), np.where(back, np.minimum(np.round(paint), limit), 0).astype(np.uint16).ravel()
