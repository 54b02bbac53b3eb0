"""The demo's ten timbres, one for each kind of object, synthesized with NumPy.

Conventions
-----------
A waveform is float32 (sample,) in [-1, 1], with `RATE` samples per second, and lasts the whole shot. The `pitch` and
`tempo` of a sound are mapped to a range of each kind. The ranges of most kinds overlap, so that a model has to learn
the timbre (partials, attack and decay, noise, vibrato) and not just the pitch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pipeline.datasets.demo.scene import Sound

RATE = 16000  # Hz
_TABLE = 2048  # samples of a wavetable
_PENTATONIC = np.array([0, 2, 4, 7, 9])
_SPECTRAL_SLOPE = {"white": 0.0, "pink": 0.5, "brown": 1.0}  # noise amplitude is proportional to 1/f^slope


def synthesize(sound: Sound, n_samples: int) -> np.ndarray:
    """Synthesize a sound with its background noise.

    Parameters
    ----------
    sound : Sound
    n_samples : int
        Length; the sound fills all of it.

    Returns
    -------
    np.ndarray, float32 (n_samples,)
        Peak `sound.peak`. `sound.snr_db` is the ratio of the mean powers of signal and noise over the whole length.
    """
    rng = np.random.default_rng(sound.seed)
    signal = _TIMBRES[sound.kind](_Score(sound.pitch, sound.tempo, n_samples, rng))
    # A first-order filter makes it duller or brighter, like different rooms and microphones.
    signal[1:] += np.float32(sound.color - 0.5) * signal[:-1].copy()
    noise = colored_noise(sound.noise, n_samples, rng)
    noise *= _rms(signal) / _rms(noise) * np.float32(10 ** (-sound.snr_db / 20))
    mixed = signal + noise
    return mixed * (np.float32(sound.peak) / np.abs(mixed).max())


def colored_noise(kind: str, n_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Return white, pink or brown noise, float32 (n_samples,); the level is arbitrary."""
    noise = rng.standard_normal(n_samples, dtype=np.float32)
    slope = _SPECTRAL_SLOPE[kind]
    if slope == 0:
        return noise
    spectrum = np.fft.rfft(noise)
    # The slope is flat below 40 Hz; otherwise brown noise would be nothing but rumble.
    spectrum *= np.maximum(np.arange(len(spectrum)) * (RATE / n_samples), 40) ** -slope
    return np.fft.irfft(spectrum, n_samples).astype(np.float32)


