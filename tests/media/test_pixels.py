"""Frames become the RGB values that their tags define."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.common.errors import MediaError
from pipeline.media.clip import read_frame
from pipeline.media.pixels import to_rgb
from tests.support.colors import PATCHES, frame_of, patch_colors, patches, write_frames

HERE = Path("clip.mp4")


def off(found, expected=PATCHES):
    return np.abs(patch_colors(found) - np.array(expected)).max()


@pytest.mark.parametrize("matrix", [1, 2, 5, 6, 9])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(
    "form", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le", "yuv444p10le", "yuv444p12le"]
)
def test_range_matrix_and_depth(form, full, matrix):
    found = to_rgb(frame_of(patches(), form, matrix=matrix, full=full), HERE)
    assert found.dtype == np.uint8
    assert off(found) <= 3


@pytest.mark.parametrize("form", ["yuvj420p", "yuvj422p", "yuvj444p"])
def test_formats_that_imply_full_range(form):
    assert off(to_rgb(frame_of(patches(), form, full=True, tagged=False), HERE)) <= 2


@pytest.mark.parametrize("form", ["gray", "gray10le", "gray12le"])
@pytest.mark.parametrize(("full", "tagged"), [(False, True), (True, True), (True, False)])
def test_gray(form, full, tagged):
    """Untagged gray counts as full range."""
    levels = np.repeat(patches()[..., :1], 3, axis=2)
    found = to_rgb(frame_of(levels, form, full=full, tagged=tagged), HERE)
    assert off(found, [(color[0],) * 3 for color in PATCHES]) <= 1


@pytest.mark.parametrize("form", ["rgb24", "bgr24", "bgr0", "gbrp", "gbrp10le", "rgb48le"])
def test_rgb(form):
    assert off(to_rgb(av.VideoFrame.from_ndarray(patches(), format="rgb24").reformat(format=form), HERE)) == 0


@pytest.mark.parametrize("form", ["rgba", "bgra", "gbrap", "yuva444p"])
def test_transparent_pixels_show_white(form):
    pixels = np.dstack([np.zeros((96, 128, 3), np.uint8), np.full((96, 128), 255, np.uint8)])
    pixels[48:, :64, 3], pixels[48:, 64:, 3] = 128, 0
    frame = av.VideoFrame.from_ndarray(pixels, format="rgba").reformat(format=form)
    levels = (0, 0, 127, 255)
    assert off(to_rgb(frame, HERE), [(level,) * 3 for level in levels]) <= 2


def test_unusual_matrices():
    frame = frame_of(patches(), "yuv420p")
    frame.colorspace = 3  # reserved
    assert off(to_rgb(frame, HERE)) <= 3
    frame = frame_of(patches(), "yuv420p", matrix=9)
    frame.colorspace = 10  # BT.2020, constant luminance
    assert off(to_rgb(frame, HERE)) <= 3
    frame.colorspace = 8  # YCgCo
    with pytest.raises(MediaError, match=r"clip.mp4: .*yuv420p with color matrix 8"):
        to_rgb(frame, HERE)


@pytest.mark.parametrize(("codec", "form", "full"), [
    ("libx264", "yuv420p", False), ("libx264", "yuv420p", True), ("libx264", "yuvj420p", True), ("libx264", "yuv444p", True),
    ("libx264", "yuv420p10le", False), ("libx264", "yuv420p10le", True), ("mjpeg", "yuvj420p", True),
    ("ffv1", "yuv444p", True), ("ffv1", "yuv420p", False),
])  # fmt: skip
def test_files(tmp_path, codec, form, full):
    """The range survives the encoder, the container and the decoder, and the frame is what extraction stores."""
    path = write_frames(tmp_path / "a.mkv", frame_of(patches(), form, matrix=6, full=full), codec=codec)
    assert off(read_frame(path, image_size=64)) <= 3


def test_hdr_is_neither_clipped_nor_tone_mapped(tmp_path):
    frame = frame_of(patches(), "yuv420p10le", matrix=9)
    path = write_frames(tmp_path / "a.mkv", frame, codec="libx264", tags=(9, 16))
    with av.open(str(path)) as container:
        assert int(next(container.decode(video=0)).color_trc) == 16
    assert off(read_frame(path, image_size=64)) <= 3
