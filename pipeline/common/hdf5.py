"""HDF5 helpers: files with equal bytes for equal content, checksums throughout, and named axes.

Conventions
-----------
Strings have a fixed length, because HDF5 stores variable-length ones outside the checksummed data. Dimension scales name
the axes as in netCDF, so that xarray opens the files directly. No timestamps are stored. Files are read without HDF5's
own locking, which not every network file system supports.

Shards (`pipeline.shards`), pseudo-labels and response maps have formats of their own; `write_arrays` is for the arrays
that a method computes before an epoch (``start_NNN.h5``).
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pipeline.common.files import write_bytes

NamedArray = tuple[tuple[str, ...], np.ndarray]

# What h5py and decoding raise for a file that is damaged or lacks a field.
READ_ERRORS = (OSError, RuntimeError, KeyError, ValueError)
# v110 is the oldest format that has checksums on its own structure and not only on the data. Upper bound = lower bound, so
# that a newer HDF5 library writes the same bytes.
LIBVER = ("v110", "v110")
# How netCDF marks a dimension without coordinate values; xarray then creates no variable for it.
_BARE_DIMENSION = "This is a netCDF dimension but not a netCDF variable. {:10d}"


@contextmanager
def create_file(path: Path) -> Iterator[h5py.File]:
    """Yield a new HDF5 file in memory, and write it to `path` atomically if the block ends without an error."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver=LIBVER) as file:
        yield file
    write_bytes(path, buffer.getvalue())


def open_file(path: Path) -> h5py.File:
    """Open an HDF5 file for reading. Raises OSError if it is missing or not an HDF5 file."""
    return h5py.File(path, "r", locking=False)


def write_attributes(target: h5py.HLObject, attributes: Mapping[str, Any]) -> None:
    """Write numbers and ASCII strings as attributes of a file, group or dataset."""
    for name, value in attributes.items():
        # HDF5 has no strings of length 0, so an empty one takes one byte.
        dtype = h5py.string_dtype("utf-8", max(1, len(value.encode("utf-8")))) if isinstance(value, str) else None
        target.attrs.create(name, value, dtype=dtype)


def read_attributes(target: h5py.HLObject) -> dict[str, Any]:
    """Return all attributes as Python numbers and strings."""
    return {name: _to_python(value) for name, value in target.attrs.items()}


def ascii_ids(clip_ids: Sequence[str], *, n_bytes: int | None = None) -> np.ndarray:
    """Return clip ids as an array of fixed-length bytes; the default length is that of the longest id."""
    return np.array([clip_id.encode("ascii") for clip_id in clip_ids], dtype=f"S{n_bytes}" if n_bytes else np.bytes_)


def read_ids(dataset: h5py.Dataset) -> list[str]:
    """Return the clip ids of a dataset written from `ascii_ids`. Raises ValueError if it has another type."""
    if dataset.dtype.kind != "S":
        raise ValueError(f"{dataset.name} is {dataset.dtype}, not fixed-length bytes")
    return [clip_id.decode("ascii") for clip_id in dataset[()]]


def add_bare_dimension(file: h5py.File, name: str, length: int) -> h5py.Dataset:
    """Add a dimension without coordinate values, and return its dataset for a caller that must keep it open."""
    dimension = file.create_dataset(name, shape=(length,), dtype="int8", track_times=False)
    dimension.make_scale(_BARE_DIMENSION.format(length))
    return dimension


def name_axes(datasets: Mapping[str, h5py.Dataset], axes: Mapping[str, Sequence[str]]) -> None:
    """Name the axes of fields.

    Parameters
    ----------
    datasets : mapping of str to h5py.Dataset
        Fields and dimensions by name; a file is such a mapping.
    axes : mapping of str to sequence of str
        Field → name of the dimension of each of its axes.
    """
    for field, dimensions in axes.items():
        for number, dimension in enumerate(dimensions):
            datasets[field].dims[number].attach_scale(datasets[dimension])


def write_arrays(path: Path, arrays: Mapping[str, NamedArray], attributes: Mapping[str, str | int]) -> None:
    """Write named arrays atomically.

    Parameters
    ----------
    path : Path
    arrays : mapping of str to (axes, array)
        Arrays that share an axis have the same length along it.
    attributes : mapping

    Raises
    ------
    ValueError
        An axis has different lengths in two arrays.
    """
    with create_file(path) as file:
        write_attributes(file, attributes)
        lengths: dict[str, int] = {}
        for name, (axes, values) in arrays.items():
            for axis, length in zip(axes, values.shape, strict=True):
                if lengths.setdefault(axis, length) != length:
                    raise ValueError(f"{name}: axis {axis!r} has {length} entries, another array has {lengths[axis]}")
            file.create_dataset(name, data=values, chunks=values.shape, fletcher32=True, track_times=False)
        for axis, length in lengths.items():
            add_bare_dimension(file, axis, length)
        name_axes(file, {name: axes for name, (axes, _) in arrays.items()})


def verify_arrays(path: Path) -> tuple[dict[str, str | int], list[str]]:
    """Read a file of `write_arrays` completely, so that all checksums are verified.

    Returns
    -------
    attributes : dict
    clip_ids : list of str
        Values of the array ``clip_id``.

    Raises
    ------
    OSError, RuntimeError, KeyError, ValueError
        READ_ERRORS: the file is not HDF5, is damaged, or has no ``clip_id``.
    """
    with open_file(path) as file:
        for dataset in file.values():
            dataset[()]
        return read_attributes(file), read_ids(file["clip_id"])


def _to_python(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    return value.decode("utf-8") if isinstance(value, bytes) else value
