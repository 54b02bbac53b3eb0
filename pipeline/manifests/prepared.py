"""Outputs of the stage `prepare`: the clips whose media exist, and the folder of those media."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.common.config import Card
from pipeline.common.errors import ManifestError, TrainingError
from pipeline.common.files import write_csv
from pipeline.common.reading import read_json
from pipeline.common.remote.path import RemotePath, local_or_remote
from pipeline.manifests.clips import CLIP_COLUMNS, Clip, clip_row, parse_clip
from pipeline.manifests.rows import read_rows

MEDIA_ROOT_VARIABLE = "SOUNDSPOT_MEDIA_ROOT"
MISSING_FILE, COVERAGE_FILE = "missing.csv", "coverage.json"
CLIPS_HEADER = ("split", *CLIP_COLUMNS)  # of clips.csv
# One fingerprint per split. DVC tracks them as parameters, so that a changed clip list reruns only the stages of its split.
FINGERPRINTS_FILE = "fingerprints.json"


def media_variable(dataset: str) -> str:
    """Return a dataset's environment variable, ``SOUNDSPOT_MEDIA_ROOT_NAME`` with ``MY_SET`` as NAME for ``my-set``."""
    return f"{MEDIA_ROOT_VARIABLE}_{re.sub('[^A-Z0-9]', '_', dataset.upper())}"


def media_root_from_environment(dataset: str) -> Path | None:
    """Return the media root from the dataset's own variable or else ``SOUNDSPOT_MEDIA_ROOT``; None if neither is set."""
    values = (os.environ.get(name) for name in (media_variable(dataset), MEDIA_ROOT_VARIABLE))
    return next((local_or_remote(value) for value in values if value), None)


def local_media_root_from_environment(dataset: str) -> Path | None:
    """Return the same for an importer. Raises ManifestError for a URL: importers look through the folders of the media."""
    root = media_root_from_environment(dataset)
    if isinstance(root, RemotePath):
        raise ManifestError(
            f"{root}: importers need local media; pass their folder with --media. The URL counts when the dataset is used"
        )
    return root


def resolve_media_root(card: Card, project: Path, dataset: str) -> Path:
    """Return the folder that a dataset's paths are relative to: a local one, or a `RemotePath` for a URL (``s3://…``).

    An environment variable (`media_root_from_environment`) overrides the card's `media_root`. Relative paths are relative
    to `project`.
    """
    # Not for rendered media: they would be written into a folder with the user's own files.
    own = media_root_from_environment(dataset) if card.render is None else None
    return project / (own or local_or_remote(card.media_root))


def check_fills_batch(n_clips: int, batch_size: int) -> None:
    """Raise TrainingError if a training set of `n_clips` clips is smaller than a batch."""
    if batch_size > n_clips:
        raise TrainingError(
            f"batch_size {batch_size} is larger than the training set of {n_clips} clips; lower it in params.yaml, in the "
            "dataset's block of `training`, or add clips"
        )


def write_prepared_clips(path: Path, splits: Mapping[str, Sequence[Clip]]) -> None:
    """Write ``clips.csv``: the clips of each split, one split after the other."""
    write_csv(path, CLIPS_HEADER, ((name, *clip_row(clip)) for name, clips in splits.items() for clip in clips))


def read_prepared_clips(path: Path, split: str) -> list[Clip]:
    """Read the clips of one split from ``clips.csv``.

    Raises
    ------
    ManifestError
        The file is missing or malformed, or does not contain the split.
    """
    if not path.exists():
        raise ManifestError(f"{path}: no such file; run `dvc repro prepare`")
    rows = list(read_rows(path, CLIPS_HEADER))
    clips = [parse_clip(row, where) for where, row in rows if row["split"] == split]
    if not clips:
        available = sorted({row["split"] for _, row in rows})
        raise ManifestError(f"{path}: no split {split!r}; available: {', '.join(available) or 'none'}")
    return clips


def read_media_fingerprint(path: Path) -> str:
    """Return `media` of ``fingerprints.json``: the fingerprint of rendered or imported media, or "" for others.

    Raises
    ------
    ManifestError
        The file is missing or malformed.
    """
    try:
        return str(read_json(path, ManifestError)["media"])
    except (ManifestError, KeyError, TypeError) as error:
        raise ManifestError(f"{path}: no valid fingerprints ({error}); run `dvc repro prepare`") from None
