"""Replaces a dataset's folder of lists atomically, unless it has the same content already."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline.common.config import load_card
from pipeline.common.errors import ManifestError
from pipeline.common.files import DAY_S, listed, remove_leftovers, temporary_folder
from pipeline.common.project import CARD_FILE
from pipeline.common.reading import read_json
from pipeline.manifests.boxes import BOXES_SUFFIX

REPORT_FILE = "import_report.json"


def replace_folder(folder: Path, write: Callable[[Path], None], *, force: bool) -> bool:
    """Let `write` fill a temporary folder, which then replaces `folder`.

    The old folder is removed only after the new one is in place. If `write` raises, the old folder stays unchanged and the
    temporary one is removed. Files that no import has written, by the old report, are the user's: they are kept, and no difference.

    Returns
    -------
    bool
        False if the folder has this content already: it is kept, with its report and comments, so that no stage runs again.

    Raises
    ------
    ManifestError
        The folder exists with other content, and `force` is False.
    """
    remove_leftovers(folder.parent, min_age_s=DAY_S)
    with temporary_folder(folder) as building, temporary_folder(folder) as previous:
        write(building)
        own = _files_of_user(folder)
        if folder.exists() and not force:
            if differing := _differing(building, folder, own):
                raise ManifestError(
                    f"{folder}: exists, and this import would change {', '.join(differing)}; pass --force to replace it, or "
                    "choose another name with --name"
                )
            return False
        for path in own:
            if not (building / path.name).exists():
                shutil.copy2(path, building / path.name)
        try:
            if folder.exists():
                os.replace(folder, previous / folder.name)
            os.replace(building, folder)
        except OSError:
            if not folder.exists() and (previous / folder.name).exists():
                os.replace(previous / folder.name, folder)
            raise
    return True


def _files_of_user(folder: Path) -> list[Path]:
    """Return the files of a dataset's folder that the import did not write; none if it has no report that says what it wrote."""
    try:
        used = read_json(folder / REPORT_FILE, ManifestError)["used"]
    except (ManifestError, LookupError, TypeError):
        return []
    written = {CARD_FILE, REPORT_FILE, *(name for split in used for name in (f"{split}.csv", f"{split}{BOXES_SUFFIX}"))}
    return [path for path in listed(folder) if path.is_file() and path.name not in written]


def _differing(building: Path, folder: Path, own: Sequence[Path]) -> list[str]:
    """Return the names of files in which two manifest folders differ, apart from the report and the text of the card."""
    names = {path.name for each in (building, folder) for path in listed(each)} - {REPORT_FILE}
    names -= {path.name for path in own if not (building / path.name).exists()}
    return sorted(name for name in names if not _same(building / name, folder / name))


def _same(new: Path, old: Path) -> bool:
    if not (new.is_file() and old.is_file()):
        return False
    if new.name == CARD_FILE:
        return load_card(new.parent) == load_card(old.parent)
    return new.read_bytes() == old.read_bytes()
