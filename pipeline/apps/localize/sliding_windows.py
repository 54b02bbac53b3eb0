"""Audio windows that slide forward through a media file, decoding it only once.

Each window equals what `pipeline.media.audio.window_at` decodes for the same timestamp, with two differences: it is not
scaled by its peak, and a window without audio is all zeros instead of an error. Only the audio near the window is kept,
so memory does not grow with the file.
"""

from __future__ import annotations

from collections import deque
from fractions import Fraction

import numpy as np

from pipeline.common.errors import MediaError
from pipeline.media.audio import MARGIN_S, PREROLL, assemble
from pipeline.media.audio_blocks import AudioBlock, audio_blocks
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
        self._source = audio_blocks(media, None)
        self._blocks: deque[AudioBlock] = deque()
        self._end_s = float(media.zero)
        self._has_audio = False

    def window(self, timestamp: Fraction) -> np.ndarray:
        """Return the window centered at a timestamp.

        Parameters
        ----------
        timestamp : Fraction
            Seconds on the container's clock, not before that of the previous call.

        Returns
        -------
        np.ndarray [shape=(round(sample_rate * clip_seconds),)]
            float32, the mean of the channels (one of them if the mean cancels out) at the file's level; zero where there is no audio.

        Raises
        ------
        MediaError
            The audio cannot be converted or contains non-finite values, or the time limit is exceeded.
        """
        start = timestamp - self._length / 2
        # Twice the margin, because the resampling filter needs context and block times are rounded.
        self._read_until(start + self._length + 2 * Fraction(MARGIN_S))
        while self._blocks and self._blocks[0].end_s < start - PREROLL:
            self._blocks.popleft()
        n_samples = round(self._sample_rate * float(self._length))
        wave = assemble(self._blocks, start, sample_rate=self._sample_rate, length=n_samples)
        if not np.isfinite(wave).all():
            raise MediaError(f"{self._media.path}: the audio contains non-finite values; re-encode it")
        return wave

    @property
    def has_audio(self) -> bool:
        """Whether any audio has been decoded so far."""
        return self._has_audio

    def _read_until(self, end: Fraction) -> None:
        while self._end_s <= end:
            block = next(self._source, None)
            if block is None:
                return
            self._has_audio = True
            self._blocks.append(block)
            self._end_s = max(self._end_s, block.end_s)
