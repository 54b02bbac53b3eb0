"""Audio windows that slide forward through a media file, decoding it only once; and a check for silent files.

Each window equals what `pipeline.media.audio.window_at` decodes for the same timestamp, with two differences: it is not
scaled by its peak, and a window without audio is all zeros instead of an error. Only the audio near the window is kept,
so memory does not grow with the file.
"""

from __future__ import annotations

from collections import deque
from fractions import Fraction
from math import inf

import numpy as np

from pipeline.common.errors import MediaError
from pipeline.media.audio import MARGIN_S, PREROLL, DecodedAudio, assemble, timed_blocks, to_mono
from pipeline.media.container import MediaContainer


class SlidingWindows:
    """Audio windows at timestamps that never decrease.

    Parameters
    ----------
    media : MediaContainer
        An open file with an audio stream; nothing else may read from it in the meantime.
    clip_seconds : float > 0
        Length of a window.
    sample_rate : int > 0
        Hz.
    """

    def __init__(self, media: MediaContainer, *, clip_seconds: float, sample_rate: int) -> None:
        self._media = media
        self._length = Fraction(clip_seconds)
        self._sample_rate = sample_rate
        self._audio_blocks = timed_blocks(media, None)
        self._blocks: deque[tuple[Fraction, np.ndarray]] = deque()
        self._rate = 0
        self._end = Fraction(media.zero)

    def window(self, timestamp: Fraction) -> np.ndarray:
        """Return the window centered at a timestamp.

        Parameters
        ----------
        timestamp : Fraction
            Seconds on the container's clock, not before that of the previous call.

        Returns
        -------
        np.ndarray [shape=(round(sample_rate * clip_seconds),)]
            float32, the mean of the channels at the file's level; zero where there is no audio.

        Raises
        ------
        MediaError
            The audio cannot be converted, changes its sample rate or contains non-finite values, or the time limit is
            exceeded.
        """
        start = timestamp - self._length / 2
        # Twice the margin, because the resampling filter needs context and block times are rounded.
        self._read_until(start + self._length + 2 * Fraction(MARGIN_S))
        while self._blocks and self._end_of(self._blocks[0]) < start - PREROLL:
            self._blocks.popleft()
        n_samples = round(self._sample_rate * float(self._length))
        decoded = DecodedAudio(self._rate, times_s=[float(time - start) for time, _ in self._blocks])
        decoded.blocks = [samples for _, samples in self._blocks]
        if not decoded.overlaps_window(float(self._length)):
            return np.zeros(n_samples, dtype=np.float32)
        wave = assemble(decoded, sample_rate=self._sample_rate, length=n_samples)
        if not np.isfinite(wave).all():
            raise MediaError(f"{self._media.path}: the audio contains non-finite values; re-encode it")
        return wave

    @property
    def has_audio(self) -> bool:
        """Whether any audio has been decoded so far."""
        return self._rate > 0

    def _read_until(self, end: Fraction) -> None:
        while self._end <= end:
            found = next(self._audio_blocks, None)
            if found is None:
                return
            time, block = found
            self._rate = block.sample_rate
            self._blocks.append((time, to_mono(self._media, block)))
            self._end = max(self._end, self._end_of(self._blocks[-1]))

    def _end_of(self, block: tuple[Fraction, np.ndarray]) -> Fraction:
        time, samples = block
        return time + Fraction(len(samples), self._rate)


def peak_to_peak_within(media: MediaContainer, span: float) -> bool:
    """Return whether the peak-to-peak amplitude of a file is at most `span`; stop reading at the first excess.

    Parameters
    ----------
    media : MediaContainer
        A newly opened file with an audio stream.
    span : float >= 0
        Difference between the highest and the lowest sample of the mean of the channels; full scale is ±1.

    Raises
    ------
    MediaError
        As for `SlidingWindows.window`; or no audio can be decoded at all.
    """
    lowest, highest = inf, -inf
    for _, block in timed_blocks(media, None):
        samples = to_mono(media, block)
        # NumPy's minimum and maximum propagate NaN, which Python's do not.
        lowest, highest = np.minimum(lowest, samples.min(initial=inf)), np.maximum(highest, samples.max(initial=-inf))
        if not highest - lowest <= span:
            return False
    if lowest > highest:
        raise MediaError(f"{media.path}: its audio cannot be decoded; the file is damaged, re-encode it")
    return True
