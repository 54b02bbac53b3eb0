"""Stored features: the same maps and the same training as from frames, equal bytes, and detection of any damage."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import xarray

from pipeline.common.config import AugmentationSettings, ShardEncoding
from pipeline.common.errors import AccessError, FeatureError
from pipeline.common.record import read_record, write_record
from pipeline.features import build_file
from pipeline.features.compute import compute_features
from pipeline.features.nothing import store_nothing
from pipeline.features.reader import FeatureSet, open_clips
from pipeline.features.store import verify_features
from pipeline.methods.build import build_method, method_settings
from pipeline.methods.trained_model import TrainedModel
from pipeline.model.encoders import build_model
from pipeline.shards.reader import ShardSet
from pipeline.training.batches import training_batches
from pipeline.training.train import initialize
from tests.support.feature_world import (
    VISUAL,
    check_training_is_equal,
    frozen_settings,
    stored,
    write_shards,
    write_weights,
)
from tests.support.projects import ROOT

COUNTS = (20, 0, 13)  # clips of each shard: the second has none
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards, weights and features, not to be changed."""
    folder = tmp_path_factory.mktemp("features")
    write_shards(folder / "shards" / "train", counts=COUNTS)
    stored(folder, frozen_settings(write_weights(folder / "weights.pth")))
    return folder


@pytest.fixture
def world(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "world")


def settings_of(folder: Path, **changes: Any) -> Any:
    return frozen_settings(folder / "weights.pth", **changes)


def opened(folder: Path, **changes: Any) -> ShardSet:
    clips = ShardSet.open(folder / "shards/train")
    return open_clips(clips, folder / "features/train", settings_of(folder, **changes))


