"""Predictors that look at neither picture nor sound: what any method must beat.

Conventions
-----------
A row is what `pipeline.scoring.score.score` takes: float maps (clip, row, col), one float map (row, col) for every clip, or a
bool region. Each is scored under exactly the protocol of the method beside it; a method that defines the normalization of its own
maps (MSSL) is the exception, and the tables name it. A centered blob scores 67 % on
SoundNet-Flickr under a median rule, so these rows belong beside every number.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.common.errors import EvaluationError
from pipeline.manifests.clips import Box
from pipeline.scoring.ground_truth import ground_truth
from pipeline.scoring.score import sounding_boxes

SIDE = 64  # cells per side of the maps made here; fine enough for a 256 grid


def random_smooth_maps(
    clip_ids: Sequence[str], *, side: int = 16, cells: int = 4, seed: int = 0
) -> NDArray[np.float32]:
    """Smooth noise, another for each clip.

    Parameters
    ----------
    clip_ids : sequence of str
        A clip's map depends on its id and the seed alone, not on its place in the sequence.
    side : int
        Cells per side of a map.
    cells : int
        Normal numbers per side, enlarged to `side` by bicubic interpolation; fewer are smoother.
    seed : int
        Of the random generator.

    Returns
    -------
    float32 array, shape (clip, side, side)
        About half of a map is above the middle of its range.
    """
    noise = np.stack(
        [np.random.default_rng([seed, zlib.crc32(i.encode())]).standard_normal((cells, cells)) for i in clip_ids]
    )
    enlarged = torch.nn.functional.interpolate(
        torch.from_numpy(noise.astype(np.float32))[:, None], size=(side, side), mode="bicubic", align_corners=False
    )
    return enlarged[:, 0].numpy()


def all_ones() -> NDArray[np.bool_]:
    """The whole frame as the sounding region, bool (1, 1)."""
    return np.ones((1, 1), dtype=bool)


def centered_gaussian(*, side: int = SIDE, sigma: float = 0.25) -> NDArray[np.float32]:
    """A Gaussian at the center of the frame, float32 (side, side), largest value 1; `sigma` in fractions of the side."""
    centers = (np.arange(side) + 0.5) / side - 0.5
    profile = np.exp(-0.5 * (centers / sigma) ** 2)
    blob = np.outer(profile, profile)
    return (blob / blob.max()).astype(np.float32)


def mean_of_boxes(boxes: Iterable[Box], *, side: int = SIDE) -> NDArray[np.float32]:
    """Mean of the consensus maps of other clips, float32 (side, side): where things that sound tend to be.

    Parameters
    ----------
    boxes : iterable of Box
        Of clips that are not scored; boxes of a validation or training split.
    side : int
        Cells per side.

    Raises
    ------
    EvaluationError
        No box is sounding.
    """
    by_clip = sounding_boxes(boxes)
    if not by_clip:
        raise EvaluationError("a prior from boxes needs at least one sounding box of another split; there is none")
    total = np.zeros((side, side))
    for clip_boxes in by_clip.values():
        (truth,) = ground_truth(clip_boxes, side, rounding="nearest", consensus="annotators")
        total += truth.g
    return (total / len(by_clip)).astype(np.float32)


def content_free_maps(clip_ids: Sequence[str], *, prior_boxes: Iterable[Box] = (), seed: int = 0) -> dict[str, NDArray]:
    """Return the rows of every table, by name: random, all_ones, centered_gaussian, and mean_of_boxes if there are any.

    Parameters
    ----------
    clip_ids : sequence of str
        The clips to be scored.
    prior_boxes : iterable of Box
        Boxes of other clips; without a sounding one the row is left out.
    seed : int
        Of the random maps.
    """
    rows: dict[str, NDArray] = {
        "random": random_smooth_maps(clip_ids, seed=seed),
        "all_ones": all_ones(),
        "centered_gaussian": centered_gaussian(),
    }
    others = [box for box in prior_boxes if box.sounding]
    if others:
        rows["mean_of_boxes"] = mean_of_boxes(others)
    return rows
