"""The state of a training run: weights, their average, optimizer, pseudo-labels of the last epoch, history.

It is stored in ``state.pt`` and the last epoch's artifact, from which an interrupted run resumes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pipeline.common.config import AudioSettings, IterationSettings
from pipeline.common.console import report
from pipeline.common.errors import CheckpointError, PseudoLabelError, TrainingError
from pipeline.common.hdf5 import verify_arrays
from pipeline.common.project import MODEL_FILE, labels_path
from pipeline.common.seeding import derive_seed
from pipeline.features.reader import FeatureSet
from pipeline.model.devices import loss_scaler, move
from pipeline.model.encoders import AudioVisualModel, build_model
from pipeline.model.optimizer import build_optimizer
from pipeline.model.ranks import average_gradients, by_first, on_all, share_batch_norm
from pipeline.pseudo_labels.artifact import PseudoLabels, write_pseudo_labels
from pipeline.pseudo_labels.hdf5_file import unusable
from pipeline.training import checkpoints
from pipeline.training.history import LOGGED, converged, start_row, write_history
from pipeline.training.live.curve import LossCurve
from pipeline.training.live.lines import report_start
from pipeline.training.run import TrainingRun
from pipeline.training.spec import initial_digest

SCALER = "scaler."  # prefix of its entries in ``state.pt``


@dataclass
class TrainingState:
    """Everything that changes from epoch to epoch.

    Attributes
    ----------
    model : AudioVisualModel
    optimizer : torch.optim.Optimizer
    labels : PseudoLabels or None
        Pseudo-labels of the last epoch; None if there are none.
    history : list of dict
        Row 0, and one row per completed epoch, see `pipeline.training.history`.
    curve : LossCurve
        The loss over the steps of completed epochs, for logs.
    scaler : torch.amp.GradScaler
        See `pipeline.model.devices.loss_scaler`.
    teacher : AveragedModel or None
        The exponential moving average of the weights over the steps, with `teacher_decay`; None if that is 0.
    """

    model: AudioVisualModel
    optimizer: torch.optim.Optimizer
    labels: PseudoLabels | None
    history: list[dict[str, float]]
    curve: LossCurve
    scaler: torch.amp.GradScaler
    teacher: AveragedModel | None = None

    @property
    def epoch(self) -> int:
        """The last completed epoch."""
        return len(self.history) - 1

    def step(self) -> None:
        """Take a step of the optimizer, and move the average of the weights."""
        # The gradients are averaged while they are scaled, so all ranks skip the same steps.
        average_gradients(self.model)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.teacher is not None:
            self.teacher.update_parameters(self.model)

    @property
    def learning_rate(self) -> float:
        """The learning rate of all that does not start from published weights."""
        return float(self.optimizer.param_groups[0]["lr"])

    @property
    def labeler(self) -> AudioVisualModel:
        """The weights that label the training set: the teacher's, or the present ones as in the paper."""
        return self.model if self.teacher is None else cast(AudioVisualModel, self.teacher.module)


def resume_or_start(run: TrainingRun) -> TrainingState:
    """Return the state after the last completed epoch, or empty the folder and return a new one.

    Raises
    ------
    TrainingError, CheckpointError, PseudoLabelError
        The initial run does not match the settings or the shards.
    """
    state = _resumed(run)
    # A rank that cannot read the files must not start over while the others continue.
    if on_all(state is not None) and state is not None:
        report(f"{run.spec.name}: resuming after epoch {state.epoch}")
        return state
    by_first(run.folder.begin)
    state = start(run)
    rule = run.spec.iteration.until_converged
    report_start(
        run.spec.name, epochs=run.epochs, n_steps=run.n_steps, batch_size=run.spec.batch_size, up_to=rule is not None
    )
    return state


def is_done(run: TrainingRun, state: TrainingState) -> bool:
    """Return whether the run needs no further epoch: it had all of them, or has converged under `until_converged`."""
    rule = run.spec.iteration.until_converged
    return state.epoch >= run.epochs or (rule is not None and converged(state.history, rule))


def start(run: TrainingRun) -> TrainingState:
    """Return the state before the first epoch: the initial model with its pseudo-labels, or new encoders."""
    state = _new_state(run) if run.spec.initial_folder is None else _initial_state(run, run.spec.initial_folder)
    if isinstance(run.shards, FeatureSet):
        # Only here: a run that resumes has the same fingerprint, which includes the digest of the features.
        run.shards.check_model(state.model, run.spec.encoder.model_dump(mode="json"), run.folder.path)
    state.history.append(start_row(by_first(partial(run.diagnose, state.model))))
    return state


