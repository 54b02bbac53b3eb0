"""Class labels of the training clips, for methods that learn from them.

Conventions
-----------
Targets (clip, class) are float32 in [0, 1], with classes in alphabetical order. The column ``label`` of a clip list names the classes of
a clip, separated by ``+``. A label file is a separate CSV file. It either has the columns ``clip_id, label``, in the same notation, or
``clip_id`` and one column of probabilities per class, such as the output of a pretrained tagger. Clips outside the training set are
ignored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.common.errors import ManifestError
from pipeline.common.tables import Table, open_table, parse_decimal
from pipeline.manifests.clips import Clip
from pipeline.manifests.prepared import read_prepared_clips

SEPARATOR = "+"


@dataclass(frozen=True)
class ClipClasses:
    """Class labels of a training set.

    Attributes
    ----------
    names : tuple of str
        Class names, sorted.
    targets : np.ndarray (clip, class) float32 in [0, 1]
        In the order of the shards.
    """

    names: tuple[str, ...]
    targets: np.ndarray


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
    return ClipClasses(tuple(names), targets)


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
    wanted: Iterator[tuple[int, list[str], str]], names: Sequence[str], clip_ids: Sequence[str], path: Path
) -> ClipClasses:
    """Convert a tagger's probabilities to targets; the columns may be in any order."""
    # Sorted, so that the order of the file's columns does not affect training.
    order = sorted(range(len(names)), key=lambda i: names[i])
    targets = np.full((len(clip_ids), len(names)), np.nan, dtype=np.float32)  # NaN marks clips without a row
    for index, cells, where in wanted:
        targets[index] = [_probability(cells[i], names[i], where) for i in order]
    missing = np.flatnonzero(np.isnan(targets[:, 0])).tolist()
    _require_labels([clip_ids[index] for index in missing], clip_ids, str(path))
    return ClipClasses(tuple(names[i] for i in order), targets)


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
