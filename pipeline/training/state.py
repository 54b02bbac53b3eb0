"""Where a training run stands: its weights, the optimizer, the pseudo-labels of the last epoch, the history.

All of it is in ``state.pt`` and the epoch's artifact, so that a run that was killed goes on from there (see
`pipeline.training.run_folder` for when it may), or starts afresh from its plan.
"""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.common.config import AudioSettings
from pipeline.common.errors import CheckpointError, PseudoLabelError, TrainingError
from pipeline.common.files import write_csv
from pipeline.common.project import MODEL_FILE, labels_path
from pipeline.common.seeding import derive_seed
from pipeline.methods import Method, build_method
from pipeline.model.encoders import AudioVisualModel, build_model
from pipeline.pseudo_labels.artifact import PseudoLabels, write_pseudo_labels
from pipeline.shards.reader import ShardSet
from pipeline.training import checkpoints
from pipeline.training.plan import Plan

# Timings differ from run to run, so they have a file of their own: all the rest of a run is the same, byte by byte.
HISTORY = ("epoch", "loss", "mask_iou_previous", "sounding_fraction", "positives_per_clip")
TIMINGS = ("epoch", "seconds", "pairs_per_second", "data_wait_fraction", "label_pass_fraction")
_LOGGED = HISTORY + TIMINGS[1:]


@dataclass
class Progress:
    """Where a run stands."""

    model: AudioVisualModel
    optimizer: torch.optim.Optimizer
    method: Method
    labels: PseudoLabels | None
    history: list[dict[str, float]]

    def write_history(self, plan: Plan) -> None:
        """Write ``history.csv`` and ``timings.csv``."""
        for path, columns in ((plan.run.history, HISTORY), (plan.run.timings, TIMINGS)):
            write_csv(path, columns, [[_cell(row[name]) for name in columns] for row in self.history])

    def save(self, plan: Plan) -> None:
        """Write the history and ``state.pt``. The epoch's pseudo-labels must have been written before."""
        self.write_history(plan)
        content = {f"history.{name}": [row[name] for row in self.history] for name in _LOGGED}
        content |= {checkpoints.WEIGHTS + name: value for name, value in self.model.state_dict().items()}
        content |= checkpoints.flatten_optimizer(self.optimizer)
        checkpoints.write_checkpoint(plan.run.state, {"fingerprint": plan.run.fingerprint, **content})

    def keep(self, plan: Plan, shards: ShardSet, epoch: int) -> None:
        """Write the model as it is after an epoch, if that is one of those whose weights stay."""
        if epoch in plan.run.kept:
            checkpoints.write_checkpoint(plan.run.weights(epoch), self._described(plan, shards, epoch))

    def finish(self, plan: Plan, shards: ShardSet) -> None:
        """Write ``model.pt``, which makes the run complete."""
        checkpoints.write_checkpoint(plan.run.model, self._described(plan, shards, plan.iteration.epochs))
        plan.run.finish()

    def _described(self, plan: Plan, shards: ShardSet, epoch: int) -> dict[str, Any]:
        audio = {name: shards.settings[name] for name in AudioSettings.model_fields if name in shards.settings}
        description = {
            "method": plan.method,
            "stage": plan.stage,
            "seed": plan.seed,
            "epoch": epoch,
            "fingerprint": plan.run.fingerprint,
            "image_size": shards.image_size,
            "delta_v": plan.iteration.delta_v,
            "encoder": plan.encoder.model_dump_json(),
            "iteration": plan.iteration.model_dump_json(),
            "audio": json.dumps(audio, sort_keys=True),
            "n_clips": plan.n_clips,
            "classes": json.dumps(plan.class_names),
        }
        return checkpoints.model_content(self.model, description)


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
    path = plan.initial_folder / MODEL_FILE
    initial, description = checkpoints.load_model(path)
    if description["encoder"] != plan.encoder.model_dump(mode="json"):
        raise TrainingError(f"{path}: was trained with other settings of `encoder`; run initialize again")
    if description["seed"] != plan.seed:
        raise TrainingError(
            f"{path}: was trained with seed {description['seed']}, not {plan.seed}; run initialize again"
        )
    labels = PseudoLabels.open(labels_path(plan.initial_folder, 0))
    if labels.attrs["fingerprint"] != description["fingerprint"]:
        raise PseudoLabelError(f"{labels_path(plan.initial_folder, 0)}: not made by {path}; run initialize again")
    labels.rows(shards.clip_ids)
    progress = _fresh(plan, device, initial)
    # The run's own copy says what Eq. 2 gives under the run's own thresholds.
    restated = labels.restated(**{**plan.label_attributes(0), "stage": "initialize", "objective": "initial"})
    write_pseudo_labels(plan.run.labels(0), restated)
    progress.labels = PseudoLabels.open(plan.run.labels(0))
    progress.keep(plan, shards, 0)
    return progress


def _resume(plan: Plan, saved: dict[str, Any], device: torch.device) -> Progress:
    # The weights are all in the state; the file that they once started from may be gone.
    bare = plan.encoder.model_copy(update={"visual_weights": None})
    progress = _fresh(plan, device, build_model(bare))
    checkpoints.load_weights(progress.model, saved, plan.run.state)
    checkpoints.restore_optimizer(progress.optimizer, saved)
    columns = [saved[f"history.{name}"] for name in _LOGGED]
    progress.history = [dict(zip(_LOGGED, row, strict=True)) for row in zip(*columns, strict=True)]
    epoch = len(progress.history)
    for kept in plan.run.kept:
        if kept <= epoch and not plan.run.weights(kept).is_file():
            raise CheckpointError(f"{plan.run.weights(kept)}: missing")
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


def read_history(path: Path) -> list[dict[str, float]]:
    """Read ``history.csv``: a row for each epoch, whose numbers written again are the same."""
    with open(path, encoding="utf-8", newline="") as file:
        return [{name: float(row[name] or "nan") for name in HISTORY} for row in csv.DictReader(file)]


def _cell(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"
