"""Open files with PyAV safely, and report everything that it raises as a `MediaError`.

- Playlists and other formats that refer to further files or addresses are rejected before anything else is opened.
- PyAV raises ValueError, IndexError and OverflowError on some files. None of them may end a job over many files.
- Side data without a name in PyAV, such as EXIF, can be read past.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import av
import av.sidedata.sidedata

from pipeline.common.errors import AccessError, MediaError
from pipeline.media.readable import Source, from_start, raise_if_unreadable

MAX_PIXELS = 100_000_000
# Demuxers that open other files, addresses or devices.
_REFERRING = frozenset(
    [
        "alsa",
        "concat",
        "dash",
        "fbdev",
        "hls",
        "image2",
        "imf",
        "kmsgrab",
        "lavfi",
        "mlv",
        "oss",
        "rtp",
        "rtsp",
        "sap",
        "sdp",
        "vobsub",
        "webm_dash_manifest",
        "x11grab",
    ]
)
# First bytes of text formats that refer to other files, in lower case.
_PLAYLISTS = {b"#extm3u": "HLS", b"ffconcat": "ffconcat", b"<mpd": "DASH", b"v=0": "SDP", b"[playlist]": "PLS"}
_SNIFFED_BYTES = 1024


def _unnamed(cls: Any, value: int) -> Any:
    member = object.__new__(cls)
    member._name_, member._value_ = f"UNNAMED_{value}", value
    return member


# Reading any side data of a frame fails if one item is of a type that PyAV has no name for.
av.sidedata.sidedata.Type._missing_ = classmethod(_unnamed)  # type: ignore[assignment,method-assign]


@contextmanager
def pyav_errors(
    path: Source, doing: str = "read as media", *, passing: tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    """Raise whatever PyAV raises as a MediaError: the file "cannot be `doing`"; the types in `passing` are passed on."""
    try:
        yield
    # Running out of memory or of open files is a problem of the machine, not of the file.
    except (MediaError, AccessError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, passing):
            raise
        reason = error.strerror if isinstance(error, av.FFmpegError) else f"{type(error).__name__}: {error}"
        raise MediaError(f"{path}: cannot be {doing} ({' '.join(str(reason).split())}); re-encode it") from None


def open_media(path: Source, *, timeout_s: float | None = None) -> Any:
    """Open a local file, or a remote one that is open already, for reading. The format is detected from the content.

    Returns
    -------
    av.container.InputContainer

    Raises
    ------
    MediaError
        The file is not media, or of a format that refers to other files.
    """
    _refuse_playlists(path)
    if not isinstance(path, Path):
        path.seek(0)  # it may have been read before
    try:
        # A reference inside a media file must not make a worker read other files or fetch from the network.
        allowed = {"protocol_whitelist": "file", "format_whitelist": _formats()}
        with pyav_errors(path, passing=(av.FFmpegError,)):
            return av.open(
                str(path.absolute()) if isinstance(path, Path) else path,
                timeout=timeout_s,
                metadata_errors="replace",
                container_options=allowed,
                options={"max_pixels": str(MAX_PIXELS)},
            )
    except av.FFmpegError as error:
        raise_if_unreadable(path, error)
        raise MediaError(
            f"{path}: cannot be read as media ({error.strerror}); it is damaged, truncated or not a media file"
        ) from None


def _refuse_playlists(path: Source) -> None:
    try:
        with from_start(path) as file:
            start = file.read(_SNIFFED_BYTES).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    except OSError as error:
        raise_if_unreadable(path, error)
        raise MediaError(f"{path}: cannot be read ({error.strerror}); check the file") from None
    found = next((name for mark, name in _PLAYLISTS.items() if start.startswith(mark)), None)
    if start.startswith(b"<") and b"<mpd" in start:
        found = "DASH"
    if found:
        raise MediaError(
            f"{path}: is a playlist ({found}), which refers to other files; use the media files themselves"
        )


@cache
def _formats() -> str:
    return ",".join(sorted(av.formats_available - _REFERRING))
