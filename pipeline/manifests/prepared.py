"""What the stage `prepare` leaves for the stages after it: the clips that exist, and where their media are."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from pipeline.common.config import Card
from pipeline.common.errors import ManifestError
from pipeline.manifests.clips import CLIP_COLUMNS, Clip, parse_clip, read_rows

MEDIA_ROOT_VARIABLE = "SOUNDSPOT_MEDIA_ROOT"
MISSING_FILE, COVERAGE_FILE = "missing.csv", "coverage.json"
# What DVC compares, so that a changed clip list reruns the stages of its split alone.
FINGERPRINTS_FILE = "fingerprints.json"


def media_variable(dataset: str) -> str:
    """Return the environment variable of one dataset's media root, ``SOUNDSPOT_MEDIA_ROOT_NAME``: NAME is MY_SET for ``my-set``."""
    return f"{MEDIA_ROOT_VARIABLE}_{re.sub('[^A-Z0-9]', '_', dataset.upper())}"


def media_root_from_environment(dataset: str) -> Path | None:
    """Return what the variable of the dataset, or else ``SOUNDSPOT_MEDIA_ROOT``, says; None where neither is set."""
    values = (os.environ.get(name) for name in (media_variable(dataset), MEDIA_ROOT_VARIABLE))
    return next((Path(value).expanduser() for value in values if value), None)


def resolve_media_root(card: Card, project: Path, dataset: str) -> Path:
    """Return the folder that a dataset's paths are relative to.

    An environment variable (`media_root_from_environment`) takes the place of the card's `media_root`, except for rendered
    media, which would be written among somebody's own; a relative path of either is relative to `project`.
    """
    own = media_root_from_environment(dataset) if card.render is None else None
    return project / (own or Path(card.media_root).expanduser())


def read_prepared_clips(path: Path, split: str) -> list[Clip]:
    """Read the clips of one split from ``clips.csv``.

    Raises
    ------
    ManifestError
        The file is missing or malformed, or has no such split.
    """
    if not path.exists():
        raise ManifestError(f"{path}: no such file; run `dvc repro prepare`")
    rows = list(read_rows(path, ("split", *CLIP_COLUMNS)))
    clips = [parse_clip(row, where) for where, row in rows if row["split"] == split]
    if not clips:
        there = sorted({row["split"] for _, row in rows})
        raise ManifestError(f"{path}: no split {split!r}; there are {', '.join(there) or 'none'}")
    return clips


def read_media_fingerprint(path: Path) -> str:
    """Return `media` of ``fingerprints.json``: that of media which were rendered or made by an importer, or "".

    Raises
    ------
    ManifestError
        The file is missing or malformed.
    """
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["media"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ManifestError(f"{path}: not a file of fingerprints ({error}); run `dvc repro prepare`") from None
