"""Files: digests, and locks of folders."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from pathlib import Path

import pytest

from pipeline.common.errors import LocalizationError
from pipeline.common.files import (
    file_digest,
    locked,
    remove_leftovers,
    replacing,
    temporary_folder,
    temporary_path,
    write_text,
)


def test_a_digest_is_that_of_the_content(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    assert file_digest(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    content = bytes(range(256)) * 10_000  # more than is read at once, and no multiple of it
    path.write_bytes(content)
    assert file_digest(path) == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(("inside", "place"), [(False, ".out.lock"), (True, "out/.soundspot.lock")])
def test_a_folder_has_one_writer(tmp_path, inside, place):
    folder = tmp_path / "deep" / "out"
    for _ in range(2):  # the second finds what the first has left
        with locked(folder, LocalizationError, inside=inside):
            assert (folder.parent / place).is_file()
            with (
                pytest.raises(LocalizationError, match=rf"out: .*{place} is locked"),
                locked(folder, LocalizationError, inside=inside),
            ):
                pass
        assert [path.name for path in folder.parent.iterdir()] == [place.split("/")[0]]


class TestReplacing:
    def test_the_target_gets_the_content_and_the_usual_permissions(self, tmp_path):
        mask = os.umask(0o027)
        try:
            write_text(tmp_path / "a", "x")
        finally:
            os.umask(mask)
        assert (tmp_path / "a").read_text() == "x"
        assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640
        assert os.listdir(tmp_path) == ["a"]

    def test_temporary_names_are_unique_and_exclusive(self, tmp_path, monkeypatch):
        with replacing(tmp_path / "a") as first, replacing(tmp_path / "a") as second:
            assert first != second
            assert re.fullmatch(r"\.a\.[0-9a-f]{8}\.tmp", first.name)
            first.write_text("first")
            second.write_text("second")
        assert (tmp_path / "a").read_text() == "first"

    @pytest.mark.parametrize("kind", ["link", "dangling link", "file"])
    def test_what_somebody_put_at_the_temporary_name_is_not_written_to(self, tmp_path, monkeypatch, kind):
        monkeypatch.setattr("pipeline.common.files.secrets.token_hex", lambda n: "0" * 2 * n)
        victim, trap = tmp_path / "victim", tmp_path / ".a.00000000.tmp"
        if kind != "dangling link":
            victim.write_text("mine")
        if kind == "file":
            trap.write_text("mine")
        else:
            trap.symlink_to(victim)
        with pytest.raises(FileExistsError):
            write_text(tmp_path / "a", "x")
        assert not (tmp_path / "a").exists()
        assert trap.is_symlink() == (kind != "file")
        assert victim.exists() == (kind != "dangling link")
        if kind != "dangling link":
            assert victim.read_text() == trap.read_text() == "mine"

    def test_the_users_own_files_stay(self, tmp_path):
        (tmp_path / "a.tmp").write_text("mine")
        write_text(tmp_path / "a", "x")
        assert (tmp_path / "a.tmp").read_text() == "mine"

    def test_a_link_is_replaced_and_not_followed(self, tmp_path):
        (tmp_path / "cache").write_text("cached")
        (tmp_path / "a").symlink_to(tmp_path / "cache")
        write_text(tmp_path / "a", "x")
        assert not (tmp_path / "a").is_symlink()
        assert (tmp_path / "cache").read_text() == "cached"

    def test_an_error_leaves_the_target_and_nothing_else(self, tmp_path):
        write_text(tmp_path / "a", "old")

        def fail_halfway():
            with replacing(tmp_path / "a") as temporary:
                temporary.write_text("half")
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail_halfway()
        assert (tmp_path / "a").read_text() == "old"
        assert os.listdir(tmp_path) == ["a"]

    @pytest.mark.parametrize("name", ["x" * 255, "é" * 127, "a\nb", "-x", " "])
    def test_every_name_that_the_file_system_allows(self, tmp_path, name):
        write_text(tmp_path / name, "x")
        assert (tmp_path / name).read_text() == "x"

    def test_an_error_names_the_target(self, tmp_path):
        (tmp_path / "a").mkdir()
        with pytest.raises(IsADirectoryError) as caught:
            write_text(tmp_path / "a", "x")
        assert str(tmp_path / "a") in (caught.value.filename, caught.value.filename2)
        with pytest.raises(OSError, match="name too long") as caught:
            write_text(tmp_path / ("x" * 256), "x")
        assert os.listdir(tmp_path) == ["a"]


class TestLeftovers:
    def test_only_our_own_temporary_files_and_folders_are_removed(self, tmp_path):
        with temporary_folder(tmp_path / "x") as inside:
            kept = temporary_path(tmp_path / "shard.h5")
            kept.touch()
            (inside / "y").touch()
            mine = [
                "X.tmp",
                "shard.h5.tmp",
                ".x.tmp",
                ".shard.h5.tmp",
                ".a.0123ABCD.tmp",
                ".a.0123abcd.tmp.bak",
                "a.0123abcd.tmp",
            ]
            for name in mine:
                (tmp_path / name).write_text("mine")
            deep = tmp_path / "deep" / ".a.0123abcd.tmp"
            deep.parent.mkdir()
            deep.touch()
            remove_leftovers(tmp_path, tmp_path / "none")
            assert not inside.exists()
        assert {path.name for path in tmp_path.iterdir()} == {*mine, "deep"}
        assert deep.exists()

    def test_a_link_is_removed_without_what_it_points_to(self, tmp_path):
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "a").touch()
        (tmp_path / ".data.0123abcd.tmp").symlink_to(tmp_path / "data")
        remove_leftovers(tmp_path)
        assert os.listdir(tmp_path) == ["data"]
        assert os.listdir(tmp_path / "data") == ["a"]

    def test_one_of_another_user_does_not_stop_the_command(self, tmp_path, monkeypatch):
        def refuse(path):
            raise PermissionError(1, "Operation not permitted", str(path))

        (tmp_path / ".a.00000000.tmp").touch()
        monkeypatch.setattr(Path, "unlink", refuse)
        remove_leftovers(tmp_path)
        assert os.listdir(tmp_path) == [".a.00000000.tmp"]

    def test_recent_ones_stay_where_another_process_may_be_writing(self, tmp_path):
        old, new = tmp_path / ".a.00000000.tmp", tmp_path / ".a.11111111.tmp"
        old.touch()
        new.touch()
        os.utime(old, (0, 0))
        remove_leftovers(tmp_path, min_age_s=3600)
        assert os.listdir(tmp_path) == [new.name]


def test_git_and_dvc_ignore_temporary_files_but_not_the_users_own():
    from dvc.ignore import DvcIgnorePatterns

    root = Path(__file__).parents[2]
    for name in (".gitignore", ".dvcignore"):
        patterns = DvcIgnorePatterns((root / name).read_text().splitlines(), "/r", "/")
        ignored = {each: patterns.matches("/r/out", each) for each in (temporary_path(Path("maps.h5")).name, "X.tmp")}
        assert list(ignored.values()) == [True, False]
