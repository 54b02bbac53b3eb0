"""The rows that look at nothing: their shapes, and closed forms of their scores."""

import numpy as np
import pytest

from pipeline.common.errors import EvaluationError
from pipeline.manifests.boxes import Box
from pipeline.scoring import baselines
from pipeline.scoring.protocols import PROTOCOLS, get_protocol
from pipeline.scoring.score import score, score_all


def box(clip_id, x0, y0, x1, y1, sounding=True):
    return Box(clip_id, "thing", "renderer", sounding, x0, y0, x1, y1)


def test_all_ones_scores_the_area_under_every_protocol():
    boxes = [box("a", 0.25, 0.25, 0.75, 0.75), box("b", 0.0, 0.0, 0.5, 0.125)]

    for scores in score_all(baselines.all_ones(), ["a", "b"], boxes, PROTOCOLS.values()).values():
        # One-based rounding may move an edge by a pixel.
        np.testing.assert_allclose(scores.ciou, [1 / 4, 1 / 16], atol=0.01)
        np.testing.assert_array_equal(scores.ciou, scores.pointing)
        np.testing.assert_array_equal(scores.ciou, scores.iou)


def test_gaussian_is_a_centered_disc_of_half_the_frame_under_the_median_rule():
    side = np.sqrt(0.5)
    low, high = 0.5 - side / 2, 0.5 + side / 2
    radius = np.sqrt(0.5 / np.pi)  # the disc of half the area, which stays inside the frame
    centers = (np.arange(256) + 0.5) / 256 - 0.5
    disc = centers[:, None] ** 2 + centers[None, :] ** 2 <= radius**2
    square = np.maximum(abs(centers[:, None]), abs(centers[None, :])) <= side / 2

    scores = score(
        baselines.centered_gaussian(), ["a"], [box("a", low, low, high, high)], get_protocol("paper256-median")
    )

    assert scores.ciou[0] == pytest.approx((disc & square).sum() / (disc | square).sum(), abs=0.01)
    assert scores.pointing[0] == 1


def test_gaussian_is_symmetric_and_has_its_width():
    blob = baselines.centered_gaussian(side=64, sigma=0.25)

    np.testing.assert_array_equal(blob, blob[::-1])
    np.testing.assert_array_equal(blob, blob.T)
    # One standard deviation (16 cells) from the center against the cell at the center.
    assert blob[32, 32 + 16] / blob[32, 32] == pytest.approx(np.exp(-0.5 * (16.5**2 - 0.5**2) / 16**2), rel=1e-5)


def test_random_maps_belong_to_their_clips():
    ids = [f"clip_{k}" for k in range(400)]

    maps = baselines.random_smooth_maps(ids, seed=3)

    assert maps.shape == (400, 16, 16)
    np.testing.assert_array_equal(baselines.random_smooth_maps(ids[::-1], seed=3), maps[::-1])
    assert not np.array_equal(baselines.random_smooth_maps(ids[:1], seed=4), maps[:1])
    assert len(np.unique(maps[:, 0, 0])) == 400
    low, high = maps.min(axis=(1, 2), keepdims=True), maps.max(axis=(1, 2), keepdims=True)
    assert np.mean(maps > (low + high) / 2) == pytest.approx(0.5, abs=0.05)
    # Smooth: neighbors differ far less than cells of different clips do.
    assert np.abs(np.diff(maps, axis=1)).mean() < 0.3 * np.abs(np.diff(maps, axis=0)).mean()


def test_prior_is_the_mean_consensus_of_other_clips():
    boxes = [box("a", 0, 0, 0.5, 1), box("b", 0, 0, 1, 0.5), box("b", 0, 0, 1, 1, sounding=False)]

    prior = baselines.mean_of_boxes(boxes, side=4)

    np.testing.assert_array_equal(prior, [[1, 1, 0.5, 0.5], [1, 1, 0.5, 0.5], [0.5, 0.5, 0, 0], [0.5, 0.5, 0, 0]])
    with pytest.raises(EvaluationError, match="mean_of_boxes"):
        baselines.mean_of_boxes([box("b", 0, 0, 1, 1, sounding=False)])


def test_rows_have_the_prior_only_where_there_are_boxes():
    assert list(baselines.content_free_maps(["a"])) == ["random", "all_ones", "centered_gaussian"]
    with_prior = baselines.content_free_maps(["a"], prior_boxes=[box("z", 0, 0, 0.5, 0.5)])
    assert list(with_prior)[-1] == "mean_of_boxes"
    for rows in with_prior.values():
        assert score(rows, ["a"], [box("a", 0, 0, 1, 1)], get_protocol("paper256")).counts["n_clips"] == 1
