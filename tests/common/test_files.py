"""Files: digests, and locks of folders."""

from __future__ import annotations

import hashlib

import pytest

from pipeline.common.errors import LocalizationError
from pipeline.common.files import file_digest, locked


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
