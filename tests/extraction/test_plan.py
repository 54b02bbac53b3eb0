"""The plan of an extraction: all clips in order, digests of the rows alone, and mistakes in the list found before any work."""

import dataclasses
import tracemalloc
from pathlib import Path

import pytest

from pipeline.common.errors import ManifestError
from pipeline.extraction.build_shard import ShardTask, build_shard
from pipeline.extraction.plan import clips_digest, plan_shards
from pipeline.manifests.clips import Clip
from pipeline.manifests.prepared import write_prepared_clips
from tests.support.splits import listed

CLIPS = [Clip(f"c{i}", video=f"é, {i}.mp4", centre_s=i / 3, label="a\nb" * (i % 2)) for i in range(7)]


@pytest.mark.parametrize("clips_per_shard", [1, 3, 7, 9])
def test_the_shards_hold_every_clip_once_and_in_order(tmp_path: Path, clips_per_shard: int) -> None:
    write_prepared_clips(tmp_path / "clips.csv", {"other": [Clip("x", video="x.mp4")], "train": CLIPS})

    planned = plan_shards(tmp_path / "clips.csv", "train", clips_per_shard)

    parts = [CLIPS[start : start + clips_per_shard] for start in range(0, len(CLIPS), clips_per_shard)]
    assert [list(part.read()) for part, _ in planned] == parts
    assert [digest for _, digest in planned] == [clips_digest(part) for part in parts]


def test_added_clips_leave_the_digests_of_full_shards(tmp_path: Path) -> None:
    before = plan_shards(listed(tmp_path / "one.csv", CLIPS), "train", 3)
    write_prepared_clips(tmp_path / "two.csv", {"new": CLIPS[:1], "train": [*CLIPS, Clip("f", video="f.mp4")]})
    after = plan_shards(tmp_path / "two.csv", "train", 3)

    assert [digest for _, digest in before[:2]] == [digest for _, digest in after[:2]]
    assert before[2][1] != after[2][1]


def test_a_list_that_changes_under_a_task_is_an_error(tmp_path: Path) -> None:
    from tests.extraction.test_extraction import AUDIO

    path = listed(tmp_path / "clips.csv", CLIPS)
    (planned,) = plan_shards(path, "train", 9)
    listed(path, [*CLIPS[:6], dataclasses.replace(CLIPS[6], centre_s=9.0)])

    with pytest.raises(ManifestError, match=r"clips\.csv: changed"):
        build_shard(ShardTask(tmp_path / "shard-00000.h5", *planned, tmp_path, AUDIO, 16, "", 30.0))


@pytest.mark.parametrize("number", [0, 3, 6])
def test_a_repeated_id_is_named(tmp_path: Path, number: int) -> None:
    path = listed(tmp_path / "clips.csv", [*CLIPS, Clip(f"c{number}", video="other.mp4")])

    with pytest.raises(ManifestError, match=f"'c{number}'"):
        plan_shards(path, "train", 2)


def test_a_list_without_clips_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"none\.csv: no such file"):
        plan_shards(tmp_path / "none.csv", "train", 2)
    with pytest.raises(ManifestError, match="'validation'"):
        plan_shards(listed(tmp_path / "clips.csv", CLIPS), "validation", 2)


def test_memory_grows_by_few_bytes_per_clip(tmp_path: Path) -> None:
    peaks = []
    for n in (2_000, 8_000):
        path = listed(tmp_path / f"{n}.csv", [Clip(f"clip-{i:06d}", video=f"folder/{i:06d}.mp4") for i in range(n)])
        tracemalloc.start()
        plan_shards(path, "train", 500)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()

    # The clips themselves would take 300 bytes each. Ids take 8, in an array that is sorted as a copy.
    assert peaks[1] - peaks[0] < 6_000 * 60
