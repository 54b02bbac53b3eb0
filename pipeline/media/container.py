"""One opened media file: its streams, its time zero, its middle, and its packets from a moment on.

Conventions
-----------
- Times are ``Fraction`` seconds on the container's own clock, unless a name ends in ``_s``.
- Time zero is the earliest start of the streams that are used (the best video and the best audio stream): a transport
  stream that starts at 43,473 s has its first picture or sound at zero.
- The middle is that of the duration which the container claims, provided that its last packets end within
  `CLAIM_TOLERANCE` of it; a claim that is missing or refuted is replaced by what the packets really cover.
- A moment up to a microsecond before a frame counts as at that frame: decimal seconds cannot express 1/30.
"""

from __future__ import annotations

import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import av
from av.stream import Discard, Disposition

from pipeline.common.errors import MediaError

CLAIM_TOLERANCE = Fraction(1, 10)
MAX_PIXELS = 100_000_000
MICROSECOND = Fraction(1, 1_000_000)
_BACK_S = (0, 1, 4, 16)

Kind = Literal["video", "audio"]


class Deadline:
    """The time that one clip may take, looked at between packets and frames.

    Parameters
    ----------
    limit_s : float > 0
        Seconds from now.
    setting : str
        What the user raises to allow more, for the message.
    """

    def __init__(self, limit_s: float, *, setting: str = "extract.clip_time_limit_s") -> None:
        self.limit_s = limit_s
        self.setting = setting
        self._end = time.monotonic() + limit_s

    @property
    def left_s(self) -> float:
        """Seconds left; never quite zero, since FFmpeg takes that for no limit."""
        return max(self._end - time.monotonic(), 0.001)

    def check(self, path: Path) -> None:
        """Raise MediaError when the time is up."""
        if time.monotonic() > self._end:
            raise MediaError(
                f"{path}: time limit of {self.limit_s:g} s exceeded; raise {self.setting} or re-encode the file"
            )


def require_file(path: Path) -> None:
    """Raise MediaError unless `path` is a regular file that holds something."""
    try:
        status = path.stat()
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise MediaError(f"{path}: {reason}; check the clip list and the media root") from None
    if stat.S_ISDIR(status.st_mode):
        raise MediaError(f"{path}: is a folder, not a media file")
    if not stat.S_ISREG(status.st_mode):
        raise MediaError(f"{path}: is not a regular file")
    if status.st_size == 0:
        raise MediaError(f"{path}: is empty (0 bytes); fetch it again")


