"""What one training run is to do, and where it stands.

A plan holds everything that decides a run's outcome; its fingerprint is that of the run. Progress is what changes while
the run goes on: the weights, the optimizer, the pseudo-labels of the last epoch, the history.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline import checkpoints, pseudo_labels
from pipeline.clip_classes import ClipClasses, read_clip_classes
from pipeline.config import (
    AudioSettings,
    AugmentationSettings,
    EncoderSettings,
    IterationSettings,
    LabelledSettings,
    TrainingSettings,
)
from pipeline.encoders import AudioVisualModel, build_model
from pipeline.errors import CheckpointError, PseudoLabelError, TrainingError
from pipeline.files import fingerprint, write_csv
from pipeline.methods import Method, build_method, method_settings
from pipeline.pseudo_labels import PseudoLabels, write_pseudo_labels
from pipeline.randomness import derive_seed
from pipeline.runs import Run, labels_path, seed_folder
from pipeline.shards import ShardSet

# Eq. 3 has no thresholds. What the initialisation's artifact and model state instead is ours: half of the range, which is the
# field's fixed threshold of a map, and a relation of every sound with itself alone.
INITIAL_DELTA_V = 0.5
INITIAL_DELTA_A = 1.0

# Timings differ from run to run, so they have a file of their own: all the rest of a run is the same, byte by byte.
HISTORY = ("epoch", "loss", "mask_iou_previous", "sounding_fraction", "positives_per_clip")
TIMINGS = ("epoch", "seconds", "pairs_per_second", "data_wait_fraction", "label_pass_fraction")
_LOGGED = HISTORY + TIMINGS[1:]
TRAIN_SPLIT = "train"


@dataclass(frozen=True)
class Plan:
    """One run: a stage, a method and a seed.

    Attributes
    ----------
    stage : str
        "initialize" or "train".
    method : str
    seed : int
    batch_size : int
    encoder : EncoderSettings
    augmentation : AugmentationSettings
    iteration : IterationSettings
    initial_folder : Path or None
        The run to start from; None starts from random (or published) weights.
    n_clips : int
        Of the training set.
    classes : ClipClasses or None
        What the clips are labelled with, for a method that learns from labels.
    run : Run
    """

    stage: str
    method: str
    seed: int
    batch_size: int
    encoder: EncoderSettings
    augmentation: AugmentationSettings
    iteration: IterationSettings
    initial_folder: Path | None
    n_clips: int
    classes: ClipClasses | None
    run: Run

    @property
    def class_names(self) -> list[str]:
        """Names of the classes; none for a method that learns without labels."""
        return list(self.classes.names) if self.classes else []

    @property
    def name(self) -> str:
        """What messages call the run."""
        return f"{self.method if self.stage == 'train' else self.stage}, seed {self.seed}"

    def words(self, epoch: int) -> tuple[int | str, ...]:
        """Name of an epoch, from which all that is random in it follows. Methods share it: they see the same batches."""
        return (self.seed, self.stage, epoch)

    def needs_labels(self, epoch: int) -> bool:
        """Tell whether the end of an epoch writes pseudo-labels: in the initialisation only the last does."""
        return self.stage == "train" or epoch == self.iteration.epochs

    def labels_file(self, epoch: int) -> Path:
        """Where those of an epoch go; the initialisation's are epoch 0."""
        return self.run.labels(epoch if self.stage == "train" else 0)

    def label_attributes(self, epoch: int) -> dict[str, Any]:
        """Return the attributes of the artifact that the end of an epoch writes."""
        return {
            "epoch": epoch if self.stage == "train" else 0,
            "stage": self.stage,
            "objective": self.method,
            "delta_v": self.iteration.delta_v,
            "delta_a": self.iteration.delta_a,
            "temperature": self.iteration.temperature,
            "fingerprint": self.run.fingerprint,
        }


