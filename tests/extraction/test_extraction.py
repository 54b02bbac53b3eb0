"""Extraction: equal bytes for any worker count, rejects with reasons, resuming, and errors that lose nothing."""

import dataclasses
import errno
import hashlib
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import wave
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.common.access import may_pass
from pipeline.common.cluster import SCHEDULER_VARIABLE
from pipeline.common.config import AudioSettings, ShardEncoding
from pipeline.common.errors import AccessError, ClusterError, ExtractionError, ManifestError, ShardError
from pipeline.common.files import locked
from pipeline.common.project import shard_path
from pipeline.extraction import build_shard as shard_building
from pipeline.extraction import extract as extraction
from pipeline.extraction.build_shard import ShardTask, build_shard
from pipeline.extraction.extract import ExtractionSummary, extract_split
from pipeline.extraction.plan import plan_shards
from pipeline.manifests.clips import Clip
from pipeline.manifests.ranges import ClipRange
from pipeline.media.clip import DecodedClip, decode_clip
from pipeline.media.log_mel import log_mel
from pipeline.media.readable import raise_if_unreadable
from pipeline.shards.reader import ShardSet, verify_shard
from pipeline.shards.stamps import file_stamp, read_entries, write_entries
from pipeline.shards.writer import ShardWriter
from tests.support.mutations import edited_shard
from tests.support.splits import listed

AUDIO = AudioSettings(sample_rate=8000, clip_seconds=0.5, n_fft=256, hop_length=200, n_mels=8)
SIZE = 16
CLIPS = [Clip(f"pair{n}", frame=f"frames/{n}.png", audio=f"sounds/{n}.wav") for n in range(6)]
FILM = Clip("film", video="film.mp4", centre_s=0.4)
BROKEN = {
    "missing": (Clip("missing", frame="frames/none.png", audio="sounds/0.wav"), r"frames/none\.png: no such file"),
    "empty": (Clip("empty", video="empty.mp4"), r"empty\.mp4: is empty"),
    "wrong": (Clip("wrong", video="wrong.mp4"), r"wrong\.mp4: cannot be read"),
    "silent": (Clip("silent", frame="frames/0.png", audio="silent.wav"), r"silent\.wav: digital silence"),
    "mute": (Clip("mute", video="mute.mp4"), r"mute\.mp4: .*audio stream"),
    "blind": (Clip("blind", video="sounds/0.wav"), r"sounds/0\.wav: .*video stream"),
    "outside": (Clip("outside", video="film.mp4", centre_s=99.0), r"film\.mp4: centre_s 99 "),
}


pytestmark = pytest.mark.usefixtures("one_worker")


