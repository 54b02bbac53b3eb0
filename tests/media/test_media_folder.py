"""Any folder of media, such as a corpus of fuzzed files: each file is used, or reported with a reason.

Run with ``SOUNDSPOT_TEST_MEDIA=FOLDER pytest tests/media/test_media_folder.py``. The content of the files is unknown, so the error
handling is tested, and that their audio equals a plain decode of the whole track. `test_media` covers files of known content.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.apps.localize.jobs import IMAGE_SUFFIXES, plan_jobs
from pipeline.apps.localize.sliding_windows import SlidingWindows
from pipeline.common.config import AudioSettings
from pipeline.common.errors import MediaError
from pipeline.extraction.extract import extract_split
from pipeline.manifests.clips import Clip
from pipeline.media.audio import window_at
from pipeline.media.container import Deadline, MediaContainer
from pipeline.shards.reader import REJECTS_FILE, ShardSet
from tests.cli.test_localize import check_video
from tests.cli.test_main import run
from tests.support.localizing import save_model
from tests.support.splits import listed

FOLDER = os.environ.get("SOUNDSPOT_TEST_MEDIA", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FOLDER, reason="SOUNDSPOT_TEST_MEDIA is not set"),
]


def test_each_file_is_extracted_or_rejected_with_a_reason(tmp_path):
    root = Path(FOLDER).absolute()
    files = [
        path
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.suffix.lower() not in (*IMAGE_SUFFIXES, ".csv")
    ]
    clips = [Clip(f"clip-{i:04d}", video=path.relative_to(root).as_posix()) for i, path in enumerate(files)]
    summary = extract_split(
        listed(tmp_path / "clips.csv", clips),
        "train",
        media_root=root,
        folder=tmp_path,
        audio=AudioSettings(sample_rate=16_000, clip_seconds=1.0, n_fft=400, hop_length=160, n_mels=64),
        image_size=64,
        clips_per_shard=16,
        max_reject_fraction=1.0,
        clip_time_limit_s=30.0,
        scheduler=None,
        workers=2,
    )
    with open(tmp_path / REJECTS_FILE, newline="", encoding="utf-8") as file:
        rejected = {row["clip_id"]: row["reason"] for row in csv.DictReader(file)}
    stored = ShardSet.open(tmp_path).clip_ids
    assert summary.n_clips == len(stored) > 0
    assert sorted([*stored, *rejected]) == [clip.clip_id for clip in clips]
    assert [reason for reason in rejected.values() if not reason or "\n" in reason or "internal error" in reason] == []


def test_each_file_is_localized_or_reported_with_a_reason(tmp_path, monkeypatch, capfd):
    root = Path(FOLDER).absolute()
    monkeypatch.chdir(tmp_path)
    save_model(tmp_path / "model.pt")
    planned = {str(job.source) for job in plan_jobs([root], tmp_path / "out")}
    capfd.readouterr()
    code = run("localize", root, "-o", "out", "--model", "model.pt", "--device", "cpu", "--json")
    printed = capfd.readouterr()
    _, *lines = printed.err.splitlines()  # the first reports the missing calibration
    *told, _ = printed.out.splitlines()
    done = dict(line.split(": ")[0].split(" -> ") for line in told)
    assert all(line.startswith("failed: ") for line in lines)
    assert all(line.count(": ") >= 2 and "internal error" not in line for line in lines)
    assert code == (1 if lines else 0)
    assert done.keys() <= planned
    assert len(done) + len(lines) == len(planned)
    for output in done.values():
        if output.endswith(".mp4"):
            facts = json.loads((tmp_path / output).with_suffix(".json").read_text())
            check_video(tmp_path / output, facts, audio_is_intact=False, least_s=0.0)


def reference(path):
    """Decode the whole track that a player plays by default: its mono samples, rate, first time stamp, and the largest drift."""
    with av.open(str(path), metadata_errors="replace") as container:
        video = container.streams.best("video")
        stream = container.streams.best("audio", video)
        frames = list(naive_frames(container, stream)) if stream is not None else []
    if not frames:
        return None
    means = [frame.to_ndarray().reshape(len(frame.planes), frame.samples, -1).mean(axis=(0, 2)) for frame in frames]
    scale = {"u8": 128, "s16": 2**15, "s32": 2**31}.get(frames[0].format.name.rstrip("p"), 1)
    samples = np.concatenate(means).astype(np.float64) / scale - (1 if scale == 128 else 0)
    ends = np.cumsum([frame.samples / frame.sample_rate for frame in frames])
    first = frames[0].time
    drift = [f.time - first - end for f, end in zip(frames[1:], ends[:-1], strict=True) if f.time is not None]
    rates = {frame.sample_rate for frame in frames}
    return samples, rates, first, max(map(abs, drift), default=0.0)


def naive_frames(container, stream):
    for packet in container.demux(stream):
        with contextlib.suppress(av.FFmpegError):
            yield from stream.codec_context.decode(packet)


def heard(path, centers, clip_seconds, rate):
    """Return the windows of extraction and those of `localize`, or a reason for there being none."""
    limit = Deadline(60)
    with MediaContainer(path, deadline=limit) as one, MediaContainer(path, deadline=limit) as other:
        windows = SlidingWindows(other, clip_seconds=clip_seconds, sample_rate=rate)
        for center in centers:
            timestamp = one.timestamp(center)
            slid = windows.window(timestamp)
            try:
                extracted = window_at(one, timestamp, clip_seconds=clip_seconds, sample_rate=rate)
            except MediaError as error:
                yield center, timestamp, str(error), slid
            else:
                yield center, timestamp, extracted, slid


def agreement(found, whole, begin, rate):
    """The best correlation with a part of the whole track at a lag of at most 1 ms."""
    padded = np.pad(whole, 2 * len(found))
    best = -1.0
    for lag in range(-rate // 1000, rate // 1000 + 1):
        start = begin + lag + 2 * len(found)
        expected = padded[max(start, 0) : max(start, 0) + len(found)]
        if len(expected) == len(found) and expected.any():
            best = max(best, float(found @ expected / np.sqrt((found @ found) * (expected @ expected) + 1e-30)))
    return best


def test_windows_equal_those_of_a_full_decode():
    """Files with a real gap, another rate midway, or a track that is silent in the mean of its channels have no such reference."""
    root, seconds = Path(FOLDER).absolute(), 1.0
    compared, excused, wrong = 0, [], []
    for path in sorted(
        path for path in root.rglob("*") if path.is_file() and path.suffix.lower() not in IMAGE_SUFFIXES
    ):
        name = path.relative_to(root).as_posix()
        try:
            with MediaContainer(path, deadline=Deadline(60)) as media:
                if media.audio is None:
                    continue
                length = float(2 * (media.timestamp(None) - media.zero))
            samples, rates, first, drift = reference(path)
        except (MediaError, av.FFmpegError, TypeError, IndexError) as error:
            excused.append(f"{name}: {error}")
            continue
        if len(rates) > 1 or drift > 0.1 or np.abs(samples).max() < 1e-3 or first is None:
            excused.append(f"{name}: {rates} Hz, drift {drift:.3f} s, peak {np.abs(samples).max():.1e}")
            continue
        # At the rate of the file, since a shift by a fraction of a sample lowers the correlation of high frequencies.
        rate = rates.pop()
        centers = [length * part for part in (0.1, 0.3, 0.5, 0.7, 0.9)]
        for center, timestamp, extracted, slid in heard(path, centers, seconds, rate):
            begin = round((float(timestamp) - seconds / 2 - first) * rate)
            if isinstance(extracted, str):
                part = samples[max(begin, 0) : max(begin + rate, 0)]
                if part.size and np.abs(part).max() > 1e-5:
                    wrong.append(f"{name} at {center:.2f} s: {extracted}")
                continue
            both = [agreement(window.astype(np.float64), samples, begin, rate) for window in (extracted, slid)]
            compared += 1
            if min(both) < 0.999:
                wrong.append(f"{name} at {center:.2f} s: {both}")
    print(f"{compared} windows", *excused, "wrong:", *wrong, sep="\n")
    assert wrong == []
    assert compared > 0
