"""Export a trained model to a file for other programs, and verify that it gives the same maps.

The exported file is loaded again as users would load it, and its outputs are compared with the original's on a batch of
one clip and a batch of three, which the trace has not seen. If an output differs by more than the tolerance, the file is
deleted.

Conventions
-----------
Frames are uint8 (n, 3, S, S), log-mels float32 (n, mel, time), response maps R float32 (n, h, w) before normalization,
audio embeddings float32 (n, d).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from pipeline import __version__
from pipeline.apps.export.formats import FORMATS, INPUTS, OUTPUTS, Arrays, Exportable
from pipeline.common.config import AudioSettings
from pipeline.common.errors import ExportError, SoundspotError
from pipeline.common.files import file_digest, replacing
from pipeline.common.project import CALIBRATION_FILE
from pipeline.media.log_mel import log_mel_of_windows
from pipeline.methods.trained_model import TrainedModel
from pipeline.shards.reader import ShardSet
from pipeline.training.checkpoints import load_model

FACTS_VERSION = 1
BATCHES = (1, 3)  # the trace sees two clips, so a batch size that became a constant is detected
TOLERANCE = 1.0e-4  # our choice: cosines are rounded to 1e-6, and differences below 1e-3 do not matter in a map
SEED = 20


@dataclass(frozen=True)
class Parity:
    """Difference between the exported file and the original.

    Attributes
    ----------
    response, audio_embedding : float >= 0
        Largest absolute difference, relative to the original's largest value if that is above 1.
    n_clips : int
    inputs : str
        Description of the inputs.
    """

    response: float
    audio_embedding: float
    n_clips: int
    inputs: str


@dataclass(frozen=True)
class Exported:
    """An exported file: its format (a key of `FORMATS`), metadata, size in bytes, and parity with the original."""

    path: Path
    format: str
    facts: Mapping[str, Any]
    size: int
    parity: Parity


@dataclass(frozen=True)
class Companions:
    """Files written next to an exported file: its card, and the calibration if the model has one."""

    card: Path
    calibration: Path


def companions_of(output: Path) -> Companions:
    """Return the paths of the companion files; they share the export's name, so a folder can hold several exports."""
    return Companions(*(output.with_name(output.name + ending) for ending in (".md", f".{CALIBRATION_FILE}")))


def check_output(output: Path, *, format: str, overwrite: bool, beside: Sequence[Path] = ()) -> None:
    """Raise ExportError if the extension does not fit the format, or if the file or one in `beside` exists."""
    endings = FORMATS[format].endings
    if output.suffix not in endings:
        raise ExportError(
            f"{output}: {FORMATS[format].title} requires the extension {' or '.join(endings)}; rename the output"
        )
    for path in (output, *beside):
        if path.exists() and not overwrite:
            raise ExportError(f"{path}: exists; choose another name, or pass --overwrite")


def export_model(
    path: Path,
    output: Path,
    *,
    format: str,
    tolerance: float = TOLERANCE,
    shards: Path | None = None,
    overwrite: bool = False,
) -> Exported:
    """Export a model for other programs and verify its outputs.

    Parameters
    ----------
    path : Path
        ``model.pt``.
    output : Path
        The file to write; it is written atomically.
    format : str
        A key of `FORMATS`.
    tolerance : float >= 0
        Maximum difference, see `Parity`.
    shards : Path, optional
        A folder of shards whose first clips are compared. Default: random inputs from a fixed seed.
    overwrite : bool
        Replace an existing file, but never the model itself.

    Raises
    ------
    CheckpointError, ShardError
        The model or the shards cannot be read.
    ExportError
        The output path is invalid or exists, packages are missing, torch cannot export the model, or the outputs differ.
    """
    check_output(output, format=format, overwrite=overwrite)
    if output.exists() and output.samefile(path):
        raise ExportError(f"{output}: is the model to export; choose another name")
    model = load_model(path)
    description = model.description
    audio, image_size = AudioSettings(**description["audio"]), description["image_size"]
    inputs = shard_inputs(shards, description) if shards else random_clips(image_size=image_size, audio=audio)
    example = random_clips(image_size=image_size, audio=audio, n=2)
    with torch.no_grad():
        response, embedding = model.localize(*map(torch.from_numpy, example))
    facts = export_facts(
        description,
        digest=file_digest(path),
        normalization=model.normalization or "min-max",
        map_size=list(response.shape[1:]),
        embedding_dim=embedding.shape[1],
        n_frames=audio.n_frames,
    )
    kind = FORMATS[format]
    with replacing(output) as temporary:
        try:
            frames, spectra = map(torch.from_numpy, example)
            written = kind.write(temporary, Exportable(model, frames, spectra).eval(), (frames, spectra), facts)
            # Loaded from the file, so that writing and reading are verified too.
            found = [kind.open(temporary)(*batch) for batch in inputs_in_batches(inputs)]
        except (SoundspotError, OSError):
            raise
        except Exception as error:
            # torch and the runtimes raise many types of errors on unsupported operations, e.g. in a new method.
            raise ExportError(
                f"{path}: method {description['method']!r} cannot be exported as {kind.title} "
                f"({type(error).__name__}: {' '.join(str(error).split())[:200]}); keep the model.pt"
            ) from None
        where = f"the first of the shards {shards.resolve().name!r}" if shards else "random frames and audio"
        parity = compare(model, inputs, found, where=where)
        worst = max(parity.response, parity.audio_embedding)
        # Negated, so that NaN fails too.
        if not worst <= tolerance:
            raise ExportError(
                f"{output}: not written: its maps differ from those of {path} by {parity.response:.1e} and its audio "
                f"embeddings by {parity.audio_embedding:.1e}, more than the tolerance {tolerance:.1e}"
            )
    return Exported(output, format, written, output.stat().st_size, parity)


