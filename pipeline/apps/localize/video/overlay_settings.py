"""How a video is localized: how often, how smooth, how well coded, and how long it may take."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class OverlaySettings:
    """How a video is localized; all defaults are ours.

    Attributes
    ----------
    maps_per_second : float >= 0
        At most so many maps are computed; 0 computes one for every picture. 10 is short against a window of sound.
    batch_size : int >= 1
        Maps computed at once.
    smooth_s : float >= 0
        Every map is the mean of the raw maps of the last so many seconds; 0 leaves them alone.
    crf, preset : int, str
        As for x264: 18 is hardly to be told from the source.
    time_limit_s : float > 0
        Seconds that one file may take.

    Raises
    ------
    ValueError
        A number is out of its range, or not finite.
    """

    maps_per_second: float = 10.0
    batch_size: int = 8
    smooth_s: float = 0.0
    crf: int = 18
    preset: str = "veryfast"
    time_limit_s: float = 3600.0

    def __post_init__(self) -> None:
        # As comparisons that hold, since none holds of "not a number".
        for name, good, wanted in (
            ("maps_per_second", 0 <= self.maps_per_second < math.inf, "at least 0"),
            ("batch_size", 1 <= self.batch_size < math.inf, "at least 1"),
            ("smooth_s", 0 <= self.smooth_s < math.inf, "at least 0"),
            ("crf", 0 <= self.crf <= 51, "0 to 51"),
            ("time_limit_s", 0 < self.time_limit_s < math.inf, "above 0"),
        ):
            if not good:
                raise ValueError(f"{name} must be finite and {wanted}, got {getattr(self, name)}")
