"""Painted videos have the colors and the shape of their source, as players show them."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest

from pipeline.apps.localize.video.overlay import overlay_video
from pipeline.apps.localize.video.overlay_settings import OverlaySettings
from pipeline.common.errors import MediaError
from pipeline.evaluation.calibration import Calibration
from tests.support.colors import PATCHES, frame_of, patch_colors, patches, shown, write_frames
from tests.support.localizing import make_localizer


def paint(source, tmp_path):
    """Localize without a heat map; the notice covers only the upper left corner."""
    unknown = Calibration.of(np.full(5, 9.0), {}, model="red", split="test")
    target = tmp_path / "painted.mp4"
    overlay_video(source, target, make_localizer(calibration=unknown, miss_rate=1.0), OverlaySettings())
    return target


def off(found, expected=PATCHES):
    return np.abs(patch_colors(found) - np.array(expected)).max()


def rgb_frame(form, pixels=None):
    return av.VideoFrame.from_ndarray(patches() if pixels is None else pixels, format="rgb24").reformat(format=form)


@pytest.mark.parametrize("matrix", [1, 2, 5, 9])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(("codec", "form"), [
    ("libx264", "yuv420p"), ("libx264", "yuv422p"), ("libx264", "yuv444p"), ("libx264", "yuv420p10le"), ("ffv1", "yuv444p"),
])  # fmt: skip
def test_yuv_sources(tmp_path, codec, form, full, matrix):
    source = write_frames(tmp_path / "a.mkv", frame_of(patches(), form, matrix=matrix, full=full), codec=codec)
    target = paint(source, tmp_path)
    assert off(shown(target)) <= 3
    with av.open(str(target)) as container:
        frame = next(container.decode(video=0))
    # H.264 does not store limited range, its default, unless another tag is stored.
    assert (frame.format.name, int(frame.color_range)) in (("yuv420p", 1), ("yuv420p", 0))
    assert int(frame.colorspace) in {2: (2,), 5: (5, 6)}.get(matrix, (matrix,))


@pytest.mark.parametrize(("codec", "form", "name"), [
    ("mjpeg", "yuvj420p", "a.avi"), ("mjpeg", "yuvj422p", "a.mov"), ("libx264", "yuvj420p", "a.mkv"),
])  # fmt: skip
def test_webcam_formats(tmp_path, codec, form, name):
    source = write_frames(tmp_path / name, frame_of(patches(), form, full=True), codec=codec)
    assert off(shown(paint(source, tmp_path))) <= 3


@pytest.mark.parametrize(("codec", "form"), [("ffv1", "bgr0"), ("ffv1", "gbrp10le"), ("libx264rgb", "rgb24")])
def test_rgb_sources(tmp_path, codec, form):
    target = paint(write_frames(tmp_path / "a.mkv", rgb_frame(form), codec=codec), tmp_path)
    assert off(shown(target)) <= 3
    with av.open(str(target)) as container:
        assert int(container.streams.video[0].codec_context.colorspace) in (5, 6)


def test_hd_rgb_has_the_matrix_that_players_assume(tmp_path):
    frame = rgb_frame("bgr0", patches(720, 1280))
    target = paint(write_frames(tmp_path / "a.mkv", frame, codec="ffv1", n=1), tmp_path)
    assert off(shown(target)) <= 3
    with av.open(str(target)) as container:
        assert int(container.streams.video[0].codec_context.colorspace) == 1


def test_untagged_hd_stays_untagged(tmp_path):
    """Whatever matrix a player assumes, it assumes the same for both."""
    source = write_frames(tmp_path / "a.mkv", frame_of(patches(720, 1280), "yuv420p", full=True), codec="libx264", n=1)
    assert np.abs(patch_colors(shown(paint(source, tmp_path))) - patch_colors(shown(source))).max() <= 3


@pytest.mark.parametrize("full", [False, True])
def test_gray_sources(tmp_path, full):
    levels = np.repeat(patches()[..., :1], 3, axis=2)
    source = write_frames(tmp_path / "a.mkv", frame_of(levels, "gray", full=full), codec="libx264")
    assert off(shown(paint(source, tmp_path)), [(color[0],) * 3 for color in PATCHES]) <= 3


def test_transparent_pixels_show_white(tmp_path):
    pixels = np.dstack([patches(), np.full((96, 128), 255, np.uint8)])
    pixels[48:, 64:, 3] = 0
    source = write_frames(tmp_path / "a.mov", av.VideoFrame.from_ndarray(pixels, format="rgba"), codec="png")
    assert off(shown(paint(source, tmp_path)), [*PATCHES[:3], (255, 255, 255)]) <= 3


def test_color_tags_are_kept(tmp_path):
    frame = frame_of(patches(), "yuv420p10le", matrix=9)
    target = paint(write_frames(tmp_path / "a.mkv", frame, codec="libx264", tags=(9, 16)), tmp_path)
    with av.open(str(target)) as container:
        context = container.streams.video[0].codec_context
        assert (int(context.colorspace), int(context.color_primaries), int(context.color_trc)) == (9, 9, 16)
    assert off(shown(target)) <= 3


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libvpx-vp9"), ("a.mkv", "libx264"), ("a.mov", "png")])
@pytest.mark.parametrize("aspect", [Fraction(2), Fraction(8, 9)])
def test_pixel_aspect_ratio_of_the_container_or_the_codec(tmp_path, name, codec, aspect):
    frame = frame_of(patches(), "yuv420p") if codec != "png" else rgb_frame("rgb24")
    source = write_frames(tmp_path / name, frame, codec=codec, aspect=aspect)
    target = paint(source, tmp_path)
    with av.open(str(target)) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height) == (128, 96)
        assert Fraction(stream.sample_aspect_ratio) == aspect
        assert Fraction(stream.codec_context.sample_aspect_ratio) == aspect


@pytest.mark.parametrize("form", ["yuv420p", "yuv444p10le", "rgb24"])
def test_a_turned_source_with_oblong_pixels(tmp_path, form):
    """The sides swap, and with them the sides of a pixel."""
    frame = rgb_frame(form) if form == "rgb24" else frame_of(patches(), form)
    codec, name = ("png", "a.mov") if form == "rgb24" else ("libx264", "a.mp4")
    source = write_frames(tmp_path / name, frame, codec=codec, aspect=Fraction(2), rotation=90)
    target = paint(source, tmp_path)
    with av.open(str(target)) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height, Fraction(stream.sample_aspect_ratio)) == (96, 128, Fraction(1, 2))
    assert off(shown(target), patch_colors(np.rot90(patches()))) <= 3


def test_frames_that_h264_cannot_hold(tmp_path):
    frame = rgb_frame("bgr0", np.full((2, 16_386, 3), 90, dtype=np.uint8))
    source = write_frames(tmp_path / "a.mkv", frame, codec="ffv1", n=1)
    with pytest.raises(MediaError, match=r"a.mkv: .*16386×2 .*16384"):
        paint(source, tmp_path)
