"""The plan of an extraction from a thousand to a million listed clips, and what the whole extraction would take.

Each row is a list of its own length, planned in a fresh process: seconds, peak memory above that of the same process with a list of one
clip, and bytes of the list. A sample of clips (`extraction_memory.write_video`) is decoded and stored on one core; hours and bytes of
the shards are projected from it. The last line is the law: what each further million of clips adds.

    python benchmarks/scale.py [--clips 1000 10000 100000 1000000] [--sample 64] [--output benchmarks/results/scale.json]
"""

from __future__ import annotations

import pipeline  # noqa: F401  # isort: skip  (before NumPy and torch: it sets how their threads wait)

import argparse
import multiprocessing
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

from extraction_memory import AUDIO, N_FILES, peak_mib, write_video

from pipeline.common.files import write_json
from pipeline.common.project import CLIPS_FILE, shard_path
from pipeline.extraction.build_shard import ShardTask, build_shard
from pipeline.extraction.plan import plan_shards
from pipeline.manifests.clips import Clip
from pipeline.manifests.prepared import CLIPS_HEADER, write_prepared_clips

IMAGE_SIZE = 256
CLIPS_PER_SHARD = 512


def write_list(path: Path, n_clips: int) -> None:
    """Write a prepared list row by row."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(",".join(CLIPS_HEADER) + "\n")
        file.writelines(f"train,clip-{n:08d},videos/{n % 1000:03d}/clip-{n:08d}.mp4,,,2.5,\n" for n in range(n_clips))


def plan(path: Path) -> dict[str, float]:
    """Plan in this process: seconds, peak memory and tasks."""
    start = time.perf_counter()
    planned = plan_shards(path, "train", CLIPS_PER_SHARD)
    return {"seconds": time.perf_counter() - start, "peak_mib": peak_mib(), "tasks": len(planned)}


def plan_alone(folder: Path, n_clips: int) -> dict[str, float]:
    """Write a list, and plan it in a fresh process."""
    write_list(folder / CLIPS_FILE, n_clips)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(plan, (folder / CLIPS_FILE,)) | {"list_bytes": (folder / CLIPS_FILE).stat().st_size}


def extract_sample(folder: Path, n_clips: int) -> tuple[float, float]:
    """Return seconds of one core, and bytes, per clip of a shard."""
    for n in range(N_FILES):
        write_video(folder / f"{n}.mp4", n)
    clips = [Clip(f"clip{n}", video=f"{n % N_FILES}.mp4") for n in range(n_clips)]
    write_prepared_clips(folder / "sample.csv", {"train": clips})
    (planned,) = plan_shards(folder / "sample.csv", "train", n_clips)
    task = ShardTask(shard_path(folder, 0), *planned, folder, AUDIO, IMAGE_SIZE, "", 30.0)
    build_shard(task)  # imports, and the caches of the decoders
    task.path.unlink()
    start = time.perf_counter()
    shard = build_shard(task)
    if shard.rejects:
        raise RuntimeError(f"unexpected rejects: {shard.rejects}")
    return (time.perf_counter() - start) / n_clips, shard.stamp.size / n_clips


def measure(counts: list[int], sample: int) -> dict[str, Any]:
    """Return a row for each number of clips, and the law."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seconds_per_clip, bytes_per_clip = extract_sample(folder, sample)
        empty = plan_alone(folder, 1)
        rows = []
        for count in sorted(counts):
            row = plan_alone(folder, count)
            rows.append(
                {
                    "clips": count,
                    "tasks": row["tasks"],
                    "plan_s": round(row["seconds"], 3),
                    "memory_mib": round(row["peak_mib"] - empty["peak_mib"], 1),
                    "list_mb": round(row["list_bytes"] / 1e6, 2),
                    "shards_gb": round(count * bytes_per_clip / 1e9, 2),
                    "core_hours": round(count * seconds_per_clip / 3600, 3),
                }
            )
    most = rows[-1]
    per_million = {key: round(most[key] / most["clips"] * 1e6, 3) for key in list(most)[2:]}
    return {
        "seconds_per_clip": seconds_per_clip,
        "bytes_per_clip": bytes_per_clip,
        "rows": rows,
        "per_million": per_million,
    }


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description="The plan of an extraction, and its projected size.")
    parser.add_argument("--clips", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--sample", type=int, default=64, help="Clips that are decoded.")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/scale.json"))
    arguments = parser.parse_args()
    result = measure(arguments.clips, arguments.sample)
    rows = result["rows"]
    print(f"one core, measured on {arguments.sample} clips: {1000 * result['seconds_per_clip']:.1f} ms and "
          f"{result['bytes_per_clip'] / 1e3:.0f} kB per clip; shards and hours are projected from it")  # fmt: skip
    print(table(rows))
    law = ", ".join(f"{value:g} {key}" for key, value in result["per_million"].items())
    print(f"per million clips, from the longest list: {law}")
    write_json(arguments.output, {"machine": platform.machine(), **result})


def table(rows: list[dict[str, float]]) -> str:
    """Return the rows as a table for the terminal."""
    columns = list(rows[0])
    lines = ["  ".join(f"{name:>10}" for name in columns)]
    lines += ["  ".join(f"{row[name]:>10,}" for name in columns) for row in rows]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
