"""The label file that tagging writes, and its record.

``OUTPUT`` is a label file of `pipeline.training.class_labels`: one target with one classifier, the columns ``seen:CLASS`` and
``heard:CLASS`` with two. ``OUTPUT.json`` records the classifiers, the groups, the clips that could not be tagged, and the SHA-256 of
``OUTPUT``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.apps.tag.frames import FrameModel
from pipeline.apps.tag.parts import Part
from pipeline.apps.tag.sounds import SoundModel
from pipeline.common.errors import TaggingError
from pipeline.common.files import file_digest, write_csv, write_json
from pipeline.common.reading import read_json

PRESENT = 0.5  # probability above which the summary counts a class as present


@dataclass(frozen=True)
class Tagged:
    """What was written.

    Attributes
    ----------
    path : Path
    sides : tuple of str
    groups : tuple of str
    n_clips : int
    present : dict
        Side → number of clips with each group, in the order of `groups`.
    rejected : dict
        Clip id → why its audio could not be tagged.
    kept : bool
        The file was there, made from the same.
    """

    path: Path
    sides: tuple[str, ...]
    groups: tuple[str, ...]
    n_clips: int
    present: dict[str, list[int]]
    rejected: dict[str, str]
    kept: bool


@dataclass(frozen=True)
class SideFacts:
    """How one side was tagged: the classifier, its digest, and the numbers of its classes in each group."""

    model: FrameModel | SoundModel
    digest: str
    members: Mapping[str, Sequence[int]]


def record_path(output: Path) -> Path:
    """Return the path of the record of a label file."""
    return output.with_name(f"{output.name}.json")


def write_labels(
    output: Path,
    results: Mapping[str, Part],
    facts: Mapping[str, SideFacts],
    *,
    dataset: str,
    split: str,
    identity: str,
) -> Tagged:
    """Write a label file and its record.

    Parameters
    ----------
    output : Path
    results, facts : mapping of str to Part and SideFacts
        By side, "seen" or "heard", in this order; with the same clips and groups.
    dataset, split : str
    identity : str
        Fingerprint of everything that the labels were made from.
    """
    names = list(next(iter(facts.values())).members)
    write_csv(output, _header(names, tuple(results)), _rows(results))
    record = {
        "dataset": dataset,
        "split": split,
        "clips": len(next(iter(results.values())).clip_ids),
        "groups": names,
        "sides": {side: _side(facts[side], part) for side, part in results.items()},
        "rejected": {clip_id: reason for part in results.values() for clip_id, reason in part.reasons.items()},
        "fingerprint": identity,
        "sha256": file_digest(output),
    }
    write_json(record_path(output), record)
    return _tagged(output, record, kept=False)


def finished(output: Path, identity: str, *, overwrite: bool) -> Tagged | None:
    """Return an existing result that was made from the same; None if there is none, or it may be replaced."""
    if not output.exists():
        return None
    try:
        record: Any = read_json(record_path(output), TaggingError)
        if record["fingerprint"] == identity and record["sha256"] == file_digest(output):
            return _tagged(output, record, kept=True)
        reason = "was made from other clips, classifiers, groups or settings, or changed afterwards"
    except (TaggingError, KeyError, TypeError):
        reason = f"has no record ({record_path(output).name})"
    if not overwrite:
        raise TaggingError(f"{output}: exists and {reason}; pass --overwrite, or another output")
    return None


def _header(names: Sequence[str], sides: Sequence[str]) -> list[str]:
    if len(sides) == 1:
        return ["clip_id", *names]
    return ["clip_id", *(f"{side}:{name}" for side in sides for name in names)]


def _rows(results: Mapping[str, Part]) -> Iterator[list[str]]:
    clip_ids = next(iter(results.values())).clip_ids
    for row, clip_id in enumerate(clip_ids):
        values = np.concatenate([part.probability[row] for part in results.values()])
        yield [clip_id, *("" if np.isnan(value) else f"{value:.4f}" for value in values)]


def _side(facts: SideFacts, part: Part) -> dict[str, Any]:
    settings = vars(facts.model).items()
    return {
        "classifier": {**{name: _without_folder(value) for name, value in settings}, "digest": facts.digest},
        "members": {name: list(numbers) for name, numbers in facts.members.items()},
        "present": (part.probability > PRESENT).sum(axis=0).tolist(),
    }


def _without_folder(value: Any) -> Any:
    # The location of a file is not a property of the labels; the digest identifies the file.
    return (
        Path(value).name if isinstance(value, Path) or (isinstance(value, str) and Path(value).is_absolute()) else value
    )


def _tagged(output: Path, record: Mapping[str, Any], *, kept: bool) -> Tagged:
    return Tagged(
        path=output,
        sides=tuple(record["sides"]),
        groups=tuple(record["groups"]),
        n_clips=record["clips"],
        present={side: each["present"] for side, each in record["sides"].items()},
        rejected=dict(record["rejected"]),
        kept=kept,
    )
