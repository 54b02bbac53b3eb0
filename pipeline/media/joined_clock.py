"""One clock for recordings that were joined byte by byte, as transport and program streams can be.

The clock of such a file steps back where the next recording begins. From there on, all streams are shifted by the same
time, so that the recordings follow each other and frames and audio stay together.
"""

from __future__ import annotations

from collections import defaultdict
from fractions import Fraction
from typing import Any

from av.format import Flags

# Formats in which any part of a file can be found by its position in bytes.
_JOINABLE = ("mpegts", "mpeg")
_STEP = Fraction(1, 2)  # a smaller step back is jitter, or frames out of order; seconds
_PLACES = 16
# Ours: reading all packets of a file of this size takes a second at most, and less than a tenth if it has a usual bit rate.
_SHORT_BYTES = 32 << 20


class JoinedClock:
    """Shifts the packets of a file, which must be given in the order of the file and from its beginning."""

    def __init__(self) -> None:
        self._shifts = [Fraction(0)]
        self._end = Fraction(0)
        # Streams reach the next recording one after the other.
        self._recording: dict[int, int] = defaultdict(int)
        self._last: dict[int, Fraction] = {}

    @property
    def has_stepped_back(self) -> bool:
        """Whether another recording has begun."""
        return len(self._shifts) > 1

    def recording(self, index: int) -> int:
        """Return which of the recordings a stream, given by its index, has reached."""
        return self._recording[index]

    def shift(self, packet: Any) -> None:
        """Change the packet's timestamps so that the clock continues."""
        stamp = packet.pts if packet.dts is None else packet.dts
        if stamp is None:
            return
        index, time = packet.stream_index, stamp * packet.time_base
        if time < self._last.get(index, time) - _STEP:
            self._recording[index] += 1
            if self._recording[index] == len(self._shifts):
                self._shifts.append(self._end - time)
        self._last[index] = time
        shift = self._shifts[self._recording[index]]
        self._end = max(self._end, time + shift + (packet.duration or 0) * packet.time_base)
        if shift:
            ticks = round(shift / packet.time_base)
            packet.pts = None if packet.pts is None else packet.pts + ticks
            packet.dts = None if packet.dts is None else packet.dts + ticks


def may_be_joined(container: Any) -> bool:
    """Return whether the format allows the clock to step back."""
    return bool(container.format.flags & Flags.ts_discont.value)


def is_short(container: Any) -> bool:
    """Return whether a transport or program stream is short enough to look for every step back of its clock."""
    return container.format.name in _JOINABLE and container.size <= _SHORT_BYTES


def steps_back(container: Any, stream: Any) -> bool:
    """Return whether the clock of a transport or program stream steps back between places spread over the file."""
    if container.format.name not in _JOINABLE:
        return False
    latest = None
    for place in range(_PLACES):
        container.seek(container.size * place // _PLACES, unsupported_byte_offset=True)
        found = (packet for packet in container.demux(stream) if packet.size and packet.dts is not None)
        packet = next(found, None)
        if packet is None:
            continue
        time = packet.dts * packet.time_base
        if latest is not None and time < latest - _STEP:
            return True
        latest = time
    return False
