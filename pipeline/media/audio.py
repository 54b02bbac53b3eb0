"""Decode the audio window around a timestamp, exact to the sample.

Decoding starts half a second before the window, so that codecs with memory (AAC, MP3, Opus) have settled, if the time
stamps up to there agree with the number of samples. Otherwise it starts at the beginning of the track, and the samples
are counted. Windows far into a file are placed by the stamps around them, whose median cancels most of the jitter.

Gaps, and the parts of the window outside the media, are filled with silence. Resampling uses libsoxr, which adds no delay.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from fractions import Fraction
from math import ceil, gcd, inf

import numpy as np
import soxr  # type: ignore[import-untyped]

from pipeline.common.errors import MediaError
from pipeline.media.audio_blocks import AudioBlock, audio_blocks, channel_instead_of_mean
from pipeline.media.container import ROUNDING_S, MediaContainer

# 120 dB below full scale: quieter than the dither of 24-bit audio, so anything below it is digital silence.
SILENCE = 1.0e-6
# Ours: 16 steps of 16-bit audio. A quieter track contains only recorder or codec noise.
_INAUDIBLE = 10 ** (-66 / 20)
PREROLL = Fraction(1, 2)
# Ours: counting from the beginning of a track takes about 1 s per 5 minutes.
_COUNTED = Fraction(300)
# Context on both sides of the window for the resampling filter, which would otherwise ring at the edges.
MARGIN_S = 0.05


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
        float32, the mean of the channels (one of them if the mean cancels out), scaled so that the largest magnitude is
        1; zero where the media has no audio. The track is the best one, or the first that sounds if that is silent
        throughout.

    Raises
    ------
    MediaError
        There is no audio stream, no audio can be decoded in the window, the window is digital silence, or the time
        limit is exceeded.
    """
    use_sounding_track(media)
    start = timestamp - Fraction(clip_seconds) / 2
    blocks, shift_s = _blocks_around(media, start, clip_seconds)
    span = f"from {float(start - media.zero):.3f} to {float(start - media.zero) + clip_seconds:.3f} s"
    if not any(block.end_s > start and block.begin_s < start + Fraction(clip_seconds) for block in blocks):
        raise MediaError(
            f"{media.path}: no audio can be decoded {span}; the track does not cover it, or the file is damaged"
        )
    length = round(sample_rate * clip_seconds)
    wave = assemble(blocks, start - Fraction(shift_s), sample_rate=sample_rate, length=length)
    peak = float(np.abs(wave).max())
    if not np.isfinite(peak):
        raise MediaError(f"{media.path}: the audio contains non-finite values; re-encode it")
    if peak < SILENCE:
        raise MediaError(f"{media.path}: digital silence {span}; leave the clip out or choose another centre_s")
    return wave / np.float32(peak)


def use_sounding_track(media: MediaContainer) -> None:
    """Switch a file with several audio tracks to the first one that is not silent throughout."""
    for track in range(len(media.tracks)) if len(media.tracks) > 1 else ():
        media.track = track
        # A track that cannot be decoded does not sound.
        with suppress(MediaError):
            if not peak_to_peak_within(media, _INAUDIBLE):
                return
    media.track = 0


def peak_to_peak_within(media: MediaContainer, span: float) -> bool:
    """Return whether no channel's peak-to-peak amplitude exceeds `span`; stop reading at the first excess.

    Parameters
    ----------
    media : MediaContainer
        An open file with an audio stream.
    span : float >= 0
        Difference between the highest and the lowest sample; full scale is ±1.

    Raises
    ------
    MediaError
        As for `window_at`; or no audio can be decoded at all.
    """
    lowest = highest = None
    for block in audio_blocks(media, None):
        low, high = block.channels.min(axis=1, initial=np.inf), block.channels.max(axis=1, initial=-np.inf)
        if lowest is None or highest is None or len(lowest) != len(low):
            lowest, highest = low, high
        # NumPy's minimum and maximum propagate NaN, which Python's do not.
        lowest, highest = np.minimum(lowest, low), np.maximum(highest, high)
        if not (highest - lowest <= span).all():
            return False
    if lowest is None:
        raise MediaError(f"{media.path}: its audio cannot be decoded; the file is damaged, re-encode it")
    return True


