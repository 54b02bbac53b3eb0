"""Media on a web server or in a store: what is decoded is what the same local file gives."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import wavfile

from pipeline.common.errors import AccessError, MediaError
from pipeline.common.remote import request as remote_request
from pipeline.common.remote.path import local_or_remote
from pipeline.media.clip import decode_clip, read_frame
from pipeline.media.image import read_still
from tests.support.media_files import impulses, number_of, numbered_frame, steady, truncate, write_media
from tests.support.range_server import RangeServer, range_server

fsspec = pytest.importorskip("fsspec")
pytest.importorskip("aiohttp")

CLIP: dict[str, Any] = {"image_size": 48, "sample_rate": 16_000, "clip_seconds": 1.0, "time_limit_s": 60.0}


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_request, "PAUSES_S", (0.0,))


@pytest.fixture
def server() -> Iterator[RangeServer]:
    with range_server() as server:
        yield server


def on_server(server: RangeServer, path: Path) -> Path:
    server.files[f"set/{path.name}"] = path.read_bytes()
    return local_or_remote(f"{server.url}/set") / path.name


def in_store(path: Path) -> Path:
    fsspec.filesystem("memory").pipe_file(f"/set/{path.name}", path.read_bytes())
    return local_or_remote("memory://set") / path.name


def decoded(path: Path, centre_s: float | None = None) -> tuple[bytes, bytes, float]:
    clip = decode_clip(video=path, frame=None, audio=None, centre_s=centre_s, **CLIP)
    return clip.frame.tobytes(), clip.waveform.tobytes(), clip.source_time_s


def error_of(call: Callable[[], Any], path: Path) -> str:
    with pytest.raises(MediaError) as caught:
        call()
    assert str(path) in str(caught.value)
    return str(caught.value).replace(str(path), "FILE")


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.ts"])
@pytest.mark.parametrize("centre_s", [None, 0.3, 5.1])
def test_a_video_gives_the_same_clip(server: RangeServer, tmp_path: Path, name: str, centre_s: float | None) -> None:
    sound = impulses(6, 16_000, [0.4, 3.0, 5.0])
    path = write_media(tmp_path / name, times=steady(6, 10), sound=sound)

    expected = decoded(path, centre_s)

    assert decoded(on_server(server, path), centre_s) == expected
    assert decoded(in_store(path), centre_s) == expected


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "AVIF", "HEIF"])
def test_an_image_gives_the_same_pixels(server: RangeServer, tmp_path: Path, format: str) -> None:
    path = tmp_path / f"image.{format.lower()}"
    Image.fromarray(numbered_frame(1234)).save(path, format=format)

    expected = read_still(path)

    assert expected is not None
    assert np.array_equal(read_still(on_server(server, path)), expected)
    assert np.array_equal(read_still(in_store(path)), expected)


def test_an_image_and_an_audio_file_give_the_same_clip(server: RangeServer, tmp_path: Path) -> None:
    Image.fromarray(numbered_frame(77)).save(tmp_path / "a.png")
    wavfile.write(tmp_path / "a.wav", 16_000, impulses(3, 16_000, [1.5])[0])
    files = {"frame": tmp_path / "a.png", "audio": tmp_path / "a.wav"}

    local = decode_clip(video=None, centre_s=None, **files, **CLIP)
    remote = decode_clip(
        video=None, centre_s=None, **{kind: on_server(server, path) for kind, path in files.items()}, **CLIP
    )

    assert number_of(remote.frame) == 77
    assert np.array_equal(remote.waveform, local.waveform)
    assert remote.waveform.max() == 1.0


@pytest.mark.parametrize("kind", ["missing", "empty", "text", "playlist", "truncated", "image"])
def test_an_unusable_file_gives_the_message_of_a_local_one(server: RangeServer, tmp_path: Path, kind: str) -> None:
    path = write_media(tmp_path / "a.mp4", times=steady(3, 10), sound=impulses(3, 16_000, [1.0]))
    if kind == "truncated":
        truncate(path, 0.4)
    elif kind == "image":
        Image.fromarray(numbered_frame(3)).resize((800, 800)).save(path, format="JPEG")
        path.write_bytes(path.read_bytes()[:2_000])
    elif kind != "missing":
        path.write_bytes({"empty": b"", "text": b"no media " * 99, "playlist": b"#EXTM3U\nb.mp4\n"}[kind])
    remote, stored = on_server(server, path), in_store(path)
    if kind == "missing":
        path.unlink()
        server.files.clear()
        fsspec.filesystem("memory").rm("/set/a.mp4")

    for read in (lambda each: decoded(each), lambda each: read_frame(each, image_size=48)):
        expected = error_of(lambda read=read: read(path), path)
        assert error_of(lambda read=read: read(remote), remote) == expected
        assert error_of(lambda read=read: read(stored), stored) == expected


@pytest.mark.parametrize("n_answered", [1, 2, 3, 4, 5, 6])
def test_a_server_that_fails_while_a_file_is_decoded_never_shortens_it(
    server: RangeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_answered: int
) -> None:
    monkeypatch.setattr("pipeline.common.remote.file.BLOCK_BYTES", 1 << 14)
    noise = np.random.default_rng(1).integers(0, 255, (30, 96, 128, 3), dtype=np.uint8)
    sound = impulses(3, 16_000, [1.5])
    path = write_media(tmp_path / "a.mkv", times=steady(3, 10), frames=list(noise), sound=sound)
    remote = on_server(server, path)
    failing = [0] * n_answered + [503] * 2

    assert path.stat().st_size > 12 * 2**14
    server.failures = failing
    with pytest.raises(AccessError, match="503"):
        decoded(remote)
    server.failures = [*failing[:-2], 503]
    assert decoded(remote) == decoded(path)


def test_a_file_that_disappears_while_it_is_read_is_named(server: RangeServer, tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mp4", times=steady(3, 10), sound=impulses(3, 16_000, [1.0]))
    remote = on_server(server, path)
    assert remote.exists()
    server.files.clear()

    assert "o such file" in error_of(lambda: decoded(remote), remote)
