"""Read HDF5 shards: all shards of a split as one array of clips, and verification of a shard.

See `pipeline.shards.writer` for the format. Whatever it is stored as, ``frame`` is read as uint8 (clip, row, col, channel), RGB, and
``log_mel`` as float32 (clip, mel, time), natural logarithm; ``source_time_s`` is in seconds. Damaged data is never returned: opening
compares the digest of everything except frames and log-mels, and reading compares each clip with its CRC-32.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import h5py
import numpy as np

from pipeline.common.config import ShardEncoding
from pipeline.common.errors import ShardError
from pipeline.common.files import fingerprint
from pipeline.common.hdf5 import (
    content_digest,
    decode_ids,
    read_array,
    read_attributes,
    read_errors,
    read_ids,
    reading,
)
from pipeline.common.project import stage_name
from pipeline.shards.chunks import ChunkReader, chunk_offsets
from pipeline.shards.jpeg import FRAME_JPEG, FRAME_SIZE, FRAME_START, StoredJpegs, decode_jpeg
from pipeline.shards.listing import check_listed, complete_shards
from pipeline.shards.writer import DIGEST, FIELDS, FORMAT_VERSION, LARGE, clip_checksum

REJECTS_FILE = "rejects.csv"


class ShardSet:
    """All shards of a split as one array of clips, in the order of the clip list. Created by `ShardSet.open`.

    Several threads can read at once. It can be passed to worker processes: open files belong to one process and are never pickled. The
    shards read last stay open, see `pipeline.shards.chunks`.
    """

    def __init__(self, paths: Sequence[Path], headers: Sequence[Mapping[str, Any]]) -> None:
        self.paths = list(paths)
        self._ends = np.cumsum([len(header["clip_ids"]) for header in headers])
        self._chunks = ChunkReader()
        self.encoding: ShardEncoding = headers[0]["encoding"]
        names = headers[0]["offsets"]
        self._offsets = {name: np.concatenate([header["offsets"][name] for header in headers]) for name in names}
        self._jpegs: list[StoredJpegs | None] = [header["jpegs"] for header in headers]
        self.settings: dict[str, Any] = headers[0]["settings"]
        self.clip_ids: list[str] = [clip_id for header in headers for clip_id in header["clip_ids"]]
        self.digests: list[str] = [header["digest"] for header in headers]
        self._checksums: np.ndarray = np.concatenate([header["crc32"] for header in headers])
        self.source_time_s: np.ndarray = np.concatenate([header["source_time_s"] for header in headers])
        self.image_size: int = int(self.settings["image_size"])
        self.log_mel_shape: tuple[int, int] = headers[0]["log_mel_shape"]
        # Includes the clip ids, because a shard's fingerprint covers its clip list but not which clips were rejected.
        self.fingerprint: str = fingerprint([[h["fingerprint"] for h in headers], self.clip_ids])

    @classmethod
    def open(cls, folder: Path | str) -> ShardSet:
        """Open the shards in `folder`.

        Raises
        ------
        ShardError
            As `complete_shards`; or a shard is not the one that was listed; or the shards differ in settings or format, contain a clip
            twice or no clips at all, or cannot be read.
        """
        folder = Path(folder)
        listed = complete_shards(folder)
        paths = list(listed)
        again = f"run `dvc repro {stage_name('extract', folder)}`"
        headers = [_read_header(path) for path in paths]
        for path, header in zip(paths, headers, strict=True):
            check_listed(path, header["digest"], listed[path])
            if difference := _difference(headers[0], header):
                raise ShardError(f"{path}: extracted with other settings than {paths[0].name}: {difference}; {again}")
        shards = cls(paths, headers)
        if len(set(shards.clip_ids)) != len(shards.clip_ids):
            twice = next(clip_id for clip_id, count in Counter(shards.clip_ids).items() if count > 1)
            raise ShardError(f"{folder}: clip {twice!r} is stored twice; {again}")
        if not shards.clip_ids:
            raise ShardError(f"{folder}: all shards are empty; see {REJECTS_FILE}")
        return shards

    def __len__(self) -> int:
        return len(self.clip_ids)

    def read(self, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Read clips in the given order.

        Parameters
        ----------
        indices : sequence of int
            Positions in `clip_ids`.

        Returns
        -------
        frame : np.ndarray, uint8, shape (n, row, col, channel)
            RGB.
        log_mel : np.ndarray, float32, shape (n, mel, time)

        Raises
        ------
        ShardError
            A clip's data is damaged, or its shard is missing; the message names the file and the clip.
        IndexError
            An index is out of range.
        """
        frame = np.empty((len(indices), self.image_size, self.image_size, 3), dtype=np.uint8)
        log_mel = np.empty((len(indices), *self.log_mel_shape), dtype=np.float32)
        for position, index in enumerate(indices):
            self._read_clip(int(index), frame[position], log_mel[position])
        return frame, log_mel

    @property
    def content_digest(self) -> str:
        """Digest of the stored clips. Unlike `fingerprint`, it changes if other code extracts other data from the same clips."""
        return hashlib.sha256("".join(self.digests).encode()).hexdigest()

    def close(self) -> None:
        """Close this process's files; `read` reopens them."""
        self._chunks.close()

    def rows(self, shard: int) -> range:
        """Return the positions in `clip_ids` of the clips of a shard, by its number."""
        return range(int(self._ends[shard - 1]) if shard else 0, int(self._ends[shard]))

    def _shard_of(self, index: int) -> int:
        """Return the number of a clip's shard."""
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        return int(np.searchsorted(self._ends, index, side="right"))

    def _read_clip(self, index: int, frame: np.ndarray, log_mel: np.ndarray) -> None:
        shard = self._shard_of(index)
        path = self.paths[shard]
        with read_errors(path, lambda reason: _damaged(path, f"clip {self.clip_ids[index]!r}: {reason}")):
            pixels = self._stored_frame(shard, index, frame)
            spectrum = self._stored_log_mel(path, index, log_mel)
            if clip_checksum(pixels, spectrum) != self._checksums[index]:
                raise ValueError("does not match its checksum")
            if pixels is not frame:
                decode_jpeg(pixels, frame)
            if spectrum is not log_mel:
                log_mel[...] = spectrum

    def _read_log_mel(self, index: int, crc32: int, log_mel: np.ndarray) -> None:
        # The shard's own checksum covers the frame, too.
        path = self.paths[self._shard_of(index)]
        with read_errors(path, lambda reason: _damaged(path, f"clip {self.clip_ids[index]!r}: {reason}")):
            spectrum = self._stored_log_mel(path, index, log_mel)
            if spectrum is not log_mel:
                log_mel[...] = spectrum
            if zlib.crc32(log_mel.data) != crc32:
                raise ValueError("does not match its checksum")

    def _stored_frame(self, shard: int, index: int, frame: np.ndarray) -> np.ndarray:
        """Read a frame into `frame` and return it, or return the bytes of its JPEG."""
        path, jpegs = self.paths[shard], self._jpegs[shard]
        if jpegs is not None:
            return jpegs.read(self._chunks, path, index - self.rows(shard).start)
        self._chunks.read_into(path, self._offsets["frame"][index], frame)
        return frame

    def _stored_log_mel(self, path: Path, index: int, log_mel: np.ndarray) -> np.ndarray:
        """Read a log-mel into `log_mel` and return it, or return it in the type that the shard stores."""
        stored = log_mel if self.encoding.log_mel == "float32" else np.empty_like(log_mel, self.encoding.log_mel)
        self._chunks.read_into(path, self._offsets["log_mel"][index], stored)
        return stored


