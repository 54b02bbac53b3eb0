"""Boxes → ground-truth grids.

Conventions
-----------
A box is x0, y0, x1, y1 in fractions of the full frame, corners, origin top left; an edge at x0 lies on the line
between two pixels. For files that count pixels from 1 (SoundNet-Flickr, 256×256), pixel c begins at the fraction
(c - 1) / 256. A grid is (row, col); a box covers the pixels from its first to the one before its last edge.

Public code turns edges into pixel indices in different ways, which moves a box by up to a pixel; see `Rounding`.
What lies outside the frame is cut off. A box of which nothing is left is counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.manifests.boxes import Box
from pipeline.scoring.protocols import Consensus, Rounding

SOURCE_SIDE = 256  # side in pixels of the frames on which the SoundNet-Flickr boxes were drawn
_SIZE_ERROR = 1.0e-9  # pixels; a size that is the difference of two corners misses a whole number by less


class GroundTruth(NamedTuple):
    """A consensus map with the values 0, 1/2 and 1, kept as two masks.

    Parameters
    ----------
    support : bool array, shape (row, col)
        Where g > 0.
    full : bool array, shape (row, col)
        Where g = 1; the same object as `support` where one box is enough.
    n_support : int
        Pixels with g > 0.
    mass : float
        Σg.
    n_outside : int
        Boxes of which nothing lies on the grid.
    """

    support: NDArray[np.bool_]
    full: NDArray[np.bool_]
    n_support: int
    mass: float
    n_outside: int

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
    rounding : {"nearest", "floor", "one-based-floor", "xywh-floor"}
        "nearest": the nearest line between pixels; gives MSSL's ``[y - 1 : y' - 1]`` on the 256 grid exactly.
        "floor": ``int(size * x)``, as public code does with VGG-SS. "one-based-floor": back to the 1-based pixel of the
        256-pixel frame, then ``int(size * pixel / 256)`` without taking the 1 off, as LVS, EZ-VSL and their successors do
        with SoundNet-Flickr. "xywh-floor": corner and size are rounded down each for itself, ``int(size * x)`` and
        ``int(size * width)``, and the far edge is their sum, as DSOL does with the ``[x, y, width, height]`` of
        MUSIC-Synthetic; off the grid it can lie a pixel before that of "floor".

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
    elif rounding == "xywh-floor":
        near = np.floor(fractions[:, :2] * size)
        sides = np.floor((fractions[:, 2:] - fractions[:, :2]) * size + _SIZE_ERROR)
        edges = np.concatenate([near, near + sides], axis=1)
    else:
        # The published boxes are whole pixels, so undoing the division may round.
        pixels = np.rint(fractions * SOURCE_SIDE) + 1
        edges = np.floor(size * pixels / SOURCE_SIDE)
    return np.minimum(np.maximum(edges, 0), size).astype(np.int64)


def required_agreement(boxes: Sequence[Box]) -> int:
    """How many boxes must cover a pixel for it to count fully: min(2, number of annotators of these boxes).

    The published rule asks for two boxes, whoever drew them, which suits SoundNet-Flickr's several annotators. Where
    one annotator (or a renderer) drew every box of the clip, a box counts fully: the rule that public code has for
    VGG-SS. So one rule serves both kinds of data.
    """
    return min(2, len({box.annotator for box in boxes}))


def box_edges(boxes: Sequence[Box], size: int, *, rounding: Rounding) -> list[list[int]]:
    """Return `pixel_edges` of boxes as a list with x0, y0, x1, y1 of each."""
    return pixel_edges([(box.x0, box.y0, box.x1, box.y1) for box in boxes], size, rounding=rounding).tolist()


def ground_truth(
    boxes: Sequence[Box],
    size: int,
    *,
    rounding: Rounding,
    consensus: Consensus,
    edges: Sequence[Sequence[int]] | None = None,
) -> list[GroundTruth]:
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
    edges : sequence, optional
        `box_edges` of the boxes, where they are known already.

    Returns
    -------
    list of GroundTruth
        One element, or one per source in the order of first appearance; parts without any pixel are in it too. Empty
        when no box is sounding.
    """
    if edges is None:
        edges = box_edges(boxes, size, rounding=rounding)
    sounding = [pair for pair in zip(boxes, edges, strict=True) if pair[0].sounding]
    if not sounding:
        return []
    if consensus == "per-source":
        sources = dict.fromkeys(box.source for box, _ in sounding)
        return [_masks([edge for box, edge in sounding if box.source == source], size, 1) for source in sources]
    required = required_agreement([box for box, _ in sounding]) if consensus == "annotators" else 1
    return [_masks([edge for _, edge in sounding], size, required)]


def _masks(edges: Sequence[Sequence[int]], size: int, required: int) -> GroundTruth:
    # Small integers, for speed; a clip with more boxes than they can count gets larger ones.
    counts = np.zeros((size, size), dtype=np.uint8 if len(edges) < 256 else np.uint32)
    n_outside = 0
    for x0, y0, x1, y1 in edges:
        if x0 < x1 and y0 < y1:
            covered = counts[y0:y1, x0:x1]
            covered += 1
        else:
            n_outside += 1
    support = counts > 0
    full = support if required == 1 else counts >= required
    n_support = int(np.count_nonzero(support))
    n_full = n_support if required == 1 else int(np.count_nonzero(full))
    return GroundTruth(support, full, n_support, (n_support + n_full) / 2, n_outside)
