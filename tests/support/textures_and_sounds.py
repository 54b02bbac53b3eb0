"""Photographs of eight textures and recordings of eight kinds of sounds, for mosaics; a class has one of each.

Colors, sizes, angles, phases, contrast, loudness and noise are random in every file, so only the texture tells the class of a
photograph, and only the shape of its spectrogram that of a recording.
"""

from __future__ import annotations

import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 192  # pixels; a cell of a mosaic
RATE, SECONDS = 16_000, 2.5
Generator = np.random.Generator


def _turned(rng: Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return coordinates in pixels, turned and shifted at random."""
    y, x = np.mgrid[:SIDE, :SIDE] + rng.uniform(0, 100, (2, 1, 1))
    angle = rng.uniform(0, np.pi)
    return x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)


def _centered(rng: Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the radius in pixels and the angle around a random point."""
    row, column = rng.uniform(0.3 * SIDE, 0.7 * SIDE, 2)
    y, x = np.mgrid[:SIDE, :SIDE]
    return np.hypot(y - row, x - column), np.arctan2(y - row, x - column)


def _period(rng: Generator) -> float:
    return 2 * np.pi / rng.uniform(16, 40)


def _stripes(rng: Generator) -> np.ndarray:
    return np.sin(_turned(rng)[0] * _period(rng)) > 0


def _checks(rng: Generator) -> np.ndarray:
    x, y = _turned(rng)
    period = _period(rng)
    return (np.sin(x * period) > 0) ^ (np.sin(y * period) > 0)


def _dots(rng: Generator) -> np.ndarray:
    x, y = _turned(rng)
    period = _period(rng)
    return np.cos(x * period) + np.cos(y * period) > 0.9


def _rings(rng: Generator) -> np.ndarray:
    return np.sin(_centered(rng)[0] * _period(rng)) > 0


def _rays(rng: Generator) -> np.ndarray:
    return np.sin(_centered(rng)[1] * rng.integers(5, 12) + rng.uniform(0, 6)) > 0


def _disk(rng: Generator) -> np.ndarray:
    return _centered(rng)[0] < rng.uniform(35, 60)


def _clouds(rng: Generator) -> np.ndarray:
    small = Image.fromarray(rng.uniform(0, 1, (6, 6)).astype(np.float32))
    return np.asarray(small.resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def _grain(rng: Generator) -> np.ndarray:
    size = int(rng.integers(2, 5))
    return np.kron(rng.uniform(0, 1, (SIDE // size + 1,) * 2), np.ones((size, size)))[:SIDE, :SIDE]


def _time() -> np.ndarray:
    return np.arange(round(RATE * SECONDS)) / RATE


def _pulses(rng: Generator, low: float, high: float) -> np.ndarray:
    """Return the fraction of the period that has passed, for a random rate in Hz and a random phase."""
    return (_time() * rng.uniform(low, high) + rng.random()) % 1


def _tone(rng: Generator) -> np.ndarray:
    return np.sin(2 * np.pi * rng.uniform(500, 3000) * _time())


def _buzz(rng: Generator) -> np.ndarray:
    return 2 * _pulses(rng, 150, 350) - 1


def _chirps(rng: Generator) -> np.ndarray:
    rate = rng.uniform(2, 4)
    passed = _pulses(rng, rate, rate)
    low, high = rng.uniform(300, 800), rng.uniform(3000, 5000)
    return np.sin(2 * np.pi * (low * passed + (high - low) * passed**2 / 2) / rate)


def _siren(rng: Generator) -> np.ndarray:
    center, rate = rng.uniform(1000, 2500), rng.uniform(1, 2.5)
    turns = center * _time() + 0.6 * center * np.sin(2 * np.pi * (rate * _time() + rng.random())) / (2 * np.pi * rate)
    return np.sin(2 * np.pi * turns)


def _hiss(rng: Generator) -> np.ndarray:
    return rng.normal(0, 0.3, len(_time()))


def _bursts(rng: Generator) -> np.ndarray:
    return _hiss(rng) * (_pulses(rng, 1.5, 3) < rng.uniform(0.3, 0.5))


def _clicks(rng: Generator) -> np.ndarray:
    rate = rng.uniform(5, 10)
    return _hiss(rng) * np.exp(-_pulses(rng, rate, rate) / rate / 0.004)


def _rumble(rng: Generator) -> np.ndarray:
    spectrum = np.fft.rfft(_hiss(rng))
    spectrum[np.fft.rfftfreq(len(_time()), 1 / RATE) > rng.uniform(300, 600)] = 0
    return np.fft.irfft(spectrum, len(_time()))


CLASSES: dict[str, tuple[Callable[[Generator], np.ndarray], Callable[[Generator], np.ndarray]]] = {
    "stripes": (_stripes, _tone),
    "checks": (_checks, _chirps),
    "dots": (_dots, _clicks),
    "rings": (_rings, _siren),
    "rays": (_rays, _buzz),
    "disk": (_disk, _rumble),
    "clouds": (_clouds, _hiss),
    "grain": (_grain, _bursts),
}


def write_files(folder: Path, *, count: int, seed: int) -> tuple[Path, Path]:
    """Write `count` photographs and recordings of each class, and return their two folders."""
    rng = np.random.default_rng(seed)
    photos, sounds = folder / "photos", folder / "sounds"
    for label, (texture, sound) in CLASSES.items():
        (photos / label).mkdir(parents=True)
        (sounds / label).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(_colored(texture(rng), rng)).save(photos / label / f"{number}.png", compress_level=1)
            _write_wave(sounds / label / f"{number}.wav", sound(rng), rng)
    return photos, sounds


def _colored(texture: np.ndarray, rng: Generator) -> np.ndarray:
    first = rng.uniform(0, 255, 3)
    second = (first + rng.uniform(80, 175, 3)) % 255
    pixels = first + texture[..., None] * (second - first) + rng.normal(0, rng.uniform(0, 15), (SIDE, SIDE, 3))
    return np.clip(pixels, 0, 255).astype(np.uint8)


def _write_wave(path: Path, sound: np.ndarray, rng: Generator) -> None:
    noisy = sound / np.abs(sound).max() + rng.normal(0, rng.uniform(0.001, 0.01), len(sound))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((np.clip(noisy * rng.uniform(0.3, 0.9), -1, 1) * 32767).astype("<i2").tobytes())
