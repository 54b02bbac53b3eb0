"""The import report: clips listed and used, and everything that was left out, with the reason.

Nothing is dropped silently. A summary is printed, and the full report is written next to the clip lists as
``import_report.json``. It contains no paths of this machine, so that it can be committed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.common.text_table import counted
from pipeline.datasets.importers.box_checks import BoxFault
from pipeline.datasets.importers.lists import SLUG, read_ids, shortened

MAX_SHOWN_BOXES = 50  # faulty boxes printed one by one


@dataclass
class ImportReport:
    """Filled in by an importer while it runs.

    Attributes
    ----------
    listed, used : dict of str to int
        Number of clips per split: in the lists that were given, and in the clip lists that were written.
    left_out : dict of str to dict of str to str
        For each split (or ``folder``, before there are splits): clip id → why it is not used.
    n_boxes, n_boxes_used : int
        Number of boxes read and written. A box that is in two splits counts twice.
    box_faults : list of BoxFault
        Boxes that were left out.
    leaks : list of str
        Training ids that are in the test list, or cut from one of its videos.
    shared : list of str
        Clip ids and files that the training split shares with a scored split, if they were refused or kept.
    notes : list of str
        Anything else that the user should know about the dataset.
    hints : list of str
        What to do next on this machine; printed, not written.
    file : Path, optional
        File for the full report (``--report``), written even if the import fails. Messages with shortened lists refer
        to it.
    unchanged : bool
        Whether the dataset existed with the same clips, boxes and card, and was kept.
    """

    dataset: str
    listed: dict[str, int] = field(default_factory=dict)
    used: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, dict[str, str]] = field(default_factory=dict)
    n_boxes: int = 0
    n_boxes_used: int = 0
    box_faults: list[BoxFault] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)
    shared: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)
    file: Path | None = None
    unchanged: bool = False

    def leave_out(self, split: str, clip_id: str, reason: str) -> None:
        """Record that a clip of a split is not used."""
        self.left_out.setdefault(split, {})[clip_id] = reason

    def fault_counts(self) -> dict[str, int]:
        """Count the faults of all boxes by kind. One box can have several."""
        return dict(sorted(Counter(kind for fault in self.box_faults for kind in fault.faults).items()))

    def listing(self, items: Sequence[str], limit: int) -> str:
        """Join the first items of a list, and add where the full list is or how to get it."""
        where = (
            f" (full list: {self.file})" if self.file else " (--report FILE lists all)" if len(items) > limit else ""
        )
        return f"{shortened(items, limit)}{where}"

    def as_json(self) -> dict[str, Any]:
        """Return everything as plain values, for ``import_report.json``."""
        boxes = [{"clip_id": f.clip_id, "box": list(f.box), "faults": list(f.faults)} for f in self.box_faults]
        return {
            "dataset": self.dataset,
            "listed": self.listed,
            "used": self.used,
            "left_out": self.left_out,
            "boxes": {
                "read": self.n_boxes,
                "used": self.n_boxes_used,
                "faults": self.fault_counts(),
                "left_out": boxes,
            },
            "leaks": self.leaks,
            "shared": self.shared,
            "notes": self.notes,
        }

    def lines(self) -> list[str]:
        """Return the summary, one line for each finding."""
        splits = dict.fromkeys([*self.listed, *self.left_out, *self.used])  # a set that keeps the order
        lines = [line for split in splits for line in self._split_lines(split)]
        if self.n_boxes:
            lines.append(f"boxes: {self.n_boxes} read, {len(self.box_faults)} faulty")
            lines += [f"  {kind}: {count}" for kind, count in self.fault_counts().items()]
            lines += [
                f"  {fault.clip_id}: [{', '.join(fault.box)}]: {', '.join(sorted(set(fault.faults)))}"
                for fault in self.box_faults[:MAX_SHOWN_BOXES]
            ]
            if len(self.box_faults) > MAX_SHOWN_BOXES:
                lines.append(f"  and {len(self.box_faults) - MAX_SHOWN_BOXES} more faulty boxes")
        if self.leaks:
            listed = self.listing(self.leaks, 10)
            lines.append(
                f"leaks: {counted(len(self.leaks), 'training clip')} in the test list or cut from its videos: {listed}"
            )
        if self.shared:
            lines.append(
                f"shared: {counted(len(self.shared), 'name')} of ids and files in train and in a scored split: "
                f"{self.listing(self.shared, 10)}"
            )
        lines += [f"note: {note}" for note in self.notes] + self.hints
        return [f"{self.dataset}: {line}" for line in lines]

    def _split_lines(self, split: str) -> list[str]:
        missing = self.left_out.get(split, {})
        by_reason: dict[str, list[str]] = {}
        for clip_id, reason in missing.items():
            by_reason.setdefault(reason, []).append(clip_id)
        counts = [
            f"{table[split]} {word}" for table, word in ((self.listed, "listed"), (self.used, "used")) if split in table
        ]
        head = f"{split}: {', '.join([*counts, f'{len(missing)} left out'])}"
        return [head, *(f"  {len(ids)}: {reason}: {shortened(ids, 5)}" for reason, ids in by_reason.items())]


def listed_ids(path: Path, what: str, report: ImportReport, *, pattern: re.Pattern[str] = SLUG) -> list[str]:
    """Read a list of ids without duplicates; duplicates are noted in the report.

    Raises
    ------
    ManifestError
        As `pipeline.datasets.importers.lists.read_ids`.
    """
    listed = read_ids(path, pattern=pattern)
    note_repeats(report, listed.repeated, what)
    return listed.ids


def note_repeats(report: ImportReport, repeated: Sequence[str], what: str) -> None:
    """Note which ids occur more than once in a list."""
    if repeated:
        report.notes.append(
            f"{what} has {counted(len(repeated), 'duplicate id')}, each used once: {shortened(repeated, 5)}"
        )
