"""Splits photographs or recordings into train, validation and test, by file and within each class."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from pipeline.common.files import file_digest
from pipeline.datasets.importers.lists import ranked
from pipeline.datasets.importers.report import ImportReport
from pipeline.datasets.mosaics.files import Source
from pipeline.manifests.clips import TEST_SPLIT, TRAIN_SPLIT, VALIDATION_SPLIT

SPLITS = (TRAIN_SPLIT, VALIDATION_SPLIT, TEST_SPLIT)
# Ours, as ESC-50 names no validation fold.
TEST_FOLD, VALIDATION_FOLD = 5, 4


@dataclass(frozen=True)
class Side:
    """The photographs of all splits, or the recordings. The number of a file is its position in `sources`."""

    what: str  # heading in the report
    parts: Mapping[str, Sequence[Source]]  # by split
    unusable: frozenset[str] = frozenset()  # names

    @property
    def sources(self) -> list[Source]:
        """All files, unusable ones included."""
        return [source for part in self.parts.values() for source in part]

    def without(self, names: Iterable[str]) -> Side:
        """Return the side with further unusable files."""
        return replace(self, unusable=self.unusable | set(names))

    def numbers(self, split: str) -> dict[str, list[int]]:
        """Numbers of the usable files of each class in a split."""
        wanted = {source.name for source in self.parts[split]} - self.unusable
        numbers: dict[str, list[int]] = defaultdict(list)
        for number, source in enumerate(self.sources):
            if source.name in wanted:
                numbers[source.label].append(number)
        return dict(numbers)


def split_sources(
    sources: Sequence[Source],
    test: Sequence[Source] | None,
    *,
    shares: Mapping[str, float],
    seed: int,
    what: str,
    report: ImportReport,
) -> dict[str, list[Source]]:
    """Split files so that no two splits share a file, a copy of a file, or a recording.

    Parameters
    ----------
    sources : sequence of Source
    test : sequence of Source or None
        Files of a test set of its own, all of which are the test split. `sources` is then split into train and validation.
    shares : mapping of str to float
        Share of each split, not negative; positive for train. Each class gives at least one file to every split with a share, as
        long as it has files. In ESC-50, the folds decide instead: 5 is for testing (for training if there is a test set), 4 for
        validation.
    seed : int
        Adding or removing a file does not reorder the others.
    what : str
        Heading in the report.
    report : ImportReport
        Receives the files that are left out: copies, and those cut from a recording of the test set.

    Returns
    -------
    dict of split to list of Source
        Each sorted by name.
    """
    own = without_copies([*(test or ()), *sources], what, report)
    given = {source.name for source in test or ()}
    heard = {source.recording for source in test or () if source.recording}
    rest = [source for source in own if source.name not in given]
    for source in [source for source in rest if source.recording in heard]:
        report.leave_out(what, source.name, "cut from a recording that is in the test set")
    rest = [source for source in rest if source.recording not in heard]
    split_of = _assign(rest, shares if test is None else {**shares, TEST_SPLIT: 0.0}, seed)
    parts = {split: [source for source in rest if split_of[source.group] == split] for split in SPLITS}
    parts[TEST_SPLIT] += [source for source in own if source.name in given]
    return parts


def without_copies(sources: Sequence[Source], what: str, report: ImportReport) -> list[Source]:
    """Keep the first of files with the same bytes."""
    by_size: dict[int, list[Source]] = defaultdict(list)
    # A link to a missing file is reported when the files are decoded.
    for source in [source for source in sources if source.path.is_file()]:
        by_size[source.path.stat().st_size].append(source)
    copies: set[int] = set()
    for same_size in by_size.values():
        first: dict[str, Source] = {}
        for source in same_size if len(same_size) > 1 else ():
            kept = first.setdefault(file_digest(source.path), source)
            if kept is not source:
                copies.add(id(source))
                report.leave_out(what, source.name, f"the same bytes as {kept.name}")
    return [source for source in sources if id(source) not in copies]


def _assign(sources: Sequence[Source], shares: Mapping[str, float], seed: int) -> dict[str, str]:
    """Return the split of each group."""
    split_of = {source.group: _split_of_fold(source.fold, shares) for source in sources if source.fold}
    total = sum(shares.values())
    for label in sorted({source.label for source in sources}):
        # A group with a split has it from its fold, or from another class that a recording has clips of.
        groups = ranked({source.group for source in sources if source.label == label}, seed)
        for split in (TEST_SPLIT, VALIDATION_SPLIT):
            wanted = max(1, round(len(groups) * shares[split] / total)) if shares[split] else 0
            wanted -= sum(split_of.get(group) == split for group in groups)
            for group in [group for group in groups if group not in split_of][: max(wanted, 0)]:
                split_of[group] = split
        for group in groups:
            split_of.setdefault(group, TRAIN_SPLIT)
    return split_of


def _split_of_fold(fold: int, shares: Mapping[str, float]) -> str:
    split = {TEST_FOLD: TEST_SPLIT, VALIDATION_FOLD: VALIDATION_SPLIT}.get(fold, TRAIN_SPLIT)
    return split if shares[split] else TRAIN_SPLIT
