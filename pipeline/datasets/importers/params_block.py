"""A block of training settings for a new dataset, added to params.yaml without touching anything else in the file.

The file is edited as text, so that its comments and layout stay; the result is then parsed and compared with what it
should hold. If the file is written in a way that this cannot follow, it stays as it is and the user is told.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from pipeline.common.errors import SettingsError

PRESET = "soundnet_flickr"  # the block of params.yaml that holds the paper's settings


def params_with_block(path: Path, name: str, *, preset: str = PRESET) -> tuple[str, str]:
    """Return the text of params.yaml with a block `training.NAME`, a copy of another block, by default the paper's preset.

    Returns
    -------
    text : str
        The whole new file, to be written by the caller; empty if the file stays as it is.
    hint : str
        What was done, or what the user has to do.

    Raises
    ------
    SettingsError
        The file is not YAML.
    """
    if not path.is_file():
        return "", f"no {path.name} here: run from the project's root, and add a block training.{name}"
    try:
        text = path.read_bytes().decode("utf-8")
        before = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from None
    blocks = before.get("training") if isinstance(before, dict) else None
    if isinstance(blocks, dict) and name in blocks:
        return "", f"params.yaml has a block training.{name} already; train with: dataset: {name}"
    by_hand = f"params.yaml: copy a block of `training` to training.{name} and adapt it"
    if not isinstance(blocks, dict) or preset not in blocks:
        return "", by_hand
    changed = _with_block(text, name, blocks[preset])
    try:
        after = yaml.safe_load(changed)
    except yaml.YAMLError:
        return "", by_hand
    if after != {**before, "training": {**blocks, name: blocks[preset]}}:
        return "", by_hand  # an unusual notation that a line-wise copy would get wrong
    return changed, f"params.yaml: added training.{name} with the settings of {preset}; use it with: dataset: {name}"


def _with_block(text: str, name: str, block: Any) -> str:
    """Add a block at the end of `training`; every other byte of the file stays.

    It is written out, without the anchors and references of the preset: what refers to another dataset's block would change with
    it, and `dvc exp run -S` changes the other with this one.
    """
    lines = text.splitlines(keepends=True)
    starts = [i for i, line in enumerate(lines) if re.match(r"training:\s*(#.*)?$", line)]
    if len(starts) != 1:
        return text
    end = _end_of_block(lines, starts[0])
    eol = "\r\n" if lines[starts[0]].endswith("\r\n") else "\n"
    if not lines[-1].endswith("\n"):
        lines[-1] += eol
    written = yaml.dump(
        {name: block}, Dumper=_Plain, sort_keys=False, default_flow_style=None, width=1000, allow_unicode=True
    )
    return "".join([*lines[:end], *(f"  {line}{eol}" for line in written.splitlines()), *lines[end:]])


class _Plain(yaml.SafeDumper):
    """Writes what comes twice twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _end_of_block(lines: Sequence[str], start: int) -> int:
    """Return the index after the last indented line below `start`, comments of what follows left out."""
    end = start + 1
    for i in range(start + 1, len(lines)):
        content = lines[i].strip()
        if not content or content.startswith("#"):
            continue
        if not lines[i].startswith(" "):
            break
        end = i + 1
    return end