def save(run: TrainingRun, state: TrainingState) -> None:
    """Write the weights if they are to be kept, the history, and ``state.pt``. Call it after writing the pseudo-labels."""
    keep_weights(run, state, state.epoch)
    write_history(run.folder.history, run.folder.timings, state.history)
    content = {f"history.{name}": [row[name] for row in state.history] for name in LOGGED}
    content |= {checkpoints.WEIGHTS + name: value for name, value in state.model.state_dict().items()}
    content |= checkpoints.flatten_optimizer(state.optimizer) | state.curve.content()
    content |= {SCALER + name: value for name, value in state.scaler.state_dict().items()}
    if state.teacher is not None:
        content |= {checkpoints.TEACHER + name: value for name, value in state.labeler.state_dict().items()}
    checkpoints.write_checkpoint(
        run.folder.state, {"fingerprint": run.folder.fingerprint, "device": run.device.type, **content}
    )


def keep_weights(run: TrainingRun, state: TrainingState, epoch: int) -> None:
    """Write the model after an epoch, if the weights of that epoch are to be kept, and ``model.pt`` will not have them."""
    if epoch in run.folder.kept and not is_done(run, state):
        checkpoints.write_checkpoint(run.folder.weights(epoch), _model_content(run, state, epoch))


def finish(run: TrainingRun, state: TrainingState) -> None:
    """Write the history, ``model.pt`` and the checksums, which mark the run as finished."""
    write_history(run.folder.history, run.folder.timings, state.history)
    checkpoints.write_checkpoint(run.folder.model, _model_content(run, state, state.epoch))
    run.folder.finish(run.spec.labels_epoch(state.epoch), _kept(run, state))


def _resumed(run: TrainingRun) -> TrainingState | None:
    saved = run.folder.saved_state()
    try:
        return None if saved is None else _resume(run, saved)
    except (CheckpointError, PseudoLabelError) as error:
        report(f"{run.spec.name}: cannot resume, training from scratch: {error}")
        return None


def _resume(run: TrainingRun, saved: dict[str, Any]) -> TrainingState:
    spec, folder = run.spec, run.folder
    # All weights are in the state; the file of pretrained weights may no longer exist.
    encoder = spec.encoder.without_weights
    state = _new_state(run, build_model(encoder))
    checkpoints.load_weights(state.model, saved, folder.state)
    if state.teacher is not None:
        checkpoints.load_weights(state.labeler, saved, folder.state, prefix=checkpoints.TEACHER)
    try:
        checkpoints.restore_optimizer(state.optimizer, saved)
        columns = [saved[f"history.{name}"] for name in LOGGED]
        state.history = [dict(zip(LOGGED, row, strict=True)) for row in zip(*columns, strict=True)]
        state.curve.restore(saved)
        # On another device, the run may begin to scale its losses, or end.
        if scaler := {name.removeprefix(SCALER): value for name, value in saved.items() if name.startswith(SCALER)}:
            state.scaler.load_state_dict(scaler)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder.state}: incomplete ({type(error).__name__}: {error})") from None
    _check_earlier_epochs(run, state)
    if (before := saved.get("device", run.device.type)) != run.device.type:
        report(
            f"{spec.name}: started on {before}, resumes on {run.device.type}; results differ from those of one device by rounding"
        )
    if spec.writes_labels(state.epoch):
        path = folder.labels(spec.labels_epoch(state.epoch))
        state.labels = PseudoLabels.open(path)
        if state.labels.attrs["fingerprint"] != folder.fingerprint:
            raise PseudoLabelError(f"{path}: belongs to another run")
        state.labels.verify()  # damage found here restarts the training; found later, it would abort the run
    return state


