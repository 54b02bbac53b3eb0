"""The training loop: section 3.2 of the paper.

Initialize with Eq. 3. Then, epoch after epoch, let the previous epoch's model say where in each frame the sound comes from
and which sounds are alike (the pseudo-labels), train on that with Eq. 7, and label the training set anew.

Conventions
-----------
Epoch 0 is the initialization. All that is random follows from (seed, stage, epoch). Per epoch the pseudo-labels are
written first and the state last, each whole or not at all: a run that is killed at any moment and started again ends
in the same bytes (on a CPU, with as many threads). On CUDA the losses run under bfloat16 autocast where the device has it.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from pipeline.common.config import TrainingSettings
from pipeline.common.console import progress_disabled
from pipeline.common.errors import TrainingError
from pipeline.common.files import locked
from pipeline.common.hdf5 import ascii_ids, write_arrays
from pipeline.common.seeding import derive_seed
from pipeline.model.inference import predict, response_maps, select_device
from pipeline.pseudo_labels.artifact import PseudoLabels, write_pseudo_labels
from pipeline.shards.reader import ShardSet
from pipeline.training.batches import Batch, PreviousEpoch, Timed, training_batches
from pipeline.training.checkpoints import load_model, load_weights, read_checkpoint
from pipeline.training.parallel import run_side_by_side
from pipeline.training.plan import Plan, initialize_plans, train_plans
from pipeline.training.run_folder import Run, begin
from pipeline.training.state import HISTORY, TIMINGS, Progress, read_history, start_or_resume

__all__ = ["HISTORY", "initialize", "load_model", "response_maps", "train"]


def initialize(
    shards: ShardSet,
    folder: Path,
    *,
    settings: TrainingSettings,
    seeds: Sequence[int],
    device: str = "auto",
    at_once: int = 1,
) -> None:
    """Train the start of every method with Eq. 3.

    Parameters
    ----------
    shards : ShardSet
        The training split.
    folder : Path
        Gets ``model.pt``, ``pseudo_labels/epoch_000.h5``, ``history.csv`` and ``timings.csv`` of the first seed, and
        those of each further one in ``seed_<seed>/``.
    settings : TrainingSettings
        Of which `iterate` and `methods` play no part here.
    seeds : sequence of int
    device : str
        "auto", "cpu", "cuda" …
    at_once : int >= 1
        Seeds that are trained side by side on a CPU (see `pipeline.training.parallel`); on CUDA they always follow one another.

    Raises
    ------
    TrainingError
        A batch is impossible, another process is training in `folder`, or the loss is not finite.
    CheckpointError
        The file of published weights cannot be used.
    """
    plans = initialize_plans(shards, folder, settings=settings, seeds=seeds)
    _train_all(plans, shards, folder, device, at_once=at_once)


def train(
    shards: ShardSet,
    initial_folder: Path,
    folder: Path,
    *,
    method: str,
    settings: TrainingSettings,
    seeds: Sequence[int],
    clips: Path | None = None,
    device: str = "auto",
    at_once: int = 1,
) -> None:
    """Train one method from the initialization's weights and pseudo-labels.

    Parameters
    ----------
    shards : ShardSet
        The training split.
    initial_folder : Path
        What `initialize` wrote for the same seeds.
    folder : Path
        As in `initialize`, with one ``pseudo_labels/epoch_NNN.h5`` for each epoch.
    method : str
        A name of `pipeline.methods.METHODS`.
    settings : TrainingSettings
    seeds : sequence of int
    clips : Path, optional
        ``clips.csv``, for a method that learns from labels.
    device, at_once
        As in `initialize`.

    Raises
    ------
    SettingsError
        There is no such method.
    TrainingError
        As in `initialize`, or the initial model has other encoders.
    CheckpointError, PseudoLabelError
        What the initialization left is missing, damaged, or belongs to other shards.
    ManifestError
        The method learns from labels, and a clip has none.
    """
    plans = train_plans(shards, initial_folder, folder, method=method, settings=settings, seeds=seeds, clips=clips)
    _train_all(plans, shards, folder, device, at_once=at_once)


def _train_all(plans: Sequence[Plan], shards: ShardSet, folder: Path, device_name: str, *, at_once: int) -> None:
    device = select_device(device_name)
    with locked(folder, TrainingError):
        todo = begin(folder, [plan.run for plan in plans])
        tasks = [partial(_carry_out, plan, shards, device) for plan in plans if plan.run in todo]
        # As many as there are seeds, also when only some are left to do: the threads of each decide its last bits.
        at_once = min(at_once, len(plans))
        if device.type == "cpu" and at_once > 1:
            run_side_by_side(tasks, at_once=at_once)
        else:
            for task in tasks:
                task()


def _carry_out(plan: Plan, shards: ShardSet, device: torch.device) -> None:
    with _deterministic():
        if plan.twin and plan.twin.has_all_weights():
            _retell_run(plan, plan.twin, shards, device)
        else:
            _train_run(plan, shards, device)


def _train_run(plan: Plan, shards: ShardSet, device: torch.device) -> None:
    now = start_or_resume(plan, shards, device)
    for epoch in range(len(now.history) + 1, plan.iteration.epochs + 1):
        start = time.perf_counter()
        _start_epoch(now, plan, shards, epoch)
        batches = Timed(
            training_batches(
                shards,
                batch_size=plan.batch_size,
                augmentation=plan.augmentation,
                cell_stride=now.model.cell_stride,
                words=plan.words(epoch),
                previous=_previous_epoch(plan, shards, now.labels),  # R̃ and y of Eq. 4-6
                targets=plan.classes.targets if plan.classes else None,
                device=device,
            )
        )
        loss, positives = _train_epoch(now, batches, plan, epoch, device)  # Eq. 3 or 7
        trained, before = time.perf_counter(), now.labels
        if plan.needs_labels(epoch):
            now.labels = _label(now, plan, shards, epoch, device)  # R̃ and ã of the new weights
        labeled = time.perf_counter()
        pairs = len(shards) // plan.batch_size * plan.batch_size
        row = {
            "epoch": epoch,
            "loss": loss,
            **_measures(now.labels, before),
            "positives_per_clip": positives,
            "seconds": labeled - start,
            "pairs_per_second": pairs / (trained - start),
            "data_wait_fraction": batches.seconds / (trained - start),
            "label_pass_fraction": (labeled - trained) / (labeled - start),
        }
        now.history.append(row)
        now.keep(plan, shards, epoch)
        now.save(plan)
        _report(plan, row)
    now.finish(plan, shards)


def _retell_run(plan: Plan, twin: Run, shards: ShardSet, device: torch.device) -> None:
    """Label with the weights of a run that differs only in how a map is read: the same bytes as training once more."""
    plan.run.wipe()
    now = start_or_resume(plan, shards, device)
    for row in read_history(twin.history):
        start, epoch, before = time.perf_counter(), int(row["epoch"]), now.labels
        path = twin.weights(epoch) if epoch in twin.kept else twin.model
        load_weights(now.model, read_checkpoint(path), path)
        now.labels = _label(now, plan, shards, epoch, device)
        unknown = dict.fromkeys(TIMINGS, math.nan)
        row = {**unknown, **row, **_measures(now.labels, before), "seconds": time.perf_counter() - start}
        now.history.append(row)
        now.keep(plan, shards, epoch)
        _report(plan, row)
    now.write_history(plan)
    now.finish(plan, shards)


def _measures(labels: PseudoLabels | None, before: PseudoLabels | None) -> dict[str, float]:
    return {
        "mask_iou_previous": labels.mask_iou(before) if labels and before else math.nan,
        "sounding_fraction": float(labels.sounding_fraction.mean()) if labels else math.nan,
    }


def _start_epoch(now: Progress, plan: Plan, shards: ShardSet, epoch: int) -> None:
    """Let the method prepare an epoch, and keep what it made."""
    now.model.eval()
    seed = derive_seed(*plan.words(epoch), "start")
    made = now.method.start_epoch(now.model, shards, now.labels, epoch=epoch, seed=seed)
    if made:
        attributes: dict[str, str | int] = {"epoch": epoch, "method": plan.method, "fingerprint": plan.run.fingerprint}
        attributes["shards"] = plan.shards
        write_arrays(plan.run.start(epoch), {"clip_id": (("clip",), ascii_ids(shards.clip_ids)), **made}, attributes)


def _train_epoch(
    now: Progress, batches: Iterable[Batch], plan: Plan, epoch: int, device: torch.device
) -> tuple[float, float]:
    """Take one step on every batch; return the mean loss, and how many other clips Eq. 6 relates to a clip."""
    now.model.train()
    losses, positives = [], []
    name = f"{plan.name}, epoch {epoch}/{plan.iteration.epochs}"
    for number, batch in enumerate(
        tqdm(batches, desc=name, unit="batch", leave=False, disable=progress_disabled()), start=1
    ):
        with _autocast(device):
            loss = now.method.loss(now.model, batch)
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise TrainingError(
                f"{name}, batch {number}: the loss is {losses[-1]}; lower the learning rate or raise the temperature. "
                f"What {plan.run.folder} holds of earlier epochs stays"
            )
        now.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        now.optimizer.step()
        if batch.relation is not None:
            positives.append(float(batch.relation.sum()) / len(batch.relation) - 1)
    return float(np.mean(losses)), float(np.mean(positives)) if positives else math.nan


def _label(now: Progress, plan: Plan, shards: ShardSet, epoch: int, device: torch.device) -> PseudoLabels:
    """Label the training set with the weights at the end of an epoch, write the artifact, and read it back."""
    response, audio = predict(now.model, shards, batch_size=plan.batch_size, device=device)
    if not (np.isfinite(response).all() and np.isfinite(audio).all()):
        raise TrainingError(f"{plan.name}, epoch {epoch}: the responses are not finite; lower the learning rate")
    path = plan.labels_file(epoch)
    write_pseudo_labels(
        path, PseudoLabels.from_responses(shards.clip_ids, response, audio, **plan.label_attributes(epoch))
    )
    return PseudoLabels.open(path)


def _previous_epoch(plan: Plan, shards: ShardSet, labels: PseudoLabels | None) -> PreviousEpoch | None:
    if labels is None:
        return None
    return PreviousEpoch.of(labels, shards, delta_a=plan.iteration.delta_a, center_audio=plan.iteration.center_audio)


def _report(plan: Plan, row: dict[str, float]) -> None:
    values = [f"{name} {value:.4g}" for name, value in row.items() if not math.isnan(value)]
    tqdm.write(f"{plan.name}: {', '.join(values)}", file=sys.stderr)


def _autocast(device: torch.device) -> torch.autocast:
    # bfloat16 has float32's range, so no loss scaling; on a CPU, and on a GPU that emulates it, it is slower than float32.
    usable = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=usable)


@contextmanager
def _deterministic() -> Iterator[None]:
    """Ask torch for the same bits each time; where an operation on CUDA cannot give them, it warns."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    memory: Any = torch.utils.deterministic  # type checkers do not know its attribute
    enabled, fill = torch.are_deterministic_algorithms_enabled(), memory.fill_uninitialized_memory
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Filling memory that is about to be written costs time and hides nothing here.
    memory.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        memory.fill_uninitialized_memory = fill
