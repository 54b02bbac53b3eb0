"""The file of one epoch's pseudo-labels, ``epoch_NNN.h5``: written as a whole, read row by row.

Conventions
-----------
Datasets, with the clip as first axis: `clip_id` fixed-length bytes, `response` float16 (R̃), `response_min` and `response_max` float32
(to undo the normalization), `audio_embedding` float16 (ã), `sounding_fraction` float32 (fraction of cells above δ_v). Dimensions:
`clip`, `row`, `col`, `feature`. Attributes: format_version, epoch, stage, objective, delta_v, delta_a, temperature, fingerprint (of
the run), shards (fingerprint of the training set). Equal pseudo-labels give equal bytes.

Opening a file compares the SHA-256 of all of it. Afterward, rows are read on demand; the data have checksums of their own, which
HDF5 verifies on every read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pipeline.common.errors import PseudoLabelError
from pipeline.common.hdf5 import (
    add_bare_dimension,
    ascii_ids,
    check_stored,
    create_file,
    name_axes,
    read_attributes,
    read_ids,
    reading,
    write_attributes,
)
from pipeline.pseudo_labels.label_fields import Choice

FORMAT_VERSION = 3
ATTRIBUTES = ("epoch", "stage", "objective", "delta_v", "delta_a", "temperature", "fingerprint", "shards")
AXES = {
    "clip_id": ("clip",),
    "response": ("clip", "row", "col"),
    "response_min": ("clip",),
    "response_max": ("clip",),
    "audio_embedding": ("clip", "feature"),
    "sounding_fraction": ("clip",),
}
TYPES = {
    name: np.dtype(np.float16 if len(axes) > 1 else np.float32) for name, axes in AXES.items() if name != "clip_id"
}
CLIPS_PER_CHUNK = 256  # about 128 KiB of 16×16 maps; artifacts are mostly read sequentially
CLIPS_PER_BLOCK = 32 * CLIPS_PER_CHUNK  # for sequential passes over all clips


class LabelFile:
    """An artifact on disk. It is checked on opening; its data are read on demand.

    The file is not kept open between calls, so an instance can be pickled and sent to other processes.

    Parameters
    ----------
    path : Path

    Attributes
    ----------
    clip_ids : list of str
    attrs : dict
        ATTRIBUTES and their values.

    Raises
    ------
    PseudoLabelError
        The file is missing, truncated or of another format version, or its fields are inconsistent.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise PseudoLabelError(f"{path}: no such pseudo-labels; run the training stage that writes them")
        self._identity = _identity(path)
        with reading(
            path, lambda reason: unusable(path, f"damaged or not a pseudo-label file ({reason})"), sealed=True
        ) as file:
            version = file.attrs.get("format_version")
            if version != FORMAT_VERSION:
                raise unusable(path, f"its format_version is {version}, this program reads {FORMAT_VERSION}")
            attributes = read_attributes(file)
            self.attrs = {name: attributes[name] for name in ATTRIBUTES}
            shapes = {name: file[name].shape for name in AXES}
            self.clip_ids = read_ids(file["clip_id"])
        n_axes = {name: len(shape) for name, shape in shapes.items()}
        if {shape[:1] for shape in shapes.values()} != {(len(self.clip_ids),)} or n_axes != {
            name: len(axes) for name, axes in AXES.items()
        }:
            raise unusable(path, "its fields differ in length or number of axes")
        if len(set(self.clip_ids)) != len(self.clip_ids):
            raise unusable(path, f"duplicate clip id {Counter(self.clip_ids).most_common(1)[0][0]!r}")

    def read_together(self, names: Sequence[str], rows: Choice = None) -> dict[str, np.ndarray]:
        """Read fields of all or of some clips, opening the file once.

        Parameters
        ----------
        names : sequence of str
            Fields other than `clip_id`.
        rows : np.ndarray of int64, or slice without a step, or None
            None reads all rows.

        Returns
        -------
        dict of np.ndarray float32, in the order of `rows`

        Raises
        ------
        PseudoLabelError
            The data are damaged or out of range, or the file was modified since it was opened.
        """
        chosen = slice(None) if rows is None else rows
        fields: dict[str, np.ndarray] = {}
        name = names[0]
        # Rows of two versions of the file must not be mixed.
        if _identity(self.path) != self._identity:
            raise PseudoLabelError(f"{self.path}: was modified since it was opened; open it again")
        with reading(
            self.path, lambda reason: unusable(self.path, f"{name} is damaged ({reason})"), sealed=False
        ) as file:
            for name in names:
                fields[name] = _read_rows(file[name], chosen).astype(np.float32, copy=False)
        for name, values in fields.items():
            fault = fault_of(name, values)
            if fault is not None:
                row, reason = fault
                clip_id = self.clip_ids[np.arange(len(self.clip_ids))[chosen][row]]
                raise unusable(self.path, f"{name} of clip {clip_id!r}: {reason}")
        return fields

    def verify_layout(self) -> None:
        """Check what reading does not require: types, checksums, and axis names."""
        with reading(self.path, partial(unusable, self.path), sealed=False) as file:
            for name, axes in AXES.items():
                dataset = file[name]
                if dataset.dtype.kind != "S" if name == "clip_id" else dataset.dtype != TYPES[name]:
                    raise unusable(self.path, f"{name} is {dataset.dtype}, not {TYPES.get(name, 'fixed-length bytes')}")
                if len(dataset) and not dataset.fletcher32:
                    raise unusable(self.path, f"{name} has no checksums")
                if [_scale(dimension) for dimension in dataset.dims] != list(axes):
                    raise unusable(self.path, f"the axes of {name} are not named {', '.join(axes)}")


