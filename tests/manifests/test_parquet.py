"""Clip lists in Parquet: the same clips, ranges and errors as from CSV."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.common.errors import ManifestError
from pipeline.datasets.prepare import read_splits
from pipeline.manifests.clips import Clip, clip_list_path, read_clips
from pipeline.manifests.ranges import clip_ranges

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

N_CLIPS = 23
COLUMNS: dict[str, Any] = {
    "clip_id": [f"c{i}" for i in range(N_CLIPS)],
    "video": [f"v\\é{i}.mp4" for i in range(N_CLIPS)],
    "frame": [None] * N_CLIPS,
    "audio": [""] * N_CLIPS,
    "centre_s": [None if i % 4 == 0 else i / 3 for i in range(N_CLIPS)],
    "label": [' a,\n"ü" '] * N_CLIPS,
}
CLIPS = [
    Clip(f"c{i}", video=f"v/é{i}.mp4", centre_s=None if i % 4 == 0 else i / 3, label='a,\n"ü"') for i in range(N_CLIPS)
]


def write(path: Path, *, row_group_size: int = 1_000, **changed: Any) -> Path:
    """Write the clips as Parquet, with other values for some columns."""
    pq.write_table(pa.table({**COLUMNS, **changed}), path, row_group_size=row_group_size)
    return path


@pytest.mark.parametrize("row_group_size", [1, 7, 1_000])
def test_the_clips_are_those_of_the_columns(tmp_path: Path, row_group_size: int) -> None:
    assert read_clips(write(tmp_path / "train.parquet", row_group_size=row_group_size)) == CLIPS


@pytest.mark.parametrize(("row_group_size", "n_clips"), [(1, 5), (7, 5), (5, 5), (1_000, 5), (4, 100)])
def test_the_ranges_together_are_the_list(tmp_path: Path, row_group_size: int, n_clips: int) -> None:
    path = write(tmp_path / "train.parquet", row_group_size=row_group_size)

    parts = list(clip_ranges(path, n_clips))

    assert [clips for _, clips in parts] == [tuple(CLIPS[i : i + n_clips]) for i in range(0, N_CLIPS, n_clips)]
    assert [part.read() for part, _ in parts[::-1]] == [clips for _, clips in parts[::-1]]


def test_a_range_reads_only_its_row_groups(tmp_path: Path) -> None:
    path = write(tmp_path / "train.parquet", row_group_size=5)
    *_, (last, clips) = clip_ranges(path, 10)
    group = pq.ParquetFile(path).metadata.row_group(0)
    begin = min(group.column(i).dictionary_page_offset or group.column(i).data_page_offset for i in range(6))
    content = bytearray(path.read_bytes())
    content[begin : begin + group.total_byte_size] = bytes(group.total_byte_size)
    path.write_bytes(content)

    assert last.read() == clips
    with pytest.raises(ManifestError, match=r"train\.parquet"):
        read_clips(path)


def test_whole_numbers_that_pandas_stored_as_floats_are_whole(tmp_path: Path) -> None:
    path = write(
        tmp_path / "train.parquet",
        clip_id=pa.array([float(i) for i in range(N_CLIPS)]),
        centre_s=pa.array([1.5] * N_CLIPS),
        label=pa.array([3.0] * N_CLIPS),
        video=pa.array([f"{i}.mp4" for i in range(N_CLIPS)]),
        frame=pa.nulls(N_CLIPS),
    )
    assert read_clips(path)[2] == Clip("2", video="2.mp4", centre_s=1.5, label="3")


def test_ids_and_seconds_of_any_numeric_or_text_type_are_read(tmp_path: Path) -> None:
    path = write(
        tmp_path / "train.parquet",
        clip_id=pa.array(range(N_CLIPS), pa.int64()),
        centre_s=pa.array([float("nan"), *range(1, N_CLIPS)], pa.float32()),
        label=pa.array(["bell"] * N_CLIPS).dictionary_encode(),
        video=pa.array([f"{i}.mp4" for i in range(N_CLIPS)], pa.large_string()),
        frame=pa.nulls(N_CLIPS),
    )

    clips = read_clips(path)

    assert clips[0] == Clip("0", video="0.mp4", centre_s=None, label="bell")
    assert clips[2] == Clip("2", video="2.mp4", centre_s=2.0, label="bell")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"clip_id": ["a", "a", *COLUMNS["clip_id"][2:]]}, "row 2.*'a'.*row 1"),
        ({"video": ["../x.mp4", *COLUMNS["video"][1:]]}, r"row 1.*\.\./x\.mp4"),
        ({"centre_s": [*[1.0] * 22, -1.0]}, r"row 23.*-1\.0"),
        ({"title": COLUMNS["label"]}, "unknown.*title"),
        ({"label": ["a\0"] * N_CLIPS}, "row 1.*null"),
        ({"label": [b"a"] * N_CLIPS}, "label.*binary"),
        ({"centre_s": pa.array([1] * N_CLIPS, pa.timestamp("s"))}, "centre_s.*timestamp"),
    ],
)
def test_a_mistake_is_named_by_file_and_row(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "train.parquet", **changed)

    with pytest.raises(ManifestError, match=rf"(?s)train\.parquet: .*{message}"):
        read_clips(path)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"clip_id,video\na,b\n", b"PAR1" + bytes(100) + b"PAR1"])
def test_a_file_that_is_not_parquet_is_one_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "train.parquet"
    path.write_bytes(content)

    with pytest.raises(ManifestError, match=r"train\.parquet"):
        read_clips(path)
    with pytest.raises(ManifestError, match=r"no\.parquet"):
        read_clips(tmp_path / "no.parquet")


def test_every_truncated_file_is_one_error(tmp_path: Path) -> None:
    path = write(tmp_path / "train.parquet")
    content = path.read_bytes()
    for length in range(0, len(content), len(content) // 40):
        path.write_bytes(content[:length])
        with pytest.raises(ManifestError, match=r"train\.parquet"):
            read_clips(path)


def test_a_dataset_may_have_lists_of_both_kinds_but_not_for_one_split(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet")
    (tmp_path / "test.csv").write_text("clip_id,video,frame,audio,centre_s,label\nt,t.mp4,,,,\n")

    assert read_splits(tmp_path) == {"train": CLIPS, "test": [Clip("t", video="t.mp4")]}
    assert clip_list_path(tmp_path, "train").name == "train.parquet"
    assert clip_list_path(tmp_path, "test").name == "test.csv"

    (tmp_path / "train.csv").write_bytes((tmp_path / "test.csv").read_bytes())
    with pytest.raises(ManifestError, match=r"train\.csv.*train\.parquet"):
        read_splits(tmp_path)


def test_a_long_row_group_is_read_in_little_memory(tmp_path: Path) -> None:
    program = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from pipeline.manifests.rows import read_rows\n"
        "import pyarrow.parquet\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "n = sum(1 for _ in read_rows(Path(sys.argv[1]), ('clip_id', 'label')))\n"
        "print(n, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)\n"
    )
    path = tmp_path / "train.parquet"
    n_rows = 200_000
    label = [f"{i:0100d}" for i in range(n_rows)]
    pq.write_table(pa.table({"clip_id": label, "label": label}), path, use_dictionary=False, compression="none")
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    n_read, grown_mb = map(int, done.stdout.split())

    assert n_read == n_rows
    assert path.stat().st_size > 40e6
    assert grown_mb < 30