def verify_shard(path: Path) -> None:
    """Read a whole shard, so that every checksum is verified.

    Raises
    ------
    ShardError
        The file is missing, not a shard, of another format version, or damaged; the message names the field and, if
        applicable, the clip.
    """
    header = _read_header(path)
    where = ""
    with reading(path, lambda reason: _damaged(path, f"{where}{reason}"), sealed=False) as file:
        # Clip by clip, so that memory stays small and the error names the clip.
        jpegs = header["jpegs"]
        for row, clip_id in enumerate(header["clip_ids"]):
            where = f"clip {clip_id!r}: "
            frame = file["frame"][row] if jpegs is None else file[FRAME_JPEG][jpegs.bytes_of(row)]
            if clip_checksum(frame, file["log_mel"][row]) != header["crc32"][row]:
                raise ValueError("does not match its checksum")
        where = "rejects: "
        if len(file["rejects/clip_id"]) != len(file["rejects/reason"]):
            raise ValueError("columns of unequal length")


def read_shard_fingerprint(path: Path) -> str:
    """Return a shard's fingerprint. Raises ShardError as `verify_shard` does, without reading the data."""
    fingerprint_: str = _read_header(path)["fingerprint"]
    return fingerprint_


def verify_split(folder: Path) -> None:
    """Raise ShardError if the shards of a folder are not exactly those of its list; their data are not read."""
    for path, listed in complete_shards(folder).items():
        check_listed(path, shard_digest(path), listed)


