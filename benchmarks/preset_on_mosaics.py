"""What the paper's preset learns from real photographs and recordings, and what it learns with bare encoders.

Each frame is a 2×2 mosaic of four photographs of different classes, and its audio is a recording of one of them. The box is the sounding
quadrant. A quarter of each class's photographs and recordings is in test mosaics only. The block `soundnet_flickr` of params.yaml is
trained twice, with Eq. 3 and then with Eq. 7: as it is, and with encoders without projection, BatchNorm and replicated borders, and with
max-pooled audio. The chance levels are the border's share of the cells, and a quarter for pointing.

    python benchmarks/preset_on_mosaics.py --photos FOLDER --sounds FOLDER --weights FILE [--train 320] [--test 200] [--epochs 3]
        [--iterations 1] [--batch-size 32] [--seeds 0] [--output benchmarks/results/preset_on_mosaics.json]

Both folders have one folder per class, with the same names. The weights are a torchvision ResNet-18. Without `--photos`, nothing is measured.
"""

from __future__ import annotations

import pipeline  # noqa: F401  # isort: skip  (before NumPy and torch: it sets how their threads wait)

import argparse
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from pipeline.common.config import AudioSettings, TrainingSettings, load_params
from pipeline.common.files import write_json
from pipeline.common.project import MODEL_FILE, SHARD_PATTERN, seed_folder, shard_path
from pipeline.manifests.boxes import Box
from pipeline.media.clip import read_audio, read_frame
from pipeline.media.log_mel import log_mel_of_windows, mel_frequencies
from pipeline.scoring.protocols import get_protocol
from pipeline.scoring.score import score, summarize
from pipeline.shards.listing import write_shard_list
from pipeline.shards.reader import ShardSet, shard_digest
from pipeline.shards.writer import ShardWriter
from pipeline.training.checkpoints import load_model
from pipeline.training.diagnostics import border_peaks, mean_cosine
from pipeline.training.train import initialize, train

AUDIO = AudioSettings(sample_rate=16_000, clip_seconds=2.0, n_fft=640, hop_length=320, n_mels=64)
PHOTO = 64  # pixels; a mosaic has twice as many on each side
SECONDS = 5.0  # windows are drawn from this much of a recording
BARE = {"embedding_dim": None, "batch_norm": False, "audio_pooling": "max"}
COLUMNS = ("border_train", "border", "audio_cosine", "pointing_train", "pointing", "success", "auc")
Files = dict[str, list[Path]]  # by class
Splits = Mapping[str, tuple[ShardSet, list[Box]]]


def split_files(folder: Path) -> dict[str, Files]:
    """Return the files of each class, three quarters for training and the rest for test, drawn from a fixed seed."""
    parts: dict[str, Files] = {"train": {}, "test": {}}
    for of_class in sorted(path for path in folder.iterdir() if path.is_dir()):
        files = sorted(path for path in of_class.iterdir() if path.is_file())
        files, cut = [files[i] for i in np.random.default_rng(0).permutation(len(files))], len(files) * 3 // 4
        parts["train"][of_class.name], parts["test"][of_class.name] = files[:cut], files[cut:]
    return parts


def mosaic(photos: Files, sounds: Files, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray, int]:
    """Return a frame (row, col, channel), its waveform (sample,), and the sounding quadrant in reading order."""
    classes, quadrant = generator.permutation(sorted(photos))[:4], int(generator.integers(4))
    parts = [read_frame(Path(generator.choice(photos[name])), image_size=PHOTO) for name in classes]
    path, length = Path(generator.choice(sounds[classes[quadrant]])), AUDIO.n_samples
    recording = read_audio(path, centre_s=SECONDS / 2, clip_seconds=SECONDS, sample_rate=AUDIO.sample_rate)
    starts = generator.integers(0, len(recording) - length, 5)  # the loudest of five: recordings have long pauses
    window = max((recording[start : start + length] for start in starts), key=lambda samples: float(samples @ samples))
    frame = np.concatenate([np.concatenate(parts[:2], axis=1), np.concatenate(parts[2:], axis=1)])
    return frame, window + generator.normal(0, 1.0e-4, length), quadrant  # with noise, no window is digital silence


