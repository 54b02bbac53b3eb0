"""Shards: round trip, named axes, equal bytes, and detection of any damage."""

import pickle
import shutil
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray

from pipeline.common.config import EXACT, ShardEncoding
from pipeline.common.errors import ShardError, SoundspotError
from pipeline.common.project import shard_path
from pipeline.shards.reader import ShardSet, read_rejects, read_shard_fingerprint, shard_digest, verify_shard
from pipeline.shards.writer import ShardWriter
from tests.support.mutations import edited_shard
from tests.support.splits import finish_split

SIZE, MELS, FRAMES = 6, 4, 5
SETTINGS: dict[str, Any] = {
    "fingerprint": "0123456789abcdef" * 2,
    "sample_rate": 8000,
    "clip_seconds": 0.5,
    "n_fft": 256,
    "hop_length": 1000,
    "n_mels": MELS,
    "power": 2.0,
    "log_floor": 1e-10,
    "image_size": SIZE,
}
MEL_HZ = np.array([100.0, 200.0, 400.0, 800.0])


def make_shard(
    path: Path,
    clip_ids: Sequence[str],
    *,
    rejects: Sequence[tuple[str, str]] = (),
    encoding: ShardEncoding = EXACT,
    **changed: Any,
) -> None:
    """Write a shard in groups of two clips, with values derived from the clip ids."""
    shape = {"capacity": len(clip_ids) + len(rejects), "mel_hz": MEL_HZ, "n_frames": FRAMES}
    with ShardWriter.create(path, settings={**SETTINGS, **changed}, encoding=encoding, **shape) as shard:
        for start in range(0, len(clip_ids), 2):
            group = list(clip_ids[start : start + 2])
            values = [clip_values(clip_id) for clip_id in group]
            frame, log_mel, time_s = (np.stack(column) for column in zip(*values, strict=True))
            shard.append(group, frame=frame, log_mel=log_mel, source_time_s=time_s)
        for clip_id, reason in rejects:
            shard.reject(clip_id, reason)


def clip_values(clip_id: str) -> tuple[np.ndarray, np.ndarray, float]:
    random = np.random.default_rng(list(clip_id.encode()))
    frame = random.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    return frame, random.normal(size=(MELS, FRAMES)).astype(np.float32), float(random.uniform(0, 9))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two shards of three and two clips, the second with a reject."""
    folder = tmp_path / "train"
    make_shard(shard_path(folder, 0), ["a", "b", "c"])
    make_shard(shard_path(folder, 1), ["d", "e" * 128], rejects=[("x", "no audio stream – é")])
    finish_split(folder)
    return folder


def test_clips_are_read_in_the_requested_order(folder: Path) -> None:
    shards = ShardSet.open(folder)

    frame, log_mel = shards.read([4, 0, 3, 0])

    assert shards.clip_ids == ["a", "b", "c", "d", "e" * 128]
    assert len(shards) == 5
    assert (shards.image_size, shards.log_mel_shape) == (SIZE, (MELS, FRAMES))
    assert (frame.dtype, log_mel.dtype) == (np.uint8, np.float32)
    for position, index in enumerate([4, 0, 3, 0]):
        expected = clip_values(shards.clip_ids[index])
        np.testing.assert_array_equal(frame[position], expected[0])
        np.testing.assert_array_equal(log_mel[position], expected[1])
        assert shards.source_time_s[index] == expected[2]
    assert read_rejects(shard_path(folder, 1)) == [("x", "no audio stream – é")]
    assert read_rejects(shard_path(folder, 0)) == []


def test_reading_no_clips_returns_empty_arrays(folder: Path) -> None:
    frame, log_mel = ShardSet.open(folder).read([])

    assert frame.shape == (0, SIZE, SIZE, 3)
    assert log_mel.shape == (0, MELS, FRAMES)


@pytest.mark.parametrize("index", [-1, 5])
def test_an_index_out_of_range_is_an_error(folder: Path, index: int) -> None:
    with pytest.raises(IndexError, match=rf"{index}\b"):
        ShardSet.open(folder).read([index])


def test_a_pickled_set_reads_the_same(folder: Path) -> None:
    shards = ShardSet.open(folder)
    before = shards.read([1])

    copy = pickle.loads(pickle.dumps(shards))
    shards.close()

    np.testing.assert_array_equal(copy.read([1])[0], before[0])
    np.testing.assert_array_equal(shards.read([1])[1], before[1])


def test_xarray_sees_named_axes_and_coordinates(folder: Path) -> None:
    digest = shard_digest(shard_path(folder, 0))
    with xarray.open_dataset(shard_path(folder, 0), engine="h5netcdf") as shard:
        with pytest.raises(SoundspotError, match="open in this process") as caught:
            verify_shard(shard_path(folder, 0))
        assert not isinstance(caught.value, ShardError)  # which would advise to delete the file
        assert shard["frame"].dims == ("clip", "row", "col", "channel")
        assert shard["log_mel"].dims == ("clip", "mel", "time")
        assert shard["clip_id"].dims == shard["source_time_s"].dims == ("clip",)
        assert set(shard.variables) == {"clip_id", "frame", "log_mel", "source_time_s", "crc32", "mel", "time"}
        np.testing.assert_array_equal(shard["mel"], MEL_HZ)
        np.testing.assert_allclose(shard["time"], np.arange(FRAMES) * 1000 / 8000)
        assert (shard["mel"].units, shard["time"].units) == ("Hz", "s")
        assert shard.attrs.pop("digest") == digest
        assert shard.attrs == {"format_version": 4, **SETTINGS}


def test_the_layout_is_one_checksummed_uncompressed_chunk_per_clip(folder: Path) -> None:
    with h5py.File(shard_path(folder, 0)) as file:
        for name in ("clip_id", "frame", "log_mel", "source_time_s"):
            assert file[name].chunks == (1, *file[name].shape[1:])
            assert file[name].fletcher32
            assert file[name].compression is None
        assert file["clip_id"].dtype == "S128"


def test_equal_input_gives_equal_bytes_at_another_time(tmp_path: Path) -> None:
    make_shard(tmp_path / "one.h5", ["a", "b"], rejects=[("x", "why")])
    time.sleep(1.1)  # HDF5 would store whole seconds
    make_shard(tmp_path / "two.h5", ["a", "b"], rejects=[("x", "why")])

    assert (tmp_path / "one.h5").read_bytes() == (tmp_path / "two.h5").read_bytes()


def test_bytes_do_not_depend_on_when_python_releases_objects(tmp_path: Path) -> None:
    """A thread that samples stacks, as Dask's profiler does, keeps local variables alive for random times."""
    make_shard(tmp_path / "alone.h5", ["a", "b", "c", "d"], rejects=[("x", "why")])
    interval, writing, ended = sys.getswitchinterval(), threading.get_ident(), threading.Event()

    def sample() -> None:
        held: list[Any] = []
        random = np.random.default_rng(0)
        while not ended.wait(0.0001):
            held.append(sys._current_frames()[writing])
            if len(held) > random.integers(30):
                held.clear()

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        sys.setswitchinterval(1e-5)
        for n in range(20):
            make_shard(tmp_path / f"{n}.h5", ["a", "b", "c", "d"], rejects=[("x", "why")])
    finally:
        sys.setswitchinterval(interval)
        ended.set()
        sampler.join()

    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_a_shard_may_be_empty(tmp_path: Path) -> None:
    make_shard(tmp_path / "train/shard-00000.h5", [], rejects=[("x", "why"), ("y", "why not")])
    make_shard(tmp_path / "train/shard-00001.h5", ["a"])
    finish_split(tmp_path / "train")

    verify_shard(tmp_path / "train/shard-00000.h5")

    assert ShardSet.open(tmp_path / "train").clip_ids == ["a"]


