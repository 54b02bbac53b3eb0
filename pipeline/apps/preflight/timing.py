"""Profile the real training stages on a few synthetic batches: seconds per pair, and peak memory.

Conventions
-----------
Times are wall-clock s, memory is bytes. Frames and spectrograms are noise of the right shape, because time and memory
do not depend on their content. The stages run in a temporary folder with the code that `dvc repro` runs, so the
measurement includes whatever a method does in an epoch. The first epoch, in which libraries warm up, is not counted.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import torch

from pipeline.apps.preflight.findings import StageTime
from pipeline.apps.preflight.memory import peak, reset_peak
from pipeline.apps.preflight.synthetic import SyntheticFeatures, SyntheticShards, time_frozen
from pipeline.common.config import AudioSettings, Params, Side, TrainingSettings
from pipeline.common.errors import TrainingError
from pipeline.common.files import write_csv
from pipeline.common.processes import scratch_folder
from pipeline.common.project import CLIPS_FILE, INITIAL_RUN, TIMINGS_FILE
from pipeline.common.tables import read_records
from pipeline.datasets.prepare import SplitCoverage
from pipeline.features.reader import n_views
from pipeline.manifests.clips import CLIP_COLUMNS, TRAIN_SPLIT
from pipeline.methods.build import method_settings
from pipeline.methods.dsol.method import DsolSettings
from pipeline.shards.reader import ShardSet
from pipeline.training.run_folder import kept_epochs
from pipeline.training.spec import epochs_with_labels, method_with_same_weights
from pipeline.training.train import initialize, train

_WARM_UP_EPOCHS = 1  # of `initialize`, not counted


@dataclass(frozen=True)
class Throughput:
    """How fast one stage runs.

    Attributes
    ----------
    pair_seconds : float
        Training time per pair.
    label_seconds : float
        Time per clip of a pass that writes pseudo-labels.
    """

    pair_seconds: float
    label_seconds: float


@dataclass(frozen=True)
class Profile:
    """Measurements of the training stages.

    Attributes
    ----------
    throughput : dict of str to Throughput
        By stage: "initialize" and each method.
    peak_bytes : int
        Peak memory: of this process on a CPU, of tensors on CUDA.
    frozen_seconds : dict of Side to float
        Time of each backbone whose features are stored, per frame or spectrogram, on one core.
    """

    throughput: dict[str, Throughput]
    peak_bytes: int
    frozen_seconds: dict[Side, float] = field(default_factory=dict)


def profile_stages(
    settings: TrainingSettings,
    methods: Sequence[str],
    *,
    image_size: int,
    audio: AudioSettings,
    n_batches: int,
    device: torch.device,
    on_stage: Callable[[str], None],
) -> Profile:
    """Initialize, then train each method for one epoch of `n_batches` synthetic batches.

    Parameters
    ----------
    settings : TrainingSettings
        Pretrained weights are not loaded; they change neither time nor memory.
    methods : sequence of str
    image_size : int
        Pixels.
    audio : AudioSettings
        For the shape of the log-mels.
    n_batches : int
    device : torch.device
    on_stage : callable
        Called with the name of each stage before it runs.

    Raises
    ------
    torch.OutOfMemoryError
        A batch does not fit into the device's memory.
    """
    size = settings.batch_size
    noise = SyntheticShards(size * n_batches, held=size, image_size=image_size, audio=audio)
    frozen = time_frozen(settings.encoder, settings.stored_features, image_size=image_size, audio=audio, device=device)
    shards = cast(ShardSet, noise)
    if frozen:
        shards = SyntheticFeatures(noise, held=size, shapes={side: shape for side, (_, shape) in frozen.items()})
    untrained = [method for method in methods if not method_settings(settings, method).epochs]
    settings = _shortened(settings, methods, n_clips=len(noise))
    reset_peak(device)
    throughput = {}
    with scratch_folder() as scratch:
        initial = scratch / INITIAL_RUN
        on_stage(INITIAL_RUN)
        with redirect_stderr(io.StringIO()):  # hides the stages' own progress bars
            initialize(shards, initial, settings=settings, seeds=[0], device=str(device))
        throughput[INITIAL_RUN] = _read_throughput(initial / TIMINGS_FILE, len(shards))
        clips = scratch / CLIPS_FILE
        _write_labels(clips, shards.clip_ids)
        for method in methods:
            on_stage(method)
            if method in untrained:  # its maps are those of the initialization
                throughput[method] = throughput[INITIAL_RUN]
                continue
            # Each run in its own parent folder: next to another one it would reuse that run's weights and not train.
            folder = scratch / method / "run"
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
            throughput[method] = _read_throughput(folder / TIMINGS_FILE, len(shards))
    return Profile(throughput, peak(device), {side: seconds for side, (seconds, _) in frozen.items()})


def stage_times(
    profile: Profile,
    clips: Mapping[str, SplitCoverage],
    *,
    params: Params,
    settings: TrainingSettings,
    methods: Sequence[str],
    workers: int = 1,
) -> list[StageTime]:
    """Estimate stage durations from measured throughput.

    Parameters
    ----------
    profile : Profile
        Of these methods.
    clips : mapping of str to SplitCoverage
        By split.
    params : Params
        Its seeds and scored split are used.
    settings : TrainingSettings
        Its epochs and batch size are used.
    methods : sequence of str
    workers : int >= 1
        Processes that compute features.

    Returns
    -------
    list of StageTime
        The features if they are stored, the initialization, each method, and the response maps of each method.
    """
    n_train, n_scored = (clips[s].found if s in clips else 0 for s in (TRAIN_SPLIT, params.score_split))
    n_pairs = n_train // settings.batch_size * settings.batch_size  # an incomplete batch is dropped
    n_seeds = len(params.seeds)
    times = []
    if profile.frozen_seconds:
        views = n_train * n_views(settings, TRAIN_SPLIT) + n_scored * n_views(settings, params.score_split)
        runs = {"visual": views, "audio": n_train + n_scored}
        seconds = sum(runs[side] * each for side, each in profile.frozen_seconds.items())
        times.append(StageTime("features", 0, 0.0, 0.0, seconds / workers))
    for stage in (INITIAL_RUN, *methods):
        measured = profile.throughput[stage]
        first = stage == INITIAL_RUN
        epochs = settings.initialize.epochs if first else method_settings(settings, stage).epochs
        epoch, label = n_pairs * measured.pair_seconds, n_train * measured.label_seconds
        if not first and _reuses_weights(settings, stage, methods):
            epoch = 0.0
        # The initialization labels once. The labels of epoch 0 are its own.
        labeled = 1 if first else len(epochs_with_labels(stage, method_settings(settings, stage))) - 1
        total = n_seeds * (epochs * epoch + labeled * label)
        times.append(StageTime(stage, n_seeds * epochs, epoch, label, total))
    passes = 2 * n_seeds * n_scored  # own audio and shuffled audio
    for stage in methods:
        label = profile.throughput[stage].label_seconds
        times.append(StageTime(f"maps of {stage}", 0, 0.0, 0.0, passes * label))
    return times


def _reuses_weights(settings: TrainingSettings, method: str, methods: Sequence[str]) -> bool:
    """Tell whether a method reuses the checkpoints of an earlier one that trains identically, and only labels."""
    own = method_settings(settings, method)
    all_kept = kept_epochs(own.epochs, own.keep_epochs) == tuple(range(own.epochs))
    return all_kept and method_with_same_weights(settings, method) in methods[: methods.index(method)]


def _shortened(settings: TrainingSettings, measured: Sequence[str], *, n_clips: int) -> TrainingSettings:
    """Return settings with few epochs, without weight files or label files, and for `n_clips` synthetic clips."""
    methods = {name: {**changes, "epochs": 1} for name, changes in settings.methods.items()}
    for changes in methods.values():
        changes.pop("label_file", None)
    for name in measured:
        own = method_settings(settings, name)
        if isinstance(own, DsolSettings):  # each of its stages needs an epoch, each of its clusters a clip
            methods[name] |= {"epochs": 2, "stage_one_epochs": 1, "clusters": min(own.clusters, n_clips)}
    return settings.model_copy(
        update={
            "encoder": settings.encoder.without_weights,
            "initialize": settings.initialize.model_copy(update={"epochs": _WARM_UP_EPOCHS + 1}),
            "iterate": settings.iterate.model_copy(update={"epochs": 1}),
            "methods": methods,
        }
    )


def _write_labels(path: Path, clip_ids: Sequence[str]) -> None:
    """Assign one of ten classes to every clip, for methods that learn from labels."""
    rows = [[TRAIN_SPLIT, clip_id, f"{clip_id}.mp4", "", "", "", str(i % 10)] for i, clip_id in enumerate(clip_ids)]
    write_csv(path, ["split", *CLIP_COLUMNS], rows)


def _read_throughput(timings: Path, n_clips: int) -> Throughput:
    """Read the last epoch of a measured run."""
    row = read_records(timings, TrainingError)[-1]
    labeling = float(row["seconds"]) * float(row["label_pass_fraction"])
    return Throughput(1 / float(row["pairs_per_second"]), labeling / n_clips)
