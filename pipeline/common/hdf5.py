"""HDF5 files of named arrays with named axes, such as what a method made of the training set before an epoch.

The same arrays give the same bytes, and xarray opens a file as it is. `pipeline.pseudo_labels.artifact` and `pipeline.shards.reader` have
formats of their own, with more checks; this one is for whatever a method wants to keep for a reader.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

from pipeline.common.files import write_bytes
from pipeline.common.hdf5_axes import add_bare_dimension, name_axes

NamedArray = tuple[tuple[str, ...], np.ndarray]


def write_arrays(path: Path, arrays: Mapping[str, NamedArray], attributes: Mapping[str, str | int]) -> None:
    """Write arrays, whole or not at all.

    Parameters
    ----------
    path : Path
    arrays : mapping of str to (axes, array)
        An axis that several arrays share has one length.
    attributes : mapping
    """
    buffer = io.BytesIO()
    # v110 is the oldest format that checksums its own structure, not only the data.
    with h5py.File(buffer, "w", libver=("v110", "v110")) as file:
        for name, value in attributes.items():
            dtype = h5py.string_dtype("utf-8", max(1, len(value.encode("utf-8")))) if isinstance(value, str) else None
            file.attrs.create(name, value, dtype=dtype)
        lengths: dict[str, int] = {}
        for name, (axes, values) in arrays.items():
            for axis, length in zip(axes, values.shape, strict=True):
                if lengths.setdefault(axis, length) != length:
                    raise ValueError(f"{name}: axis {axis!r} has {length} entries, another array has {lengths[axis]}")
            file.create_dataset(name, data=values, chunks=values.shape, fletcher32=True, track_times=False)
        for axis, length in lengths.items():
            add_bare_dimension(file, axis, length)
        name_axes(file, {name: axes for name, (axes, _) in arrays.items()})
    write_bytes(path, buffer.getvalue())


def read_about(path: Path) -> tuple[dict[str, str | int], list[str]]:
    """Read a file to its end; return its attributes, and the values of its array ``clip_id``.

    Raises
    ------
    OSError
        It is no HDF5 file, or a checksum is wrong.
    KeyError, ValueError
        It is not of this form.
    """
    with h5py.File(path, "r") as file:
        for dataset in file.values():
            dataset[()]
        attributes = {
            name: value.decode() if isinstance(value, bytes) else int(value) for name, value in file.attrs.items()
        }
        return attributes, [clip_id.decode("ascii") for clip_id in file["clip_id"][()]]


def ascii_ids(clip_ids: list[str]) -> np.ndarray:
    """Return clip ids as fixed-length bytes, which HDF5 stores without a heap."""
    return np.array([clip_id.encode("ascii") for clip_id in clip_ids], dtype=np.bytes_)
