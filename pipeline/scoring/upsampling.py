"""Response maps upsampled to the grid of the ground truth.

Conventions
-----------
Maps are (row, col). Bilinear and bicubic upsampling are separable, so a map M becomes A·M·Bᵀ with one small matrix per
side. The matrices come from ``torch.nn.functional.interpolate`` applied to an identity, so its corner rules hold.
Normalization is computed in float64, the upsampled map in float32. Maps are upsampled one at a time: a single map stays
in the CPU cache, which is several times faster than whole batches.
"""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.scoring.protocols import Interpolation, Normalization, ScoringProtocol

UpsamplingKey = tuple[bool, int, str, bool]


def upsampling_key(protocol: ScoringProtocol) -> UpsamplingKey:
    """Return the settings that determine a protocol's upsampled map; protocols with equal keys can share it."""
    return protocol.normalization == "relu-max", protocol.size, protocol.interpolation, protocol.align_corners


@lru_cache(maxsize=64)
def upsampling_matrix(
    side: int, size: int, *, interpolation: Interpolation, align_corners: bool
) -> NDArray[np.float32]:
    """Return the weights, shape (size, side), that upsample one axis from `side` cells to `size` pixels."""
    import torch  # takes a second, and tables of scores do not need it

    # float64, because torch computes positions in the precision of its input.
    identity = torch.eye(side, dtype=torch.float64)[None, None]
    weights = torch.nn.functional.interpolate(
        identity, size=(size, side), mode=interpolation, align_corners=align_corners
    )
    return np.ascontiguousarray(weights[0, 0].numpy(), dtype=np.float32)


class NormalizedMaps(NamedTuple):
    """Normalized response maps at their own resolution, ready to be upsampled.

    Parameters
    ----------
    cells : float32 or bool array, shape (clip, row, col)
        Maps scaled to [0, 1]; for "relu-max", negative responses are clipped to 0 and the maximum is 1. A map without
        contrast is 0 everywhere, except that a positive one is 1 under "relu-max". bool maps are sounding regions and
        stay unchanged.
    low, high : list of float, length clip
        Raw responses that correspond to 0 and 1, to undo the normalization.
    flat : list of bool, length clip
        Whether the normalized map has no contrast.
    """

    cells: NDArray
    low: list[float]
    high: list[float]
    flat: list[bool]


def normalize(maps: NDArray, normalization: Normalization) -> NormalizedMaps:
    """Normalize raw maps, finite float or bool (clip, row, col); in float64, so scale and offset do not matter."""
    n_maps = len(maps)
    if maps.dtype == bool:
        return NormalizedMaps(maps, [0.0] * n_maps, [1.0] * n_maps, [False] * n_maps)
    raw = maps.astype(np.float64)
    low, high = raw.min(axis=(1, 2), keepdims=True), raw.max(axis=(1, 2), keepdims=True)
    flat = low == high
    if normalization == "relu-max":
        flat |= high <= 0
        cells = np.maximum(raw, 0) / np.where(high > 0, high, 1)
        low, high = np.zeros_like(low), np.where(high > 0, high, 1)
    else:
        cells = (raw - low) / np.where(flat, 1, high - low)
    return NormalizedMaps(cells.astype(np.float32), low.ravel().tolist(), high.ravel().tolist(), flat.ravel().tolist())


