"""The pseudo-label artifact: one epoch's predictions for the training set, which the next epoch learns from.

Conventions
-----------
R̃ (n, h, w) is the response map of the un-augmented frame after min-max (Eq. 1), in [0, 1]; ã (n, d) is the L2-normalized audio
embedding. Both are computed in evaluation mode with the weights at the END of the epoch. Eq. 4-6 need nothing else. See
`pipeline.pseudo_labels.hdf5_file` for the contents of ``epoch_NNN.h5``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np

from pipeline.common.errors import PseudoLabelError
from pipeline.pseudo_labels.hdf5_file import (
    ATTRIBUTES,
    FORMAT_VERSION,
    TYPES,
    LabelFile,
    blocks,
    fault_of,
    unusable,
    write_fields,
)
from pipeline.pseudo_labels.label_fields import ArrayFields, Fields, SomeRows

__all__ = ["ATTRIBUTES", "FORMAT_VERSION", "ClipLabels", "PseudoLabels", "write_pseudo_labels"]


@dataclass(frozen=True)
class ClipLabels:
    """The pseudo-labels of one clip: the fields of `PseudoLabels` without the clip axis."""

    clip_id: str
    response: np.ndarray  # (h, w) float32, R̃
    response_min: float
    response_max: float
    audio_embedding: np.ndarray  # (d,) float32, ã
    sounding_fraction: float
    delta_v: float

    @property
    def mask(self) -> np.ndarray:
        """Sounding region, R̃ > δ_v: (h, w) bool."""
        # float32 on both sides, as in training: a float64 threshold could flip cells at the boundary.
        return self.response > np.float32(self.delta_v)

    @property
    def raw_response(self) -> np.ndarray:
        """R before min-max, up to float16: (h, w) float32."""
        return self.response * np.float32(self.response_max - self.response_min) + np.float32(self.response_min)


class PseudoLabels:
    """One epoch's pseudo-labels of the training set, with the stored values converted to float32.

    Opening reads only the clip ids and the attributes. A whole array is read on first use and cached. ``labels[clip_id]``,
    ``labels[[clip_id, …]]``, ``labels[first_id:last_id]`` (both included, in file order) and `blocks` read only the rows they need and
    cache nothing. Everything read is checked; damaged data raise a `PseudoLabelError` that names the file. Iteration, ``len`` and
    ``in`` refer to clip ids.

    Attributes
    ----------
    clip_ids : list of str
    attrs : dict
        epoch, stage, objective, delta_v, delta_a, temperature, fingerprint, shards.
    path : Path or None
        The file; None for pseudo-labels in memory.
    """

    def __init__(
        self, clip_ids: Sequence[str], fields: Fields, attrs: Mapping[str, Any], *, path: Path | None = None
    ) -> None:
        self.clip_ids = list(clip_ids)
        self.attrs = dict(attrs)
        self.path = path
        self._fields = fields

    @classmethod
    def from_responses(
        cls, clip_ids: Sequence[str], response: np.ndarray, audio_embedding: np.ndarray, **attrs: Any
    ) -> PseudoLabels:
        """Create pseudo-labels from raw maps R (n, h, w) and embeddings a (n, d), float32; `attrs` must be ATTRIBUTES."""
        import torch  # takes a second, and reading does not need it

        from pipeline.model.equations import min_max

        if set(attrs) != set(ATTRIBUTES):
            raise ValueError(f"attributes must be {ATTRIBUTES}, got {tuple(attrs)}")
        arrays = {
            # Rounded as in the file, so that pseudo-labels in memory equal those read back.
            "response": np.empty(response.shape, TYPES["response"]),
            "response_min": response.min(axis=(1, 2)),
            "response_max": response.max(axis=(1, 2)),
            "audio_embedding": audio_embedding.astype(TYPES["audio_embedding"]),
            "sounding_fraction": np.empty(len(response), TYPES["sounding_fraction"]),
        }
        # In blocks, because the maps of millions of clips take gigabytes.
        for part in blocks(len(response)):
            normalized = min_max(torch.from_numpy(response[part])).numpy().astype(TYPES["response"])
            arrays["response"][part] = normalized
            arrays["sounding_fraction"][part] = _sounding_fraction(normalized.astype(np.float32), attrs["delta_v"])
        return cls(clip_ids, ArrayFields(arrays), attrs)

    @classmethod
    def open(cls, path: Path | str) -> PseudoLabels:
        """Open an artifact and check its structure; data are read and checked on use.

        Raises
        ------
        PseudoLabelError
            The file is missing, truncated or of another format version, or its fields are inconsistent.
        """
        file = LabelFile(Path(path))
        return cls(file.clip_ids, file, file.attrs, path=file.path)

    @cached_property
    def response(self) -> np.ndarray:
        """R̃, (n, h, w) float32 in [0, 1]."""
        return self._read("response")

    @cached_property
    def response_min(self) -> np.ndarray:
        """Minimum of the raw response, (n,) float32: R = R̃ (max - min) + min."""
        return self._read("response_min")

    @cached_property
    def response_max(self) -> np.ndarray:
        """Maximum of the raw response, (n,) float32."""
        return self._read("response_max")

    @cached_property
    def audio_embedding(self) -> np.ndarray:
        """ã, (n, d) float32."""
        return self._read("audio_embedding")

    @cached_property
    def sounding_fraction(self) -> np.ndarray:
        """Fraction of the cells above δ_v, (n,) float32."""
        return self._read("sounding_fraction")

    @property
    def masks(self) -> np.ndarray:
        """Sounding regions, R̃ > δ_v: (n, h, w) bool."""
        return self.response > np.float32(self.attrs["delta_v"])

    def __len__(self) -> int:
        return len(self.clip_ids)

    def __iter__(self) -> Iterator[str]:
        return iter(self.clip_ids)

    def __contains__(self, clip_id: object) -> bool:
        return clip_id in self._row_of

    @overload
    def __getitem__(self, key: str) -> ClipLabels: ...
    @overload
    def __getitem__(self, key: list[str] | slice) -> PseudoLabels: ...
    def __getitem__(self, key: str | list[str] | slice) -> ClipLabels | PseudoLabels:
        if isinstance(key, slice):
            return self._between(key)
        if not isinstance(key, str):
            return self.select(key)
        one = {name: values[0] for name, values in self._fields.read_together(tuple(TYPES), self.rows([key])).items()}
        return ClipLabels(
            clip_id=key,
            response=one["response"],
            response_min=float(one["response_min"]),
            response_max=float(one["response_max"]),
            audio_embedding=one["audio_embedding"],
            sounding_fraction=float(one["sounding_fraction"]),
            delta_v=self.attrs["delta_v"],
        )

    def select(self, clip_ids: Sequence[str]) -> PseudoLabels:
        """Return the pseudo-labels of some clips, in the given order; rows are read on use.

        Raises
        ------
        PseudoLabelError
            A clip has no labels.
        """
        return PseudoLabels(clip_ids, SomeRows(self._fields, self.rows(clip_ids)), self.attrs, path=self.path)

    def blocks(self) -> Iterator[PseudoLabels]:
        """Yield the pseudo-labels in blocks of some thousand clips, to process them without loading all."""
        for part in blocks(len(self)):
            yield PseudoLabels(self.clip_ids[part], SomeRows(self._fields, part), self.attrs, path=self.path)

    def with_attributes(self, **attrs: Any) -> PseudoLabels:
        """Return the same maps and embeddings with other attributes; the sounding fraction is recomputed for delta_v."""
        attrs = {**self.attrs, **attrs}
        arrays = {name: self.stored(name) for name in TYPES}
        arrays["sounding_fraction"] = np.concatenate(
            [np.empty(0, np.float32), *(_sounding_fraction(part.response, attrs["delta_v"]) for part in self.blocks())]
        )
        return PseudoLabels(self.clip_ids, ArrayFields(arrays), attrs)

    def rows(self, clip_ids: Sequence[str]) -> np.ndarray:
        """Return the rows of the given clips, (len(clip_ids),) int64.

        Raises
        ------
        PseudoLabelError
            A clip has no labels.
        """
        try:
            return np.array([self._row_of[clip_id] for clip_id in clip_ids], dtype=np.int64)
        except KeyError as error:
            raise PseudoLabelError(
                f"clip {error.args[0]!r} has no pseudo-labels of epoch {self.attrs['epoch']}, which were made from other shards; "
                "run initialize again"
            ) from None

    def mask_ious(self, previous: PseudoLabels) -> np.ndarray:
        """Return the IoU of each clip's sounding region with that of another epoch, (n,) float64; 1 if both are empty."""
        ious = [np.empty(0)]
        for own, earlier in zip(self.blocks(), previous.select(self.clip_ids).blocks(), strict=True):
            mine, other = own.masks, earlier.masks
            both, either = (mine & other).sum(axis=(1, 2)), (mine | other).sum(axis=(1, 2))
            ious.append(np.where(either > 0, both / np.maximum(either, 1), 1.0))
        return np.concatenate(ious)

    def mask_iou(self, previous: PseudoLabels) -> float:
        """Return the mean of `mask_ious`."""
        return float(self.mask_ious(previous).mean())

    def verify(self) -> None:
        """Read the whole file, which compares every checksum, and check that the fields are consistent.

        Raises
        ------
        PseudoLabelError
            Data are damaged or out of range; a type, checksum or axis name violates the format; a minimum is above its maximum;
            or a sounding fraction does not match its map.
        """
        # Pseudo-labels in memory have no layout.
        if isinstance(self._fields, LabelFile):
            self._fields.verify_layout()
        where = self.path or Path("pseudo-labels")
        for block in self.blocks():
            arrays = {name: getattr(block, name) for name in TYPES}
            for name, values in arrays.items():
                fault = fault_of(name, values)
                if fault is not None:
                    raise unusable(where, f"{name} of clip {block.clip_ids[fault[0]]!r}: {fault[1]}")
            counted = _sounding_fraction(block.response, self.attrs["delta_v"])
            for wrong, reason in (
                (block.response_min > block.response_max, "response_min is above response_max"),
                (~np.isclose(block.sounding_fraction, counted, atol=1e-6), "sounding_fraction does not match its map"),
            ):
                if wrong.any():
                    raise unusable(where, f"clip {block.clip_ids[int(np.argmax(wrong))]!r}: {reason}")

    def stored(self, name: str) -> np.ndarray:
        """Return one field with the type of the file, in half the memory of float32 for maps and embeddings."""
        if isinstance(self._fields, ArrayFields):
            return self._fields.arrays[name]
        shape = self._fields.read_together((name,), slice(0, 0))[name].shape[1:]
        values = np.empty((len(self), *shape), TYPES[name])
        for part, block in zip(blocks(len(self)), self.blocks(), strict=True):
            values[part] = getattr(block, name)
        return values

    def _between(self, ids: slice) -> PseudoLabels:
        if ids.step is not None:
            raise ValueError(f"a slice of clip ids cannot have a step, got {ids.step!r}")
        start = 0 if ids.start is None else int(self.rows([ids.start])[0])
        # Both ends are included: clip ids have no natural successor.
        stop = len(self) if ids.stop is None else int(self.rows([ids.stop])[0]) + 1
        part = slice(start, max(start, stop))
        return PseudoLabels(self.clip_ids[part], SomeRows(self._fields, part), self.attrs, path=self.path)

    def _read(self, name: str) -> np.ndarray:
        return self._fields.read_together((name,))[name]

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {clip_id: row for row, clip_id in enumerate(self.clip_ids)}


def write_pseudo_labels(path: Path, labels: PseudoLabels) -> None:
    """Write an artifact atomically."""
    write_fields(path, labels.clip_ids, {name: labels.stored(name) for name in TYPES}, labels.attrs)


def _sounding_fraction(response: np.ndarray, delta_v: float) -> np.ndarray:
    return (response > np.float32(delta_v)).mean(axis=(1, 2), dtype=np.float32)
