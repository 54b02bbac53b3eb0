"""Verify the pseudo-labels of a run, and what its method computed before an epoch: complete, and of this run?

Each file is read completely: checksums, types, finite values, consistent fields. Its epoch must match its name, its
fingerprint the run's ``model.pt``, its clips and their fingerprint the shards. The files of a finished run,
including its tables, must have the digests that the run recorded. A file that cannot be read never ends the verification of the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from pipeline.apps.inspection.views import Artifacts
from pipeline.common.errors import SoundspotError
from pipeline.common.files import file_digest
from pipeline.common.hdf5 import verify_arrays
from pipeline.common.project import LABELS_FOLDER, MODEL_FILE, START_PATTERN, labels_path, weights_path
from pipeline.common.reading import parse_json
from pipeline.common.record import read_record
from pipeline.methods.build import method_class
from pipeline.pseudo_labels.artifact import PseudoLabels
from pipeline.pseudo_labels.hdf5_file import unusable
from pipeline.shards.reader import ShardSet
from pipeline.training.checkpoints import RERUN, read_checkpoint
from pipeline.training.run_folder import kept_epochs, labeled_epochs

TRAIN = "train"  # the stage; the other is "initialize"


@dataclass(frozen=True)
class Finding:
    """One file and its problems."""

    path: str
    epoch: int
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Verification:
    """All files of a run; `problems` concern the run as a whole, `notes` list what could not be compared."""

    run: str
    artifacts: list[Finding]
    problems: list[str]
    notes: list[str]

    @property
    def n_problems(self) -> int:
        """Total number of problems."""
        return len(self.problems) + sum(len(each.problems) for each in self.artifacts)


def verify_artifacts(artifacts: Artifacts, *, shards: ShardSet | None) -> Verification:
    """Verify every file of a run.

    Parameters
    ----------
    artifacts : Artifacts
    shards : ShardSet, optional
        Of the training split; None skips the comparison.
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
    if artifacts.is_whole:
        verification.problems.extend(_what_changed(artifacts.run, verification))
    if shards is None:
        verification.notes.append("no shards: clips and fingerprint were not compared with them")
    return verification


@dataclass(frozen=True)
class _Made:
    """Facts from ``model.pt``: the epochs with pseudo-labels, and those before the last whose checkpoints are kept."""

    fingerprint: str
    method: str
    labeled: tuple[int, ...]
    kept: tuple[int, ...]


def _read_model(run: Path, verification: Verification) -> _Made | None:
    model = run / MODEL_FILE
    if not model.exists():
        verification.notes.append(
            f"{model}: missing, so the run is unfinished; fingerprint and number of epochs were not compared"
        )
        return None
    try:
        content = read_checkpoint(model)
        fingerprint, method, epoch = str(content["fingerprint"]), str(content["method"]), int(content["epoch"])
        if content["stage"] != TRAIN:
            return _Made(fingerprint, method, (0,), ())  # the initialization labels once, after its last epoch
        settings = parse_json(content["iteration"], str(model), SoundspotError)
        epochs, keep = int(settings["epochs"]), int(settings["keep_epochs"])
        labeled = labeled_epochs(epochs, keep, needed=method_class(method).reads_labels)
        return _Made(
            fingerprint,
            method,
            tuple(each for each in labeled if each <= epoch),
            tuple(each for each in kept_epochs(epochs, keep) if each < epoch),
        )
    except SoundspotError as error:
        verification.problems.append(str(error))
    except (KeyError, TypeError, ValueError) as error:
        verification.problems.append(
            f"{model}: incomplete description of its run ({type(error).__name__}: {error}); {RERUN}"
        )
    return None


def _what_is_missing(artifacts: Artifacts, made: _Made | None) -> Iterator[str]:
    if made is None:  # which epochs are labeled depends on the method and its settings
        return
    run, there, last = artifacts.run, artifacts.paths, made.labeled[-1]
    for epoch in sorted(set(made.labeled) - there.keys()):
        yield f"{labels_path(run, epoch)}: missing; {run / MODEL_FILE} is of epoch {last}"
    for epoch in sorted(there.keys() - set(made.labeled)):
        reason = (
            f"beyond the last epoch ({last})" if epoch > last else "not one that is labeled, according to the settings"
        )
        yield f"{there[epoch]}: epoch {epoch} is {reason} of {run / MODEL_FILE}"
    for epoch in made.kept:
        path = weights_path(run, epoch)
        try:
            content = read_checkpoint(path)
        except SoundspotError as error:
            yield str(error)
            continue
        if (content.get("fingerprint"), content.get("epoch")) != (made.fingerprint, epoch):
            yield f"{path}: belongs to another run or epoch; {RERUN}"


def _what_changed(run: Path, verification: Verification) -> Iterator[str]:
    """Compare the files with the record of the finished run. Files that were found damaged are not named again."""
    reported = [*verification.problems, *(each.path for each in verification.artifacts if each.problems)]
    try:
        for name, digest in read_record(run).get("files", {}).items():
            path = run / name
            if any(each.startswith(str(path)) for each in reported):
                continue
            if not path.is_file():
                yield f"{path}: missing; {RERUN}"
            elif file_digest(path) != digest:
                yield f"{path}: was modified after the run had finished; {RERUN}"
    except (SoundspotError, OSError) as error:
        yield str(error)


def _problems(path: Path, epoch: int, fingerprint: str | None, shards: ShardSet | None) -> list[str]:
    try:
        labels = PseudoLabels.open(path)
        labels.verify()
    except SoundspotError as error:
        return [str(error).removeprefix(f"{path}: ")]
    problems = []
    if labels.attrs["epoch"] != epoch:
        problems.append(f"its attribute epoch is {labels.attrs['epoch']}")
    if fingerprint is not None and labels.attrs["fingerprint"] != fingerprint:
        problems.append(
            f"belongs to another run than model.pt: fingerprint {labels.attrs['fingerprint']}, not {fingerprint}"
        )
    if shards is not None:
        if labels.attrs["shards"] != shards.fingerprint:
            problems.append(
                f"computed from other shards: fingerprint {labels.attrs['shards']}, not {shards.fingerprint}"
            )
        own, theirs = set(labels.clip_ids), set(shards.clip_ids)
        for names, where in (
            (theirs - own, "of the shards have no pseudo-labels"),
            (own - theirs, "are not in the shards"),
        ):
            if names:
                problems.append(f"{len(names)} clips {where}, such as {min(names)!r}")
    return problems


def _problems_of_start(path: Path, epoch: int, made: _Made | None, shards: ShardSet | None) -> list[str]:
    try:
        attributes, clip_ids = verify_arrays(path, partial(unusable, path))
    except SoundspotError as error:
        return [str(error).removeprefix(f"{path}: ")]
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
        problems.append("its clips differ from those of the shards, or their order does")
    return problems
