"""The record in a folder that takes hours to fill: the code that wrote it and, once it is finished, a digest of every file.

DVC tracks the record like the other files, so that a checkout restores it together with the files that it describes.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.common.access import raise_if_access_error
from pipeline.common.files import write_json
from pipeline.common.project import RECORD_FILE

# The digest of the code comes from Python's syntax tree, which changes with the version.
PYTHON = ".".join(platform.python_version_tuple()[:2])


def write_record(folder: Path, *, code: str, files: Mapping[str, str] | None = None) -> None:
    """Write the record of a folder: the code digest and, for finished results, file name → digest."""
    finished = {} if files is None else {"files": dict(files)}
    write_json(folder / RECORD_FILE, {"code": code, "python": PYTHON, **finished})


def read_record(folder: Path) -> dict[str, Any]:
    """Read a record; empty if there is none or it is damaged."""
    try:
        record = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        # "No record" would mean that the results beside it have to be made again.
        raise_if_access_error(folder / RECORD_FILE, error)
        return {}
    valid = isinstance(record, dict) and isinstance(record.get("files", {}), dict)
    return record if valid else {}


def changed_code(record: Mapping[str, Any], code: str) -> str:
    """Return why results of the recorded code cannot be kept; empty if the code is the same."""
    if not record:
        return f"{RECORD_FILE} is missing, so the code that wrote them is unknown"
    if record.get("code") == code:
        return ""
    if record.get("python") != PYTHON:
        return f"the Python version changed from {record.get('python')} to {PYTHON}"
    return "the code of this stage changed"