class MediaSource:
    """An opened container. Use as a context manager.

    Parameters
    ----------
    path : Path
        The file; its content decides what it is, not its name.
    deadline : Deadline
        Bounds opening, seeking and reading.

    Attributes
    ----------
    video, audio : stream or None
        The best decodable stream of each kind; a cover picture is no video.
    zero : Fraction
        Time zero on the container's clock.

    Raises
    ------
    MediaError
        The file is missing, empty, no regular file, or no container that FFmpeg can read.
    """

    def __init__(self, path: Path, *, deadline: Deadline) -> None:
        require_file(path)
        self.path = path
        self.deadline = deadline
        self._open()

    def __enter__(self) -> MediaSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.container.close()

    def stream(self, kind: Kind) -> Any:
        """Return the stream of a kind, or raise MediaError when the file has none."""
        found = self.video if kind == "video" else self.audio
        if found is None:
            raise MediaError(f"{self.path}: has no {kind} stream that can be decoded; leave it out")
        return found

    def moment(self, centre_s: float | None) -> Fraction:
        """Return the clip's moment on the container's clock.

        Parameters
        ----------
        centre_s : float or None
            Seconds since time zero; None is the middle of the media.

        Raises
        ------
        MediaError
            `centre_s` is negative or lies after the end of the media.
        """
        length = self._end() - self.zero
        if centre_s is None:
            return self.zero + length / 2
        if not 0 <= centre_s <= length + CLAIM_TOLERANCE:
            raise MediaError(f"{self.path}: centre_s {centre_s:g} lies outside the media (0 to {float(length):.3f} s)")
        return self.zero + Fraction(centre_s)

    def starts(self, moment: Fraction) -> Iterator[Fraction | None]:
        """Yield ever earlier times to start decoding from; None is the beginning of the file."""
        for back in _BACK_S:
            if back and moment - back <= self.zero:
                break
            yield moment - back
        yield None

    def packets(self, kind: Kind, *, since: Fraction | None) -> Iterator[Any]:
        """Yield a stream's packets from at or before `since` (as the container's index has it) to the end.

        Unreadable data end the packets, as the end of the file does. If the container cannot be sought in, there are
        none.
        """
        if since is None:
            self._rewind()
        stream = self.stream(kind)
        for other in self.container.streams:
            other.discard = Discard.default if other is stream else Discard.all
        if since is None or self._seek(since, stream):
            yield from self._demux(stream)

    def _open(self) -> None:
        try:
            self.container = av.open(
                str(self.path.absolute()),
                timeout=self.deadline.left_s,
                metadata_errors="replace",
                # A playlist inside a media file must not make a worker fetch from the network.
                container_options={"protocol_whitelist": "file"},
                options={"max_pixels": str(MAX_PIXELS)},
            )
        except av.FFmpegError as error:
            self.deadline.check(self.path)
            raise MediaError(
                f"{self.path}: cannot be read as media ({error.strerror}); it is damaged, truncated or something else"
            ) from None
        self._fresh = True
        self.video = self._best("video")
        self.audio = self._best("audio")
        used = [s for s in (self.video, self.audio) if s is not None]
        starts = [s.start_time * s.time_base for s in used if s.start_time is not None]
        self.zero: Fraction = min(starts, default=Fraction(0))
        for stream in used:
            stream.codec_context.thread_count = 1
            stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}

    def _best(self, kind: Kind) -> Any:
        usable = [
            s
            for s in self.container.streams
            if s.type == kind
            and s.codec_context is not None
            and s.time_base
            and not s.disposition & Disposition.attached_pic
        ]
        best = self.container.streams.best(kind)
        return best if best in usable else next(iter(usable), None)

    def _rewind(self) -> None:
        """Go back to the state after opening. Seeking to the start is not exact in every container; opening again is."""
        if not self._fresh:
            self.container.close()
            self._open()

    def _seek(self, moment: Fraction, stream: Any) -> bool:
        self._fresh = False
        try:
            self.container.seek(int(moment / stream.time_base), stream=stream)
        except av.FFmpegError:
            return False
        return True

    def _demux(self, *streams: Any) -> Iterator[Any]:
        self._fresh = False
        with suppress(av.FFmpegError):
            for packet in self.container.demux(*streams):
                self.deadline.check(self.path)
                if packet.has_sidedata("encryption_info"):
                    raise MediaError(f"{self.path}: is encrypted; decrypt it first or leave it out")
                if packet.size:
                    yield packet
        self.deadline.check(self.path)

    def _end(self) -> Fraction:
        """Return when the media end: as claimed, if the last packets bear it out, else where the packets end."""
        used = [s for s in (self.video, self.audio) if s is not None]
        if not used:
            raise MediaError(f"{self.path}: has neither a video nor an audio stream that can be decoded")
        for stream in self.container.streams:
            stream.discard = Discard.default if stream in used else Discard.all
        start, length = self.container.start_time, self.container.duration
        claim = None if length is None else (self.zero if start is None else start * MICROSECOND) + length * MICROSECOND
        if claim is not None and self._seek(claim, used[0]):
            last = self._last_packet_end(used)
            if last is not None and abs(last - claim) <= CLAIM_TOLERANCE:
                return claim
        self._rewind()
        used = [s for s in (self.video, self.audio) if s is not None]
        return self._last_packet_end(used) or self.zero

    def _last_packet_end(self, streams: list[Any]) -> Fraction | None:
        ends = [
            ((p.dts if p.pts is None else p.pts) + (p.duration or 0)) * p.time_base
            for p in self._demux(*streams)
            if p.pts is not None or p.dts is not None
        ]
        return max(ends, default=None)
