"""Find the connected sounding regions of a response map.

Conventions
-----------
Maps are (row, col), row 0 at the top. Boxes are corners in fractions of the full frame, origin top left. Pixels are
connected if they share a side (4-connectivity).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage


class Region(NamedTuple):
    """One connected part of the sounding region S (Eq. 2).

    Attributes
    ----------
    x0, y0, x1, y1 : float in [0, 1]
        Bounding box.
    score : float
        Largest raw response in the region.
    area : float in (0, 1]
        Fraction of the frame.
    """

    x0: float
    y0: float
    x1: float
    y1: float
    score: float
    area: float


def connected_regions(heat: np.ndarray, response: np.ndarray, *, delta_v: float) -> list[Region]:
    """Return the connected regions of ``heat > delta_v``, sorted by decreasing score.

    Parameters
    ----------
    heat : np.ndarray [shape=(row, col)]
        Normalized response map, in [0, 1].
    response : np.ndarray [shape=(row, col)]
        The raw map on the same grid.
    delta_v : float in [0, 1]
        Eq. 2.

    Raises
    ------
    ValueError
        The maps differ in shape.
    """
    if heat.shape != response.shape or heat.ndim != 2:
        raise ValueError(
            f"heat {heat.shape} and response {response.shape} must be two-dimensional maps of the same shape"
        )
    labels, n_parts = ndimage.label(heat > delta_v)
    rows, columns = heat.shape
    found = []
    for number, (row, column) in enumerate(ndimage.find_objects(labels, n_parts), start=1):
        inside = labels[row, column] == number
        found.append(
            Region(
                x0=column.start / columns,
                y0=row.start / rows,
                x1=column.stop / columns,
                y1=row.stop / rows,
                score=float(response[row, column][inside].max()),
                area=float(np.count_nonzero(inside)) / heat.size,
            )
        )
    return sorted(found, key=lambda region: -region.score)
