"""Iterative contrastive learning: section 3.2 of the paper.

    initialize with Eq. 3; label the training set: R̃, ã (Eq. 1)
    for each epoch
        for each batch: x⁺, x⁻ from R̃ (Eq. 4, 5); y from ã (Eq. 6); one step on Eq. 7
        label the training set again with the new weights

The initialization is the same loop with Eq. 3 as its loss, without previous labels. Everything random follows from (seed,
stage, epoch). A run that is killed at any time and started again produces the same bytes, on a CPU with the same number of threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np

from pipeline.common.errors import DivergenceError
from pipeline.common.hdf5 import ascii_ids, write_arrays
from pipeline.methods.base import Batch
from pipeline.methods.trained_model import TrainedModel
from pipeline.model.devices import autocast
from pipeline.model.ranks import by_first, copy_of_first, is_first, joined_arrays, own_clips
from pipeline.pseudo_labels.artifact import PseudoLabels, write_pseudo_labels
from pipeline.training.history import EpochTimer
from pipeline.training.live.steps import EpochSteps
from pipeline.training.live.view import LiveView
from pipeline.training.run import TrainingRun
from pipeline.training.state import TrainingState, finish, is_done, resume_or_start, save


def train_run(run: TrainingRun) -> None:
    """Train one run until its last epoch, or until it converges, and write its pseudo-labels, history and model."""
    # The initial model and its pseudo-labels, or the state after the last completed epoch of an interrupted run.
    state = resume_or_start(run)
    with LiveView(run, state) as view:
        # All epochs, or until the results converge.
        while not is_done(run, state):
            epoch, timer = state.epoch + 1, EpochTimer()
            # Some methods prepare an epoch; DSOL, for example, clusters the training set. If there are several ranks, the first one does
            # it, and the others get its weights and buffers.
            by_first(partial(start_epoch, run, state, epoch))
            copy_of_first(state.model)
            # Each batch contains R̃ of the previous epoch, and the relation y (Eq. 6) computed from ã.
            batches = timer.waiting(run.batches(epoch, cell_stride=state.model.cell_stride, labels=state.labels))
            # One step per batch: Eq. 4, 5 and 7, or Eq. 3 in the initialization.
            measured = train_epoch(run, state, batches, view.steps(epoch))
            timer.trained()
            # Eq. 1 with the new weights gives the pseudo-labels for the next epoch.
            previous = state.labels
            # Methods that do not learn from pseudo-labels label only the epochs that are kept for inspection.
            state.labels = label_training_set(run, state, epoch) if run.spec.writes_labels(epoch) else None
            timer.labeled()
            row = {"epoch": epoch, "steps": epoch * run.n_steps, **measured}
            # Collapsed? Measured on a sample, without boxes.
            row |= by_first(partial(run.measure, state.model, state.labels, previous))
            state.history.append({**row, **timer.timings(run.n_pairs)})
            if is_first():
                run.on_epoch(epoch, TrainedModel(state.model, run.method))
            # The pseudo-labels are on disk, the state is written last: if killed in between, the run repeats this epoch.
            by_first(partial(save, run, state))
            view.epoch_ended()
    by_first(partial(finish, run, state))


def start_epoch(run: TrainingRun, state: TrainingState, epoch: int) -> None:
    """Let the method prepare an epoch, and store the arrays that it returns."""
    spec = run.spec
    model, seed = state.model.eval(), run.start_seed(epoch)
    arrays = run.method.start_epoch(model, run.shards, state.labels, epoch=epoch, seed=seed)
    if arrays:
        attributes: dict[str, str | int] = {"epoch": epoch, "method": spec.method}
        attributes |= {"fingerprint": run.folder.fingerprint, "shards": spec.shards}
        clip_ids = {"clip_id": (("clip",), ascii_ids(run.shards.clip_ids))}
        write_arrays(run.folder.start(epoch), {**clip_ids, **arrays}, attributes)


def train_epoch(
    run: TrainingRun, state: TrainingState, batches: Iterable[Batch], steps: EpochSteps
) -> dict[str, float]:
    """Take one step per batch; return what `history.csv` has about the batches: `loss`, `loss_share` and `positives_per_clip`."""
    state.model.train()
    with steps as after_step:
        for batch in batches:
            with autocast(run.device):
                loss = run.method.loss(state.model, batch)
            # A GPU is still computing here: nothing may read a tensor before the step, nor wait for one.
            state.optimizer.zero_grad(set_to_none=True)
            state.scaler.scale(loss).backward()
            state.step()
            after_step(batch, loss, run.method.uninformed_loss(state.model, batch))
    return steps.measures()


def label_training_set(run: TrainingRun, state: TrainingState, epoch: int) -> PseudoLabels:
    """Label the training set with the current weights (Eq. 1), or their average; write the artifact, and open it."""
    model = TrainedModel(state.labeler, run.method)
    batch_size = run.spec.batch_size
    clips = own_clips(len(run.shards), batch_size)
    # Labels are stored in half precision, which has as many bits as TF32.
    found = (
        model.predict(run.shards, batch_size=batch_size, device=run.device, clips=clips, precision="tf32")
        if clips
        else None
    )
    by_first(partial(_write_labels, run, epoch, joined_arrays(found)))
    return PseudoLabels.open(run.folder.labels(run.spec.labels_epoch(epoch)))


def _write_labels(run: TrainingRun, epoch: int, arrays: Sequence[np.ndarray]) -> None:
    response, audio = arrays
    if not (np.isfinite(response).all() and np.isfinite(audio).all()):
        raise DivergenceError(f"{run.spec.name}, epoch {epoch}: the responses are not finite; lower the learning rate")
    path = run.folder.labels(run.spec.labels_epoch(epoch))
    attributes = run.spec.label_attributes(epoch, audio)
    write_pseudo_labels(path, PseudoLabels.from_responses(run.shards.clip_ids, response, audio, **attributes))
