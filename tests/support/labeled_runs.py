"""Runs with pseudo-labels, for tests that inspect them: a few clips, maps of 4×4 cells, two kinds of audio."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from pipeline.common.project import labels_path, shard_path, weights_path
from pipeline.pseudo_labels.artifact import PseudoLabels, write_pseudo_labels
from pipeline.training.checkpoints import write_checkpoint
from pipeline.training.run_folder import kept_epochs
from tests.shards.test_shards import make_shard
from tests.support.splits import finish_split

CLIPS = [f"clip-{i:02d}" for i in range(12)]
FINGERPRINT = "a" * 32
ATTRS = {"shards": "c" * 32, "delta_v": 0.5, "delta_a": 0.9, "temperature": 0.1}


def make_responses(epoch, n):
    """Return raw maps: 1 + epoch cells from the left of row i % 4 sound, the rest is weak noise."""
    response = np.random.default_rng(epoch).uniform(-1, -0.9, (n, 4, 4)).astype(np.float32)
    for i in range(n):
        response[i, i % 4, : 1 + epoch] = 1 + np.linspace(0, -0.1, 1 + epoch)
    return response


def make_sounds(n):
    """Return ã (n, 3): one direction for even clips, another for odd ones, with a small offset per clip."""
    sounds = np.zeros((n, 3), dtype=np.float32)
    sounds[np.arange(n), np.arange(n) % 2] = 1
    sounds[:, 2] = 0.02 * np.arange(n)
    return sounds / np.linalg.norm(sounds, axis=1, keepdims=True)


def make_labels(epoch, clips=CLIPS, **attrs):
    stage = "train" if epoch else "initialize"
    own = {"epoch": epoch, "stage": stage, "objective": "iterative", "fingerprint": FINGERPRINT, **ATTRS, **attrs}
    return PseudoLabels.from_responses(list(clips), make_responses(epoch, len(clips)), make_sounds(len(clips)), **own)


def make_run(folder: Path, *, epochs=(0, 1, 2), center_audio=True, fingerprint=FINGERPRINT, **attrs):
    """Write a run's artifacts, and a model.pt and kept weights with only the entries that inspection reads."""
    for epoch in epochs:
        write_pseudo_labels(labels_path(folder, epoch), make_labels(epoch, **attrs))
    last = max(epochs)
    iteration = json.dumps({"center_audio": center_audio, "epochs": last, "keep_epochs": 3})
    for epoch in (*kept_epochs(last, 3), last):
        path = folder / "model.pt" if epoch == last else weights_path(folder, epoch)
        content = {
            "fingerprint": fingerprint,
            "method": "iterative",
            "iteration": iteration,
            "stage": "train",
            "epoch": epoch,
        }
        write_checkpoint(path, content)
    return folder


def make_train_shards(folder: Path, clips=CLIPS, **changed):
    make_shard(shard_path(folder, 0), list(clips), **changed)
    finish_split(folder)
    return folder
