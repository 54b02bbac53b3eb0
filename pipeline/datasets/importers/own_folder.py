"""A folder of your own videos and the dataset that was imported from it: the dataset's name, and videos that it lacks."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

from pipeline.common.errors import ManifestError
from pipeline.common.project import manifest_folder
from pipeline.common.reading import read_json
from pipeline.datasets.importers.folder import WHOLE, earlier_ids, found_videos
from pipeline.datasets.importers.report import ImportReport
from pipeline.datasets.replace import REPORT_FILE

_LONGEST_NAME = 64


def dataset_name(folder: Path) -> str:
    """Return the name of the dataset of a folder: its own name, with ``_`` for characters that a dataset's name cannot have.

    Raises
    ------
    ManifestError
        The name has no letter or digit that can be kept.
    """
    plain = unicodedata.normalize("NFKD", folder.resolve().name).encode("ascii", "ignore").decode()
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", plain)[:_LONGEST_NAME].strip("_-")
    if not name:
        raise ManifestError(f"{folder}: the name of this folder gives no valid name for the dataset; pass --name")
    return name


def unlisted_videos(project: Path, name: str, folder: Path) -> list[str]:
    """Return the videos of a folder that the dataset imported from it neither has nor has left out, relative to the folder.

    Raises
    ------
    ManifestError
        The dataset was imported from another folder: it has videos, and none of them is here.
    """
    known = earlier_ids(project, name)
    found = found_videos(folder, ImportReport(name), kept=known)
    if not known.keys() & {clip.video for clip in found}:
        raise ManifestError(
            f"{manifest_folder(project, name)}: exists, and none of its videos are in {folder}; choose another name with --name"
        )
    rejected = _left_out(manifest_folder(project, name) / REPORT_FILE)
    return [clip.video for clip in found if clip.clip_id not in {*known.values(), *rejected} and clip.video]


def _left_out(path: Path) -> list[str]:
    try:
        return list(read_json(path, ManifestError)["left_out"].get(WHOLE, {}))
    except (ManifestError, LookupError, TypeError, AttributeError):  # lists that were written by hand have no report
        return []
