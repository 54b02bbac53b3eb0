"""A heat map over a picture at its full resolution, fast enough for video.

Conventions
-----------
Heat is float in [0, 1], (row, col), of any size, and is laid over the whole picture. Pictures are uint8: RGB (row, col, 3),
or the packed planes of yuv420p, (3/2 row, col): all of Y, then U, then V, each at half the size; row and col even, luma 16..235.

A *layer* is what one heat map does to every byte of a picture: ``out = (weight · byte + paint) / 256``. It is computed once
for each map and then costs a multiplication and an addition per byte. In Y'CbCr that is the same blending as in RGB, since
the one is a linear function of the other, and it spares the video two conversions.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipeline.scoring.upsampling import upsampling_matrix

Matrix = Literal["bt601", "bt709", "bt2020"]

# Weak responses let the picture through, so that it stays recognizable where nothing sounds.
LOWEST_OPACITY, HIGHEST_OPACITY = 0.25, 0.80
_LUMA = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}  # of red and of blue
_BYTES_AT_ONCE = 1 << 16  # stays in the processor's cache
_BADGE_WEIGHT = 90  # of 256: what is left of the picture behind a notice


class Layer(NamedTuple):
    """What is done to each byte of a picture, flat: uint16 `weight` in 0..256, uint16 `paint` that leaves 16 bits unexceeded."""

    weight: np.ndarray
    paint: np.ndarray


def blend(picture: np.ndarray, layer: Layer) -> None:
    """Lay a layer over a contiguous uint8 picture of the same number of bytes, in place.

    Raises
    ------
    ValueError
        The picture is not contiguous uint8, or not of the layer's size.
    """
    if picture.dtype != np.uint8 or not picture.flags.c_contiguous or picture.size != layer.weight.size:
        raise ValueError(f"a layer of {layer.weight.size} bytes does not fit {picture.shape} {picture.dtype}")
    flat = picture.reshape(-1)
    buffer = np.empty(min(_BYTES_AT_ONCE, flat.size), dtype=np.uint16)
    for start in range(0, flat.size, _BYTES_AT_ONCE):
        part = slice(start, min(start + _BYTES_AT_ONCE, flat.size))
        values = buffer[: part.stop - start]
        np.copyto(values, flat[part])
        values *= layer.weight[part]
        values += layer.paint[part]
        values >>= 8
        np.copyto(flat[part], values, casting="unsafe")


def rgb_layer(heat: np.ndarray, *, height: int, width: int) -> Layer:
    """Return the layer of a heat map for RGB pictures of a size in pixels."""
    index = _index(heat, height, width)
    planes = [_plane(index, heat_colors()[:, channel]) for channel in range(3)]
    return Layer(*(np.stack(parts, axis=1).ravel() for parts in zip(*planes, strict=True)))


def yuv420_layer(heat: np.ndarray, *, height: int, width: int, matrix: Matrix) -> Layer:
    """Return the layer of a heat map for packed yuv420p pictures of a size in pixels, both even.

    Parameters
    ----------
    heat : np.ndarray [shape=(row, col)]
    height, width : int
    matrix : str
        Of the video's colors: "bt601", "bt709" or "bt2020".
    """
    # Heat varies so slowly that it is looked up for every second pixel of every second row alone.
    rows, columns = height // 2, width // 2
    index = _index(heat, rows, columns)
    planes = [_plane(index, colors) for colors in _yuv_colors(matrix)]
    layer = Layer(*np.empty((2, 6 * rows * columns), dtype=np.uint16))
    for whole, parts in zip(layer, zip(*planes, strict=True), strict=True):
        luma = whole[: 4 * rows * columns].reshape(rows, 2, width)
        luma[:] = parts[0].reshape(rows, columns).repeat(2, axis=1)[:, None]
        whole[4 * rows * columns : 5 * rows * columns] = parts[1]
        whole[5 * rows * columns :] = parts[2]
    return layer


def rgb_notice(text: str, *, height: int, width: int) -> Layer:
    """Return a layer that writes a line of text into the upper left corner of RGB pictures."""
    back, ink = _notice(text, height, width)
    weight, paint = _notice_plane(back, ink, dark=0, bright=255)
    return Layer(np.repeat(weight, 3), np.repeat(paint, 3))


def yuv420_notice(text: str, *, height: int, width: int) -> Layer:
    """Return a layer that writes a line of text into the upper left corner of packed yuv420p pictures."""
    back, ink = _notice(text, height, width)
    luma = _notice_plane(back, ink, dark=16, bright=235)
    chroma = _notice_plane(back[::2, ::2], ink[::2, ::2], dark=128, bright=128)
    weights, paints = zip(luma, chroma, chroma, strict=True)
    return Layer(np.concatenate(weights), np.concatenate(paints))


def overlay(picture: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Return an RGB picture (row, col, 3) uint8 with a heat map over it; the picture itself stays as it is."""
    result = np.array(picture, order="C")
    blend(result, rgb_layer(heat, height=picture.shape[0], width=picture.shape[1]))
    return result


