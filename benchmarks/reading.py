"""Speed of reading batches: shards past HDF5 and in threads, against HDF5 one clip after the other in one thread; and compact shards.

Both read the same clips in the same random order, compare the CRC-32 of each clip, flip half of the frames and roll the log-mels, as
training does, and give the same bytes, which is checked. The reference is how this program read before: h5py, which also verifies
Fletcher-32, then flips by index. Files are in the page cache, so this is the speed of the processor, not of the disk. Repeats are
interleaved and the median of each is reported, so that load on the machine affects all alike.

Compact shards (float16 and JPEG) have the same clips. Their speed is compared with that of the other shards and as many threads, and
their size and accuracy are reported. Frames are smooth noise whose JPEG is about as large as that of real frames, and log-mels are
noise. With `--media`, both come from the videos in a folder, each decoded at several times.

    python benchmarks/reading.py [--clips 1024] [--image-size 256] [--threads 1 2 4 8] [--repeats 5] [--media FOLDER]
        [--output benchmarks/results/reading.json]
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline.common.config import EXACT, AudioSettings, AugmentationSettings, ShardEncoding
from pipeline.common.errors import MediaError
from pipeline.common.files import write_json
from pipeline.common.project import SHARD_PATTERN, shard_path
from pipeline.common.seeding import generator
from pipeline.media.clip import decode_clip
from pipeline.media.log_mel import log_mel as spectrograms_of
from pipeline.media.log_mel import mel_frequencies
from pipeline.model.inference import read_ahead
from pipeline.shards.listing import write_shard_list
from pipeline.shards.reader import ShardSet, shard_digest
from pipeline.shards.writer import ShardWriter
from pipeline.training.augmentation import Changes, draw_changes
from pipeline.training.batches import training_batches

AUDIO = AudioSettings(sample_rate=16_000, clip_seconds=5.0, n_fft=400, hop_length=320, n_mels=64)  # 64 × 251 values
AUGMENTATION = AugmentationSettings(flip=True, shift_cells=0, color_jitter=0.0, roll_audio=True)
BATCH_SIZE = 96
DETAIL = (
    (64, 50),
    (16, 20),
    (4, 9),
    (1, 3),
)  # pixels, and standard deviation of the noise; the JPEG of such a frame has 20 kB
KEY = (0, "train", 1)
COMPACT = ShardEncoding(log_mel="float16", frame_codec="jpeg")
CLIPS_PER_SHARD = 512
DISTINCT = 64  # clips; all others repeat them
CENTERS_S = (0.5, 2.5, 4.5)  # of the clips of each video
TARGET_TWO_CORES, TARGET_SIXTEEN_CORES = 1.6, 4.0
TARGET_GB = 130  # of two million compact clips

Pair = tuple[Tensor, Tensor]
Clips = tuple[np.ndarray, np.ndarray]


def smooth_noise(image_size: int) -> Clips:
    """Return frames with as much detail as those of videos, and log-mels of noise."""
    random = np.random.default_rng(0)
    frames = []
    for _ in range(DISTINCT):
        scales = [random.normal(128, spread, (max(image_size // step, 1),) * 2 + (3,)) for step, spread in DETAIL]
        large = [
            Image.fromarray(each.clip(0, 255).astype(np.uint8)).resize((image_size,) * 2, Image.Resampling.BICUBIC)
            for each in scales
        ]
        frames.append(np.clip(sum(np.asarray(each, float) - 128 for each in large) + 128, 0, 255).astype(np.uint8))
    log_mel = random.normal(-6, 3, (DISTINCT, AUDIO.n_mels, AUDIO.n_frames)).astype(np.float32)
    return np.stack(frames), log_mel


def clips_of_videos(folder: Path, image_size: int) -> Clips:
    """Return frames and log-mels of the videos in a folder, several clips of each."""
    decoded = []
    for path in sorted(folder.iterdir()):
        for center_s in CENTERS_S:
            try:
                decoded.append(
                    decode_clip(
                        video=path,
                        frame=None,
                        audio=None,
                        centre_s=center_s,
                        image_size=image_size,
                        sample_rate=AUDIO.sample_rate,
                        clip_seconds=AUDIO.clip_seconds,
                        time_limit_s=60.0,
                    )
                )
            except MediaError as error:
                print(f"left out: {error}")
    waveforms = torch.from_numpy(np.stack([each.waveform for each in decoded]))
    log_mel = spectrograms_of(waveforms, **AUDIO.model_dump(exclude={"clip_seconds"})).numpy()
    return np.stack([each.frame for each in decoded]), log_mel


def write_shards(folder: Path, clips: Clips, n_clips: int, encoding: ShardEncoding) -> ShardSet:
    """Write shards with `n_clips` clips, which repeat those given."""
    frames, log_mel = clips
    settings = {"fingerprint": "0" * 32, **AUDIO.model_dump(), "image_size": frames.shape[1]}
    mel_hz = mel_frequencies(n_mels=AUDIO.n_mels, sample_rate=AUDIO.sample_rate)
    for index, start in enumerate(range(0, n_clips, CLIPS_PER_SHARD)):
        rows = range(start, min(start + CLIPS_PER_SHARD, n_clips))
        capacity, path = len(rows), shard_path(folder, index)
        writing = ShardWriter.create(
            path, settings=settings, capacity=capacity, mel_hz=mel_hz, n_frames=AUDIO.n_frames, encoding=encoding
        )
        with writing as shard:
            for row in rows:
                place = row % len(frames)
                here = slice(place, place + 1)
                shard.append([f"clip-{row}"], frame=frames[here], log_mel=log_mel[here], source_time_s=np.zeros(1))
    write_shard_list(folder, {path.name: shard_digest(path) for path in sorted(folder.glob(SHARD_PATTERN))})
    return ShardSet.open(folder)


def bytes_per_clip(shards: ShardSet) -> float:
    """Return the size of the files, for each clip."""
    return sum(path.stat().st_size for path in shards.paths) / len(shards)


def accuracy(exact: ShardSet, compact: ShardSet) -> dict[str, float]:
    """Return PSNR of the frames in dB, and the largest error of a log-mel."""
    rows = range(min(len(exact), DISTINCT))
    (frames, log_mel), (stored, stored_log_mel) = exact.read(rows), compact.read(rows)
    error = np.mean((frames.astype(float) - stored) ** 2, axis=(1, 2, 3))
    psnr = 10 * np.log10(255**2 / error)
    return {
        "compact_psnr_mean_db": round(float(psnr.mean()), 1),
        "compact_psnr_min_db": round(float(psnr.min()), 1),
        "compact_log_mel_error": float(np.abs(log_mel - stored_log_mel).max()),
    }


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


def measure(clips: Clips, n_clips: int, threads: Sequence[int], repeats: int) -> dict[str, float]:
    """Return the medians in pairs per second and their ratios to the reference; size, speed and accuracy of compact shards.

    Raises
    ------
    ValueError
        A way gives other bytes than its reference.
    """
    with tempfile.TemporaryDirectory() as name:
        exact = write_shards(Path(name) / "exact", clips, n_clips, EXACT)
        compact = write_shards(Path(name) / "compact", clips, n_clips, COMPACT)
        ways: dict[str, Callable[[], Iterator[Pair]]] = {"hdf5": partial(through_hdf5, exact)}
        ways |= {f"threads_{n}": partial(in_threads, exact, n) for n in threads}
        ways |= {f"compact_threads_{n}": partial(in_threads, compact, n) for n in threads}
        digests = {name: digest(way()) for name, way in ways.items()}
        first = {name: f"compact_threads_{threads[0]}" if name.startswith("compact") else "hdf5" for name in ways}
        if wrong := [name for name, found in digests.items() if found != digests[first[name]]]:
            raise ValueError(f"{wrong[0]}: other bytes than {first[wrong[0]]}")
        medians = {name: statistics.median(rates) for name, rates in pairs_per_second(ways, repeats).items()}
        result = {f"{name}_pairs_per_second": round(rate, 1) for name, rate in medians.items()}
        result |= {f"threads_{n}_ratio": round(medians[f"threads_{n}"] / medians["hdf5"], 2) for n in threads}
        for n in threads:
            ratio = medians[f"compact_threads_{n}"] / medians[f"threads_{n}"]
            result[f"compact_threads_{n}_to_threads_{n}"] = round(ratio, 2)
        for prefix, shards in {"": exact, "compact_": compact}.items():
            size = bytes_per_clip(shards)
            result |= {f"{prefix}bytes_per_clip": round(size), f"{prefix}gb_of_two_million": round(size * 2e6 / 1e9, 1)}
        return result | accuracy(exact, compact)


def pairs_per_second(ways: Mapping[str, Callable[[], Iterator[Pair]]], repeats: int) -> dict[str, list[float]]:
    """Return the rates of each way, which take turns."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            start = time.perf_counter()
            n_pairs = sum(len(frames) for frames, _ in way())
            rates[name].append(n_pairs / (time.perf_counter() - start))
    return rates


def main() -> None:
    """Run, print the table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--clips", type=int, default=1024, help=f"at least {BATCH_SIZE}")
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--media", type=Path, help="folder of videos that the clips come from")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/reading.json"))
    arguments = parser.parse_args()

    size, media = arguments.image_size, arguments.media
    clips = clips_of_videos(media, size) if media else smooth_noise(size)
    result = measure(clips, arguments.clips, arguments.threads, arguments.repeats)

    targets = dict.fromkeys(
        (f"threads_{n}_ratio" for n in arguments.threads),
        f"target: at least {TARGET_TWO_CORES} on 2 cores, {TARGET_SIXTEEN_CORES:g} on 16, with as many threads",
    ) | {"compact_gb_of_two_million": f"target: at most {TARGET_GB}, with frames of 256 × 256"}
    for name, value in result.items():
        print(f"{name:<36}{value:>12.5g}   {targets.get(name, '')}".rstrip())
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "torch": torch.__version__}
    write_json(arguments.output, {"clips": arguments.clips, "image_size": arguments.image_size, **machine, **result})


if __name__ == "__main__":
    main()
