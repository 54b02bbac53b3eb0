"""Windows of sound that slide forward over a media file, decoded once; and whether there is any sound to look through.

Each window is what `pipeline.media.audio.window_at` decodes for its moment, but for two things: it is not scaled by its
peak, and one without any sound is zeros and no error. Only the sound near the window is kept, so memory does not grow
with the file.
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
    """Windows of sound at moments that never go back.

    Parameters
    ----------
    source : MediaContainer
        An open file with an audio stream; nothing else may read from it meanwhile.
    clip_seconds : float > 0
        Length of a window.
    sample_rate : int > 0
        Hz.
    """

    def __init__(self, source: MediaContainer, *, clip_seconds: float, sample_rate: int) -> None:
        self._source = source
        self._length = Fraction(clip_seconds)
        self._sample_rate = sample_rate
        self._sounds = timed_blocks(source, None)
        self._blocks: deque[tuple[Fraction, np.ndarray]] = deque()
        self._rate = 0
        self._end = Fraction(source.zero)

    def window(self, moment: Fraction) -> np.ndarray:
        """Return the window centered at a moment.

        Parameters
        ----------
        moment : Fraction
            Seconds on the container's clock, not before that of the call before.

        Returns
        -------
        np.ndarray [shape=(round(sample_rate * clip_seconds),)]
            float32, the mean of the channels at the level of the file; zero where it has no sound.

        Raises
        ------
        MediaError
            The sound cannot be converted, changes its sample rate, is not finite, or the time is up.
        """
        start = moment - self._length / 2
        self._read_until(start + self._length + 2 * Fraction(MARGIN_S))
        while self._blocks and self._end_of(self._blocks[0]) < start - PREROLL:
            self._blocks.popleft()
        n_samples = round(self._sample_rate * float(self._length))
        heard = DecodedAudio(self._rate, times_s=[float(time - start) for time, _ in self._blocks])
        heard.blocks = [samples for _, samples in self._blocks]
        if not heard.overlaps_window(float(self._length)):
            return np.zeros(n_samples, dtype=np.float32)
        wave = assemble(heard, sample_rate=self._sample_rate, length=n_samples)
        if not np.isfinite(wave).all():
            raise MediaError(f"{self._source.path}: its sound holds values that are not finite; re-encode it")
        return wave

    @property
    def has_sound(self) -> bool:
        """Whether any sound could be decoded so far."""
        return self._rate > 0

    def _read_until(self, end: Fraction) -> None:
        while self._end <= end:
            found = next(self._sounds, None)
            if found is None:
                return
            time, sound = found
            self._rate = sound.sample_rate
            self._blocks.append((time, to_mono(self._source, sound)))
            self._end = max(self._end, self._end_of(self._blocks[-1]))

    def _end_of(self, block: tuple[Fraction, np.ndarray]) -> Fraction:
        time, samples = block
        return time + Fraction(len(samples), self._rate)


def stays_within(source: MediaContainer, span: float) -> bool:
    """Tell whether all samples of a file's sound lie within a span; read no further than to one that does not.

    Parameters
    ----------
    source : MediaContainer
        An open file with an audio stream, of which nothing was read yet.
    span : float >= 0
        Between the lowest and the highest sample of the mean of the channels, full scale 1 each way.

    Raises
    ------
    MediaError
        As for `SlidingWindows.window`; or no sound can be decoded at all.
    """
    lowest, highest = inf, -inf
    for _, sound in timed_blocks(source, None):
        samples = to_mono(source, sound)
        # NumPy's, which hand on what is not a number.
        lowest, highest = np.minimum(lowest, samples.min(initial=inf)), np.maximum(highest, samples.max(initial=-inf))
        if not highest - lowest <= span:
            return False
    if lowest > highest:
        raise MediaError(f"{source.path}: its sound cannot be decoded; the file is damaged, re-encode it")
    return True
