"""Decode media files into one frame and one audio window per clip.

Conventions
-----------
- A clip's center time is its `centre_s`, or the middle of the media if that is None; in seconds after the start of the
  media (the earliest start of its video and audio streams).
- The frame is the one displayed at the center time: the last one whose timestamp is not after it. It is rotated upright
  and squashed, not cropped, to a square: uint8 RGB ``(row, col, channel)``.
- The audio is the window of `clip_seconds` around the center time: mono (mean of the channels), float32, resampled,
  peak-normalized to 1, exactly ``round(sample_rate * clip_seconds)`` samples. It is zero-padded where the window extends
  beyond the media.
- A clip is a video, or an image file plus an audio file. In the second case each file has its own middle.
- Every problem with a file raises a MediaError with a one-line message. No file content can crash or hang the process.

PyAV suppresses FFmpeg's own messages by default, so they do not reach the console.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from pipeline.common.errors import MediaError
from pipeline.media.audio import window_at
from pipeline.media.container import MAX_PIXELS, Deadline, MediaContainer, require_file
from pipeline.media.readable import raise_if_unreadable
from pipeline.media.video import frame_at, squash

# Formats that Pillow decodes in-process. Others are risky: its PostScript reader starts another program.
_IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
# All of these are raised by Pillow's decoders on damaged files.
_IMAGE_ERRORS = (OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError, struct.error, zlib.error)


@dataclass(frozen=True)
class DecodedClip:
    """A decoded clip.

    Attributes
    ----------
    frame : np.ndarray [shape=(image_size, image_size, 3)]
        uint8 RGB.
    waveform : np.ndarray [shape=(round(sample_rate * clip_seconds),)]
        float32 mono, largest magnitude 1.
    source_time_s : float
        Center of the audio window, seconds after the start of the file that contains the audio.
    """

    frame: np.ndarray
    waveform: np.ndarray
    source_time_s: float


def decode_clip(
    *,
    video: Path | None,
    frame: Path | None,
    audio: Path | None,
    centre_s: float | None,
    image_size: int,
    sample_rate: int,
    clip_seconds: float,
    time_limit_s: float,
) -> DecodedClip:
    """Decode a clip's frame and audio from its video, or from an image file and an audio file.

    Parameters
    ----------
    video : Path or None
        A file with a video and an audio stream; `frame` and `audio` are then None.
    frame, audio : Path or None
        An image file (or a video, whose frame at `centre_s` is used) and an audio file.
    centre_s : float or None
        Center time in seconds; None selects the middle of the media.
    image_size : int > 0
        Side of the frame, pixels.
    sample_rate : int > 0
        Hz.
    clip_seconds : float > 0
        Length of the audio window.
    time_limit_s : float > 0
        Time limit for decoding the clip in seconds, checked between packets.

    Raises
    ------
    MediaError
        The clip is unusable; the message names the file, the reason, and what to do.
    ValueError
        Neither `video` nor both `frame` and `audio` are given.
    """
    deadline = Deadline(time_limit_s)
    if video is not None:
        with MediaContainer(video, deadline=deadline) as media:
            # Check both streams before decoding either, so that a clip that lacks one is rejected cheaply.
            media.stream("video")
            media.stream("audio")
            timestamp = media.timestamp(centre_s)
            waveform = window_at(media, timestamp, clip_seconds=clip_seconds, sample_rate=sample_rate)
            return DecodedClip(
                frame_at(media, timestamp, image_size=image_size), waveform, float(timestamp - media.zero)
            )
    if frame is None or audio is None:
        raise ValueError("a clip needs a video, or a frame and an audio file")
    pixels = _decode_frame(frame, centre_s, image_size, deadline)
    with MediaContainer(audio, deadline=deadline) as media:
        media.stream("audio")
        timestamp = media.timestamp(centre_s)
        waveform = window_at(media, timestamp, clip_seconds=clip_seconds, sample_rate=sample_rate)
        return DecodedClip(pixels, waveform, float(timestamp - media.zero))


def read_frame(path: Path, *, centre_s: float | None = None, image_size: int, time_limit_s: float = 30.0) -> np.ndarray:
    """Read an image file, or the frame of a video at a timestamp. The type is detected from the file's content.

    Returns
    -------
    np.ndarray [shape=(image_size, image_size, 3)]
        uint8 RGB, upright (EXIF orientation or display matrix applied).

    Raises
    ------
    MediaError
        See `decode_clip`.
    """
    return _decode_frame(path, centre_s, image_size, Deadline(time_limit_s))


def read_audio(
    path: Path, *, centre_s: float | None = None, clip_seconds: float, sample_rate: int, time_limit_s: float = 30.0
) -> np.ndarray:
    """Read the window around a timestamp from an audio file or from a video's audio track.

    Returns
    -------
    np.ndarray [shape=(round(sample_rate * clip_seconds),)]
        float32 mono, largest magnitude 1.

    Raises
    ------
    MediaError
        See `decode_clip`.
    """
    with MediaContainer(path, deadline=Deadline(time_limit_s)) as media:
        media.stream("audio")
        return window_at(media, media.timestamp(centre_s), clip_seconds=clip_seconds, sample_rate=sample_rate)


def _decode_frame(path: Path, centre_s: float | None, image_size: int, deadline: Deadline) -> np.ndarray:
    still = read_still(path)
    if still is not None:
        return squash(Image.fromarray(still), image_size)
    with MediaContainer(path, deadline=deadline) as media:
        media.stream("video")
        return frame_at(media, media.timestamp(centre_s), image_size=image_size)


def read_still(path: Path) -> np.ndarray | None:
    """Read an image file at its original size; return None if the content is not an image.

    Returns
    -------
    np.ndarray [shape=(row, col, 3)] or None
        uint8 RGB, upright (EXIF orientation applied).

    Raises
    ------
    MediaError
        The file is missing or empty, or the image is damaged or larger than 100 megapixels.
    """
    require_file(path)
    try:
        with warnings.catch_warnings():
            # Pillow warns about odd metadata and large images; the size is checked here, before anything is decoded.
            warnings.simplefilter("ignore")
            with Image.open(path, formats=_IMAGE_FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise MediaError(
                        f"{path}: {image.width}×{image.height} pixels exceed the limit of 100 megapixels; scale it down"
                    )
                return np.asarray(_rgb(ImageOps.exif_transpose(image)))
    except UnidentifiedImageError:
        return None
    except Image.DecompressionBombError:
        raise MediaError(f"{path}: exceeds the limit of 100 megapixels; scale it down") from None
    except _IMAGE_ERRORS as error:
        raise_if_unreadable(path, error)
        raise MediaError(f"{path}: the image is damaged or truncated ({error}); download it again") from None


def is_still(path: Path) -> bool:
    """Return whether a file is an image, judging by its first bytes; False if it cannot be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=_IMAGE_FORMATS):
                return True
    except Image.DecompressionBombError:
        return True  # an image, although too large to load
    except _IMAGE_ERRORS:
        return False


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow would clip 16-bit gray to 8 bits instead of scaling it.
        return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    return image.convert("RGB")
