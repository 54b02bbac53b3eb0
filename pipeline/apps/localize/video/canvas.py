"""Convert decoded frames to the size and colors of the output video.

Frames are packed yuv420p of limited range (luma 16..235), uint8 (3/2 row, col), upright; row and col are even. The values of
YUV sources are kept, apart from range and chroma resolution, and so are their color tags. RGB, gray and transparent sources
are converted as extraction does.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np

from pipeline.figures.heatmap import Layer, Matrix, yuv420_layer
from pipeline.figures.labels import add_yuv420_bar, yuv420_notice
from pipeline.media.pixels import (
    BT601,
    BT709,
    BT2020,
    FULL_RANGE,
    LIMITED_RANGE,
    has_alpha,
    is_gray,
    matrix_of,
    reformatted,
    to_rgb,
)
from pipeline.media.video import upright

_MATRICES: dict[int, Matrix] = {BT709: "bt709", BT601: "bt601", 6: "bt601", BT2020: "bt2020"}


class ColorTags(NamedTuple):
    """Color tags of a video, as FFmpeg's numbers: AVColorSpace, AVColorPrimaries, AVColorTransferCharacteristic."""

    matrix: int
    primaries: int
    transfer: int


class Canvas:
    """Size and colors of the output, taken from the first frame. Later frames of a different size are scaled to it."""

    def __init__(self, frame: Any, stream: Any) -> None:
        # Chroma has half the resolution, so both sides must be even.
        width, height = frame.width + frame.width % 2, frame.height + frame.height % 2
        sideways = _is_sideways(frame)
        self.width, self.height = (height, width) if sideways else (width, height)
        # The container's pixel aspect ratio takes precedence over the codec's, as in players.
        aspect = Fraction(stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or 1)
        self.aspect = 1 / aspect if sideways else aspect
        # Players assume BT.709 for untagged HD video and BT.601 below.
        usual = BT709 if min(width, height) >= 720 else BT601
        matrix = matrix_of(frame) if _is_yuv(frame) else usual
        self.colors = ColorTags(matrix, int(frame.color_primaries), int(frame.color_trc))
        self._heat_matrix = _MATRICES.get(matrix, _MATRICES[usual])
        self._notices: dict[str, Layer] = {}

    def planes(self, frame: Any, path: Path) -> np.ndarray:
        """Return a decoded frame as packed yuv420p, upright, at the output's size."""
        if not _is_yuv(frame):
            pixels = upright(to_rgb(frame, path), frame)
            source = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            return self._packed(source, path, self.width, self.height)
        sideways = _is_sideways(frame)
        width, height = (self.height, self.width) if sideways else (self.width, self.height)
        packed = self._packed(frame, path, width, height)
        if frame.side_data.get("DISPLAYMATRIX") is None:
            return packed
        flat, n = packed.reshape(-1), width * height
        parts = (flat[:n].reshape(height, width), *flat[n:].reshape(2, height // 2, width // 2))
        turned = [upright(part, frame).ravel() for part in parts]
        return np.concatenate(turned).reshape(self.height * 3 // 2, self.width)

    def heat(self, heat: np.ndarray) -> Layer:
        """Return the layer of a heat map with its color bar."""
        layer = yuv420_layer(heat, height=self.height, width=self.width, matrix=self._heat_matrix)
        add_yuv420_bar(layer, height=self.height, width=self.width, matrix=self._heat_matrix)
        return layer

    def notice(self, text: str) -> Layer:
        """Return the layer of a line of text."""
        if text not in self._notices:
            self._notices[text] = yuv420_notice(text, height=self.height, width=self.width)
        return self._notices[text]

    def _packed(self, frame: Any, path: Path, width: int, height: int) -> np.ndarray:
        ready = (frame.format.name, frame.width, frame.height) == ("yuv420p", width, height)
        if not ready or frame.color_range == FULL_RANGE:
            frame = reformatted(
                frame,
                path,
                format="yuv420p",
                width=width,
                height=height,
                dst_colorspace=self.colors.matrix,
                dst_color_range=LIMITED_RANGE,
            )
        packed: np.ndarray = frame.to_ndarray()
        return packed


def _is_yuv(frame: Any) -> bool:
    return not (frame.format.is_rgb or has_alpha(frame) or is_gray(frame)) and len(frame.format.components) == 3


def _is_sideways(frame: Any) -> bool:
    """Return whether a frame is stored turned by a quarter."""
    return upright(np.empty((2, 1), dtype=np.uint8), frame).shape == (1, 2)
