"""The real stages on a few synthetic batches: how long a pair takes on this machine, and how much memory a batch.

Conventions
-----------
Times are wall-clock s, memory is bytes. Frames and spectrograms are noise of the right shape: time and memory do not
depend on what is in them. The rehearsal runs `pipeline.training.loop` itself, in a temporary folder, so whatever a
method does in an epoch is in the figures. The first epoch, in which libraries warm up, is not counted.
"""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from pipeline.apps.preflight.findings import StageTime
from pipeline.apps.preflight.memory import peak, reset_peak
from pipeline.common.config import Params, TrainingSettings
from pipeline.common.files import write_csv
from pipeline.common.project import CLIPS_FILE, INITIAL_RUN, TIMINGS_FILE
from pipeline.datasets.prepare import SplitCoverage
from pipeline.manifests.clips import CLIP_COLUMNS, TRAIN_SPLIT
from pipeline.methods import method_settings
from pipeline.shards.reader import ShardSet
from pipeline.training.loop import initialize, train
from pipeline.training.plan import twin_method
from pipeline.training.run_folder import kept_epochs

_WARM_UP = 1  # epochs of the rehearsal of `initialize` that are not counted


@dataclass(frozen=True)
class Pace:
    """How fast one stage went.

    Attributes
    ----------
    pair_seconds : float
        s of training for each pair.
    label_seconds : float
        s of a pass without gradient for each clip.
    """

    pair_seconds: float
    label_seconds: float


@dataclass(frozen=True)
class Rehearsal:
    """What the rehearsal found.

    Attributes
    ----------
    paces : dict of str to Pace
        "initialize" and each method.
    peak_bytes : int
        Most memory in use: of this process on a CPU, of the device's tensors on CUDA.
    """

    paces: dict[str, Pace]
    peak_bytes: int


