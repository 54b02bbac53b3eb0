"""Write HDF5 files of stored features, and define their format.

``features-NNNNN.h5`` has the clips of ``shard-NNNNN.h5``, in the same order:

- ``clip_id``: fixed-length bytes;
- ``visual_feature``: float16 (clip, view, row, col, channel), what the visual backbone returns. View 0 is the frame, view 1 the mirrored
  frame;
- ``audio_feature``: float16 (clip, audio_channel, mel, time), what the audio backbone returns; only if it is frozen, too;
- ``visual_crc32``: uint32 (clip, view), and ``audio_crc32``: uint32 (clip,), of the bytes of the features, as stored;
- ``log_mel_crc32``: uint32 (clip,), of the shard's ``log_mel`` as float32, which can then be read and checked without the frame.

A chunk is what has one CRC-32, uncompressed, with a Fletcher-32 checksum. Attributes: ``format_version``; ``shard``, the digest of the
shard; ``visual_backbone`` and ``visual_weights`` (`pipeline.features.backbone`), and the same for audio; and ``digest``, the
`content_digest` of everything except features. Nothing else is stored, so equal input gives equal bytes.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import h5py
import numpy as np

from pipeline.common.config import Side
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
from pipeline.shards.chunks import chunk_offsets
from pipeline.shards.storage import storage_errors, streamed_file

FORMAT_VERSION = 1
DIGEST = "digest"
ORIGIN = ("shard", *(f"{side}_{what}" for side in get_args(Side) for what in ("backbone", "weights")))
AXES = {
    "clip_id": ("clip",),
    "visual_feature": ("clip", "view", "row", "col", "channel"),
    "visual_crc32": ("clip", "view"),
    "audio_feature": ("clip", "audio_channel", "mel", "time"),
    "audio_crc32": ("clip",),
    "log_mel_crc32": ("clip",),
}
_MARGIN = 4096  # bytes reserved per clip for everything but the features

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Header:
    """Everything in a file except the features.

    Attributes
    ----------
    digest : str
    origin : dict
        The attributes ORIGIN, without those of features that the file does not have.
    clip_ids : list of str
    shapes : dict of Side to tuple of int
        Of the features that the file has.
    crc32 : dict of Side to np.ndarray uint32
    log_mel_crc32 : np.ndarray (clip,) uint32
    offsets : dict of Side to np.ndarray int64
        Where in the file the features begin, in the shape of their `crc32`.
    """

    digest: str
    origin: dict[str, str]
    clip_ids: list[str]
    shapes: dict[Side, Shape]
    crc32: dict[Side, np.ndarray]
    log_mel_crc32: np.ndarray
    offsets: dict[Side, np.ndarray]


class FeatureWriter:
    """Writer for one file, created by `FeatureWriter.create`."""

    def __init__(self, file: h5py.File, clip_ids: Sequence[str], shapes: Mapping[Side, Shape]) -> None:
        self._file, self._clip_ids = file, clip_ids
        self._checksums: dict[Side, list[np.ndarray]] = {side: [] for side in shapes}
        self._log_mel_checksums: list[int] = []
        # For equal bytes, objects stay open and the file is flushed at fixed points, as in shards.
        self._objects: dict[str, h5py.HLObject] = {}
        for side, shape in shapes.items():
            whole = (len(clip_ids), *shape)
            inner = len(AXES[f"{side}_crc32"])
            self._create(
                f"{side}_feature",
                shape=whole,
                maxshape=(max(1, len(clip_ids)), *shape),  # HDF5 cannot chunk an empty array, but one that may grow
                chunks=(*[1] * inner, *whole[inner:]),
                dtype="float16",
                fletcher32=True,
            )

    @classmethod
    @contextmanager
    def create(
        cls, path: Path, *, clip_ids: Sequence[str], shapes: Mapping[Side, Shape], origin: Mapping[str, str]
    ) -> Iterator[FeatureWriter]:
        """Yield a writer; the file is moved to `path` atomically if the block ends without an error.

        Parameters
        ----------
        path : Path
        clip_ids : sequence of str
            Clips of the shard; all must be appended.
        shapes : mapping of Side to tuple of int
            Of the features of a clip: (view, row, col, channel) for visual; (channel, mel, time) for audio.
        origin : mapping
            Attributes, among ORIGIN.

        Raises
        ------
        OSError
            The file cannot be written.
        """
        room = len(clip_ids) * (2 * sum(map(math.prod, shapes.values())) + _MARGIN) + 16 * _MARGIN
        with streamed_file(path, room=room) as file:
            with storage_errors():
                writer = cls(file, clip_ids, shapes)
            yield writer
            with storage_errors():
                writer._finish(origin)

    def append(self, features: Mapping[Side, np.ndarray], log_mel: np.ndarray) -> None:
        """Append features (clip, …) float16 of each side, and the checksums of the log-mels (clip, mel, time) float32."""
        start = len(self._log_mel_checksums)
        with storage_errors():
            for side, values in features.items():
                self._objects[f"{side}_feature"][start : start + len(values)] = values
            self._file.flush()
        for side, values in features.items():
            self._checksums[side].append(checksums(side, values))
        self._log_mel_checksums += [checksum(spectrum) for spectrum in log_mel]

    def _create(self, name: str, **what: Any) -> None:
        # Without creation times, which would make the bytes depend on the clock.
        self._objects[name] = self._file.create_dataset(name, track_times=False, **what)

    def _finish(self, origin: Mapping[str, str]) -> None:
        n = len(self._clip_ids)
        if len(self._log_mel_checksums) != n:
            raise ValueError(f"{len(self._log_mel_checksums)} of {n} clips were appended")
        columns = {
            "clip_id": ascii_ids(self._clip_ids) if n else np.empty(0, "S1"),
            "log_mel_crc32": np.array(self._log_mel_checksums, np.uint32),
        }
        for side, parts in self._checksums.items():
            shape = self._objects[f"{side}_feature"].shape[: len(AXES[f"{side}_crc32"])]
            columns[f"{side}_crc32"] = np.concatenate([np.empty((0, *shape[1:]), np.uint32), *parts])
        for name, values in columns.items():
            self._create(name, data=values, **({"chunks": values.shape, "fletcher32": True} if n else {}))
        axes = {name: names for name, names in AXES.items() if name in self._objects}
        lengths: dict[str, int] = {}
        for name, names in axes.items():
            lengths |= dict(zip(names, self._objects[name].shape, strict=True))
        for name, length in lengths.items():
            self._objects[name] = add_bare_dimension(self._file, name, length)
        name_axes(self._objects, axes)
        write_attributes(self._file, {"format_version": FORMAT_VERSION, **origin})
        self._file.flush()
        write_attributes(self._file, {DIGEST: _content(self._file)[0]})
        self._file.flush()


def checksum(values: np.ndarray) -> int:
    """Return the CRC-32 of an array's bytes."""
    return zlib.crc32(np.ascontiguousarray(values).data)


