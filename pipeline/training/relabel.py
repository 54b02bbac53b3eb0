"""Reuse the checkpoints of a run that trains identically and differs only in how a map is read."""

from __future__ import annotations

import math
import time
from functools import partial

from pipeline.common.errors import TrainingError
from pipeline.model.ranks import by_first
from pipeline.training import checkpoints
from pipeline.training.history import TIMINGS, read_history
from pipeline.training.live.lines import report_epoch
from pipeline.training.loop import label_training_set
from pipeline.training.run import TrainingRun
from pipeline.training.run_folder import RunFolder
from pipeline.training.state import finish, keep_weights, start


def relabel_from_checkpoints(run: TrainingRun, other: RunFolder) -> None:
    """Label the training set with the weights of each epoch of another run; gives the same bytes as training on a CPU.

    Parameters
    ----------
    run : TrainingRun
    other : RunFolder
        A finished run with equal settings that kept the weights of every epoch.
    """
    by_first(run.folder.begin)
    state = start(run)
    for row in read_history(other.history)[1:]:
        begun, epoch, previous = time.perf_counter(), int(row["epoch"]), state.labels
        path = other.weights(epoch) if epoch in other.kept else other.model
        content = checkpoints.read_checkpoint(path)
        if content["fingerprint"] != other.fingerprint:
            raise TrainingError(f"{path}: is being trained again; run this stage again afterward")
        checkpoints.load_weights(state.model, content, path)
        state.labels = label_training_set(run, state, epoch) if run.spec.writes_labels(epoch) else None
        timings = {**dict.fromkeys(TIMINGS[1:], math.nan), "seconds": time.perf_counter() - begun}
        measured = by_first(partial(run.measure, state.model, state.labels, previous))
        state.history.append({**row, **measured, **timings})
        by_first(partial(keep_weights, run, state, epoch))
        report_epoch(run.spec.name, state.history, epochs=run.epochs)
    by_first(partial(finish, run, state))
