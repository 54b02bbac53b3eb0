"""The picture that is shown at a moment of a video, exactly, and how pictures become frames of one size.

The picture at a moment is the one with the largest presentation time that is not after it, as if everything had been
decoded from the beginning. Decoding starts at the last keyframe that is not shown after the moment, which also makes
open groups of pictures exact: what follows such a keyframe in time does not need what precedes it.

Non-reference pictures of H.264 are needed by no other picture, so they are left out until shortly before the moment.
That is a third of the time, and the same picture; should the picture turn out to lie further back than that (a
variable frame rate with a long gap), it is decoded again with nothing left out.
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
from pipeline.media.container import MAX_PIXELS, MICROSECOND, MediaSource

# The nearest picture that can be decoded may be this far from the one that is due; more than that is a damaged file.
MAX_GAP = Fraction(1, 2)
_FULL_DECODING = Fraction(1, 4)
_MAX_REORDERING = 16  # pictures, the most that H.264 and HEVC allow


@dataclass
class _Found:
    """What one pass of decoding has given so far; times are in ticks of the stream."""

    sought: bool  # decoding started after a seek, so only what follows a keyframe counts
    picture: Any = None  # the last picture that is not after the moment
    shown: int = 0  # its time
    due: int | None = None  # time of the last packet that is not after the moment
    first: int | None = None  # time of the keyframe that decoding started with
    later: int = 0  # pictures after the moment
    failed: bool = False  # something after the picture could not be decoded


def frame_at(source: MediaSource, moment: Fraction, *, image_size: int) -> np.ndarray:
    """Decode the picture shown at a moment.

    Parameters
    ----------
    source : MediaSource
        An open file with a video stream.
    moment : Fraction
        Seconds on the container's clock.
    image_size : int > 0
        Side of the square frame, pixels.

    Returns
    -------
    np.ndarray [shape=(image_size, image_size, 3)]
        uint8 RGB, upright (display matrix honored), the whole picture squashed to a square.

    Raises
    ------
    MediaError
        There is no video stream, no picture at the moment can be decoded, it is larger than 100 megapixels, or the
        time is up.
    """
    stream = source.stream("video")
    if stream.codec_context.width * stream.codec_context.height > MAX_PIXELS:
        raise MediaError(f"{source.path}: pictures of more than {MAX_PIXELS // 10**6} megapixels; scale the video down")
    picture = _picture_at(source, moment)
    try:
        # One thread: the machine's cores belong to the other workers.
        pixels = picture.to_ndarray(format="rgb24", threads=1)
    except (av.FFmpegError, ValueError) as error:
        raise MediaError(
            f"{source.path}: pictures of format {picture.format.name} cannot be converted: {error}"
        ) from None
    return squash(Image.fromarray(upright(pixels, picture)), image_size)


def squash(image: Image.Image, size: int) -> np.ndarray:
    """Resize a whole RGB image to a square (Pillow's bilinear filter, which widens when it shrinks: no aliasing).

    Fractions of the full frame, as boxes are, stay valid; the aspect ratio does not.

    Returns
    -------
    np.ndarray [shape=(size, size, 3)]
        uint8.
    """
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


def _picture_at(source: MediaSource, moment: Fraction) -> Any:
    """Return the decoded picture that is shown at a moment, or the first one if that comes a little later."""
    stream = source.stream("video")
    time_base, may_skip = stream.time_base, stream.codec_context.name == "h264"
    at = f"at {float(moment - source.zero):.3f} s"
    for since in source.starts(moment):
        found = _decode_until(source, moment, since=since, skip=may_skip)
        if may_skip and found.due is not None and found.due * time_base <= moment - _FULL_DECODING:
            found = _decode_until(source, moment, since=since, skip=False)
        if found.picture is None:
            continue
        if found.failed and found.due is not None and (found.due - found.shown) * time_base > MAX_GAP:
            raise MediaError(f"{source.path}: the picture {at} cannot be decoded; the file is damaged there")
        return found.picture
    first = next(pictures_of(source), None)
    # Sound often starts a little before the first picture.
    if first is None or picture_time(source, first) * time_base - moment > MAX_GAP:
        raise MediaError(f"{source.path}: no picture can be decoded {at}; the file is damaged or truncated")
    return first


def _decode_until(source: MediaSource, moment: Fraction, *, since: Fraction | None, skip: bool) -> _Found:
    """Decode from `since` until the picture of the moment is certain; without a picture, start earlier."""
    time_base = source.stream("video").time_base
    limit = int((moment + MICROSECOND) // time_base)
    full_from = int((moment - _FULL_DECODING) // time_base)
    found = _Found(sought=since is not None)
    for packet in source.packets("video", since=since):
        time = packet.dts if packet.pts is None else packet.pts
        if found.sought and found.first is None:
            # What a seek brings before the first keyframe cannot be decoded.
            if not packet.is_keyframe:
                continue
            if time is None or time > limit:
                return found
            found.first = time
        unneeded = time is not None and not full_from <= time <= limit
        if time is not None and time <= limit and not packet.is_discard:
            found.due = time if found.due is None else max(found.due, time)
        packet.stream.codec_context.skip_frame = "NONREF" if skip and unneeded else "DEFAULT"
        if _take(found, source, packet, limit):
            return found
    _take(found, source, None, limit)
    return found


def _take(found: _Found, source: MediaSource, packet: Any, limit: int) -> bool:
    """Decode one packet (None: what the decoder still holds); return whether the pass is over."""
    pictures = _decoded(source, packet)
    found.failed = found.failed or pictures is None
    for picture in pictures or ():
        time = picture_time(source, picture)
        if found.sought and found.picture is None and not picture.key_frame:
            # Containers mark keyframes wrongly; the decoder knows. Pictures shown before the keyframe do not count.
            if found.first is not None and time < found.first:
                continue
            return True
        if time > limit:
            found.later += 1
            # Decoders put out pictures in the order of their times; some old ones (SVQ3) only nearly so.
            if found.shown == found.due or found.later > _MAX_REORDERING:
                return True
        elif found.picture is None or time >= found.shown:
            found.picture, found.shown, found.failed = picture, time, False
    return False


def pictures_of(source: MediaSource) -> Iterator[Any]:
    """Yield all pictures from the beginning, as they come out of the decoder; damaged ones are left out."""
    for packet in source.packets("video", since=None):
        yield from _decoded(source, packet) or ()
    yield from _decoded(source, None) or ()


def _decoded(source: MediaSource, packet: Any) -> list[Any] | None:
    """Return the pictures that a packet brings out, or None if it is damaged."""
    try:
        pictures = source.stream("video").codec_context.decode(packet)
    except av.FFmpegError:
        return None
    return None if any(picture.is_corrupt for picture in pictures) else pictures


def picture_time(source: MediaSource, picture: Any) -> int:
    """Return when a picture is shown, in ticks of the stream. Raises MediaError where the file does not say."""
    time = picture.dts if picture.pts is None else picture.pts
    if time is None:
        raise MediaError(
            f"{source.path}: its pictures carry no times (a raw stream); put it into a container: ffmpeg -i IN -c copy OUT.mp4"
        )
    return time


def upright(pixels: np.ndarray, picture: Any) -> np.ndarray:
    """Turn and mirror pixels (row, col) or (row, col, channel) as a picture's display matrix says, to the nearest quarter turn."""
    data = picture.side_data.get("DISPLAYMATRIX")
    if data is None:
        return pixels
    # A point (x, y) is shown at (a x + c y, b x + d y).
    a, b, _, c, d = np.frombuffer(bytes(data), dtype="<i4")[:5].astype(np.float64)
    if max(abs(b), abs(c)) > max(abs(a), abs(d)):
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    return np.ascontiguousarray(pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])
