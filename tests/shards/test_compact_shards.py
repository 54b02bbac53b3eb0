"""Compact shards: what is read is what was stored, within the bounds of JPEG and float16, and any damage names the clip."""

from __future__ import annotations

import io
import pickle
import zlib
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray
from PIL import Image

from pipeline.common.config import ShardEncoding
from pipeline.common.errors import ShardError
from pipeline.common.hdf5 import content_digest, write_attributes
from pipeline.common.project import shard_path
from pipeline.shards.reader import ShardSet, verify_shard
from pipeline.shards.writer import DIGEST, LARGE, ShardWriter
from tests.support.splits import finish_split

SIZE, MELS, TIME = 192, 4, 50
SETTINGS = {
    "fingerprint": "0" * 32,
    "sample_rate": 8000,
    "clip_seconds": 0.5,
    "n_fft": 256,
    "hop_length": 80,
    "n_mels": MELS,
    "power": 2.0,
    "log_floor": 1e-10,
    "image_size": SIZE,
}
COMPACT = ShardEncoding(log_mel="float16", frame_codec="jpeg")
ENCODINGS = [ShardEncoding(log_mel=a, frame_codec=b) for a, b in product(("float32", "float16"), ("raw", "jpeg"))]
CLIPS = ["noise-0", "scene-1", "noise-2", "scene-3", "scene-4"]