def checksums(side: Side, values: np.ndarray) -> np.ndarray:
    """Return the CRC-32 of each chunk of features (clip, …): uint32, (clip, view) for visual, (clip,) for audio."""
    outer = values.shape[: len(AXES[f"{side}_crc32"])]
    return np.array([checksum(values[index]) for index in np.ndindex(outer)], np.uint32).reshape(outer)


def read_header(path: Path) -> Header:
    """Read everything except the features.

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
        digest, values = _content(file)
        if attributes[DIGEST] != digest:
            raise ValueError("its content does not match its digest")
        sides: tuple[Side, ...] = ("visual", "audio") if "audio_feature" in file else ("visual",)
        shapes = {side: file[f"{side}_feature"].shape for side in sides}
        clip_ids = decode_ids(values["clip_id"])
        for side, shape in shapes.items():
            crc32 = values[f"{side}_crc32"]
            if len(shape) != len(AXES[f"{side}_feature"]) or crc32.shape != shape[: crc32.ndim]:
                raise ValueError(f"{side} features of shape {shape}, with checksums of shape {crc32.shape}")
        if {len(values["log_mel_crc32"]), *(shape[0] for shape in shapes.values())} != {len(clip_ids)}:
            raise ValueError(f"fields of unequal length, for features of shape {shapes}")
        return Header(
            digest=digest,
            origin={name: str(attributes[name]) for name in ORIGIN if name.startswith(("shard", *sides))},
            clip_ids=clip_ids,
            shapes=shapes,
            crc32={side: values[f"{side}_crc32"] for side in sides},
            log_mel_crc32=values["log_mel_crc32"],
            offsets={
                side: chunk_offsets(file[f"{side}_feature"]).reshape(values[f"{side}_crc32"].shape) for side in sides
            },
        )


def verify_features(path: Path) -> None:
    """Read a whole file, so that every checksum is verified. Raises FeatureError, which names the clip of damaged features."""
    header = read_header(path)
    where = ""
    with reading(path, lambda reason: damaged(path, f"{where}{reason}"), sealed=False) as file:
        # Clip by clip, so that memory stays small and the error names the clip.
        for row, clip_id in enumerate(header.clip_ids):
            for side, expected in header.crc32.items():
                where = f"clip {clip_id!r}: {side} features: "
                if (checksums(side, file[f"{side}_feature"][row : row + 1])[0] != expected[row]).any():
                    raise ValueError("do not match their checksum")


def damaged(path: Path, reason: str) -> FeatureError:
    """Return the error for a damaged file."""
    # Deleting is only safe advice for files of our own.
    if not re.fullmatch(r"features-\d{5,}\.h5", path.name):
        return FeatureError(f"{path}: not a file of features of this program ({reason})")
    return FeatureError(f"{path}: damaged ({reason}); delete it and re{rerun(path.parent)}")


def rerun(folder: Path) -> str:
    """Return the advice to compute the features in a folder again."""
    return f"run `dvc repro {stage_name('features', folder)}`"


def _content(file: h5py.File) -> tuple[str, dict[str, np.ndarray]]:
    return content_digest(file, attribute=DIGEST, only_layout=[f"{side}_feature" for side in get_args(Side)])
