"""Decode the audio window around a timestamp, exact to the sample.

Decoding starts half a second before the window, so that codecs with memory (AAC, MP3, Opus) have settled. Each decoded
block is placed according to its timestamp. Containers round timestamps (Matroska to a millisecond), so blocks without a
gap between them are concatenated and placed as one run. Gaps, and the parts of the window outside the media, are filled
with silence. Resampling uses libsoxr, which adds no delay.
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
from pipeline.media.container import MediaContainer

# 120 dB below full scale: quieter than the dither of 24-bit audio, so anything below it is digital silence.
SILENCE = 1.0e-6
PREROLL = Fraction(1, 2)
# A larger deviation from a steady sample rate is a gap; a smaller one is timestamp rounding.
_GAP_S = 0.02
# Context on both sides of the window for the resampling filter, which would otherwise ring at the edges.
MARGIN_S = 0.05
_LOWEST_RATE, _HIGHEST_RATE = 1_000, 1_000_000  # Hz; anything else means a damaged header


def window_at(media: MediaContainer, timestamp: Fraction, *, clip_seconds: float, sample_rate: int) -> np.ndarray:
    """Decode the audio window centered at a timestamp.

    Parameters
    ----------
    media : MediaContainer
        An open file with an audio stream.
    timestamp : Fraction
        Seconds on the container's clock.
    clip_seconds : float > 0
        Length of the window.
    sample_rate : int > 0
        Hz.

    Returns
    -------
    np.ndarray [shape=(round(sample_rate * clip_seconds),)]
        float32, the mean of the channels, scaled so that the largest magnitude is 1; zero where the media has no
        audio.

    Raises
    ------
    MediaError
        There is no audio stream, no audio can be decoded in the window, the window is digital silence, the sample rate
        changes, or the time limit is exceeded.
    """
    start = timestamp - Fraction(clip_seconds) / 2
    decoded = DecodedAudio()
    for since in media.seek_times(start - PREROLL):
        decoded = _decode_window(media, start, clip_seconds, since=since)
        # Some containers seek too late. Retry from further back until decoding starts before the window.
        if decoded.begin_s <= 0:
            break
    span = f"from {float(start - media.zero):.3f} to {float(start - media.zero) + clip_seconds:.3f} s"
    if not decoded.overlaps_window(clip_seconds):
        raise MediaError(
            f"{media.path}: no audio can be decoded {span}; the track does not cover it, or the file is damaged"
        )
    wave = assemble(decoded, sample_rate=sample_rate, length=round(sample_rate * clip_seconds))
    peak = float(np.abs(wave).max())
    if not np.isfinite(peak):
        raise MediaError(f"{media.path}: the audio contains non-finite values; re-encode it")
    if peak < SILENCE:
        raise MediaError(f"{media.path}: digital silence {span}; leave the clip out or choose another centre_s")
    return wave / np.float32(peak)


@dataclass
class DecodedAudio:
    """Decoded mono float32 blocks around a window, each with its start time in seconds relative to the window's start."""

    rate: int = 0  # Hz
    begin_s: float = inf  # start of the first decoded block, whether or not it was kept
    times_s: list[float] = field(default_factory=list)
    blocks: list[np.ndarray] = field(default_factory=list)

    @property
    def end_s(self) -> float:
        """End of the last block."""
        return self.times_s[-1] + len(self.blocks[-1]) / self.rate if self.blocks else -inf

    def overlaps_window(self, clip_seconds: float) -> bool:
        """Return whether any block overlaps the window."""
        return bool(self.blocks) and self.end_s > 0 and self.times_s[0] < clip_seconds


def _decode_window(
    media: MediaContainer, start: Fraction, clip_seconds: float, *, since: Fraction | None
) -> DecodedAudio:
    """Decode from `since` to the end of the window, keeping only the blocks near the window."""
    decoded = DecodedAudio()
    for time, block in timed_blocks(media, since):
        begin_s = float(time - start)
        decoded.rate = block.sample_rate
        decoded.begin_s = min(decoded.begin_s, begin_s)
        end_s = begin_s + block.samples / decoded.rate
        if end_s >= -float(PREROLL):
            decoded.times_s.append(begin_s)
            decoded.blocks.append(to_mono(media, block))
        if end_s > clip_seconds + 2 * MARGIN_S:
            break
    return decoded


