"""Response maps at the size of the ground truth.

Conventions
-----------
Maps are (row, col). Bilinear and bicubic enlargement are separable, so a map M becomes A·M·Bᵀ with one small matrix per
side; the matrices come from ``torch.nn.functional.interpolate`` on an identity, so its corner rules hold. One map at a
time stays in the processor's cache, which is several times faster than whole batches. float32 on the grid, float64 for
the normalization before it.
"""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.scoring.protocols import Interpolation, Normalization, Protocol

EnlargementKey = tuple[bool, int, str, bool]


def enlargement_key(protocol: Protocol) -> EnlargementKey:
    """Return what a protocol's enlarged map depends on; two protocols with the same key can share it."""
    return protocol.normalization == "relu-max", protocol.size, protocol.interpolation, protocol.align_corners


@lru_cache(maxsize=64)
def enlargement_matrix(
    side: int, size: int, *, interpolation: Interpolation, align_corners: bool
) -> NDArray[np.float32]:
    """Return the weights, shape (size, side), that enlarge one axis from `side` cells to `size` pixels."""
    # In float64, since torch computes positions in the precision of its input.
    identity = torch.eye(side, dtype=torch.float64)[None, None]
    weights = torch.nn.functional.interpolate(
        identity, size=(size, side), mode=interpolation, align_corners=align_corners
    )
    return np.ascontiguousarray(weights[0, 0].numpy(), dtype=np.float32)


class NormalizedMaps(NamedTuple):
    """Response maps on their own cells, ready to be enlarged one by one.

    Parameters
    ----------
    cells : float32 or bool array, shape (clip, row, col)
        Maps after an affine normalization to [0, 1]; for "relu-max" after cutting off negative responses, the maximum
        being 1. 0 everywhere for a map without contrast, but 1 for a positive one under "relu-max". bool maps are
        sounding regions and stay as they are.
    low, high : list of float, length clip
        The raw responses that 0 and 1 stand for, to undo the normalization.
    flat : list of bool, length clip
        The normalized map has no contrast.
    """

    cells: NDArray
    low: list[float]
    high: list[float]
    flat: list[bool]


def normalize(maps: NDArray, normalization: Normalization) -> NormalizedMaps:
    """Normalize raw maps, float or bool (clip, row, col), finite; in float64, so that neither scale nor offset shows."""
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


class EnlargedMap:
    """One response map on the grid of a protocol, with what several protocols may ask of it.

    Parameters
    ----------
    maps : NormalizedMaps
        By the protocol's normalization.
    index : int
        Which of them.
    protocol : Protocol
        Any of those that share `enlargement_key`.

    Attributes
    ----------
    values : float32 array, shape (size, size)
        The enlarged map. A sounding region takes the nearest cell, as 0 and 1.
    maximum : float
        Largest value on the grid.
    flat, is_region : bool
        See `NormalizedMaps`.
    """

    def __init__(self, maps: NormalizedMaps, index: int, protocol: Protocol) -> None:
        cells = maps.cells[index]
        self.is_region = cells.dtype == bool
        self.flat = maps.flat[index]
        self.values = _nearest(cells, protocol.size) if self.is_region else enlarge(cells, protocol)
        self._low, self._high = maps.low[index], maps.high[index]
        self._first_peak = int(self.values.argmax())
        self.maximum = float(self.values.ravel()[self._first_peak])
        self._order_statistics: dict[int, float] = {}

    @cached_property
    def peak(self) -> NDArray[np.intp]:
        """Flat indices of the pixels that have the maximum."""
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
        """Mean of the top quarter of the pixels on the scale (R + 1) / 2, where R is the raw inner product.

        SLAVC's measure of whether anything sounds; it needs the raw scale, so that clips can be compared.
        """
        flat = self.values.ravel()
        n_top = -(-flat.size // 4)
        top = float(np.partition(flat, flat.size - n_top)[-n_top:].mean(dtype=np.float64))
        return (self._low + top * (self._high - self._low) + 1) / 2


def threshold_of(enlarged: EnlargedMap, protocol: Protocol, n_support: int) -> float:
    """Return the value that separates sounding from silent pixels of an enlarged map.

    Parameters
    ----------
    enlarged : EnlargedMap
        Must belong to the protocol's `enlargement_key`.
    protocol : Protocol
        Its `threshold_rule`, `map_threshold` and `normalization` decide.
    n_support : int
        Pixels with g > 0; read by "oracle-area" only.
    """
    n_pixels = enlarged.values.size
    if protocol.threshold_rule == "median":
        return enlarged.order_statistic(n_pixels // 2)
    if protocol.threshold_rule == "oracle-area":
        return enlarged.order_statistic(n_pixels - (n_support or n_pixels // 2))
    if protocol.threshold_rule == "relative-to-max" or protocol.normalization == "relu-max":
        return protocol.map_threshold * enlarged.maximum
    if protocol.normalization == "min-max-enlarged" and not enlarged.flat:
        minimum = float(enlarged.values.min())
        return minimum + protocol.map_threshold * (enlarged.maximum - minimum)
    return protocol.map_threshold


def sounding_pixels(enlarged: EnlargedMap, protocol: Protocol, n_support: int) -> NDArray[np.bool_]:
    """Return the predicted sounding region, bool (size, size); see `threshold_of`."""
    if enlarged.is_region:
        return enlarged.values > 0
    threshold = np.float32(threshold_of(enlarged, protocol, n_support))
    return enlarged.values > threshold if protocol.comparator == ">" else enlarged.values >= threshold


def enlarge(response: NDArray, protocol: Protocol) -> NDArray[np.float32]:
    """Return a map, shape (row, col), on the protocol's grid: float32 (size, size), not normalized."""
    values = np.asarray(response, dtype=np.float32)
    if values.shape == (protocol.size, protocol.size):
        return values
    rows, columns = (
        enlargement_matrix(
            side, protocol.size, interpolation=protocol.interpolation, align_corners=protocol.align_corners
        )
        for side in values.shape
    )
    return rows @ (values @ columns.T)


def _nearest(values: NDArray, size: int) -> NDArray[np.float32]:
    rows, columns = (np.arange(size) * side // size for side in values.shape)
    return values[rows][:, columns].astype(np.float32)
