"""Shards of a few clips, a frozen ResNet with published weights, and the features that the stage stores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from pipeline.common.config import (
    EXACT,
    AudioSettings,
    AugmentationSettings,
    EncoderSettings,
    ResNetSettings,
    ShardEncoding,
    TrainingSettings,
)
from pipeline.common.project import shard_path
from pipeline.features.compute import compute_features
from pipeline.features.reader import FeatureSet, open_clips
from pipeline.model.backbones.build import build_backbone
from pipeline.shards.reader import ShardSet
from pipeline.shards.writer import ShardWriter
from pipeline.training.checkpoints import load_model
from pipeline.training.history import read_history
from pipeline.training.train import initialize, train
from tests.support.splits import finish_split
from tests.support.synthetic import SMALL, make_settings, make_world

SIZE, MELS, TIME = 64, 16, 32
AUDIO = AudioSettings(sample_rate=16000, clip_seconds=0.31, n_fft=400, hop_length=160, n_mels=MELS)
VISUAL = ResNetSettings(blocks=(1, 1, 1, 1), width=8, strides=(1, 2, 1, 1), kernel_sizes=(3, 3, 1, 1), trainable="none")


def write_shards(folder: Path, *, counts: tuple[int, ...], seed: int = 0, encoding: ShardEncoding = EXACT) -> ShardSet:
    """Write one shard for each count of clips, of the tiny world."""
    world, _ = make_world(sum(counts), size=SIZE, seed=seed)
    settings = {"fingerprint": "0" * 32, **AUDIO.model_dump(), "image_size": SIZE}
    first = 0
    for index, count in enumerate(counts):
        rows = range(first, first + count)
        mel_hz = np.linspace(100, 8000, MELS)
        with ShardWriter.create(
            shard_path(folder, index),
            settings=settings,
            capacity=max(count, 1),
            mel_hz=mel_hz,
            n_frames=TIME,
            encoding=encoding,
        ) as shard:
            frames, log_mel = world.read(rows)
            ids = [world.clip_ids[row] for row in rows]
            shard.append(ids, frame=frames, log_mel=log_mel, source_time_s=np.zeros(count))
        first += count
    finish_split(folder)
    return ShardSet.open(folder)


def write_weights(path: Path, *, seed: int = 0, visual: ResNetSettings = VISUAL, channels_in: int = 3) -> Path:
    """Write weights that a frozen net may have: random, with BatchNorm statistics other than the first ones."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = build_backbone(
            visual.model_copy(update={"weights": None}),
            channels_in=channels_in,
            centered=channels_in == 3,
            setting="encoder.visual",
        )
        for name, value in net.state_dict().items():
            if name.endswith(("running_mean", "running_var")):
                value.add_(torch.rand_like(value) / 4)
    torch.save(net.state_dict(), path)
    return path


def frozen_settings(
    weights: Path, *, flip: bool = True, visual: ResNetSettings = VISUAL, audio: ResNetSettings = SMALL
) -> TrainingSettings:
    """Settings that store features, for the tiny world; those of the audio backbone, too, if it is frozen."""
    visual = visual.model_copy(update={"weights": str(weights)})
    encoder = EncoderSettings(visual=visual, audio=audio, embedding_dim=16, batch_norm=True)
    augmentation = AugmentationSettings(flip=flip, roll_audio=not audio.is_fixed)
    return make_settings(encoder=encoder, augmentation=augmentation)


def stored(folder: Path, settings: TrainingSettings, *, split: str = "train", workers: int = 1) -> FeatureSet:
    """Compute the features of ``FOLDER/shards/SPLIT``, and open them."""
    shards, features = folder / "shards" / split, folder / "features" / split
    compute_features(shards, features, settings=settings, workers=workers, device="cpu")
    clips = open_clips(ShardSet.open(shards), features, settings)
    assert isinstance(clips, FeatureSet)
    return clips


def check_training_is_equal(
    folder: Path, settings: TrainingSettings, features: ShardSet, frames: ShardSet, frozen: list[str]
) -> None:
    """Train both stages on stored features, then on what they were computed from, and compare losses and weights."""
    initial, losses, weights = folder / "features", {}, {}
    for name, clips in (("features", features), ("frames", frames)):
        initialize(clips, folder / name, settings=settings, seeds=[0], device="cpu")
        # From the same pseudo-labels: they pass a threshold, which would turn a difference of rounding into one of a whole cell.
        run = folder / f"{name}-iterative"
        train(clips, initial, run, method="iterative", settings=settings, seeds=[0], device="cpu")
        rows = [*read_history(folder / name / "history.csv")[1:], read_history(run / "history.csv")[1]]
        losses[name] = [row["loss"] for row in rows]
        weights[name] = load_model(folder / name / "model.pt").encoders.state_dict()
    assert len(losses["frames"]) == 3
    np.testing.assert_allclose(losses["features"], losses["frames"], rtol=2e-3)
    for name, value in weights["frames"].items():
        if name.startswith(tuple(frozen)):
            torch.testing.assert_close(weights["features"][name], value, rtol=0, atol=0)
        # A bias before BatchNorm has no gradient but rounding errors, which Adam scales up.
        elif name.endswith(".weight"):
            assert (weights["features"][name] - value).abs().mean() < 1e-3, name
