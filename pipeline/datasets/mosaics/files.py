"""Finds photographs and recordings by class: generic folders ``DIR/CLASS/*``, and the official Tiny-ImageNet and ESC-50.

Conventions: a class name is lower case with underscores, and the name of its folder or the name in the class map
(`pipeline.datasets.mosaics.classes`). The names of files are relative to the folder that was given, with slashes. Every file in
a class's folder and its subfolders counts, except hidden ones; whether it can be read shows when it is decoded.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.common.errors import ManifestError
from pipeline.common.tables import read_records
from pipeline.datasets.importers.report import ImportReport
from pipeline.datasets.mosaics.classes import CLASS_MAP, ClassMap

PHOTOGRAPHS, RECORDINGS = "photographs", "recordings"  # headings of the report
_WNID = re.compile(r"n\d{8}")
_ESC_CLIP = re.compile(r"(?:.*[^0-9])?[1-5]-(\d+)-[A-Z](?:-\d+)?")  # FOLD-RECORDING-TAKE-CATEGORY
_N_FOLDS = 5


@dataclass(frozen=True)
class Source:
    """One photograph or one file of sound."""

    path: Path
    name: str  # unique: relative to the folder that was given, and after ``test:`` for a test set of its own
    label: str  # its class
    recording: str = ""  # the recording on freesound.org that an ESC-50 clip was cut from
    fold: int = 0  # of ESC-50, from 1; 0 for other files

    @property
    def group(self) -> str:
        """Files of one group are always in the same split."""
        return self.recording or self.name


@dataclass(frozen=True)
class Found:
    """The files in a folder.

    Attributes
    ----------
    folder : Path
    sources : list of Source
        Sorted by name.
    mapped : bool
        The folder has an official layout, so that the class map gave the names of the classes.
    """

    folder: Path
    sources: list[Source]
    mapped: bool

    @property
    def labels(self) -> set[str]:
        """The classes of the files."""
        return {source.label for source in self.sources}

    def as_test(self) -> Found:
        """Return the same files with the names that those of a test set have."""
        return replace(self, sources=[replace(source, name=f"test:{source.name}") for source in self.sources])


def class_name(text: str) -> str:
    """Return a class's name as it is written here: lower case, with underscores."""
    return re.sub(r"[\s+-]+", "_", text.strip().lower())


def find_photographs(folder: Path, classes: ClassMap) -> Found:
    """List the photographs in a folder. Raises ManifestError if there are none."""
    root = folder / "train" if (folder / "train").is_dir() else folder
    wnids = [child for child in _folders(root, folder) if _WNID.fullmatch(child.name) and (child / "images").is_dir()]
    if not wnids:
        return _found(
            folder, _files(_class_folders(folder), folder), f"no {PHOTOGRAPHS} in folders DIR/CLASS", mapped=False
        )
    known = {
        child / "images": classes.tiny_imagenet[child.name] for child in wnids if child.name in classes.tiny_imagenet
    }
    return _found(folder, _files(known, folder), f"Tiny-ImageNet, but no wnid is in {CLASS_MAP}", mapped=True)


def find_recordings(folder: Path, classes: ClassMap, report: ImportReport) -> Found:
    """List the recordings in a folder. Listed files that are missing go to the report. Raises ManifestError if there are none."""
    table = folder / "meta" / "esc50.csv"
    if table.is_file():
        clips = list(_esc_clips(table, classes, report))
        return _found(folder, clips, f"ESC-50, but no file of a category in {CLASS_MAP}", mapped=True)
    found = [_with_recording(source) for source in _files(_class_folders(folder), folder)]
    return _found(folder, found, f"no {RECORDINGS} in folders DIR/CLASS", mapped=False)


def _found(folder: Path, sources: list[Source], problem: str, *, mapped: bool) -> Found:
    if not sources:
        raise ManifestError(f"{folder}: {problem}")
    return Found(folder, sorted(sources, key=lambda source: source.name), mapped)


def _folders(root: Path, given: Path) -> list[Path]:
    if not root.is_dir():
        raise ManifestError(f"{given}: no such folder; pass a folder with one folder for each class")
    return sorted(child for child in root.iterdir() if child.is_dir() and not child.name.startswith("."))


def _class_folders(folder: Path) -> dict[Path, str]:
    return {child: class_name(child.name) for child in _folders(folder, folder)}


def _files(class_of: Mapping[Path, str], folder: Path) -> list[Source]:
    return [
        Source(path, path.relative_to(folder).as_posix(), label)
        for child, label in class_of.items()
        for path in _visible(child)
    ]


def _visible(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(root, name) for name in names if not name.startswith("."))


def _with_recording(source: Source) -> Source:
    """Recognize an ESC-50 clip by its name, because clips of one recording are alike wherever they have been copied to."""
    match = _ESC_CLIP.fullmatch(source.path.stem)
    return replace(source, recording=match[1]) if match else source


def _esc_clips(table: Path, classes: ClassMap, report: ImportReport) -> Iterator[Source]:
    folds: dict[str, int] = {}
    for row in read_records(table, ManifestError):
        if not {"filename", "fold", "category"} <= row.keys():
            raise ManifestError(f"{table}: expected the columns filename, fold and category")
        name, label = row["filename"], classes.esc50.get(row["category"])
        match = _ESC_CLIP.fullmatch(Path(name).stem)
        if not match or not row["fold"].isdecimal() or not 1 <= int(row["fold"]) <= _N_FOLDS or Path(name).name != name:
            raise ManifestError(
                f"{table}: {name!r}, fold {row['fold']!r}: expected a name like 1-100032-A-0.wav, and fold 1 to 5"
            )
        recording, fold = match[1], int(row["fold"])
        if folds.setdefault(recording, fold) != fold:
            raise ManifestError(
                f"{table}: recording {recording} is in folds {folds[recording]} and {fold}; each must be in one"
            )
        path = table.parent.parent / "audio" / name
        if label and not path.is_file():
            report.leave_out(RECORDINGS, f"audio/{name}", "listed, but the file is missing")
        elif label:
            yield Source(path, f"audio/{name}", label, recording, fold)
