"""Measure how strongly a model responds to what belongs to a frame, and to what does not.

Three kinds of sound stand for "nothing here makes it": the sound of another clip, hiss (white noise) and mains hum. The last
two are made here, another for each frame, so that the share of them that "not found" catches is known and not assumed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

from pipeline.common.config import AudioSettings
from pipeline.common.seeding import evenly_spaced
from pipeline.evaluation.calibration import Calibration, model_digest
from pipeline.evaluation.response_maps import BATCH_SIZE, compute_maps, load_model_for
from pipeline.media.log_mel import log_mel_of_windows
from pipeline.model.inference import select_device
from pipeline.scoring.map_file import ResponseMaps
from pipeline.shards.reader import ShardSet

MAX_NOISE_CLIPS = 256  # ours: a share of them is known to 3 points
HARMONICS = 10


def hiss(n_samples: int, sample_rate: int, generator: np.random.Generator) -> np.ndarray:
    """White noise, float64 (sample,)."""
    return generator.standard_normal(n_samples)


def hum(n_samples: int, sample_rate: int, generator: np.random.Generator) -> np.ndarray:
    """Mains hum, float64 (sample,): 50 or 60 Hz with ten harmonics, falling as 1/k, at random phases."""
    order = np.arange(1, HARMONICS + 1)[:, None]
    frequency = order * generator.choice([50.0, 60.0])
    turns = frequency * np.arange(n_samples) / sample_rate + generator.random((HARMONICS, 1))
    audible = frequency < sample_rate / 2
    return np.asarray((np.sin(2 * np.pi * turns) * audible / order).sum(axis=0))


NOISES: Mapping[str, Callable[[int, int, np.random.Generator], np.ndarray]] = {"hiss": hiss, "hum": hum}


def calibrate(path: Path, shards: ShardSet, *, split: str, device: str = "auto") -> Calibration:
    """Measure a model on a split, for which no boxes are needed. Arguments and errors: `pipeline.evaluation.response_maps.compute_maps`."""
    return calibrate_on(compute_maps(path, shards, split=split, seed=0, device=device), path, shards, device=device)


def calibrate_on(maps: ResponseMaps, path: Path, shards: ShardSet, *, device: str = "auto") -> Calibration:
    """Measure a model whose response maps on the same clips are known already."""
    return Calibration.of(
        _peaks(maps.response),
        {"shuffled": _peaks(maps.shuffled_response), **noise_peaks(path, shards, device=device)},
        model=model_digest(path),
        split=maps.split,
    )


def noise_peaks(path: Path, shards: ShardSet, *, device: str = "auto") -> dict[str, np.ndarray]:
    """Return the largest raw response of frames that are given a noise instead of their sound, for each noise.

    Parameters
    ----------
    path : Path
        ``model.pt``.
    shards : ShardSet
        Of which at most `MAX_NOISE_CLIPS`, in equal steps, are taken. What a frame is given depends on its place among them.
    device : str

    Returns
    -------
    dict of str to np.ndarray (frame,) float32
        By the names of `NOISES`.

    Raises
    ------
    CheckpointError, EvaluationError, TrainingError
        The model cannot be read; the clips were extracted in another way; there is no such device.
    """
    model = load_model_for(path, shards)
    where = select_device(device)
    model.to(where)
    audio = AudioSettings(**model.description["audio"])
    rows = evenly_spaced(len(shards), MAX_NOISE_CLIPS)
    peaks: dict[str, list[np.ndarray]] = {name: [] for name in NOISES}
    for start in range(0, len(rows), BATCH_SIZE):
        some = rows[start : start + BATCH_SIZE]
        frames = torch.from_numpy(shards.read(some)[0]).permute(0, 3, 1, 2).to(where)  # n H W c -> n c H W
        for name, make in NOISES.items():
            numbers = range(start, start + len(some))
            windows = [make(audio.n_samples, audio.sample_rate, np.random.default_rng(number)) for number in numbers]
            response, _ = model.localize(frames, log_mel_of_windows(windows, audio).to(where))
            peaks[name].append(_peaks(response.float().cpu().numpy()))
    return {name: np.concatenate(parts) for name, parts in peaks.items()}


def _peaks(maps: np.ndarray) -> np.ndarray:
    return np.asarray(maps.max(axis=(1, 2)))