class UpsampledMap:
    """One response map on the grid of a protocol, with cached statistics that protocols share.

    Parameters
    ----------
    maps : NormalizedMaps
        Normalized as the protocol requires.
    index : int
        Index of the map.
    protocol : ScoringProtocol
        Any protocol with the same `upsampling_key`.

    Attributes
    ----------
    values : float32 array, shape (size, size)
        The upsampled map. A bool region is upsampled by nearest neighbor to 0 and 1.
    maximum : float
        Largest value on the grid.
    flat, is_region : bool
        See `NormalizedMaps`.
    """

    def __init__(self, maps: NormalizedMaps, index: int, protocol: ScoringProtocol) -> None:
        cells = maps.cells[index]
        self.is_region = cells.dtype == bool
        self.flat = maps.flat[index]
        self.values = _nearest(cells, protocol.size) if self.is_region else upsample(cells, protocol)
        self._low, self._high = maps.low[index], maps.high[index]
        self._first_peak = int(self.values.argmax())
        self.maximum = float(self.values.ravel()[self._first_peak])
        self._order_statistics: dict[int, float] = {}

    @cached_property
    def peak(self) -> NDArray[np.intp]:
        """Flat indices of all pixels equal to the maximum."""
        tied = self.values == self.maximum
        # Counting is cheaper than listing, and most maps have one peak.
        if np.count_nonzero(tied) == 1:
            return np.array([self._first_peak])
        return np.flatnonzero(tied)

    def order_statistic(self, index: int) -> float:
        """Return the value at `index` of the sorted pixels."""
        if index not in self._order_statistics:
            self._order_statistics[index] = float(np.partition(self.values.ravel(), index)[index])
        return self._order_statistics[index]

    @cached_property
    def confidence(self) -> float:
        """SLAVC's confidence that anything sounds: mean of the top quarter of the pixels of (R + 1) / 2.

        R is the raw inner product, because confidences are compared across clips.
        """
        flat = self.values.ravel()
        n_top = -(-flat.size // 4)
        top = float(np.partition(flat, flat.size - n_top)[-n_top:].mean(dtype=np.float64))
        return (self._low + top * (self._high - self._low) + 1) / 2


def threshold_of(upsampled: UpsampledMap, protocol: ScoringProtocol, n_support: int) -> float:
    """Return the threshold between sounding and silent pixels of an upsampled map.

    Parameters
    ----------
    upsampled : UpsampledMap
        Upsampled with the protocol's `upsampling_key`.
    protocol : ScoringProtocol
        Its `threshold_rule`, `map_threshold` and `normalization` are used.
    n_support : int
        Number of pixels with g > 0; used by "oracle-area" only.
    """
    n_pixels = upsampled.values.size
    if protocol.threshold_rule == "median":
        return upsampled.order_statistic(n_pixels // 2)
    if protocol.threshold_rule == "oracle-area":
        return upsampled.order_statistic(n_pixels - (n_support or n_pixels // 2))
    if protocol.threshold_rule == "relative-to-max" or protocol.normalization == "relu-max":
        return protocol.map_threshold * upsampled.maximum
    if protocol.normalization == "min-max-enlarged" and not upsampled.flat:
        # Move the threshold instead of normalizing the map again, so that protocols can share the map.
        minimum = float(upsampled.values.min())
        return minimum + protocol.map_threshold * (upsampled.maximum - minimum)
    return protocol.map_threshold


def sounding_pixels(upsampled: UpsampledMap, protocol: ScoringProtocol, n_support: int) -> NDArray[np.bool_]:
    """Return the predicted sounding region, bool (size, size); see `threshold_of`."""
    if upsampled.is_region:
        return upsampled.values > 0
    # float32, because the map is: a float64 threshold could separate equal values.
    threshold = np.float32(threshold_of(upsampled, protocol, n_support))
    return upsampled.values > threshold if protocol.comparator == ">" else upsampled.values >= threshold


def upsample(response: NDArray, protocol: ScoringProtocol) -> NDArray[np.float32]:
    """Upsample a map (row, col) to the protocol's grid, float32 (size, size), without normalization."""
    values = np.asarray(response, dtype=np.float32)
    if values.shape == (protocol.size, protocol.size):
        return values
    rows, columns = (
        upsampling_matrix(
            side, protocol.size, interpolation=protocol.interpolation, align_corners=protocol.align_corners
        )
        for side in values.shape
    )
    return rows @ (values @ columns.T)


def _nearest(values: NDArray, size: int) -> NDArray[np.float32]:
    # Nearest neighbor keeps a region binary.
    rows, columns = (np.arange(size) * side // size for side in values.shape)
    return values[rows][:, columns].astype(np.float32)