def write_fields(
    path: Path, clip_ids: Sequence[str], fields: Mapping[str, np.ndarray], attrs: Mapping[str, Any]
) -> None:
    """Write an artifact atomically.

    Parameters
    ----------
    path : Path
    clip_ids : sequence of str
    fields : mapping
        All fields of AXES except `clip_id`; converted to TYPES.
    attrs : mapping
        ATTRIBUTES and their values.
    """
    stored = {"clip_id": ascii_ids(clip_ids)}
    stored |= {name: fields[name].astype(dtype, copy=False) for name, dtype in TYPES.items()}
    with create_file(path) as file:
        write_attributes(file, {"format_version": FORMAT_VERSION, **attrs})
        for name in AXES:
            chunks = (min(CLIPS_PER_CHUNK, len(clip_ids)), *stored[name].shape[1:])
            # Without timestamps, so that equal pseudo-labels give equal bytes.
            file.create_dataset(name, data=stored[name], chunks=chunks, fletcher32=True, track_times=False)
        lengths = {axis: n for name, axes in AXES.items() for axis, n in zip(axes, stored[name].shape, strict=True)}
        for axis, length in lengths.items():
            add_bare_dimension(file, axis, length)
        name_axes(file, AXES)


def blocks(n_clips: int, size: int = CLIPS_PER_BLOCK) -> Iterator[slice]:
    """Yield slices that together cover all clips, each a multiple of the chunk size."""
    for start in range(0, n_clips, size):
        yield slice(start, min(start + size, n_clips))


def fault_of(name: str, values: np.ndarray) -> tuple[int, str] | None:
    """Return the first row with invalid values, and the reason; None if all are valid."""
    good = ((values >= 0) & (values <= 1)) if name in ("response", "sounding_fraction") else np.isfinite(values)
    if good.all():
        return None
    row = int(np.argmin(good.reshape(len(values), -1).all(axis=1)))
    return row, "not all in [0, 1]" if name in ("response", "sounding_fraction") else "not all finite"


def unusable(path: Path, reason: str) -> PseudoLabelError:
    """Return the error for an artifact that cannot be repaired."""
    return PseudoLabelError(f"{path}: {reason}; remove the run's folder and run its stage again")


def _read_rows(dataset: h5py.Dataset, rows: np.ndarray | slice) -> np.ndarray:
    check_stored(dataset)
    if isinstance(rows, slice):
        return dataset[rows]
    # One slice per chunk that contains any of the rows: many times faster than indexing h5py with a list.
    values = np.empty((len(rows), *dataset.shape[1:]), dataset.dtype)
    order = np.argsort(rows, kind="stable")
    # `rows` may be unsorted and contain duplicates.
    for part in np.split(order, np.flatnonzero(np.diff(rows[order] // CLIPS_PER_CHUNK)) + 1) if len(rows) else ():
        first = rows[part[0]]
        values[part] = dataset[first : rows[part[-1]] + 1][rows[part] - first]
    return values


def _scale(dimension: Any) -> str:
    return dimension[0].name.lstrip("/") if len(dimension) else ""


def _identity(path: Path) -> tuple[int, int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise PseudoLabelError(f"{path}: cannot be read ({error.strerror})") from None
    return status.st_ino, status.st_size, status.st_mtime_ns
