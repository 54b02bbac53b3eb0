"""Any folder of media, such as a corpus of fuzzed files: each file is used, or reported with a reason.

Run with ``SOUNDSPOT_TEST_MEDIA=FOLDER pytest tests/media/test_media_folder.py``. The content of the files is unknown, so only the
error handling is tested. `test_media` covers decoding, with files of known content.
"""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest

from pipeline.apps.localize.jobs import IMAGE_SUFFIXES, plan_jobs
from pipeline.common.config import AudioSettings
from pipeline.extraction.extract import extract_split
from pipeline.manifests.clips import Clip
from pipeline.shards.reader import REJECTS_FILE, ShardSet
from tests.cli.test_localize import check_video
from tests.cli.test_main import run
from tests.support.localizing import save_model

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
        clips,
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
