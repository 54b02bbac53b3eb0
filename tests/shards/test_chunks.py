"""Clips read past HDF5, from several threads; and shards at the limit of open files: few stay open, and none is called damaged."""

import os
import pickle
import resource
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from pipeline.common.errors import AccessError
from pipeline.common.project import shard_path
from pipeline.shards.chunks import ChunkReader, chunk_offsets, open_files_limit
from pipeline.shards.reader import (
    ShardSet,
    read_rejects,
    read_shard_fingerprint,
    shard_digest,
    verify_shard,
)
from tests.shards.test_shards import clip_values, make_shard
from tests.support.open_files import limited_files, n_open_files
from tests.support.splits import finish_split

N_SHARDS = 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards") / "train"
    for index in range(N_SHARDS):
        make_shard(shard_path(folder, index), [f"clip-{index}"])
    finish_split(folder)
    return folder


@pytest.mark.parametrize(("limit", "expected"), [(256, 64), (1024, 256), (16, 8), (2**20, 256)])
def test_a_quarter_of_the_limit_of_open_files_is_used(
    monkeypatch: pytest.MonkeyPatch, limit: int, expected: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    assert open_files_limit() == expected


def test_no_more_shards_stay_open_than_the_limit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.shards.chunks.open_files_limit", lambda: 8)
    shards = ShardSet.open(folder)
    before = n_open_files()
    order = np.random.default_rng(0).permutation(np.repeat(np.arange(N_SHARDS), 3)).tolist()

    most = 0
    for index in order:
        frame, log_mel = shards.read([index])
        np.testing.assert_array_equal(frame[0], clip_values(f"clip-{index}")[0])
        np.testing.assert_array_equal(log_mel[0], clip_values(f"clip-{index}")[1])
        most = max(most, n_open_files() - before)

    assert most == 8
    assert pickle.loads(pickle.dumps(shards)).read([3])[0].shape == (1, 6, 6, 3)
    shards.close()
    assert n_open_files() == before


def test_a_shard_that_stays_open_is_not_opened_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []
    original = os.open
    shards = ShardSet.open(folder)
    monkeypatch.setattr(os, "open", lambda path, flags: opened.append(path) or original(path, flags))
    for _ in range(3):
        shards.read(list(range(N_SHARDS)))
    assert len(opened) == N_SHARDS


def test_a_set_gives_up_its_own_shards_when_others_use_the_limit_up(folder: Path) -> None:
    shards = ShardSet.open(folder)
    shards.read([0, 1, 2])
    with limited_files(0):
        frames, _ = shards.read(list(range(N_SHARDS)))
    np.testing.assert_array_equal(frames[-1], clip_values(f"clip-{N_SHARDS - 1}")[0])


@pytest.mark.parametrize("read", [verify_shard, read_shard_fingerprint, read_rejects, shard_digest])
def test_an_intact_shard_is_not_damaged_at_the_limit(folder: Path, read: Callable[[Path], object]) -> None:
    with limited_files(0), pytest.raises(AccessError, match=r"shard-00000\.h5.*ulimit") as caught:
        read(shard_path(folder, 0))
    assert "damaged" not in str(caught.value)
    assert "delete" not in str(caught.value)


def test_reading_a_clip_at_the_limit_says_so(folder: Path) -> None:
    shards = ShardSet.open(folder)
    with limited_files(0), pytest.raises(AccessError, match=r"shard-00007\.h5"):
        shards.read([7])


def test_a_child_process_reads_on_its_own(folder: Path) -> None:
    shards = ShardSet.open(folder)
    shards.read([0])
    child = os.fork()
    if child == 0:
        frame, _ = shards.read([0])
        os._exit(0 if np.array_equal(frame[0], clip_values("clip-0")[0]) else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A file with an array in chunks along its two first axes, behind another one."""
    path, values = tmp_path_factory.mktemp("chunks") / "a.h5", np.random.default_rng(0).normal(size=(7, 2, 5, 3))
    with h5py.File(path, "w") as file:
        file.create_dataset("other", data=np.arange(1000))
        file.create_dataset("values", data=values, chunks=(1, 1, 5, 3), fletcher32=True)
    return path, values


def test_a_chunk_is_what_hdf5_reads(stored: tuple[Path, np.ndarray]) -> None:
    path, values = stored
    with h5py.File(path) as file:
        offsets = chunk_offsets(file["values"])
    assert offsets.shape == (7, 2, 1, 1)
    reader, found = ChunkReader(), np.empty_like(values)
    for place in np.random.default_rng(1).permutation(14):
        row, view = divmod(int(place), 2)
        reader.read_into(path, offsets[row, view, 0, 0], found[row, view])
    np.testing.assert_array_equal(found, values)


def test_a_file_that_ends_too_early_and_one_that_is_gone(stored: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    short = tmp_path / "short.h5"
    short.write_bytes(b"12345")
    with pytest.raises(ValueError, match="ends too early"):
        ChunkReader().read_into(short, 2, np.empty(4, np.uint8))
    with pytest.raises(FileNotFoundError):
        ChunkReader().read_into(tmp_path / "none.h5", 0, np.empty(4, np.uint8))


def test_without_positioned_reads(stored: tuple[Path, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "preadv")
    test_a_chunk_is_what_hdf5_reads(stored)


@pytest.mark.parametrize(
    "layout",
    [
        {"chunks": None},
        {"chunks": (1, 4), "fletcher32": False},
        {"chunks": (1, 4), "compression": "gzip"},
        {"chunks": (1, 4), "shuffle": True},
        {"chunks": (2, 4)},
        {"chunks": (1, 4), "maxshape": (9, 4), "shape": (4, 4), "data": None, "dtype": "f4"},  # nothing written
    ],
)
def test_another_layout_is_an_error(tmp_path: Path, layout: dict[str, Any]) -> None:
    layout = {"data": np.zeros((3, 4)), "fletcher32": layout["chunks"] is not None, **layout}
    with h5py.File(tmp_path / "a.h5", "w") as file, pytest.raises(ValueError, match="values"):
        chunk_offsets(file.create_dataset("values", **layout))


def test_an_empty_dataset_has_no_chunks(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        dataset = file.create_dataset(
            "values", shape=(0, 4), maxshape=(9, 4), chunks=(1, 4), dtype="f4", fletcher32=True
        )
        assert chunk_offsets(dataset).shape == (0, 1)


def test_many_threads_read_what_one_reads_and_few_files_stay_open(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.shards.chunks.open_files_limit", lambda: 2)
    shards, before = ShardSet.open(folder), n_open_files()
    batches = [np.random.default_rng(i).permutation(N_SHARDS).tolist() for i in range(24)]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(shards.read, batches))
    for batch, (frames, log_mel) in zip(batches, found, strict=True):
        expected = [clip_values(f"clip-{index}") for index in batch]
        np.testing.assert_array_equal(frames, [values[0] for values in expected])
        np.testing.assert_array_equal(log_mel, [values[1] for values in expected])
    assert n_open_files() - before <= 2
