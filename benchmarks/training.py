"""Training speed: batches from shards against the same training steps on batches in memory.

The net, batch size and augmentation are the demo's from params.yaml, and the objective is Eq. 7. Frames and log-mels are noise of the
demo's size in real shards. "From shards" includes everything: reading, checksums, augmentation of frames and pseudo-labels, the step.
"In memory" is the step alone, on batches that were augmented before. Passes are interleaved and the median of each is reported, so
that load on the machine affects both alike. The data wait is the share of training time spent waiting for the next batch, including
color jitter, augmentation of the maps, and Eq. 6. The pseudo-label pass over all clips, including writing and reading the artifact,
is timed after each training pass.

    python benchmarks/training.py [--clips 1024] [--passes 3] [--output benchmarks/results/training.json]
"""

from __future__ import annotations

import pipeline  # noqa: F401  # isort: skip  (before NumPy and torch: it sets how their threads wait)

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch

from pipeline.common.config import AudioSettings, IterationSettings, TrainingSettings, load_params
from pipeline.common.files import write_json
from pipeline.common.project import SHARD_PATTERN, shard_path
from pipeline.methods.base import Batch, Method
from pipeline.methods.build import build_method, method_settings
from pipeline.methods.trained_model import TrainedModel
from pipeline.model.encoders import AudioVisualModel, build_model
from pipeline.pseudo_labels.artifact import PseudoLabels, write_pseudo_labels
from pipeline.shards.listing import write_shard_list
from pipeline.shards.reader import ShardSet, shard_digest
from pipeline.shards.writer import ShardWriter
from pipeline.training.batches import PreviousEpoch, training_batches
from pipeline.training.history import Waited

IMAGE_SIZE = 128
AUDIO = AudioSettings(sample_rate=16_000, clip_seconds=1.0, n_fft=400, hop_length=160, n_mels=64)
CPU = torch.device("cpu")
METHOD = build_method(
    "initial", IterationSettings(epochs=1, temperature=1, learning_rate=1, weight_decay=0, delta_v=0.5, delta_a=1)
)  # Eq. 1


def write_shards(
    folder: Path,
    n_clips: int,
    *,
    clips_per_shard: int = 512,
    image_size: int = IMAGE_SIZE,
    audio: AudioSettings = AUDIO,
) -> None:
    """Write shards of noise."""
    generator = np.random.default_rng(0)
    settings = {"fingerprint": "0" * 32, **audio.model_dump(), "image_size": image_size}
    mel_hz = np.linspace(0, audio.sample_rate / 2, audio.n_mels)
    starts = range(0, n_clips, clips_per_shard)
    for index, start in enumerate(starts):
        clip_ids = [f"clip-{i:06d}" for i in range(start, min(start + clips_per_shard, n_clips))]
        n = len(clip_ids)
        with ShardWriter.create(
            shard_path(folder, index),
            settings=settings,
            capacity=n,
            mel_hz=mel_hz,
            n_frames=audio.n_frames,
        ) as shard:
            shard.append(
                clip_ids,
                frame=generator.integers(0, 256, (n, image_size, image_size, 3), dtype=np.uint8),
                log_mel=generator.normal(-6, 2, (n, audio.n_mels, audio.n_frames)).astype(np.float32),
                source_time_s=np.zeros(n),
            )
    write_shard_list(folder, {path.name: shard_digest(path) for path in sorted(folder.glob(SHARD_PATTERN))})


def label(model: AudioVisualModel, shards: ShardSet, path: Path, *, batch_size: int, delta_v: float) -> PseudoLabels:
    """Label all clips, write the artifact and read it back."""
    response, audio = TrainedModel(model, METHOD).predict(shards, batch_size=batch_size, device=CPU)
    attrs = {"epoch": 0, "stage": "train", "objective": "iterative", "delta_v": delta_v}
    attrs |= {"delta_a": 0.9, "temperature": 0.3, "fingerprint": "", "shards": shards.fingerprint}
    write_pseudo_labels(path, PseudoLabels.from_responses(shards.clip_ids, response, audio, **attrs))
    return PseudoLabels.open(path)


def train(model: AudioVisualModel, method: Method, optimizer: torch.optim.Optimizer, batches: Iterable[Batch]) -> float:
    """Take a step on every batch and return the elapsed seconds, including those for loading the batches."""
    model.train()
    start = time.perf_counter()
    for batch in batches:
        loss = method.loss(model, batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        loss.item()
    return time.perf_counter() - start


def measure(settings: TrainingSettings, folder: Path, *, clips: int, passes: int) -> dict[str, object]:
    """Return the medians."""
    write_shards(folder / "shards", clips)
    shards = ShardSet.open(folder / "shards")
    iteration = method_settings(settings, "iterative")
    torch.manual_seed(0)
    model = build_model(settings.encoder)
    method = build_method("iterative", iteration)
    optimizer = torch.optim.AdamW(model.parameters(), lr=iteration.learning_rate)
    seconds: dict[str, list[float]] = {"shards": [], "memory": [], "waiting": [], "labels": []}
    labels = label(model, shards, folder / "epoch.h5", batch_size=settings.batch_size, delta_v=iteration.delta_v)

    def batches(purpose: str, number: int) -> Iterator[Batch]:
        return training_batches(
            shards,
            batch_size=settings.batch_size,
            augmentation=settings.augmentation,
            cell_stride=model.cell_stride,
            key=(purpose, number),
            previous=PreviousEpoch.of(labels, shards, delta_a=iteration.delta_a, center_audio=iteration.center_audio),
            device=CPU,
        )

    for number in range(passes + 1):  # the first is a warm-up
        timed = Waited(batches("shards", number))
        seconds["shards"].append(train(model, method, optimizer, timed))
        seconds["waiting"].append(timed.seconds)
        kept = list(batches("memory", number))
        seconds["memory"].append(train(model, method, optimizer, kept))
        start = time.perf_counter()
        labels = label(model, shards, folder / "epoch.h5", batch_size=settings.batch_size, delta_v=iteration.delta_v)
        seconds["labels"].append(time.perf_counter() - start)
    median = {name: statistics.median(values[1:]) for name, values in seconds.items()}
    pairs = clips // settings.batch_size * settings.batch_size
    return {
        "pairs_per_second_from_shards": round(pairs / median["shards"], 1),
        "pairs_per_second_in_memory": round(pairs / median["memory"], 1),
        "ratio_of_times": round(median["shards"] / median["memory"], 3),
        "data_wait_fraction": round(median["waiting"] / median["shards"], 4),
        "label_pass_fraction": round(median["labels"] / (median["shards"] + median["labels"]), 3),
    }


def main() -> None:
    """Run, print the table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--clips", type=int, default=1024)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/training.json"))
    arguments = parser.parse_args()

    settings = load_params(arguments.params).training["demo"]
    with tempfile.TemporaryDirectory() as folder:
        result = measure(settings, Path(folder), clips=arguments.clips, passes=arguments.passes)

    targets = {"ratio_of_times": "≤ 1.1", "data_wait_fraction": "< 0.05", "label_pass_fraction": "< 0.4"}
    for name, value in result.items():
        print(f"{name:<32}{value:>10}   {targets.get(name, '')}")
    machine = {"cores": os.cpu_count(), "threads": torch.get_num_threads(), "machine": platform.machine()}
    arguments_used = {"clips": arguments.clips, "passes": arguments.passes}
    write_json(arguments.output, {**arguments_used, **machine, "torch": torch.__version__, **result})


if __name__ == "__main__":
    main()
