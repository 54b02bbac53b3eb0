"""A remote file that is open for reading: blocks of it are requested when they are needed and kept in memory."""

from __future__ import annotations

import io
import os
from collections import OrderedDict
from typing import Any

from pipeline.common.errors import AccessError
from pipeline.common.remote.request import request

# Ours: about 2 s of video at 4 Mbit/s. A decoder reads the index at one end of the file and some seconds in the middle.
BLOCK_BYTES = 1 << 20
_MAX_BLOCKS = 32  # in memory


class RemoteFile(io.RawIOBase):
    """Reads a remote file in ranges of bytes.

    FFmpeg interprets a read error as the end of the file. A failed request therefore ends the file, and leaving the
    context raises the error.

    Parameters
    ----------
    url : str
    size : int >= 0
        Bytes.
    """

    def __init__(self, url: str, size: int) -> None:
        super().__init__()
        self.url = url
        self.size = size
        self.name = url.rsplit("/", 1)[-1]
        self.failure: Exception | None = None
        self._position = 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()

    def __str__(self) -> str:
        return self.url

    def __exit__(self, *error: Any) -> None:
        self.close()
        if self.failure is not None:
            raise self.failure from None

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position, bytes."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position; nothing is requested."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        if start + offset < 0:
            raise ValueError(f"{self.url}: negative position {start + offset}")
        self._position = start + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer, up to the end of the file or the first failed request."""
        view = memoryview(buffer).cast("B")
        n_read = 0
        while n_read < len(view) and self._position < self.size and self.failure is None:
            number, offset = divmod(self._position, BLOCK_BYTES)
            part = self._block(number)[offset : offset + len(view) - n_read]
            view[n_read : n_read + len(part)] = part
            n_read += len(part)
            self._position += len(part)
        return n_read

    def _block(self, number: int) -> bytes:
        if number not in self._blocks:
            try:
                self._blocks[number] = self._request(number)
            except (OSError, AccessError) as error:
                self.failure = error
                return b""
        self._blocks.move_to_end(number)
        while len(self._blocks) > _MAX_BLOCKS:
            self._blocks.popitem(last=False)
        return self._blocks[number]

    def _request(self, number: int) -> bytes:
        start = number * BLOCK_BYTES
        end = min(start + BLOCK_BYTES, self.size)

        def send(filesystem: Any, url: str) -> bytes:
            content: bytes = filesystem.cat_file(url, start=start, end=end)
            if len(content) != end - start:
                # A server that ignores ranges, a proxy that cut the answer, or a file that was replaced.
                raise EOFError(
                    f"{len(content)} bytes instead of bytes {start} to {end}: does the server support ranges?"
                )
            return content

        return request(self.url, send)
