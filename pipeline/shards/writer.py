"""Write HDF5 shards of decoded clips, and define their format.

A shard contains a part of a split's clips in the order of the clip list, one dataset per field with the clip as first
axis:

- ``clip_id``: fixed-length bytes;
- ``frame``: uint8 (clip, row, col, channel), RGB;
- ``log_mel``: float32 (clip, mel, time), natural logarithm;
- ``source_time_s``: float64 (clip,), the clip's center time in its source, s;
- ``crc32``: uint32 (clip,), of the bytes of ``frame`` and then ``log_mel``, as stored.

Compact shards (`ShardEncoding`) have ``log_mel`` in float16, or instead of ``frame``:

- ``frame_jpeg``: uint8 (byte,), JPEG files one after the other, in blocks (`pipeline.shards.jpeg`);
- ``frame_start``: int64 (clip,), and ``frame_size``: uint32 (clip,): where a clip's file begins, and its length, bytes.

A chunk is one clip, uncompressed, with a Fletcher-32 checksum, because training reads individual clips in random order. Fletcher-32 is
blind to a chunk that was zeroed together with its checksum; therefore ``crc32``, and the attribute ``digest``: the
`content_digest` of everything except frames and log-mels. Dimension scales name the axes, with ``mel`` in Hz and ``time`` in s from the start of the window, so xarray can open a shard
directly. The group ``rejects`` lists the rejected clips with reasons. Attributes: ``format_version``, ``fingerprint``,
``digest`` and all extraction settings. Nothing else, such as a time or a host name, is stored, so equal input gives equal bytes.
Nor is the number of shards of the split (`pipeline.shards.listing`): clips that are added later change no finished shard.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pipeline.common.config import EXACT, ShardEncoding
from pipeline.common.hdf5 import (
    add_bare_dimension,
    ascii_ids,
    content_digest,
    name_axes,
    write_attributes,
)
from pipeline.shards.jpeg import BLOCK_BYTES, FRAME_JPEG, FRAME_SIZE, FRAME_START, encode_jpeg
from pipeline.shards.storage import storage_errors, streamed_file

FORMAT_VERSION = 4
DIGEST = "digest"
LARGE = ("frame", FRAME_JPEG, "log_mel")  # read clip by clip
FIELDS = ("clip_id", "frame", "log_mel", "source_time_s")
_AXES = {
    "clip_id": ("clip",),
    "frame": ("clip", "row", "col", "channel"),
    FRAME_JPEG: ("byte",),
    FRAME_START: ("clip",),
    FRAME_SIZE: ("clip",),
    "log_mel": ("clip", "mel", "time"),
    "source_time_s": ("clip",),
    "crc32": ("clip",),
}
_ID_BYTES = 128
_ID_TYPE = f"S{_ID_BYTES}"
_MARGIN = 4096  # bytes reserved per clip for chunk indices and reject reason, 16 times the typical size


class ShardWriter:
    """Writer for one shard, created by `ShardWriter.create`."""

    def __init__(
        self,
        file: h5py.File,
        *,
        settings: Mapping[str, Any],
        capacity: int,
        log_mel_shape: tuple[int, int],
        encoding: ShardEncoding,
    ):
        self._file = file
        self._settings = dict(settings)
        self._has_jpeg = encoding.frame_codec == "jpeg"
        self._n_clips = 0
        self._checksums: list[int] = []
        self._jpeg_sizes: list[int] = []
        self._rejects: list[tuple[str, str]] = []
        size = settings["image_size"]
        shapes = {"frame": (size, size, 3), "log_mel": log_mel_shape}
        types = {"clip_id": _ID_TYPE, "frame": "uint8", "log_mel": encoding.log_mel, "source_time_s": "float64"}
        # HDF5 allocates file space when objects are closed, and Python may release them late (a profiling thread, such as
        # Dask's, holds references). For equal bytes, objects stay open and the file is flushed at fixed points.
        self._objects: dict[str, h5py.HLObject] = {}
        self._by_clip = tuple(name for name in FIELDS if not (name == "frame" and self._has_jpeg))
        for name in self._by_clip:
            # Resizable, because rejected clips leave rows unused.
            shape = (capacity, *shapes.get(name, ()))
            self._create(name, shape=shape, dtype=types[name], maxshape=shape, chunks=(1, *shape[1:]), fletcher32=True)
        if self._has_jpeg:
            blocks = {"maxshape": (None,), "chunks": (BLOCK_BYTES,), "fletcher32": True}
            self._create(FRAME_JPEG, shape=(0,), dtype="uint8", **blocks)

    @classmethod
    @contextmanager
    def create(
        cls,
        path: Path,
        *,
        settings: Mapping[str, Any],
        capacity: int,
        mel_hz: np.ndarray,
        n_frames: int,
        encoding: ShardEncoding = EXACT,
    ) -> Iterator[ShardWriter]:
        """Yield a writer; the file is moved to `path` atomically if the block ends without an error.

        Parameters
        ----------
        path : Path
            Path of the shard.
        settings : mapping
            Attributes: ``fingerprint`` (str) and all extraction settings (numbers), including ``sample_rate`` in Hz,
            ``hop_length`` in samples and ``image_size`` in pixels.
        capacity : int
            Maximum number of clips, at least 1.
        mel_hz : np.ndarray, shape (mel,)
            Center frequency of each mel band, Hz.
        n_frames : int
            Length of `log_mel` in time.
        encoding : ShardEncoding
            How frames and log-mels are stored; by default, exactly.

        Raises
        ------
        OSError
            The file cannot be written.
        """
        size = settings["image_size"]
        # Also for compact shards: even the JPEG of noise takes less than its pixels and the margin.
        room = capacity * (_ID_BYTES + size * size * 3 + len(mel_hz) * n_frames * 4 + 8 + _MARGIN) + 32 * _MARGIN
        with streamed_file(path, room=room) as file:
            with storage_errors():
                shape = len(mel_hz), n_frames
                writer = cls(file, settings=settings, capacity=capacity, log_mel_shape=shape, encoding=encoding)
            yield writer
            with storage_errors():
                writer._finish(np.asarray(mel_hz, dtype=np.float64), n_frames)

    def append(
        self, clip_ids: Sequence[str], *, frame: np.ndarray, log_mel: np.ndarray, source_time_s: np.ndarray
    ) -> None:
        """Append clips.

        Parameters
        ----------
        clip_ids : sequence of str
        frame : np.ndarray, uint8, shape (clip, row, col, channel)
            RGB.
        log_mel : np.ndarray, float32, shape (clip, mel, time)
            Natural logarithm.
        source_time_s : np.ndarray, float64, shape (clip,)
            Center time of each clip in its source, s.
        """
        start, stop = self._n_clips, self._n_clips + len(clip_ids)
        values = {
            "clip_id": ascii_ids(clip_ids, n_bytes=_ID_BYTES),
            "frame": np.asarray(frame, np.uint8),
            "log_mel": np.asarray(log_mel, self._objects["log_mel"].dtype),
            "source_time_s": source_time_s,
        }
        stored = [encode_jpeg(each) if self._has_jpeg else each for each in values["frame"]]
        with storage_errors():
            for name in self._by_clip:
                self._objects[name][start:stop] = values[name]
            if self._has_jpeg:
                self._append_jpegs(stored)
            self._file.flush()
        self._checksums += [clip_checksum(*pair) for pair in zip(stored, values["log_mel"], strict=True)]
        self._n_clips = stop

    def reject(self, clip_id: str, reason: str) -> None:
        """Record a rejected clip and the reason."""
        self._rejects.append((clip_id, reason))

    def _append_jpegs(self, contents: Sequence[np.ndarray]) -> None:
        dataset, end = self._objects[FRAME_JPEG], sum(self._jpeg_sizes)
        for content in contents:
            start, end = end, end + len(content)
            dataset.resize(end, axis=0)
            dataset[start:end] = content
            self._jpeg_sizes.append(len(content))

    def _create(self, name: str, **what: Any) -> h5py.Dataset:
        # Without creation times, which would make the bytes depend on the clock.
        dataset = self._file.create_dataset(name, track_times=False, **what)
        self._objects[name] = dataset
        return dataset

    def _finish(self, mel_hz: np.ndarray, n_frames: int) -> None:
        for name in self._by_clip:
            self._objects[name].resize(self._n_clips, axis=0)
        columns: dict[str, np.ndarray] = {"crc32": np.array(self._checksums, dtype=np.uint32)}
        if self._has_jpeg:
            sizes = np.array(self._jpeg_sizes, dtype=np.int64)
            columns |= {FRAME_START: np.cumsum(sizes) - sizes, FRAME_SIZE: sizes.astype(np.uint32)}
        for name, values in columns.items():
            # HDF5 cannot chunk an empty array.
            self._create(name, data=values, **({"chunks": values.shape, "fletcher32": True} if len(values) else {}))
        time_s = np.arange(n_frames) * (self._settings["hop_length"] / self._settings["sample_rate"])
        self._write_dimensions(mel_hz, time_s)
        self._write_rejects()
        write_attributes(self._file, {"format_version": FORMAT_VERSION, **self._settings})
        self._file.flush()
        digest, _ = content_digest(self._file, attribute=DIGEST, only_layout=LARGE)
        write_attributes(self._file, {DIGEST: digest})
        self._file.flush()

    def _write_dimensions(self, mel_hz: np.ndarray, time_s: np.ndarray) -> None:
        for name, values, unit in (("mel", mel_hz, "Hz"), ("time", time_s, "s")):
            scale = self._create(name, data=values, chunks=values.shape, fletcher32=True)
            write_attributes(scale, {"units": unit})
            scale.make_scale(name)
        size = self._settings["image_size"]
        lengths = {"clip": self._n_clips}
        if self._has_jpeg:
            lengths["byte"] = len(self._objects[FRAME_JPEG])
        else:
            lengths |= {"row": size, "col": size, "channel": 3}
        for name, length in lengths.items():
            self._objects[name] = add_bare_dimension(self._file, name, length)
        name_axes(self._objects, {name: axes for name, axes in _AXES.items() if name in self._objects})
        write_attributes(self._objects["source_time_s"], {"units": "s"})

    def _write_rejects(self) -> None:
        self._objects["rejects"] = self._file.create_group("rejects")
        reasons = [reason.encode("utf-8") for _, reason in self._rejects]
        columns = {
            "clip_id": ascii_ids([clip_id for clip_id, _ in self._rejects], n_bytes=_ID_BYTES),
            "reason": np.array(reasons, f"S{max([1, *map(len, reasons)])}"),
        }
        for name, values in columns.items():
            checked = {"chunks": values.shape, "fletcher32": True} if len(values) else {}
            self._create(f"rejects/{name}", data=values, **checked)


def clip_checksum(frame: np.ndarray, log_mel: np.ndarray) -> int:
    """Return the CRC-32 of a clip as stored: `frame` (row, col, channel) uint8, or the bytes of its JPEG, and `log_mel` (mel, time)."""
    return zlib.crc32(np.ascontiguousarray(log_mel).data, zlib.crc32(np.ascontiguousarray(frame).data))
