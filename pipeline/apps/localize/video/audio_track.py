"""Write the audio track of the output video.

Packets are copied unchanged if MP4 supports their codec and players handle it. Other audio is re-encoded as AAC, and so
is that of transport and program streams: they can be spliced, so that timestamps step back or channels change.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from math import ceil
from typing import Any

import av
import numpy as np

from pipeline.media.audio_blocks import TimedFrame, timed_frames
from pipeline.media.container import MediaContainer
from pipeline.media.joined_clock import may_be_joined
from pipeline.media.pyav import pyav_errors

COPIED_CODECS = frozenset({"aac", "mp3", "mp3float", "ac3", "eac3", "opus", "libopus"})
_AAC_RATES = (96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000)
_AAC_FRAME = 1024  # samples
_FILLED_S = 1


class _CopiedTrack:
    """Audio packets copied unchanged, shifted to time zero."""

    how = "copied"

    def __init__(self, container: Any, media: MediaContainer, zero: Fraction) -> None:
        template = media.stream("audio")
        self._stream = container.add_stream_from_template(template)
        self._shift = round(zero / template.time_base)
        # At least one tick of the output, which is one sample.
        self._step = ceil(1 / (template.time_base * (template.codec_context.sample_rate or 1)))
        self._packets = media.packets("audio", since=None)
        self._held: Any = None
        self._last: int | None = None

    def until(self, time: Fraction | None) -> Iterator[Any]:
        """Yield the packets that start before `time`; None means the end."""
        while True:
            packet = next(self._packets, None) if self._held is None else self._held
            if packet is None:
                return
            stamp = packet.pts if packet.dts is None else packet.dts
            if time is not None and stamp is not None and stamp * packet.time_base > time:
                self._held = packet
                return
            self._held = None
            # A packet without a timestamp cannot be placed.
            if stamp is None:
                continue
            dts = stamp - self._shift
            # MP4 requires increasing timestamps, which damaged files violate.
            dts = dts if self._last is None else max(dts, self._last + self._step)
            packet.pts, packet.dts, self._last = max(dts, (packet.pts or stamp) - self._shift), dts, dts
            packet.stream = self._stream
            yield packet


class _EncodedTrack:
    """Audio re-encoded as AAC. Samples follow each other; a gap becomes silence or a step of the timestamps."""

    how = "re-encoded as AAC"

    def __init__(self, container: Any, media: MediaContainer, zero: Fraction) -> None:
        context = media.stream("audio").codec_context
        self._rate = next((rate for rate in reversed(_AAC_RATES) if rate >= context.sample_rate), _AAC_RATES[0])
        # Surround audio is mixed down to stereo, which every player supports.
        self._layout = "mono" if context.channels == 1 else "stereo"
        self._path, self._zero = media.path, zero
        self._stream: Any = container.add_stream("aac", rate=self._rate, layout=self._layout)
        self._frames: Iterator[TimedFrame] | None = timed_frames(media, None)
        self._resampler: Any = None
        self._kind: object = None  # format of the resampler's input
        self._end: Fraction | None = None  # of the last frame, seconds on the clock of the source
        self._samples = np.zeros((1 if self._layout == "mono" else 2, 0), dtype=np.float32)  # not yet encoded
        self._pts = 0  # of the first of them
        self._surplus = 0  # samples to drop, because the clock has stepped back

    def until(self, time: Fraction | None) -> Iterator[Any]:
        """Yield packets of the audio that starts before `time`; None means the end."""
        while self._frames is not None and (time is None or self._end is None or self._end <= time):
            found = next(self._frames, None)
            with pyav_errors(self._path, "re-encoded as AAC"):
                if found is None:
                    self._frames = None
                    self._resample(None)
                    yield from self._encode(whole=False)
                    yield from self._stream.encode(None)
                else:
                    yield from self._append(found.time, found.frame)

    def _append(self, time: Fraction, frame: Any) -> Iterator[Any]:
        kind = frame.format.name, frame.layout.name, frame.sample_rate
        if time != self._end or kind != self._kind:
            self._resample(None)
            yield from self._move_to(time)
            self._resampler, self._kind = av.AudioResampler("fltp", self._layout, self._rate), kind
        self._end = time + Fraction(frame.samples, frame.sample_rate)
        frame.pts = None
        self._resample(frame)
        yield from self._encode(whole=True)

    def _move_to(self, time: Fraction) -> Iterator[Any]:
        """Continue at another time."""
        target = round((time - self._zero) * self._rate)
        if self._end is None:
            self._pts = target
            return
        gap = target - self._pts - self._samples.shape[1]
        self._surplus = max(-gap, 0)
        # Short gaps are filled, because players ignore small steps of the timestamps. Of a long one, the silence completes
        # a frame, and the rest is a step.
        silence = max(gap, 0) if gap <= _FILLED_S * self._rate else -self._samples.shape[1] % _AAC_FRAME
        self._samples = np.pad(self._samples, ((0, 0), (0, silence)))
        yield from self._encode(whole=True)
        self._pts += max(gap, 0) - silence

    def _resample(self, frame: Any) -> None:
        pieces = [] if self._resampler is None else self._resampler.resample(frame)
        samples = np.concatenate([self._samples[:, :0], *(piece.to_ndarray() for piece in pieces)], axis=1)
        dropped = min(self._surplus, samples.shape[1])
        self._surplus -= dropped
        self._samples = np.concatenate([self._samples, samples[:, dropped:]], axis=1)

    def _encode(self, *, whole: bool) -> Iterator[Any]:
        """Encode the waiting samples; with `whole`, only whole frames."""
        while self._samples.shape[1] >= (_AAC_FRAME if whole else 1):
            head, self._samples = self._samples[:, :_AAC_FRAME], self._samples[:, _AAC_FRAME:]
            frame: Any = av.AudioFrame.from_ndarray(np.ascontiguousarray(head), "fltp", self._layout)
            frame.sample_rate, frame.time_base, frame.pts = self._rate, Fraction(1, self._rate), self._pts
            self._pts += head.shape[1]
            yield from self._stream.encode(frame)


def audio_track(container: Any, media: MediaContainer, zero: Fraction) -> _CopiedTrack | _EncodedTrack:
    """Return the audio track of an output container, copied or encoded from a source.

    Parameters
    ----------
    container : av.container.OutputContainer
    media : MediaContainer
        The source; nothing else may read from it in the meantime.
    zero : Fraction
        Time zero on the source's clock.
    """
    copied = media.stream("audio").codec_context.name in COPIED_CODECS and not may_be_joined(media.container)
    return (_CopiedTrack if copied else _EncodedTrack)(container, media, zero)
