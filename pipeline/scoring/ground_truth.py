"""Ground truth: boxes → consensus map on a pixel grid.

Conventions
-----------
A box is x0, y0, x1, y1 in fractions of the full frame, origin top left. An edge lies between two pixels. In files that
count pixels from 1 (SoundNet-Flickr, 256×256), pixel c begins at the fraction (c - 1) / 256. A grid is (row, col); a box
covers the pixels from its first edge up to, but not including, its last edge.

Public code turns edges into pixel indices in different ways, which moves a box by up to a pixel; see `pixel_edges`.
Boxes are clipped to the frame. A box with no pixel left is counted in `GroundTruth.n_outside`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.manifests.boxes import Box
from pipeline.scoring.protocols import Consensus, Rounding

SOURCE_SIDE = 256  # side in pixels of the frames on which the SoundNet-Flickr boxes were drawn
_SIZE_ERROR = 1.0e-9  # pixels; corner differences miss a whole number by less than this


class GroundTruth(NamedTuple):
    """A consensus map with the values 0, 1/2 and 1, kept as two masks.

    Parameters
    ----------
    support : bool array, shape (row, col)
        Where g > 0.
    full : bool array, shape (row, col)
        Where g = 1; the same object as `support` if one box is enough.
    n_support : int
        Pixels with g > 0.
    mass : float
        Σg.
    n_outside : int
        Boxes with no pixel on the grid.
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
        - "nearest": the nearest line between pixels; exactly MSSL's ``[y - 1 : y' - 1]`` on the 256 grid.
        - "floor": ``int(size * x)``, as public code does for VGG-SS.
        - "one-based-floor": the 1-based pixel of the 256-pixel frame, then ``int(size * pixel / 256)`` without
          subtracting the 1, as LVS, EZ-VSL and their successors do for SoundNet-Flickr.
        - "xywh-floor": corner and size are rounded down separately, ``int(size * x)`` and ``int(size * width)``, and the
          far edge is their sum, as DSOL does for the ``[x, y, width, height]`` of MUSIC-Synthetic. The far edge can be
          one pixel lower than with "floor".

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
        # The published boxes are whole pixels, so rounding recovers them exactly.
        pixels = np.rint(fractions * SOURCE_SIDE) + 1
        edges = np.floor(size * pixels / SOURCE_SIDE)
    return np.minimum(np.maximum(edges, 0), size).astype(np.int64)


def required_agreement(boxes: Sequence[Box]) -> int:
    """Return how many boxes must cover a pixel for g = 1: min(2, number of annotators of these boxes).

    The published rule requires two boxes, no matter who drew them; it was made for SoundNet-Flickr, which has several
    annotators per clip. If one annotator (or a renderer) drew every box of a clip, one box is enough, as in public code
    for VGG-SS. So one rule covers both kinds of data.
    """
    return min(2, len({box.annotator for box in boxes}))


def box_edges(boxes: Sequence[Box], size: int, *, rounding: Rounding) -> list[list[int]]:
    """Return `pixel_edges` of boxes as a list of [x0, y0, x1, y1]."""
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
        The clip's boxes; those with ``sounding`` False are ignored.
    size, rounding
        See `pixel_edges`.
    consensus : {"annotators", "union", "per-source"}
        - "annotators": g = 1 where `required_agreement` boxes overlap, 1/2 where fewer do.
        - "union": g = 1 where there is any box.
        - "per-source": the union of the boxes of each source, one ground truth per source.
    edges : sequence, optional
        `box_edges` of the boxes, if already computed.

    Returns
    -------
    list of GroundTruth
        One element, or one per source in the order of first appearance, including those without any pixel. Empty if
        no box is sounding.
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
    # uint8 is fastest; a clip with 256 boxes or more needs a larger type.
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
