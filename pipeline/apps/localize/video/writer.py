"""Write frames and an audio track as a widely playable video: MP4, H.264, yuv420p, index at the front.

Timestamps are kept, including offsets between the streams.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from math import ceil
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np

from pipeline.apps.localize.video.audio_track import audio_track
from pipeline.apps.localize.video.canvas import ColorTags
from pipeline.common.errors import MediaError
from pipeline.media.container import MediaContainer
from pipeline.media.pixels import LIMITED_RANGE

_FINEST_TICK = Fraction(1, 10_000)  # s
# Write errors of the machine, not of the media.
_STORAGE_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}


class VideoWriter:
    """Writer for an MP4 file. Use it as a context manager; after an error the file is unusable.

    Parameters
    ----------
    path : Path
        Any name; the format is always MP4.
    width, height : int
        Pixels, both even.
    time_base : Fraction
        Tick of the source's video stream, seconds.
    audio : MediaContainer or None
        Source of the audio track; nothing else may read from it in the meantime.
    zero : Fraction
        Time zero on the sources' clock.
    colors : ColorTags or None
        Color tags of the frames.
    aspect : Fraction
        Width of a pixel over its height.
    comment : str
        Stored in the file's metadata.
    crf, preset : int, str
        Quality and speed of the x264 encoder.
    """

    def __init__(
        self,
        path: Path,
        *,
        width: int,
        height: int,
        time_base: Fraction,
        audio: MediaContainer | None,
        zero: Fraction,
        colors: ColorTags | None = None,
        aspect: Fraction = Fraction(1),
        comment: str = "",
        crf: int = 18,
        preset: str = "veryfast",
    ) -> None:
        self.path = path
        self._zero = zero
        # A fine tick, so that frames with equal or unordered timestamps can be written one tick apart.
        self._tick = time_base / ceil(time_base / _FINEST_TICK)
        with _writing(path):
            # faststart moves the index to the front, so that a browser can start playing before the download is complete.
            self._container = av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"})
            self._container.metadata["comment"] = comment
            self._video: Any = self._container.add_stream("libx264", rate=25)
        encoder = self._video.codec_context
        encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
        encoder.time_base, encoder.sample_aspect_ratio = self._tick, aspect
        encoder.color_range = LIMITED_RANGE
        if colors is not None:
            encoder.colorspace, encoder.color_primaries, encoder.color_trc = colors
        encoder.options = {"crf": str(crf), "preset": preset}
        self._track = None if audio is None else audio_track(self._container, audio, zero)
        self._last = -1
        self._durations: dict[int, int] = {}

    @property
    def audio(self) -> str:
        """How the audio is written: "copied", "re-encoded as AAC" or "none"."""
        return "none" if self._track is None else self._track.how

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with _writing(self.path):
            if kind is None:
                self._encode(None)
                self._write_audio_until(None)
            self._container.close()

    def write(self, planes: np.ndarray, *, time: Fraction, duration: Fraction) -> None:
        """Append a frame, and the audio up to it.

        Parameters
        ----------
        planes : np.ndarray [shape=(3/2 height, width), dtype=uint8]
            Packed yuv420p.
        time : Fraction
            Seconds on the sources' clock.
        duration : Fraction
            Display duration, seconds; it matters only for the last frame.
        """
        frame: Any = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        frame.time_base = self._tick
        self._last = frame.pts = max(round((time - self._zero) / self._tick), self._last + 1)
        frame.color_range = LIMITED_RANGE
        self._durations[frame.pts] = max(1, round(duration / self._tick))
        with _writing(self.path):
            self._write_audio_until(time)
            self._encode(frame)

    def _encode(self, frame: Any) -> None:
        for packet in self._video.encode(frame):
            # The encoder assumes a constant frame rate, so set the true duration.
            packet.duration = self._durations.pop(packet.pts, packet.duration)
            self._container.mux(packet)

    def _write_audio_until(self, time: Fraction | None) -> None:
        for packet in () if self._track is None else self._track.until(time):
            self._container.mux(packet)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Convert FFmpeg errors: OSError for environment errors such as a full disk, MediaError for problems of the media."""
    try:
        yield
    except OverflowError:
        raise MediaError(f"{path.name}: cannot be written; the source has timestamps beyond 64 bits") from None
    except av.FFmpegError as error:
        if error.errno in _STORAGE_ERRNOS:
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise MediaError(f"{path.name}: cannot be encoded as MP4 ({error.strerror}); re-encode the source") from None