@dataclass
class Progress:
    """Where a run stands."""

    model: AudioVisualModel
    optimizer: torch.optim.Optimizer
    method: Method
    labels: PseudoLabels | None
    history: list[dict[str, float]]

    def save(self, plan: Plan) -> None:
        """Write the history and ``state.pt``. The epoch's pseudo-labels must have been written before."""
        for path, columns in ((plan.run.history, HISTORY), (plan.run.timings, TIMINGS)):
            write_csv(path, columns, [[_cell(row[name]) for name in columns] for row in self.history])
        content = {f"history.{name}": [row[name] for row in self.history] for name in _LOGGED}
        content |= {checkpoints.WEIGHTS + name: value for name, value in self.model.state_dict().items()}
        content |= checkpoints.flatten_optimizer(self.optimizer)
        checkpoints.write_checkpoint(plan.run.state, {"fingerprint": plan.run.fingerprint, **content})

    def finish(self, plan: Plan, shards: ShardSet) -> None:
        """Write ``model.pt``, which makes the run complete."""
        audio = {name: shards.settings[name] for name in AudioSettings.model_fields if name in shards.settings}
        description = {
            "method": plan.method,
            "stage": plan.stage,
            "seed": plan.seed,
            "epoch": plan.iteration.epochs,
            "fingerprint": plan.run.fingerprint,
            "image_size": shards.image_size,
            "delta_v": plan.iteration.delta_v,
            "encoder": plan.encoder.model_dump_json(),
            "iteration": plan.iteration.model_dump_json(),
            "audio": json.dumps(audio, sort_keys=True),
            "n_clips": plan.n_clips,
            "classes": json.dumps(plan.class_names),
        }
        checkpoints.write_checkpoint(plan.run.model, checkpoints.model_content(self.model, description))
        plan.run.finish()


def initialize_plans(shards: ShardSet, folder: Path, *, settings: TrainingSettings, seeds: Sequence[int]) -> list[Plan]:
    """Plan the stage `initialize`, one run for each seed."""
    iteration = IterationSettings(**settings.initialize.model_dump(), delta_v=INITIAL_DELTA_V, delta_a=INITIAL_DELTA_A)
    weights = settings.encoder.visual_weights
    start = _digest(Path(weights)) if weights is not None else ""
    return [
        _plan(shards, seed_folder(folder, seeds, seed), settings, "initialize", "initial", seed, iteration, start)
        for seed in seeds
    ]


def train_plans(
    shards: ShardSet,
    initial_folder: Path,
    folder: Path,
    *,
    method: str,
    settings: TrainingSettings,
    seeds: Sequence[int],
    clips: Path | None = None,
) -> list[Plan]:
    """Plan the stage `train` of one method, one run for each seed."""
    iteration = method_settings(settings, method)
    classes = _read_classes(iteration, shards, clips)
    plans = []
    for seed in seeds:
        initial = seed_folder(initial_folder, seeds, seed)
        start = _digest(initial / "model.pt") + _digest(labels_path(initial, 0))
        own = seed_folder(folder, seeds, seed)
        plan = _plan(shards, own, settings, "train", method, seed, iteration, start, initial=initial, classes=classes)
        plans.append(plan)
    return plans


def start_or_resume(plan: Plan, shards: ShardSet, device: torch.device) -> Progress:
    """Return where a run stands: at its start, its folder wiped, or at the last epoch that a killed run completed.

    Raises
    ------
    TrainingError, CheckpointError, PseudoLabelError
        The initial run does not fit the settings or the shards.
    """
    saved = plan.run.saved_state()
    if saved is not None:
        try:
            return _resume(plan, saved, device)
        except (CheckpointError, PseudoLabelError):
            pass  # damaged: start afresh, which ends in the same bytes
    plan.run.wipe()
    return _start(plan, shards, device)