@pytest.fixture(scope="module")
def media_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("media")
    for name in ("frames", "sounds"):
        (root / name).mkdir()
    random = np.random.default_rng(0)
    for n in range(len(CLIPS)):
        Image.fromarray(random.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(root / f"frames/{n}.png")
        write_wav(root / f"sounds/{n}.wav", random.normal(0, 3000, 6000))
    write_film(root / "film.mp4", random, sound=True)
    write_film(root / "mute.mp4", random, sound=False)
    write_wav(root / "silent.wav", np.zeros(6000))
    (root / "empty.mp4").touch()
    (root / "wrong.mp4").write_text("a web page that says: not found")
    return root


@pytest.fixture(scope="module")
def extracted(media_root: Path, tmp_path_factory: pytest.TempPathFactory, one_worker: None) -> Path:
    """A finished split of good and broken clips, three per shard, extracted by one worker."""
    folder = tmp_path_factory.mktemp("one") / "train"
    summary = extract(mixed_clips(), media_root, folder, workers=1)
    assert summary == ExtractionSummary(n_clips=7, n_rejected=7, n_shards=5, n_kept=0)
    return folder


def test_shards_hold_what_the_decoder_gives(extracted: Path, media_root: Path) -> None:
    shards = ShardSet.open(extracted)
    frame, spectrogram = shards.read(range(len(shards)))

    good = [clip for clip in mixed_clips() if clip.clip_id not in BROKEN]
    assert shards.clip_ids == [clip.clip_id for clip in good]
    for position, clip in enumerate(good):
        expected = decode_clip(
            video=media_root / clip.video if clip.video else None,
            frame=media_root / clip.frame if clip.frame else None,
            audio=media_root / clip.audio if clip.audio else None,
            centre_s=clip.centre_s,
            image_size=SIZE,
            sample_rate=8000,
            clip_seconds=0.5,
            time_limit_s=30.0,
        )
        expected_mel = log_mel(torch.from_numpy(expected.waveform)[None], **mel_settings())[0]
        np.testing.assert_array_equal(frame[position], expected.frame)
        np.testing.assert_array_equal(spectrogram[position], expected_mel)
        assert shards.source_time_s[position] == expected.source_time_s
    assert shards.settings == {**AUDIO.model_dump(), "image_size": SIZE}


def test_compact_shards_replace_the_exact_ones_and_are_kept_in_turn(
    extracted: Path, media_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "train"
    shutil.copytree(extracted, folder)
    compact = ShardEncoding(log_mel="float16", frame_codec="jpeg")

    assert extract(mixed_clips(), media_root, folder, encoding=compact).n_kept == 0
    assert "removed 5 shards: the clip list or the settings changed" in capsys.readouterr().err
    assert extract(mixed_clips(), media_root, folder, encoding=compact).n_kept == 5

    stored, exact = ShardSet.open(folder), ShardSet.open(extracted)
    assert (stored.clip_ids, stored.settings, stored.encoding) == (exact.clip_ids, exact.settings, compact)
    (frame, spectrogram), (exact_frame, exact_spectrogram) = (each.read(range(len(each))) for each in (stored, exact))
    np.testing.assert_array_equal(spectrogram, exact_spectrogram.astype(np.float16))
    # These frames are noise, which JPEG stores worst; unrelated ones would differ by 85.
    assert 0 < np.abs(frame.astype(int) - exact_frame).mean() < 8


def test_each_encoding_has_its_own_fingerprint(media_root: Path, tmp_path: Path) -> None:
    encodings = [ShardEncoding(log_mel=a, frame_codec=b) for a in ("float32", "float16") for b in ("raw", "jpeg")]
    found = {shard_task([FILM], media_root, tmp_path, encoding=each).fingerprint for each in encodings}
    assert len(found) == 4
    assert shard_task([FILM], media_root, tmp_path).fingerprint in found


def test_every_unusable_clip_has_its_row(extracted: Path) -> None:
    header, *rows = (extracted / "rejects.csv").read_text().splitlines()

    assert header == "clip_id,reason"
    assert [row.split(",")[0] for row in rows] == [c.clip_id for c in mixed_clips() if c.clip_id in BROKEN]
    for row in rows:
        clip_id, reason = row.split(",", 1)
        assert re.match(BROKEN[clip_id][1], reason.strip('"'))


def test_bytes_do_not_depend_on_workers_or_location(
    extracted: Path, media_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(media_root, tmp_path / "elsewhere")
    monkeypatch.delenv(SCHEDULER_VARIABLE)

    extract(mixed_clips(), tmp_path / "elsewhere", tmp_path / "other" / "train", workers=2)

    assert digests(tmp_path / "other" / "train") == digests(extracted)


def test_an_unfinished_split_is_resumed_shard_by_shard(extracted: Path, media_root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "train"
    shutil.copytree(extracted, folder)
    (folder / "rejects.csv").unlink()
    shard_path(folder, 1).unlink()
    damage(shard_path(folder, 3))
    shutil.copy(shard_path(folder, 0), shard_path(folder, 9))
    (folder / ".shard-00001.h5.0123abcd.tmp").touch()
    kept = shard_path(folder, 0).stat().st_mtime_ns

    summary = extract(mixed_clips(), media_root, folder)

    # Shards with rejects are kept too, since neither the media root nor the time limit changed.
    assert (summary.n_kept, summary.n_rejected) == (3, 7)
    assert shard_path(folder, 0).stat().st_mtime_ns == kept
    assert digests(folder) == digests(extracted)


def test_added_clips_are_extracted_without_those_before_them(
    extracted: Path, media_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The shards that are full stay; the last one, which is not, and the new ones are extracted."""
    folder, clips = tmp_path / "train", mixed_clips()
    extract(clips[:8], media_root, folder)
    times = [shard_path(folder, index).stat().st_mtime_ns for index in range(3)]
    capsys.readouterr()

    summary = extract(clips, media_root, folder)

    assert summary == ExtractionSummary(n_clips=7, n_rejected=7, n_shards=5, n_kept=2)
    assert "removed 1 shards: the clip list" in capsys.readouterr().err
    assert [shard_path(folder, index).stat().st_mtime_ns == times[index] for index in range(3)] == [True, True, False]
    assert digests(folder) == digests(extracted)


def test_a_clip_inserted_before_others_changes_their_shards(extracted: Path, media_root: Path, tmp_path: Path) -> None:
    folder, clips = tmp_path / "train", mixed_clips()
    shutil.copytree(extracted, folder)

    summary = extract([*clips[:4], Clip("new", video="film.mp4"), *clips[4:]], media_root, folder)

    assert (summary.n_kept, summary.n_shards) == (1, 5)


def test_a_finished_split_of_other_clips_is_extracted_again(extracted: Path, media_root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "train"
    shutil.copytree(extracted, folder)

    summary = extract(mixed_clips()[2:5], media_root, folder)

    assert (summary.n_kept, summary.n_shards) == (0, 1)
    assert sorted(path.name for path in folder.iterdir()) == [
        ".conditions",
        ".finished",
        ".record.json",
        "rejects.csv",
        "shard-00000.h5",
        "shards.json",
    ]


def test_a_finished_split_is_verified_and_kept(
    extracted: Path, media_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "train"
    shutil.copytree(extracted, folder)
    times = [path.stat().st_mtime_ns for path in sorted(folder.glob("shard-*.h5"))]

    summary = extract(mixed_clips(), media_root, folder)

    assert (summary.n_kept, summary.n_shards) == (5, 5)
    assert "5 shards unchanged" in capsys.readouterr().err
    assert times == [path.stat().st_mtime_ns for path in sorted(folder.glob("shard-*.h5"))]
    assert digests(folder) == digests(extracted)
    assert extract(mixed_clips(), media_root, folder, fresh=True).n_kept == 0


@pytest.mark.parametrize("place", ["a frame", "the end"])
def test_damage_without_a_new_time_is_found_at_the_end_or_where_it_is_read(
    extracted: Path, media_root: Path, tmp_path: Path, place: str
) -> None:
    folder = tmp_path / "train"
    path = shard_path(folder, 0)
    clips = [dataclasses.replace(clip, clip_id=f"{number}-{clip.clip_id}") for number in range(20) for clip in CLIPS]
    extract(clips, media_root, folder, clips_per_shard=120)
    before, status = digests(folder), path.stat()
    assert status.st_size > 200_000  # more than the part at the end that a stamp covers
    damage(path) if place == "a frame" else path.write_bytes(path.read_bytes()[:-1] + b"!")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    if place == "a frame":
        assert extract_unchecked(clips, media_root, folder, clips_per_shard=120).n_kept == 1
        with pytest.raises(ShardError, match=r"shard-00000\.h5: damaged \(clip '0-pair0'"):
            ShardSet.open(folder).read([0])
    summary = extract(clips, media_root, folder, clips_per_shard=120, verify=place == "a frame")

    assert summary.n_kept == 0
    assert digests(folder) == before


def test_a_copy_with_other_times_is_read_once(
    extracted: Path, media_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after `dvc checkout`, which brings neither the times nor the stamps."""
    folder = tmp_path / "train"
    shutil.copytree(extracted, folder, copy_function=shutil.copyfile)
    (folder / ".finished").unlink()
    verified: list[Path] = []
    monkeypatch.setattr(extraction, "run_tasks", run_here)
    monkeypatch.setattr(shard_building, "verify_shard", lambda path: (verified.append(path), verify_shard(path)))

    for n_verified in (5, 5):
        assert extract(mixed_clips(), media_root, folder).n_kept == 5
        assert len(verified) == n_verified
    assert digests(folder) == digests(extracted)


def test_a_line_that_a_killed_run_began_costs_only_the_trust_in_that_shard(
    extracted: Path, media_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "train"
    shutil.copytree(extracted, folder)
    (folder / ".finished").write_text((folder / ".finished").read_text()[:-40])
    verified: list[str] = []
    monkeypatch.setattr(extraction, "run_tasks", run_here)
    monkeypatch.setattr(shard_building, "verify_shard", lambda path: verified.append(path.name))

    assert extract(mixed_clips(), media_root, folder).n_kept == 5
    assert verified == ["shard-00004.h5"]


def test_entries_of_other_versions_of_the_shards_do_not_count(
    extracted: Path, media_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after `dvc checkout`, which restores shards and their list, but not the entries of this machine."""
    folder = tmp_path / "train"
    shutil.copytree(extracted, folder)
    first, *others = read_entries(folder).values()
    write_entries(folder, [dataclasses.replace(first, digest="0" * 32), *others])
    os.utime(folder / first.name)
    monkeypatch.setattr(extraction, "run_tasks", run_here)

    assert extract(mixed_clips(), media_root, folder).n_kept == 5


def test_a_shard_whose_stamp_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(AccessError, match=rf"^{tmp_path}: cannot be read"):
        file_stamp(tmp_path)


def test_shards_of_another_extraction_are_not_kept(
    extracted: Path, media_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As when other code has extracted the same clips: the fingerprint in the shard is the same, the data is not."""
    folder = tmp_path / "train"
    shutil.copytree(extracted, folder)
    with edited_shard(shard_path(folder, 0)) as file:
        file["log_mel"][0] += 1
    verify_shard(shard_path(folder, 0))

    summary = extract(mixed_clips(), media_root, folder)

    assert summary.n_kept == 4
    assert "removed 1 shards: they were modified" in capsys.readouterr().err
    assert digests(folder) == digests(extracted)


def test_results_of_other_code_are_extracted_again(
    extracted: Path, media_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "train"
    shutil.copytree(extracted, folder)
    (folder / "rejects.csv").unlink()
    monkeypatch.setattr(extraction, "code_digest", lambda *_: "0" * 32)

    assert extract(mixed_clips(), media_root, folder).n_kept == 0

    (folder / "rejects.csv").unlink()
    assert extract(mixed_clips(), media_root, folder).n_kept == 5
    (folder / "rejects.csv").unlink()
    (folder / ".record.json").unlink()
    assert extract(mixed_clips(), media_root, folder).n_kept == 0


def test_only_shards_with_rejects_are_rebuilt_under_a_new_time_limit(
    extracted: Path, media_root: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "train"
    clips = [*CLIPS, BROKEN["empty"][0]]
    extract(clips, media_root, folder)
    (folder / "rejects.csv").unlink()

    summary = extract(clips, media_root, folder, clip_time_limit_s=60.0)

    assert (summary.n_kept, summary.n_shards, summary.n_rejected) == (2, 3, 1)


def test_two_writers(media_root: Path, tmp_path: Path) -> None:
    with (
        locked(tmp_path / "train", ExtractionError),
        pytest.raises(ExtractionError, match="train: another process"),
    ):
        extract(CLIPS[:1], media_root, tmp_path / "train")

    assert extract(CLIPS[:1], media_root, tmp_path / "train").n_clips == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"audio": AUDIO.model_copy(update={"log_floor": 1e-8})},
        {"image_size": SIZE + 1},
        {"media": "rendered differently"},
        {"clips": (CLIPS[1], CLIPS[0])},
        {"clips": (CLIPS[0], Clip("pair1", frame="frames/1.png", audio="sounds/1.wav", centre_s=0.3))},
    ],
)
def test_a_shard_of_other_settings_is_not_kept(media_root: Path, tmp_path: Path, changed: dict[str, Any]) -> None:
    task = shard_task(CLIPS[:2], media_root, tmp_path)
    built = build_shard(task)
    assert (built.kept, built.rejects) == (False, {})
    assert build_shard(task) == dataclasses.replace(built, kept=True)

    if "clips" in changed:
        part, digest = clip_range(changed["clips"], tmp_path)
        changed = {"clips": part, "clips_digest": digest}
    other = dataclasses.replace(task, **changed)

    assert not build_shard(other).kept
    assert other.fingerprint != task.fingerprint


def test_too_many_unusable_clips_stop_the_split_and_lose_nothing(media_root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "train"
    clips = [*CLIPS[:4], BROKEN["empty"][0], Clip("gone", video="gone.mp4"), Clip("gone2", video="gone2.mp4")]

    with pytest.raises(ExtractionError) as caught:
        extract(clips, media_root, folder, workers=1, max_reject_fraction=0.4)

    message = str(caught.value)
    assert re.match(r"train: 3 of the 7 clips .*40%", message)
    assert re.search("2 x no such file.*; 1 x is empty", message)
    assert str(folder / "rejects.partial.csv") in message
    assert (folder / "rejects.partial.csv").read_text().splitlines()[2].startswith("gone,gone.mp4: no such file")
    assert not (folder / "rejects.csv").exists()

    summary = extract(clips, media_root, folder, max_reject_fraction=0.5)

    assert summary == ExtractionSummary(n_clips=4, n_rejected=3, n_shards=3, n_kept=1)
    assert not (folder / "rejects.partial.csv").exists()


def test_repaired_files_are_used_after_too_many_were_unusable(media_root: Path, tmp_path: Path) -> None:
    root, folder = tmp_path / "media", tmp_path / "train"
    shutil.copytree(media_root, root)
    for name in ("frames/3.png", "sounds/4.wav"):
        (root / name).write_bytes(b"")
    with pytest.raises(ExtractionError, match="2 of the 6 clips"):
        extract(CLIPS, root, folder, max_reject_fraction=0.2)

    for name in ("frames/3.png", "sounds/4.wav"):
        shutil.copy(media_root / name, root / name)
    summary = extract(CLIPS, root, folder, max_reject_fraction=0.2)

    assert summary == ExtractionSummary(n_clips=6, n_rejected=0, n_shards=2, n_kept=1)
    extract(CLIPS, media_root, tmp_path / "smooth")
    assert digests(folder) == digests(tmp_path / "smooth")


def test_a_split_without_a_usable_clip_is_an_error_whatever_the_limit(media_root: Path, tmp_path: Path) -> None:
    with pytest.raises(ExtractionError, match="1 of the 1 clips"):
        extract([BROKEN["empty"][0]], media_root, tmp_path / "train", max_reject_fraction=1.0)


def test_a_clip_that_takes_too_long_is_rejected(media_root: Path, tmp_path: Path) -> None:
    task = shard_task([FILM], media_root, tmp_path, clip_time_limit_s=1e-6)

    rejects = build_shard(task).rejects

    assert rejects["film"].startswith("film.mp4: time limit of 1e-06 s")


def test_a_folder_that_cannot_be_created_is_reported(media_root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ExtractionError, match="file/train: cannot be written"):
        extract(CLIPS[:1], media_root, tmp_path / "file" / "train")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("requires permission to mount a file system")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.mark.parametrize("filled", [0, 40_000, 56_000, 60_000, 65_536])
def test_a_full_disk_is_reported(media_root: Path, small_disk: Path, filled: int) -> None:
    (small_disk / "filler").write_bytes(bytes(filled))
    clips = [Clip(f"clip{n}", frame="frames/0.png", audio="sounds/0.wav") for n in range(60)]

    with pytest.raises(ExtractionError, match=r"shard-00000\.h5: .*No space left on device"):
        build_shard(shard_task(clips, media_root, small_disk))

    assert [path.name for path in small_disk.iterdir()] == ["filler"]


def test_a_failed_write_leaves_no_partial_shard(
    media_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("pipeline.shards.writer.ShardWriter.append", fail)

    with pytest.raises(ExtractionError, match="No space left on device"):
        build_shard(shard_task(CLIPS[:2], media_root, tmp_path))

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "fault", [ZeroDivisionError("by\nzero"), OSError(errno.EIO, "by zero"), AssertionError("by zero")]
)
def test_a_clip_that_crashes_the_decoder_is_rejected(
    media_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    fail_on_film(monkeypatch, fault)

    rejects = build_shard(shard_task([CLIPS[0], FILM, CLIPS[1]], media_root, tmp_path)).rejects

    message = " ".join(str(fault).split())
    assert rejects == {"film": f"internal error: {type(fault).__name__}: {message}"}
    with h5py.File(shard_path(tmp_path, 0)) as shard:
        assert list(shard["clip_id"]) == [b"pair0", b"pair1"]


@pytest.mark.parametrize(
    ("code", "n_failures", "n_tries"), [(errno.ESTALE, 2, 3), (errno.ENETUNREACH, 9, 3), (errno.EACCES, 9, 1)]
)
def test_a_clip_is_not_rejected_for_an_error_that_passes(
    media_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, n_failures: int, n_tries: int
) -> None:
    tries: list[Path] = []

    def unreachable(path: Path) -> None:
        tries.append(path)
        if len(tries) <= n_failures:
            raise_if_unreadable(path, OSError(code, os.strerror(code)))

    monkeypatch.setattr("pipeline.media.container.require_file", unreachable)
    monkeypatch.setattr(shard_building, "_RETRY_AFTER_S", (0, 0))

    task = shard_task([FILM], media_root, tmp_path)
    if code == errno.ENETUNREACH:
        # Not the clip's fault: the task is tried again later.
        with pytest.raises(AccessError, match=r"film\.mp4: .*unreachable") as caught:
            build_shard(task)
        assert may_pass(caught.value)
    else:
        assert list(build_shard(task).rejects) == ([] if n_tries > n_failures else ["film"])
    assert len(tries) == n_tries


@pytest.mark.parametrize("fault", [MemoryError(), KeyboardInterrupt()])
def test_errors_unrelated_to_a_clip_stop_the_shard(
    media_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: BaseException
) -> None:
    fail_on_film(monkeypatch, fault)

    with pytest.raises(type(fault)):
        build_shard(shard_task([CLIPS[0], FILM], media_root, tmp_path))

    assert list(tmp_path.iterdir()) == []


def fail_on_film(monkeypatch: pytest.MonkeyPatch, fault: BaseException) -> None:
    def decode(**what: Any) -> DecodedClip:
        if what["video"] is not None:
            raise fault
        return decode_clip(**what)

    monkeypatch.setattr(shard_building, "decode_clip", decode)


def test_a_dead_worker_names_the_shard(media_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: Any, **__: Any) -> Iterator[Any]:
        raise ClusterError("a process died", task=1)
        yield

    monkeypatch.setattr(extraction, "run_tasks", die)

    with pytest.raises(ExtractionError, match=r"shard-00001\.h5: .*died .*'pair3' to 'pair5'"):
        extract(CLIPS, media_root, tmp_path / "train")


@pytest.mark.parametrize(
    ("clips", "message"),
    [
        ([], "no clips of the split 'train'"),
        ([CLIPS[0], CLIPS[1], CLIPS[0]], "clip_id 'pair0'"),
        ([Clip("a", video="../film.mp4")], r"'\.\./film\.mp4'"),
    ],
)
def test_a_bad_clip_list_is_rejected(media_root: Path, tmp_path: Path, clips: list[Clip], message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        extract(clips, media_root, tmp_path / "train")

    assert list(tmp_path.iterdir()) == []


def work(media_root: Path, folder: Path, kill_before_step: int) -> None:
    """Extract in this process, with kill -9 before the given step: a file deleted, truncated, renamed, or a clip stored."""
    steps = 0

    def counting(step: Callable[..., Any]) -> Callable[..., Any]:
        def count(*arguments: Any, **options: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps == kill_before_step:
                os.kill(os.getpid(), signal.SIGKILL)
            return step(*arguments, **options)

        return count

    extraction.run_tasks = run_here
    shard_building._GROUP = 1  # so that a kill falls between two clips of a shard
    for owner, name in ((os, "replace"), (os, "truncate"), (Path, "unlink"), (ShardWriter, "append")):
        setattr(owner, name, counting(getattr(owner, name)))
    extract(mixed_clips(), media_root, folder, fresh=kill_before_step > 0)


@pytest.fixture(scope="module")
def die(media_root: Path) -> Callable[[Path, int], int]:
    """Run `work` in a separate process and return its exit code."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.support.preloaded", "tests.extraction.test_extraction"])

    def run(folder: Path, kill_before_step: int) -> int:
        process = context.Process(target=work, args=(media_root, folder, kill_before_step))
        process.start()
        process.join()
        return process.exitcode

    return run


@pytest.mark.slow
def test_kills_at_every_step_end_in_the_same_bytes(tmp_path: Path, die: Callable[[Path, int], int]) -> None:
    """Start from a finished split, so that its deletion is among the steps. A third of the resumed runs are killed too."""
    finished = tmp_path / "undisturbed" / "train"
    assert die(finished, 0) == 0
    expected = digests(finished)
    assert len(expected) == 7
    rng = random.Random(0)
    left_in_a_shard = left_in_cleaning = 0
    code = -signal.SIGKILL
    step = 0
    while code != 0:
        step += 1
        folder = tmp_path / f"{step}" / "train"
        shutil.copytree(finished, folder)
        code = die(folder, step)
        assert code in (0, -signal.SIGKILL)
        there = {path.name for path in folder.glob("[!.]*")}
        left_in_a_shard += any(folder.glob(".shard*.tmp"))
        left_in_cleaning += code != 0 and "shards.json" in there and there != expected.keys()
        if code != 0:
            if step % 3 == 0:
                die(folder, rng.randint(1, 12))
            assert die(folder, 0) == 0
        assert digests(folder) == expected, f"killed before step {step}"
    assert left_in_a_shard > 10
    assert left_in_cleaning > 2


def run_here(function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]], **_: Any) -> Iterator[tuple[int, Any]]:
    return ((index, function(*task)) for index, task in enumerate(tasks))


def mixed_clips() -> list[Clip]:
    """Good and broken clips, alternating."""
    broken = [clip for clip, _ in BROKEN.values()]
    return [clip for pair in zip([*CLIPS, FILM], broken, strict=True) for clip in pair]


def extract(clips: list[Clip], media_root: Path, folder: Path, **changed: Any) -> ExtractionSummary:
    summary = extract_unchecked(clips, media_root, folder, **changed)
    for index in range(summary.n_shards):
        verify_shard(shard_path(folder, index))
    return summary


def extract_unchecked(clips: list[Clip], media_root: Path, folder: Path, **changed: Any) -> ExtractionSummary:
    settings = {
        "audio": AUDIO,
        "image_size": SIZE,
        "clips_per_shard": 3,
        "max_reject_fraction": 0.6,
        "clip_time_limit_s": 30.0,
        "scheduler": None,
        "workers": 1,
    }
    path = listed(media_root.with_name("lists") / "clips.csv", clips)
    return extract_split(path, "train", media_root=media_root, folder=folder, **{**settings, **changed})


def shard_task(clips: list[Clip], media_root: Path, folder: Path, **changed: Any) -> ShardTask:
    settings = {"audio": AUDIO, "image_size": SIZE, "media": "", "clip_time_limit_s": 30.0}
    return ShardTask(shard_path(folder, 0), *clip_range(clips, folder), media_root, **{**settings, **changed})


def clip_range(clips: Sequence[Clip], folder: Path) -> tuple[ClipRange, str]:
    path = folder.parent / f"list-{folder.name}" / f"{len(list(folder.parent.glob('list-*/*')))}.csv"
    (planned,) = plan_shards(listed(path, clips), "train", len(clips))
    return planned


def mel_settings() -> dict[str, Any]:
    return {name: value for name, value in AUDIO.model_dump().items() if name != "clip_seconds"}


def digests(folder: Path) -> dict[str, str]:
    """Digests of the split's files, without hidden files."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("[!.]*")}


def damage(path: Path) -> None:
    with h5py.File(path, locking=False) as file:
        offset = file["frame"].id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def write_wav(path: Path, samples: np.ndarray) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(samples.astype("<i2").tobytes())


def write_film(path: Path, random: np.random.Generator, *, sound: bool) -> None:
    """Write 0.8 s of noise as H.264 and, with `sound`, AAC."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=10)
        video.width = video.height = 32
        video.pix_fmt = "yuv420p"
        audio = container.add_stream("aac", rate=16000, layout="mono") if sound else None
        for _ in range(8):
            picture = av.VideoFrame.from_ndarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8), format="rgb24")
            container.mux(video.encode(picture))
        container.mux(video.encode(None))
        if audio is not None:
            samples = random.normal(0, 0.2, (1, 12800)).astype(np.float32)
            piece = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            piece.sample_rate = 16000
            container.mux(audio.encode(piece))
            container.mux(audio.encode(None))
