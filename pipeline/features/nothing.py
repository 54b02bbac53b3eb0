"""The folder of a split whose features are not stored: no files but the record, so that the stage has the same output for all datasets."""

from __future__ import annotations

from pathlib import Path

from pipeline.common.console import report
from pipeline.common.errors import FeatureError
from pipeline.common.files import locked, remove_leftovers
from pipeline.common.project import FEATURES_PATTERN, FINISHED_FILE
from pipeline.common.record import write_record


def store_nothing(folder: Path) -> None:
    """Remove the features that a folder has from earlier settings, and mark it as finished."""
    with locked(folder, FeatureError):
        folder.mkdir(parents=True, exist_ok=True)
        stale = sorted(folder.glob(FEATURES_PATTERN))
        for path in stale:
            path.unlink()
        if stale:
            report(f"features {folder.name}: removed {len(stale)} files: the settings no longer store features")
        (folder / FINISHED_FILE).unlink(missing_ok=True)
        remove_leftovers(folder)
        # Without the code, which cannot change what is not there.
        write_record(folder, code="", files={})
