"""Composes the clips: a grid of photographs as PNG, and the recordings of the sounding cells as 16-bit mono WAV.

Files are ``frames/ID.png`` and ``audio/ID.wav`` below the media root, and ``mosaics.csv``, which has a row for each cell of each
clip. They are written to a temporary folder and moved into place at the end.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.common.config import AudioSettings
from pipeline.common.files import write_csv
from pipeline.datasets.mosaics.files import PHOTOGRAPHS, RECORDINGS
from pipeline.datasets.mosaics.reading import Run, array_path
from pipeline.datasets.mosaics.schedule import Mosaic
from pipeline.datasets.mosaics.split import Side
from pipeline.datasets.music.media import MOSAICS_FILE, install_media
from pipeline.datasets.music.mosaic import mix, wav_bytes

MOSAIC_COLUMNS = ("clip_id", "cell", "class", "photograph", "sounding", "recording", "start_s")
OWN_FILE = re.compile(r"(train|validation|test)-\d{5,}\.(png|wav)")
_PER_TASK = 128  # mosaics
# Ours: most recordings of a short sound are mostly silent.
_WINDOWS = 5
# Ours: without noise, digital silence, which many recordings are padded with, would be an exact value of the spectrogram.
_NOISE_RMS = 1.0e-3
_PNG_LEVEL = 1  # photographs take as many bytes as with the default, in a quarter of the time


@dataclass(frozen=True)
class ComposeSettings:
    """How clips are composed."""

    image_size: int
    audio: AudioSettings
    grid: int
    seed: int


def compose_media(
    mosaics: Sequence[Mosaic],
    sides: tuple[Side, Side],
    decoded: Path,
    media: Path,
    *,
    settings: ComposeSettings,
    keep: str | None,
    run: Run,
) -> str:
    """Write all media and ``mosaics.csv``, and remove those of an earlier import that are left over.

    Parameters
    ----------
    mosaics : sequence of Mosaic
    sides : (Side, Side)
        The photographs and the recordings.
    decoded : Path
        The decoded files (`pipeline.datasets.mosaics.reading`); also the temporary folder.
    media : Path
        Media root.
    settings : ComposeSettings
    keep : str or None
        As in `install_media`.
    run : callable
        See `pipeline.datasets.mosaics.reading.Run`.

    Returns
    -------
    str
        The `media_fingerprint` of the written files.
    """
    for folder in ("frames", "audio"):
        (decoded / folder).mkdir()
    parts = [mosaics[start : start + _PER_TASK] for start in range(0, len(mosaics), _PER_TASK)]
    tasks = [(part, decoded, settings) for part in parts]
    results = dict(run(compose_mosaics, tasks, label="compose mosaics"))
    starts = [start for index in range(len(parts)) for start in results[index]]
    names = tuple([source.name for source in side.sources] for side in sides)
    rows = [row for mosaic, start in zip(mosaics, starts, strict=True) for row in _rows(mosaic, start, names)]
    write_csv(decoded / MOSAICS_FILE, MOSAIC_COLUMNS, rows)
    files = [name for mosaic in mosaics for name in clip_files(mosaic)]
    return install_media(decoded, media, files, OWN_FILE, keep=keep)


def clip_files(mosaic: Mosaic) -> tuple[str, str]:
    """Paths of a mosaic's image and audio, relative to the media root."""
    return f"frames/{mosaic.clip_id}.png", f"audio/{mosaic.clip_id}.wav"


def _rows(
    mosaic: Mosaic, starts: Sequence[float], names: Sequence[Sequence[str]]
) -> list[tuple[str | int | float, ...]]:
    return [
        (
            mosaic.clip_id,
            place,
            cell.label,
            names[0][cell.photograph],
            int(cell.recording is not None),
            "" if cell.recording is None else names[1][cell.recording],
            "" if cell.recording is None else round(start, 4),
        )
        for place, (cell, start) in enumerate(zip(mosaic.cells, starts, strict=True))
    ]


def compose_mosaics(mosaics: Sequence[Mosaic], folder: Path, settings: ComposeSettings) -> list[tuple[float, ...]]:
    """Write the image and the audio of some mosaics; one task.

    Returns
    -------
    list of tuple of float
        For each mosaic, when the audio of each cell begins in its recording, in seconds; 0 for a silent cell.
    """
    return [_compose(mosaic, folder, settings) for mosaic in mosaics]


def _compose(mosaic: Mosaic, folder: Path, settings: ComposeSettings) -> tuple[float, ...]:
    # By the id, so that a clip does not depend on how many there are.
    rng = np.random.default_rng([settings.seed, *mosaic.clip_id.encode()])
    image, audio = clip_files(mosaic)
    photographs = [np.load(array_path(folder / PHOTOGRAPHS, cell.photograph)) for cell in mosaic.cells]
    (folder / image).write_bytes(_png(arranged(np.stack(photographs), settings.grid), settings.image_size))
    waves, starts = [], [0.0] * len(mosaic.cells)
    for place, cell in enumerate(mosaic.cells):
        if cell.recording is not None:
            wave = np.load(array_path(folder / RECORDINGS, cell.recording), mmap_mode="r")
            start, window = loudest_window(wave, settings.audio.n_samples, rng)
            starts[place] = start / settings.audio.sample_rate
            waves.append(window)
    mixture, _ = mix(np.stack(waves), np.ones(len(waves)))
    noisy = np.clip(mixture + _NOISE_RMS * rng.standard_normal(len(mixture)), -1, 1)
    (folder / audio).write_bytes(wav_bytes(noisy, settings.audio.sample_rate))
    return tuple(starts)


def arranged(photographs: np.ndarray, grid: int) -> np.ndarray:
    """Arrange square photographs, uint8 (grid², side, side, 3), as a mosaic (grid·side, grid·side, 3), row by row."""
    side = photographs.shape[1]
    rows = photographs.reshape(grid, grid, side, side, 3).transpose(0, 2, 1, 3, 4)
    return rows.reshape(grid * side, grid * side, 3)


def loudest_window(wave: np.ndarray, length: int, rng: np.random.Generator) -> tuple[int, np.ndarray]:
    """Draw five windows of `length` samples, and return the start and the samples of the one with the most energy.

    A shorter recording is followed by zeros. If the five have less than a thousandth of the energy around the loudest sample, it is
    that window instead, so that no clip is silent.
    """
    padded = np.pad(np.asarray(wave), (0, max(0, length - len(wave))))
    last = len(padded) - length
    around_peak = int(np.clip(np.abs(padded).argmax() - length // 2, 0, last))
    starts = rng.integers(0, last + 1, _WINDOWS).tolist()
    energies = [float(np.square(padded[start : start + length]).sum()) for start in [*starts, around_peak]]
    best = int(np.argmax(energies[:-1]))
    start = starts[best] if energies[best] >= 1.0e-3 * energies[-1] else around_peak
    return start, padded[start : start + length]


def _png(mosaic: np.ndarray, side: int) -> bytes:
    image = Image.fromarray(mosaic)
    if image.width != side:
        # The side is no multiple of the grid.
        image = image.resize((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=_PNG_LEVEL)
    return buffer.getvalue()
