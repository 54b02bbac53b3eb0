"""Content-free baselines: maps that ignore both frame and audio. Every method must beat them.

Conventions
-----------
A baseline is anything that `pipeline.scoring.score.score` accepts: float maps (clip, row, col), one float map (row, col)
for every clip, or a bool region. Each is scored under the same protocol as the methods next to it. The exception is a
method that defines the normalization of its own maps (MSSL); the tables name it. A centered Gaussian scores 67% on
SoundNet-Flickr under a median rule, so every reported number needs these rows next to it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.common.config import EvaluationSettings
from pipeline.common.errors import EvaluationError
from pipeline.common.files import DAY_S, remove_leftovers, write_json
from pipeline.manifests.boxes import Box, read_prior_boxes, read_split_boxes
from pipeline.scoring.ground_truth import ground_truth
from pipeline.scoring.protocols import get_protocol
from pipeline.scoring.results import Scores
from pipeline.scoring.scorable import group_sounding_boxes
from pipeline.scoring.score import score_rules
from pipeline.scoring.summary import flat_metrics, scoring_rules
from pipeline.shards.reader import ShardSet

BASELINE_LABELS = {
    "random": "random map",
    "all_ones": "all ones",
    "centered_gaussian": "centered Gaussian",
    "mean_of_boxes": "mean of other splits' boxes",
}
SIDE = 64  # cells per side of the maps made here; fine enough for a 256 grid


def evaluate_content_free(
    shards: ShardSet, manifest: Path, path: Path, *, split: str, evaluation: EvaluationSettings
) -> None:
    """Score the content-free baselines and write ``baselines.json``.

    Parameters
    ----------
    shards : ShardSet
        The scored split; only its clip ids are read.
    manifest : Path
        Folder with ``<split>_boxes.csv``. Boxes of other splits in it, but never those of the test split, give the
        baseline `mean_of_boxes`.
    path : Path
        Where to write. A mapping of baseline → flat scores, see `pipeline.scoring.summary`.
    split : str
    evaluation : EvaluationSettings
        Protocol, the cIoU threshold of a success, and the grid of mosaics.

    Raises
    ------
    EvaluationError
        The split has no boxes, or boxes and shards have no clip in common.
    """
    scored = score_content_free(shards, manifest, split=split, evaluation=evaluation)
    rows = {
        name: {"split": split, **flat_metrics([by_rule]), "success_curve": by_rule[""].curve.tolist()}
        for name, by_rule in scored.items()
    }
    remove_leftovers(path.parent, min_age_s=DAY_S)
    write_json(path, rows)


def score_content_free(
    shards: ShardSet, manifest: Path, *, split: str, evaluation: EvaluationSettings
) -> dict[str, dict[str, Scores]]:
    """Return the scores of each content-free baseline under each rule; see `evaluate_content_free`."""
    boxes = read_split_boxes(manifest, split)
    # Never boxes of the scored clips: the prior would otherwise know the answer.
    elsewhere = read_prior_boxes(manifest, split)
    rules = scoring_rules(get_protocol(evaluation.protocol))
    return {
        name: score_rules(maps, shards.clip_ids, boxes, rules, threshold=evaluation.threshold, grid=evaluation.grid)
        for name, maps in content_free_maps(shards.clip_ids, prior_boxes=elsewhere).items()
    }


def content_free_maps(clip_ids: Sequence[str], *, prior_boxes: Iterable[Box] = (), seed: int = 0) -> dict[str, NDArray]:
    """Return all baselines by name: random, all_ones, centered_gaussian and, if there are boxes for it, mean_of_boxes.

    Parameters
    ----------
    clip_ids : sequence of str
        The clips to be scored.
    prior_boxes : iterable of Box
        Boxes of other clips; without a sounding one, mean_of_boxes is left out.
    seed : int
        Seed of the random maps.
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


def random_smooth_maps(
    clip_ids: Sequence[str], *, side: int = 16, cells: int = 4, seed: int = 0
) -> NDArray[np.float32]:
    """Return smooth noise, different for each clip.

    Parameters
    ----------
    clip_ids : sequence of str
        A clip's map depends only on its id and the seed, not on its position in the sequence.
    side : int
        Cells per side of a map.
    cells : int
        Normal random numbers per side, upsampled to `side` by bicubic interpolation; fewer are smoother.
    seed : int
        Seed of the random generator.

    Returns
    -------
    float32 array, shape (clip, side, side)
        About half of a map is above the middle of its range.
    """
    import torch  # takes a second, and labels of baselines do not need it

    # Seeded by clip id, so that a clip keeps its map when others are added or removed.
    noise = np.stack(
        [np.random.default_rng([seed, zlib.crc32(i.encode())]).standard_normal((cells, cells)) for i in clip_ids]
    )
    upsampled = torch.nn.functional.interpolate(
        torch.from_numpy(noise.astype(np.float32))[:, None], size=(side, side), mode="bicubic", align_corners=False
    )
    return upsampled[:, 0].numpy()


def all_ones() -> NDArray[np.bool_]:
    """Return the whole frame as the sounding region, bool (1, 1)."""
    return np.ones((1, 1), dtype=bool)


def centered_gaussian(*, side: int = SIDE, sigma: float = 0.25) -> NDArray[np.float32]:
    """Return a Gaussian at the frame center, float32 (side, side), maximum 1; `sigma` in fractions of the side."""
    # Cell centers, relative to the frame center.
    centers = (np.arange(side) + 0.5) / side - 0.5
    profile = np.exp(-0.5 * (centers / sigma) ** 2)
    blob = np.outer(profile, profile)
    return (blob / blob.max()).astype(np.float32)


def mean_of_boxes(boxes: Iterable[Box], *, side: int = SIDE) -> NDArray[np.float32]:
    """Return the mean consensus map of other clips, float32 (side, side): a prior of where sound sources tend to be.

    Parameters
    ----------
    boxes : iterable of Box
        Boxes of clips that are not scored, from a validation or training split.
    side : int
        Cells per side.

    Raises
    ------
    EvaluationError
        No box is sounding.
    """
    by_clip = group_sounding_boxes(boxes)
    if not by_clip:
        raise EvaluationError(
            "the baseline mean_of_boxes needs at least one sounding box from another split; found none"
        )
    total = np.zeros((side, side))
    for clip_boxes in by_clip.values():
        # Consensus "annotators", whatever the protocol: a prior may use how far annotators agree.
        (truth,) = ground_truth(clip_boxes, side, rounding="nearest", consensus="annotators")
        total += truth.g
    return (total / len(by_clip)).astype(np.float32)
