"""A tiny dataset in memory: frames of noise with one colored patch that sounds and one that is silent.

The color of the sounding patch determines which band of the log-mel is loud. `MemoryShards` replaces the shards.
"""

import numpy as np

from pipeline.common.config import (
    AugmentationSettings,
    EncoderSettings,
    IterationSettings,
    OptimizationSettings,
    ResNetSettings,
    TrainingSettings,
)
from pipeline.common.files import write_csv
from pipeline.manifests.clips import CLIP_COLUMNS
from pipeline.methods.registry import METHODS

COLORS = np.array([[230, 40, 40], [40, 230, 40], [40, 40, 230], [230, 230, 40]])
CELL = 8  # pixels
SMALL = ResNetSettings(blocks=(1, 1, 1, 1), width=8, strides=(1, 2, 1, 1), kernel_sizes=(3, 1, 1, 1))
ENCODER = EncoderSettings(visual=SMALL, audio=SMALL, embedding_dim=16, batch_norm=True)


class MemoryShards:
    """The part of the interface of ShardSet that training uses, for arrays."""

    def __init__(self, frames, log_mel, clip_ids=None, fingerprint="memory"):
        self.frames = frames
        self.log_mel = log_mel
        self.clip_ids = clip_ids or [f"clip-{i:04d}" for i in range(len(frames))]
        self.fingerprint = self.content_digest = fingerprint
        self.settings = {"sample_rate": 16000, "clip_seconds": 1.0, "n_fft": 400, "hop_length": 160, "n_mels": 16}
        self.image_size = frames.shape[1]
        self.log_mel_shape = log_mel.shape[1:]

    def __len__(self):
        return len(self.frames)

    def read(self, indices):
        return self.frames[list(indices)], self.log_mel[list(indices)]


def make_world(n, *, size=64, seed=0):
    """Return shards of n clips, and the box (n, 4) of the sounding patch as row0, col0, row1, col1 in pixels."""
    rng = np.random.default_rng(seed)
    frames = rng.integers(60, 160, (n, size, size, 3)).astype(np.uint8)
    log_mel = rng.normal(-6, 1, (n, 16, 32)).astype(np.float32)
    boxes = np.zeros((n, 4), dtype=int)
    side = size // 3
    for i in range(n):
        sounding, silent = rng.permutation(len(COLORS))[:2]
        left, right = rng.permutation([rng.integers(0, size // 2 - side), rng.integers(size // 2, size - side)])
        for kind, col in ((silent, right), (sounding, left)):
            row = rng.integers(0, size - side)
            frames[i, row : row + side, col : col + side] = COLORS[kind] + rng.integers(-20, 20, (side, side, 3))
            boxes[i] = row, col, row + side, col + side
        log_mel[i, 4 * sounding : 4 * sounding + 4] += 4
    return MemoryShards(frames, log_mel), boxes


def write_clip_list(path, clip_ids):
    """Write a ``clips.csv`` in which clip i has class i mod 3."""
    rows = [["train", clip_id, f"{clip_id}.mp4", "", "", "", f"kind{i % 3}"] for i, clip_id in enumerate(clip_ids)]
    write_csv(path, ["split", *CLIP_COLUMNS], rows)
    return path


def make_settings(**changes):
    """Return settings for the tiny world; `changes` replace fields of TrainingSettings."""
    values = {
        "batch_size": 8,
        "encoder": ENCODER,
        "augmentation": AugmentationSettings(flip=True, shift_cells=1, color_jitter=0.2, roll_audio=True),
        "initialize": OptimizationSettings(epochs=2, temperature=0.1, learning_rate=1e-3, weight_decay=1e-4),
        "iterate": IterationSettings(
            epochs=2, temperature=0.3, learning_rate=1e-3, weight_decay=1e-4, delta_v=0.7, delta_a=0.8
        ),
        "methods": {name: {} for name in METHODS},
    }
    return TrainingSettings(**{**values, **changes})
