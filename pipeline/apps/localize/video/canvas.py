"""Convert decoded frames to the size and colors of the output video.

Frames are packed yuv420p of limited range (luma 16..235), uint8 (3/2 row, col), upright; row and col are even.
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

# FFmpeg's AVColorSpace and AVColorRange values.
_MATRICES: dict[int, Matrix] = {1: "bt709", 5: "bt601", 6: "bt601", 9: "bt2020", 10: "bt2020"}
_FULL_RANGE = 2


class Canvas:
    """Size and colors of the output, taken from the first frame. Later frames of a different size are scaled to it."""

    def __init__(self, frame: Any, stream: Any) -> None:
        # Chroma has half the resolution, so both sides must be even.
        self._stored = frame.width + frame.width % 2, frame.height + frame.height % 2
        probe = upright(np.empty((self._stored[1], self._stored[0]), dtype=np.uint8), frame)
        self.height, self.width = probe.shape
        aspect = Fraction(stream.codec_context.sample_aspect_ratio or 1) or Fraction(1)
        self.aspect = aspect if probe.shape[::-1] == self._stored else 1 / aspect
        self._full_range = frame.format.name == "yuv420p" and frame.color_range == _FULL_RANGE
        # Players assume BT.709 for untagged HD video and BT.601 below.
        unknown: Matrix = "bt709" if min(probe.shape) >= 720 else "bt601"
        self._matrix = _MATRICES.get(int(frame.colorspace), unknown)
        # The tags of RGB frames would be wrong for the YUV output.
        self.colors = frame if int(frame.colorspace) in _MATRICES else None
        self._notices: dict[str, Layer] = {}

    def planes(self, frame: Any, path: Path) -> np.ndarray:
        """Return a decoded frame as packed yuv420p, upright, at the output's size."""
        try:
            if (frame.width, frame.height) != self._stored or frame.format.name != "yuv420p":
                width, height = self._stored
                frame_420 = frame.reformat(width=width, height=height, format="yuv420p", threads=1)
            else:
                frame_420 = frame
            packed: np.ndarray = frame_420.to_ndarray()
        except (av.FFmpegError, ValueError) as error:
            raise _unconvertible(path, frame, error) from None
        if self._full_range:
            packed = limited_range(packed)
        if frame.side_data.get("DISPLAYMATRIX") is None:
            return packed
        width, height = self._stored
        flat, n = packed.reshape(-1), width * height
        parts = (flat[:n].reshape(height, width), *flat[n:].reshape(2, height // 2, width // 2))
        turned = [upright(part, frame).ravel() for part in parts]
        return np.concatenate(turned).reshape(self.height * 3 // 2, self.width)

    def heat(self, heat: np.ndarray) -> Layer:
        """Return the layer of a heat map."""
        return yuv420_layer(
            heat,
            height=self.height,
            width=self.width,
            matrix=self._matrix,
        )

    def notice(self, text: str) -> Layer:
        """Return the layer of a line of text."""
        if text not in self._notices:
            self._notices[text] = yuv420_notice(
                text,
                height=self.height,
                width=self.width,
            )
        return self._notices[text]


def to_rgb(frame: Any, path: Path) -> np.ndarray:
    """Convert a decoded frame as extraction does, so that the model gets the same input: uint8 (row, col, 3), upright."""
    try:
        pixels: np.ndarray = frame.to_ndarray(format="rgb24", threads=1)
    except (av.FFmpegError, ValueError) as error:
        raise _unconvertible(path, frame, error) from None
    return upright(pixels, frame)


def _unconvertible(path: Path, frame: Any, error: Exception) -> MediaError:
    return MediaError(f"{path}: frames in pixel format {frame.format.name} cannot be converted: {error}")
