"""The sound around a moment of a media file, exact to the sample.

Decoding starts half a second before the window, so that codecs with memory (AAC, MP3, Opus) have settled. Every
decoded block is laid where its time stamp says; blocks that follow each other without a gap keep their samples together
and share one offset, because containers round time stamps (Matroska to a millisecond). Gaps are silence, and so is what
the window has beyond the media. Resampling is libsoxr's, which has no delay.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain
from math import ceil, gcd, inf
from typing import Any

import av
import numpy as np
import soxr  # type: ignore[import-untyped]

from pipeline.common.errors import MediaError
from pipeline.media.container import MediaSource

# 120 dB below full scale; even 24-bit sound has less dither than that only when there is nothing in it.
SILENCE = 1.0e-6
PREROLL = Fraction(1, 2)
# Time stamps that deviate by more than this from a steady flow of samples mean a gap, not rounding.
_GAP_S = 0.02
# Sound on both sides of the window that the resampling filter sees.
MARGIN_S = 0.05
_LOWEST_RATE, _HIGHEST_RATE = 1_000, 1_000_000  # Hz; anything else is a damaged header


def window_at(source: MediaSource, moment: Fraction, *, clip_seconds: float, sample_rate: int) -> np.ndarray:
    """Decode the window of sound centered at a moment.

    Parameters
    ----------
    source : MediaSource
        An open file with an audio stream.
    moment : Fraction
        Seconds on the container's clock.
    clip_seconds : float > 0
        Length of the window.
    sample_rate : int > 0
        Hz.

    Returns
    -------
    np.ndarray [shape=(round(sample_rate * clip_seconds),)]
        float32, the mean of the channels, scaled so that the largest magnitude is 1; zero where the media have no
        sound.

    Raises
    ------
    MediaError
        There is no audio stream, no sound can be decoded in the window, it is digital silence, its sample rate changes,
        or the time is up.
    """
    start = moment - Fraction(clip_seconds) / 2
    heard = Heard()
    for since in source.starts(start - PREROLL):
        heard = _listen(source, start, clip_seconds, since=since)
        if heard.begin_s <= 0:
            break
    span = f"from {float(start - source.zero):.3f} to {float(start - source.zero) + clip_seconds:.3f} s"
    if not heard.reaches_into(clip_seconds):
        raise MediaError(f"{source.path}: no sound can be decoded {span}; it is elsewhere, or the file is damaged")
    wave = lay_out(heard, sample_rate=sample_rate, length=round(sample_rate * clip_seconds))
    peak = float(np.abs(wave).max())
    if not np.isfinite(peak):
        raise MediaError(f"{source.path}: its sound holds values that are not finite; re-encode it")
    if peak < SILENCE:
        raise MediaError(f"{source.path}: digital silence {span}; leave the clip out or choose another centre_s")
    return wave / np.float32(peak)


@dataclass
class Heard:
    """Sound around a window: blocks of mono float32 samples, each with its time in seconds after the window's start."""

    rate: int = 0  # Hz
    begin_s: float = inf  # time of the first block that was decoded, kept or not
    times_s: list[float] = field(default_factory=list)
    blocks: list[np.ndarray] = field(default_factory=list)

    @property
    def end_s(self) -> float:
        """Time of the end of the last block."""
        return self.times_s[-1] + len(self.blocks[-1]) / self.rate if self.blocks else -inf

    def reaches_into(self, clip_seconds: float) -> bool:
        """Whether any sound lies in the window."""
        return bool(self.blocks) and self.end_s > 0 and self.times_s[0] < clip_seconds