def test_an_error_while_writing_leaves_nothing(tmp_path: Path) -> None:
    create = ShardWriter.create(tmp_path / "shard.h5", settings=SETTINGS, capacity=1, mel_hz=MEL_HZ, n_frames=FRAMES)

    with pytest.raises(ValueError, match="stop"), create:
        raise ValueError("stop")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("field", ["clip_id", "frame", "log_mel", "source_time_s", "mel", "rejects/reason"])
def test_a_flipped_byte_in_any_field_is_detected(folder: Path, field: str) -> None:
    path = shard_path(folder, 1)
    with h5py.File(path) as file:
        chunk = file[field].id.get_chunk_info(0)
    flip(path, chunk.byte_offset)

    with pytest.raises(ShardError, match=r"shard-00001\.h5: damaged .*repro extract`"):
        verify_shard(path)


@pytest.mark.parametrize("field", ["frame", "log_mel"])
def test_reading_a_damaged_clip_names_file_and_clip(folder: Path, field: str) -> None:
    path = shard_path(folder, 0)
    with h5py.File(path) as file:
        flip(path, file[field].id.get_chunk_info(2).byte_offset)
    shards = ShardSet.open(folder)

    shards.read([0, 1, 3])
    with pytest.raises(ShardError) as caught:
        shards.read([0, 2])

    assert str(caught.value).startswith(f"{path}: damaged (clip 'c': ")


@pytest.mark.parametrize("field", ["frame", "log_mel", "clip_id", "source_time_s", "crc32"])
def test_a_chunk_that_is_zeroed_with_its_checksum_is_found(folder: Path, field: str) -> None:
    """As by a block that never reached the disk; the Fletcher-32 of zeros is zero."""
    path = shard_path(folder, 0)
    with h5py.File(path) as file:
        chunk = file[field].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    path.write_bytes(content)
    with h5py.File(path) as file:
        assert not np.any(file[field][0].astype(bool))  # HDF5 reads it without an error

    with pytest.raises(ShardError, match=r"shard-00000\.h5: damaged"):
        verify_shard(path)
    with pytest.raises(ShardError, match=r"shard-00000\.h5: damaged"):
        ShardSet.open(folder).read([0])


