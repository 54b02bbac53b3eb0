"""Class labels of the training clips, for methods that learn from them.

Conventions
-----------
Targets (clip, side, class) are float32 in [0, 1], with classes in alphabetical order; side 0 is what is seen in the frame, side 1 what is
heard. NaN marks a side of a clip that is unknown. The column ``label`` of a clip list names the classes of a clip, separated by ``+``; it
is the target of both sides. A label file is a separate CSV file with ``clip_id`` and one of:

- ``label``, in the same notation;
- one column of probabilities per class, for both sides;
- the columns ``seen:CLASS`` and ``heard:CLASS`` for every class, such as those that `soundspot tag` writes. If all cells of a side are
  empty, that side of the clip is unknown.

Clips outside the training set are ignored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.common.errors import ManifestError
from pipeline.common.tables import Table, open_table, parse_decimal
from pipeline.manifests.clips import Clip
from pipeline.manifests.prepared import read_prepared_clips

SEPARATOR = "+"
SIDES = ("seen", "heard")  # prefixes of the columns of a label file with two targets, in the order of the sides


@dataclass(frozen=True)
class ClipClasses:
    """Class labels of a training set.

    Attributes
    ----------
    names : tuple of str
        Class names, sorted.
    targets : np.ndarray (clip, side, class) float32 in [0, 1], or NaN
        In the order of the shards; see the module docstring.
    """

    names: tuple[str, ...]
    targets: np.ndarray

    @property
    def identity(self) -> list[Any]:
        """The names and a digest of the targets, for fingerprints."""
        return [list(self.names), hashlib.sha256(self.targets.tobytes()).hexdigest()]


def read_clip_classes(clips: Path, split: str, clip_ids: Sequence[str], *, label_file: Path | None) -> ClipClasses:
    """Read the class labels of some clips.

    Parameters
    ----------
    clips : Path
        ``data/NAME/clips.csv``; not read if there is a label file.
    split : str
        Which of its clips.
    clip_ids : sequence of str
        The clips to return, in this order.
    label_file : Path, optional
        Used instead of the clip list's labels.

    Raises
    ------
    ManifestError
        A file is missing or malformed, or a clip has no label.
    """
    listed = read_prepared_clips(clips, split) if label_file is None else []
    return classes_of_clips(listed, clip_ids, where=clips, label_file=label_file)


def classes_of_clips(
    clips: Sequence[Clip], clip_ids: Sequence[str], *, where: Path, label_file: Path | None
) -> ClipClasses:
    """Return the class labels of some clips from a clip list in memory, or from a label file.

    Parameters
    ----------
    clips : sequence of Clip
        The clip list; ignored if there is a label file.
    clip_ids : sequence of str
        The clips to return, in this order.
    where : Path
        File of the clip list, for messages.
    label_file : Path, optional
        Used instead of the clip list's labels.

    Raises
    ------
    ManifestError
        The label file is missing or malformed, or a clip has no label.
    """
    if label_file is not None:
        return _read_label_file(label_file, clip_ids)
    labels = {clip.clip_id: _names(clip.label) for clip in clips}
    return _from_names(labels, clip_ids, f"{where}, column label")


def read_label_sets(clips: Path, split: str, clip_ids: Sequence[str]) -> list[frozenset[str]]:
    """Read the class labels of some clips, as far as they are known; for measuring, never for training.

    Parameters
    ----------
    clips : Path
        ``data/NAME/clips.csv``.
    split : str
        Which of its clips.
    clip_ids : sequence of str
        The clips to return, in this order.

    Returns
    -------
    list of frozenset of str
        Empty for a clip without a label.

    Raises
    ------
    ManifestError
        The file is missing or malformed, or has no such split.
    """
    labels = {clip.clip_id: frozenset(_names(clip.label)) for clip in read_prepared_clips(clips, split)}
    return [labels.get(clip_id, frozenset()) for clip_id in clip_ids]


def _from_names(labels: Mapping[str, Sequence[str]], clip_ids: Sequence[str], where: str) -> ClipClasses:
    """Convert class names to targets of 1."""
    _require_labels([clip_id for clip_id in clip_ids if not labels.get(clip_id)], clip_ids, where)
    names = sorted({name for clip_id in clip_ids for name in labels[clip_id]})
    column = {name: number for number, name in enumerate(names)}
    targets = np.zeros((len(clip_ids), len(names)), dtype=np.float32)
    for row, clip_id in enumerate(clip_ids):
        targets[row, [column[name] for name in labels[clip_id]]] = 1
    return ClipClasses(tuple(names), np.stack([targets] * len(SIDES), axis=1))


def _require_labels(without: Sequence[str], clip_ids: Sequence[str], where: str) -> None:
    if without:
        raise ManifestError(
            f"{where}: {len(without)} of {len(clip_ids)} training clips have no label, such as {without[0]!r}; "
            "this method requires class labels: add them, set its `label_file`, or remove it from `variants`"
        )


def _read_label_file(path: Path, clip_ids: Sequence[str]) -> ClipClasses:
    if not path.exists():
        raise ManifestError(f"{path}: no such label file; fix `label_file` in params.yaml")
    with open_table(path) as table:
        _, header = next(table.rows, (1, []))
        if len(header) < 2 or header[0] != "clip_id" or len(set(header)) != len(header):
            raise ManifestError(
                f"{path}:1: the columns must be clip_id and label, or clip_id and one per class, without duplicates"
            )
        wanted = _wanted_rows(table, header, clip_ids)
        if header[1:] == ["label"]:
            return _from_names({clip_ids[index]: _names(cells[0]) for index, cells, _ in wanted}, clip_ids, str(path))
        numbers = ((index, [table.number(cell) for cell in cells], where) for index, cells, where in wanted)
        return _from_probabilities(numbers, header[1:], clip_ids, path)


def _wanted_rows(table: Table, header: Sequence[str], clip_ids: Sequence[str]) -> Iterator[tuple[int, list[str], str]]:
    """Yield, row by row, the index in `clip_ids`, the cells after the id, and the line for messages; skip other clips."""
    # A tagger's output for a whole dataset may not fit into memory: only the requested rows are kept.
    indices = {clip_id: index for index, clip_id in enumerate(clip_ids)}
    seen = set()
    for line, row in table.rows:
        where = f"{table.path}:{line}"
        if len(row) != len(header):
            raise ManifestError(f"{where}: {len(row)} cells, but the header has {len(header)}")
        if row[0] in seen:
            raise ManifestError(f"{where}: duplicate clip_id {row[0]!r}")
        if row[0] in indices:
            seen.add(row[0])
            yield indices[row[0]], row[1:], where


def _from_probabilities(
    wanted: Iterator[tuple[int, list[str], str]], header: Sequence[str], clip_ids: Sequence[str], path: Path
) -> ClipClasses:
    """Convert a tagger's probabilities to targets; the columns may be in any order."""
    names, sides = _columns(header, path)
    targets = np.full((len(clip_ids), len(SIDES), len(names)), np.nan, dtype=np.float32)
    for index, cells, where in wanted:
        for side, columns in enumerate(sides):
            # Only in a file with two targets: an empty cell elsewhere is an error.
            if sides[0] == sides[1] or any(cells[column] for column in columns):
                targets[index, side] = [_probability(cells[column], header[column], where) for column in columns]
    without = np.flatnonzero(np.isnan(targets).all(axis=(1, 2))).tolist()
    _require_labels([clip_ids[index] for index in without], clip_ids, str(path))
    return ClipClasses(names, targets)


