"""Replaces a dataset's folder of lists atomically, unless it has the same content already."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from pipeline.common.config import load_card
from pipeline.common.errors import ManifestError
from pipeline.common.files import DAY_S, remove_leftovers, temporary_folder
from pipeline.common.project import CARD_FILE

REPORT_FILE = "import_report.json"


def replace_folder(folder: Path, write: Callable[[Path], None], *, force: bool) -> bool:
    """Let `write` fill a temporary folder, which then replaces `folder`.

    The old folder is removed only after the new one is in place. If `write` raises, the old folder stays unchanged and the
    temporary one is removed.

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
        if folder.exists() and not force:
            if differing := _differing(building, folder):
                raise ManifestError(
                    f"{folder}: exists, and this import would change {', '.join(differing)}; pass --force to replace it, or "
                    "choose another name with --name"
                )
            return False
        try:
            if folder.exists():
                os.replace(folder, previous / folder.name)
            os.replace(building, folder)
        except OSError:
            if not folder.exists() and (previous / folder.name).exists():
                os.replace(previous / folder.name, folder)
            raise
    return True


def _differing(building: Path, folder: Path) -> list[str]:
    """Return the names of files in which two manifest folders differ, apart from the report and the text of the card."""
    names = {path.name for each in (building, folder) for path in each.iterdir()} - {REPORT_FILE}
    return sorted(name for name in names if not _same(building / name, folder / name))


def _same(new: Path, old: Path) -> bool:
    if not (new.is_file() and old.is_file()):
        return False
    if new.name == CARD_FILE:
        return load_card(new.parent) == load_card(old.parent)
    return new.read_bytes() == old.read_bytes()