def compare(model: TrainedModel, inputs: Arrays, found: list[Arrays], *, where: str) -> Parity:
    """Compare with the original on the same batches; a wrong shape or a non-finite output, of either, counts as infinite."""
    differences = []
    for batch, outputs in zip(inputs_in_batches(inputs), found, strict=True):
        originals = [each.numpy() for each in model.localize(*map(torch.from_numpy, batch))]
        differences.append([difference(a, b) for a, b in zip(originals, outputs, strict=True)])
    response, embedding = np.max(differences, axis=0).tolist()
    return Parity(response, embedding, len(inputs[0]), where)


def export_facts(description: Mapping[str, Any], *, digest: str, n_frames: int, **found: Any) -> dict[str, Any]:
    """Return the metadata of an exported file.

    Parameters
    ----------
    description : mapping
        The model's description, as returned by `pipeline.training.checkpoints.load_model`.
    digest : str
        SHA-256 of ``model.pt``.
    n_frames : int
        Time steps of a log-mel.
    **found
        `normalization`, `map_size` and `embedding_dim`.
    """
    size, audio = description["image_size"], description["audio"]
    shapes = {
        INPUTS[0]: f"uint8 (n, 3, {size}, {size}), RGB in 0..255, the whole frame squashed to a square",
        INPUTS[1]: f"float32 (n, {audio['n_mels']}, {n_frames}), natural logarithm of mel energies, peak of the wave 1",
        OUTPUTS[0]: "float32 (n, h, w), before normalization; row 0 is the top",
        OUTPUTS[1]: "float32 (n, d), of length 1",
    }
    about = {"format_version": FACTS_VERSION, "program": f"soundspot {__version__}", "model_sha256": digest}
    return {**about, **description, **found, **shapes}


def random_clips(*, image_size: int, audio: AudioSettings, n: int = sum(BATCHES), seed: int = SEED) -> Arrays:
    """Generate random frames with coarse and fine structure, and log-mels of decaying tones in noise.

    Returns
    -------
    frames : np.ndarray (n, 3, S, S) uint8
    log_mel : np.ndarray (n, mel, time) float32
    """
    # Plain noise would give nearly constant maps, in which differences could go unnoticed.
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.uniform(0, 255, (n, 3, 5, 5)))
    smooth = F.interpolate(coarse, size=(image_size, image_size), mode="bilinear", align_corners=True).numpy()
    frames = np.clip(smooth + rng.normal(0, 12, smooth.shape), 0, 255).astype(np.uint8)
    time = np.arange(audio.n_samples) / audio.sample_rate
    pitch = audio.sample_rate * rng.uniform(0.01, 0.2, (n, 3, 1))
    fading = np.exp(-time * rng.uniform(0.5, 4, (n, 3, 1)))
    waves = (fading * np.sin(2 * np.pi * pitch * time)).sum(axis=1) + rng.normal(0, 0.02, (n, len(time)))
    return frames, log_mel_of_windows(list(waves), audio).numpy()


def shard_inputs(folder: Path, description: Mapping[str, Any]) -> Arrays:
    """Read the first clips of shards. Raises ShardError, or ExportError if they do not fit the model."""
    shards = ShardSet.open(folder)
    audio = AudioSettings(**description["audio"])
    there = (shards.image_size, *shards.log_mel_shape)
    wanted = (description["image_size"], audio.n_mels, audio.n_frames)
    if there != wanted:
        raise ExportError(
            f"{folder}: frames of {there[0]} pixels and log-mels of {there[1]} × {there[2]}, but the model takes {wanted[0]} "
            f"and {wanted[1]} × {wanted[2]}; pass shards of the model's own dataset"
        )
    frames, spectra = shards.read(range(min(len(shards), sum(BATCHES))))
    return np.ascontiguousarray(np.moveaxis(frames, 3, 1)), np.asarray(spectra, dtype=np.float32)


def inputs_in_batches(inputs: Arrays) -> list[Arrays]:
    """Split inputs into the first clip and the rest."""
    frames, spectra = inputs
    batches = [(frames[:1], spectra[:1]), (frames[1:], spectra[1:])]
    return [batch for batch in batches if len(batch[0])]


def difference(original: np.ndarray, found: np.ndarray) -> float:
    """Return the largest difference between two outputs, see `Parity`; infinity if the shapes differ or a value is not finite."""
    # NaN in the original would pass every comparison: max(1.0, nan) is 1.
    if original.shape != found.shape or not (np.isfinite(original).all() and np.isfinite(found).all()):
        return float("inf")
    return float(np.abs(original - found).max() / max(1.0, float(np.abs(original).max())))
