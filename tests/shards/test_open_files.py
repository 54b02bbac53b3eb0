"""Shards at the limit of open files: few stay open, and an intact one is never called damaged."""

import os
import pickle
import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.common.errors import AccessError
from pipeline.common.project import shard_path
from pipeline.shards import open_files
from pipeline.shards.open_files import open_files_limit
from pipeline.shards.reader import (
    ShardSet,
    read_rejects,
    read_shard_fingerprint,
    shard_digest,
    verify_shard,
)
from tests.shards.test_shards import clip_values, make_shard
from tests.support.open_files import limited_files, n_open_files

N_SHARDS = 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards") / "train"
    for index in range(N_SHARDS):
        make_shard(shard_path(folder, index), [f"clip-{index}"], n_shards=N_SHARDS)
    (folder / "rejects.csv").write_text("clip_id,reason\n")
    return folder


@pytest.mark.parametrize(("limit", "expected"), [(256, 64), (1024, 256), (16, 8), (2**20, 256)])
def test_a_quarter_of_the_limit_of_open_files_is_used(
    monkeypatch: pytest.MonkeyPatch, limit: int, expected: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    assert open_files_limit() == expected


def test_no_more_shards_stay_open_than_the_limit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.shards.open_files.open_files_limit", lambda: 8)
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
    original = open_files.open_file
    monkeypatch.setattr(open_files, "open_file", lambda path: opened.append(path) or original(path))
    shards = ShardSet.open(folder)
    opened.clear()
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
