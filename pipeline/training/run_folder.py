"""The folder of a training run: what lies where, when to go on, and when to start afresh.

```
FOLDER/  pseudo_labels/epoch_000.h5 …  history.csv  model.pt      of the first seed
         weights/epoch_000.pt …                                    model.pt as it was after some of the epochs before
         timings.csv                                               differs from run to run; DVC leaves it out
         state.pt                                                  only while the run is incomplete
         .code                                                     of the program that began it; DVC leaves it out
         seed_<seed>/ …                                            the same without .code, of each further seed
```
A run goes on where it stood if and only if its fingerprint and the program are unchanged AND the stage is incomplete;
otherwise its files are removed first. ``model.pt`` comes last and goes first, so a run is complete when it has one with
the right fingerprint, and nobody took other files away.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.common.errors import CheckpointError
from pipeline.common.files import CODE_FILE, code_digest, write_text
from pipeline.common.project import (
    HISTORY_FILE,
    LABELS_FOLDER,
    MODEL_FILE,
    SEED_PATTERN,
    STATE_FILE,
    TIMINGS_FILE,
    WEIGHTS_FOLDER,
    is_seed_folder,
    labels_path,
    start_path,
    weights_path,
)
from pipeline.common.seeding import evenly_spaced
from pipeline.training.checkpoints import read_checkpoint


@dataclass(frozen=True)
class Run:
    """One seed's folder.

    Attributes
    ----------
    folder : Path
    fingerprint : str
        Of all that decides its contents.
    last_labels : int
        The last epoch with pseudo-labels.
    kept : tuple of int
        The epochs before the last whose weights stay.
    """

    folder: Path
    fingerprint: str
    last_labels: int
    kept: tuple[int, ...] = ()

    @property
    def model(self) -> Path:
        """The finished model."""
        return self.folder / MODEL_FILE

    @property
    def state(self) -> Path:
        """Where an incomplete run stands."""
        return self.folder / STATE_FILE

    @property
    def history(self) -> Path:
        """One row per epoch."""
        return self.folder / HISTORY_FILE

    @property
    def timings(self) -> Path:
        """Seconds and throughput, one row per epoch."""
        return self.folder / TIMINGS_FILE

    def labels(self, epoch: int) -> Path:
        """The pseudo-labels that the weights at the end of `epoch` gave; 0 is the initialization."""
        return labels_path(self.folder, epoch)

    def weights(self, epoch: int) -> Path:
        """The model as it was at the end of an epoch before the last."""
        return weights_path(self.folder, epoch)

    def start(self, epoch: int) -> Path:
        """What the method made of the training set before `epoch`; many methods make nothing."""
        return start_path(self.folder, epoch)

    def has_all_weights(self) -> bool:
        """Tell whether the run has ended under this fingerprint and the present program, and kept every epoch's weights."""
        return self.kept == tuple(range(self.last_labels)) and begun_by_this_program(self.folder) and self.is_complete()

    def is_complete(self) -> bool:
        """Tell whether the run has ended under this fingerprint."""
        written = [self.history, *(self.labels(epoch) for epoch in range(self.last_labels + 1))]
        written += [self.weights(epoch) for epoch in self.kept]
        return _read(self.model, self.fingerprint) is not None and all(path.is_file() for path in written)

    def saved_state(self) -> dict[str, Any] | None:
        """Return the contents of ``state.pt``, or None where there is none of this fingerprint."""
        return _read(self.state, self.fingerprint)

    def wipe(self) -> None:
        """Remove this run's files; folders of other seeds stay."""
        # What makes a run complete, or one to go on with, goes first: a kill in between leaves neither.
        for path in (self.model, self.state, self.history, self.timings):
            path.unlink(missing_ok=True)
        for name in (LABELS_FOLDER, WEIGHTS_FOLDER):
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def finish(self) -> None:
        """Remove what only an incomplete run needs."""
        self.state.unlink(missing_ok=True)


def kept_epochs(last: int, keep: int) -> tuple[int, ...]:
    """Return the epochs before the `last` whose weights a training run keeps, of `keep` in all with the last itself."""
    return tuple(evenly_spaced(last + 1, keep)[:-1])


def begin(folder: Path, runs: Sequence[Run]) -> list[Run]:
    """Clear a stage's folder of what does not belong, and return the runs that are still to be done.

    If all runs are complete, they were asked for once more: all are wiped and returned. So they are if another state of
    the program began the folder, or if nothing tells which did.
    """
    own = {run.folder for run in runs}
    for stale in set(folder.glob(SEED_PATTERN)) - own:
        shutil.rmtree(stale)
    for run in runs:
        # What a kill in the middle of writing left behind.
        for pattern in ("*.tmp", f"{LABELS_FOLDER}/*.tmp", f"{WEIGHTS_FOLDER}/*.tmp"):
            for temporary in run.folder.glob(pattern):
                temporary.unlink()
    todo = [run for run in runs if not run.is_complete()]
    if not todo or not begun_by_this_program(folder):
        todo = list(runs)
        for run in runs:
            run.wipe()
        write_text(folder / CODE_FILE, code_digest())
    for run in set(runs) - set(todo):
        run.finish()
    return todo


def begun_by_this_program(folder: Path) -> bool:
    """Tell whether the program in its present state began the folder of a stage, or of one of its further seeds."""
    code = (folder.parent if is_seed_folder(folder) else folder) / CODE_FILE
    return code.is_file() and code.read_text() == code_digest()


def _read(path: Path, fingerprint: str) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        content = read_checkpoint(path)
    except CheckpointError:
        return None
    return content if content.get("fingerprint") == fingerprint else None
