"""Clips of noise for the measured runs: time and memory do not depend on their content."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.common.config import AudioSettings, EncoderSettings
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

    def __init__(self, noise: SyntheticShards, *, held: int, shape: tuple[int, int, int]) -> None:
        self._noise = noise
        self._features = np.random.default_rng(0).normal(0, 1, (held, *shape)).astype(np.float16)
        self.image_size, self.settings = noise.image_size, noise.settings
        self.clip_ids, self.fingerprint = noise.clip_ids, noise.fingerprint

    @property
    def content_digest(self) -> str:
        """A constant."""
        return self._noise.content_digest

    def read(self, indices: Sequence[int], mirrored: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return features (n, row, col, channel) float16 and log-mels (n, mel, time) float32."""
        return self._features[np.asarray(indices) % len(self._features)], self._noise.read(indices)[1]

    def check_model(self, encoders: AudioVisualModel, visual: Mapping[str, Any], where: Path) -> None:
        """Accept every model: noise is of none."""


def time_frozen(
    encoder: EncoderSettings, *, image_size: int, device: torch.device
) -> tuple[float, tuple[int, int, int]]:
    """Run a frozen visual backbone on noise, as the stage `features` does: with one thread on a CPU.

    Returns
    -------
    seconds : float
        Per frame.
    shape : tuple of int
        Of its features: (row, col, channel).
    """
    group = GROUP[device.type]
    frames = np.random.default_rng(0).integers(0, 256, (group, image_size, image_size, 3), dtype=np.uint8)
    with torch.random.fork_rng(devices=[]):
        model = frozen_model(encoder.without_weights.visual).to(device)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        encode(model, frames, views=1, device=device)  # warms up
        start = time.perf_counter()
        features = encode(model, frames, views=1, device=device)
        seconds = time.perf_counter() - start
    finally:
        torch.set_num_threads(threads)
    rows, cols, channels = features.shape[2:]
    return seconds / group, (rows, cols, channels)