def write_mosaics(folder: Path, photos: Files, sounds: Files, n: int, *, seed: int) -> tuple[ShardSet, list[Box]]:
    """Write n mosaics as one shard; return it and the boxes of the sounding quadrants."""
    folder.mkdir()
    generator = np.random.default_rng(seed)
    frames, waveforms, quadrants = zip(*(mosaic(photos, sounds, generator) for _ in range(n)), strict=True)
    ids = [f"{folder.name}-{i:05d}" for i in range(n)]
    corners = [(quadrant % 2 / 2, quadrant // 2 / 2) for quadrant in quadrants]
    boxes = [Box(i, "sound", "mosaic", True, x, y, x + 0.5, y + 0.5) for i, (x, y) in zip(ids, corners, strict=True)]
    settings = {"fingerprint": f"{seed:032d}", **AUDIO.model_dump(), "image_size": 2 * PHOTO}
    mel_hz = mel_frequencies(n_mels=AUDIO.n_mels, sample_rate=AUDIO.sample_rate)
    path, shape = shard_path(folder, 0), {"capacity": n, "mel_hz": mel_hz, "n_frames": AUDIO.n_frames}
    with ShardWriter.create(path, settings=settings, **shape) as shard:
        log_mels = log_mel_of_windows(waveforms, AUDIO).numpy()
        shard.append(ids, frame=np.stack(frames), log_mel=log_mels, source_time_s=np.zeros(n))
    write_shard_list(folder, {path.name: shard_digest(path) for path in sorted(folder.glob(SHARD_PATTERN))})
    return ShardSet.open(folder), boxes


def measure(model: Path, splits: Splits) -> list[float]:
    """Return `COLUMNS`: percentages, except for the mean cosine between the audio embeddings of two test clips."""
    values = {}
    for split, suffix in (("train", "_train"), ("test", "")):
        shards, boxes = splits[split]
        maps, audio = load_model(model).predict(shards, batch_size=32)
        scores = summarize(score(maps, shards.clip_ids, boxes, get_protocol("paper256")))
        values |= {f"border{suffix}": 100 * border_peaks(maps), f"pointing{suffix}": 100 * scores["pointing_accuracy"]}
    values |= {"success": 100 * scores["success_rate"], "auc": 100 * scores["auc"], "audio_cosine": mean_cosine(audio)}
    return [values[name] for name in COLUMNS]


def measure_preset(settings: TrainingSettings, splits: Splits, folder: Path, seeds: list[int]) -> dict[str, object]:
    """Train with Eq. 3, then with Eq. 7; return the means of `COLUMNS` over the seeds after each."""
    shards, stages = splits["train"][0], {"Eq. 3": folder / "initialize", "then Eq. 7": folder / "iterative"}
    initialize(shards, stages["Eq. 3"], settings=settings, seeds=seeds)
    train(shards, stages["Eq. 3"], stages["then Eq. 7"], method="iterative", settings=settings, seeds=seeds)
    result = {}
    for stage, path in stages.items():
        values = [measure(seed_folder(path, seeds, seed) / MODEL_FILE, splits) for seed in seeds]
        result[stage] = dict(zip(COLUMNS, np.mean(values, axis=0).round(3).tolist(), strict=True))
    return result


def main(words: Sequence[str] | None = None) -> None:
    """Run, print the table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--sounds", type=Path)
    parser.add_argument("--weights", help="default: random weights")
    for name, default in (("train", 320), ("test", 200), ("epochs", 3), ("iterations", 1), ("batch-size", 32)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/preset_on_mosaics.json"))
    arguments = parser.parse_args(words)
    if arguments.photos is None or arguments.sounds is None:
        parser.exit(0, "nothing measured: give --photos and --sounds\n")

    preset = load_params(Path("params.yaml")).training["soundnet_flickr"].model_dump()
    preset["batch_size"] = arguments.batch_size
    preset["initialize"]["epochs"], preset["iterate"]["epochs"] = arguments.epochs, arguments.iterations
    preset["encoder"]["visual"]["weights"] = arguments.weights
    zeros = {"visual": {**preset["encoder"]["visual"], "padding": "zeros"}}
    bare = {**preset, "encoder": {**preset["encoder"], **BARE, **zeros}}
    photos, sounds, result = split_files(arguments.photos), split_files(arguments.sounds), {}
    with tempfile.TemporaryDirectory() as folder:
        splits = {}
        for seed, (split, n) in enumerate((("train", arguments.train), ("test", arguments.test))):
            splits[split] = write_mosaics(Path(folder, split), photos[split], sounds[split], n, seed=seed)
        for name, block in (("preset", preset), ("bare", bare)):
            result[name] = measure_preset(TrainingSettings(**block), splits, Path(folder, name), arguments.seeds)

    print(f"{'':<26}" + "".join(f"{name:>16}" for name in COLUMNS))
    for name, stage in ((name, stage) for name, stages in result.items() for stage in stages):
        print(f"{f'{name}, {stage}':<26}" + "".join(f"{value:>16.3g}" for value in result[name][stage].values()))
    sizes = {name: value for name, value in vars(arguments).items() if isinstance(value, int | list)}
    write_json(arguments.output, {**sizes, "cores": os.cpu_count(), "torch": torch.__version__, **result})


if __name__ == "__main__":
    main()
