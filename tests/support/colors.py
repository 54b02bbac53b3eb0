"""Video frames whose stored values follow from the formulas of ITU-R BT.601, BT.709 and BT.2020, and the way back to RGB."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

RED_BLUE = {
    1: (0.2126, 0.0722),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    9: (0.2627, 0.0593),
}  # luma weights by AVColorSpace
PATCHES = ((200, 30, 80), (0, 0, 0), (255, 255, 255), (20, 180, 60))


def patches(height: int = 96, width: int = 128) -> np.ndarray:
    """Return an RGB image with a color of `PATCHES` in each quadrant, in reading order."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    for i, color in enumerate(PATCHES):
        row, column = i // 2 * height // 2, i % 2 * width // 2
        pixels[row : row + height // 2, column : column + width // 2] = color
    return pixels


def patch_colors(pixels: np.ndarray) -> np.ndarray:
    """Return the colors in the middle of the quadrants: int (4, 3)."""
    rows, columns = pixels.shape[0], pixels.shape[1]
    return np.array([pixels[rows * r // 4, columns * c // 4] for r in (1, 3) for c in (1, 3)], dtype=int)


def usual_matrix(height: int) -> int:
    """Return the matrix that players assume for untagged video."""
    return 1 if height >= 720 else 6


def frame_of(
    pixels: np.ndarray, form: str, *, matrix: int = 2, full: bool = False, tagged: bool = True
) -> av.VideoFrame:
    """Return a frame in a planar YUV or gray format; `matrix` 2 stores and tags as untagged video of BT.601."""
    frame = av.VideoFrame(pixels.shape[1], pixels.shape[0], form)
    bits = frame.format.components[0].bits
    red, blue = RED_BLUE[6 if matrix == 2 else matrix]
    r, g, b = (pixels[..., c] / 255 for c in range(3))
    luma = red * r + (1 - red - blue) * g + blue * b
    chroma = (b - luma) / (2 * (1 - blue)), (r - luma) / (2 * (1 - red))
    step = 2 ** (bits - 8)
    if full:
        stored = [luma * (2**bits - 1), *(128 * step + c * (2**bits - 1) for c in chroma)]
    else:
        stored = [step * (16 + 219 * luma), *(step * (128 + 224 * c) for c in chroma)]
    kind = np.dtype(np.uint16 if bits > 8 else np.uint8)
    for plane, values in zip(frame.planes, stored, strict=False):
        down, across = pixels.shape[0] // plane.height, pixels.shape[1] // plane.width
        padded = np.zeros((plane.height, plane.line_size // kind.itemsize), dtype=kind)
        padded[:, : plane.width] = values[::down, ::across].round().clip(0, 2**bits - 1)
        plane.update(padded.tobytes())
    frame.colorspace = matrix
    if tagged:
        frame.color_range = 2 if full else 1
    return frame


def write_frames(
    path: Path, frame: av.VideoFrame, *, codec: str, n: int = 3, aspect: Fraction | None = None, rotation: float | None = None,
    tags: tuple[int, int] = (2, 2),
) -> Path:  # fmt: skip
    """Write a frame n times, at 10 frames per second, with a tone; `tags` are primaries and transfer."""
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=10)
        video.width, video.height, video.pix_fmt = frame.width, frame.height, frame.format.name
        context = video.codec_context
        context.colorspace, context.color_range = frame.colorspace, frame.color_range
        context.color_primaries, context.color_trc = tags
        context.options = {"qp": "0", "preset": "ultrafast"} if codec.startswith("libx264") else {"q": "1"}
        if aspect is not None:
            context.sample_aspect_ratio = aspect
        if rotation is not None:
            video.set_display_rotation(rotation)
        audio = container.add_stream("pcm_s16le" if path.suffix in (".mkv", ".avi", ".mov") else "libopus", rate=48_000)
        audio.layout = "mono"
        wave = np.round(10_000 * np.sin(np.arange(4_800 * n) / 20)).astype(np.int16)[None]
        block = av.AudioFrame.from_ndarray(wave, format="s16", layout="mono")
        block.sample_rate, block.pts, block.time_base = 48_000, 0, Fraction(1, 48_000)
        for packet in [*audio.encode(block), *audio.encode(None)]:
            container.mux(packet)
        for i in range(n):
            frame.pts, frame.time_base = i, Fraction(1, 10)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    return path


def shown(path: Path) -> np.ndarray:
    """Return the first frame as a player shows it, computed by the formulas from the stored 8-bit planes and the tags."""
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    assert frame.format.name in ("yuv420p", "yuvj420p")
    planes = []
    for plane in frame.planes:
        values = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width].astype(float)
        planes.append(values.repeat(frame.height // plane.height, axis=0).repeat(frame.width // plane.width, axis=1))
    full = frame.color_range == 2 or frame.format.name == "yuvj420p"
    matrix = int(frame.colorspace)
    red, blue = RED_BLUE[usual_matrix(frame.height) if matrix == 2 else matrix]
    y = planes[0] / 255 if full else (planes[0] - 16) / 219
    u, v = ((plane - 128) / (255 if full else 224) for plane in planes[1:])
    r, b = y + 2 * (1 - red) * v, y + 2 * (1 - blue) * u
    g = (y - red * r - blue * b) / (1 - red - blue)
    return np.stack([r, g, b], axis=-1).clip(0, 1) * 255
