"""The record in a folder that takes hours to fill: the code that wrote it and, once it is finished, a digest of every file.

DVC tracks the record like the other files, so that a checkout restores it together with the files that it describes.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.common.console import note
from pipeline.common.errors import SettingsError
from pipeline.common.files import DAY_S, remove_leftovers, temporary_folder, write_json
from pipeline.common.project import RECORD_FILE
from pipeline.common.reading import read_json

# The digest of the code comes from Python's syntax tree, which changes with the version.
PYTHON = ".".join(platform.python_version_tuple()[:2])


def write_record(folder: Path, *, code: str, files: Mapping[str, str] | None = None) -> None:
    """Write the record of a folder: the code digest and, for finished results, file name → digest."""
    finished = {} if files is None else {"files": dict(files)}
    write_json(folder / RECORD_FILE, {"code": code, "python": PYTHON, **finished})


def read_record(folder: Path) -> dict[str, Any]:
    """Read a record; empty if there is none or it is damaged."""
    try:
        # AccessError passes: "no record" would mean that the results beside it have to be made again.
        record = read_json(folder / RECORD_FILE, SettingsError)
    except SettingsError:
        return {}
    valid = isinstance(record, dict) and isinstance(record.get("files", {}), dict)
    return record if valid else {}


def restore_output(folder: Path) -> None:
    """Restore a missing output folder of this project from DVC's cache or remote, if ``dvc.lock`` lists it.

    `dvc checkout` and `dvc exp run` remove the outputs of datasets that are not active. `dvc repro` restores missing outputs itself,
    but not those with `persist`. The record then tells whether they are still valid. Without DVC's copy, a note says why.
    """
    lock = Path("dvc.lock")
    if folder.exists() or not lock.is_file() or f" path: {folder.as_posix()}\n" not in lock.read_text(encoding="utf-8"):
        return
    remove_leftovers(folder.parent, min_age_s=DAY_S)
    with temporary_folder(folder) as temporary:
        # Unlike `dvc checkout`, `dvc get` also works while `dvc repro` holds the lock of this output.
        command = [
            sys.executable,
            *["-m", "dvc", "get", "--quiet", "."],
            str(folder),
            "--out",
            str(temporary / folder.name),
        ]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            os.replace(temporary / folder.name, folder)
            return
    reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    note(f"{folder}: not restored from DVC's cache ({reason}); recomputing it")


def changed_code(record: Mapping[str, Any], code: str) -> str:
    """Return why results of the recorded code cannot be kept; empty if the code is the same."""
    if not record:
        return f"{RECORD_FILE} is missing, so the code that wrote them is unknown"
    if record.get("code") == code:
        return ""
    if record.get("python") != PYTHON:
        return f"the Python version changed from {record.get('python')} to {PYTHON}"
    return "the code of this stage changed"
