"""Whether a run's pseudo-labels, and what a method made before an epoch, are whole and belong to its model and shards.

Each artifact is read to the end: checksums, types, finite values, fields that agree with each other. Its epoch must be that
of its name, its fingerprint that of the run's ``model.pt``, its clips and their fingerprint those of the shards.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.apps.inspection.views import Artifacts
from pipeline.common.errors import CheckpointError, PseudoLabelError
from pipeline.common.hdf5 import READ_ERRORS, verify_arrays
from pipeline.common.project import LABELS_FOLDER, MODEL_FILE, START_PATTERN, labels_path, weights_path
from pipeline.pseudo_labels.artifact import PseudoLabels
from pipeline.shards.reader import ShardSet
from pipeline.training.checkpoints import RERUN, read_checkpoint
from pipeline.training.run_folder import kept_epochs

TRAIN = "train"  # the stage; the other is "initialize"


@dataclass(frozen=True)
class Finding:
    """One artifact and what is wrong with it."""

    path: str
    epoch: int
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Verification:
    """All artifacts of a run; `problems` are those of the run as a whole, `notes` tell what could not be compared."""

    run: str
    artifacts: list[Finding]
    problems: list[str]
    notes: list[str]

    @property
    def n_problems(self) -> int:
        """How many problems there are in all."""
        return len(self.problems) + sum(len(each.problems) for each in self.artifacts)


def verify_artifacts(artifacts: Artifacts, *, shards: ShardSet | None) -> Verification:
    """Verify every artifact of a run.

    Parameters
    ----------
    artifacts : Artifacts
    shards : ShardSet, optional
        Of the training split; None compares none.
    """
    verification = Verification(str(artifacts.run), [], [], [])
    made = _read_model(artifacts.run, verification)
    if artifacts.is_whole:
        verification.problems.extend(_what_is_missing(artifacts, made))
    fingerprint = made.fingerprint if made else None
    for epoch, path in artifacts.paths.items():
        verification.artifacts.append(Finding(str(path), epoch, _problems(path, epoch, fingerprint, shards)))
    for path in sorted(artifacts.run.glob(f"{LABELS_FOLDER}/{START_PATTERN}")) if artifacts.is_whole else ():
        number = path.stem.removeprefix("start_")
        if not number.isdigit():
            continue
        epoch = int(number)
        verification.artifacts.append(Finding(str(path), epoch, _problems_of_start(path, epoch, made, shards)))
    if shards is None:
        verification.notes.append("no shards: clips and fingerprint were not compared with them")
    return verification


@dataclass(frozen=True)
class _Made:
    """What ``model.pt`` says of its run: the last epoch with pseudo-labels, and those before it whose weights stay."""

    fingerprint: str
    method: str
    last: int
    kept: tuple[int, ...]


def _read_model(run: Path, verification: Verification) -> _Made | None:
    model = run / MODEL_FILE
    if not model.exists():
        verification.notes.append(
            f"{model}: not there, so the run is incomplete; neither the fingerprint nor the number of epochs was compared"
        )
        return None
    try:
        content = read_checkpoint(model)
        fingerprint, method, epoch = str(content["fingerprint"]), str(content["method"]), int(content["epoch"])
        if content["stage"] != TRAIN:
            return _Made(
                fingerprint, method, 0, ()
            )  # the initialization labels once, whatever the number of its epochs
        return _Made(
            fingerprint, method, epoch, kept_epochs(epoch, int(json.loads(content["iteration"])["keep_epochs"]))
        )
    except CheckpointError as error:
        verification.problems.append(str(error))
    except (KeyError, TypeError, ValueError) as error:
        verification.problems.append(f"{model}: does not describe its run ({type(error).__name__}: {error}); {RERUN}")
    return None


def _what_is_missing(artifacts: Artifacts, made: _Made | None) -> Iterator[str]:
    run, there = artifacts.run, artifacts.paths
    last = made.last if made else max(there)
    for epoch in sorted(set(range(last + 1)) - there.keys()):
        yield f"{labels_path(run, epoch)}: missing" + (
            f"; {run / MODEL_FILE} is of epoch {last}" if made else " before others"
        )
    for epoch in sorted(each for each in there if each > last):
        yield f"{there[epoch]}: of an epoch that {run / MODEL_FILE}, of epoch {last}, knows nothing of"
    for epoch in made.kept if made else ():
        path = weights_path(run, epoch)
        try:
            content = read_checkpoint(path)
        except CheckpointError as error:
            yield str(error)
            continue
        if made and (content.get("fingerprint"), content.get("epoch")) != (made.fingerprint, epoch):
            yield f"{path}: not of this run and epoch; {RERUN}"


def _problems(path: Path, epoch: int, fingerprint: str | None, shards: ShardSet | None) -> list[str]:
    try:
        labels = PseudoLabels.open(path)
        labels.verify()
    except PseudoLabelError as error:
        return [str(error).removeprefix(f"{path}: ")]
    problems = []
    if labels.attrs["epoch"] != epoch:
        problems.append(f"says that it is of epoch {labels.attrs['epoch']}")
    if fingerprint is not None and labels.attrs["fingerprint"] != fingerprint:
        problems.append(f"of another run than model.pt: fingerprint {labels.attrs['fingerprint']}, not {fingerprint}")
    if shards is not None:
        if labels.attrs["shards"] != shards.fingerprint:
            problems.append(f"made from other shards: fingerprint {labels.attrs['shards']}, not {shards.fingerprint}")
        own, theirs = set(labels.clip_ids), set(shards.clip_ids)
        for names, where in ((theirs - own, "of the shards have no labels"), (own - theirs, "are not in the shards")):
            if names:
                problems.append(f"{len(names)} clips {where}, such as {min(names)!r}")
    return problems


def _problems_of_start(path: Path, epoch: int, made: _Made | None, shards: ShardSet | None) -> list[str]:
    try:
        attributes, clip_ids = verify_arrays(path)
    except READ_ERRORS as error:
        return [f"not whole ({error}); {RERUN}"]
    expected: dict[str, str | int] = {"epoch": epoch}
    if made is not None:
        expected |= {"method": made.method, "fingerprint": made.fingerprint}
    if shards is not None:
        expected["shards"] = shards.fingerprint
    problems = [
        f"{name} {attributes.get(name)}, not {value}"
        for name, value in expected.items()
        if attributes.get(name) != value
    ]
    if shards is not None and clip_ids != shards.clip_ids:
        problems.append("its clips are not those of the shards, or in another order")
    return problems
