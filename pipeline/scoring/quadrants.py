"""Quadrant accuracy of mosaics: does the cell with the largest mean response sound?

Conventions
-----------
A mosaic frame consists of grid × grid equal cells, usually 2 × 2 photographs. A cell is half-open, like a box: it contains
its first edge, not its last. A cell sounds if it contains the center of a sounding box. Raw responses are compared, without
normalization, upsampling or a threshold, so the protocol does not matter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.manifests.boxes import Box
from pipeline.scoring.metrics import TOLERANCE, FloatArray


class QuadrantScore(NamedTuple):
    """The score of one clip.

    Parameters
    ----------
    hit : float
        1 if the cell with the largest mean response sounds, else 0. If cells tie, the share of them that sound.
    chance : float
        Expected `hit` of a cell chosen at random: the share of cells that sound.
    """

    hit: float
    chance: float


def quadrant_scores(
    maps: NDArray, clip_ids: Sequence[str], sounding: Mapping[str, Sequence[Box]], grid: int
) -> dict[str, QuadrantScore]:
    """Score the clips that have a sounding box.

    Parameters
    ----------
    maps : float or bool array, shape (clip, row, col) or (row, col)
        Finite raw response maps of any size, or one map for every clip.
    clip_ids : sequence of str
    sounding : mapping of str to sequence of Box
        The sounding boxes of each clip that has any.
    grid : int
        Cells per side.
    """
    scores = {}
    shared = strongest_cells(maps, grid) if maps.ndim == 2 else None
    for index, clip_id in enumerate(clip_ids):
        if clip_id in sounding:
            chosen = strongest_cells(maps[index], grid) if shared is None else shared
            sounds = sounding_cells(sounding[clip_id], grid)
            scores[clip_id] = QuadrantScore(float(sounds[chosen].mean()), float(sounds.mean()))
    return scores


def strongest_cells(response: NDArray, grid: int) -> NDArray[np.bool_]:
    """Return the cells whose mean response is the largest, bool (grid, grid); several if they tie.

    Means tie if they differ by less than 1e-12 of the map's range, which is far below the precision of its values.
    """
    values = response.astype(np.float64)
    # Without its minimum, a flat map is exactly 0, whatever the rounding of the weights.
    means = cell_means(values - values.min(), grid)
    return means >= means.max() - TOLERANCE * (values.max() - values.min())


def cell_means(response: NDArray, grid: int) -> FloatArray:
    """Return the mean of a map (row, col) in each cell, float64 (grid, grid).

    Means are weighted by area: a response that lies in several cells counts in each with its share. So they are exact for
    maps of any size.
    """
    rows, columns = (_overlaps(side, grid) for side in response.shape)
    return rows @ response.astype(np.float64) @ columns.T / response.size


def sounding_cells(boxes: Sequence[Box], grid: int) -> NDArray[np.bool_]:
    """Return which cells contain the center of a box, bool (grid, grid)."""
    sounds = np.zeros((grid, grid), dtype=bool)
    for box in boxes:
        # The center of a tiny box at the last edge can be rounded to 1.
        row, column = (min(int(center * grid), grid - 1) for center in ((box.y0 + box.y1) / 2, (box.x0 + box.x1) / 2))
        sounds[row, column] = True
    return sounds


@lru_cache(maxsize=64)
def _overlaps(side: int, grid: int) -> FloatArray:
    """Return the length that cell i shares with response j along one axis, shape (grid, side), in units of 1 / (side · grid)."""
    # In these units all edges are whole numbers: cells are `side` long, responses `grid`.
    cells, responses = np.arange(grid)[:, None] * side, np.arange(side) * grid
    shared = np.minimum(cells + side, responses + grid) - np.maximum(cells, responses)
    return np.maximum(shared, 0).astype(np.float64)
