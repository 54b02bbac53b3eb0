"""Tiled HEIC and AVIF files, which no installed library writes: built from tiles that Pillow encodes one by one.

Layout (ISO/IEC 23008-12): the coded tiles are items 2 to n + 1, and the primary item 1 is a grid that refers to them.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pillow_heif
from PIL import Image

pillow_heif.register_heif_opener()

CODED_ITEM = {"HEIF": b"hvc1", "AVIF": b"av01"}
MAJOR_BRAND = {"HEIF": b"heic", "AVIF": b"avif"}


def box(kind: bytes, *parts: bytes) -> bytes:
    """Return a box."""
    content = b"".join(parts)
    return struct.pack(">I4s", 8 + len(content), kind) + content


def full_box(kind: bytes, version: int, *parts: bytes, flags: int = 0) -> bytes:
    """Return a box with version and flags."""
    return box(kind, struct.pack(">I", version << 24 | flags), *parts)


def write_grid(
    path: Path,
    pixels: np.ndarray,
    *,
    tile: int = 64,
    kind: str = "HEIF",
    turns: int = 0,
    mirror: int | None = None,
    brand: bytes | None = None,
    spoil: int | None = None,
) -> Path:
    """Write an image as a grid of square tiles; the last row and column extend beyond the image.

    Parameters
    ----------
    turns : int
        Quarter turns counterclockwise that a reader applies (`irot`).
    mirror : int or None
        1 swaps left and right, 0 top and bottom, after turning (`imir`).
    brand : bytes or None
        Major brand instead of the usual one.
    spoil : int or None
        Index of a tile whose data is replaced by zeros.
    """
    height, width = pixels.shape[:2]
    rows, columns = -(-height // tile), -(-width // tile)
    padded = np.pad(pixels, ((0, rows * tile - height), (0, columns * tile - width), (0, 0)), mode="edge")
    coded = [
        _encoded(padded[row * tile :, column * tile :][:tile, :tile], kind)
        for row in range(rows)
        for column in range(columns)
    ]
    grid = struct.pack(">BBBBHH", 0, 0, rows - 1, columns - 1, width, height)
    data = [grid] + [bytes(len(each)) if i == spoil else each for i, (_, each) in enumerate(coded)]
    # Properties are numbered from 1: the grid's size, its transformations, the size of a tile, the tiles' decoder settings.
    properties = [_size(width, height)]
    if turns:
        properties.append(box(b"irot", bytes([turns])))
    if mirror is not None:
        properties.append(box(b"imir", bytes([mirror])))
    owned = [list(range(1, len(properties) + 1))]
    properties.append(_size(tile, tile))
    size = len(properties)
    for config, _ in coded:
        properties.append(config)
        owned.append([size, len(properties)])
    path.write_bytes(_file(kind, brand or MAJOR_BRAND[kind], data, properties, owned))
    return path


def _encoded(pixels: np.ndarray, kind: str) -> tuple[bytes, bytes]:
    """Encode a tile; return its decoder settings as a box, and its data."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format=kind, quality=95)
    content = buffer.getvalue()
    name = b"hvcC" if kind == "HEIF" else b"av1C"
    start = content.index(name) - 4
    config = content[start : start + struct.unpack_from(">I", content, start)[0]]
    media = content.rindex(b"mdat") + 4
    return config, content[media:]


def _size(width: int, height: int) -> bytes:
    return full_box(b"ispe", 0, struct.pack(">II", width, height))


def _file(kind: str, brand: bytes, data: list[bytes], properties: list[bytes], owned: list[list[int]]) -> bytes:
    n = len(data)
    head = box(b"ftyp", brand, bytes(4), b"mif1", MAJOR_BRAND[kind], b"miaf")
    types = [b"grid"] + [CODED_ITEM[kind]] * (n - 1)
    infos = [full_box(b"infe", 2, struct.pack(">HH", i, 0), name, b"\0") for i, name in enumerate(types, start=1)]
    references = box(b"dimg", struct.pack(f">HH{n - 1}H", 1, n - 1, *range(2, n + 1)))
    # The highest bit marks a property that a reader must understand.
    links = [struct.pack(">HB", i, len(each)) + bytes(0x80 | p for p in each) for i, each in enumerate(owned, start=1)]

    def meta(start: int) -> bytes:
        offsets = np.cumsum([start, *(len(each) for each in data)])
        places = [
            struct.pack(">HHHII", i, 0, 1, offset, len(each))
            for i, (offset, each) in enumerate(zip(offsets, data, strict=False), start=1)
        ]
        return full_box(
            b"meta", 0,
            full_box(b"hdlr", 0, bytes(4), b"pict", bytes(13)),
            full_box(b"pitm", 0, struct.pack(">H", 1)),
            full_box(b"iloc", 0, b"\x44\x00", struct.pack(">H", n), *places),
            full_box(b"iinf", 0, struct.pack(">H", n), *infos),
            full_box(b"iref", 0, references),
            box(b"iprp", box(b"ipco", *properties), full_box(b"ipma", 0, struct.pack(">I", n), *links)),
        )  # fmt: skip

    start = len(head) + len(meta(0)) + 8
    return head + meta(start) + box(b"mdat", *data)
