"""The specification of a training run: everything that determines its result, and its fingerprint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.common.code import code_digest
from pipeline.common.config import (
    AugmentationSettings,
    EncoderSettings,
    IterationSettings,
    LabeledSettings,
    TrainingSettings,
)
from pipeline.common.errors import CheckpointError, TrainingError
from pipeline.common.files import file_digest, fingerprint
from pipeline.common.project import MODEL_FILE, labels_path, seed_folder
from pipeline.manifests.clips import TRAIN_SPLIT
from pipeline.manifests.prepared import check_fills_batch
from pipeline.methods.build import build_method, check_temperature, method_class, method_settings, method_spec
from pipeline.model.backbones.build import backbone_stride, weights_digest
from pipeline.model.relation import equivalent_delta_a
from pipeline.pseudo_labels import artifact
from pipeline.shards.reader import ShardSet
from pipeline.training import checkpoints
from pipeline.training.class_labels import ClipClasses, read_clip_classes
from pipeline.training.run_folder import RunFolder, kept_epochs, labeled_epochs

# Eq. 3 has no thresholds. Those in the artifact and the model of the initialization are ours: half of the range, which is the usual
# fixed threshold of a map, and a relation of every clip only to itself.
INITIAL_DELTA_V = 0.5
INITIAL_DELTA_A = 1.0
REGISTRY = "pipeline.methods.registry"
# What only shows a run.
SHOWN = tuple(f"pipeline.training.live.{name}" for name in ("view", "lines", "writers"))


@dataclass(frozen=True)
class RunSpec:
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
        The run to start from; None starts from random (or pretrained) weights.
    start : str
        Digest of what the run starts from, see `initial_digest`.
    n_clips : int
        Size of the training set.
    shards : str
        Fingerprint of the training set.
    classes : ClipClasses or None
        Class labels of the clips; None for methods that learn without class labels.
    folder : RunFolder
    reuses_weights_of : RunFolder or None
        A run that trains to identical weights from the same initial model (see `MethodSpec.trains_as`).
    """

    stage: str
    method: str
    seed: int
    batch_size: int
    encoder: EncoderSettings
    augmentation: AugmentationSettings
    iteration: IterationSettings
    initial_folder: Path | None
    start: str
    n_clips: int
    shards: str
    classes: ClipClasses | None
    folder: RunFolder
    reuses_weights_of: RunFolder | None = None

    @property
    def class_names(self) -> list[str]:
        """Class names; empty for methods that learn without class labels."""
        return list(self.classes.names) if self.classes else []

    @property
    def name(self) -> str:
        """Name of the run in messages."""
        return f"{self.method if self.stage == 'train' else self.stage}, seed {self.seed}"

    def rng_key(self, epoch: int) -> tuple[int | str, ...]:
        """Return the RNG key of an epoch. It does not contain the method, so all methods see the same batches."""
        return (self.seed, self.stage, epoch)

    def writes_labels(self, epoch: int) -> bool:
        """Return whether pseudo-labels are written after an epoch: in the initialization after the last; else see `Method.reads_labels`."""
        return epoch in self.folder.labeled if self.stage == "train" else epoch == self.iteration.epochs

    def labels_epoch(self, epoch: int) -> int:
        """Return the number of the artifact written after an epoch; 0 in the initialization."""
        return epoch if self.stage == "train" else 0

    def label_attributes(self, epoch: int, audio: np.ndarray) -> dict[str, Any]:
        """Return the attributes of the artifact written after an epoch, with embeddings `audio` (n, d) float32.

        With `relation_share`, `delta_a` is the threshold that relates this share, so that readers of the file need not know about shares.
        """
        settings = self.iteration
        delta_a = settings.delta_a
        if settings.relation_share is not None:
            delta_a = equivalent_delta_a(
                torch.from_numpy(audio), share=settings.relation_share, center_audio=settings.center_audio
            )
        return {
            "epoch": self.labels_epoch(epoch),
            "stage": self.stage,
            "objective": self.method,
            "delta_v": settings.delta_v,
            "delta_a": delta_a,
            "temperature": settings.temperature,
            "fingerprint": self.folder.fingerprint,
            "shards": self.shards,
        }


def initialize_specs(
    shards: ShardSet, folder: Path, *, settings: TrainingSettings, seeds: Sequence[int]
) -> list[RunSpec]:
    """Return the specifications of the runs of `initialize`, one per seed."""
    iteration = IterationSettings(**settings.initialize.model_dump(), delta_v=INITIAL_DELTA_V, delta_a=INITIAL_DELTA_A)
    # The content of the weights counts, not their path.
    start = "".join(
        weights_digest(getattr(settings.encoder, name), channels_in=channels, setting=f"encoder.{name}")
        for name, channels in (("visual", 3), ("audio", 1))
    )
    spec = partial(_spec, shards, settings, "initialize", "initial", iteration=iteration, start=start)
    return [spec(seed=seed, folder=seed_folder(folder, seeds, seed)) for seed in seeds]