def timed_blocks(media: MediaContainer, since: Fraction | None) -> Iterator[tuple[Fraction, Any]]:
    """Yield decoded audio blocks with their times on the container's clock, skipping blocks whose time is unknown.

    Raises
    ------
    MediaError
        The sample rate changes or is implausible, or the time limit is exceeded.
    """
    rate, length = 0, 0
    time = media.zero if since is None else None
    for block in _decoded_blocks(media, since):
        if block.pts is not None:
            time = block.pts * block.time_base
        elif time is None:
            # After a seek the position is unknown until the first timestamp.
            continue
        else:
            time += Fraction(length, rate or 1)
        rate = rate or block.sample_rate
        if block.sample_rate != rate or not _LOWEST_RATE <= rate <= _HIGHEST_RATE:
            raise MediaError(
                f"{media.path}: unsupported sample rate: {block.sample_rate} Hz after {rate} Hz; re-encode it"
            )
        length = block.samples
        yield time, block


def _decoded_blocks(media: MediaContainer, since: Fraction | None) -> Iterator[Any]:
    """Yield decoded audio frames, skipping packets that cannot be decoded."""
    for packet in chain(media.packets("audio", since=since), [None]):
        with suppress(av.FFmpegError):
            yield from media.stream("audio").codec_context.decode(packet)


def to_mono(media: MediaContainer, block: Any) -> np.ndarray:
    """Return the mean of a block's channels as float32 with full scale 1."""
    try:
        samples = block.to_ndarray()
    except ValueError as error:
        raise MediaError(f"{media.path}: its audio cannot be converted ({error}); re-encode it") from None
    if not block.format.is_planar:
        samples = samples.reshape(block.samples, -1).T
    mean = samples.mean(axis=0, dtype=np.float32)
    if samples.dtype == np.uint8:
        # The only unsigned sample format: its zero is 128.
        return (mean - np.float32(128)) / np.float32(128)
    if samples.dtype.kind == "i":
        return mean / np.float32(-float(np.iinfo(samples.dtype).min))
    return mean


def assemble(decoded: DecodedAudio, *, sample_rate: int, length: int) -> np.ndarray:
    """Place the blocks in a window of `length` samples and resample it to `sample_rate`: float32 (length,), zero in gaps."""
    common = gcd(decoded.rate, sample_rate)
    # The margin is a whole number of samples at both rates, so that trimming it shifts nothing.
    margins = ceil(MARGIN_S * common)
    native_margin, margin = margins * decoded.rate // common, margins * sample_rate // common
    wave = np.zeros(ceil(length * decoded.rate / sample_rate) + 2 * native_margin, dtype=np.float32)
    for position, samples in _runs(decoded):
        begin = position + native_margin
        lead = max(-begin, 0)
        part = samples[lead : max(len(wave) - begin, 0)]
        wave[begin + lead : begin + lead + len(part)] = part
    if decoded.rate != sample_rate:
        wave = soxr.resample(wave, decoded.rate, sample_rate)
    return wave[margin : margin + length]


def _runs(decoded: DecodedAudio) -> Iterator[tuple[int, np.ndarray]]:
    """Concatenate blocks that have no gap between them; yield each run with its offset in samples from the window's start."""
    counts = np.cumsum([0, *map(len, decoded.blocks)])
    drift = np.array(decoded.times_s) * decoded.rate - counts[:-1]
    first = 0
    for i in range(1, len(drift) + 1):
        if i == len(drift) or abs(drift[i] - drift[first]) > _GAP_S * decoded.rate:
            # The median cancels timestamp rounding and is robust to a single wrong timestamp.
            yield round(float(np.median(drift[first:i]) + counts[first])), np.concatenate(decoded.blocks[first:i])
            first = i
