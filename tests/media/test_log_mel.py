"""Log-mel spectrograms against librosa, a naive transform and closed forms, and invariances."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from pipeline.common.config import AudioSettings
from pipeline.media.log_mel import log_mel, log_mel_of_windows, mel_frequencies
from pipeline.media.torchaudio_compat import load_torchaudio

FIVE_SECONDS = {"sample_rate": 22050, "n_fft": 882, "hop_length": 441, "n_mels": 64}
ONE_SECOND = {"sample_rate": 16000, "n_fft": 160, "hop_length": 80, "n_mels": 64}
TWO_SECONDS = {"sample_rate": 16000, "n_fft": 640, "hop_length": 320, "n_mels": 64}
SETTINGS = [(FIVE_SECONDS, 5, 251), (ONE_SECOND, 1, 201), (TWO_SECONDS, 2, 101)]


def noise_and_tone(clips, samples, sample_rate):
    """Noise plus a tone, different for each clip."""
    generator = np.random.default_rng(7)
    time = np.arange(samples) / sample_rate
    tones = np.sin(2 * np.pi * (200 + 300 * np.arange(clips))[:, None] * time)
    wave = 0.1 * generator.standard_normal((clips, samples)) + tones
    return torch.from_numpy((wave / np.abs(wave).max(axis=1, keepdims=True)).astype(np.float32))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Empty filters detected")
@pytest.mark.parametrize(("settings", "seconds", "frames"), SETTINGS)
def test_equals_librosa(settings, seconds, frames):
    import librosa

    waves = noise_and_tone(2, seconds * settings["sample_rate"], settings["sample_rate"])
    ours = log_mel(waves, **settings, power=2.0, log_floor=1e-10).numpy()
    assert ours.shape == (2, 64, frames)
    assert ours.dtype == np.float32
    for wave, result in zip(waves.numpy(), ours, strict=True):
        knobs = {k: v for k, v in settings.items() if k != "sample_rate"}
        energy = librosa.feature.melspectrogram(y=wave, sr=settings["sample_rate"], **knobs)
        # atol: float32 rounding in a band 90 dB below the loudest one.
        np.testing.assert_allclose(np.exp(result), np.maximum(energy, 1e-10), rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(
        mel_frequencies(n_mels=64, sample_rate=settings["sample_rate"]),
        librosa.mel_frequencies(n_mels=66, fmax=settings["sample_rate"] / 2)[1:-1],
    )


def naive_log_mel(wave, sample_rate, n_fft, hop_length, n_mels, power, log_floor):
    """One discrete Fourier sum per frame and one triangular filter per band, in float64."""
    padded = np.concatenate([np.zeros(n_fft // 2), wave.astype(np.float64), np.zeros(n_fft // 2)])
    window = np.array([0.5 - 0.5 * math.cos(2 * math.pi * i / n_fft) for i in range(n_fft)])
    centers = mel_frequencies(n_mels=n_mels, sample_rate=sample_rate)
    # The first triangle starts at 0 Hz and the last ends at half the sample rate.
    edges = [0.0, *centers, sample_rate / 2]
    frames = len(wave) // hop_length + 1
    result = np.empty((n_mels, frames))
    for t in range(frames):
        piece = window * padded[t * hop_length : t * hop_length + n_fft]
        spectrum = [
            abs(sum(piece * np.exp(-2j * np.pi * k * np.arange(n_fft) / n_fft))) ** power for k in range(n_fft // 2 + 1)
        ]
        for m in range(n_mels):
            low, mid, high = edges[m], edges[m + 1], edges[m + 2]
            total = 0.0
            for k, value in enumerate(spectrum):
                f = k * sample_rate / n_fft
                total += value * max(0.0, min((f - low) / (mid - low), (high - f) / (high - mid))) * 2 / (high - low)
            result[m, t] = math.log(max(total, log_floor))
    return result


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_equals_naive_sums(power):
    settings = {"sample_rate": 8000, "n_fft": 64, "hop_length": 20, "n_mels": 8, "power": power, "log_floor": 1e-6}
    waves = noise_and_tone(1, 90, 8000)
    expected = naive_log_mel(waves[0].numpy(), **settings)
    np.testing.assert_allclose(log_mel(waves, **settings)[0].numpy(), expected, atol=2e-4)


def test_a_tone_is_loudest_in_its_band():
    centers = mel_frequencies(n_mels=64, sample_rate=22050)
    time = np.arange(5 * 22050) / 22050
    for band in (20, 40, 60):
        tone = torch.from_numpy(np.sin(2 * np.pi * centers[band] * time).astype(np.float32))[None]
        assert int(log_mel(tone, **FIVE_SECONDS)[0, :, 100].argmax()) == band


def test_digital_silence_is_the_floor():
    result = log_mel(torch.zeros(1, 16000), **ONE_SECOND, log_floor=1e-7)
    torch.testing.assert_close(result, torch.full((1, 64, 201), math.log(1e-7)))


def test_scaling_shifts_the_logarithm():
    waves = noise_and_tone(1, 32000, 16000)
    shift = log_mel(waves, **TWO_SECONDS) - log_mel(0.5 * waves, **TWO_SECONDS)
    torch.testing.assert_close(shift, torch.full_like(shift, math.log(4.0)), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("settings", "seconds"), [(s, seconds) for s, seconds, _ in SETTINGS])
def test_a_clip_is_the_same_bytes_alone_and_in_any_batch(settings, seconds):
    waves = noise_and_tone(7, seconds * settings["sample_rate"], settings["sample_rate"])
    together = log_mel(waves, **settings)
    for i in range(7):
        assert torch.equal(log_mel(waves[i : i + 1], **settings)[0], together[i])
    assert torch.equal(log_mel(waves.flip(0), **settings).flip(0), together)


def test_no_clips_and_wrong_input():
    assert log_mel(torch.zeros(0, 16000), **ONE_SECOND).shape == (0, 64, 201)
    with pytest.raises(ValueError, match=r"\(16000,\)"):
        log_mel(torch.zeros(16000), **ONE_SECOND)
    with pytest.raises(ValueError, match=r"n_fft.*401"):
        log_mel(torch.zeros(1, 16000), **{**ONE_SECOND, "n_fft": 401})
    with pytest.raises(ValueError, match="float64"):
        log_mel(torch.zeros(1, 16000, dtype=torch.float64), **ONE_SECOND)


def test_band_centers_are_in_range_and_increasing():
    centers = mel_frequencies(n_mels=64, sample_rate=16000)
    assert centers.shape == (64,)
    assert centers[0] > 0
    assert centers[-1] < 8000
    assert (np.diff(centers) > 0).all()
    # Below 1000 Hz the scale is linear: equal steps.
    low = centers[centers < 1000]
    np.testing.assert_allclose(np.diff(low), low[0])


@pytest.mark.slow
def test_torchaudio_loads_after_its_extension_failed():
    """In a new process in which torchaudio's extension cannot be loaded, the transforms still work."""
    program = (
        "import torch, ctypes\n"
        "def refuse(path): raise OSError('no such library: ' + str(path))\n"
        "torch.ops.load_library = refuse\n"
        "from pipeline.media.log_mel import log_mel\n"
        "print(log_mel(torch.ones(1, 1600), sample_rate=16000, n_fft=160, hop_length=80, n_mels=8).shape)\n"
        "import torchaudio\n"
        "print(torchaudio._extension._IS_TORCHAUDIO_EXT_AVAILABLE)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "torch.Size([1, 8, 21])\nFalse\n"
    assert load_torchaudio() is load_torchaudio()


def test_windows_are_scaled_to_full_scale():
    audio = AudioSettings(clip_seconds=1.0, **ONE_SECOND)
    waves = noise_and_tone(3, audio.n_samples, audio.sample_rate)
    levels = np.array([1e-4, 0.3, 7.0])
    heard = log_mel_of_windows([level * wave.numpy() for level, wave in zip(levels, waves, strict=True)], audio)
    torch.testing.assert_close(heard, log_mel(waves, **ONE_SECOND), rtol=1e-4, atol=1e-4)
    assert heard.dtype == torch.float32
