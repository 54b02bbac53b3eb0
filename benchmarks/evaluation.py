"""Evaluation speed including the model: batches and our evaluator against one image at a time.

Both start from shards and boxes and compute the cIoU of each clip: read, encode, response map, upsample to 224×224, min-max,
median, threshold, cIoU. Public code in this field evaluates one image at a time: the model runs on a batch of one, followed by
the scoring loop of `benchmarks/scoring.py`. The net is the demo's from params.yaml with random weights; frames and log-mels are
noise of the demo's size. Repeats are interleaved and the median of each is reported, so that load on the machine affects both
alike. Our evaluator also computes IoU and pointing; the loop does not.

    python benchmarks/evaluation.py [--clips 512] [--repeats 3] [--output benchmarks/results/evaluation.json]
"""

from __future__ import annotations

import pipeline  # noqa: F401  # isort: skip  (before NumPy and torch: it sets how their threads wait)

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scoring import make_input, per_image_loop
from training import write_shards

from pipeline.common.config import IterationSettings, load_params
from pipeline.common.files import write_json
from pipeline.evaluation.response_maps import BATCH_SIZE
from pipeline.manifests.boxes import Box
from pipeline.methods.build import build_method
from pipeline.methods.trained_model import TrainedModel
from pipeline.model.encoders import AudioVisualModel, build_model
from pipeline.scoring.protocols import get_protocol
from pipeline.scoring.score import score
from pipeline.shards.reader import ShardSet

PROTOCOL = "lvs224-median"
TARGET = 1.0
METHOD = build_method(
    "initial",
    IterationSettings(epochs=1, temperature=1.0, learning_rate=1.0, weight_decay=0.0, delta_v=0.5, delta_a=1.0),
)  # Eq. 1


def in_batches(model: AudioVisualModel, shards: ShardSet, boxes: list[Box]) -> list[float]:
    """Evaluate as the stage does; return each clip's cIoU."""
    maps = TrainedModel(model, METHOD).response_maps(shards, batch_size=BATCH_SIZE, device="cpu")
    return score(maps, shards.clip_ids, boxes, get_protocol(PROTOCOL)).ciou.tolist()


def one_at_a_time(model: AudioVisualModel, shards: ShardSet, boxes: list[Box]) -> list[float]:
    """Evaluate one image after the other; return each clip's cIoU."""
    model.eval()
    boxes_of: dict[str, list[Box]] = {}
    for box in boxes:
        boxes_of.setdefault(box.clip_id, []).append(box)
    cious = []
    for index, clip_id in enumerate(shards.clip_ids):
        frames, log_mel = (torch.from_numpy(values) for values in shards.read([index]))
        with torch.no_grad():
            features, audio = model.encode_frames(frames.permute(0, 3, 1, 2)), model.encode_audio(log_mel)
            response = torch.einsum("ndhw,nd->nhw", features, audio).numpy()
        cious += per_image_loop(response, [clip_id], boxes_of[clip_id], median=True)
    return cious


def measure(clips: int, repeats: int, params: Path) -> dict[str, float]:
    """Return the medians in images per second, their ratio, and the largest difference between two cIoUs."""
    torch.manual_seed(0)
    model = build_model(load_params(params).training["demo"].encoder).eval()
    ways: dict[str, Callable[[AudioVisualModel, ShardSet, list[Box]], list[float]]] = {
        "one_at_a_time": one_at_a_time,
        "in_batches": in_batches,
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    cious: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        write_shards(Path(folder), clips)
        shards = ShardSet.open(Path(folder))
        boxes = make_input(shards.clip_ids)[1]
        for _ in range(repeats + 1):  # the first is a warm-up
            for name, way in ways.items():
                start = time.perf_counter()
                cious[name] = way(model, shards, boxes)
                rates[name].append(clips / (time.perf_counter() - start))
    slow, fast = (statistics.median(rates[name][1:]) for name in ways)
    difference = np.abs(np.array(cious["one_at_a_time"]) - np.array(cious["in_batches"])).max()
    return {
        "one_at_a_time_images_per_second": round(slow, 1),
        "in_batches_images_per_second": round(fast, 1),
        "ratio": round(fast / slow, 2),
        "largest_ciou_difference": float(difference),
    }


def main() -> None:
    """Run, print the table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--clips", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/evaluation.json"))
    arguments = parser.parse_args()

    result = measure(arguments.clips, arguments.repeats, arguments.params)

    for name, value in result.items():
        print(f"{name:<36}{value:>12.4g}   {f'target: at least {TARGET}' if name == 'ratio' else ''}".rstrip())
    machine = {"cores": os.cpu_count(), "threads": torch.get_num_threads(), "machine": platform.machine()}
    arguments_used = {"clips": arguments.clips, "repeats": arguments.repeats}
    write_json(arguments.output, {**arguments_used, **machine, "torch": torch.__version__, **result})


if __name__ == "__main__":
    main()