def train_specs(
    shards: ShardSet,
    initial_folder: Path,
    folder: Path,
    *,
    method: str,
    settings: TrainingSettings,
    seeds: Sequence[int],
    clips: Path | None = None,
) -> list[RunSpec]:
    """Return the specifications of the runs of `train` for one method, one per seed."""
    check_temperature(settings, method)
    iteration = method_settings(settings, method)
    classes = read_classes(iteration, shards, clips)
    other = method_with_same_weights(settings, method)
    specs = []
    for seed in seeds:
        initial = seed_folder(initial_folder, seeds, seed)
        spec = partial(
            _spec,
            shards,
            settings,
            "train",
            seed=seed,
            iteration=iteration,
            start=initial_digest(initial),
            initial=initial,
            classes=classes,
        )
        reused = spec(other, folder=seed_folder(folder.parent / other, seeds, seed)).folder if other else None
        specs.append(replace(spec(method, folder=seed_folder(folder, seeds, seed)), reuses_weights_of=reused))
    return specs


def initial_digest(initial: Path) -> str:
    """Return a digest of the model and the pseudo-labels of an initial run. Raises CheckpointError if one cannot be read."""
    return _digest(initial / MODEL_FILE) + _digest(labels_path(initial, 0))


def method_with_same_weights(settings: TrainingSettings, method: str) -> str | None:
    """Return the method that trains to identical weights, if it is listed with equal settings; else None."""
    other = method_spec(method).trains_as
    if other is None or other not in settings.methods:
        return None
    return other if method_settings(settings, other) == method_settings(settings, method) else None


def _spec(
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
) -> RunSpec:
    check_fills_batch(len(shards), settings.batch_size)
    # Raises before anything is trained if the settings are inconsistent, or do not suit the data.
    built = build_method(method, iteration)
    built.check(n_clips=len(shards), cells=shards.image_size // backbone_stride(settings.encoder.visual))
    fingerprint_inputs = {
        "formats": [checkpoints.FORMAT_VERSION, artifact.FORMAT_VERSION],
        "stage": stage,
        "method": method,
        # The registry is not part of the code digest, so what it decides is here.
        "entry": [method_spec(method).kind, dict(method_spec(method).switches)],
        "seed": seed,
        "batch_size": settings.batch_size,
        "encoder": settings.encoder.model_dump(mode="json"),
        "augmentation": settings.augmentation.model_dump(mode="json"),
        "iteration": iteration.model_dump(mode="json"),
        "shards": [shards.fingerprint, shards.content_digest],
        "start": start,
        "classes": classes.identity if classes else [],
    }
    # The initialization only writes pseudo-labels after its last epoch, as epoch 0.
    last = iteration.epochs if stage == "train" else 0
    return RunSpec(
        stage=stage,
        method=method,
        seed=seed,
        batch_size=settings.batch_size,
        encoder=settings.encoder,
        augmentation=settings.augmentation,
        iteration=iteration,
        initial_folder=initial,
        start=start,
        n_clips=len(shards),
        shards=shards.fingerprint,
        classes=classes,
        folder=RunFolder(
            folder,
            fingerprint(fingerprint_inputs),
            # The registry would add the modules of all other methods.
            code_digest("pipeline.training.train", method_spec(method).module, without=[REGISTRY, *SHOWN]),
            epochs_with_labels(method, iteration) if last else (0,),
            kept_epochs(last, iteration.keep_epochs),
        ),
    )


def epochs_with_labels(method: str, iteration: IterationSettings) -> tuple[int, ...]:
    """Return the epochs of a method after which the training set is labeled, including 0, the initialization."""
    return labeled_epochs(iteration.epochs, iteration.keep_epochs, needed=method_class(method).reads_labels)


def read_classes(iteration: IterationSettings, shards: ShardSet, clips: Path | None) -> ClipClasses | None:
    """Return the class labels of the training clips if the method learns from them, else None. Raises ManifestError, TrainingError."""
    if not isinstance(iteration, LabeledSettings):
        return None
    label_file = None if iteration.label_file is None else Path(iteration.label_file)
    if clips is None and label_file is None:
        raise TrainingError("the method learns from class labels: pass the clip list (--clips), or set `label_file`")
    return read_clip_classes(clips or Path(), TRAIN_SPLIT, shards.clip_ids, label_file=label_file)


def _digest(path: Path) -> str:
    try:
        return file_digest(path)
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}; run initialize") from None
