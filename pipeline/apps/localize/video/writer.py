"""Pictures and a copied sound track → a video that plays everywhere: MP4, H.264, yuv420p, the index in front.

The sound's packets are copied as they are where MP4 holds their codec and players know it there; other sound is coded as
AAC. Times are kept: what starts later in the source does so here.
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

from pipeline.common.errors import MediaError
from pipeline.media.audio import timed_blocks
from pipeline.media.container import MediaContainer

COPIED_CODECS = frozenset({"aac", "mp3", "mp3float", "ac3", "eac3", "opus", "libopus"})
_LIMITED_RANGE = 1  # luma 16..235
_FINEST_TICK = Fraction(1, 10_000)
_AAC_RATES = (96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000)
_FULL_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}


class VideoWriter:
    """An MP4 file that is being written. Use as a context manager; what it holds after an error is of no use.

    Parameters
    ----------
    path : Path
        Any name: the format is MP4.
    width, height : int
        Pixels, both even.
    time_base : Fraction
        Of the source's pictures, seconds.
    sound : MediaContainer or None
        Where the sound comes from; nothing else may read from it meanwhile.
    zero : Fraction
        Time zero on the clock of the sources.
    colors : picture or None
        A decoded picture, whose color tags are kept.
    aspect : Fraction
        Width of a pixel over its height.
    comment : str
        Kept in the file.
    crf, preset : int, str
        Quality and effort of the coding, as for x264.
    """

    def __init__(
        self,
        path: Path,
        *,
        width: int,
        height: int,
        time_base: Fraction,
        sound: MediaContainer | None,
        zero: Fraction,
        colors: Any = None,
        aspect: Fraction = Fraction(1),
        comment: str = "",
        crf: int = 18,
        preset: str = "veryfast",
    ) -> None:
        self.path = path
        self._zero = zero
        # A fine tick, so that pictures with equal or disordered times can be put one tick apart.
        self._tick = time_base / ceil(time_base / _FINEST_TICK)
        with _writing(path):
            self._container = av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"})
            self._container.metadata["comment"] = comment
            self._video: Any = self._container.add_stream("libx264", rate=25)
        coder = self._video.codec_context
        coder.width, coder.height, coder.pix_fmt = width, height, "yuv420p"
        coder.time_base, coder.sample_aspect_ratio = self._tick, aspect
        coder.color_range = _LIMITED_RANGE
        for tag in ("colorspace", "color_primaries", "color_trc") if colors is not None else ():
            setattr(coder, tag, getattr(colors, tag))
        coder.options = {"crf": str(crf), "preset": preset}
        self._track = None if sound is None else _track(self._container, sound, zero)
        self._last = -1
        self._durations: dict[int, int] = {}

    @property
    def sound(self) -> str:
        """How the sound came over: "copied", "coded as AAC" or "none"."""
        return "none" if self._track is None else self._track.how

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with _writing(self.path):
            if kind is None:
                self._encode(None)
                self._sound_until(None)
            self._container.close()

    def write(self, planes: np.ndarray, *, time: Fraction, duration: Fraction) -> None:
        """Append a picture, and the sound up to it.

        Parameters
        ----------
        planes : np.ndarray [shape=(3/2 height, width), dtype=uint8]
            Packed yuv420p.
        time : Fraction
            Seconds on the clock of the sources.
        duration : Fraction
            For which it is shown; matters for the last one.
        """
        picture: Any = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        picture.time_base = self._tick
        self._last = picture.pts = max(round((time - self._zero) / self._tick), self._last + 1)
        picture.color_range = _LIMITED_RANGE
        self._durations[picture.pts] = max(1, round(duration / self._tick))
        with _writing(self.path):
            self._sound_until(time)
            self._encode(picture)

    def _encode(self, picture: Any) -> None:
        for packet in self._video.encode(picture):
            # The coder supposes a constant rate.
            packet.duration = self._durations.pop(packet.pts, packet.duration)
            self._container.mux(packet)

    def _sound_until(self, time: Fraction | None) -> None:
        for packet in () if self._track is None else self._track.until(time):
            self._container.mux(packet)


class _CopiedTrack:
    """Packets of sound as they are, moved to time zero."""

    how = "copied"

    def __init__(self, container: Any, source: MediaContainer, zero: Fraction) -> None:
        template = source.stream("audio")
        self._stream = container.add_stream_from_template(template)
        self._shift = round(zero / template.time_base)
        self._packets = source.packets("audio", since=None)
        self._held: Any = None
        self._last: int | None = None

    def until(self, time: Fraction | None) -> Iterator[Any]:
        """Yield the packets that begin before `time`; None stands for the end."""
        while True:
            packet = next(self._packets, None) if self._held is None else self._held
            if packet is None:
                return
            stamp = packet.pts if packet.dts is None else packet.dts
            if time is not None and stamp is not None and stamp * packet.time_base > time:
                self._held = packet
                return
            self._held = None
            if stamp is None:
                continue
            dts = stamp - self._shift
            # MP4 cannot go back in time, which damaged files do.
            dts = dts if self._last is None else max(dts, self._last + 1)
            packet.pts, packet.dts, self._last = max(dts, (packet.pts or stamp) - self._shift), dts, dts
            packet.stream = self._stream
            yield packet


class _CodedTrack:
    """Sound coded as AAC."""

    how = "coded as AAC"

    def __init__(self, container: Any, source: MediaContainer, zero: Fraction) -> None:
        stream = source.stream("audio")
        rate = next((rate for rate in reversed(_AAC_RATES) if rate >= stream.codec_context.sample_rate), _AAC_RATES[0])
        layout = "mono" if stream.codec_context.channels == 1 else "stereo"
        self._path = source.path
        self._stream: Any = container.add_stream("aac", rate=rate, layout=layout)
        self._resampler = av.AudioResampler("fltp", layout, rate, frame_size=1024)
        self._sounds: Iterator[Any] | None = (sound for _, sound in timed_blocks(source, None))
        self._zero = zero
        self._time = zero

    def until(self, time: Fraction | None) -> Iterator[Any]:
        """Yield packets of the sound that begins before `time`; None stands for the end."""
        try:
            while self._sounds is not None and (time is None or self._time <= time):
                sound = next(self._sounds, None)
                if sound is None:
                    self._sounds = None
                    for piece in self._resampler.resample(None):
                        yield from self._stream.encode(piece)
                    yield from self._stream.encode(None)
                    return
                if sound.pts is not None:
                    self._time = sound.pts * sound.time_base
                    sound.pts -= round(self._zero / sound.time_base)
                for piece in self._resampler.resample(sound):
                    yield from self._stream.encode(piece)
        except ValueError as error:
            raise MediaError(f"{self._path}: its sound cannot be coded anew ({error}); re-encode it") from None


def _track(container: Any, source: MediaContainer, zero: Fraction) -> _CopiedTrack | _CodedTrack:
    codec = source.stream("audio").codec_context.name
    return (_CopiedTrack if codec in COPIED_CODECS else _CodedTrack)(container, source, zero)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Tell the faults of the surroundings, such as a full disk, from those of the media."""
    try:
        yield
    except av.FFmpegError as error:
        if error.errno in _FULL_DISK:
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise MediaError(f"{path.name}: cannot be coded as MP4 ({error.strerror}); re-encode the source") from None
