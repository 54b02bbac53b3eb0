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
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

from pipeline.scoring.upsampling import upsampling_matrix

Matrix = Literal["bt601", "bt709", "bt2020"]

COLORMAP = "inferno"
HIGHEST_OPACITY = 0.65  # objects remain recognizable below the strongest response
_CURVE = 1.5  # above 1, so that weak responses neither tint nor darken the image
_LUMA = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}  # of red and of blue
_BYTES_AT_ONCE = 1 << 16  # fits in the CPU cache


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


def overlay(image: np.ndarray, heatmap: np.ndarray) -> np.ndarray:
    """Return a copy of an RGB image (row, col, 3) uint8 with a heat map blended over it."""
    result = np.array(image, order="C")
    blend(result, rgb_layer(heatmap, height=image.shape[0], width=image.shape[1]))
    return result


def opacity(heatmap: np.ndarray) -> np.ndarray:
    """Return the opacity at each value of a heat map in [0, 1], same shape: it grows with the response, from 0."""
    return HIGHEST_OPACITY * heatmap**_CURVE


def painted(heatmap: np.ndarray) -> np.ndarray:
    """Return a heat map in [0, 1] as colors with opacity: uint8 (row, col, 4) RGBA. All heat maps get their colors here."""
    return heatmap_rgba()[np.rint(255 * np.clip(heatmap, 0, 1)).astype(np.uint8)]


@lru_cache(maxsize=1)
def heatmap_rgba() -> np.ndarray:
    """Return the colors of a heat map from 0 to 1 with their opacity: uint8 (256, 4) RGBA, read-only."""
    alpha = np.rint(255 * opacity(np.arange(256) / 255)).astype(np.uint8)
    rgba = np.column_stack([heatmap_colors(), alpha])
    rgba.flags.writeable = False
    return rgba


@lru_cache(maxsize=1)
def heatmap_colors() -> np.ndarray:
    """Return the opaque colors of a heat map from 0 to 1: uint8 (256, 3) RGB, read-only."""
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


def to_yuv(rgb: np.ndarray, matrix: Matrix) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return RGB values (..., 3) as Y, Cb and Cr of limited range, each uint8 (...)."""
    red, blue = _LUMA[matrix]
    values = rgb.astype(np.float64)
    y = values @ np.array([red, 1 - red - blue, blue])
    u, v = (values[..., 2] - y) / (2 * (1 - blue)), (values[..., 0] - y) / (2 * (1 - red))
    y, u, v = 16 + y * 219 / 255, u * 224 / 255, v * 224 / 255
    y, u, v = (np.round(channel).clip(0, 255).astype(np.uint8) for channel in (y, 128 + u, 128 + v))
    return y, u, v


def _plane(index: Image.Image, colors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return weight and paint of one channel, flat, from its 256 colors."""
    # A lookup table is several times faster in Pillow than in NumPy.
    share = np.asarray(index.point(_shares().tolist())).ravel().astype(np.uint16)
    paint = np.asarray(index.point(colors.tolist())).ravel() * share
    paint += 128  # half a unit, because blending truncates
    return 256 - share, paint


@lru_cache(maxsize=1)
def _shares() -> np.ndarray:
    """Return the weight of the color, of 256, at each colormap index; uint8 (256,)."""
    return np.round(256 * opacity(np.arange(256) / 255)).astype(np.uint8)


@lru_cache(maxsize=8)
def _yuv_colors(matrix: Matrix) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the colormap as Y, Cb and Cr, each uint8 (256,)."""
    return to_yuv(heatmap_colors(), matrix)