def _blocks_around(media: MediaContainer, start: Fraction, clip_seconds: float) -> tuple[list[AudioBlock], float]:
    """Decode the blocks near a window; return them, and how much later than counted they are, in seconds."""
    since = start - PREROLL
    far = since - media.zero > _COUNTED and not media.joined
    if far or (not media.joined and since > media.zero and media.has_regular_audio(until=since)):
        blocks = _after_a_seek(media, start, clip_seconds)
        late = sorted(block.late_s for block in blocks if block.late_s is not None)
        steady = bool(late) and late[-1] - late[0] <= ROUNDING_S
        if blocks and (far or (steady and _is_whole(blocks, start, clip_seconds))):
            return blocks, late[len(late) // 2] if late else 0.0
    return _decode(media, start, clip_seconds, since=None)[1], 0.0


def _after_a_seek(media: MediaContainer, start: Fraction, clip_seconds: float) -> list[AudioBlock]:
    """Seek and decode the blocks near a window; none if the container cannot seek."""
    found: list[AudioBlock] = []
    for since in media.seek_times(start - PREROLL):
        if since is None:
            break
        begin_s, blocks = _decode(media, start, clip_seconds, since=since)
        # Some containers seek too late.
        if begin_s > start:
            continue
        found = blocks
        if _is_whole(found, start, clip_seconds):
            break
    return found


def _is_whole(blocks: Sequence[AudioBlock], start: Fraction, clip_seconds: float) -> bool:
    """Return whether the blocks cover a window: there is no gap, and no false header swallowed a part after a seek."""
    if len({block.run for block in blocks}) != 1:
        return False
    return blocks[0].begin_s <= float(start) and blocks[-1].end_s >= float(start) + clip_seconds


def _decode(
    media: MediaContainer, start: Fraction, clip_seconds: float, *, since: Fraction | None
) -> tuple[float, list[AudioBlock]]:
    """Decode from `since` to the end of the window; return when the first block begins, and the blocks near the window."""
    begin_s, near = inf, []
    near_s, end_s = float(start - PREROLL), float(start) + clip_seconds + 2 * MARGIN_S
    for block in audio_blocks(media, since):
        begin_s = min(begin_s, block.begin_s)
        if block.end_s >= near_s:
            near.append(block)
        if block.end_s > end_s:
            break
    return begin_s, near


def assemble(blocks: Sequence[AudioBlock], start: Fraction, *, sample_rate: int, length: int) -> np.ndarray:
    """Place blocks in a window of `length` samples and resample it.

    Parameters
    ----------
    blocks : sequence of AudioBlock
    start : Fraction
        Start of the window on the clock of the blocks, seconds.
    sample_rate : int > 0
        Hz.
    length : int > 0
        Samples at `sample_rate`.

    Returns
    -------
    np.ndarray [shape=(length,)]
        float32, zero in gaps.
    """
    end = start + Fraction(length, sample_rate)
    # Only audio within the window decides whether its channels cancel out.
    channel = channel_instead_of_mean([block for block in blocks if block.start < end and block.end > start])
    samples = [(block, block.mixed(channel)) for block in blocks]
    result = np.zeros(length, dtype=np.float32)
    for rate in {block.run.rate for block in blocks}:
        result += _resampled([part for part in samples if part[0].run.rate == rate], start, rate, sample_rate, length)
    return result


def _resampled(
    parts: Sequence[tuple[AudioBlock, np.ndarray]], start: Fraction, rate: int, sample_rate: int, length: int
) -> np.ndarray:
    common = gcd(rate, sample_rate)
    # The margin is a whole number of samples at both rates, so that trimming it shifts nothing.
    margins = ceil(MARGIN_S * common)
    native_margin, margin = margins * rate // common, margins * sample_rate // common
    wave = np.zeros(ceil(length * rate / sample_rate) + 2 * native_margin, dtype=np.float32)
    positions = {run: round((run.start - start) * rate) for run in {block.run for block, _ in parts}}
    for block, samples in parts:
        begin = positions[block.run] + block.offset + native_margin
        lead = max(-begin, 0)
        part = samples[lead : max(len(wave) - begin, 0)]
        wave[begin + lead : begin + lead + len(part)] = part
    if rate != sample_rate:
        wave = soxr.resample(wave, rate, sample_rate)
    return wave[margin : margin + length]