def _listen(source: MediaSource, start: Fraction, clip_seconds: float, *, since: Fraction | None) -> Heard:
    """Decode from `since` to the end of the window, and keep what is near the window."""
    heard = Heard()
    for time, sound in timed_sounds(source, since):
        begin_s = float(time - start)
        heard.rate = sound.sample_rate
        heard.begin_s = min(heard.begin_s, begin_s)
        end_s = begin_s + sound.samples / heard.rate
        if end_s >= -float(PREROLL):
            heard.times_s.append(begin_s)
            heard.blocks.append(mono(source, sound))
        if end_s > clip_seconds + 2 * MARGIN_S:
            break
    return heard


def timed_sounds(source: MediaSource, since: Fraction | None) -> Iterator[tuple[Fraction, Any]]:
    """Yield decoded blocks of sound, each with its time on the container's clock; those without a known time are left out.

    Raises
    ------
    MediaError
        The sample rate changes or is absurd, or the time is up.
    """
    rate, length = 0, 0
    time = source.zero if since is None else None
    for sound in _sounds(source, since):
        if sound.pts is not None:
            time = sound.pts * sound.time_base
        elif time is None:
            continue
        else:
            time += Fraction(length, rate or 1)
        rate = rate or sound.sample_rate
        if sound.sample_rate != rate or not _LOWEST_RATE <= rate <= _HIGHEST_RATE:
            raise MediaError(
                f"{source.path}: sample rate of {sound.sample_rate} Hz after {rate} Hz is not supported; re-encode it"
            )
        length = sound.samples
        yield time, sound


def _sounds(source: MediaSource, since: Fraction | None) -> Iterator[Any]:
    """Yield decoded audio frames; a packet that cannot be decoded brings none."""
    for packet in chain(source.packets("audio", since=since), [None]):
        with suppress(av.FFmpegError):
            yield from source.stream("audio").codec_context.decode(packet)


def mono(source: MediaSource, sound: Any) -> np.ndarray:
    """Return the mean of a frame's channels, float32, full scale 1."""
    try:
        samples = sound.to_ndarray()
    except ValueError as error:
        raise MediaError(f"{source.path}: its sound cannot be converted ({error}); re-encode it") from None
    if not sound.format.is_planar:
        samples = samples.reshape(sound.samples, -1).T
    mean = samples.mean(axis=0, dtype=np.float32)
    if samples.dtype == np.uint8:
        return (mean - np.float32(128)) / np.float32(128)
    if samples.dtype.kind == "i":
        return mean / np.float32(-float(np.iinfo(samples.dtype).min))
    return mean


def lay_out(heard: Heard, *, sample_rate: int, length: int) -> np.ndarray:
    """Lay the blocks out from the window's start and bring them to `sample_rate`: float32 (length,), zero in gaps."""
    common = gcd(heard.rate, sample_rate)
    # The margin is a whole number of samples at both rates, so that cutting it off moves nothing.
    margins = ceil(MARGIN_S * common)
    native_margin, margin = margins * heard.rate // common, margins * sample_rate // common
    wave = np.zeros(ceil(length * heard.rate / sample_rate) + 2 * native_margin, dtype=np.float32)
    for position, samples in _runs(heard):
        begin = position + native_margin
        lead = max(-begin, 0)
        part = samples[lead : max(len(wave) - begin, 0)]
        wave[begin + lead : begin + lead + len(part)] = part
    if heard.rate != sample_rate:
        wave = soxr.resample(wave, heard.rate, sample_rate)
    return wave[margin : margin + length]


def _runs(heard: Heard) -> Iterator[tuple[int, np.ndarray]]:
    """Join blocks that follow each other without a gap; yield each run's position in samples after the window's start."""
    counts = np.cumsum([0, *map(len, heard.blocks)])
    drift = np.array(heard.times_s) * heard.rate - counts[:-1]
    first = 0
    for i in range(1, len(drift) + 1):
        if i == len(drift) or abs(drift[i] - drift[first]) > _GAP_S * heard.rate:
            # The median undoes the rounding of the time stamps, and one stray time stamp cannot move it.
            yield round(float(np.median(drift[first:i]) + counts[first])), np.concatenate(heard.blocks[first:i])
            first = i
