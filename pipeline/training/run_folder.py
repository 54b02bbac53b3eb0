"""The folder of one seed's training run: its files, and whether it is finished, resumable or stale.

```
FOLDER/  pseudo_labels/epoch_000.h5 …  history.csv  model.pt
         weights/epoch_000.pt …        the model after earlier epochs
         timings.csv                   differs between runs; DVC ignores it
         state.pt                      only while the run is unfinished
         .record.json                  digest of the code and, once finished, the checksum of every file
```
A run is kept only if its fingerprint (settings, data, initial model) and the code in its import closure are unchanged. A finished run
must also pass the verification of its checksums; an unfinished one is resumed. Everything else is removed before training.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from pipeline.common import project
from pipeline.common.errors import CheckpointError
from pipeline.common.files import file_digest, remove_leftovers
from pipeline.common.record import changed_code, read_record, write_record
from pipeline.common.seeding import evenly_spaced
from pipeline.training.checkpoints import read_checkpoint

_FILES_OF_EPOCHS = (
    (project.LABELS_FOLDER, project.LABELS_PATTERN),
    (project.LABELS_FOLDER, project.START_PATTERN),
    (project.WEIGHTS_FOLDER, project.WEIGHTS_PATTERN),
)


class Status(Enum):
    """The status of a run folder."""

    EMPTY = "empty"
    RESUMABLE = "resumable"
    FINISHED = "finished"
    STALE = "stale"


@dataclass(frozen=True)
class RunFolder:
    """One seed's folder.

    Attributes
    ----------
    path : Path
    fingerprint : str
        Identifies the settings, the data and the initial model.
    code : str
        Digest of the code that trains the run, see `pipeline.common.code`.
    labeled : tuple of int
        The epochs with pseudo-labels, in ascending order, if the run trains all its epochs.
    kept : tuple of int
        The epochs before the last whose weights are kept.
    """

    path: Path
    fingerprint: str
    code: str
    labeled: tuple[int, ...]
    kept: tuple[int, ...] = ()

    @property
    def model(self) -> Path:
        """The finished model."""
        return self.path / project.MODEL_FILE

    @property
    def state(self) -> Path:
        """Weights, optimizer and history of an unfinished run."""
        return self.path / project.STATE_FILE

    @property
    def history(self) -> Path:
        """One row per epoch."""
        return self.path / project.HISTORY_FILE

    @property
    def timings(self) -> Path:
        """Seconds and throughput, one row per epoch."""
        return self.path / project.TIMINGS_FILE

    def labels(self, epoch: int) -> Path:
        """Pseudo-labels from the weights at the end of `epoch`; 0 is the initialization."""
        return project.labels_path(self.path, epoch)

    def weights(self, epoch: int) -> Path:
        """The model at the end of an epoch before the last."""
        return project.weights_path(self.path, epoch)

    def start(self, epoch: int) -> Path:
        """Arrays that the method computed before `epoch`; most methods have none."""
        return project.start_path(self.path, epoch)

    def status(self) -> tuple[Status, str]:
        """Return the status and, if it is stale, the reason.

        Reads every file of a finished run to verify its checksum.
        """
        record = read_record(self.path)
        if not (self.model.exists() or self.state.exists()):
            return (Status.STALE, f"{self.model.name} is missing") if "files" in record else (Status.EMPTY, "")
        if reason := changed_code(record, self.code):
            return Status.STALE, reason
        # Both files exist if a run was killed in `finish`; it then resumes after its last epoch.
        finished = "files" in record and not self.state.exists()
        path = self.model if finished else self.state
        if not path.is_file():
            return Status.STALE, f"{path.name} is missing"
        try:
            content = read_checkpoint(path)
        except CheckpointError:
            return Status.STALE, f"{path.name} is damaged"
        if content.get("fingerprint") != self.fingerprint:
            return Status.STALE, "its settings, its training data or its initial model changed"
        if not finished:
            return Status.RESUMABLE, ""
        damage = self._damage(record["files"])
        return (Status.STALE, damage) if damage else (Status.FINISHED, "")

    def has_all_weights(self) -> bool:
        """Return whether the run is finished and kept the weights of every epoch."""
        return self.kept == tuple(range(self.labeled[-1])) and self.status()[0] is Status.FINISHED

    def saved_state(self) -> dict[str, Any] | None:
        """Return the content of ``state.pt``; None if it is missing, damaged, or has another fingerprint."""
        try:
            content = read_checkpoint(self.state)
        except CheckpointError:
            return None
        return content if content.get("fingerprint") == self.fingerprint else None

    def begin(self) -> None:
        """Remove this run's files, but not the folders of other seeds, and record the current code."""
        # First the files that make a run finished or resumable, so that a kill in between leaves neither.
        for path in (self.model, self.state, self.path / project.RECORD_FILE, self.history, self.timings):
            path.unlink(missing_ok=True)
        for name in (project.LABELS_FOLDER, project.WEIGHTS_FOLDER):
            if (self.path / name).exists():
                shutil.rmtree(self.path / name)
        write_record(self.path, code=self.code)

    def finish(self, last_labels: int, kept: Sequence[int]) -> None:
        """Record the checksum of every file, then remove ``state.pt``.

        Parameters
        ----------
        last_labels : int
            The last epoch with pseudo-labels; before that of the attributes if the run has converged.
        kept : sequence of int
            The epochs whose weights are kept.
        """
        written = self._written(last_labels, kept)
        checksums = {path.relative_to(self.path).as_posix(): file_digest(path) for path in written}
        # The record first: a run without a state and without checksums would be stale.
        write_record(self.path, code=self.code, files=checksums)
        self.state.unlink(missing_ok=True)

    def remove_temporary_files(self) -> None:
        """Remove temporary files of interrupted writes."""
        remove_leftovers(self.path, self.path / project.LABELS_FOLDER, self.path / project.WEIGHTS_FOLDER)

    def _written(self, last_labels: int, kept: Sequence[int]) -> list[Path]:
        labels = [self.labels(epoch) for epoch in self.labeled if epoch <= last_labels]
        starts = sorted((self.path / project.LABELS_FOLDER).glob(project.START_PATTERN))
        return [self.model, self.history, *labels, *starts, *map(self.weights, kept)]

    def _damage(self, checksums: dict[str, str]) -> str:
        for name, checksum in checksums.items():
            path = self.path / name
            if not path.is_file():
                return f"{name} is missing"
            if file_digest(path) != checksum:
                return f"{name} was modified"
        # A file of another run would be read as one of its epochs. Other files, such as .DS_Store, are no reason to train again.
        for folder, pattern in _FILES_OF_EPOCHS:
            for path in sorted((self.path / folder).glob(pattern)):
                if path.relative_to(self.path).as_posix() not in checksums:
                    return f"{folder}/{path.name} does not belong to the run"
        return ""


def kept_epochs(last: int, keep: int) -> tuple[int, ...]:
    """Return the epochs before `last` whose weights are kept, so that with `last` they are `keep` evenly spaced epochs."""
    return tuple(evenly_spaced(last + 1, keep)[:-1])


def labeled_epochs(last: int, keep: int, *, needed: bool) -> tuple[int, ...]:
    """Return the epochs after which the training set is labeled: all if the next epoch needs the labels, or those with weights, and `last`."""
    return tuple(range(last + 1)) if needed else (*kept_epochs(last, keep), last)
