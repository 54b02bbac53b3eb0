"""The media of mosaics on disk: composed aside, put in place together, and known by a fingerprint of their bytes.

Below the media root stand ``frames/ID.jpg`` and ``audio/ID.wav``, and ``mosaics.csv``, which names every clip there is. A
build that fails or is killed while it composes leaves those of the build before.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from pipeline.common.cluster import run_tasks
from pipeline.common.files import fingerprint, write_csv
from pipeline.datasets.music.mosaic import MOSAIC_COLUMNS, compose_mosaics, mosaic_clip, mosaic_rows
from pipeline.datasets.music.schedule import Mosaic

_PER_TASK = 256  # mosaics
_ASIDE = "composing.tmp"
_FOLDERS = ("frames", "audio")
_OURS = re.compile(r"(train|test)-\d{6,}\.(jpg|wav)")  # nothing else in the folders is touched


def compose_media(
    mosaics: Sequence[Mosaic], media: Path, *, sample_rate: int, scheduler: str | None, workers: int | None
) -> str:
    """Write all frames and sounds and ``mosaics.csv``, and remove those of an earlier build that are no longer named.

    Parameters
    ----------
    mosaics : sequence of Mosaic
    media : Path
        Media root; the cut videos lie in its ``segments/``. While it works, both sets need room.
    sample_rate : int
        Hz, of the cut videos and of the sounds.
    scheduler, workers
        As in `pipeline.common.cluster.run_tasks`.

    Returns
    -------
    str
        The `media_fingerprint` of what is there now.
    """
    aside = media / _ASIDE
    shutil.rmtree(aside, ignore_errors=True)
    try:
        scales = _compose(mosaics, media / "segments", aside, sample_rate, scheduler, workers)
        for path in [path for folder in _FOLDERS for path in sorted((aside / folder).glob("*"))]:
            target = media / path.relative_to(aside)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    rows = [row for mosaic, scale in zip(mosaics, scales, strict=True) for row in mosaic_rows(mosaic, scale)]
    write_csv(media / "mosaics.csv", MOSAIC_COLUMNS, rows)
    named = [name for mosaic in mosaics for name in mosaic_clip(mosaic).media]
    _remove_others(media, named)
    return media_fingerprint(media, named)


def media_fingerprint(media: Path, names: Iterable[str]) -> str:
    """Return a fingerprint of files by their bytes; it is what a card says of media that were made, not found.

    Parameters
    ----------
    media : Path
        Media root.
    names : iterable of str
        Paths relative to it, in an order of their own.
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


def _remove_others(media: Path, named: Iterable[str]) -> None:
    kept = set(named)
    for path in [path for folder in _FOLDERS for path in (media / folder).glob("*")]:
        if _OURS.fullmatch(path.name) and path.relative_to(media).as_posix() not in kept:
            path.unlink()
