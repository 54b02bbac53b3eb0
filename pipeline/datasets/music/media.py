"""Writes the media of the mosaics: composed in a temporary folder, moved into place at the end, and fingerprinted.

Files below the media root: ``frames/ID.jpg``, ``audio/ID.wav``, and ``mosaics.csv`` with a row for each quadrant of each
clip. If a build fails or is killed while composing, the media of the previous build are unchanged.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pipeline.common.cluster import run_tasks
from pipeline.common.errors import ManifestError
from pipeline.common.files import DAY_S, fingerprint, locked, remove_leftovers, temporary_folder, write_csv, write_text
from pipeline.datasets.music.mosaic import MOSAIC_COLUMNS, compose_mosaics, mosaic_clip, mosaic_rows
from pipeline.datasets.music.schedule import Mosaic

_PER_TASK = 256  # mosaics
_FOLDERS = ("frames", "audio")
OWN_FILE = re.compile(r"(train|test)-\d{6,}\.(jpg|wav)")
MOSAICS_FILE = "mosaics.csv"
OWNER_FILE = ".soundspot-dataset"  # names the dataset that the composed media belong to


def compose_media(
    mosaics: Sequence[Mosaic],
    media: Path,
    *,
    sample_rate: int,
    keep: str | None,
    scheduler: str | None,
    workers: int | None,
) -> str:
    """Write all frames, all audio files and ``mosaics.csv``, and remove files of an earlier build that are left over.

    Parameters
    ----------
    mosaics : sequence of Mosaic
    media : Path
        Media root, with the cut videos in ``segments/``. Until the new media are complete, the disk has to hold both the
        old and the new ones.
    sample_rate : int
        Hz, of the cut videos and of the output.
    keep : str or None
        As in `install_media`.
    scheduler, workers
        As in `pipeline.common.cluster.run_tasks`.

    Returns
    -------
    str
        The `media_fingerprint` of the written files.
    """
    remove_leftovers(media, min_age_s=DAY_S)
    with temporary_folder(media / "composing") as staging:
        scales = _compose(mosaics, media / "segments", staging, sample_rate, scheduler, workers)
        rows = [row for mosaic, scale in zip(mosaics, scales, strict=True) for row in mosaic_rows(mosaic, scale)]
        write_csv(staging / MOSAICS_FILE, MOSAIC_COLUMNS, rows)
        return install_media(
            staging, media, [name for mosaic in mosaics for name in mosaic_clip(mosaic).media], OWN_FILE, keep=keep
        )


@contextmanager
def claimed(media: Path, dataset: str, own: re.Pattern[str]) -> Iterator[None]:
    """Lock a media root, and note the dataset whose media are composed there; `own` as in `install_media`.

    Raises
    ------
    ManifestError
        Media of another dataset, or of no known one, would be replaced or removed; or another process composes there.
    """
    path = media / OWNER_FILE
    with locked(media, ManifestError):
        owner = path.read_text(encoding="utf-8").strip() if path.is_file() else ""
        if owner not in ("", dataset):
            raise ManifestError(
                f"{media}: has the media of the dataset {owner}, which would be replaced; choose another folder with --media"
            )
        there = [each for folder in _FOLDERS for each in sorted((media / folder).glob("*")) if own.fullmatch(each.name)]
        if there and not owner:
            raise ManifestError(
                f"{there[0]}: exists, and would be replaced or removed ({OWNER_FILE} does not say that it belongs to {dataset}); "
                "move it away, or choose another folder with --media"
            )
        write_text(path, f"{dataset}\n")
        yield


def install_media(staging: Path, media: Path, names: Sequence[str], own: re.Pattern[str], *, keep: str | None) -> str:
    """Move composed media into place, then remove those of an earlier import that are left over.

    Parameters
    ----------
    staging : Path
        Folder with ``frames/``, ``audio/`` and ``mosaics.csv``.
    media : Path
        Media root, on the same file system.
    names : sequence of str
        Paths of the clips' media relative to the media root, in the order of the clips.
    own : re.Pattern
        Names of files that an import may have written; others in ``frames/`` and ``audio/`` are the user's.
    keep : str or None
        Only media with this fingerprint may be installed; None: any. See `ImportOptions.media_to_keep`.

    Returns
    -------
    str
        The `media_fingerprint`.

    Raises
    ------
    ManifestError
        The media have another fingerprint than `keep`. Nothing has been moved.
    """
    digest = media_fingerprint(staging, names)
    if keep not in (None, digest):
        raise ManifestError(
            f"{media}: this import would change the media of the existing dataset; pass --force to write them and the lists again, "
            "or choose another name with --name"
        )
    for path in [path for folder in _FOLDERS for path in sorted((staging / folder).glob("*"))]:
        target = media / path.relative_to(staging)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, target)
    os.replace(staging / MOSAICS_FILE, media / MOSAICS_FILE)
    # Last, so that an interrupted build never leaves a list that refers to deleted files.
    kept = set(names)
    for path in [path for folder in _FOLDERS for path in (media / folder).glob("*")]:
        if own.fullmatch(path.name) and path.relative_to(media).as_posix() not in kept:
            path.unlink()
    return digest


def media_fingerprint(media: Path, names: Iterable[str]) -> str:
    """Return a fingerprint of the contents of files, for the card of a dataset whose importer writes media.

    Parameters
    ----------
    media : Path
        Media root.
    names : iterable of str
        Paths relative to the media root. The fingerprint depends on their order.
    """
    return fingerprint([[name, hashlib.sha256((media / name).read_bytes()).hexdigest()] for name in names])


def _compose(
    mosaics: Sequence[Mosaic],
    cuts: Path,
    folder: Path,
    sample_rate: int,
    scheduler: str | None,
    workers: int | None,
) -> list[tuple[float, ...]]:
    parts = [mosaics[i : i + _PER_TASK] for i in range(0, len(mosaics), _PER_TASK)]
    tasks = [(part, cuts, folder, sample_rate) for part in parts]
    results = dict(run_tasks(compose_mosaics, tasks, scheduler=scheduler, workers=workers, label="compose mosaics"))
    return [scale for index in range(len(parts)) for scale in results[index]]
