"""HDF5 helpers: files with equal bytes for equal content, checksums throughout, and named axes.

Conventions
-----------
HDF5's Fletcher-32 is blind to a chunk that was zeroed together with its checksum, and cannot tell 0x0000 from 0xFFFF; nor
are all structures of a file protected. Files written by `create_file` therefore begin with a user block, which HDF5 ignores:
the SHA-256 of everything after it. It is compared before HDF5 parses the file. Shards are too large for that: they have a
`content_digest` and a checksum per clip.

Strings have a fixed length, because HDF5 stores variable-length ones outside the checksummed data. Dimension scales name
the axes as in netCDF, so that xarray opens the files directly. No timestamps are stored. Files are read without HDF5's
own locking, which not every network file system supports.

Shards (`pipeline.shards`), pseudo-labels and response maps have formats of their own; `write_arrays` is for the arrays
that a method computes before an epoch (``start_NNN.h5``).
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pipeline.common.access import raise_if_access_error
from pipeline.common.errors import AccessError, SoundspotError
from pipeline.common.files import write_bytes

NamedArray = tuple[tuple[str, ...], np.ndarray]

_BLOCK_BYTES = 1 << 20
_USER_BLOCK = 512  # bytes, the smallest that HDF5 allows
_SEAL = b"soundspot: SHA-256 of the bytes after this block of 512: "
# v110 is the oldest format that has checksums on its own structure and not only on the data. Upper bound = lower bound, so
# that a newer HDF5 library writes the same bytes.
LIBVER = ("v110", "v110")
# How netCDF marks a dimension without coordinate values; xarray then creates no variable for it.
_BARE_DIMENSION = "This is a netCDF dimension but not a netCDF variable. {:10d}"


@contextmanager
def create_file(path: Path) -> Iterator[h5py.File]:
    """Yield a new HDF5 file in memory, and write it to `path` atomically, sealed, if the block ends without an error."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver=LIBVER, userblock_size=_USER_BLOCK) as file:
        yield file
    content = buffer.getbuffer()
    seal(content)
    write_bytes(path, content)


def seal(content: memoryview | bytearray) -> None:
    """Write the SHA-256 of an HDF5 file into its user block."""
    text = _SEAL + hashlib.sha256(memoryview(content)[_USER_BLOCK:]).hexdigest().encode() + b"\n"
    content[: len(text)] = text


def open_file(path: Path) -> h5py.File:
    """Open an HDF5 file for reading. Raises OSError if it is missing or not an HDF5 file."""
    return h5py.File(path, "r", locking=False)


@contextmanager
def read_errors(path: Path, damaged: Callable[[str], SoundspotError]) -> Iterator[None]:
    """Convert every error that damage can cause in the block.

    Parameters
    ----------
    path : Path
        The file that the block reads.
    damaged : callable
        Reason, one line → the error to raise.

    Raises
    ------
    SoundspotError
        From `damaged`.
    AccessError
        The file cannot be read for a reason other than damage.
    """
    try:
        yield
    except SoundspotError:
        raise
    except Exception as error:
        raise_if_access_error(path, error)
        if "file locking flag" in str(error) or "already open" in str(error):
            raise AccessError(
                f"{path}: is open in this process with other settings, such as by xarray; close it"
            ) from None
        # h5py, NumPy and decoding raise many types: KeyError, TypeError, RuntimeError, UnicodeDecodeError, OverflowError …
        raise damaged(" ".join(str(error).split()) or type(error).__name__) from None


@contextmanager
def reading(path: Path, damaged: Callable[[str], SoundspotError], *, sealed: bool) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading. Errors are converted by `read_errors`, also in the block.

    `sealed` is for files of `create_file`: their SHA-256 is compared first.
    """
    with read_errors(path, damaged):
        if sealed:
            _check_seal(path)
        with open_file(path) as file:
            yield file


def read_array(dataset: h5py.Dataset, rows: Any = ()) -> np.ndarray:
    """Return a dataset, or some rows of it. Raises ValueError if it is not a dataset or larger than what the file stores."""
    check_stored(dataset)
    values: np.ndarray = dataset[rows]
    return values


def check_stored(dataset: h5py.Dataset) -> None:
    """Raise ValueError unless the file stores all values. Otherwise a wrong shape could ask for any amount of memory."""
    if not isinstance(dataset, h5py.Dataset) or dataset.shape is None:
        raise ValueError(f"{dataset.name} is not an array")
    if dataset.nbytes > dataset.id.get_storage_size():
        raise ValueError(f"{dataset.name} has shape {dataset.shape}, which is more than the file stores")


def content_digest(
    file: h5py.File, *, attribute: str, only_layout: Sequence[str] = ()
) -> tuple[str, dict[str, np.ndarray]]:
    """Return a SHA-256 over all names, types, shapes, axes, attributes and values of a file, and the arrays that it covers.

    Parameters
    ----------
    file : h5py.File
    attribute : str
        Attribute of the file that is left out, because it stores the digest.
    only_layout : sequence of str
        Datasets whose values are left out.
    """
    digest = hashlib.sha256()
    arrays: dict[str, np.ndarray] = {}
    names: list[str] = ["/"]
    file.visit(names.append)
    for name in names:
        each = file[name]
        digest.update(f"{name} {type(each).__name__}\n".encode())
        for key in sorted(set(each.attrs) - ({attribute} if name == "/" else set())):
            stored = each.attrs.get_id(key)
            digest.update(f"{key} {stored.dtype.str} {stored.shape}\n".encode())
            # References are addresses; where they point is part of the axes.
            if not (stored.dtype.hasobject or stored.dtype.names):
                value = np.empty(stored.shape, stored.dtype)
                stored.read(value)
                digest.update(value.tobytes())
        if isinstance(each, h5py.Dataset):
            axes = [[scale.name for scale in axis.values()] for axis in each.dims]
            digest.update(f"{each.dtype.str} {each.shape} {axes}\n".encode())
            # A bare dimension has a length and stores nothing.
            if name not in only_layout and (each.id.get_storage_size() or each.size == 0):
                arrays[name] = read_array(each)
                digest.update(arrays[name].tobytes())
    return digest.hexdigest(), arrays


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
    return decode_ids(read_array(dataset))


def decode_ids(values: np.ndarray) -> list[str]:
    """Return the clip ids of an array from `ascii_ids`."""
    return [clip_id.decode("ascii") for clip_id in values]


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


def verify_arrays(path: Path, damaged: Callable[[str], SoundspotError]) -> tuple[dict[str, str | int], list[str]]:
    """Verify a file of `write_arrays` and read what identifies it.

    Parameters
    ----------
    path : Path
    damaged : callable
        Reason → the error to raise.

    Returns
    -------
    attributes : dict
    clip_ids : list of str
        Values of the array ``clip_id``.

    Raises
    ------
    SoundspotError
        As `reading`: the file is missing, damaged, or has no ``clip_id``.
    """
    with reading(path, damaged, sealed=True) as file:
        return read_attributes(file), read_ids(file["clip_id"])


def _check_seal(path: Path) -> None:
    with open(path, "rb") as file:
        block = file.read(_USER_BLOCK)
        if not block.startswith(_SEAL):
            raise ValueError("no checksum at its beginning: not a file of this version, or changed by another program")
        digest = hashlib.sha256()
        while part := file.read(_BLOCK_BYTES):
            digest.update(part)
    if block[len(_SEAL) :].rstrip(b"\0") != digest.hexdigest().encode() + b"\n":
        raise ValueError("its content does not match its checksum")


def _to_python(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    return value.decode("utf-8") if isinstance(value, bytes) else value
