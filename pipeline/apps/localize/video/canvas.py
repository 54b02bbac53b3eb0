"""The size and the colors of a painted video, and decoded pictures brought into them.

Pictures are packed yuv420p of limited range (luma 16..235), uint8 (3/2 row, col), upright; row and col are even.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from pipeline.common.errors import MediaError
from pipeline.figures.heatmap import Layer, Matrix, limited_range, yuv420_layer, yuv420_notice
from pipeline.media.video import upright

_MATRICES: dict[int, Matrix] = {1: "bt709", 5: "bt601", 6: "bt601", 9: "bt2020", 10: "bt2020"}
_FULL_RANGE = 2


class Canvas:
    """Size and colors of the output, from the first picture; later ones of another size are scaled to it."""

    def __init__(self, picture: Any, stream: Any) -> None:
        # Coded in halves of the resolution, so both sides must be even.
        self._stored = picture.width + picture.width % 2, picture.height + picture.height % 2
        probe = upright(np.empty((self._stored[1], self._stored[0]), dtype=np.uint8), picture)
        self.height, self.width = probe.shape
        aspect = Fraction(stream.codec_context.sample_aspect_ratio or 1) or Fraction(1)
        self.aspect = aspect if probe.shape[::-1] == self._stored else 1 / aspect
        self._full_range = picture.format.name == "yuv420p" and picture.color_range == _FULL_RANGE
        unknown: Matrix = "bt709" if min(probe.shape) >= 720 else "bt601"
        self._matrix = _MATRICES.get(int(picture.colorspace), unknown)
        # Of pictures in RGB, the tags would not be true of the output.
        self.colors = picture if int(picture.colorspace) in _MATRICES else None
        self._notices: dict[str, Layer] = {}

    def planes(self, picture: Any, path: Path) -> np.ndarray:
        """Return a decoded picture as packed yuv420p, upright, in the size of the output."""
        try:
            if (picture.width, picture.height) != self._stored or picture.format.name != "yuv420p":
                width, height = self._stored
                picture_420 = picture.reformat(width=width, height=height, format="yuv420p", threads=1)
            else:
                picture_420 = picture
            packed: np.ndarray = picture_420.to_ndarray()
        except (av.FFmpegError, ValueError) as error:
            raise _unconvertible(path, picture, error) from None
        if self._full_range:
            packed = limited_range(packed)
        if picture.side_data.get("DISPLAYMATRIX") is None:
            return packed
        width, height = self._stored
        flat, n = packed.reshape(-1), width * height
        parts = (flat[:n].reshape(height, width), *flat[n:].reshape(2, height // 2, width // 2))
        turned = [upright(part, picture).ravel() for part in parts]
        return np.concatenate(turned).reshape(self.height * 3 // 2, self.width)

    def heat(self, heat: np.ndarray) -> Layer:
        """The layer of a heat map."""
        return yuv420_layer(
            heat,
            height=self.height,
            width=self.width,
            matrix=self._matrix,
        )

    def notice(self, text: str) -> Layer:
        """The layer of a line of text."""
        if text not in self._notices:
            self._notices[text] = yuv420_notice(
                text,
                height=self.height,
                width=self.width,
            )
        return self._notices[text]


def rgb_of(picture: Any, path: Path) -> np.ndarray:
    """Return a decoded picture as extraction converts it, so that the model sees the same: uint8 (row, col, 3), upright."""
    try:
        pixels: np.ndarray = picture.to_ndarray(format="rgb24", threads=1)
    except (av.FFmpegError, ValueError) as error:
        raise _unconvertible(path, picture, error) from None
    return upright(pixels, picture)


def _unconvertible(path: Path, picture: Any, error: Exception) -> MediaError:
    return MediaError(f"{path}: pictures of format {picture.format.name} cannot be converted: {error}")