def _columns(header: Sequence[str], path: Path) -> tuple[tuple[str, ...], list[list[int]]]:
    """Return the classes, sorted, and the columns of each side in their order."""
    prefixes = [f"{side}:" for side in SIDES]
    with_side = [name for name in header if name.startswith(tuple(prefixes))]
    if not with_side:
        names = sorted(header)
        return tuple(names), [[header.index(name) for name in names]] * len(SIDES)
    names = sorted({name.partition(":")[2] for name in with_side})
    wanted = {prefix + name for prefix in prefixes for name in names}
    if odd := sorted(wanted.symmetric_difference(header)):
        raise ManifestError(
            f"{path}:1: {odd[0]!r} is {'missing' if odd[0] in wanted else 'unexpected'}; a file with two targets has the columns "
            "seen:CLASS and heard:CLASS for every class, and no others"
        )
    return tuple(names), [[header.index(prefix + name) for name in names] for prefix in prefixes]


def _names(label: str) -> list[str]:
    return [name.strip() for name in label.split(SEPARATOR) if name.strip()]


def _probability(text: str, name: str, where: str) -> float:
    try:
        value = parse_decimal(text)
    except ValueError:
        value = -1.0  # rejected below, like NaN
    if not 0 <= value <= 1:
        raise ManifestError(f"{where}: {name} must be a probability between 0 and 1, got {text!r}")
    return value
