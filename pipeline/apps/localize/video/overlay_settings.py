"""Settings of a video overlay: map rate, smoothing, encoding and time limit."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class OverlaySettings:
    """Settings of a video overlay. The defaults are ours, not the paper's.

    Attributes
    ----------
    maps_per_second : float >= 0
        Maximum rate of maps; 0 computes one for every frame. The default period is short compared to an audio window.
    batch_size : int >= 1
        Maps per batch.
    smooth_s : float >= 0
        Length of the moving average over the raw maps in seconds; 0 disables smoothing.
    crf, preset : int, str
        x264 options; 18 is visually almost lossless.
    time_limit_s : float > 0
        Time limit for one file in seconds.

    Raises
    ------
    ValueError
        A number is out of range or not finite.
    """

    maps_per_second: float = 10.0
    batch_size: int = 8
    smooth_s: float = 0.0
    crf: int = 18
    preset: str = "veryfast"
    time_limit_s: float = 3600.0

    def __post_init__(self) -> None:
        # NaN fails every comparison, so it is rejected too.
        for name, good, wanted in (
            ("maps_per_second", 0 <= self.maps_per_second < math.inf, "at least 0"),
            ("batch_size", 1 <= self.batch_size < math.inf, "at least 1"),
            ("smooth_s", 0 <= self.smooth_s < math.inf, "at least 0"),
            ("crf", 0 <= self.crf <= 51, "0 to 51"),
            ("time_limit_s", 0 < self.time_limit_s < math.inf, "above 0"),
        ):
            if not good:
                raise ValueError(f"{name} must be finite and {wanted}, got {getattr(self, name)}")