def test_clips_that_changed_places_are_found(folder: Path) -> None:
    with h5py.File(shard_path(folder, 0), "r+") as file:
        file["frame"][:2] = file["frame"][:2][::-1]

    with pytest.raises(ShardError, match="clip 'a'"):
        ShardSet.open(folder).read([0])


def test_no_flipped_byte_anywhere_changes_what_is_read(folder: Path, tmp_path: Path) -> None:
    """For structure as well as data: a flip is either detected or hits an unused byte."""
    whole = tmp_path / "whole.h5"
    make_shard(whole, ["d", "e" * 128], rejects=[("x", "no audio stream – é")])
    path = tmp_path / "flipped" / "shard-00000.h5"
    path.parent.mkdir()
    expected = fingerprint_and_values(whole)
    found = 0
    for offset in np.random.default_rng(0).choice(whole.stat().st_size, 200, replace=False):
        shutil.copy(whole, path)
        flip(path, int(offset))
        try:
            verify_shard(path)
        except ShardError:
            found += 1
        else:
            assert fingerprint_and_values(path) == expected
    assert found > 50


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(b""), "damaged"),
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "damaged"),
        (lambda path: path.write_bytes(b"not HDF5 at all"), "damaged"),
        (lambda path: path.unlink(), "no such shard"),
        (lambda path: make_shard(path, ["a"], format_version=99), r"version 99\b.*\b4\b"),
        (lambda path: h5py.File(path, "w").close(), "damaged"),
    ],
)
def test_a_file_that_is_not_a_shard_is_an_error(folder: Path, damage: Any, message: str) -> None:
    damage(shard_path(folder, 1))

    with pytest.raises(ShardError, match=message):
        verify_shard(shard_path(folder, 1))


def made_again(folder: Path, clip_ids: list[str], **settings: Any) -> Path:
    make_shard(shard_path(folder, 1), clip_ids, **settings)
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: shutil.rmtree(f), r"no shards.*repro extract`"),
        (lambda f: (f / "shards.json").unlink(), r"did not finish.*shards\.json"),
        (lambda f: (f / "shards.json").write_text("[]"), r"shards\.json: .*repro extract`"),
        (lambda f: (f / "shards.json").write_text('{"shards": {"shard-00000.h5": 1}}'), r"shards\.json: "),
        (lambda f: shard_path(f, 0).unlink(), r"shard-00000\.h5 is missing"),
        (lambda f: shard_path(f, 1).unlink(), r"train: .*\b2 .*\b1\b.*repro extract`"),
        (lambda f: make_shard(shard_path(f, 2), ["f"]), r"train: .*\b2 .*\b3\b"),
        (lambda f: make_shard(shard_path(f, 1), ["f"]), r"shard-00001\.h5: is not the shard that shards\.json lists"),
        (
            lambda f: (f / "shards.json").write_text('{"shards": {"shard-00000.h5": "0", "shard-00002.h5": "0"}}'),
            r"shard-00001\.h5: is not in shards\.json",
        ),
        (lambda f: finish_split(made_again(f, ["f"], n_fft=512)), r"shard-00001\.h5: .*n_fft 512.*256"),
        (lambda f: finish_split(made_again(f, ["a"])), "clip 'a'"),
    ],
)
def test_inconsistent_shards_are_an_error(folder: Path, change: Any, message: str) -> None:
    change(folder)

    with pytest.raises(ShardError, match=message):
        ShardSet.open(folder)


def test_the_fingerprint_of_a_set_depends_on_its_shards(folder: Path) -> None:
    before = ShardSet.open(folder).fingerprint
    assert ShardSet.open(folder).fingerprint == before

    finish_split(made_again(folder, ["d", "e" * 128], fingerprint="f" * 32))

    assert read_shard_fingerprint(shard_path(folder, 1)) == "f" * 32
    assert ShardSet.open(folder).fingerprint != before


@pytest.mark.parametrize("field", ["frame", "log_mel"])
def test_the_content_digest_changes_with_the_data_of_any_clip_and_with_nothing_else(folder: Path, field: str) -> None:
    before = ShardSet.open(folder)
    again = shutil.copytree(folder, folder.with_name("again"))
    assert ShardSet.open(again).content_digest == before.content_digest
    for row in (0, 2):
        with edited_shard(shard_path(folder, 0)) as file:
            file[field][row] = file[field][row] + 1
        after = ShardSet.open(finish_split(folder))
        assert after.fingerprint == before.fingerprint
        assert after.content_digest != before.content_digest
        before = after


def flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 0x10
    path.write_bytes(content)


def fingerprint_and_values(path: Path) -> list[Any]:
    with h5py.File(path, "r", locking=False) as file:
        fields = [file[name][...].tobytes() for name in ("clip_id", "frame", "log_mel", "source_time_s", "mel", "time")]
        return [dict(file.attrs.items()), *fields, read_rejects(path)]
