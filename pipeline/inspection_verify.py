"""Whether a run's pseudo-labels are whole, and belong to its model and to its shards.

Each artifact is read to the end: checksums, types, finite values, fields that agree with each other. Its epoch must be that
of its name, its fingerprint that of the run's ``model.pt``, its clips and their fingerprint those of the shards.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pipeline.checkpoints import read_checkpoint
from pipeline.errors import CheckpointError, PseudoLabelError
from pipeline.inspection import Artifacts
from pipeline.pseudo_labels import PseudoLabels
from pipeline.runs import labels_path
from pipeline.shards import ShardSet


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
    fingerprint = _model_fingerprint(artifacts.run, verification)
    epochs = list(artifacts.paths)
    for missing in sorted(set(range(epochs[0], epochs[-1])) - set(epochs)):
        verification.problems.append(f"{labels_path(artifacts.run, missing)}: missing between other epochs")
    for epoch, path in artifacts.paths.items():
        verification.artifacts.append(Finding(str(path), epoch, _problems(path, epoch, fingerprint, shards)))
    if shards is None:
        verification.notes.append("no shards: clips and fingerprint were not compared with them")
    return verification


def _model_fingerprint(run: Path, verification: Verification) -> str | None:
    model = run / "model.pt"
    if not model.exists():
        verification.notes.append(f"{model}: not there, so the run is incomplete; the fingerprint was not compared")
        return None
    try:
        return str(read_checkpoint(model)["fingerprint"])
    except (CheckpointError, KeyError) as error:
        verification.problems.append(str(error))
        return None


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
