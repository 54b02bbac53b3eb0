"""Sound rebuilt from the published spectrograms of MUSIC-Synthetic.

Conventions: a published spectrogram is a pickled or plain array (frame, mel band) = (201, 64) in dB: 10·log10 of mel
filters over the magnitude, reference 1, as the card's audio settings have it. A rebuilt sound is one second, mono,
peak 1, written as WAV of 16 bits.

The magnitude follows from the bands by the pseudo-inverse of the filters: with a 10 ms window nearly every band is one
frequency. The phase is Griffin and Lim's estimate (IEEE TASSP 1984, in its fast form of 2013). What the pipeline then
computes from the rebuilt sound is the published spectrogram to within some tenths of a dB where there is sound, apart
from a factor for the whole clip, since the peak is that of the estimate.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import librosa
import numpy as np

from pipeline.common.cluster import run_tasks
from pipeline.common.config import AudioSettings
from pipeline.common.errors import ManifestError
from pipeline.common.files import write_bytes
from pipeline.datasets.importers.legacy_pickle import load_plain_pickle
from pipeline.datasets.music.mosaic import wav_bytes

_ITERATIONS = 60  # ours: three times as many gain less than 0.1 dB
_PER_TASK = 128


def rebuild_sounds(
    spectrograms: Sequence[Path],
    folder: Path,
    *,
    audio: AudioSettings,
    scheduler: str | None,
    workers: int | None,
) -> dict[str, str]:
    """Write ``folder/ID.wav`` for each spectrogram ``ID.pkl`` or ``ID.npy`` that has none yet, in parallel.

    Returns
    -------
    dict of str to str
        Id → why its spectrogram cannot be used.
    """
    folder = folder.absolute()  # a worker of a cluster elsewhere has another working directory
    todo = [path.absolute() for path in spectrograms if not (folder / f"{path.stem}.wav").is_file()]
    tasks = [(todo[i : i + _PER_TASK], folder, audio) for i in range(0, len(todo), _PER_TASK)]
    results = run_tasks(_rebuild, tasks, scheduler=scheduler, workers=workers, label="rebuild sounds")
    return {stem: reason for _, failures in results for stem, reason in failures}


def _rebuild(spectrograms: Sequence[Path], folder: Path, audio: AudioSettings) -> list[tuple[str, str]]:
    failures = []
    for path in spectrograms:
        try:
            sound = sound_of_spectrogram(read_spectrogram(path, audio), audio=audio)
        except ManifestError as error:
            failures.append((path.stem, str(error)))
            continue
        write_bytes(folder / f"{path.stem}.wav", wav_bytes(sound, audio.sample_rate))
    return failures


def read_spectrogram(path: Path, audio: AudioSettings) -> np.ndarray:
    """Read one published spectrogram, float64 (frame, mel band) in dB; nothing in the file is run.

    Raises
    ------
    ManifestError
        Not a plain array of finite numbers, or of another shape than the card's settings give.
    """
    try:
        content = np.load(path, allow_pickle=False) if path.suffix == ".npy" else load_plain_pickle(path)
    except (OSError, ValueError) as error:
        raise ManifestError(f"{path.name}: not a plain array: {error}") from None
    wanted = (audio.n_frames, audio.n_mels)
    if not isinstance(content, np.ndarray) or content.dtype.kind not in "fiu" or content.shape != wanted:
        found = getattr(content, "shape", type(content).__name__)
        raise ManifestError(f"{path.name}: expected an array {wanted} of decibels, got {found}")
    decibels = content.astype(np.float64)
    if not np.isfinite(decibels).all() or decibels.max() > 200:
        raise ManifestError(f"{path.name}: not finite decibels")
    return decibels


def sound_of_spectrogram(decibels: np.ndarray, *, audio: AudioSettings) -> np.ndarray:
    """Estimate a sound that has a given mel spectrogram.

    Parameters
    ----------
    decibels : np.ndarray [shape=(frame, mel band)]
        10·log10 of the mel energy, with the settings of `audio`.
    audio : AudioSettings
        With power 1.

    Returns
    -------
    np.ndarray [shape=(audio.n_samples,), dtype=float32]
        Largest magnitude 1; zeros for a spectrogram without any sound.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Empty filters")  # two bands, known and wanted
        filters = librosa.filters.mel(sr=audio.sample_rate, n_fft=audio.n_fft, n_mels=audio.n_mels, dtype=np.float64)
    magnitude = np.maximum(np.linalg.pinv(filters) @ 10 ** (decibels.T / 10), 0.0)
    sound = librosa.griffinlim(
        magnitude.astype(np.float32),
        n_iter=_ITERATIONS,
        hop_length=audio.hop_length,
        n_fft=audio.n_fft,
        length=audio.n_samples,
        random_state=0,  # the first phases; the same spectrogram gives the same sound
    )
    return sound / (np.abs(sound).max() or 1.0)
