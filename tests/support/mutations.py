"""Damage files on purpose, reproducibly: the generator decides everything.

`mutate` works on the bytes of any file; `mutate_hdf5` and `mutate_weights` also change what a file contains through its own library,
as another program would, so that the library's checksums are right again.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import torch

from pipeline.common.hdf5 import LIBVER, content_digest, seal, write_attributes
from pipeline.shards.writer import DIGEST, LARGE, clip_checksum

SPECIAL = (float("nan"), float("inf"), float("-inf"))


def mutate(content: bytes, rng: np.random.Generator) -> bytes:
    """Return `content` with one kind of damage; never equal to `content`, unless that is empty."""
    while content:
        kind = _BYTE_KINDS[rng.integers(len(_BYTE_KINDS))]
        damaged = kind(content, rng)
        if damaged != content:
            return damaged
    return content


def mutate_hdf5(content: bytes, rng: np.random.Generator) -> bytes:
    """Return an HDF5 file in which an attribute, a dataset or some values differ; written by h5py, so all its checksums are right."""
    buffer = io.BytesIO(content)
    while True:
        with h5py.File(buffer, "r+", libver=LIBVER) as file:
            names: list[str] = []
            file.visit(names.append)
            datasets = [file[name] for name in names if isinstance(file[name], h5py.Dataset)]
            kind = _HDF5_KINDS[rng.integers(len(_HDF5_KINDS))]
            done = kind(file, datasets[rng.integers(len(datasets))], rng)
        if done:
            return buffer.getvalue()


def mutate_weights(content: bytes, rng: np.random.Generator) -> bytes:
    """Return a file of torch.save in which some weights are NaN or infinite."""
    entries = torch.load(io.BytesIO(content), weights_only=True)
    names = [name for name, value in entries.items() if isinstance(value, torch.Tensor) and value.is_floating_point()]
    weights = entries[names[rng.integers(len(names))]].view(-1)
    weights[rng.integers(len(weights), size=rng.integers(1, 4))] = SPECIAL[rng.integers(len(SPECIAL))]
    buffer = io.BytesIO()
    torch.save(entries, buffer)
    return buffer.getvalue()


@contextmanager
def edited(path: Path) -> Iterator[h5py.File]:
    """Yield a file of `create_file` for changes, and seal it again: its content may be wrong, but it is not damaged."""
    with h5py.File(path, "r+") as file:
        yield file
    content = bytearray(path.read_bytes())
    seal(content)
    path.write_bytes(content)


@contextmanager
def edited_shard(path: Path) -> Iterator[h5py.File]:
    """Yield a shard for changes, and compute its checksums again: other clips, but no damage."""
    with h5py.File(path, "r+") as file:
        yield file
        file["crc32"][...] = [clip_checksum(*clip) for clip in zip(file["frame"], file["log_mel"], strict=True)]
        file.flush()
        write_attributes(file, {DIGEST: content_digest(file, attribute=DIGEST, only_layout=LARGE)[0]})


def _span(content: bytes, rng: np.random.Generator) -> tuple[int, int]:
    # Short and long spans are equally likely.
    length = min(len(content), int(2 ** rng.uniform(0, np.log2(len(content) + 1))))
    start = int(rng.integers(len(content) - length + 1))
    return start, start + length


def _flip_bit(content: bytes, rng: np.random.Generator) -> bytes:
    return _flip(content, rng, 1)


def _flip_bytes(content: bytes, rng: np.random.Generator) -> bytes:
    return _flip(content, rng, int(rng.integers(2, 17)))


def _flip(content: bytes, rng: np.random.Generator, n: int) -> bytes:
    damaged = bytearray(content)
    for position in rng.integers(len(content), size=n):
        damaged[position] ^= 1 << int(rng.integers(8))
    return bytes(damaged)


def _truncate(content: bytes, rng: np.random.Generator) -> bytes:
    return content[: rng.integers(len(content))]


def _overwrite(content: bytes, rng: np.random.Generator) -> bytes:
    start, stop = _span(content, rng)
    # A block that was never written is zero or 0xFF.
    filling = (bytes(stop - start), b"\xff" * (stop - start), rng.bytes(stop - start))[rng.integers(3)]
    return content[:start] + filling + content[stop:]


def _zero_sectors(content: bytes, rng: np.random.Generator) -> bytes:
    start = int(rng.integers(-(-len(content) // 512))) * 512
    stop = min(len(content), start + 512 * int(rng.integers(1, 17)))
    return content[:start] + bytes(stop - start) + content[stop:]


def _remove(content: bytes, rng: np.random.Generator) -> bytes:
    start, stop = _span(content, rng)
    return content[:start] + content[stop:]


def _repeat(content: bytes, rng: np.random.Generator) -> bytes:
    start, stop = _span(content, rng)
    return content[:stop] + content[start:]


def _append(content: bytes, rng: np.random.Generator) -> bytes:
    return content + rng.bytes(int(rng.integers(1, 4097)))


def _move(content: bytes, rng: np.random.Generator) -> bytes:
    start, stop = _span(content, rng)
    target = int(rng.integers(len(content) - (stop - start) + 1))
    return content[:target] + content[start:stop] + content[target + stop - start :]


_BYTE_KINDS: tuple[Callable[[bytes, np.random.Generator], bytes], ...] = (
    _flip_bit, _flip_bytes, _truncate, _overwrite, _zero_sectors, _remove, _repeat, _append, _move,
)  # fmt: skip


def _change_value(_: h5py.File, dataset: h5py.Dataset, rng: np.random.Generator) -> bool:
    values = dataset[()] if dataset.id.get_storage_size() else np.empty(0)
    if values.size == 0:
        return False
    before = values.tobytes()
    flat = values.reshape(-1)
    at = int(rng.integers(len(flat)))
    if values.dtype.kind == "S":
        flat[at] = b"other"
    elif values.dtype.kind == "f":
        flat[at] = (*SPECIAL, 0, 0.5, -6e4)[rng.integers(6)]
    else:
        flat[at] ^= 1
    dataset[()] = values
    return bool(values.tobytes() != before)


def _move_rows(_: h5py.File, dataset: h5py.Dataset, __: np.random.Generator) -> bool:
    values = dataset[()] if dataset.id.get_storage_size() else np.empty(0)
    moved = np.roll(values, 1, axis=0)
    if np.array_equal(values, moved):
        return False
    dataset[()] = moved
    return True


def _remove_dataset(file: h5py.File, dataset: h5py.Dataset, _: np.random.Generator) -> bool:
    del file[dataset.name]
    return True


def _replace_dataset(file: h5py.File, dataset: h5py.Dataset, rng: np.random.Generator) -> bool:
    name, n = dataset.name, len(dataset)
    del file[name]
    others = (
        lambda: file.create_group(name),
        lambda: file.create_dataset(name, data=5),
        lambda: file.create_dataset(name, data="text"),
        lambda: file.create_dataset(name, data=np.zeros((n + 1, 2))),
        lambda: file.create_dataset(name, shape=(2**40, 2**10), dtype="f4", chunks=(1, 2**10)),
        lambda: file.create_dataset(name, data=np.array([b"\xff\xfe"] * n, dtype="S2")),
        lambda: file.create_dataset(name, shape=None, dtype="f4"),
        lambda: file.__setitem__(name, h5py.SoftLink("/nowhere")),
        lambda: file.__setitem__(name, h5py.ExternalLink("other.h5", "/x")),
    )
    others[rng.integers(len(others))]()
    return True


def _change_attribute(file: h5py.File, _: h5py.Dataset, rng: np.random.Generator) -> bool:
    name = sorted(file.attrs)[rng.integers(len(file.attrs))]
    before = file.attrs[name]
    wrong = (np.zeros(3), "text", b"\xff\xfe", -1, float("nan"), 2**62, h5py.Empty("f4"), np.zeros((2, 0)))
    value = wrong[rng.integers(len(wrong))]
    if isinstance(before, np.number) and rng.integers(2):
        value = type(before)(before + 1)
    del file.attrs[name]
    file.attrs[name] = value
    return True


def _remove_attribute(file: h5py.File, _: h5py.Dataset, rng: np.random.Generator) -> bool:
    del file.attrs[sorted(file.attrs)[rng.integers(len(file.attrs))]]
    return True


_HDF5_KINDS: tuple[Callable[[h5py.File, h5py.Dataset, np.random.Generator], bool], ...] = (
    _change_value, _change_value, _move_rows, _remove_dataset, _replace_dataset, _change_attribute, _remove_attribute,
)  # fmt: skip