def _start(plan: Plan, shards: ShardSet, device: torch.device) -> Progress:
    if plan.initial_folder is None:
        return _fresh(plan, device)
    path = plan.initial_folder / "model.pt"
    initial, description = checkpoints.load_model(path)
    if description["encoder"] != plan.encoder.model_dump(mode="json"):
        raise TrainingError(f"{path}: was trained with other settings of `encoder`; run initialize again")
    labels = PseudoLabels.open(labels_path(plan.initial_folder, 0))
    if labels.attrs["fingerprint"] != description["fingerprint"]:
        raise PseudoLabelError(f"{labels_path(plan.initial_folder, 0)}: not made by {path}; run initialize again")
    labels.rows(shards.clip_ids)
    progress = _fresh(plan, device, initial)
    # The run's own copy says what Eq. 2 gives under the run's own thresholds.
    restated = labels.restated(**{**plan.label_attributes(0), "stage": "initialize", "objective": "initial"})
    write_pseudo_labels(plan.run.labels(0), restated)
    progress.labels = PseudoLabels.open(plan.run.labels(0))
    return progress


def _resume(plan: Plan, saved: dict[str, Any], device: torch.device) -> Progress:
    progress = _fresh(plan, device)
    checkpoints.load_weights(progress.model, saved, plan.run.state)
    checkpoints.restore_optimizer(progress.optimizer, saved)
    columns = [saved[f"history.{name}"] for name in _LOGGED]
    progress.history = [dict(zip(_LOGGED, row, strict=True)) for row in zip(*columns, strict=True)]
    epoch = len(progress.history)
    if plan.needs_labels(epoch):
        progress.labels = PseudoLabels.open(plan.labels_file(epoch))
        if progress.labels.attrs["fingerprint"] != plan.run.fingerprint:
            raise PseudoLabelError(f"{plan.labels_file(epoch)}: of another run")
        progress.labels.verify()  # here damage means to start afresh, later it would end the run
    return progress


def _fresh(plan: Plan, device: torch.device, initial: AudioVisualModel | None = None) -> Progress:
    method = build_method(plan.method, plan.iteration)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(plan.seed, plan.stage, "weights"))
        model = build_model(plan.encoder) if initial is None else initial
        method.prepare(model, n_clips=plan.n_clips, classes=plan.class_names)
    model.method = method
    model.to(device)
    settings = plan.iteration
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    return Progress(model, optimizer, method, None, [])


def _plan(
    shards: ShardSet,
    folder: Path,
    settings: TrainingSettings,
    stage: str,
    method: str,
    seed: int,
    iteration: IterationSettings,
    start: str,
    *,
    initial: Path | None = None,
    classes: ClipClasses | None = None,
) -> Plan:
    build_method(method, iteration)
    if settings.batch_size > len(shards):
        raise TrainingError(f"batch_size {settings.batch_size} is larger than the training set of {len(shards)} clips")
    decisive = {
        "formats": [checkpoints.FORMAT_VERSION, pseudo_labels.FORMAT_VERSION],
        "stage": stage,
        "method": method,
        "seed": seed,
        "batch_size": settings.batch_size,
        "encoder": settings.encoder.model_dump(mode="json"),
        "augmentation": settings.augmentation.model_dump(mode="json"),
        "iteration": iteration.model_dump(mode="json"),
        "shards": shards.fingerprint,
        "start": start,
        "classes": [list(classes.names), hashlib.sha256(classes.targets.tobytes()).hexdigest()] if classes else [],
    }
    return Plan(
        stage=stage,
        method=method,
        seed=seed,
        batch_size=settings.batch_size,
        encoder=settings.encoder,
        augmentation=settings.augmentation,
        iteration=iteration,
        initial_folder=initial,
        n_clips=len(shards),
        classes=classes,
        run=Run(folder, fingerprint(decisive), last_labels=iteration.epochs if stage == "train" else 0),
    )


def _read_classes(iteration: IterationSettings, shards: ShardSet, clips: Path | None) -> ClipClasses | None:
    if not isinstance(iteration, LabelledSettings):
        return None
    label_file = None if iteration.label_file is None else Path(iteration.label_file)
    if clips is None and label_file is None:
        raise TrainingError("the method learns from labels: give the clip list (--clips), or set `label_file`")
    return read_clip_classes(clips or Path(), TRAIN_SPLIT, shards.clip_ids, label_file=label_file)


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}; run initialize, or mend the setting that names it") from None


def _cell(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"
