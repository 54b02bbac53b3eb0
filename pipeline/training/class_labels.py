"""Classes of the training clips, for the methods that learn from labels as well.

Conventions
-----------
Targets (clip, class) float32 are in [0, 1], the classes in alphabetical order. A clip list names the classes of a clip in its
column ``label``, several joined by ``+``. A label file is a CSV file of its own, either with the columns ``clip_id,
label``, in the same way, or with ``clip_id`` and one column for each class that holds its probability, such as the output
of a pretrained tagger; it may have more clips than the training set, which are passed over.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.common.errors import ManifestError
from pipeline.manifests.clips import Clip
from pipeline.manifests.prepared import read_prepared_clips

SEPARATOR = "+"


@dataclass(frozen=True)
class ClipClasses:
    """What each clip of a training set shows and sounds like.

    Attributes
    ----------
    names : tuple of str
        The classes, sorted.
    targets : np.ndarray (clip, class) float32 in [0, 1]
        In the order of the shards.
    """

    names: tuple[str, ...]
    targets: np.ndarray


def read_clip_classes(clips: Path, split: str, clip_ids: Sequence[str], *, label_file: Path | None) -> ClipClasses:
    """Read the classes of some clips.

    Parameters
    ----------
    clips : Path
        ``data/NAME/clips.csv``; not read if there is a label file.
    split : str
        Which of its clips.
    clip_ids : sequence of str
        The clips wanted, in this order.
    label_file : Path, optional
        Takes the place of the clip list's labels.

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
    """Find the classes of some clips in a clip list that is read already, or in a label file.

    Parameters
    ----------
    clips : sequence of Clip
        The list; not looked at if there is a label file.
    clip_ids : sequence of str
        The clips wanted, in this order.
    where : Path
        Where the list stands, for messages.
    label_file : Path, optional
        Takes the place of the list's labels.

    Raises
    ------
    ManifestError
        The label file is missing or malformed, or a clip has no label.
    """
    if label_file is not None:
        return _read_label_file(label_file, clip_ids)
    labels = {clip.clip_id: _names(clip.label) for clip in clips}
    return _named(labels, clip_ids, f"{where}, column label")


def read_label_sets(clips: Path, split: str, clip_ids: Sequence[str]) -> list[frozenset[str]]:
    """Read the classes of some clips where they are known, to measure with, never to learn from.

    Parameters
    ----------
    clips : Path
        ``data/NAME/clips.csv``.
    split : str
        Which of its clips.
    clip_ids : sequence of str
        The clips wanted, in this order.

    Returns
    -------
    list of frozenset of str
        Empty where a clip has no label.

    Raises
    ------
    ManifestError
        The file is missing or malformed, or has no such split.
    """
    labels = {clip.clip_id: frozenset(_names(clip.label)) for clip in read_prepared_clips(clips, split)}
    return [labels.get(clip_id, frozenset()) for clip_id in clip_ids]


def _named(labels: Mapping[str, Sequence[str]], clip_ids: Sequence[str], where: str) -> ClipClasses:
    """Return the classes of clips that have them by name, each with the probability 1."""
    _refuse([clip_id for clip_id in clip_ids if not labels.get(clip_id)], clip_ids, where)
    names = sorted({name for clip_id in clip_ids for name in labels[clip_id]})
    column = {name: place for place, name in enumerate(names)}
    targets = np.zeros((len(clip_ids), len(names)), dtype=np.float32)
    for row, clip_id in enumerate(clip_ids):
        targets[row, [column[name] for name in labels[clip_id]]] = 1
    return ClipClasses(tuple(names), targets)


def _refuse(without: Sequence[str], clip_ids: Sequence[str], where: str) -> None:
    if without:
        raise ManifestError(
            f"{where}: {len(without)} of {len(clip_ids)} training clips have no label, the first is {without[0]!r}; "
            "a method that learns from labels needs one for each: add them, set the method's `label_file`, or take it out of "
            "`variants`"
        )


def _read_label_file(path: Path, clip_ids: Sequence[str]) -> ClipClasses:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file)
            header = next(rows, [])
            if len(header) < 2 or header[0] != "clip_id" or len(set(header)) != len(header):
                raise ManifestError(f"{path}:1: the columns are clip_id, then label, or clip_id and one for each class")
            wanted = _wanted_rows(rows, header, clip_ids, path)
            if header[1:] == ["label"]:
                return _named({clip_ids[place]: _names(cells[0]) for place, cells, _ in wanted}, clip_ids, str(path))
            return _probabilities(wanted, header[1:], clip_ids, path)
    except FileNotFoundError:
        raise ManifestError(f"{path}: no such label file; mend `label_file` in params.yaml") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(f"{path}: not readable as CSV: {error}") from None


def _wanted_rows(
    rows: Iterator[list[str]], header: Sequence[str], clip_ids: Sequence[str], path: Path
) -> Iterator[tuple[int, list[str], str]]:
    """Yield place in `clip_ids`, cells after the id, and where they stand, of the clips wanted: one row at a time in memory."""
    places = {clip_id: place for place, clip_id in enumerate(clip_ids)}
    seen = set()
    for number, row in enumerate(rows, start=2):
        where = f"{path}:{number}"
        if len(row) != len(header):
            raise ManifestError(f"{where}: {len(row)} cells, the header has {len(header)}")
        if row[0] in seen:
            raise ManifestError(f"{where}: clip_id {row[0]!r} stands in the file twice")
        if row[0] in places:
            seen.add(row[0])
            yield places[row[0]], row[1:], where


def _probabilities(
    wanted: Iterator[tuple[int, list[str], str]], names: Sequence[str], clip_ids: Sequence[str], path: Path
) -> ClipClasses:
    """Return the classes of a tagger's output; its columns may be hundreds, in any order."""
    order = sorted(range(len(names)), key=lambda i: names[i])
    targets = np.full((len(clip_ids), len(names)), np.nan, dtype=np.float32)
    for place, cells, where in wanted:
        targets[place] = [_probability(cells[i], names[i], where) for i in order]
    missing = np.flatnonzero(np.isnan(targets[:, 0])).tolist()
    _refuse([clip_ids[place] for place in missing], clip_ids, str(path))
    return ClipClasses(tuple(names[i] for i in order), targets)


def _names(label: str) -> list[str]:
    return [name.strip() for name in label.split(SEPARATOR) if name.strip()]


def _probability(text: str, name: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise ManifestError(f"{where}: {name} is {text!r}; write a probability from 0 to 1")
    return value