def _initial_state(run: TrainingRun, initial_folder: Path) -> TrainingState:
    spec = run.spec
    path = initial_folder / MODEL_FILE
    # A run may have waited for others while initialize ran again.
    if initial_digest(initial_folder) != spec.start:
        raise TrainingError(f"{path}: changed after this stage had started; run the stage again")
    initial = checkpoints.load_model(path)
    description = initial.description
    if description["encoder"] != spec.encoder.model_dump(mode="json"):
        raise TrainingError(f"{path}: was trained with other settings of `encoder`; run initialize again")
    if description["seed"] != spec.seed:
        raise TrainingError(
            f"{path}: was trained with seed {description['seed']}, not {spec.seed}; run initialize again"
        )
    initial_labels = labels_path(initial_folder, 0)
    labels = PseudoLabels.open(initial_labels)
    if labels.attrs["fingerprint"] != description["fingerprint"]:
        raise PseudoLabelError(f"{initial_labels}: does not belong to {path}; run initialize again")
    labels.rows(run.shards.clip_ids)  # raises if a clip has no pseudo-labels
    state = _new_state(run, initial.encoders)
    # In the run's copy, the sounding fraction (Eq. 2) is computed with the run's own threshold.
    attributes = {**spec.label_attributes(0, labels.audio_embedding), "stage": "initialize", "objective": "initial"}
    by_first(partial(write_pseudo_labels, run.folder.labels(0), labels.with_attributes(**attributes)))
    state.labels = PseudoLabels.open(run.folder.labels(0))
    by_first(partial(keep_weights, run, state, 0))
    return state


def _check_earlier_epochs(run: TrainingRun, state: TrainingState) -> None:
    """Read the files of all epochs so far. Damage found now restarts the training; later, it would end the run or stay unseen."""
    spec, folder = run.spec, run.folder
    for epoch in _kept(run, state):
        content = checkpoints.read_checkpoint(folder.weights(epoch))
        if (content.get("fingerprint"), content.get("epoch")) != (folder.fingerprint, epoch):
            raise CheckpointError(f"{folder.weights(epoch)}: belongs to another run or epoch")
    if spec.stage != "train":
        return
    for epoch in (each for each in folder.labeled if each <= state.epoch):
        PseudoLabels.open(folder.labels(epoch))
    for epoch in range(state.epoch + 1):
        if (start := folder.start(epoch)).exists():
            verify_arrays(start, partial(unusable, start))


def _kept(run: TrainingRun, state: TrainingState) -> tuple[int, ...]:
    """Return the epochs so far whose weights are kept beside ``model.pt``, which has those of the last epoch."""
    end = state.epoch if is_done(run, state) else state.epoch + 1
    return tuple(epoch for epoch in run.folder.kept if epoch < end)


def _new_state(run: TrainingRun, model: AudioVisualModel | None = None) -> TrainingState:
    spec = run.spec
    # Keyed to the stage and not to the method; the global generator stays as it was.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(spec.seed, spec.stage, "weights"))
        model = build_model(spec.encoder) if model is None else model
        run.method.prepare(model, n_clips=spec.n_clips, classes=spec.class_names)
    move(model, run.device)
    if run.compiled:
        # Only the backbones: a method's loss reads values and draws numbers on the host.
        model.visual.compile()
        model.audio.compile()
    share_batch_norm(model.visual, model.audio)
    optimizer = build_optimizer(model, spec.encoder, spec.iteration)
    curve = LossCurve(run.epochs * run.n_steps)
    return TrainingState(
        model, optimizer, None, [], curve, loss_scaler(run.device), _new_teacher(model, spec.iteration)
    )


def _new_teacher(model: AudioVisualModel, settings: IterationSettings) -> AveragedModel | None:
    if not settings.teacher_decay:
        return None
    # The running statistics of BatchNorm belong to the weights, so they are averaged as well.
    teacher = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(settings.teacher_decay), use_buffers=True)
    # The first update copies. Done here, so that the first step is averaged with the weights before it.
    teacher.update_parameters(model)
    return teacher


def _model_content(run: TrainingRun, state: TrainingState, epoch: int) -> dict[str, Any]:
    spec, shards = run.spec, run.shards
    audio = {name: shards.settings[name] for name in AudioSettings.model_fields if name in shards.settings}
    description = {
        "method": spec.method,
        "stage": spec.stage,
        "seed": spec.seed,
        "epoch": epoch,
        "fingerprint": run.folder.fingerprint,
        "image_size": shards.image_size,
        "delta_v": spec.iteration.delta_v,
        "encoder": spec.encoder.model_dump_json(),
        "iteration": spec.iteration.model_dump_json(),
        "audio": json.dumps(audio, sort_keys=True),
        "n_clips": spec.n_clips,
        "classes": json.dumps(spec.class_names),
    }
    return checkpoints.model_content(state.model, description)
