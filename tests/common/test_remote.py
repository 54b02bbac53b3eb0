"""Remote files: the bytes of the file, few requests, and each failure told apart from a missing file."""

import errno
import os
import pickle
import random
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from pipeline.common.errors import AccessError, PackageError
from pipeline.common.remote import file as remote_file
from pipeline.common.remote import request as remote_request
from pipeline.common.remote.path import RemotePath, local_or_remote
from pipeline.common.remote.request import _refusal
from pipeline.datasets.media_files import near_name
from tests.support.range_server import RangeServer, range_server

fsspec = pytest.importorskip("fsspec")
pytest.importorskip("aiohttp")

CONTENT = random.Random(1).randbytes(10_000)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[RangeServer]:
    monkeypatch.setattr(remote_file, "BLOCK_BYTES", 1_000)
    monkeypatch.setattr(remote_request, "PAUSES_S", (0.0, 0.0))
    with range_server() as server:
        server.files["set/a.bin"] = CONTENT
        yield server


def remote(server: RangeServer, name: str = "a.bin") -> RemotePath:
    return RemotePath(f"{server.url}/set") / name


def test_reading_and_seeking_are_those_of_a_local_file(server: RangeServer, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(CONTENT)
    draw = random.Random(2)
    with remote(server).open() as file, (tmp_path / "a.bin").open("rb") as local:
        for _ in range(200):
            whence = draw.choice([os.SEEK_SET, os.SEEK_END])
            offset = draw.randrange(11_000) - (10_000 if whence == os.SEEK_END else 0)
            length = draw.choice([0, 1, 999, 1_000, 2_500, 20_000])
            assert file.seek(offset, whence) == local.seek(offset, whence)
            assert file.read(length) == local.read(length)
            assert file.tell() == local.tell()
        file.seek(0)
        assert file.read() == CONTENT


def test_only_the_blocks_that_are_read_are_requested(server: RangeServer) -> None:
    with remote(server).open() as file:
        file.seek(9_500)
        file.read(500)
        file.seek(2_400)
        file.read(1_000)
        file.seek(9_000)
        file.read(1_000)

    assert server.requests == [
        ("HEAD", "set/a.bin", ""),
        ("GET", "set/a.bin", "bytes=9000-9999"),
        ("GET", "set/a.bin", "bytes=2000-2999"),
        ("GET", "set/a.bin", "bytes=3000-3999"),
    ]


def test_memory_holds_the_latest_blocks_only(server: RangeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_file, "_MAX_BLOCKS", 2)
    with remote(server).open() as file:
        for number in (0, 1, 0, 2, 0, 1):
            file.seek(1_000 * number)
            assert file.read(10) == CONTENT[1_000 * number :][:10]

    assert [asked for _, _, asked in server.requests[1:]] == [
        f"bytes={1000 * number}-{1000 * number + 999}" for number in (0, 1, 2, 1)
    ]


@pytest.mark.parametrize("failures", [[503], [429, 500], ["cut"], ["cut", 502], ["ignore"]])
def test_a_passing_failure_is_repeated(server: RangeServer, failures: list[int | str]) -> None:
    with remote(server).open() as file:
        server.failures = list(failures)
        assert file.read() == CONTENT

    assert not server.failures


def test_a_server_that_does_not_answer_is_asked_again(server: RangeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_request, "STALL_S", 0.5)
    remote_request._filesystem.cache_clear()
    try:
        server.failures = ["stall"]
        # The inquiry with HEAD stalls, so fsspec sends GET.
        assert remote(server).stat().st_size == len(CONTENT)
    finally:
        remote_request._filesystem.cache_clear()


@pytest.mark.parametrize("failure", [503, "cut", "ignore"])
def test_a_lasting_failure_of_the_server_ends_the_file_and_is_raised_at_its_end(
    server: RangeServer, failure: int | str
) -> None:
    def read() -> None:
        with remote(server).open() as file:
            assert file.read(1_500) == CONTENT[:1_500]
            server.failures = [failure] * 3
            file.seek(5_000)
            assert file.read(100) == b""
            raise ValueError("what a decoder makes of it")

    with pytest.raises(AccessError, match=rf"{server.url}/set/a\.bin"):
        read()

    assert not server.failures


@pytest.mark.parametrize(
    ("status", "error"), [(404, FileNotFoundError), (410, FileNotFoundError), (403, PermissionError)]
)
def test_a_refusal_is_the_error_of_a_local_file_and_is_not_repeated(
    server: RangeServer, status: int, error: type[OSError]
) -> None:
    server.failures = [status] * 10
    with pytest.raises(error, match=r"a\.bin"):
        remote(server).stat()

    assert len(server.requests) == 2  # HEAD and GET
    assert not remote(server).exists()


def test_wrong_credentials_do_not_depend_on_the_file(server: RangeServer) -> None:
    server.failures = [401] * 20
    with pytest.raises(AccessError, match="401"):
        remote(server).stat()


@pytest.mark.parametrize(("code", "number"), [("ExpiredToken", None), ("AccessDenied", errno.EACCES)])
def test_expired_credentials_of_s3_are_no_missing_permission(code: str, number: int | None) -> None:
    class ClientError(Exception):
        response: ClassVar = {"Error": {"Code": code}}

    error = PermissionError("x")
    error.__cause__ = ClientError()
    assert _refusal(error) == number


def test_a_missing_file_is_not_asked_for_again_to_find_a_similar_name(server: RangeServer) -> None:
    assert near_name(remote(server, "none.bin"), {}) == ""
    assert not server.requests


def test_a_failing_server_is_no_missing_file(server: RangeServer) -> None:
    server.failures = [500] * 20
    with pytest.raises(AccessError, match="500"):
        remote(server).exists()


def test_a_server_that_is_gone_is_no_missing_file(server: RangeServer) -> None:
    path = remote(server)
    server.shutdown()
    server.server_close()
    with pytest.raises(AccessError, match=server.url):
        path.stat()


def test_names_reach_the_server_as_they_are(server: RangeServer) -> None:
    name = "ü b/#1 100%?.bin"
    server.files[f"set/{name}"] = b"abc"

    with remote(server, f"./{name}").open() as file:
        assert file.read() == b"abc"


def test_a_store_has_files_and_folders() -> None:
    fsspec.filesystem("memory").pipe_file("/bucket/v/a.mp4", b"abc")
    root = local_or_remote("memory://bucket/")

    assert str(root / "v" / "a.mp4") == "memory://bucket/v/a.mp4"
    assert (root / "v/a.mp4").stat().st_size == 3
    assert (root / "v/a.mp4").is_file()
    assert (root / "v").exists()
    assert not (root / "v").is_file()
    assert not (root / "v/b.mp4").exists()
    assert pickle.loads(pickle.dumps(root / "v")) == root / "v"
    with (root / "v/a.mp4").open("rb") as file:
        assert file.read() == b"abc"


def test_a_bucket_of_s3_is_read_in_ranges(server: RangeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("s3fs")
    server.files["bucket/set/a b.bin"] = CONTENT
    access = {"endpoint_url": server.url, "key": "user", "secret": "password"}
    monkeypatch.setitem(fsspec.config.conf, "s3", access)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    root = local_or_remote("s3://bucket/set")

    with (root / "a b.bin").open() as file:
        file.seek(2_990)
        assert file.read(20) == CONTENT[2_990:3_010]
    assert [asked for method, _, asked in server.requests if method == "GET"] == ["bytes=2000-2999", "bytes=3000-3999"]
    assert not (root / "b.bin").exists()
    server.failures = [403]
    with pytest.raises(PermissionError, match=r"s3://bucket/set/a b\.bin"):
        (root / "a b.bin").stat()


def test_what_is_no_url_is_a_local_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")

    assert local_or_remote("media/a") == Path("media/a")
    assert local_or_remote("~/media") == Path("/home/me/media")
    assert str(Path("/project") / local_or_remote("https://host/a")) == "https://host/a"


def test_an_unknown_protocol_is_one_error() -> None:
    with pytest.raises(PackageError, match="nosuch://"):
        RemotePath("nosuch://bucket/a").stat()