class SyntheticShards:
    """The part of `ShardSet` that training uses, with noise in it. One batch is held, whatever the number of clips."""

    def __init__(self, n_clips: int, *, held: int, image_size: int, log_mel_shape: tuple[int, int]) -> None:
        random = np.random.default_rng(0)
        self._frames = random.integers(0, 256, (held, image_size, image_size, 3), dtype=np.uint8)
        self._log_mel = random.normal(-6, 3, (held, *log_mel_shape)).astype(np.float32)
        self.clip_ids = [f"synthetic-{i:06d}" for i in range(n_clips)]
        self.image_size, self.log_mel_shape = image_size, log_mel_shape
        self.settings: dict[str, Any] = {}
        self.fingerprint = "synthetic"

    def __len__(self) -> int:
        return len(self.clip_ids)

    def read(self, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return frames (n, row, col, channel) uint8 and log-mels (n, mel, time) float32."""
        rows = np.asarray(indices) % len(self._frames)
        return self._frames[rows], self._log_mel[rows]


def rehearse(
    settings: TrainingSettings,
    methods: Sequence[str],
    *,
    image_size: int,
    log_mel_shape: tuple[int, int],
    n_batches: int,
    device: torch.device,
    tell: Callable[[str], None],
) -> Rehearsal:
    """Initialize, then train each method for one epoch of `n_batches` synthetic batches.

    Parameters
    ----------
    settings : TrainingSettings
        Published weights are not read: they change neither time nor memory.
    methods : sequence of str
    image_size : int
        Pixels.
    log_mel_shape : tuple of int
        (mel, time).
    n_batches : int
    device : torch.device
    tell : callable
        Is given the name of each stage as it begins.

    Raises
    ------
    torch.OutOfMemoryError
        A batch does not fit into the device's memory.
    """
    size = settings.batch_size
    made = SyntheticShards(size * n_batches, held=size, image_size=image_size, log_mel_shape=log_mel_shape)
    shards = cast(ShardSet, made)
    settings = _short(settings)
    reset_peak(device)
    paces = {}
    with tempfile.TemporaryDirectory(prefix="soundspot-check-") as name:
        initial = Path(name) / INITIAL_RUN
        tell("initialize")
        with redirect_stderr(io.StringIO()):
            initialize(shards, initial, settings=settings, seeds=[0], device=str(device))
        clips = Path(name) / CLIPS_FILE
        _write_labels(clips, shards.clip_ids)
        for method in methods:
            tell(method)
            folder = Path(name) / method / "run"  # by itself, so that no twin is found whose weights would serve
            with redirect_stderr(io.StringIO()):
                train(
                    shards,
                    initial,
                    folder,
                    method=method,
                    settings=settings,
                    seeds=[0],
                    clips=clips,
                    device=str(device),
                )
            paces[method] = _pace(folder / TIMINGS_FILE, len(shards))
        first = _pace(initial / TIMINGS_FILE, len(shards))
    return Rehearsal({"initialize": first, **paces}, peak(device))


def stage_times(
    rehearsal: Rehearsal,
    clips: Mapping[str, SplitCoverage],
    *,
    params: Params,
    settings: TrainingSettings,
    methods: Sequence[str],
) -> list[StageTime]:
    """Reckon from the paces of a rehearsal how long each stage will take.

    Parameters
    ----------
    rehearsal : Rehearsal
        Of these methods.
    clips : mapping of str to SplitCoverage
        Clips that are there, by split.
    params : Params
        Its seeds, and the split that it scores.
    settings : TrainingSettings
        Its epochs and the size of a batch.
    methods : sequence of str

    Returns
    -------
    list of StageTime
        The initialization, each method, and the maps of each.
    """
    n_train, n_scored = (clips[s].found if s in clips else 0 for s in (TRAIN_SPLIT, params.score_split))
    n_pairs = n_train // settings.batch_size * settings.batch_size
    n_seeds = len(params.seeds)
    times = []
    for stage in ("initialize", *methods):
        pace = rehearsal.paces[stage]
        first = stage == "initialize"
        epochs = settings.initialize.epochs if first else method_settings(settings, stage).epochs
        epoch, label = n_pairs * pace.pair_seconds, n_train * pace.label_seconds
        if not first and _takes_weights(settings, stage, methods):
            epoch = 0.0
        # The initialization labels once, every other stage after each epoch.
        total = n_seeds * (epochs * epoch + (1 if first else epochs) * label)
        times.append(StageTime(stage, n_seeds * epochs, epoch, label, total))
    passes = 2 * n_seeds * n_scored  # own sounds and shuffled ones
    for stage in methods:
        label = rehearsal.paces[stage].label_seconds
        times.append(StageTime(f"maps of {stage}", 0, 0.0, 0.0, passes * label))
    return times


def _takes_weights(settings: TrainingSettings, method: str, methods: Sequence[str]) -> bool:
    """Tell whether a method will not train, but label with the weights that one before it keeps of every epoch."""
    own = method_settings(settings, method)
    all_kept = kept_epochs(own.epochs, own.keep_epochs) == tuple(range(own.epochs))
    return all_kept and twin_method(settings, method) in methods[: methods.index(method)]


def _short(settings: TrainingSettings) -> TrainingSettings:
    """Return settings for a rehearsal: few epochs, and no file of weights or labels."""
    methods = {name: {**changes, "epochs": 1} for name, changes in settings.methods.items()}
    for changes in methods.values():
        changes.pop("label_file", None)
    return settings.model_copy(
        update={
            "encoder": settings.encoder.model_copy(update={"visual_weights": None}),
            "initialize": settings.initialize.model_copy(update={"epochs": _WARM_UP + 1}),
            "iterate": settings.iterate.model_copy(update={"epochs": 1}),
            "methods": methods,
        }
    )


def _write_labels(path: Path, clip_ids: Sequence[str]) -> None:
    """Give every clip one of ten classes, for the methods that learn from labels."""
    rows = [[TRAIN_SPLIT, clip_id, f"{clip_id}.mp4", "", "", "", str(i % 10)] for i, clip_id in enumerate(clip_ids)]
    write_csv(path, ["split", *CLIP_COLUMNS], rows)


def _pace(timings: Path, n_clips: int) -> Pace:
    """Read the last epoch of a rehearsal."""
    with timings.open(newline="", encoding="utf-8") as file:
        row = list(csv.DictReader(file))[-1]
    labeling = float(row["seconds"]) * float(row["label_pass_fraction"])
    return Pace(1 / float(row["pairs_per_second"]), labeling / n_clips)
