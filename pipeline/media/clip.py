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
- A clip is a video, or an image file plus an audio file (see `pipeline.media.image` and `pipeline.media.pixels` for colors). In the second case each file has its own middle.
- Every problem with a file raises a MediaError with a one-line message. No file content can crash or hang the process.

PyAV suppresses FFmpeg's own messages by default, so they do not reach the console.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.media.audio import window_at
from pipeline.media.container import Deadline, MediaContainer
from pipeline.media.image import read_still
from pipeline.media.video import frame_at, squash


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
