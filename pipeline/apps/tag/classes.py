"""The classes of a pretrained classifier, and how they are summed up to the classes of a label file.

Conventions
-----------
A class has a number from 0, and names: for ImageNet its WordNet id and each of its synonyms, for AudioSet its display name and its id.
Case does not matter. A groups file is a table with the columns ``side, class, group``: side is ``seen`` or ``heard``, class is a number,
a range of numbers such as ``151-268``, or a name. A class may be in one group per side; classes in no group are ignored.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from pipeline.common.errors import TaggingError
from pipeline.common.reading import read_text
from pipeline.common.tables import read_records
from pipeline.training.class_labels import SIDES

GROUP_COLUMNS = ("side", "class", "group")
_NAME_COLUMNS = ("display_name", "name")  # the first is that of AudioSet's and YAMNet's own lists
_RANGE = re.compile(r"(\d+)(?:-(\d+))?")


@dataclass(frozen=True)
class ClassList:
    """The classes of a classifier, in the order of its outputs.

    Attributes
    ----------
    names : tuple of str
        For output; all different.
    aliases : tuple of tuple of str
        For each class, the names by which a groups file can refer to it.
    """

    names: tuple[str, ...]
    aliases: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, names: Sequence[str], ids: Sequence[str] | None = None) -> ClassList:
        """Make a list from display names, and an id for each if there are any. A repeated name gets its id or its number."""
        count = Counter(names)
        unique = [
            name if count[name] == 1 else f"{name} ({ids[number] if ids else number})"
            for number, name in enumerate(names)
        ]
        aliases = tuple((name, *((ids[number],) if ids else ())) for number, name in enumerate(names))
        return cls(tuple(unique), aliases)


@dataclass(frozen=True)
class Groups:
    """The classes of a label file, and the numbers of a classifier's classes that belong to each."""

    names: tuple[str, ...]
    members: tuple[tuple[int, ...], ...]

    @classmethod
    def each_class(cls, classes: ClassList) -> Groups:
        """Return one group per class."""
        order = sorted(range(len(classes.names)), key=lambda number: classes.names[number])
        return cls(tuple(classes.names[number] for number in order), tuple((number,) for number in order))

    def collect(self, probabilities: np.ndarray, *, exclusive: bool) -> np.ndarray:
        """Return the probability of each group: (…, class) -> (…, group).

        Parameters
        ----------
        probabilities : np.ndarray (…, class) floating, in [0, 1]
        exclusive : bool
            True for a softmax, whose classes exclude each other: the sum, which is the probability of the group. False for independent
            tags: the largest. A sum as in MSSL's code would count overlapping tags (Dog, Bark) twice, and exceed 1; ours.
        """
        merge = np.sum if exclusive else np.max
        parts = [merge(probabilities[..., list(members)], axis=-1) for members in self.members]
        collected: np.ndarray = np.clip(np.stack(parts, axis=-1), 0, 1)
        return collected


def read_class_names(path: Path) -> ClassList:
    """Read the names of a classifier's classes: a ``.txt`` file with one per line, or a table.

    A table has the column ``display_name`` or ``name``, and optionally ``index`` (0, 1, …) and ``mid``, as AudioSet's
    ``class_labels_indices.csv`` and YAMNet's ``yamnet_class_map.csv``.

    Raises
    ------
    TaggingError
        The file is missing or malformed.
    """
    if path.suffix.lower() == ".txt":
        names = [line.strip() for line in read_text(path, TaggingError).splitlines() if line.strip()]
        if not names:
            raise TaggingError(f"{path}: no names")
        return ClassList.of(names)
    records = read_records(path, TaggingError)
    column = next((name for name in _NAME_COLUMNS if records and name in records[0]), None)
    if column is None:
        raise TaggingError(
            f"{path}: no column display_name or name, or no rows; for one name per line, use a .txt file"
        )
    for number, record in enumerate(records):
        if record.get("index", str(number)) != str(number):
            raise TaggingError(
                f"{path}: index {record['index']!r} in row {number}; the rows must be in the order 0, 1, …"
            )
        if not record[column]:
            raise TaggingError(f"{path}: row {number} has no name")
    return ClassList.of(
        [record[column] for record in records],
        [record["mid"] for record in records] if "mid" in records[0] else None,
    )


