"""The memory that `benchmarks/extraction_memory.py` measures does not grow with the number of clips."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.extraction_memory import AUDIO
from tests.support.projects import ROOT

N_CLIPS = 96  # with fewer clips, the decoders' caches are still filling
MIB_PER_CLIP = (256 * 256 * 3 + AUDIO.n_mels * AUDIO.n_frames * 4) / 2**20


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="only Linux reports the peak memory of a single process"
)
def test_four_times_the_clips_take_no_more_memory(tmp_path):
    output = tmp_path / "result.json"
    command = [sys.executable, "benchmarks/extraction_memory.py", "--clips", str(N_CLIPS), "--output", str(output)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    once, larger_shard, more_shards = (row["peak_mib"] for row in json.loads(output.read_text())["rows"])
    growth_if_clips_were_kept = 3 * N_CLIPS * MIB_PER_CLIP
    assert larger_shard - once < growth_if_clips_were_kept / 3
    assert more_shards - once < growth_if_clips_were_kept / 3
    assert f"{more_shards:.1f}" in done.stdout
