"""Stored features of two frozen backbones: the same maps and training as from frames and log-mels, and detection of any damage."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from pipeline.common.config import AugmentationSettings
from pipeline.common.errors import FeatureError
from pipeline.features.reader import FeatureSet, open_clips
from pipeline.features.store import verify_features
from pipeline.methods.build import build_method, method_settings
from pipeline.methods.trained_model import TrainedModel
from pipeline.model.encoders import build_model
from pipeline.shards.reader import ShardSet
from pipeline.training.diagnostics import diagnose
from pipeline.training.train import initialize
from tests.support.feature_world import (
    MELS,
    TIME,
    check_training_is_equal,
    frozen_settings,
    stored,
    write_shards,
    write_weights,
)
from tests.support.synthetic import SMALL

COUNTS = (20, 0, 13)  # clips of each shard
SHAPE = (64, MELS // 8, TIME // 8)  # channels of the last stage; its stride is 8


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards, weights and features, not to be changed."""
    folder = tmp_path_factory.mktemp("audio_features")
    write_shards(folder / "shards" / "train", counts=COUNTS)
    write_weights(folder / "visual.pth")
    write_weights(folder / "audio.pth", seed=1, visual=SMALL, channels_in=1)
    stored(folder, settings_of(folder))
    return folder


@pytest.fixture
def world(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "world")


def settings_of(folder: Path, **audio: Any) -> Any:
    frozen = {"weights": str(folder / "audio.pth"), "trainable": "none"}
    return frozen_settings(folder / "visual.pth", audio=SMALL.model_copy(update=frozen | audio))


def opened(folder: Path) -> FeatureSet:
    clips = open_clips(ShardSet.open(folder / "shards/train"), folder / "features/train", settings_of(folder))
    assert isinstance(clips, FeatureSet)
    return clips


def both(folder: Path) -> tuple[FeatureSet, ShardSet]:
    return opened(folder), ShardSet.open(folder / "shards/train")


def test_audio_features_are_those_of_the_frozen_net_before_pooling(made: Path) -> None:
    clips, shards = both(made)
    rows = [32, 0, 21]
    model = build_model(settings_of(made).encoder).eval()
    with torch.no_grad():
        expected = model.audio_maps(torch.from_numpy(shards.read(rows)[1]))

    features, audio = clips.read(rows, mirrored=np.array([True, False, True]))

    assert (features.dtype, features.shape) == (np.float16, (3, 8, 8, 64))
    assert (audio.dtype, audio.shape) == (np.float16, (3, *SHAPE))
    assert expected.std() > 0.1
    np.testing.assert_allclose(audio, expected, rtol=1e-3, atol=1e-4)
    passed_on = model.audio_maps(torch.from_numpy(audio))
    assert passed_on.dtype == torch.float32
    np.testing.assert_array_equal(passed_on, audio)


@pytest.mark.parametrize("method", ["iterative", "dmc", "mssl"])  # the last two take audio maps before pooling
def test_maps_equal_those_of_frames_and_log_mels(made: Path, method: str) -> None:
    settings = settings_of(made)
    torch.manual_seed(0)
    model, chosen = build_model(settings.encoder), build_method(method, method_settings(settings, method))
    chosen.prepare(model, n_clips=sum(COUNTS), classes=["a", "b"])
    trained = TrainedModel(model, chosen)
    for order in (None, np.roll(np.arange(sum(COUNTS)), 1).tolist()):
        from_features, from_frames = (
            trained.predict(clips, batch_size=8, device="cpu", audio_order=order) for clips in both(made)
        )
        for mine, theirs in zip(from_features, from_frames, strict=True):
            np.testing.assert_allclose(mine, theirs, atol=2e-3 * np.abs(theirs).max())
            assert theirs.std() > 0
    measured, expected = (diagnose(trained, clips, batch_size=8, device=torch.device("cpu")) for clips in both(made))
    assert measured == pytest.approx(expected, rel=0.02, abs=1e-3)


def test_training_from_features_equals_training_from_frames_and_log_mels(made: Path, tmp_path: Path) -> None:
    check_training_is_equal(tmp_path, settings_of(made), *both(made), ["visual.", "audio."])