def read_groups(path: Path, classes: Mapping[str, ClassList]) -> dict[str, Groups]:
    """Read a groups file for the classifiers of each side.

    Parameters
    ----------
    path : Path
    classes : mapping of str to ClassList
        Side ("seen", "heard") → classes of its classifier. Rows of other sides are ignored.

    Raises
    ------
    TaggingError
        The file is missing or malformed, or a class does not exist, is ambiguous or in two groups; or two sides have different groups,
        which a method that compares them cannot use.
    """
    members: dict[str, dict[str, list[int]]] = {side: defaultdict(list) for side in classes}
    numbers = {side: _numbers(each) for side, each in classes.items()}
    for row, record in enumerate(read_records(path, TaggingError), start=2):
        where = f"{path}, row {row}"
        if set(record) != set(GROUP_COLUMNS):
            raise TaggingError(f"{path}:1: the columns must be {', '.join(GROUP_COLUMNS)}, got {', '.join(record)}")
        if record["side"] not in SIDES:
            raise TaggingError(f"{where}: side must be seen or heard, got {record['side']!r}")
        if not record["group"] or ":" in record["group"]:
            raise TaggingError(f"{where}: {record['group']!r} cannot be the name of a group")
        if record["side"] in classes:
            found = _select(record["class"], numbers[record["side"]], classes[record["side"]], where)
            members[record["side"]][record["group"]].extend(found)
    groups = {}
    for side, of_side in members.items():
        _check_members(of_side, classes[side], f"{path}, side {side}")
        names = sorted(of_side)
        groups[side] = Groups(tuple(names), tuple(tuple(of_side[name]) for name in names))
    check_same_groups(groups, str(path))
    return groups


def check_same_groups(groups: Mapping[str, Groups], where: str) -> None:
    """Raise TaggingError unless all sides have the same groups."""
    count = Counter(name for each in groups.values() for name in each.names)
    odd = sorted(name for name in count if count[name] < len(groups))
    if odd:
        raise TaggingError(
            f"{where}: {len(odd)} classes such as {odd[0]!r} are on one side only; each class must be both seen and heard: map the "
            "classes of both classifiers to common ones with --groups"
        )


def _numbers(classes: ClassList) -> dict[str, list[int]]:
    """Return the class numbers of each alias, in lower case."""
    numbers: dict[str, list[int]] = defaultdict(list)
    for number, aliases in enumerate(classes.aliases):
        for alias in dict.fromkeys(alias.lower() for alias in aliases):
            numbers[alias].append(number)
    return numbers


def _select(text: str, numbers: Mapping[str, list[int]], classes: ClassList, where: str) -> list[int]:
    """Return the class numbers that a cell of a groups file refers to."""
    if match := _RANGE.fullmatch(text):
        first, last = int(match[1]), int(match[2] or match[1])
        if not first <= last < len(classes.names):
            raise TaggingError(f"{where}: class {text!r}: the classifier has the classes 0 to {len(classes.names) - 1}")
        return list(range(first, last + 1))
    found = numbers.get(text.lower(), [])
    if len(found) > 1:
        raise TaggingError(
            f"{where}: {text!r} is the name of several classes: {', '.join(map(str, found))}; use one number"
        )
    if not found:
        close = get_close_matches(text.lower(), numbers, n=3)
        raise TaggingError(
            f"{where}: the classifier has no class {text!r}" + (f"; close: {', '.join(close)}" if close else "")
        )
    return found


def _check_members(members: Mapping[str, list[int]], classes: ClassList, where: str) -> None:
    if not members:
        raise TaggingError(f"{where}: no rows")
    groups_of: dict[int, set[str]] = defaultdict(set)
    for group, numbers in members.items():
        for number in numbers:
            groups_of[number].add(group)
        numbers[:] = sorted(set(numbers))
    for number, names in groups_of.items():
        if len(names) > 1:
            raise TaggingError(
                f"{where}: class {number} ({classes.names[number]}) is in the groups {' and '.join(sorted(names))}"
            )
