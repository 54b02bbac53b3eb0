"""Boxes → ground-truth grids.

Conventions
-----------
A box is x0, y0, x1, y1 in fractions of the full frame, corners, origin top left; an edge at x0 lies on the line
between two pixels. For files that count pixels from 1 (SoundNet-Flickr, 256×256), pixel c begins at the fraction
(c - 1) / 256. A grid is (row, col); a box covers the pixels from its first to the one before its last edge.

Public code turns edges into pixel indices in different ways, which moves a box by up to a pixel; see `ROUNDINGS`.
What lies outside the frame is cut off. A box of which nothing is left is counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.manifests import Box

Rounding = Literal["nearest", "floor", "one-based-floor"]
Consensus = Literal["annotators", "union", "per-source"]
ROUNDINGS: tuple[Rounding, ...] = get_args(Rounding)
SOURCE_SIDE = 256  # side in pixels of the frames on which the SoundNet-Flickr boxes were drawn


@dataclass(frozen=True)
class GroundTruth:
    """A consensus map with the values 0, 1/2 and 1, kept as two masks.

    Parameters
    ----------
    support : bool array, shape (row, col)
        Where g > 0.
    full : bool array, shape (row, col)
        Where g = 1.
    n_outside : int
        Boxes of which nothing lies on the grid.
    """

    support: NDArray[np.bool_]
    full: NDArray[np.bool_]
    n_outside: int
    n_support: int
    mass: float  # Σg

    @property
    def g(self) -> NDArray[np.float64]:
        """The consensus map itself, float64 in [0, 1]."""
        return (self.support.astype(np.float64) + self.full) / 2


def pixel_edges(corners: ArrayLike, size: int, *, rounding: Rounding = "nearest") -> NDArray[np.int64]:
    """Turn box corners into pixel indices on a square grid.

    Parameters
    ----------
    corners : array_like of float, shape (box, 4)
        x0, y0, x1, y1 in fractions of the frame.
    size : int
        Side of the grid, pixels.
    rounding : {"nearest", "floor", "one-based-floor"}
        "nearest": the nearest line between pixels; gives MSSL's ``[y - 1 : y' - 1]`` on the 256 grid exactly.
        "floor": ``int(size * x)``, as public code does with VGG-SS and MUSIC-Synthetic. "one-based-floor": back to the
        1-based pixel of the 256-pixel frame, then ``int(size * pixel / 256)`` without taking the 1 off, as LVS, EZ-VSL
        and their successors do with SoundNet-Flickr.

    Returns
    -------
    int64 array, shape (box, 4)
        x0, y0, x1, y1, each in [0, size]; a box covers ``[y0:y1, x0:x1]``.
    """
    fractions = np.asarray(corners, dtype=np.float64).reshape(-1, 4)
    if rounding == "nearest":
        edges = np.floor(fractions * size + 0.5)
    elif rounding == "floor":
        edges = np.floor(fractions * size)
    else:
        # The published boxes are whole pixels, so undoing the division may round.
        pixels = np.rint(fractions * SOURCE_SIDE) + 1
        edges = np.floor(size * pixels / SOURCE_SIDE)
    return np.clip(edges, 0, size).astype(np.int64)


def consensus_map(
    corners: ArrayLike, size: int, *, required: int = 2, rounding: Rounding = "nearest"
) -> NDArray[np.float64]:
    """Return g = min(number of boxes over the pixel / required, 1), float64, shape (size, size).

    With `required` 2 this is the published rule for several annotators. See `pixel_edges` for the other parameters.
    """
    counts, _ = _box_counts(pixel_edges(corners, size, rounding=rounding), size)
    return np.minimum(counts / required, 1.0)


def required_agreement(boxes: Sequence[Box]) -> int:
    """How many boxes must cover a pixel for it to count fully: min(2, number of annotators of these boxes).

    The published rule asks for two boxes, whoever drew them, which suits SoundNet-Flickr's several annotators. Where
    one annotator (or a renderer) drew every box of the clip, a box counts fully: the rule that public code has for
    VGG-SS. So one rule serves both kinds of data.
    """
    return min(2, len({box.annotator for box in boxes}))


def ground_truth(boxes: Sequence[Box], size: int, *, rounding: Rounding, consensus: Consensus) -> list[GroundTruth]:
    """Build the ground truth of one clip.

    Parameters
    ----------
    boxes : sequence of Box
        The clip's boxes; those with ``sounding`` False are left out.
    size, rounding
        See `pixel_edges`.
    consensus : {"annotators", "union", "per-source"}
        "annotators": `required_agreement` boxes make a pixel full, fewer half. "union": one box is enough.
        "per-source": the union of the boxes of each source, one ground truth per source.

    Returns
    -------
    list of GroundTruth
        One element, or one per source in the order of first appearance; parts without any pixel are in it too. Empty
        when no box is sounding.
    """
    sounding = [box for box in boxes if box.sounding]
    if not sounding:
        return []
    if consensus == "per-source":
        sources = dict.fromkeys(box.source for box in sounding)
        groups = [[box for box in sounding if box.source == source] for source in sources]
    else:
        groups = [sounding]
    return [
        _masks(group, size, rounding=rounding, required=required_agreement(group) if consensus == "annotators" else 1)
        for group in groups
    ]


def _masks(boxes: Sequence[Box], size: int, *, rounding: Rounding, required: int) -> GroundTruth:
    edges = pixel_edges([(box.x0, box.y0, box.x1, box.y1) for box in boxes], size, rounding=rounding)
    counts, n_outside = _box_counts(edges, size)
    support = counts > 0
    full = support if required == 1 else counts >= required
    n_support = int(np.count_nonzero(support))
    mass = (n_support + int(np.count_nonzero(full))) / 2
    return GroundTruth(support=support, full=full, n_outside=n_outside, n_support=n_support, mass=mass)


def _box_counts(edges: NDArray[np.int64], size: int) -> tuple[NDArray[np.uint16], int]:
    counts = np.zeros((size, size), dtype=np.uint16)
    n_outside = 0
    for x0, y0, x1, y1 in edges.tolist():
        if x0 < x1 and y0 < y1:
            counts[y0:y1, x0:x1] += 1
        else:
            n_outside += 1
    return counts, n_outside
