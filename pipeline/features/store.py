"""Write HDF5 files of stored features, and define their format.

``features-NNNNN.h5`` has the clips of ``shard-NNNNN.h5``, in the same order:

- ``clip_id``: fixed-length bytes;
- ``feature``: float16 (clip, view, row, col, channel), what the visual backbone returns. View 0 is the frame, view 1 the mirrored frame;
- ``crc32``: uint32 (clip, view), of the bytes of ``feature``, as stored;
- ``log_mel_crc32``: uint32 (clip,), of the shard's ``log_mel``, which can then be read and checked without the frame.

A chunk is one view of one clip, uncompressed, with a Fletcher-32 checksum. Attributes: ``format_version``; ``shard``, the digest of the
shard; ``backbone`` and ``weights`` (`pipeline.features.backbone`); and ``digest``, the `content_digest` of everything except
``feature``. Nothing else is stored, so equal input gives equal bytes.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pipeline.common.errors import FeatureError
from pipeline.common.hdf5 import (
    add_bare_dimension,
    ascii_ids,
    content_digest,
    decode_ids,
    name_axes,
    read_attributes,
    reading,
    write_attributes,
)
from pipeline.common.project import stage_name
from pipeline.shards.storage import storage_errors, streamed_file

FORMAT_VERSION = 1
DIGEST, FEATURE = "digest", "feature"
ORIGIN = ("shard", "backbone", "weights")  # attributes that say what the features were computed from
AXES = {
    "clip_id": ("clip",),
    FEATURE: ("clip", "view", "row", "col", "channel"),
    "crc32": ("clip", "view"),
    "log_mel_crc32": ("clip",),
}
_MARGIN = 4096  # bytes reserved per clip for everything but the features


class FeatureWriter:
    """Writer for one file, created by `FeatureWriter.create`."""

    def __init__(self, file: h5py.File, clip_ids: Sequence[str], shape: tuple[int, int, int, int]) -> None:
        self._file, self._clip_ids = file, clip_ids
        self._checksums: list[list[int]] = []
        self._log_mel_checksums: list[int] = []
        # For equal bytes, objects stay open and the file is flushed at fixed points, as in shards.
        self._objects: dict[str, h5py.HLObject] = {}
        # HDF5 cannot chunk an empty array, but one that may grow.
        largest = (max(1, len(clip_ids)), *shape)
        self._create(
            FEATURE,
            shape=(len(clip_ids), *shape),
            maxshape=largest,
            chunks=(1, 1, *shape[1:]),
            dtype="float16",
            fletcher32=True,
        )

    @classmethod
    @contextmanager
    def create(
        cls, path: Path, *, clip_ids: Sequence[str], shape: tuple[int, int, int, int], origin: Mapping[str, str]
    ) -> Iterator[FeatureWriter]:
        """Yield a writer; the file is moved to `path` atomically if the block ends without an error.

        Parameters
        ----------
        path : Path
        clip_ids : sequence of str
            Clips of the shard; all must be appended.
        shape : tuple of int
            Of the features of a clip: (view, row, col, channel).
        origin : mapping
            The attributes ORIGIN.

        Raises
        ------
        OSError
            The file cannot be written.
        """
        room = len(clip_ids) * (2 * int(np.prod(shape)) + _MARGIN) + 16 * _MARGIN
        with streamed_file(path, room=room) as file:
            with storage_errors():
                writer = cls(file, clip_ids, shape)
            yield writer
            with storage_errors():
                writer._finish(origin)

    def append(self, feature: np.ndarray, log_mel: np.ndarray) -> None:
        """Append features (clip, view, row, col, channel) float16, and the checksums of the log-mels (clip, mel, time) float32."""
        start = len(self._checksums)
        with storage_errors():
            self._objects[FEATURE][start : start + len(feature)] = feature
            self._file.flush()
        self._checksums += [[checksum(view) for view in views] for views in feature]
        self._log_mel_checksums += [checksum(spectrum) for spectrum in log_mel]

    def _create(self, name: str, **what: Any) -> None:
        # Without creation times, which would make the bytes depend on the clock.
        self._objects[name] = self._file.create_dataset(name, track_times=False, **what)

    def _finish(self, origin: Mapping[str, str]) -> None:
        n, views = self._objects[FEATURE].shape[:2]
        if len(self._checksums) != n:
            raise ValueError(f"{len(self._checksums)} of {n} clips were appended")
        columns = {
            "clip_id": ascii_ids(self._clip_ids) if n else np.empty(0, "S1"),
            "crc32": np.array(self._checksums, np.uint32).reshape(n, views),
            "log_mel_crc32": np.array(self._log_mel_checksums, np.uint32),
        }
        for name, values in columns.items():
            self._create(name, data=values, **({"chunks": values.shape, "fletcher32": True} if n else {}))
        for name, length in zip(AXES[FEATURE], self._objects[FEATURE].shape, strict=True):
            self._objects[name] = add_bare_dimension(self._file, name, length)
        name_axes(self._objects, AXES)
        write_attributes(self._file, {"format_version": FORMAT_VERSION, **{name: origin[name] for name in ORIGIN}})
        self._file.flush()
        write_attributes(self._file, {DIGEST: content_digest(self._file, attribute=DIGEST, only_layout=(FEATURE,))[0]})
        self._file.flush()


def checksum(values: np.ndarray) -> int:
    """Return the CRC-32 of an array's bytes."""
    return zlib.crc32(np.ascontiguousarray(values).data)


