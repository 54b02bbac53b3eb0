"""Frames of compact shards: a JPEG file for each clip, all of them one after the other in a single dataset of bytes.

HDF5 stores arrays of varying length in a heap that only its library can read, one thread at a time. Here, a file is read at its
offset, as everything else in a shard (`pipeline.shards.chunks`). The dataset consists of blocks, so that a shard is written without
holding its frames in memory; a file may continue in the next block.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

from pipeline.shards.chunks import ChunkReader, chunk_offsets

FRAME_JPEG, FRAME_START, FRAME_SIZE = "frame_jpeg", "frame_start", "frame_size"
JPEG_FIELDS = (FRAME_JPEG, FRAME_START, FRAME_SIZE)
BLOCK_BYTES = 1 << 16  # ours: on average, half a block of a shard stays empty, 32 KiB of about 25 MB
# Ours: on frames of real videos, the error is hardly visible (43.6 dB), and a file takes a ninth of the pixels.
_QUALITY = 92
# Ours: subsampled chroma takes a fifth less, but blurs colored edges, and decoders differ in how they enlarge it.
_NO_SUBSAMPLING = 0
TYPICAL_BYTES_PER_PIXEL = 0.32  # 21 kB for 256² pixels of real videos; the most detailed frames take twice that


@dataclass(frozen=True)
class StoredJpegs:
    """Where a shard stores the JPEG files of its clips.

    Attributes
    ----------
    start : np.ndarray int64 (clip,)
        Where in the dataset a file begins, bytes.
    size : np.ndarray uint32 (clip,)
        Length of the file, bytes.
    blocks : np.ndarray int64 (block,)
        Where in the shard each block of the dataset begins, bytes.
    """

    start: np.ndarray
    size: np.ndarray
    blocks: np.ndarray

    @classmethod
    def of(cls, file: h5py.File, values: Mapping[str, np.ndarray]) -> StoredJpegs:
        """Locate the JPEG files of an open shard, whose other datasets are `values`. Raises ValueError if one exceeds the dataset."""
        dataset, start, size = file[FRAME_JPEG], values[FRAME_START], values[FRAME_SIZE]
        if (start < 0).any() or (start + size > len(dataset)).any():
            raise ValueError(f"a frame exceeds {FRAME_JPEG}")
        return cls(start, size, chunk_offsets(dataset, partial=True))

    def bytes_of(self, row: int) -> slice:
        """Return where in the dataset the file of a clip of the shard is."""
        start = int(self.start[row])
        return slice(start, start + int(self.size[row]))

    def read(self, chunks: ChunkReader, path: Path, row: int) -> np.ndarray:
        """Return the JPEG file of a clip of the shard: uint8 (byte,). Raises as `ChunkReader.read_into`."""
        where = self.bytes_of(row)
        content = np.empty(where.stop - where.start, np.uint8)
        rest, position = content, where.start
        while len(rest):
            block, within = divmod(position, BLOCK_BYTES)
            part = rest[: BLOCK_BYTES - within]
            chunks.read_into(path, int(self.blocks[block]) + within, part)
            rest, position = rest[len(part) :], position + len(part)
        return content


def encode_jpeg(frame: np.ndarray) -> np.ndarray:
    """Return a frame (row, col, channel) uint8 RGB as the bytes of a JPEG file: uint8 (byte,)."""
    buffer = io.BytesIO()
    # Not `optimize`, which saves 5%: Pillow then fails on noise, which exceeds its buffer.
    Image.fromarray(frame).save(buffer, "JPEG", quality=_QUALITY, subsampling=_NO_SUBSAMPLING)
    return np.frombuffer(buffer.getbuffer(), np.uint8)


def decode_jpeg(content: np.ndarray, frame: np.ndarray) -> None:
    """Decode a JPEG file into a frame (row, col, channel) uint8 RGB.

    Raises ValueError if it is of another size or mode, and OSError or SyntaxError if it is broken.
    """
    with Image.open(io.BytesIO(content.data), formats=("JPEG",)) as image:
        if (image.mode, image.size) != ("RGB", frame.shape[1::-1]):
            raise ValueError(f"its frame is a JPEG of {image.width}×{image.height} pixels, mode {image.mode}")
        frame[...] = np.asarray(image)
