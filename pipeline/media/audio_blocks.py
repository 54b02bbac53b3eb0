"""Decode an audio track into blocks with exact times.

Time stamps of audio jitter and are often coarse, while decoded samples follow each other without a gap. Times are
therefore counted in samples. The stamps correct the count only where it is off by more than `MAX_DRIFT_S`: a real gap, or
a jump of the clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from typing import Any, NamedTuple

import av
import numpy as np

from pipeline.common.errors import MediaError
from pipeline.media.container import MediaContainer
from pipeline.media.pyav import pyav_errors

# Ours: as in common players. Jitter of real files stays below 25 ms, and lip sync tolerates more.
MAX_DRIFT_S = 0.1
_LOWEST_RATE, _HIGHEST_RATE = 1_000, 1_000_000  # Hz; anything else means a damaged header
# Ours: -30 dB. A mean this much weaker than its loudest channel has canceled out, up to the noise of the codec. A single
# channel that sounds among 5 silent ones is at -16 dB.
_CANCELED = 10 ** (-30 / 20)


@dataclass(frozen=True, eq=False)
class Run:
    """Samples without a gap between them.

    Attributes
    ----------
    start : Fraction
        Of the first sample, seconds on the container's clock.
    rate : int
        Hz.
    """

    start: Fraction
    rate: int


class TimedFrame(NamedTuple):
    """A decoded frame with its time.

    Attributes
    ----------
    frame : av.AudioFrame
    run : Run
    offset : int
        Number of samples before the frame in its run.
    begin_s : float
        Start, seconds on the container's clock.
    late_s : float or None
        The frame's own timestamp minus `begin_s`.
    """

    frame: Any
    run: Run
    offset: int
    begin_s: float
    late_s: float | None

    @property
    def time(self) -> Fraction:
        """Start, exact."""
        return self.run.start + Fraction(self.offset, self.run.rate)


class AudioBlock(NamedTuple):
    """Consecutive samples of a run; see `TimedFrame`. `channels` is (channel, sample) float32, full scale 1."""

    channels: np.ndarray
    run: Run
    offset: int = 0
    begin_s: float = 0.0
    end_s: float = 0.0
    late_s: float | None = None

    @property
    def start(self) -> Fraction:
        """Start, exact, seconds on the container's clock."""
        return self.run.start + Fraction(self.offset, self.run.rate)

    @property
    def end(self) -> Fraction:
        """End, exact."""
        return self.start + Fraction(self.channels.shape[1], self.run.rate)

    def mixed(self, channel: int | None) -> np.ndarray:
        """Return one channel, or the last one if there are fewer; None means the mean: float32 (sample,)."""
        if channel is not None or len(self.channels) == 1:
            return self.channels[min(channel or 0, len(self.channels) - 1)]
        mean: np.ndarray = self.channels.mean(axis=0)
        return mean


def timed_frames(media: MediaContainer, since: Fraction | None) -> Iterator[TimedFrame]:
    """Yield decoded frames of the audio track with their times.

    Packets that cannot be decoded are skipped. After a seek, so are frames before the first timestamp.

    Raises
    ------
    MediaError
        The sample rate is implausible, or the time limit is exceeded.
    """
    run: Run | None = None
    offset, start_s, recording = 0, 0.0, media.recording
    for frame in _decoded(media, since):
        rate, stamp_s = frame.sample_rate, frame.time
        if not _LOWEST_RATE <= rate <= _HIGHEST_RATE:
            raise MediaError(f"{media.path}: unsupported sample rate of {rate} Hz; re-encode it")
        counted_s = start_s + offset / rate
        drifted = stamp_s is not None and abs(stamp_s - counted_s) > MAX_DRIFT_S
        # Another rate is a splice, or ends a false frame header where the stream was cut. The audio of joined recordings
        # rarely ends together with the video, so it does not follow without a gap.
        if run is None or drifted or run.rate != rate or recording != media.recording:
            recording = media.recording
            start = _start(media, frame, run, offset, since)
            if start is None:
                continue
            run, offset, start_s = Run(start, rate), 0, float(start)
            counted_s = start_s
        yield TimedFrame(frame, run, offset, counted_s, None if stamp_s is None else stamp_s - counted_s)
        offset += frame.samples


def _start(media: MediaContainer, frame: Any, last: Run | None, n_last: int, since: Fraction | None) -> Fraction | None:
    """Return the start of a new run; None if it is unknown."""
    if frame.pts is not None:
        stamp: Fraction = frame.pts * frame.time_base
        return stamp
    if last is not None:
        return last.start + Fraction(n_last, last.rate)
    return media.zero if since is None else None


def audio_blocks(media: MediaContainer, since: Fraction | None) -> Iterator[AudioBlock]:
    """Yield the samples of the audio track; see `timed_frames`.

    Raises
    ------
    MediaError
        As in `timed_frames`, or the samples cannot be converted.
    """
    for frame, run, offset, begin_s, late_s in timed_frames(media, since):
        with pyav_errors(media.path, "converted"):
            samples = frame.to_ndarray()
            if not frame.format.is_planar:
                samples = samples.reshape(frame.samples, -1).T
        end_s = begin_s + frame.samples / run.rate
        yield AudioBlock(_to_float(samples), run, offset, begin_s, end_s, late_s)


def channel_instead_of_mean(blocks: Sequence[AudioBlock]) -> int | None:
    """Return the channel to use if the mean of the channels cancels out (phase-inverted stereo), else None."""
    n_channels = max((len(block.channels) for block in blocks), default=1)
    if n_channels == 1:
        return None
    energy = np.zeros(n_channels)
    for block in blocks:
        energy[: len(block.channels)] += np.square(block.channels).sum(axis=1, dtype=np.float64)
    left = sum(float(np.square(block.mixed(None)).sum(dtype=np.float64)) for block in blocks)
    if left >= _CANCELED**2 * energy.max():
        return None
    # The first of the channels that are about equally loud, so that the codec's noise does not decide.
    return int(np.argmax(energy >= energy.max() / 2))


def _decoded(media: MediaContainer, since: Fraction | None) -> Iterator[Any]:
    """Yield decoded frames, skipping packets that cannot be decoded."""
    context = None
    for packet in chain(media.packets("audio", since=since), [None]):
        context = media.stream("audio").codec_context if context is None else context
        try:
            with pyav_errors(media.path, "decoded", passing=(av.FFmpegError,)):
                frames = context.decode(packet)
        except av.FFmpegError:
            continue
        yield from frames


def _to_float(samples: np.ndarray) -> np.ndarray:
    if samples.dtype == np.uint8:
        # The only unsigned sample format: its zero is 128.
        return (samples.astype(np.float32) - np.float32(128)) / np.float32(128)
    if samples.dtype.kind == "i":
        return samples.astype(np.float32) / np.float32(-float(np.iinfo(samples.dtype).min))
    return samples.astype(np.float32, copy=False)
