"""A tiny dataset on disk with shards, card and boxes, for tests of scores and reports.

Each clip's frame has one bright square, which sounds, and one dark square, which is silent. Box coordinates are multiples of an eighth, so
they are exact on the grid of every protocol.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.common.project import shard_path
from pipeline.manifests.boxes import Box, write_boxes
from pipeline.shards.reader import ShardSet
from pipeline.shards.writer import ShardWriter
from tests.support.splits import finish_split

SIZE, MELS, FRAMES = 32, 8, 20
SETTINGS = {
    "fingerprint": "0123456789abcdef" * 2,
    "sample_rate": 8000,
    "clip_seconds": 0.5,
    "n_fft": 256,
    "hop_length": 200,
    "n_mels": MELS,
    "power": 2.0,
    "log_floor": 1e-10,
    "image_size": SIZE,
}
CARD = """\
title: Squares
source: drawn by a test
license: none
media_root: nowhere
image_size: 32
audio: {sample_rate: 8000, clip_seconds: 0.5, n_fft: 256, hop_length: 200, n_mels: 8}
evaluation: {protocol: PROTOCOL, threshold: 0.5}
"""


def boxes_of(clip_id: str) -> list[Box]:
    """Return the sounding square in the upper half of the frame, and the silent one in the lower half."""
    x = int(clip_id[-2:]) % 5 / 8
    return [
        Box(clip_id, "bright", "test", True, x, 0.125, x + 0.375, 0.5),
        Box(clip_id, "dark", "test", False, 0.625 - x, 0.625, 0.875 - x, 1.0),
    ]


def mask(box: Box, size: int) -> np.ndarray:
    """Return the pixels inside a box, computed without the project's code."""
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    return (x > box.x0) & (x < box.x1) & (y > box.y0) & (y < box.y1)


def draw(clip_id: str) -> np.ndarray:
    frame = np.full((SIZE, SIZE, 3), 110, dtype=np.uint8)
    for box, color in zip(boxes_of(clip_id), ((250, 220, 60), (30, 40, 60)), strict=True):
        frame[mask(box, SIZE)] = color
    return frame


def make_split(folder: Path, clip_ids: list[str]) -> ShardSet:
    """Write one shard of drawn frames and random spectrograms."""
    path = shard_path(folder, 0)
    mel_hz = np.linspace(100, 3000, MELS)
    with ShardWriter.create(path, settings=SETTINGS, capacity=len(clip_ids), mel_hz=mel_hz, n_frames=FRAMES) as shard:
        shard.append(
            clip_ids,
            frame=np.stack([draw(clip_id) for clip_id in clip_ids]),
            log_mel=np.random.default_rng(0).normal(size=(len(clip_ids), MELS, FRAMES)).astype(np.float32),
            source_time_s=np.zeros(len(clip_ids)),
        )
    finish_split(folder)
    return ShardSet.open(folder)


def make_manifest(folder: Path, clip_ids: list[str], *, elsewhere: list[str], protocol: str = "paper256") -> Path:
    """Write a card, the boxes of the split `test`, and those of `validation`."""
    folder.mkdir(parents=True)
    (folder / "dataset.yaml").write_text(CARD.replace("PROTOCOL", protocol))
    write_boxes(folder / "test_boxes.csv", [box for clip_id in clip_ids for box in boxes_of(clip_id)])
    if elsewhere:
        write_boxes(folder / "validation_boxes.csv", [box for clip_id in elsewhere for box in boxes_of(clip_id)])
    return folder