def test_features_are_those_of_the_frozen_net_in_both_views(made: Path) -> None:
    clips, shards = opened(made), ShardSet.open(made / "shards/train")
    assert isinstance(clips, FeatureSet)
    rows = [32, 0, 21]
    mirrored = np.array([True, False, True])
    frames, log_mel = shards.read(rows)
    turned = np.stack([frame[:, ::-1] if flip else frame for frame, flip in zip(frames, mirrored, strict=True)])
    model = build_model(settings_of(made).encoder).eval()
    with torch.no_grad():
        expected = model.visual_features(torch.from_numpy(turned).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()

    features, same_log_mel = clips.read(rows, mirrored=mirrored)

    assert features.dtype == np.float16
    assert expected.std() > 0.1
    np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(same_log_mel, log_mel)
    assert (clips.clip_ids, clips.fingerprint) == (shards.clip_ids, shards.fingerprint)
    assert clips.content_digest != shards.content_digest


def test_maps_equal_those_of_the_frames_to_the_precision_of_float16(made: Path) -> None:
    settings = settings_of(made)
    torch.manual_seed(0)
    model = build_model(settings.encoder)
    method = build_method("iterative", method_settings(settings, "iterative"))
    trained = TrainedModel(model, method)
    for order in (None, np.roll(np.arange(sum(COUNTS)), 1).tolist()):
        maps, audio = (
            trained.predict(clips, batch_size=8, device="cpu", audio_order=order)
            for clips in (opened(made), ShardSet.open(made / "shards/train"))
        )
        np.testing.assert_allclose(maps[0], audio[0], atol=2e-3)
        np.testing.assert_array_equal(maps[1], audio[1])
        assert audio[0].std() > 0.02


def test_features_of_compact_shards_come_with_their_log_mels(tmp_path: Path) -> None:
    compact = ShardEncoding(log_mel="float16", frame_codec="jpeg")
    shards = write_shards(tmp_path / "shards/train", counts=(4,), encoding=compact)
    clips = stored(tmp_path, frozen_settings(write_weights(tmp_path / "weights.pth")))
    np.testing.assert_array_equal(clips.read([3, 0])[1], shards.read([3, 0])[1])


def test_a_flip_selects_the_features_of_the_mirrored_frame(made: Path) -> None:
    settings, model = settings_of(made), build_model(settings_of(made).encoder).eval()

    def batches(clips: ShardSet) -> list[Any]:
        return list(
            training_batches(
                clips,
                batch_size=8,
                augmentation=settings.augmentation,
                cell_stride=model.cell_stride,
                key=(0, "test", 1),
                previous=None,
                device=CPU,
            )
        )

    pairs = list(zip(batches(opened(made)), batches(ShardSet.open(made / "shards/train")), strict=True))
    assert len(pairs) == 4
    for mine, theirs in pairs:
        np.testing.assert_array_equal(mine.rows, theirs.rows)
        torch.testing.assert_close(mine.log_mel, theirs.log_mel, rtol=0, atol=0)
        with torch.no_grad():
            torch.testing.assert_close(
                model.visual_features(mine.frames), model.visual_features(theirs.frames), rtol=1e-3, atol=1e-3
            )


def test_training_from_features_equals_training_from_frames(made: Path, tmp_path: Path) -> None:
    check_training_is_equal(
        tmp_path, settings_of(made), opened(made), ShardSet.open(made / "shards/train"), ["visual."]
    )


def test_bytes_do_not_depend_on_what_was_kept(world: Path) -> None:
    before = {path.name: path.read_bytes() for path in sorted((world / "features/train").glob("*.h5"))}
    assert len(before) == len(COUNTS)
    (world / "features/train/features-00002.h5").unlink()
    kept = (world / "features/train/features-00000.h5").stat().st_mtime_ns

    stored(world, settings_of(world))

    assert {path.name: path.read_bytes() for path in sorted((world / "features/train").glob("*.h5"))} == before
    assert (world / "features/train/features-00000.h5").stat().st_mtime_ns == kept


def test_the_scored_split_has_no_mirrored_view(world: Path) -> None:
    (world / "shards/train").rename(world / "shards/test")
    clips = stored(world, settings_of(world), split="test")
    assert clips.n_views == 1
    assert clips.read([0])[0].shape == (1, 8, 8, 64)
    with pytest.raises(IndexError, match="mirrored"):
        clips.read([0], mirrored=np.array([True]))


def test_xarray_opens_a_file_with_named_axes(made: Path) -> None:
    path = made / "features/train/features-00000.h5"
    with xarray.open_dataset(path, engine="h5netcdf") as file:
        assert dict(file["visual_feature"].sizes) == {"clip": 20, "view": 2, "row": 8, "col": 8, "channel": 64}


def test_a_set_can_be_pickled(made: Path) -> None:
    clips = opened(made)
    features, _ = clips.read([3])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(clips)).read([3])[0], features)
    clips.close()
    np.testing.assert_array_equal(clips.read([3])[0], features)


def read_or_refuse(world: Path, rows: range, mirrored: np.ndarray) -> np.ndarray | str:
    """Return the features, or the message if they are refused."""
    try:
        clips = opened(world)
        features = clips.read(rows, mirrored=mirrored)[0]  # type: ignore[call-arg]
        clips.close()
        return features
    except (FeatureError, AccessError) as error:
        return str(error)


def test_any_flipped_byte_is_found(world: Path) -> None:
    path = world / "features/train/features-00002.h5"
    content = path.read_bytes()
    rows, mirrored = range(20, 33), np.arange(13) % 2 == 1
    good = opened(world).read(rows, mirrored=mirrored)[0]  # type: ignore[call-arg]
    found = 0
    for offset in np.linspace(0, len(content) - 1, 60).astype(int):
        path.write_bytes(content[:offset] + bytes([content[offset] ^ 0x10]) + content[offset + 1 :])
        result = read_or_refuse(world, rows, mirrored)
        if isinstance(result, str):
            assert str(path) in result
            found += 1
        else:
            np.testing.assert_array_equal(result, good)  # a byte of a view that was not read, or that nothing uses
    assert found > 20


