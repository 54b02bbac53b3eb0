"""Open a media file, find its streams and its duration, and read packets from a timestamp on.

Conventions
-----------
- Times are ``Fraction`` seconds on the container's own clock, unless a name ends in ``_s``.
- Time zero is the earliest start of the streams in use (the best video and the best audio stream). A transport stream
  whose clock starts at 43,473 s therefore has its first frame or sample at zero.
- The end of the media is the duration in the container's header if the last packets end within `DURATION_TOLERANCE` of
  it. Otherwise (truncated file, missing or wrong header) it is the end of the last packet.
- A timestamp up to a microsecond before a frame selects that frame, because decimal seconds cannot express 1/30.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
from av.stream import Discard

from pipeline.common.errors import MediaError
from pipeline.media.joined_clock import JoinedClock, is_short, may_be_joined, steps_back
from pipeline.media.pyav import open_media, pyav_errors
from pipeline.media.readable import opened, require_file
from pipeline.media.streams import Kind, best_streams

DURATION_TOLERANCE = Fraction(1, 10)
MICROSECOND = Fraction(1, 1_000_000)
# Time stamps that deviate less from the number of samples are only rounded: many containers count in milliseconds.
ROUNDING_S = 0.001 + 1.0e-9
# Containers with a sparse or wrong index may seek too late; each retry starts further back.
_SEEK_BACK_S = (0, 1, 4, 16)


class Deadline:
    """Time limit for one clip, checked between packets and frames.

    Parameters
    ----------
    limit_s : float > 0
        Seconds from now.
    setting : str
        Name of the setting that raises the limit, for the error message.
    """

    def __init__(self, limit_s: float, *, setting: str = "extract.clip_time_limit_s") -> None:
        self.limit_s = limit_s
        self.setting = setting
        self._end = time.monotonic() + limit_s

    @property
    def remaining_s(self) -> float:
        """Remaining seconds; always positive, because FFmpeg treats zero as no limit."""
        return max(self._end - time.monotonic(), 0.001)

    def check(self, path: Path) -> None:
        """Raise MediaError if the time limit is exceeded."""
        if time.monotonic() > self._end:
            raise MediaError(
                f"{path}: time limit of {self.limit_s:g} s exceeded; raise {self.setting} or re-encode the file"
            )


class MediaContainer:
    """An open media container. Use it as a context manager.

    Parameters
    ----------
    path : Path
        The format is detected from the content, not from the file name.
    deadline : Deadline
        Limits the time for opening, seeking and reading.

    Attributes
    ----------
    video : stream or None
        The best decodable video stream. Embedded cover art does not count.
    tracks : list of streams
        The decodable audio streams of the same program, the best one first.
    track : int
        Index of the audio track in use.
    zero : Fraction
        Time zero on the container's clock.
    joined : bool
        Whether the clock is known to step back, so that only reading from the beginning is exact.
    recording : int
        Which of several joined recordings the last packet belongs to.

    Raises
    ------
    MediaError
        The file is missing, empty, not a regular file, or not a container that FFmpeg can read.
    """

    def __init__(self, path: Path, *, deadline: Deadline) -> None:
        require_file(path)
        self.path = path
        self.deadline = deadline
        self.track = 0
        self.joined = False
        self.recording = 0
        with ExitStack() as stack:
            self._source = stack.enter_context(opened(path))
            self._open()
            self._files = stack.pop_all()

    @property
    def audio(self) -> Any:
        """The audio stream in use, or None."""
        return self.tracks[self.track] if self.track < len(self.tracks) else None

    def __enter__(self) -> MediaContainer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.container.close()
        # Raises, in place of `error`, if a remote file could not be read to the end.
        self._files.__exit__(kind, error, traceback)

    def stream(self, kind: Kind) -> Any:
        """Return the stream of a kind; raise MediaError if the file has none."""
        found = self.video if kind == "video" else self.audio
        if found is None:
            raise MediaError(f"{self.path}: has no decodable {kind} stream; leave it out")
        return found

    def timestamp(self, centre_s: float | None) -> Fraction:
        """Return the clip's center time on the container's clock.

        Parameters
        ----------
        centre_s : float or None
            Seconds since time zero; None selects the middle of the media.

        Raises
        ------
        MediaError
            `centre_s` is negative or after the end of the media.
        """
        length = self._end() - self.zero
        if centre_s is None:
            return self.zero + length / 2
        if not 0 <= centre_s <= length + DURATION_TOLERANCE:
            raise MediaError(f"{self.path}: centre_s {centre_s:g} is outside the media (0 to {float(length):.3f} s)")
        return self.zero + Fraction(centre_s)

    def seek_times(self, timestamp: Fraction) -> Iterator[Fraction | None]:
        """Yield successively earlier times to start decoding from; the last is None, the beginning of the file."""
        # After a seek in a program stream, FFmpeg guesses times up to the next stored one, within 0.7 s (ISO 13818-1).
        first = 1 if self.container.format.name == "mpeg" else 0
        for back in () if self.joined else _SEEK_BACK_S[first:]:
            if back and timestamp - back <= self.zero:
                break
            yield timestamp - back
        yield None

    def packets(self, kind: Kind, *, since: Fraction | None) -> Iterator[Any]:
        """Yield a stream's packets, starting at or before `since` according to the container's index.

        Iteration ends at the end of the file or at the first unreadable data. It yields nothing if the container does
        not support seeking.
        """
        if since is None:
            self._rewind()
        stream = self.stream(kind)
        from_start = since is None and may_be_joined(self.container)
        read = self._used() if from_start else [stream]
        self._select(*read)
        if since is not None and not self._seek(since, stream):
            return
        clock = JoinedClock()
        for packet in self._demux(*read):
            if from_start:
                clock.shift(packet)
            if packet.stream_index != stream.index:
                continue
            if packet.has_sidedata("encryption_info"):
                raise MediaError(f"{self.path}: is encrypted (DRM); decrypt it first or leave it out")
            self.recording = clock.recording(stream.index)
            yield packet

    def has_regular_audio(self, *, until: Fraction) -> bool:
        """Return whether the timestamps of all audio packets up to a time agree with the number of samples before."""
        stream = self.stream("audio")
        self._select(stream)
        context, tick_s, until_s = stream.codec_context, float(stream.time_base), float(until)
        size_s = context.frame_size / context.sample_rate if context.frame_size and context.sample_rate else None
        if size_s is None and context.sample_rate and (1 / (context.sample_rate * stream.time_base)).denominator != 1:
            return False  # durations are rounded as the timestamps are, so they would agree however far both drift
        counted_s = None
        for packet in self._demux(stream) if self._seek(self.zero, stream) else ():
            if packet.pts is None:
                return False
            stamp_s = packet.pts * tick_s
            counted_s = stamp_s if counted_s is None else counted_s
            if abs(stamp_s - counted_s) > ROUNDING_S:
                return False
            if stamp_s > until_s:
                return True
            counted_s += (packet.duration or 0) * tick_s if size_s is None else size_s
        return False

    def _open(self) -> None:
        try:
            self.container = open_media(self._source, timeout_s=self.deadline.remaining_s)
        except MediaError:
            self.deadline.check(self.path)
            raise
        self._fresh = True
        with pyav_errors(self.path):
            self.video, self.tracks = best_streams(self.container, self.path)
            used = [s for s in (self.video, *self.tracks[:1]) if s is not None]
            starts = [s.start_time * s.time_base for s in used if s.start_time is not None]
        self.zero: Fraction = min(starts, default=Fraction(0))

    def _rewind(self) -> None:
        """Return to the start by reopening the file: seeking to the start is not exact in every container."""
        if not self._fresh:
            self.container.close()
            self._open()

    def _seek(self, timestamp: Fraction, stream: Any) -> bool:
        self._fresh = False
        try:
            self.container.seek(int(timestamp / stream.time_base), stream=stream)
        # Timestamps of damaged files can exceed 64 bits.
        except (av.FFmpegError, OverflowError):
            return False
        return True

    def _demux(self, *streams: Any) -> Iterator[Any]:
        self._fresh = False
        packets = self.container.demux(*streams)
        # PyAV raises IndexError at the end of files with streams that appear late.
        with suppress(av.FFmpegError, IndexError), pyav_errors(self.path, passing=(av.FFmpegError, IndexError)):
            for packet in packets:
                self.deadline.check(self.path)
                if packet.size:
                    yield packet
        self.deadline.check(self.path)

    def _end(self) -> Fraction:
        """Return the end of the media: the header's duration if the last packets confirm it, else the last packet's end."""
        used = self._used()
        if not used:
            raise MediaError(f"{self.path}: has neither a decodable video stream nor a decodable audio stream")
        self._select(*used)
        start, length = self.container.start_time, self.container.duration
        claimed = (
            None if length is None else (self.zero if start is None else start * MICROSECOND) + length * MICROSECOND
        )
        if claimed is not None and not is_short(self.container) and self._seek(claimed, used[0]):
            last = self._last_packet_end(used)
            if last is not None and abs(last - claimed) <= DURATION_TOLERANCE and not self._is_joined(used[0]):
                return claimed
        self._rewind()
        self._select(*self._used())
        clock = JoinedClock()
        last = self._last_packet_end(self._used(), clock=clock)
        self.joined = self.joined or clock.has_stepped_back
        return self.zero if last is None else last

    def _is_joined(self, stream: Any) -> bool:
        with suppress(av.FFmpegError), pyav_errors(self.path, passing=(av.FFmpegError,)):
            self.joined = steps_back(self.container, stream)
        return self.joined

    def _last_packet_end(self, streams: list[Any], *, clock: JoinedClock | None = None) -> Fraction | None:
        end = None
        for packet in self._demux(*streams):
            if clock is not None:
                clock.shift(packet)
            stamp = packet.dts if packet.pts is None else packet.pts
            if stamp is not None:
                time = (stamp + (packet.duration or 0)) * packet.time_base
                end = time if end is None else max(end, time)
        return end

    def _used(self) -> list[Any]:
        return [stream for stream in (self.video, self.audio) if stream is not None]

    def _select(self, *streams: Any) -> None:
        for stream in self.container.streams:
            stream.discard = Discard.default if stream in streams else Discard.all
