"""Ranges of a clip list: together they are the list, and each is read from its own place."""

import csv
import pickle
import tracemalloc
from pathlib import Path

import pytest

from pipeline.common.errors import ManifestError
from pipeline.manifests.clips import CLIP_COLUMNS, Clip, clip_row, read_clips, write_clips
from pipeline.manifests.ranges import ClipRange, clip_ranges

# Labels with line breaks, quotes and characters of several bytes: a row is neither a line nor a number of bytes.
CLIPS = [Clip(f"c{i}", video=f"v/é{i}.mp4", centre_s=i / 3, label='a\n"ü", 😀' * (i % 3)) for i in range(23)]


@pytest.mark.parametrize("n_clips", [1, 5, 23, 100])
def test_the_ranges_together_are_the_list(tmp_path: Path, n_clips: int) -> None:
    write_clips(tmp_path / "clips.csv", CLIPS)

    parts = list(clip_ranges(tmp_path / "clips.csv", n_clips))

    assert [clips for _, clips in parts] == [tuple(CLIPS[i : i + n_clips]) for i in range(0, len(CLIPS), n_clips)]
    # The last one first: a range needs none before it. Pickled, as it is sent to a worker.
    assert [pickle.loads(pickle.dumps(part)).read() for part, _ in parts[::-1]] == [clips for _, clips in parts[::-1]]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_lists_of_spreadsheet_programs_have_the_same_ranges(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "clips.csv"
    header = ";".join(reversed(CLIP_COLUMNS))
    rows = [";".join(reversed(clip_row(Clip(f"c{i}", video=f"é{i}.mp4", centre_s=i + 0.5)))) for i in range(9)]
    path.write_text("\n\n".join(["sep=;", header, *rows]).replace(".5", ",5"), encoding=encoding)

    parts = list(clip_ranges(path, 4))

    assert [part.n_clips for part, _ in parts] == [4, 4, 1]
    assert [clip for part, _ in parts for clip in part.read()] == read_clips(path)


def test_a_range_of_a_split_skips_the_other_splits(tmp_path: Path) -> None:
    path = tmp_path / "clips.csv"
    write_prepared(path, {"train": 2_500, "test": 7, "other": 3})

    parts = list(clip_ranges(path, 5, split="test"))

    assert [[clip.clip_id for clip in part.read()] for part, _ in parts] == [
        ["test0", "test1", "test2", "test3", "test4"],
        ["test5", "test6"],
    ]
    # A place near the split, not at the beginning of the file.
    assert parts[0][0].place[1] > 1_000
    assert not list(clip_ranges(path, 5, split="absent"))


def test_a_damaged_row_is_named_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "clips.csv"
    write_prepared(path, {"train": 20})
    part = list(clip_ranges(path, 5, split="train"))[2][0]
    path.write_bytes(path.read_bytes().replace(b"train12.mp4", b"../in12.mp4"))

    with pytest.raises(ManifestError, match=r"clips\.csv:14: .*in12\.mp4"):
        part.read()


def test_a_list_that_became_shorter_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "clips.csv"
    write_prepared(path, {"train": 20})
    *_, (last, _) = clip_ranges(path, 8, split="train")
    write_prepared(path, {"train": 18})

    assert isinstance(last, ClipRange)
    with pytest.raises(ManifestError, match=r"clips\.csv"):
        last.read()


def test_memory_does_not_grow_with_the_list(tmp_path: Path) -> None:
    path = tmp_path / "clips.csv"
    peaks = []
    for n_clips in (1_000, 10_000):
        write_prepared(path, {"train": n_clips})
        tracemalloc.start()
        n_read = sum(part.n_clips for part, _ in clip_ranges(path, 50, split="train"))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert n_read == n_clips

    assert peaks[1] < 1.5 * peaks[0]


def write_prepared(path: Path, counts: dict[str, int]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("split", *CLIP_COLUMNS))
        for split, count in counts.items():
            writer.writerows((split, f"{split}{i}", f"{split}{i}.mp4", "", "", "", "") for i in range(count))