def test_damage_names_the_clip_and_what_to_do(world: Path) -> None:
    path = world / "features/train/features-00000.h5"
    with h5py.File(path, "r+", locking=False) as file:
        file["visual_feature"][4] = 0  # with valid checksums of HDF5
    with pytest.raises(FeatureError, match=r"features-00000\.h5.*clip-0004.*dvc repro features"):
        opened(world).read([3, 4])
    with pytest.raises(FeatureError, match="clip-0004"):
        verify_features(path)
    opened(world).read([3, 5])


def test_a_damaged_log_mel_is_found_without_the_frame(world: Path) -> None:
    with h5py.File(world / "shards/train/shard-00000.h5", "r+", locking=False) as file:
        file["log_mel"][2] = 0
    with pytest.raises(Exception, match=r"shard-00000\.h5.*clip-0002"):
        opened(world).read([2])


class TestStale:
    """What makes the stage compute features again, and what it reports."""

    def reported(self, world: Path, capsys: pytest.CaptureFixture[str], **changes: Any) -> str:
        capsys.readouterr()
        stored(world, settings_of(world, **changes))
        return capsys.readouterr().err

    def test_nothing_changed(self, world: Path, capsys: pytest.CaptureFixture[str]) -> None:
        before = [path.stat().st_mtime_ns for path in sorted((world / "features/train").glob("*.h5"))]
        assert "3 files unchanged, sizes, times and ends of the files verified" in self.reported(world, capsys)
        assert before == [path.stat().st_mtime_ns for path in sorted((world / "features/train").glob("*.h5"))]

    def test_a_copy_with_other_times_is_read_once(
        self, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As after `dvc checkout`, which restores neither the times nor the stamps."""
        world = shutil.copytree(made, tmp_path / "world", copy_function=shutil.copyfile)
        read: list[Path] = []
        monkeypatch.setattr(build_file, "verify_features", lambda path: (read.append(path), verify_features(path)))
        assert "3 files unchanged, checksums verified" in self.reported(world, capsys)
        assert len(read) == 3
        os.utime(world / "features/train/features-00000.h5")
        assert "verified; 1 by their checksums" in self.reported(world, capsys)
        assert "ends of the files verified, kept" in self.reported(world, capsys)
        assert [path.name for path in read[3:]] == ["features-00000.h5"]

    def test_damage_without_a_new_time(self, world: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = world / "features/train/features-00000.h5"
        before, status = path.read_bytes(), path.stat()
        with h5py.File(path) as file:
            at = file["visual_feature"].id.get_chunk_info(0).byte_offset
        path.write_bytes(before[:at] + b"damaged!" + before[at + 8 :])
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert "3 files unchanged" in self.reported(world, capsys)
        with pytest.raises(FeatureError, match=r"features-00000\.h5: damaged \(clip 'clip-0000'"):
            opened(world).read([0])
        shards, settings = world / "shards/train", settings_of(world)
        n_computed = compute_features(shards, path.parent, settings=settings, workers=1, device="cpu", verify=True)
        assert n_computed == 1
        assert path.read_bytes() == before

    def test_weights(self, world: Path, capsys: pytest.CaptureFixture[str]) -> None:
        old = opened(world).read([0])[0]
        write_weights(world / "weights.pth", seed=1)
        assert "removed 3 files, to be computed again: the weights of the visual backbone changed" in self.reported(
            world, capsys
        )
        assert not np.array_equal(opened(world).read([0])[0], old)

    def test_backbone(self, world: Path, capsys: pytest.CaptureFixture[str]) -> None:
        other = VISUAL.model_copy(update={"padding": "replicate"})
        assert "the visual backbone changed" in self.reported(world, capsys, visual=other)

    def test_flip(self, world: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert "`flip` changed" in self.reported(world, capsys, flip=False)
        with pytest.raises(FeatureError, match="mirrored"):
            opened(world)
        assert opened(world, flip=False).read([0])[0].shape == (1, 8, 8, 64)

    def test_shards(self, world: Path, capsys: pytest.CaptureFixture[str]) -> None:
        shutil.rmtree(world / "shards/train")
        write_shards(world / "shards/train", counts=(20, 10), seed=1)
        with pytest.raises(FeatureError, match="another shard"):
            opened(world)
        assert "removed 3 files, to be computed again: the shards changed" in self.reported(world, capsys)

    def test_code(self, world: Path, capsys: pytest.CaptureFixture[str]) -> None:
        folder = world / "features/train"
        write_record(folder, code="other", files=read_record(folder)["files"])
        assert "the code of this stage changed" in self.reported(world, capsys)

    def test_damage_and_a_later_change(self, world: Path, capsys: pytest.CaptureFixture[str]) -> None:
        folder = world / "features/train"
        before = (folder / "features-00000.h5").read_bytes()
        (folder / "features-00000.h5").write_bytes(before[:5000])
        assert "removed 1 files, to be computed again: damaged" in self.reported(world, capsys)
        assert (folder / "features-00000.h5").read_bytes() == before
        record = read_record(folder)["files"]
        write_record(folder, code=read_record(folder)["code"], files=record | {"features-00000.h5": "0" * 64})
        assert "modified after" in self.reported(world, capsys)


def test_features_of_other_weights_than_the_model_are_refused(world: Path, tmp_path: Path) -> None:
    clips = opened(world)
    write_weights(world / "weights.pth", seed=1)
    with pytest.raises(FeatureError, match=r"other weights.*dvc repro -f -s features"):
        initialize(clips, tmp_path / "run", settings=settings_of(world), seeds=[0], device="cpu")


def test_a_missing_file_is_named(world: Path) -> None:
    (world / "features/train/features-00001.h5").unlink()
    with pytest.raises(FeatureError, match=r"features-00001\.h5: no such file"):
        opened(world)


def test_features_beyond_float16_are_refused_with_the_clip(world: Path) -> None:
    weights = torch.load(world / "weights.pth")
    weights["layer4.0.bn2.weight"] += 1e6
    torch.save(weights, world / "weights.pth")
    with pytest.raises(FeatureError, match=r"clip-0000.*float16"):
        stored(world, settings_of(world))


def test_what_is_stored_and_when(made: Path) -> None:
    settings = settings_of(made)
    assert settings.stored_features
    visual = settings.encoder.visual
    for changes in ({"trainable": "all"}, {"trainable": "last_stage"}, {"weights": None}):
        encoder = settings.encoder.model_copy(update={"visual": visual.model_copy(update=changes)})
        assert not settings.model_copy(update={"encoder": encoder}).stored_features
    for moved in (AugmentationSettings(shift_cells=1), AugmentationSettings(color_jitter=0.1)):
        assert not settings.model_copy(update={"augmentation": moved}).stored_features
    trained = settings.model_copy(update={"augmentation": AugmentationSettings(shift_cells=1)})
    shards = ShardSet.open(made / "shards/train")
    assert open_clips(shards, Path("nowhere"), trained) is shards


def test_a_folder_without_features_keeps_no_old_ones(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = world / "features/train"
    store_nothing(folder)
    assert [path.name for path in folder.iterdir()] == [".record.json"]
    assert "removed 3 files" in capsys.readouterr().err
    before = (folder / ".record.json").read_bytes()
    store_nothing(folder)
    assert capsys.readouterr().err == ""
    assert (folder / ".record.json").read_bytes() == before


def test_the_stage_of_a_trained_backbone_loads_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from stages.features import main; "
        f"main(['--shards', 'x', '--out', {str(tmp_path / 'features/train')!r}], standalone_mode=False); "
        "assert not {'torch', 'h5py', 'distributed'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    assert [path.name for path in (tmp_path / "features/train").iterdir()] == [".record.json"]
