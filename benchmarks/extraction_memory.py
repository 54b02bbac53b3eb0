"""Memory of extraction: the peak of one worker process for n clips and for 4n, in one shard and in four.

Each row is the peak resident set size of a process that builds shards as a Dask worker does. The first row is the process of the
last one after its first shard. Frames are 256×256 with 5 s of audio at 22.05 kHz. A clip takes 0.25 MiB in a shard, enough to detect memory that grows with the number of clips.
The reported ratio is the largest peak divided by that of the first row.

    python benchmarks/extraction_memory.py [--clips 128] [--output benchmarks/results/extraction_memory.json]
"""

from __future__ import annotations

import pipeline  # noqa: F401  # isort: skip  (before NumPy and torch: it sets how their threads wait)

import argparse
import multiprocessing
import platform
import re
import resource
import sys
import tempfile
from pathlib import Path

import av
import numpy as np

from pipeline.common.config import AudioSettings
from pipeline.common.files import write_json
from pipeline.common.project import CLIPS_FILE, shard_path
from pipeline.extraction.build_shard import ShardTask, build_shard
from pipeline.extraction.plan import plan_shards
from pipeline.manifests.clips import Clip
from pipeline.manifests.prepared import write_prepared_clips

AUDIO = AudioSettings(sample_rate=22_050, clip_seconds=5.0, n_fft=882, hop_length=441, n_mels=64)
N_FILES = 4
TARGET = 1.1
FPS, SECONDS, RATE = 10, 6, 22_050


def write_video(path: Path, seed: int) -> None:
    """Write 6 s of 160×120 H.264 with a keyframe per second, and AAC, both noise."""
    generator = np.random.default_rng(seed)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=FPS)
        video.width, video.height, video.pix_fmt, video.gop_size = 160, 120, "yuv420p", FPS
        audio = container.add_stream("aac", rate=RATE, layout="mono")
        for _ in range(FPS * SECONDS):
            pixels = generator.integers(0, 256, (120, 160, 3), dtype=np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(video.encode(None))
        samples = generator.normal(0, 0.1, (1, RATE * SECONDS)).astype(np.float32)
        sound = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        sound.sample_rate = RATE
        container.mux(audio.encode(sound))
        container.mux(audio.encode(None))


def peaks_mib(media_root: Path, n_shards: int, clips_per_shard: int) -> list[float]:
    """Build the shards in this process and return its peak resident set size in MiB after each of them."""
    peaks = []
    clips = [Clip(f"clip{n}", video=f"{n % N_FILES}.mp4") for n in range(clips_per_shard)]
    with tempfile.TemporaryDirectory() as folder:
        write_prepared_clips(Path(folder) / CLIPS_FILE, {"train": clips})
        (planned,) = plan_shards(Path(folder) / CLIPS_FILE, "train", clips_per_shard)
        for index in range(n_shards):
            path = shard_path(Path(folder), index)
            shard = build_shard(ShardTask(path, *planned, media_root, AUDIO, 256, "", 30.0))
            if shard.rejects:
                raise RuntimeError(f"unexpected rejects: {shard.rejects}")
            path.unlink()
            peaks.append(peak_mib())
    return peaks


def peak_mib() -> float:
    """Return the peak resident set size of this process in MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux, where getrusage may report the peak of the parent process
        (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())
        return int(peak) / 2**10
    unit = 1 if sys.platform == "darwin" else 2**10  # bytes on macOS, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def measure(n_clips: int) -> list[dict[str, float]]:
    """Return the peaks: n clips in one shard, 4n in one shard, and 4n in four shards."""
    cases = {}
    with tempfile.TemporaryDirectory() as folder:
        for n in range(N_FILES):
            write_video(Path(folder) / f"{n}.mp4", n)
        for n_shards, clips_per_shard in ((4, n_clips), (1, 4 * n_clips)):
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                peaks = pool.apply(peaks_mib, (Path(folder), n_shards, clips_per_shard))
            cases |= {(1, clips_per_shard): peaks[0], (n_shards, clips_per_shard): peaks[-1]}
    return [
        {"shards": shards, "clips_per_shard": clips, "peak_mib": round(peak, 1)}
        for (shards, clips), peak in sorted(cases.items())
    ]


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description="Peak memory of extraction for n clips and for 4n.")
    parser.add_argument("--clips", type=int, default=128)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/extraction_memory.json"))
    arguments = parser.parse_args()
    rows = measure(arguments.clips)
    print(f"{'shards':>6}  {'per shard':>10}  {'peak MiB':>8}")
    for row in rows:
        print(f"{row['shards']:6d}  {row['clips_per_shard']:10d}  {row['peak_mib']:8.1f}")
    ratio = max(row["peak_mib"] for row in rows) / rows[0]["peak_mib"]
    print(f"four times the clips take {ratio:.2f} × the memory (target: at most {TARGET})")
    write_json(arguments.output, {"machine": platform.machine(), "rows": rows, "ratio": round(ratio, 3)})


if __name__ == "__main__":
    main()
