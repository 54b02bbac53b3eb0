"""A file or folder of an object store or a web server, addressed like a local one."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, cast
from urllib.parse import quote

from pipeline.common.errors import AccessError
from pipeline.common.remote.file import RemoteFile
from pipeline.common.remote.request import request


@dataclass(frozen=True)
class RemotePath:
    """A URL with the methods of `pathlib.Path` that finding and reading media needs; it is passed where a path is expected.

    Attributes
    ----------
    url : str
        ``PROTOCOL://…``, such as ``s3://bucket/folder`` or ``https://host/folder``, without a slash at the end.
    """

    url: str

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, part: object) -> RemotePath:
        name = str(PurePosixPath(str(part)))
        # A web server would read # and ? as the end of the path.
        name = quote(name) if self.url.startswith("http") else name
        return RemotePath(f"{self.url}/{name}")

    def __rtruediv__(self, folder: object) -> RemotePath:
        return self  # as with an absolute local path

    @property
    def name(self) -> str:
        """The last part."""
        return self.url.rsplit("/", 1)[-1]

    @property
    def suffix(self) -> str:
        """The extension of the name, with its dot."""
        return os.path.splitext(self.name)[1]

    @property
    def parent(self) -> RemotePath:
        """The folder."""
        return RemotePath(self.url.rsplit("/", 1)[0])

    def absolute(self) -> RemotePath:
        """Return the path itself: a URL is absolute."""
        return self

    def resolve(self) -> RemotePath:
        """Return the path itself: the server resolves links."""
        return self

    def stat(self) -> os.stat_result:
        """Return type and size; the server is asked once. Raises OSError and AccessError as `request` does."""
        kind = stat.S_IFDIR if self._info["type"] == "directory" else stat.S_IFREG
        return os.stat_result((kind | 0o444, 0, 0, 1, 0, 0, self._info["size"], 0, 0, 0))

    def exists(self) -> bool:
        """Return whether the server has it and allows reading it. Raises AccessError."""
        try:
            return bool(self._info)
        except OSError:
            return False

    def is_file(self) -> bool:
        """Return whether it is a file. Raises AccessError."""
        return self.exists() and self._info["type"] == "file"

    def is_dir(self) -> bool:
        """Return False: folders of a store are not listed."""
        return False

    def open(self, mode: str = "rb") -> RemoteFile:
        """Open the file for reading bytes. Raises OSError and AccessError as `request` does."""
        return RemoteFile(self.url, self.stat().st_size)

    @cached_property
    def _info(self) -> dict[str, Any]:
        info = request(self.url, lambda filesystem, url: filesystem.info(url))
        if info.get("size") is None:
            raise AccessError(f"{self.url}: the server does not report the file's size, so it cannot be read in ranges")
        return dict(info)


def local_or_remote(location: str) -> Path:
    """Return a local path (``~`` is the home folder), or a `RemotePath` if the location is a URL."""
    if "://" not in location:
        return Path(location).expanduser()
    # Functions that take a media root or a file below it use only the methods that RemotePath has.
    return cast(Path, RemotePath(location.rstrip("/")))
