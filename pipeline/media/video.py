"""Decode exactly the frame that is displayed at a timestamp, and resize frames to a common size.

The frame at a timestamp is the one with the largest presentation time that is not after it, as if the video had been
decoded from the beginning. Decoding starts at the last keyframe that is displayed at or before the timestamp. This is
exact for open GOPs too: frames displayed after such a keyframe do not depend on frames displayed before it.

Non-reference frames of H.264 are not needed to decode other frames, so they are skipped until shortly before the
timestamp. This saves a third of the time and yields the same frame. If the frame turns out to be further back than that
(a variable frame rate with a long gap), decoding is repeated without skipping.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
from PIL import Image

from pipeline.common.errors import MediaError
from pipeline.media.container import MICROSECOND, MediaContainer
from pipeline.media.pixels import to_rgb
from pipeline.media.pyav import MAX_PIXELS, pyav_errors

# A decodable frame may be this far from the one that is due. A larger distance means that the file is damaged.
MAX_GAP = Fraction(1, 2)
_FULL_DECODING = Fraction(1, 4)
_MAX_REORDERING = 16  # frames, the maximum that H.264 and HEVC allow


@dataclass
class _DecodePass:
    """State of one decoding pass; times are in ticks of the stream."""

    after_seek: bool  # decoding started after a seek, so only what follows a keyframe counts
    frame: Any = None  # the last frame that is not after the timestamp
    shown: int = 0  # its time
    due: int | None = None  # time of the last packet that is not after the timestamp
    first: int | None = None  # time of the keyframe that decoding started with
    n_later: int = 0  # frames after the timestamp
    failed: bool = False  # something after `frame` could not be decoded


def frame_at(media: MediaContainer, timestamp: Fraction, *, image_size: int) -> np.ndarray:
    """Decode the frame displayed at a timestamp.

    Parameters
    ----------
    media : MediaContainer
        An open file with a video stream.
    timestamp : Fraction
        Seconds on the container's clock.
    image_size : int > 0
        Side of the square result, pixels.

    Returns
    -------
    np.ndarray [shape=(image_size, image_size, 3)]
        uint8 RGB, upright (display matrix applied), the whole frame squashed to a square.

    Raises
    ------
    MediaError
        There is no video stream, no frame can be decoded at the timestamp, the frame is larger than 100 megapixels, or
        the time limit is exceeded.
    """
    stream = media.stream("video")
    if stream.codec_context.width * stream.codec_context.height > MAX_PIXELS:
        raise MediaError(f"{media.path}: frames exceed {MAX_PIXELS // 10**6} megapixels; scale the video down")
    frame = _decode_at(media, timestamp)
    return squash(Image.fromarray(upright(to_rgb(frame, media.path), frame)), image_size)


def squash(image: Image.Image, size: int) -> np.ndarray:
    """Resize a whole RGB image to a square with Pillow's bilinear filter, which antialiases when it shrinks.

    Boxes in fractions of the full frame stay valid; the aspect ratio does not.

    Returns
    -------
    np.ndarray [shape=(size, size, 3)]
        uint8.
    """
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


def _decode_at(media: MediaContainer, timestamp: Fraction) -> Any:
    """Return the decoded frame displayed at a timestamp, or the first frame if it starts shortly after."""
    stream = media.stream("video")
    time_base, may_skip = stream.time_base, stream.codec_context.name == "h264"
    at = f"at {float(timestamp - media.zero):.3f} s"
    for since in media.seek_times(timestamp):
        found = _decode_until(media, timestamp, since=since, skip=may_skip)
        if may_skip and found.due is not None and found.due * time_base <= timestamp - _FULL_DECODING:
            found = _decode_until(media, timestamp, since=since, skip=False)
        if found.frame is None:
            continue
        if found.failed and found.due is not None and (found.due - found.shown) * time_base > MAX_GAP:
            raise MediaError(f"{media.path}: the frame {at} cannot be decoded; the file is damaged there")
        return found.frame
    first = next(decoded_frames(media), None)
    # Audio often starts slightly before the first frame.
    if first is None or frame_time(media, first) * time_base - timestamp > MAX_GAP:
        raise MediaError(f"{media.path}: no frame can be decoded {at}; the file is damaged or truncated")
    return first


def _decode_until(media: MediaContainer, timestamp: Fraction, *, since: Fraction | None, skip: bool) -> _DecodePass:
    """Decode from `since` until the frame at the timestamp is certain. Without a frame, the caller starts earlier."""
    time_base = media.stream("video").time_base
    limit = int((timestamp + MICROSECOND) // time_base)
    full_from = int((timestamp - _FULL_DECODING) // time_base)
    found = _DecodePass(after_seek=since is not None)
    for packet in media.packets("video", since=since):
        time = packet.dts if packet.pts is None else packet.pts
        if found.after_seek and found.first is None:
            # Packets before the first keyframe after a seek cannot be decoded.
            if not packet.is_keyframe:
                continue
            if time is None or time > limit:
                return found
            found.first = time
        unneeded = time is not None and not full_from <= time <= limit
        if time is not None and time <= limit and not packet.is_discard:
            found.due = time if found.due is None else max(found.due, time)
        packet.stream.codec_context.skip_frame = "NONREF" if skip and unneeded else "DEFAULT"
        if _decode_packet(found, media, packet, limit):
            return found
    _decode_packet(found, media, None, limit)
    return found


def _decode_packet(found: _DecodePass, media: MediaContainer, packet: Any, limit: int) -> bool:
    """Decode one packet (None flushes the decoder); return whether the pass is finished."""
    frames = _decoded(media, packet)
    found.failed = found.failed or frames is None
    for frame in frames or ():
        time = frame_time(media, frame)
        if found.after_seek and found.frame is None and not frame.key_frame:
            # Containers can mark keyframes wrongly; the decoder is reliable. Skip frames displayed before the keyframe.
            if found.first is not None and time < found.first:
                continue
            return True
        if time > limit:
            found.n_later += 1
            # Decoders output frames in presentation order, except for some old ones (SVQ3).
            if found.shown == found.due or found.n_later > _MAX_REORDERING:
                return True
        elif found.frame is None or time >= found.shown:
            found.frame, found.shown, found.failed = frame, time, False
    return False


def decoded_frames(media: MediaContainer) -> Iterator[Any]:
    """Yield all frames from the beginning in decoder output order, skipping damaged ones."""
    for packet in media.packets("video", since=None):
        yield from _decoded(media, packet) or ()
    yield from _decoded(media, None) or ()


def _decoded(media: MediaContainer, packet: Any) -> list[Any] | None:
    """Return the frames that decoding a packet yields, or None if it is damaged."""
    try:
        with pyav_errors(media.path, "decoded", passing=(av.FFmpegError,)):
            frames = media.stream("video").codec_context.decode(packet)
    except av.FFmpegError:
        return None
    return None if any(frame.is_corrupt for frame in frames) else frames


def frame_time(media: MediaContainer, frame: Any) -> int:
    """Return a frame's presentation time in ticks of the stream; raise MediaError if the file does not store it."""
    time = frame.dts if frame.pts is None else frame.pts
    if time is None:
        raise MediaError(
            f"{media.path}: frames have no timestamps (a raw stream); put it into a container: ffmpeg -i IN -c copy OUT.mp4"
        )
    return time


def upright(pixels: np.ndarray, frame: Any) -> np.ndarray:
    """Apply a frame's display matrix to pixels (row, col) or (row, col, channel), rounded to a quarter turn."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return pixels
    # The matrix maps a point (x, y) to (a x + c y, b x + d y).
    a, b, _, c, d = np.frombuffer(bytes(data), dtype="<i4")[:5].astype(np.float64)
    if max(abs(b), abs(c)) > max(abs(a), abs(d)):
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    return np.ascontiguousarray(pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])
