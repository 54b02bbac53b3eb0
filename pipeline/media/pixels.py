"""Convert decoded video frames to RGB; extraction and `localize` share it, so a model sees the same pixels in both.

Conventions
-----------
- The frame's own range and matrix tags count. Untagged frames are of limited range with the matrix of BT.601, gray ones of
  full range, as in FFmpeg, with which the datasets of the field were decoded.
- Transparent pixels become white, as in images.
- HDR (PQ or HLG) keeps its transfer curve: nothing is clipped, and nothing is tone-mapped, so it looks flat.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from pipeline.common.errors import MediaError
from pipeline.media.image import over_white

# FFmpeg's AVColorRange values and AVColorSpace values.
LIMITED_RANGE, FULL_RANGE = 1, 2  # luma 16..235 and 0..255
BT709, BT601, BT2020 = 1, 5, 9
# Matrices that FFmpeg does not convert: a reserved value is read like an untagged one, constant luminance like the usual BT.2020.
_READ_AS = {3: BT601, 10: BT2020}
_FROM_LIMITED = np.round((np.arange(256) - 16) * 255 / 219).clip(0, 255).astype(np.uint8)


def to_rgb(frame: Any, path: Path) -> np.ndarray:
    """Convert a decoded frame, as stored (not rotated), to RGB.

    Returns
    -------
    np.ndarray [shape=(row, col, 3)]
        uint8.

    Raises
    ------
    MediaError
        The pixel format or the color matrix is not supported; the message names `path`.
    """
    if has_alpha(frame):
        return np.asarray(over_white(Image.fromarray(reformatted(frame, path, format="rgba").to_ndarray())))
    pixels: np.ndarray = reformatted(frame, path, format="rgb24").to_ndarray()
    # FFmpeg takes all gray for full range.
    if is_gray(frame) and frame.color_range == LIMITED_RANGE:
        pixels = _FROM_LIMITED[pixels]
    return pixels


def reformatted(frame: Any, path: Path, **options: Any) -> Any:
    """Return a frame that FFmpeg converted by its tags; `options` are those of PyAV's `VideoFrame.reformat`.

    Raises
    ------
    MediaError
        See `to_rgb`.
    """
    try:
        # One thread, because other workers use the remaining cores.
        return frame.reformat(src_colorspace=matrix_of(frame), threads=1, **options)
    except (av.FFmpegError, ValueError) as error:
        raise MediaError(
            f"{path}: frames in pixel format {frame.format.name} with color matrix {int(frame.colorspace)} cannot be "
            f"converted ({error}); re-encode the file"
        ) from None


def matrix_of(frame: Any) -> int:
    """Return the color matrix by which a frame is read, as FFmpeg's AVColorSpace."""
    return _READ_AS.get(int(frame.colorspace), int(frame.colorspace))


def has_alpha(frame: Any) -> bool:
    """Return whether a frame has a transparency channel."""
    return any(component.is_alpha for component in frame.format.components)


def is_gray(frame: Any) -> bool:
    """Return whether a frame has no color channels."""
    return frame.format.name.startswith(("gray", "ya8", "ya16", "mono"))
