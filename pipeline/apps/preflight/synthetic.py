"""Clips of noise for the measured runs: time and memory do not depend on their content."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.common.config import AudioSettings, EncoderSettings, Side
from pipeline.features.build_file import GROUP, encode, frozen_model
from pipeline.features.reader import FeatureSet
from pipeline.model.encoders import AudioVisualModel


class SyntheticShards:
    """The part of `ShardSet` that training uses, filled with noise. One batch is kept in memory and served again and again."""

    def __init__(self, n_clips: int, *, held: int, image_size: int, audio: AudioSettings) -> None:
        random = np.random.default_rng(0)
        self.image_size, self.log_mel_shape = image_size, (audio.n_mels, audio.n_frames)
        self._frames = random.integers(0, 256, (held, image_size, image_size, 3), dtype=np.uint8)
        self._log_mel = random.normal(-6, 3, (held, *self.log_mel_shape)).astype(np.float32)
        self.clip_ids = [f"synthetic-{i:06d}" for i in range(n_clips)]
        self.settings: dict[str, Any] = audio.model_dump()
        self.fingerprint = self.content_digest = "synthetic"

    def __len__(self) -> int:
        return len(self.clip_ids)

    def read(self, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return frames (n, row, col, channel) uint8 and log-mels (n, mel, time) float32."""
        rows = np.asarray(indices) % len(self._frames)
        return self._frames[rows], self._log_mel[rows]


class SyntheticFeatures(FeatureSet):
    """The part of `FeatureSet` that training uses, filled with noise."""

    def __init__(self, noise: SyntheticShards, *, held: int, shapes: Mapping[Side, tuple[int, ...]]) -> None:
        self._noise = noise
        random = np.random.default_rng(0)
        self._features = {
            side: random.normal(0, 1, (held, *shape)).astype(np.float16) for side, shape in shapes.items()
        }
        self.image_size, self.settings = noise.image_size, noise.settings
        self.clip_ids, self.fingerprint = noise.clip_ids, noise.fingerprint

    @property
    def content_digest(self) -> str:
        """A constant."""
        return self._noise.content_digest

    def read(self, indices: Sequence[int], mirrored: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return the same shapes and types as `FeatureSet.read`."""
        visual = self._features["visual"]
        rows = np.asarray(indices) % len(visual)
        audio = self._features["audio"][rows] if "audio" in self._features else self._noise.read(indices)[1]
        return visual[rows], audio

    def check_model(self, encoders: AudioVisualModel, settings: Mapping[str, Any], where: Path) -> None:
        """Accept every model: noise is of none."""


def time_frozen(
    encoder: EncoderSettings, sides: Sequence[Side], *, image_size: int, audio: AudioSettings, device: torch.device
) -> dict[Side, tuple[float, tuple[int, ...]]]:
    """Run frozen backbones on noise, as the stage `features` does: with one thread on a CPU.

    Returns
    -------
    dict of Side to (seconds, shape)
        Time per frame or per spectrogram, and the shape of its features: (row, col, channel) for visual, (channel, mel, time) for audio.
    """
    group = GROUP[device.type]
    frames, log_mel = SyntheticShards(group, held=group, image_size=image_size, audio=audio).read(range(group))
    with torch.random.fork_rng(devices=[]):
        model = frozen_model(encoder.without_weights, sides).to(device)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    measured: dict[Side, tuple[float, tuple[int, ...]]] = {}
    try:
        for side in sides:
            encode(model, frames, log_mel, sides=[side], views=1, device=device)  # warms up
            start = time.perf_counter()
            features = encode(model, frames, log_mel, sides=[side], views=1, device=device)[side]
            seconds = (time.perf_counter() - start) / group
            measured[side] = seconds, features.shape[2 if side == "visual" else 1 :]
    finally:
        torch.set_num_threads(threads)
    return measured
