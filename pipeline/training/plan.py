"""What one training run is to do.

A plan holds everything that decides a run's outcome; its fingerprint is that of the run. Where the run stands is
`pipeline.training.state`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.common.config import (
    AugmentationSettings,
    EncoderSettings,
    IterationSettings,
    LabeledSettings,
    TrainingSettings,
)
from pipeline.common.errors import CheckpointError, TrainingError
from pipeline.common.files import fingerprint
from pipeline.common.project import MODEL_FILE, labels_path, seed_folder
from pipeline.manifests.clips import TRAIN_SPLIT
from pipeline.methods import build_method, method_entry, method_settings
from pipeline.model.pretrained import weights_advice
from pipeline.pseudo_labels import artifact as pseudo_labels
from pipeline.shards.reader import ShardSet
from pipeline.training import checkpoints
from pipeline.training.class_labels import ClipClasses, read_clip_classes
from pipeline.training.run_folder import Run, kept_epochs

# Eq. 3 has no thresholds. What the initialization's artifact and model state instead is ours: half of the range, which is the
# field's fixed threshold of a map, and a relation of every sound with itself alone.
INITIAL_DELTA_V = 0.5
INITIAL_DELTA_A = 1.0


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
    shards : str
        Fingerprint of the training set.
    classes : ClipClasses or None
        What the clips are labeled with, for a method that learns from labels.
    run : Run
    twin : Run or None
        That of a method which trains to the same weights from the same start (see `methods.Entry.trains_as`).
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
    shards: str
    classes: ClipClasses | None
    run: Run
    twin: Run | None = None

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
        """Tell whether the end of an epoch writes pseudo-labels: in the initialization only the last does."""
        return self.stage == "train" or epoch == self.iteration.epochs

    def labels_file(self, epoch: int) -> Path:
        """Where those of an epoch go; the initialization's are epoch 0."""
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
            "shards": self.shards,
        }


def initialize_plans(shards: ShardSet, folder: Path, *, settings: TrainingSettings, seeds: Sequence[int]) -> list[Plan]:
    """Plan the stage `initialize`, one run for each seed."""
    iteration = IterationSettings(**settings.initialize.model_dump(), delta_v=INITIAL_DELTA_V, delta_a=INITIAL_DELTA_A)
    weights = settings.encoder.visual_weights
    start = "" if weights is None else _digest(Path(weights), advice=weights_advice("encoder.visual_weights"))
    plan = partial(_plan, shards, settings, "initialize", "initial", iteration=iteration, start=start)
    return [plan(seed=seed, folder=seed_folder(folder, seeds, seed)) for seed in seeds]


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
    other = twin_method(settings, method)
    plans = []
    for seed in seeds:
        initial = seed_folder(initial_folder, seeds, seed)
        start = _digest(initial / MODEL_FILE) + _digest(labels_path(initial, 0))
        plan = partial(
            _plan,
            shards,
            settings,
            "train",
            seed=seed,
            iteration=iteration,
            start=start,
            initial=initial,
            classes=classes,
        )
        twin = plan(other, folder=seed_folder(folder.parent / other, seeds, seed)).run if other else None
        plans.append(replace(plan(method, folder=seed_folder(folder, seeds, seed)), twin=twin))
    return plans


def twin_method(settings: TrainingSettings, method: str) -> str | None:
    """Return the method that trains to the same weights, if it is there with the same settings."""
    other = method_entry(method).trains_as
    if other is None or other not in settings.methods:
        return None
    return other if method_settings(settings, other) == method_settings(settings, method) else None


def _plan(
    shards: ShardSet,
    settings: TrainingSettings,
    stage: str,
    method: str,
    *,
    folder: Path,
    seed: int,
    iteration: IterationSettings,
    start: str,
    initial: Path | None = None,
    classes: ClipClasses | None = None,
) -> Plan:
    build_method(method, iteration)
    if settings.batch_size > len(shards):
        raise TrainingError(
            f"batch_size {settings.batch_size} is larger than the training set of {len(shards)} clips; lower it in params.yaml, "
            "in the dataset's block of `training`"
        )
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
        shards=shards.fingerprint,
        classes=classes,
        run=Run(folder, fingerprint(decisive), *_kept(stage, iteration)),
    )


def _kept(stage: str, iteration: IterationSettings) -> tuple[int, tuple[int, ...]]:
    """Return the last epoch with pseudo-labels, and those before it whose weights stay."""
    if stage != "train":
        return 0, ()
    return iteration.epochs, kept_epochs(iteration.epochs, iteration.keep_epochs)


def _read_classes(iteration: IterationSettings, shards: ShardSet, clips: Path | None) -> ClipClasses | None:
    if not isinstance(iteration, LabeledSettings):
        return None
    label_file = None if iteration.label_file is None else Path(iteration.label_file)
    if clips is None and label_file is None:
        raise TrainingError("the method learns from labels: give the clip list (--clips), or set `label_file`")
    return read_clip_classes(clips or Path(), TRAIN_SPLIT, shards.clip_ids, label_file=label_file)


def _digest(path: Path, *, advice: str = "run initialize") -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; {advice}") from None
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}; {advice}") from None
