"""Media files → one frame and one window of sound per clip.

Conventions
-----------
- The *moment* of a clip is its `centre_s`, or the middle of the media when that is None; seconds after the media's
  start (the earliest start of its video and audio stream).
- The frame is the picture shown at the moment: the last one whose time is not after it. It is turned upright, and
  squashed as a whole to a square, uint8 RGB ``(row, col, channel)``.
- The sound is the window of `clip_seconds` centered at the moment: mono (mean of the channels), float32, resampled,
  peak-normalized to 1, and exactly ``round(sample_rate * clip_seconds)`` samples long; where the window overhangs the
  media, or the media are shorter, it holds zeros.
- A clip is a video, or a picture file and a sound file. Each of the two then has its own middle.
- Whatever is wrong with a file is a MediaError with one line; nothing that a file holds ends the process or hangs it.

FFmpeg's own messages do not reach the terminal: PyAV silences them unless asked otherwise.
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
from pipeline.media.container import MAX_PIXELS, Deadline, MediaSource, require_file
from pipeline.media.video import frame_at, squash

# Formats that Pillow decodes by itself (its PostScript reader, for one, would start another program).
_IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
# What Pillow's decoders raise on damaged files.
_IMAGE_FAULTS = (OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError, struct.error, zlib.error)


@dataclass(frozen=True)
class DecodedClip:
    """One clip, decoded.

    Attributes
    ----------
    frame : np.ndarray [shape=(image_size, image_size, 3)]
        uint8 RGB.
    waveform : np.ndarray [shape=(round(sample_rate * clip_seconds),)]
        float32 mono, largest magnitude 1.
    source_time_s : float
        The moment: center of the window of sound, seconds after the start of the media that hold the sound.
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
    """Decode a clip's frame and sound from its video, or from its picture file and its sound file.

    Parameters
    ----------
    video : Path or None
        A file with both pictures and sound; then `frame` and `audio` are None.
    frame, audio : Path or None
        A picture file (or a video, of which the picture at the moment is taken) and a sound file.
    centre_s : float or None
        The moment, seconds; None is the middle of the media.
    image_size : int > 0
        Side of the frame, pixels.
    sample_rate : int > 0
        Hz.
    clip_seconds : float > 0
        Length of the window of sound.
    time_limit_s : float > 0
        Seconds that the clip may take, looked at between packets.

    Raises
    ------
    MediaError
        The clip cannot be used: the message names the file, the reason, and what to do.
    ValueError
        Neither `video`, nor both `frame` and `audio` are given.
    """
    deadline = Deadline(time_limit_s)
    if video is not None:
        with MediaSource(video, deadline=deadline) as source:
            # Both, before either is decoded: a clip without one of them costs nothing.
            source.stream("video")
            source.stream("audio")
            moment = source.moment(centre_s)
            waveform = window_at(source, moment, clip_seconds=clip_seconds, sample_rate=sample_rate)
            return DecodedClip(frame_at(source, moment, image_size=image_size), waveform, float(moment - source.zero))
    if frame is None or audio is None:
        raise ValueError("a clip needs a video, or a frame and an audio file")
    picture = _picture(frame, centre_s, image_size, deadline)
    with MediaSource(audio, deadline=deadline) as source:
        source.stream("audio")
        moment = source.moment(centre_s)
        waveform = window_at(source, moment, clip_seconds=clip_seconds, sample_rate=sample_rate)
        return DecodedClip(picture, waveform, float(moment - source.zero))


def read_frame(path: Path, *, centre_s: float | None = None, image_size: int, time_limit_s: float = 30.0) -> np.ndarray:
    """Read a picture file, or the picture shown at a moment of a video; the file's content decides which it is.

    Returns
    -------
    np.ndarray [shape=(image_size, image_size, 3)]
        uint8 RGB, upright (EXIF orientation and display matrix honored).

    Raises
    ------
    MediaError
        As `decode_clip`.
    """
    return _picture(path, centre_s, image_size, Deadline(time_limit_s))


def read_audio(
    path: Path, *, centre_s: float | None = None, clip_seconds: float, sample_rate: int, time_limit_s: float = 30.0
) -> np.ndarray:
    """Read the window of sound around a moment of a sound file or a video.

    Returns
    -------
    np.ndarray [shape=(round(sample_rate * clip_seconds),)]
        float32 mono, largest magnitude 1.

    Raises
    ------
    MediaError
        As `decode_clip`.
    """
    with MediaSource(path, deadline=Deadline(time_limit_s)) as source:
        source.stream("audio")
        return window_at(source, source.moment(centre_s), clip_seconds=clip_seconds, sample_rate=sample_rate)


def _picture(path: Path, centre_s: float | None, image_size: int, deadline: Deadline) -> np.ndarray:
    still = read_still(path)
    if still is not None:
        return squash(Image.fromarray(still), image_size)
    with MediaSource(path, deadline=deadline) as source:
        source.stream("video")
        return frame_at(source, source.moment(centre_s), image_size=image_size)


def read_still(path: Path) -> np.ndarray | None:
    """Read a picture file in its own size; None if the content is no picture file.

    Returns
    -------
    np.ndarray [shape=(row, col, 3)] or None
        uint8 RGB, upright (EXIF orientation honored).

    Raises
    ------
    MediaError
        The file is missing or empty, or a picture that is damaged or larger than 100 megapixels.
    """
    require_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=_IMAGE_FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise MediaError(f"{path}: {image.width}×{image.height} pixels are too many; scale it down")
                return np.asarray(_rgb(ImageOps.exif_transpose(image)))
    except UnidentifiedImageError:
        return None
    except Image.DecompressionBombError:
        raise MediaError(f"{path}: holds too many pixels; scale it down") from None
    except _IMAGE_FAULTS as error:
        raise MediaError(f"{path}: the picture is damaged or truncated ({error}); fetch it again") from None


def is_still(path: Path) -> bool:
    """Tell from a file's first bytes whether it is a picture file; False as well for one that cannot be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=_IMAGE_FORMATS):
                return True
    except Image.DecompressionBombError:
        return True
    except _IMAGE_FAULTS:
        return False


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow would clip 16-bit gray to 8 bits rather than scale it.
        return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    return image.convert("RGB")
