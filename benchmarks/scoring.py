"""Scoring speed: our evaluator against the per-image loop of public code in this field.

Both start from raw 14×14 maps and boxes in memory and include building the ground truth, which public code does inside its
loop: upsample to 224×224, min-max, sort (for the median rule), threshold, cIoU. Both run on one thread, which is fastest for
the loop's resize. Repeats are interleaved and the median CPU time is reported, so that other processes do not distort the
result. Our evaluator also computes IoU and pointing; the loop does not.

    python benchmarks/scoring.py [--clips 5000] [--repeats 5] [--output benchmarks/results/scoring.json]
"""

from __future__ import annotations

import pipeline  # noqa: F401  # isort: skip  (before NumPy and torch: it sets how their threads wait)

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.common.files import write_json
from pipeline.manifests.boxes import Box
from pipeline.scoring.protocols import PROTOCOLS, get_protocol
from pipeline.scoring.score import score, score_all

SIZE = 224
Result = TypeVar("Result")
RULES = {"fixed threshold": "sspl224", "median": "lvs224-median"}
TARGETS = {"fixed threshold": 5.0, "median": 2.5}


def make_input(clip_ids: list[str], *, seed: int = 0) -> tuple[NDArray[np.float32], list[Box]]:
    """Return random maps, and for each clip the boxes of three annotators on whole pixels of a 256×256 frame."""
    generator = np.random.default_rng(seed)
    maps = generator.random((len(clip_ids), 14, 14), dtype=np.float32)
    boxes = []
    for clip_id in clip_ids:
        x, y, width, height = generator.integers((0, 0, 80, 80), (70, 70, 170, 170))
        for annotator in "abc":
            dx, dy = generator.integers(0, 16, size=2)
            corners = (x + dx, y + dy, x + dx + width, y + dy + height)
            boxes.append(Box(clip_id, "annotators", annotator, True, *(float(c) / 256 for c in corners)))
    return maps, boxes


def per_image_loop(maps: NDArray[np.float32], clip_ids: list[str], boxes: list[Box], *, median: bool) -> list[float]:
    """Score one image at a time on float64 grids, as public scripts do."""
    pixels: dict[str, list[tuple[int, ...]]] = {}
    for box in boxes:
        edges = (int(SIZE * (round(256 * edge) + 1) / 256) for edge in (box.x0, box.y0, box.x1, box.y1))
        pixels.setdefault(box.clip_id, []).append(tuple(edges))
    cious = []
    for cells, clip_id in zip(maps, clip_ids, strict=True):
        consensus = np.zeros((SIZE, SIZE))
        for xmin, ymin, xmax, ymax in pixels[clip_id]:
            one = np.zeros((SIZE, SIZE))
            one[ymin:ymax, xmin:xmax] = 1
            consensus += one
        consensus /= 2
        consensus[consensus > 1] = 1
        upsampled = torch.nn.functional.interpolate(
            torch.from_numpy(cells)[None, None], size=(SIZE, SIZE), mode="bilinear"
        )
        response = upsampled[0, 0].numpy()
        response = (response - response.min()) / (response.max() - response.min())
        region = np.zeros((SIZE, SIZE))
        if median:
            region[response > np.sort(response.flatten())[SIZE * SIZE // 2]] = 1
        else:
            region[response >= 0.5] = 1
        union = np.sum(consensus) + np.sum(region * (consensus == 0))
        cious.append(np.sum(region * consensus) / union)
    return cious


def timed(function: Callable[[], Result]) -> tuple[float, Result]:
    """Return the CPU seconds and the result of one call."""
    start = time.process_time()
    result = function()
    return time.process_time() - start, result


def compare(n_clips: int, repeats: int) -> list[dict[str, object]]:
    """Time both for each rule, and all protocols in one pass against one pass per protocol."""
    clip_ids = [f"clip_{k:05d}" for k in range(n_clips)]
    maps, boxes = make_input(clip_ids)
    rows = []
    for rule, name in RULES.items():
        protocol = get_protocol(name)
        seconds: dict[str, list[float]] = {"loop": [], "evaluator": []}
        for _ in range(repeats):
            spent, reference = timed(partial(per_image_loop, maps, clip_ids, boxes, median=rule == "median"))
            seconds["loop"].append(spent)
            spent, scores = timed(partial(score, maps, clip_ids, boxes, protocol))
            seconds["evaluator"].append(spent)
        difference = float(np.abs(np.array(reference) - scores.ciou).max())
        rows.append(row(rule, seconds["loop"], seconds["evaluator"], n_clips, TARGETS[rule], difference))
    apart, together = [], []
    few = slice(0, max(1, n_clips // 10))
    subset = maps[few], clip_ids[few], boxes[: 3 * len(clip_ids[few])]
    for _ in range(repeats):
        apart.append(timed(lambda: [score(*subset, protocol) for protocol in PROTOCOLS.values()])[0])
        together.append(timed(lambda: score_all(*subset, PROTOCOLS.values()))[0])
    rows.append(
        row(f"all {len(PROTOCOLS)} protocols, one by one and together", apart, together, len(subset[0]), 1.0, 0.0)
    )
    return rows


def row(
    name: str, reference: list[float], ours: list[float], n_clips: int, target: float, difference: float
) -> dict[str, object]:
    """Return one row of the table: medians in ms per map, their ratio, and the largest difference between two cIoUs."""
    slow, fast = (1e3 * statistics.median(values) / n_clips for values in (reference, ours))
    return {
        "what": name,
        "reference_ms_per_map": round(slow, 4),
        "evaluator_ms_per_map": round(fast, 4),
        "ratio": round(slow / fast, 2),
        "target_ratio": target,
        "largest_ciou_difference": difference,
    }


def main() -> None:
    """Run, print the table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--clips", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/scoring.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    rows = compare(arguments.clips, arguments.repeats)

    print(f"{'':<44}{'reference':>12}{'evaluator':>12}{'ratio':>8}{'target':>8}{'max |ΔcIoU|':>14}")
    for line in rows:
        print(
            f"{line['what']:<44}{line['reference_ms_per_map']:>9} ms{line['evaluator_ms_per_map']:>9} ms"
            f"{line['ratio']:>8}{line['target_ratio']:>8}{line['largest_ciou_difference']:>14.1e}"
        )
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "numpy": np.__version__}
    write_json(arguments.output, {"clips": arguments.clips, "repeats": arguments.repeats, **machine, "rows": rows})


if __name__ == "__main__":
    main()
