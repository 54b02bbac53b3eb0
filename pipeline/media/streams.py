"""Choose the video stream and the audio tracks of a container."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from av.stream import Disposition

from pipeline.common.errors import MediaError
from pipeline.media.pyav import MAX_PIXELS

Kind = Literal["video", "audio"]
# Sample entries of encrypted tracks: Common Encryption, and iTunes.
_ENCRYPTED_TAGS = frozenset({"encv", "enca", "drmi", "drms"})
_SAMPLE_AES_TYPES = frozenset({0xC1, 0xC2, 0xCF, 0xDB})  # stream types of HLS: AC-3, E-AC-3, AAC, H.264


def best_streams(container: Any, path: Path) -> tuple[Any, list[Any]]:
    """Return the best decodable video stream, or None, and the audio streams of the same program, the best one first.

    Raises
    ------
    MediaError
        One of them is encrypted.
    """
    video = _best(container, "video")
    best = _best(container, "audio", video)
    tracks = [] if best is None else [best]
    for stream in _usable(container, "audio"):
        # In a transport stream with several programs, the best video stream depends on the program of the audio.
        if stream is not best and _best(container, "video", stream) is video:
            tracks.append(stream)
    for stream in (*tracks, *([] if video is None else [video])):
        if _is_encrypted(stream):
            raise MediaError(f"{path}: its {stream.type} is encrypted (DRM); decrypt it first or leave it out")
        # One thread, because other workers use the remaining cores.
        stream.codec_context.thread_count = 1
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    return video, tracks


def _is_encrypted(stream: Any) -> bool:
    try:
        if stream.codec_context.codec_tag in _ENCRYPTED_TAGS:
            return True
    # PyAV decodes tags as ASCII. Those of transport streams are numbers.
    except UnicodeDecodeError as error:
        if stream.container.format.name == "mpegts" and error.object[0] in _SAMPLE_AES_TYPES:
            return True
    # Matroska stores the id of the key as metadata.
    return "enc_key_id" in stream.metadata


def _best(container: Any, kind: Kind, related: Any = None) -> Any:
    usable = _usable(container, kind)
    best = container.streams.best(kind, related)
    return best if best in usable else next(iter(usable), None)


def _usable(container: Any, kind: Kind) -> list[Any]:
    """Return the decodable streams; cover art is not video."""
    return [
        stream
        for stream in container.streams
        if stream.type == kind
        and stream.codec_context is not None
        and stream.time_base
        and not stream.disposition & Disposition.attached_pic
    ]