@dataclass(frozen=True)
class _Score:
    """What a timbre plays: pitch and tempo in [0, 1] of the kind's range, the length, and a random generator."""

    pitch: float
    tempo: float
    n: int
    rng: np.random.Generator

    def hertz(self, low: float, high: float) -> float:
        return float(low * (high / low) ** self.pitch)

    def strokes(self, low: float, high: float, jitter: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return, for each sample, the seconds since the last onset, that note's length in seconds, and its index."""
        mean = 1 / (low * (high / low) ** self.tempo)
        count = int(self.n / RATE / (mean * (1 - jitter))) + 3
        lengths = mean * self.rng.uniform(1 - jitter, 1 + jitter, count)
        onsets = np.round((np.cumsum(lengths) - lengths - lengths[0] * self.rng.uniform()) * RATE).astype(int)
        edges = np.clip(np.append(onsets, self.n), 0, self.n)
        index = np.repeat(np.arange(count), np.diff(edges))
        since = (np.arange(self.n) - onsets[index]).astype(np.float32) / RATE
        return since, lengths.astype(np.float32)[index], index

    def melody(self, base: float, index: np.ndarray) -> np.ndarray:
        """Return the frequency at each sample (Hz): one note of a pentatonic scale per stroke."""
        steps = self.rng.choice(_PENTATONIC, index[-1] + 1)
        return (base * 2 ** (steps / 12)).astype(np.float32)[index]

    def white(self) -> np.ndarray:
        return self.rng.standard_normal(self.n, dtype=np.float32)

    def slow(self, rate: float) -> np.ndarray:
        """Return smooth random values in [-1, 1] that change about `rate` times per second, (n,)."""
        knots = self.rng.uniform(-1, 1, max(2, int(self.n / RATE * rate) + 2))
        return np.interp(np.linspace(0, len(knots) - 1, self.n), np.arange(len(knots)), knots).astype(np.float32)


def _cycles(hertz: np.ndarray | float, n: int) -> np.ndarray:
    """Return the phase in cycles, modulo 1. Sums in float64, because float32 loses the phase within seconds."""
    return _fraction(np.cumsum(np.broadcast_to(hertz, n), dtype=np.float64) / RATE)


def _fraction(cycles: np.ndarray) -> np.ndarray:
    return cycles - np.floor(cycles)  # several times faster than % 1


def _wave(cycles: np.ndarray, amplitudes: list[float]) -> np.ndarray:
    """Return a periodic wave; `amplitudes` are those of the harmonics 1, 2, ..."""
    x = np.arange(_TABLE) * (2 * np.pi / _TABLE)
    table = sum(a * np.sin(k * x) for k, a in enumerate(amplitudes, start=1))
    return np.asarray(table, dtype=np.float32)[(cycles * _TABLE).astype(np.int32)]


def _partials(cycles: np.ndarray, ratios: list[float], envelopes: list[np.ndarray]) -> np.ndarray:
    """Return the sum of inharmonic partials; `cycles` is the phase of ratio 1, not reduced modulo 1."""
    total = np.zeros(len(cycles), dtype=np.float32)
    for ratio, envelope in zip(ratios, envelopes, strict=True):
        total += _wave(_fraction(cycles * ratio), [1.0]) * envelope
    return total


def _rms(x: np.ndarray) -> np.float32:
    return np.sqrt(np.mean(np.square(x)))


def _bell(score: _Score) -> np.ndarray:
    """Struck metal: a few widely spaced inharmonic partials; the high ones decay first."""
    since, _, index = score.strokes(1.6, 3.2, 0.15)
    cycles = np.cumsum(score.melody(score.hertz(420, 900), index), dtype=np.float64) / RATE
    ratios = [1, 2.76, 5.40, 8.10]
    return _partials(cycles, ratios, [np.exp(-since * (2 + 1.6 * k)) / (1 + 0.4 * k) for k in range(len(ratios))])


def _drum(score: _Score) -> np.ndarray:
    """A low tone with falling pitch, and a burst of noise."""
    since, _, _ = score.strokes(3, 7, 0.3)
    low = score.hertz(70, 160)
    tone = np.sin(2 * np.pi * (low * since + 3.5 * (1 - np.exp(-since / 0.03)))) * np.exp(-since / 0.10)
    return tone.astype(np.float32) + 0.5 * score.white() * np.exp(-since / 0.025)


def _guitar(score: _Score) -> np.ndarray:
    """Plucked strings: many harmonics at the onset, the high ones decay fast."""
    since, _, index = score.strokes(2.5, 5.5, 0.2)
    cycles = _cycles(score.melody(score.hertz(130, 380), index), score.n)
    bright = _wave(cycles, [1 / k for k in range(1, 13)]) * np.exp(-since / 0.08)
    return bright + _wave(cycles, [1, 0.35, 0.12]) * np.exp(-since / 0.45)


def _pipes(score: _Score) -> np.ndarray:
    """Blown pipes: long, nearly pure notes with odd harmonics and breath noise."""
    since, length, index = score.strokes(1.2, 2.6, 0.25)
    hertz = score.melody(score.hertz(300, 760), index) * (1 + 0.006 * np.sin(2 * np.pi * 5 * since))
    envelope = np.minimum(since / 0.09, 1) * np.minimum((length - since).clip(0) / 0.06, 1)
    cycles = _cycles(hertz, score.n)
    breath = score.white() * (0.05 + 0.10 * np.exp(-since / 0.07))
    return envelope * (_wave(cycles, [1, 0.02, 0.22, 0, 0.06]) + breath)


def _bird(score: _Score) -> np.ndarray:
    """Chirps: short, fast sweeps, up or down, with pauses."""
    since, _, index = score.strokes(5, 10, 0.3)
    count = index[-1] + 1
    start = score.hertz(1800, 3600) * score.rng.uniform(0.9, 1.2, count)
    sweep = score.rng.choice([-1, 1], count) * score.rng.uniform(8e3, 18e3, count)  # Hz per second
    loud = (score.rng.uniform(size=count) < 0.85) * 1.0
    x = np.minimum(since, 0.09)
    phase = x * (start[index] + 0.5 * sweep[index] * x)
    envelope = np.sin(np.pi * x / 0.09) ** 2 * loud[index]
    return (_wave(_fraction(phase), [1, 0.15]) * envelope).astype(np.float32)


def _gong(score: _Score) -> np.ndarray:
    """A large plate: many dense, beating partials; the high ones swell after the stroke."""
    since, _, _ = score.strokes(0.8, 1.6, 0.2)
    cycles = np.cumsum(np.full(score.n, score.hertz(90, 210)), dtype=np.float64) / RATE
    ratios = (0.5 + np.cumsum(score.rng.uniform(0.6, 2.2, 8))).tolist()
    fade = np.exp(-since / 0.75)
    swell = [1 - np.exp(-since / (0.004 + 0.025 * k)) for k in range(8)]
    return _partials(cycles, ratios, [s * fade / (1 + 0.12 * k) for k, s in enumerate(swell)])


def _gear(score: _Score) -> np.ndarray:
    """A ratchet: a fast series of hard clicks, each a short ringing noise."""
    since, _, index = score.strokes(13, 26, 0.1)
    ring = np.sin(2 * np.pi * score.hertz(1300, 3200) * since)
    accent = np.where(np.arange(index[-1] + 1) % 4 == 0, 1.0, 0.6).astype(np.float32)
    return ((0.5 * score.white() + ring) * np.exp(-since / 0.006) * accent[index]).astype(np.float32)


def _flower(score: _Score) -> np.ndarray:
    """A bee in a flower: a continuous buzz with many harmonics, drifting pitch and fluttering loudness."""
    wander = 1 + 0.10 * score.slow(3)
    flutter = 1 + 0.5 * np.sin(2 * np.pi * _cycles(18 + 14 * score.tempo, score.n))
    buzz = _wave(_cycles(score.hertz(120, 280) * wander, score.n), [k**-0.5 for k in range(1, 21)])
    return (buzz * flutter * (1 + 0.3 * score.slow(2))).astype(np.float32)


def _beanie(score: _Score) -> np.ndarray:
    """A siren: one continuous tone that glides up and down."""
    rate = 0.8 + 1.6 * score.tempo
    glide = np.sin(2 * np.pi * (rate * np.arange(score.n) / RATE + score.rng.uniform()))
    hertz = score.hertz(480, 950) * 2 ** (0.55 * glide)
    return _wave(_cycles(hertz, score.n), [1, 0, 0.4, 0, 0.25, 0, 0.15])


def _trumpet(score: _Score) -> np.ndarray:
    """Brass: tongued notes that get brighter as they get louder, with a formant and vibrato."""
    since, length, index = score.strokes(1.8, 4, 0.3)
    vibrato = 1 + 0.012 * np.sin(2 * np.pi * 5.5 * since) * np.minimum(since / 0.2, 1)
    cycles = _cycles(score.melody(score.hertz(200, 480), index) * vibrato, score.n)
    held = np.minimum(since / 0.05, 1) * np.minimum((0.8 * length - since).clip(0) / 0.04, 1)
    bright = _wave(cycles, [0.6, 0.8, 1, 0.9, 0.75, 0.6, 0.45, 0.3, 0.2, 0.15, 0.1])
    return held * (_wave(cycles, [1, 0.5, 0.2]) * (1 - held) + bright * held)


_TIMBRES: dict[str, Callable[[_Score], np.ndarray]] = {
    "bell": _bell,
    "drum": _drum,
    "guitar": _guitar,
    "pipes": _pipes,
    "bird": _bird,
    "gong": _gong,
    "gear": _gear,
    "flower": _flower,
    "beanie": _beanie,
    "trumpet": _trumpet,
}
