"""Files: digests, and locks of folders."""

from __future__ import annotations

import hashlib

from pipeline.files import file_digest


def test_a_digest_is_that_of_the_content(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    assert file_digest(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    content = bytes(range(256)) * 10_000  # more than is read at once, and no multiple of it
    path.write_bytes(content)
    assert file_digest(path) == hashlib.sha256(content).hexdigest()
