"""Compute log-mel spectrograms.

Conventions
-----------
- Waveforms are ``(clip, sample)`` float32 in [-1, 1]; spectrograms are ``(clip, mel, time)`` float32.
- Frames are centered on multiples of the hop length; the signal is zero-padded, which gives
  ``samples // hop_length + 1`` frames.
- The periodic Hann window is as long as the FFT. The mel scale and the area normalization of the filters are Slaney's,
  from 0 Hz to half the sample rate. These are librosa's defaults, and the result equals librosa's.
- The logarithm is natural: ``log(max(energy, log_floor))``. Digital silence is ``log(log_floor)`` everywhere.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from pipeline.common.config import AudioSettings
from pipeline.media.torchaudio_compat import load_torchaudio

# Slaney's mel scale: linear below 1000 Hz, then 27 steps for each factor of 6.4.
_LINEAR_HZ_PER_MEL = 200.0 / 3.0
_BREAK_HZ = 1000.0
_BREAK_MEL = _BREAK_HZ / _LINEAR_HZ_PER_MEL
_LOG_STEP = math.log(6.4) / 27.0


def log_mel(
    waveforms: Tensor,
    *,
    sample_rate: int,
    n_fft: int,
    hop_length: int,
    n_mels: int,
    power: float = 2.0,
    log_floor: float = 1.0e-10,
) -> Tensor:
    """Compute the log-mel spectrogram of each waveform.

    The result for a clip is bitwise the same alone and in any batch. Clips are therefore transformed one at a time: the
    summation order of a batched matrix product may depend on the batch size.

    Parameters
    ----------
    waveforms : Tensor [shape=(clip, sample)]
        float32, finite.
    sample_rate : int > 0
        Hz.
    n_fft : int > 0, even
        Length of the window and of the FFT, samples.
    hop_length : int > 0
        Samples between consecutive frames.
    n_mels : int > 0
        Number of mel bands. With many bands and a short FFT, some bands contain no FFT bin and stay at the floor.
    power : float > 0
        Exponent of the magnitude before the mel filters; 2 is energy.
    log_floor : float > 0
        Smallest mel energy.

    Returns
    -------
    Tensor [shape=(clip, n_mels, sample // hop_length + 1)]
        float32.

    Raises
    ------
    ValueError
        `waveforms` is not two-dimensional float32, or `n_fft` is odd.
    """
    if waveforms.ndim != 2 or waveforms.dtype != torch.float32:
        raise ValueError(f"waveforms must be (clip, sample) float32, got {tuple(waveforms.shape)} {waveforms.dtype}")
    window, filters = (t.to(waveforms.device) for t in _window_and_filters(sample_rate, n_fft, n_mels))
    if n_fft % 2:
        raise ValueError(
            f"n_fft must be even, got {n_fft}: an odd FFT has no bin at half the sample rate, where the mel filters end"
        )
    frames = waveforms.shape[1] // hop_length + 1
    result = waveforms.new_empty((waveforms.shape[0], n_mels, frames))
    spectrogram = load_torchaudio().functional.spectrogram
    for waveform, out in zip(waveforms, result, strict=True):
        magnitudes = spectrogram(
            waveform, 0, window, n_fft, hop_length, n_fft, power, False, center=True, pad_mode="constant"
        )
        out[:] = (filters @ magnitudes).clamp_min(log_floor).log()
    return result


def log_mel_of_windows(windows: Sequence[np.ndarray], audio: AudioSettings) -> Tensor:
    """Compute the model input for audio windows at any level: each is scaled to peak 1, like those of clips.

    Parameters
    ----------
    windows : sequence of np.ndarray [shape=(sample,)]
        Floating point, all of the same length, none of them digital silence.
    audio : AudioSettings

    Returns
    -------
    Tensor [shape=(window, n_mels, n_frames)]
        float32; see `log_mel`.
    """
    waveforms = np.stack([window / np.abs(window).max() for window in windows]).astype(np.float32)
    return log_mel(torch.from_numpy(waveforms), **audio.model_dump(exclude={"clip_seconds"}))


def mel_frequencies(*, n_mels: int, sample_rate: int) -> np.ndarray:
    """Return the center frequency of each mel band.

    Returns
    -------
    np.ndarray [shape=(n_mels,)]
        float64, Hz, increasing, strictly between 0 and ``sample_rate / 2``.
    """
    edges_mel = np.linspace(0.0, _hz_to_mel(sample_rate / 2), n_mels + 2)
    linear = edges_mel * _LINEAR_HZ_PER_MEL
    logarithmic = _BREAK_HZ * np.exp(_LOG_STEP * (edges_mel - _BREAK_MEL))
    return np.where(edges_mel < _BREAK_MEL, linear, logarithmic)[1:-1]


def _hz_to_mel(frequency: float) -> float:
    if frequency < _BREAK_HZ:
        return frequency / _LINEAR_HZ_PER_MEL
    return _BREAK_MEL + math.log(frequency / _BREAK_HZ) / _LOG_STEP


@lru_cache(maxsize=8)
def _window_and_filters(sample_rate: int, n_fft: int, n_mels: int) -> tuple[Tensor, Tensor]:
    """Return the Hann window (n_fft,) and the mel filters (n_mels, n_fft // 2 + 1)."""
    with warnings.catch_warnings():
        # The paper's second setting (n_fft 160, 64 bands) has two empty bands; that is expected.
        warnings.filterwarnings("ignore", message="At least one mel filterbank")
        filters = load_torchaudio().functional.melscale_fbanks(
            n_fft // 2 + 1, 0.0, sample_rate / 2, n_mels, sample_rate, norm="slaney", mel_scale="slaney"
        )
    return torch.hann_window(n_fft), filters.T.contiguous()
