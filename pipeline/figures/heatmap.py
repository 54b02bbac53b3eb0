"""Heat maps blended over images at full resolution, fast enough for video.

Conventions
-----------
A heat map is float in [0, 1], (row, col), of any size, and covers the whole image. Images are uint8: RGB (row, col, 3), or
packed yuv420p, (3/2 row, col): all of Y, then U, then V, both at half the resolution; rows and columns are even, luma is
16..235.

A *layer* holds the effect of one heat map on every byte of an image: ``out = (weight · byte + paint) / 256``. It is computed
once per map; applying it costs one multiplication and one addition per byte. Y'CbCr is a linear function of RGB, so
blending there gives the same result and saves two conversions per video frame.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipeline.scoring.upsampling import upsampling_matrix

Matrix = Literal["bt601", "bt709", "bt2020"]

COLORMAP = "inferno"
# A weak response is more transparent, so that the image stays recognizable where nothing sounds.
LOWEST_OPACITY, HIGHEST_OPACITY = 0.25, 0.80
_LUMA = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}  # of red and of blue
_BYTES_AT_ONCE = 1 << 16  # fits in the CPU cache
_BADGE_WEIGHT = 90  # of 256: share of the image that remains visible behind a notice


class Layer(NamedTuple):
    """Effect on each byte of an image, flat: uint16 `weight` in 0..256, uint16 `paint`; the sum fits in 16 bits."""

    weight: np.ndarray
    paint: np.ndarray


def blend(image: np.ndarray, layer: Layer) -> None:
    """Apply a layer in place to a contiguous uint8 image with the same number of bytes.

    Raises
    ------
    ValueError
        The image is not contiguous uint8, or does not have the size of the layer.
    """
    if image.dtype != np.uint8 or not image.flags.c_contiguous or image.size != layer.weight.size:
        raise ValueError(
            f"a layer of {layer.weight.size} bytes needs a contiguous uint8 image of that size, got {image.shape} {image.dtype}"
        )
    flat = image.reshape(-1)
    buffer = np.empty(min(_BYTES_AT_ONCE, flat.size), dtype=np.uint16)
    for start in range(0, flat.size, _BYTES_AT_ONCE):
        part = slice(start, min(start + _BYTES_AT_ONCE, flat.size))
        values = buffer[: part.stop - start]
        np.copyto(values, flat[part])
        values *= layer.weight[part]
        values += layer.paint[part]
        values >>= 8
        np.copyto(flat[part], values, casting="unsafe")


def rgb_layer(heatmap: np.ndarray, *, height: int, width: int) -> Layer:
    """Return the layer of a heat map for RGB images of the given size in pixels."""
    index = _index(heatmap, height, width)
    planes = [_plane(index, heatmap_colors()[:, channel]) for channel in range(3)]
    return Layer(*(np.stack(parts, axis=1).ravel() for parts in zip(*planes, strict=True)))


def yuv420_layer(heatmap: np.ndarray, *, height: int, width: int, matrix: Matrix) -> Layer:
    """Return the layer of a heat map for packed yuv420p images of the given size in pixels, both even.

    Parameters
    ----------
    heatmap : np.ndarray [shape=(row, col)]
    height, width : int
    matrix : str
        Color matrix of the video: "bt601", "bt709" or "bt2020".
    """
    # A heat map is smooth, so one value per 2×2 pixels is enough.
    rows, columns = height // 2, width // 2
    index = _index(heatmap, rows, columns)
    planes = [_plane(index, colors) for colors in _yuv_colors(matrix)]
    layer = Layer(*np.empty((2, 6 * rows * columns), dtype=np.uint16))
    for whole, parts in zip(layer, zip(*planes, strict=True), strict=True):
        luma = whole[: 4 * rows * columns].reshape(rows, 2, width)
        luma[:] = parts[0].reshape(rows, columns).repeat(2, axis=1)[:, None]
        whole[4 * rows * columns : 5 * rows * columns] = parts[1]
        whole[5 * rows * columns :] = parts[2]
    return layer


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


def overlay(image: np.ndarray, heatmap: np.ndarray) -> np.ndarray:
    """Return a copy of an RGB image (row, col, 3) uint8 with a heat map blended over it."""
    result = np.array(image, order="C")
    blend(result, rgb_layer(heatmap, height=image.shape[0], width=image.shape[1]))
    return result


def opacity(heatmap: np.ndarray) -> np.ndarray:
    """Return the opacity at each value of a heat map in [0, 1], same shape."""
    return LOWEST_OPACITY + (HIGHEST_OPACITY - LOWEST_OPACITY) * heatmap


@lru_cache(maxsize=1)
def heatmap_colors() -> np.ndarray:
    """Return the colors of a heat map from 0 to 1: uint8 (256, 3) RGB, read-only."""
    # Imported here because the localizer does not need matplotlib otherwise.
    from matplotlib import colormaps

    colors = np.rint(255 * colormaps[COLORMAP](np.arange(256))[:, :3]).astype(np.uint8)
    colors.flags.writeable = False  # the cached array is shared by all callers
    return colors


def upsampled(values: np.ndarray, *, height: int, width: int) -> np.ndarray:
    """Return a map (row, col) upsampled bilinearly to float32 (height, width)."""
    rows, columns = (
        upsampling_matrix(side, size, interpolation="bilinear", align_corners=False)
        for side, size in zip(values.shape, (height, width), strict=True)
    )
    return rows @ (values.astype(np.float32) @ columns.T)


def _index(heatmap: np.ndarray, height: int, width: int) -> Image.Image:
    """Return the colormap index, 0..255, of every pixel."""
    # Clipping the small map is enough: bilinear interpolation does not exceed its range.
    index = upsampled(np.clip(heatmap, 0, 1) * np.float32(255), height=height, width=width)
    index += np.float32(0.5)
    return Image.fromarray(index.astype(np.uint8))


def _plane(index: Image.Image, colors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return weight and paint of one channel, flat, from its 256 colors."""
    # A lookup table is several times faster in Pillow than in NumPy.
    weight = np.asarray(index.point(_weights().tolist())).ravel().astype(np.uint16)
    paint = np.asarray(index.point(colors.tolist())).ravel() * (256 - weight)
    paint += 128  # half a unit, because blending truncates
    return weight, paint


@lru_cache(maxsize=1)
def _weights() -> np.ndarray:
    """Return the weight of the image, of 256, at each colormap index; uint8 (256,)."""
    return np.round(256 * (1 - opacity(np.arange(256) / 255))).astype(np.uint8)


@lru_cache(maxsize=8)
def _yuv_colors(matrix: Matrix) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the colormap as Y, Cb and Cr, each uint8 (256,)."""
    red, blue = _LUMA[matrix]
    rgb = heatmap_colors().astype(np.float64)
    y = rgb @ np.array([red, 1 - red - blue, blue])
    u, v = (rgb[:, 2] - y) / (2 * (1 - blue)), (rgb[:, 0] - y) / (2 * (1 - red))
    y, u, v = 16 + y * 219 / 255, u * 224 / 255, v * 224 / 255
    y, u, v = (np.round(channel).clip(0, 255).astype(np.uint8) for channel in (y, 128 + u, 128 + v))
    return y, u, v


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