def read_header(path: Path) -> dict[str, Any]:
    """Read everything except the features.

    Returns
    -------
    dict
        The attributes ORIGIN and ``digest``; ``clip_ids``, ``crc32``, ``log_mel_crc32``; ``shape``, of the features.

    Raises
    ------
    FeatureError
        The file is missing, not a file of features, of another format version, or damaged.
    """
    if not path.exists():
        raise FeatureError(f"{path}: no such file; {rerun(path.parent)}")
    with reading(path, lambda reason: damaged(path, reason), sealed=False) as file:
        attributes = read_attributes(file)
        version = attributes["format_version"]
        if version != FORMAT_VERSION:
            raise FeatureError(
                f"{path}: format version {version}, this program reads {FORMAT_VERSION}; {rerun(path.parent)}"
            )
        digest, values = content_digest(file, attribute=DIGEST, only_layout=(FEATURE,))
        if attributes[DIGEST] != digest:
            raise ValueError("its content does not match its digest")
        shape = file[FEATURE].shape
        if {len(values[name]) for name in ("clip_id", "log_mel_crc32")} != {shape[0]} or len(shape) != 5:
            raise ValueError(f"fields of unequal length, for features of shape {shape}")
        if values["crc32"].shape != shape[:2]:
            raise ValueError(f"checksums of shape {values['crc32'].shape}, for features of shape {shape}")
        return {
            **{name: str(attributes[name]) for name in (*ORIGIN, DIGEST)},
            **{name: values[name] for name in ("crc32", "log_mel_crc32")},
            "clip_ids": decode_ids(values["clip_id"]),
            "shape": shape,
        }


def verify_features(path: Path) -> None:
    """Read a whole file, so that every checksum is verified. Raises FeatureError, which names the clip of damaged features."""
    header = read_header(path)
    where = ""
    with reading(path, lambda reason: damaged(path, f"{where}{reason}"), sealed=False) as file:
        # Clip by clip, so that memory stays small and the error names the clip.
        for row, clip_id in enumerate(header["clip_ids"]):
            where = f"clip {clip_id!r}: "
            if [checksum(view) for view in file[FEATURE][row]] != header["crc32"][row].tolist():
                raise ValueError("does not match its checksum")


def damaged(path: Path, reason: str) -> FeatureError:
    """Return the error for a damaged file."""
    # Deleting is only safe advice for files of our own.
    if not re.fullmatch(r"features-\d{5,}\.h5", path.name):
        return FeatureError(f"{path}: not a file of features of this program ({reason})")
    return FeatureError(f"{path}: damaged ({reason}); delete it and re{rerun(path.parent)}")


def rerun(folder: Path) -> str:
    """Return the advice to compute the features in a folder again."""
    return f"run `dvc repro {stage_name('features', folder)}`"