def shard_digest(path: Path) -> str:
    """Return a digest of a shard's content. Raises ShardError as `verify_shard` does, without reading frames and log-mels."""
    digest: str = _read_header(path)["digest"]
    return digest


def read_rejects(path: Path) -> list[tuple[str, str]]:
    """Return (clip_id, reason) of every rejected clip. Raises ShardError as `verify_shard` does."""
    with reading(path, lambda reason: _damaged(path, f"rejects: {reason}"), sealed=False) as file:
        group = file["rejects"]
        reasons = [reason.decode("utf-8") for reason in read_array(group["reason"])]
        return list(zip(read_ids(group["clip_id"]), reasons, strict=True))


def _read_header(path: Path) -> dict[str, Any]:
    """Read a shard's attributes, clip ids and shapes, and check that they are consistent."""
    if not path.exists():
        raise ShardError(f"{path}: no such shard; run `dvc repro {stage_name('extract', path.parent)}`")
    with reading(path, lambda reason: _damaged(path, reason), sealed=False) as file:
        attributes = read_attributes(file)
        version = attributes.pop("format_version")
        if version != FORMAT_VERSION:
            raise ShardError(
                f"{path}: format version {version}, this program reads {FORMAT_VERSION}; "
                f"run `dvc repro {stage_name('extract', path.parent)}`"
            )
        digest, values = content_digest(file, attribute=DIGEST, only_layout=LARGE)
        if attributes.pop(DIGEST) != digest:
            raise ValueError("its content does not match its digest")
        jpegs = StoredJpegs.of(file, values) if FRAME_JPEG in file else None
        of_frame = ("frame",) if jpegs is None else (FRAME_START, FRAME_SIZE)
        names = (*of_frame, *(name for name in FIELDS if name != "frame"), "crc32")
        shapes = {name: file[name].shape for name in names}
        if len({shape[0] for shape in shapes.values()}) != 1:
            raise ValueError(f"fields of unequal length: {shapes}")
        return {
            "fingerprint": attributes.pop("fingerprint"),
            "digest": digest,
            "settings": attributes,
            "encoding": _encoding(file),
            "clip_ids": decode_ids(values["clip_id"]),
            "crc32": values["crc32"],
            "source_time_s": values["source_time_s"],
            "log_mel_shape": shapes["log_mel"][1:],
            # The first axis of chunks is the clip, the others have one chunk.
            "offsets": {name: chunk_offsets(file[name]).reshape(-1) for name in LARGE if name in shapes},
            "jpegs": jpegs,
        }


def _encoding(file: h5py.File) -> ShardEncoding:
    """Return how a shard stores its clips. Raises ValueError if this program never stores them so."""
    log_mel = file["log_mel"].dtype.name
    if log_mel not in get_args(ShardEncoding.model_fields["log_mel"].annotation):
        raise ValueError(f"log_mel is {log_mel}")
    return ShardEncoding(log_mel=log_mel, frame_codec="jpeg" if FRAME_JPEG in file else "raw")


def _damaged(path: Path, reason: str) -> ShardError:
    # Deleting is only safe advice for files of our own.
    if not re.fullmatch(r"shard-\d{5,}\.h5", path.name):
        return ShardError(f"{path}: not a shard of this program ({reason})")
    return ShardError(
        f"{path}: damaged ({reason}); delete it and rerun `dvc repro {stage_name('extract', path.parent)}`"
    )


def _difference(first: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Return in which settings the header of a shard differs from that of the first one; empty if in none."""
    before, after = ({**header["settings"], **header["encoding"].model_dump()} for header in (first, other))
    names = [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]
    if not names and first["log_mel_shape"] != other["log_mel_shape"]:
        return "array shapes"
    return ", ".join(f"{name} {after.get(name)} instead of {before.get(name)}" for name in names)