def clip_values(clip_id: str) -> tuple[np.ndarray, np.ndarray]:
    """Noise, whose JPEG exceeds a block, or a scene of colored shapes on a gradient; and a log-mel in its natural range."""
    kind, seed = clip_id.split("-")
    random = np.random.default_rng(int(seed))
    if kind == "noise":
        frame = random.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    else:
        y, x = np.mgrid[:SIZE, :SIZE]
        frame = np.stack([x, y, (x + y) // 2], axis=2).astype(np.uint8)
        for _ in range(5):
            at, radius, color = random.integers(20, SIZE - 20, 2), random.integers(8, 30), random.integers(0, 256, 3)
            frame[(y - at[0]) ** 2 + (x - at[1]) ** 2 < radius**2] = color
    return frame, random.uniform(np.log(1e-10), 8, (MELS, TIME)).astype(np.float32)


def write(path: Path, clip_ids: list[str], encoding: ShardEncoding) -> None:
    """Write a shard in groups of two clips."""
    with ShardWriter.create(
        path, settings=SETTINGS, capacity=len(clip_ids) + 1, mel_hz=np.arange(4.0), n_frames=TIME, encoding=encoding
    ) as shard:
        for start in range(0, len(clip_ids), 2):
            group = clip_ids[start : start + 2]
            frame, log_mel = (np.stack(values) for values in zip(*map(clip_values, group), strict=True))
            shard.append(group, frame=frame, log_mel=log_mel, source_time_s=np.arange(len(group), dtype=float))
        shard.reject("broken", "no audio stream")


def make_split(folder: Path, encoding: ShardEncoding) -> Path:
    """Write a split of three shards; the second has only a reject."""
    for index, clip_ids in enumerate((CLIPS[:3], [], CLIPS[3:])):
        write(shard_path(folder, index), clip_ids, encoding)
    return finish_split(folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_split(tmp_path / "train", COMPACT)


def jpeg_of(frame: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=92, subsampling="4:4:4")
    return buffer.getvalue()


@pytest.mark.parametrize("encoding", ENCODINGS, ids=str)
def test_clips_are_read_as_they_were_stored(tmp_path: Path, encoding: ShardEncoding) -> None:
    shards = ShardSet.open(make_split(tmp_path / "train", encoding))
    order = [4, 0, 3, 1, 2, 0]
    with ThreadPoolExecutor(4) as threads:
        batches = list(threads.map(shards.read, [order] * 8))
    batches.append(pickle.loads(pickle.dumps(shards)).read(order))
    for frames, log_mels in batches:
        assert (frames.dtype, log_mels.dtype) == (np.uint8, np.float32)
        for index, frame, log_mel in zip(order, frames, log_mels, strict=True):
            pixels, spectrum = clip_values(CLIPS[index])
            if encoding.frame_codec == "jpeg":
                pixels = np.asarray(Image.open(io.BytesIO(jpeg_of(pixels))))
            np.testing.assert_array_equal(frame, pixels)
            np.testing.assert_array_equal(log_mel, spectrum.astype(encoding.log_mel))
    assert shards.encoding == encoding
    for path in shards.paths:
        verify_shard(path)


def test_the_errors_of_compact_shards_are_bounded(folder: Path) -> None:
    frames, log_mels = ShardSet.open(folder).read(range(len(CLIPS)))
    for clip_id, frame, log_mel in zip(CLIPS, frames, log_mels, strict=True):
        pixels, spectrum = clip_values(clip_id)
        # float16 has 11 significant bits, so the error is at most half of 2^-10 of the value.
        assert (np.abs(log_mel - spectrum) <= np.abs(spectrum) * 2.0**-11).all()
        if clip_id.startswith("scene"):
            # With subsampled chroma, as Pillow's default has it, these scenes are below 35 dB.
            assert 10 * np.log10(255**2 / np.mean((frame.astype(float) - pixels) ** 2)) > 40


def test_the_fields_are_those_of_the_documentation(folder: Path) -> None:
    with h5py.File(shard_path(folder, 0)) as file:
        assert file["log_mel"].dtype == np.float16
        assert file["log_mel"].chunks == (1, MELS, TIME)
        assert (file["frame_jpeg"].chunks, file["frame_jpeg"].fletcher32) == ((1 << 16,), True)
        for row, clip_id in enumerate(CLIPS[:3]):
            start, size = file["frame_start"][row], file["frame_size"][row]
            content = file["frame_jpeg"][start : start + size].tobytes()
            assert content == jpeg_of(clip_values(clip_id)[0])
            assert file["crc32"][row] == zlib.crc32(content + file["log_mel"][row].tobytes())
        assert file["frame_size"][0] > 1 << 16  # continues in the next block
    with xarray.open_dataset(shard_path(folder, 0), engine="h5netcdf") as shard:
        assert shard["log_mel"].dims == ("clip", "mel", "time")
        assert shard["frame_jpeg"].dims == ("byte",)
        assert shard["frame_start"].dims == shard["frame_size"].dims == ("clip",)
        assert "frame" not in shard


def test_equal_input_gives_equal_bytes(folder: Path, tmp_path: Path) -> None:
    again = make_split(tmp_path / "again", COMPACT)
    for path in sorted(folder.glob("*.h5")):
        assert path.read_bytes() == (again / path.name).read_bytes()


def test_shards_that_are_stored_differently_do_not_mix(folder: Path) -> None:
    write(shard_path(folder, 2), CLIPS[3:], ShardEncoding(log_mel="float16"))
    finish_split(folder)
    with pytest.raises(ShardError, match=r"shard-00002\.h5: .*frame_codec raw instead of jpeg"):
        ShardSet.open(folder)


@pytest.mark.parametrize("zeroed", [False, True])
def test_damage_of_a_frame_names_its_clip(folder: Path, zeroed: bool) -> None:
    path = shard_path(folder, 0)
    with h5py.File(path) as file:
        at, chunk = int(file["frame_start"][1]), file["frame_jpeg"].id.get_chunk_info(0)
        block = file["frame_jpeg"].id.get_chunk_info(at // (1 << 16))
    content = bytearray(path.read_bytes())
    if zeroed:  # together with its Fletcher-32, which is then right
        content[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    else:
        content[block.byte_offset + at % (1 << 16) + 300] ^= 0x10
    path.write_bytes(content)
    shards = ShardSet.open(folder)
    broken, intact = (0, 3) if zeroed else (1, 0)
    shards.read([intact])
    with pytest.raises(ShardError, match=rf"shard-00000\.h5: damaged \(clip '{CLIPS[broken]}'.*repro extract`"):
        shards.read([broken])
    with pytest.raises(ShardError, match=r"shard-00000\.h5: damaged"):
        verify_shard(path)


def replace_frame(path: Path, row: int, content: bytes, **fields: int) -> None:
    """Replace a clip's JPEG by bytes that are not longer, with all checksums, as another program might."""
    with h5py.File(path, "r+") as file:
        start = int(file["frame_start"][row])
        file["frame_jpeg"][start : start + len(content)] = np.frombuffer(content, np.uint8)
        for name, value in {"frame_size": len(content), **fields}.items():
            file[name][row] = value
        file["crc32"][row] = zlib.crc32(content + file["log_mel"][row].tobytes())
        file.flush()
        write_attributes(file, {DIGEST: content_digest(file, attribute=DIGEST, only_layout=LARGE)[0]})


def other_size() -> bytes:
    return jpeg_of(np.zeros((SIZE // 2, SIZE, 3), np.uint8))


def gray() -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (SIZE, SIZE)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "clip 'scene-1'"),
        (b"not a JPEG file", "clip 'scene-1'"),
        (jpeg_of(clip_values("scene-1")[0])[:-900], "clip 'scene-1'.*truncated"),
        (other_size(), f"clip 'scene-1'.*{SIZE}×{SIZE // 2}"),
        (gray(), "clip 'scene-1'.*mode L"),
    ],
)
def test_a_frame_that_is_no_jpeg_of_this_size_names_its_clip(folder: Path, content: bytes, message: str) -> None:
    replace_frame(shard_path(folder, 0), 1, content)
    shards = ShardSet.open(finish_split(folder))
    shards.read([0, 2])
    with pytest.raises(ShardError, match=message):
        shards.read([1])


@pytest.mark.parametrize("fields", [{"frame_start": 1 << 30}, {"frame_start": -1}, {"frame_size": (1 << 32) - 1}])
def test_a_frame_outside_the_file_is_an_error(folder: Path, fields: dict[str, Any]) -> None:
    replace_frame(shard_path(folder, 0), 1, gray(), **fields)
    with pytest.raises(ShardError, match="exceeds frame_jpeg"):
        finish_split(folder)


def test_another_type_of_log_mels_is_an_error(folder: Path) -> None:
    path = shard_path(folder, 0)
    with h5py.File(path, "r+") as file:
        del file["log_mel"]
        file.create_dataset("log_mel", data=np.zeros((3, MELS, TIME)), chunks=(1, MELS, TIME), fletcher32=True)
        write_attributes(file, {DIGEST: content_digest(file, attribute=DIGEST, only_layout=LARGE)[0]})
    with pytest.raises(ShardError, match="log_mel is float64"):
        verify_shard(path)
