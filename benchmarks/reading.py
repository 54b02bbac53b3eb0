"""Speed of reading batches: shards past HDF5 and in threads, against HDF5 one clip after the other in one thread.

Both read the same clips in the same random order, compare the CRC-32 of each clip, flip half of the frames and roll the log-mels, as
training does, and give the same bytes, which is checked. The reference is how this program read before: h5py, which also verifies
Fletcher-32, then flips by index. Files are in the page cache, so this is the speed of the processor, not of the disk. Repeats are
interleaved and the median of each is reported, so that load on the machine affects all alike.

    python benchmarks/reading.py [--clips 1024] [--image-size 256] [--threads 1 2 4 8] [--repeats 5] [--output benchmarks/results/reading.json]
"""

from __future__ import annotations

import pipeline  # noqa: F401  # isort: skip  (before NumPy and torch: it sets how their threads wait)

import argparse
import hashlib
import os
import platform
import statistics
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor
from training import write_shards

from pipeline.common.config import AudioSettings, AugmentationSettings
from pipeline.common.files import write_json
from pipeline.common.seeding import generator
from pipeline.model.inference import read_ahead
from pipeline.shards.reader import ShardSet
from pipeline.training.augmentation import Changes, draw_changes
from pipeline.training.batches import training_batches

AUDIO = AudioSettings(sample_rate=16_000, clip_seconds=5.0, n_fft=400, hop_length=320, n_mels=64)  # 64 × 251 values
AUGMENTATION = AugmentationSettings(flip=True, shift_cells=0, color_jitter=0.0, roll_audio=True)
BATCH_SIZE = 96
KEY = (0, "train", 1)
TARGET_TWO_CORES, TARGET_SIXTEEN_CORES = 1.6, 4.0

Pair = tuple[Tensor, Tensor]


def through_hdf5(shards: ShardSet) -> Iterator[Pair]:
    """Yield augmented batches as this program read them before: HDF5 in one thread, which reads ahead."""
    files = [h5py.File(path, "r", locking=False) for path in shards.paths]
    ends = np.cumsum([len(file["crc32"]) for file in files])
    crc32 = np.concatenate([file["crc32"][()] for file in files])
    order = torch.randperm(len(shards), generator=generator(*KEY, "order")).numpy()

    def read(number: int) -> tuple[np.ndarray, np.ndarray]:
        rows = order[number * BATCH_SIZE :][:BATCH_SIZE]
        frames = np.empty((len(rows), shards.image_size, shards.image_size, 3), np.uint8)
        log_mel = np.empty((len(rows), *shards.log_mel_shape), np.float32)
        for frame, spectrum, row in zip(frames, log_mel, rows, strict=True):
            shard = int(np.searchsorted(ends, row, side="right"))
            local = row - (ends[shard - 1] if shard else 0)
            files[shard]["frame"].read_direct(frame, np.s_[local])
            files[shard]["log_mel"].read_direct(spectrum, np.s_[local])
            if zlib.crc32(spectrum.data, zlib.crc32(frame.data)) != crc32[row]:
                raise ValueError(f"clip {row} does not match its checksum")
        changes = draw_changes(
            len(rows), **AUGMENTATION.model_dump(), generator=generator(*KEY, "augmentation", number)
        )
        return flip_by_index(frames, changes), roll_by_index(log_mel, changes)

    for frames, log_mel in read_ahead(read, range(len(shards) // BATCH_SIZE), n_threads=1):
        yield torch.from_numpy(frames).permute(0, 3, 1, 2), torch.from_numpy(log_mel)


def flip_by_index(frames: np.ndarray, changes: Changes) -> np.ndarray:
    """Flip frames (n, H, W, 3) by the flat index of each pixel."""
    places = changes.moved_cells(*frames.shape[1:3])
    return np.take(frames.reshape(-1, 3), places.reshape(-1), axis=0).reshape(frames.shape)


def roll_by_index(log_mel: np.ndarray, changes: Changes) -> np.ndarray:
    """Roll log-mels (n, mel, time) by the index of each time step."""
    length = log_mel.shape[2]
    steps = np.floor(changes.roll * length).astype(np.int64)
    return np.take_along_axis(log_mel, ((np.arange(length) - steps[:, None]) % length)[:, None, :], axis=2)


def in_threads(shards: ShardSet, n_threads: int) -> Iterator[Pair]:
    """Yield the batches of training, read in threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)  # decides how many threads read
    try:
        for batch in training_batches(
            shards,
            batch_size=BATCH_SIZE,
            augmentation=AUGMENTATION,
            cell_stride=16,
            key=KEY,
            previous=None,
            device=torch.device("cpu"),
        ):
            yield batch.frames, batch.log_mel
    finally:
        torch.set_num_threads(before)


def digest(batches: Iterator[Pair]) -> str:
    """Return a digest of the first batches."""
    found = hashlib.sha256()
    for frames, log_mel in (pair for pair, _ in zip(batches, range(3), strict=False)):
        found.update(frames.contiguous().numpy().tobytes() + log_mel.numpy().tobytes())
    return found.hexdigest()


def measure(n_clips: int, image_size: int, threads: Sequence[int], repeats: int) -> dict[str, float]:
    """Return the medians in pairs per second, and their ratio to the reference.

    Raises
    ------
    ValueError
        A way gives other bytes than the reference.
    """
    ways: dict[str, Callable[[ShardSet], Iterator[Pair]]] = {"hdf5": through_hdf5}
    ways |= {f"threads_{n}": partial(in_threads, n_threads=n) for n in threads}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_shards(folder, n_clips, image_size=image_size, audio=AUDIO)
        shards = ShardSet.open(folder)
        digests = {name: digest(way(shards)) for name, way in ways.items()}
        if wrong := [name for name, found in digests.items() if found != digests["hdf5"]]:
            raise ValueError(f"{wrong[0]}: other bytes than through HDF5")
        for _ in range(repeats):
            for name, way in ways.items():
                start = time.perf_counter()
                n_pairs = sum(len(frames) for frames, _ in way(shards))
                rates[name].append(n_pairs / (time.perf_counter() - start))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    result = {f"{name}_pairs_per_second": round(rate, 1) for name, rate in medians.items()}
    return result | {f"{name}_ratio": round(medians[name] / medians["hdf5"], 2) for name in list(ways)[1:]}


def main() -> None:
    """Run, print the table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--clips", type=int, default=1024, help=f"at least {BATCH_SIZE}")
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/reading.json"))
    arguments = parser.parse_args()

    result = measure(arguments.clips, arguments.image_size, arguments.threads, arguments.repeats)

    target = f"target: at least {TARGET_TWO_CORES} on 2 cores, {TARGET_SIXTEEN_CORES:g} on 16, with as many threads"
    for name, value in result.items():
        print(f"{name:<28}{value:>12.5g}   {target if name.endswith('ratio') else ''}".rstrip())
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "torch": torch.__version__}
    write_json(arguments.output, {"clips": arguments.clips, "image_size": arguments.image_size, **machine, **result})


if __name__ == "__main__":
    main()
