"""The folder of a training run: what lies where, when to go on, when to start afresh, and who may write.

```
FOLDER/  pseudo_labels/epoch_000.h5 …  history.csv  model.pt      of the first seed
         timings.csv                                               differs from run to run; DVC leaves it out
         state.pt                                                  only while the run is incomplete
         seed_<seed>/ …                                            the same, of each further seed
```
A run goes on where it stood if and only if its fingerprint is unchanged AND the stage is incomplete; otherwise its files are
removed first. ``model.pt`` comes last, so a run is complete when it has one with the right fingerprint.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipeline.checkpoints import read_checkpoint
from pipeline.errors import CheckpointError, TrainingError


@dataclass(frozen=True)
class Run:
    """One seed's folder, and the fingerprint of all that decides its contents."""

    folder: Path
    fingerprint: str

    @property
    def model(self) -> Path:
        """The finished model."""
        return self.folder / "model.pt"

    @property
    def state(self) -> Path:
        """Where an incomplete run stands."""
        return self.folder / "state.pt"

    @property
    def history(self) -> Path:
        """One row per epoch."""
        return self.folder / "history.csv"

    @property
    def timings(self) -> Path:
        """Seconds and throughput, one row per epoch."""
        return self.folder / "timings.csv"

    def labels(self, epoch: int) -> Path:
        """The pseudo-labels that the weights at the end of `epoch` gave; 0 is the initialisation."""
        return labels_path(self.folder, epoch)

    def is_complete(self) -> bool:
        """Tell whether the run has ended under this fingerprint."""
        return _read(self.model, self.fingerprint) is not None

    def saved_state(self) -> dict[str, Any] | None:
        """Return the contents of ``state.pt``, or None where there is none of this fingerprint."""
        return _read(self.state, self.fingerprint)

    def wipe(self) -> None:
        """Remove this run's files; folders of other seeds stay."""
        shutil.rmtree(self.folder / "pseudo_labels", ignore_errors=True)
        for path in (self.model, self.state, self.history, self.timings):
            path.unlink(missing_ok=True)

    def finish(self) -> None:
        """Remove what only an incomplete run needs."""
        self.state.unlink(missing_ok=True)


def labels_path(folder: Path, epoch: int) -> Path:
    """Path of an epoch's pseudo-labels in a run's folder."""
    return folder / "pseudo_labels" / f"epoch_{epoch:03d}.h5"


def seed_folder(folder: Path, seeds: Sequence[int], seed: int) -> Path:
    """The folder of one seed of a run: `folder` itself for the first, ``seed_<seed>`` in it for each further one."""
    return folder if seed == seeds[0] else folder / f"seed_{seed}"


def begin(folder: Path, runs: Sequence[Run]) -> list[Run]:
    """Clear a stage's folder of what does not belong, and return the runs that are still to be done.

    If all runs are complete, they were asked for once more: all are wiped and returned.
    """
    own = {run.folder for run in runs}
    for stale in set(folder.glob("seed_*")) - own:
        shutil.rmtree(stale)
    for run in runs:
        # What a kill in the middle of writing left behind.
        for temporary in (*run.folder.glob("*.tmp"), *run.folder.glob("pseudo_labels/*.tmp")):
            temporary.unlink()
    todo = [run for run in runs if not run.is_complete()]
    for run in set(runs) - set(todo):
        run.finish()
    if not todo:
        todo = list(runs)
        for run in runs:
            run.wipe()
    return todo


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a second process from writing the same folder.

    Raises
    ------
    TrainingError
        Another process holds the folder.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = folder.parent / f".{folder.name}.lock"
    try:
        # The system frees the lock when its holder dies, so a killed run never has to be unlocked by hand.
        with FileLock(path, timeout=0):
            yield
    except Timeout:
        raise TrainingError(f"{folder}: another process is training here ({path} is locked); wait for it") from None


def _read(path: Path, fingerprint: str) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        content = read_checkpoint(path)
    except CheckpointError:
        return None
    return content if content.get("fingerprint") == fingerprint else None