def limited_range(planes: np.ndarray) -> np.ndarray:
    """Return packed yuv420p of full range (luma 0..255) in the range that every player expects (16..235)."""
    steps, n_luma = np.arange(256), planes.size * 2 // 3
    luma = np.round(16 + steps * 219 / 255).astype(np.uint8)
    chroma = np.round(128 + (steps - 128) * 224 / 255).astype(np.uint8)
    flat = planes.reshape(-1)
    return np.concatenate([luma[flat[:n_luma]], chroma[flat[n_luma:]]]).reshape(planes.shape)


@lru_cache(maxsize=1)
def heat_colors() -> np.ndarray:
    """Return the colors of heat, from 0 to 1: uint8 (256, 3) RGB, which cannot be written to."""
    from matplotlib import colormaps

    from pipeline.figures.figures import HEAT_MAP

    colors = np.rint(255 * colormaps[HEAT_MAP](np.arange(256))[:, :3]).astype(np.uint8)
    colors.flags.writeable = False  # all callers share it
    return colors


def enlarged(values: np.ndarray, *, height: int, width: int) -> np.ndarray:
    """Return a map (row, col) enlarged bilinearly to a size: float32 (height, width)."""
    rows, columns = (
        upsampling_matrix(side, size, interpolation="bilinear", align_corners=False)
        for side, size in zip(values.shape, (height, width), strict=True)
    )
    return rows @ (values.astype(np.float32) @ columns.T)


def _index(heat: np.ndarray, height: int, width: int) -> Image.Image:
    """Degrees of heat, 0..255, of every pixel."""
    # Cut before, not after: between values in [0, 1] the enlarged ones stay there but for rounding.
    degrees = enlarged(np.clip(heat, 0, 1) * np.float32(255), height=height, width=width)
    degrees += np.float32(0.5)
    return Image.fromarray(degrees.astype(np.uint8))


def _plane(index: Image.Image, colors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weight and paint of one channel, flat, from the channel's 256 colors."""
    # Pillow looks bytes up several times faster than numpy does.
    weight = np.asarray(index.point(_weights().tolist())).ravel().astype(np.uint16)
    paint = np.asarray(index.point(colors.tolist())).ravel() * (256 - weight)
    paint += 128  # half a unit, since the blending cuts the fraction off
    return weight, paint


@lru_cache(maxsize=1)
def _weights() -> np.ndarray:
    """What is left of the picture at each degree of heat, of 256; uint8 (256,)."""
    opacity = LOWEST_OPACITY + (HIGHEST_OPACITY - LOWEST_OPACITY) * np.arange(256) / 255
    return np.round(256 * (1 - opacity)).astype(np.uint8)


@lru_cache(maxsize=8)
def _yuv_colors(matrix: Matrix) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The color map as Y, Cb and Cr, each uint8 (256,)."""
    red, blue = _LUMA[matrix]
    rgb = heat_colors().astype(np.float64)
    y = rgb @ np.array([red, 1 - red - blue, blue])
    u, v = (rgb[:, 2] - y) / (2 * (1 - blue)), (rgb[:, 0] - y) / (2 * (1 - red))
    y, u, v = 16 + y * 219 / 255, u * 224 / 255, v * 224 / 255
    y, u, v = (np.round(channel).clip(0, 255).astype(np.uint8) for channel in (y, 128 + u, 128 + v))
    return y, u, v


def _notice(text: str, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return where the text's plate is, bool, and how much ink there is, float in [0, 1], both (height, width)."""
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
    limit = 65535 - 255.0 * weight
    return weight.ravel(), np.where(back, np.minimum(np.round(paint), limit), 0).astype(np.uint16).ravel()
