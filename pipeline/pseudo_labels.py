"""The pseudo-label artifact: what one epoch's model says of the training set, for the next epoch to learn from.

Conventions
-----------
R̃ (n, h, w) is the response map after min-max (Eq. 1), in [0, 1], in the view of the un-augmented frame; ã (n, d) the audio
embedding, L2-normalised. Both come from the weights at the END of the epoch, in evaluation mode, and are all that Eq. 4-6 need.

``epoch_NNN.h5`` holds, with the clip as first axis: `clip_id` fixed-length bytes, `response` float16 (R̃), `response_min` and
`response_max` float32 (to undo the normalisation), `audio_embedding` float16 (ã), `sounding_fraction` float32 (share of
cells above δ_v); dimensions `clip`, `row`, `col`, `feature`; attributes format_version, epoch, stage, objective, delta_v,
delta_a, temperature, fingerprint. The same labels give the same bytes.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from pipeline.errors import PseudoLabelError
from pipeline.files import write_bytes
from pipeline.hdf5_axes import add_bare_dimension, name_axes
from pipeline.localization import min_max

FORMAT_VERSION = 1
ATTRIBUTES = ("epoch", "stage", "objective", "delta_v", "delta_a", "temperature", "fingerprint")
AXES = {
    "clip_id": ("clip",),
    "response": ("clip", "row", "col"),
    "response_min": ("clip",),
    "response_max": ("clip",),
    "audio_embedding": ("clip", "feature"),
    "sounding_fraction": ("clip",),
}
CLIPS_PER_CHUNK = 256  # about 128 KiB of 16×16 maps: an artifact is read from start to end


@dataclass(frozen=True)
class PseudoLabels:
    """One epoch's labels of the training set; values are those that the file holds, widened to float32.

    Attributes
    ----------
    clip_ids : list of str
    response : np.ndarray (n, h, w) float32 in [0, 1]
        R̃.
    response_min, response_max : np.ndarray (n,) float32
        Range of the raw response: R = R̃ (max - min) + min.
    audio_embedding : np.ndarray (n, d) float32
        ã.
    sounding_fraction : np.ndarray (n,) float32
    attrs : dict
        epoch, stage, objective, delta_v, delta_a, temperature, fingerprint.
    """

    clip_ids: list[str]
    response: np.ndarray
    response_min: np.ndarray
    response_max: np.ndarray
    audio_embedding: np.ndarray
    sounding_fraction: np.ndarray
    attrs: dict[str, Any]

    @classmethod
    def from_responses(
        cls, clip_ids: Sequence[str], response: np.ndarray, audio_embedding: np.ndarray, **attrs: Any
    ) -> PseudoLabels:
        """Make labels from raw maps R (n, h, w) and embeddings a (n, d), float32; `attrs` are ATTRIBUTES."""
        if set(attrs) != set(ATTRIBUTES):
            raise ValueError(f"attributes must be {ATTRIBUTES}, got {tuple(attrs)}")
        normalized = _as_stored(min_max(torch.from_numpy(response)).numpy())
        return cls(
            clip_ids=list(clip_ids),
            response=normalized,
            response_min=response.min(axis=(1, 2)),
            response_max=response.max(axis=(1, 2)),
            audio_embedding=_as_stored(audio_embedding),
            sounding_fraction=_sounding_fraction(normalized, attrs["delta_v"]),
            attrs=dict(attrs),
        )

    @classmethod
    def open(cls, path: Path) -> PseudoLabels:
        """Read and check an artifact.

        Raises
        ------
        PseudoLabelError
            The file is missing, damaged, of another format version, or its contents contradict each other.
        """
        try:
            with h5py.File(path, "r", locking=False) as file:
                labels = _read(file, path)
        except FileNotFoundError:
            raise PseudoLabelError(f"{path}: no such pseudo-labels; run the training stage that writes them") from None
        except (OSError, KeyError, UnicodeDecodeError) as error:
            raise _unusable(path, f"damaged or not a pseudo-label file ({error})") from None
        labels._check(path)
        return labels

    def restated(self, **attrs: Any) -> PseudoLabels:
        """Return the same maps and embeddings under other attributes; the sounding fraction follows delta_v."""
        attrs = {**self.attrs, **attrs}
        return replace(self, attrs=attrs, sounding_fraction=_sounding_fraction(self.response, attrs["delta_v"]))

    def rows(self, clip_ids: Sequence[str]) -> np.ndarray:
        """Return the rows of the given clips, (len(clip_ids),) int64.

        Raises
        ------
        PseudoLabelError
            A clip has no labels.
        """
        row_of = {clip_id: row for row, clip_id in enumerate(self.clip_ids)}
        try:
            return np.array([row_of[clip_id] for clip_id in clip_ids], dtype=np.int64)
        except KeyError as error:
            raise PseudoLabelError(
                f"clip {error.args[0]!r} has no pseudo-labels of epoch {self.attrs['epoch']}; they were made from other "
                "shards: rerun initialize"
            ) from None

    @property
    def masks(self) -> np.ndarray:
        """Sounding regions, R̃ > δ_v: (n, h, w) bool."""
        return self.response > np.float32(self.attrs["delta_v"])

    def mask_iou(self, previous: PseudoLabels) -> float:
        """Mean over clips of the IoU of the sounding regions with those of another epoch; two empty ones give 1."""
        mine, other = self.masks, previous.masks[previous.rows(self.clip_ids)]
        both, either = (mine & other).sum(axis=(1, 2)), (mine | other).sum(axis=(1, 2))
        return float(np.where(either > 0, both / np.maximum(either, 1), 1.0).mean())

    def _check(self, path: Path) -> None:
        n = len(self.clip_ids)
        lengths = {
            len(a)
            for a in (self.response, self.response_min, self.response_max, self.audio_embedding, self.sounding_fraction)
        }
        if lengths != {n} or self.response.ndim != 3 or self.audio_embedding.ndim != 2:
            raise _unusable(path, "its fields differ in length or number of axes")
        if len(set(self.clip_ids)) != n:
            raise _unusable(path, "a clip id stands in it twice")
        if not (np.isfinite(self.audio_embedding).all() and ((self.response >= 0) & (self.response <= 1)).all()):
            raise _unusable(path, "its responses are not all in [0, 1], or an embedding is not finite")


def write_pseudo_labels(path: Path, labels: PseudoLabels) -> None:
    """Write an artifact, whole or not at all."""
    fields = {
        "clip_id": np.array([clip_id.encode("ascii") for clip_id in labels.clip_ids], dtype=np.bytes_),
        "response": labels.response.astype(np.float16),
        "response_min": labels.response_min.astype(np.float32),
        "response_max": labels.response_max.astype(np.float32),
        "audio_embedding": labels.audio_embedding.astype(np.float16),
        "sounding_fraction": labels.sounding_fraction.astype(np.float32),
    }
    buffer = io.BytesIO()
    # v110 is the oldest format that checksums its own structure, not only the data.
    with h5py.File(buffer, "w", libver=("v110", "v110")) as file:
        for name, value in {"format_version": FORMAT_VERSION, **labels.attrs}.items():
            # Strings of fixed length lie where the checksum covers them.
            dtype = h5py.string_dtype("utf-8", max(1, len(value.encode("utf-8")))) if isinstance(value, str) else None
            file.attrs.create(name, value, dtype=dtype)
        for name, values in fields.items():
            chunks = (min(CLIPS_PER_CHUNK, len(values)), *values.shape[1:])
            file.create_dataset(name, data=values, chunks=chunks, fletcher32=True, track_times=False)
        lengths = {axis: n for name, axes in AXES.items() for axis, n in zip(axes, fields[name].shape, strict=True)}
        for axis, length in lengths.items():
            add_bare_dimension(file, axis, length)
        name_axes(file, AXES)
    write_bytes(path, buffer.getvalue())


def _read(file: h5py.File, path: Path) -> PseudoLabels:
    version = file.attrs.get("format_version")
    if version != FORMAT_VERSION:
        raise _unusable(path, f"its format_version is {version}, this program reads {FORMAT_VERSION}")
    attrs = {name: _python(file.attrs[name]) for name in ATTRIBUTES}
    return PseudoLabels(
        clip_ids=[clip_id.decode("ascii") for clip_id in file["clip_id"][()]],
        response=file["response"][()].astype(np.float32),
        response_min=file["response_min"][()],
        response_max=file["response_max"][()],
        audio_embedding=file["audio_embedding"][()].astype(np.float32),
        sounding_fraction=file["sounding_fraction"][()],
        attrs=attrs,
    )


def _python(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    return value.decode("utf-8") if isinstance(value, bytes) else value


def _as_stored(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float16).astype(np.float32)


def _sounding_fraction(response: np.ndarray, delta_v: float) -> np.ndarray:
    return (response > np.float32(delta_v)).mean(axis=(1, 2), dtype=np.float32)


def _unusable(path: Path, reason: str) -> PseudoLabelError:
    return PseudoLabelError(f"{path}: {reason}; remove the run's folder and run its stage again")
