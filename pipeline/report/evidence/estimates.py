"""Estimates with 95% intervals over clips and seeds, and the verdict on a claim.

Conventions
-----------
Values are fractions. An interval has two parts. Over clips it is the percentile bootstrap of each clip's mean over seeds, as in
``scores.json``. Over seeds it is Student's t interval of each seed's mean over clips: with three seeds, a bootstrap over
seeds contains the true mean in only three of four experiments. The parts are added in quadrature (the method of variance
estimates recovery: Zou and Donner, Statistics in Medicine 2008). One seed has no spread, so the interval is then over clips only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from pipeline.scoring.metrics import FloatArray, bootstrap_interval

Verdict = Literal["supported", "inconclusive", "contradicted", "no interval"]
LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval; `low` and `high` are NaN if there is none.

    Attributes
    ----------
    value, low, high : float
    of_seeds : tuple of float
        The mean of each seed, or the value alone if its seeds are unknown.
    """

    value: float
    low: float
    high: float
    of_seeds: tuple[float, ...]

    @property
    def verdict(self) -> Verdict:
        """Whether a difference is above 0: ``"supported"``, or ``"contradicted"``, if the whole interval is above or below 0."""
        if math.isnan(self.low):
            return "no interval"
        if self.low > 0:
            return "supported"
        return "contradicted" if self.high < 0 else "inconclusive"


def estimate(values: FloatArray) -> Estimate:
    """Return the mean of scores, or of paired differences of scores, with its interval.

    Parameters
    ----------
    values : float64 array, shape (seed, clip)
        For a paired difference, that of the same seed and clip.
    """
    value = float(values.mean())
    low, high = (float(end) for end in bootstrap_interval(values.mean(axis=0), level=LEVEL))
    spread = _half_width(values.mean(axis=1))
    below, above = math.hypot(max(value - low, 0), spread), math.hypot(max(high - value, 0), spread)
    return Estimate(value, value - below, value + above, tuple(values.mean(axis=1).tolist()))


def over_seeds(values: ArrayLike) -> Estimate:
    """Return the mean of one value per seed with Student's t interval; one seed has no interval."""
    of_seeds = np.asarray(values, dtype=np.float64)
    value = float(of_seeds.mean())
    spread = _half_width(of_seeds) if len(of_seeds) > 1 else math.nan
    return Estimate(value, value - spread, value + spread, tuple(of_seeds.tolist()))


def unpaired_difference(first: Estimate, second: Estimate) -> Estimate:
    """Return `first` minus `second`, given only their intervals, as if they were independent (Zou and Donner).

    Scores of the same clips are usually correlated, so a paired interval would be narrower.
    """
    value = first.value - second.value
    below = math.hypot(first.value - first.low, second.high - second.value)
    above = math.hypot(first.high - first.value, second.value - second.low)
    return Estimate(value, value - below, value + above, tuple(each - second.value for each in first.of_seeds))


def _half_width(of_seeds: FloatArray) -> float:
    """Return half the width of Student's t interval of a mean; 0 with one value."""
    n = len(of_seeds)
    if n == 1:
        return 0.0
    return float(stats.t.ppf((1 + LEVEL) / 2, n - 1) * of_seeds.std(ddof=1) / math.sqrt(n))