@pytest.mark.parametrize("checksum", ["of HDF5", "of the clip"])
def test_a_flipped_byte_in_audio_features_is_found_and_named(world: Path, checksum: str) -> None:
    path = world / "features/train/features-00002.h5"
    with h5py.File(path, "r+", locking=False) as file:
        values = file["audio_feature"]
        offset = values.id.get_chunk_info(4).byte_offset + 50
        if checksum == "of the clip":
            changed = values[4].tobytes()
            changed = changed[:50] + bytes([changed[50] ^ 0x10]) + changed[51:]
            values[4] = np.frombuffer(changed, np.float16).reshape(SHAPE)
    if checksum == "of HDF5":
        content = path.read_bytes()
        path.write_bytes(content[:offset] + bytes([content[offset] ^ 0x10]) + content[offset + 1 :])
    expected = r"features-00002\.h5.*clip-0024.*audio features.*dvc repro features"
    with pytest.raises(FeatureError, match=expected):
        opened(world).read([23, 24])
    with pytest.raises(FeatureError, match=expected):
        verify_features(path)
    opened(world).read([23, 25])


class TestStale:
    """What makes the stage compute features again, and what it reports."""

    def reported(self, world: Path, capsys: pytest.CaptureFixture[str], **audio: Any) -> str:
        capsys.readouterr()
        stored(world, settings_of(world, **audio))
        return capsys.readouterr().err

    def test_nothing(self, world: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert "3 files unchanged" in self.reported(world, capsys)

    def test_weights(self, world: Path, capsys: pytest.CaptureFixture[str]) -> None:
        old = opened(world).read([0])
        write_weights(world / "audio.pth", seed=2, visual=SMALL, channels_in=1)
        assert "removed 3 files, to be computed again: the weights of the audio backbone" in self.reported(
            world, capsys
        )
        new = opened(world).read([0])
        np.testing.assert_array_equal(new[0], old[0])
        assert not np.array_equal(new[1], old[1])

    def test_backbone(self, world: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert "the audio backbone changed" in self.reported(world, capsys, padding="replicate")

    def test_audio_is_trained_from_now_on(self, world: Path, capsys: pytest.CaptureFixture[str]) -> None:
        trained = settings_of(world, trainable="all")
        with pytest.raises(FeatureError, match="features of visual and audio, the settings store those of visual;"):
            open_clips(ShardSet.open(world / "shards/train"), world / "features/train", trained)
        assert "encoders whose features are stored" in self.reported(world, capsys, trainable="all")
        with h5py.File(world / "features/train/features-00000.h5", "r", locking=False) as file:
            assert "audio_feature" not in file
        with pytest.raises(FeatureError, match="features of visual, the settings store those of visual and audio;"):
            opened(world)


def test_a_model_with_other_audio_weights_is_refused(world: Path, tmp_path: Path) -> None:
    clips = opened(world)
    write_weights(world / "audio.pth", seed=2, visual=SMALL, channels_in=1)
    with pytest.raises(FeatureError, match=r"audio backbone has other weights.*dvc repro -f -s features"):
        initialize(clips, tmp_path / "run", settings=settings_of(world), seeds=[0], device="cpu")


def test_audio_features_beyond_float16_are_refused_with_the_clip(world: Path) -> None:
    weights = torch.load(world / "audio.pth")
    weights["layer4.0.bn2.weight"] += 1e6
    torch.save(weights, world / "audio.pth")
    with pytest.raises(FeatureError, match=r"clip-0000.*float16.*encoder\.audio"):
        stored(world, settings_of(world))


def test_when_audio_features_are_stored(made: Path) -> None:
    settings = settings_of(made)
    assert settings.stored_features == ("visual", "audio")
    assert settings_of(made, weights=None).stored_features == ("visual",)
    assert settings_of(made, trainable="last_stage").stored_features == ("visual",)
    for moved, stored_ in (({"roll_audio": True}, ("visual",)), ({"shift_cells": 1}, ()), ({"color_jitter": 0.1}, ())):
        assert settings.model_copy(update={"augmentation": AugmentationSettings(**moved)}).stored_features == stored_
