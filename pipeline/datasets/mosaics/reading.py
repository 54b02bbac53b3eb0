"""Decodes each photograph and each recording once, into NumPy files that the mosaics are composed from.

Conventions: ``photographs/NUMBER.npy`` is uint8 (row, column, channel), the whole photograph squashed to a square cell;
``recordings/NUMBER.npy`` is float32 (sample,), mono, peak 1, at the dataset's sample rate. A file is numbered by its position.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.common.errors import MediaError
from pipeline.datasets.mosaics.files import PHOTOGRAPHS, RECORDINGS, Source
from pipeline.media.clip import read_audio
from pipeline.media.container import Deadline, MediaContainer
from pipeline.media.image import read_still

_PER_TASK = 64  # files
_TIME_LIMIT_S = 120.0  # for one recording
MAX_SECONDS = 600.0  # ours: of a longer recording, this much is used, from its start
Size = tuple[int, int]
Read = Callable[[Path, int], tuple[np.ndarray, Size]]
Run = Callable[..., Iterator[tuple[int, Any]]]  # `run_tasks`, with a scheduler and a number of workers


@dataclass(frozen=True)
class Decoded:
    """What was decoded: the size of each file by name, and why the others cannot be read."""

    sizes: dict[str, Size]
    faults: dict[str, str]


def read_photographs(sources: Sequence[Source], folder: Path, *, side: int, run: Run) -> Decoded:
    """Decode photographs in parallel, to `side` × `side` pixels. Sizes are width and height in pixels."""
    return _read_all(sources, folder / PHOTOGRAPHS, _photograph, side, run)


def read_recordings(sources: Sequence[Source], folder: Path, *, sample_rate: int, run: Run) -> Decoded:
    """Decode recordings in parallel. Sizes are the sample rate and the number of samples."""
    return _read_all(sources, folder / RECORDINGS, _recording, sample_rate, run)


def _read_all(sources: Sequence[Source], folder: Path, read: Read, setting: int, run: Run) -> Decoded:
    folder.mkdir()
    paths = [source.path.absolute() for source in sources]  # workers on another machine have another working directory
    starts = range(0, len(paths), _PER_TASK)
    tasks = [(read, paths[start : start + _PER_TASK], start, folder, setting) for start in starts]
    results = dict(run(_read_part, tasks, label=f"read {folder.name}"))
    decoded = Decoded({}, {})
    for source, result in zip(sources, (r for index in range(len(tasks)) for r in results[index]), strict=True):
        if isinstance(result, str):
            decoded.faults[source.name] = result
        else:
            decoded.sizes[source.name] = result
    return decoded


def _read_part(read: Read, paths: Sequence[Path], start: int, folder: Path, setting: int) -> list[Size | str]:
    """Read some files; one task."""
    results: list[Size | str] = []
    for number, path in enumerate(paths, start):
        try:
            array, size = read(path, setting)
        except MediaError as error:
            # Without the folder, which is one of this machine.
            results.append(str(error).removeprefix(f"{path}: ").replace(str(path), path.name))
            continue
        np.save(array_path(folder, number), array, allow_pickle=False)
        results.append(size)
    return results


def array_path(folder: Path, number: int) -> Path:
    """Path of the decoded file with this number."""
    return folder / f"{number:06d}.npy"


def _photograph(path: Path, side: int) -> tuple[np.ndarray, Size]:
    pixels = read_still(path)
    if pixels is None:
        raise MediaError(f"{path}: not an image")
    resized = Image.fromarray(pixels).resize((side, side), Image.Resampling.LANCZOS)
    return np.asarray(resized), (pixels.shape[1], pixels.shape[0])


def _recording(path: Path, sample_rate: int) -> tuple[np.ndarray, Size]:
    with MediaContainer(path, deadline=Deadline(_TIME_LIMIT_S)) as media:
        media.stream("audio")
        length_s = min(float(2 * (media.timestamp(None) - media.zero)), MAX_SECONDS)
    wave = read_audio(
        path, centre_s=length_s / 2, clip_seconds=length_s, sample_rate=sample_rate, time_limit_s=_TIME_LIMIT_S
    )
    return wave, (sample_rate, len(wave))
