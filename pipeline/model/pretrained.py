"""Read a file of tensors: published weights, or a checkpoint of ours.

The file is a flat mapping of names to tensors. It is loaded with `weights_only`, so one that would run code is rejected.

Damage is detected by the checksums inside the file. Files of torch before 1.6 have none; there, the only evidence is the
beginning of the SHA-256 that torch.hub puts into file names, such as ``resnet18-5c106cde.pth``.
"""

from __future__ import annotations

import re
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.common.access import raise_if_access_error
from pipeline.common.console import note
from pipeline.common.errors import CheckpointError
from pipeline.common.files import file_digest

ZIP_START = b"PK\x03\x04"
_FOLDER_BIT = 0x10
_BLOCK_BYTES = 1 << 20
# Eight digits without a letter may be a date.
_HASH_IN_NAME = re.compile(r"-(?=\d*[a-f])([0-9a-f]{8,64})\.pth?$")


def load_tensors(path: Path, *, advice: str, mmap: bool = False) -> dict[str, Any]:
    """Load a file that contains one flat dict, with `weights_only`.

    Parameters
    ----------
    path : Path
    advice : str
        What to do about a bad file; ends the error message.
    mmap : bool
        Map the file into memory: a tensor is read when it is used.

    Raises
    ------
    CheckpointError
        The file is missing, damaged, would run code, does not contain a dict, or contains values that are not finite.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; {advice}")
    try:
        if damage := _zip_damage(path, headers_only=mmap):
            raise CheckpointError(f"{path}: damaged: {damage}; {advice}")
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
        if not isinstance(content, dict):
            raise CheckpointError(f"{path}: contains a {type(content).__name__}, not a dict of tensors; {advice}")
        # With `mmap`, this would read everything.
        if not mmap and (name := first_not_finite(content)) is not None:
            raise CheckpointError(f"{path}: {name!r} contains values that are not finite; {advice}")
    except CheckpointError:
        raise
    except Exception as error:
        raise_if_access_error(path, error)
        # A damaged pickle makes torch raise errors of almost any type; its own message would advise to disable weights_only.
        raise CheckpointError(f"{path}: not readable: damaged, or contains more than tensors; {advice}") from None
    return content


def first_not_finite(content: Mapping[Any, Any]) -> str | None:
    """Return the name of the first tensor that contains NaN or infinity; None if all are finite."""
    for name, value in content.items():
        if isinstance(value, Tensor) and value.is_floating_point() and value.numel():
            # NaN is passed on by the minimum. Five times faster than torch.isfinite on all values.
            low, high = torch.aminmax(value.detach())
            if not (torch.isfinite(low) and torch.isfinite(high)):
                return str(name)
    return None


def _zip_damage(path: Path, *, headers_only: bool) -> str:
    """Return which entry of a zip file of torch.save is damaged; empty if none is. torch itself does not compare checksums."""
    with open(path, "rb") as file:
        if file.read(len(ZIP_START)) != ZIP_START:
            return ""
        with zipfile.ZipFile(file) as archive:
            # Programs differ in which of two parts of the same name they read.
            if twice := [name for name, n in Counter(archive.namelist()).items() if n > 1]:
                return f"it has a part {twice[0]!r} twice"
            for entry in archive.infolist():
                # torch leaves the memory of such a part uninitialized. No checksum covers this bit of the zip's directory.
                if entry.external_attr & _FOLDER_BIT:
                    return f"its part {entry.filename!r} is marked as a folder"
                if headers_only and "/data/" in entry.filename:
                    continue
                # torch.save does not compress; a larger entry would be a decompression bomb.
                if entry.file_size > path.stat().st_size:
                    return f"{entry.filename!r} is larger than the file"
                try:
                    with archive.open(entry) as stored:
                        while stored.read(_BLOCK_BYTES):
                            pass
                except (zipfile.BadZipFile, EOFError):
                    return f"the checksum of its part {entry.filename!r} does not match"
    return ""


def compare_with_name(path: Path) -> None:
    """Compare a published file with the SHA-256 in its name. Raises CheckpointError if it differs."""
    named = _HASH_IN_NAME.search(path.name)
    if not path.is_file():
        return
    digest = file_digest(path)
    if named and not digest.startswith(named[1]):
        raise CheckpointError(
            f"{path}: its SHA-256 starts with {digest[: len(named[1])]}, not as its name says; download it again, or rename it "
            "if it is your own"
        )
    with open(path, "rb") as file:
        if not named and file.read(len(ZIP_START)) != ZIP_START:
            note(f"note: {path}: a file of torch before 1.6, without checksums; compare its SHA-256 yourself: {digest}")
