"""Quadrant accuracy: closed forms, a reference by repeated pixels, invariances, and who gets its keys."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from pipeline.manifests.boxes import Box
from pipeline.scoring.baselines import all_ones, centered_gaussian, random_smooth_maps
from pipeline.scoring.protocols import PROTOCOLS, get_protocol
from pipeline.scoring.quadrants import cell_means, quadrant_scores, sounding_cells, strongest_cells
from pipeline.scoring.results import summarize
from pipeline.scoring.score import score, score_all, score_rules
from pipeline.scoring.summary import SHUFFLED, flat_metrics, scoring_rules

PAPER = get_protocol("paper256")
SIZES = [(1, 1), (2, 2), (2, 5), (7, 3), (14, 16), (13, 13), (30, 7)]


def box(clip_id, row, column, grid=2, *, sounding=True):
    """A box that fills one cell."""
    corners = (column / grid, row / grid, (column + 1) / grid, (row + 1) / grid)
    return Box(clip_id, f"{row}-{column}", "x", sounding, *corners)


def reference_means(response, grid):
    """Repeat every response until the cells' edges lie between two pixels, then average the pixels."""
    for axis in (0, 1):
        response = np.repeat(
            response, grid * response.shape[axis] // math.gcd(grid, response.shape[axis]) // response.shape[axis], axis
        )
    rows, columns = (side // grid for side in response.shape)
    return np.array(
        [
            [np.mean(response[i * rows : (i + 1) * rows, j * columns : (j + 1) * columns]) for j in range(grid)]
            for i in range(grid)
        ]
    )


def reference_hit(response, boxes, grid):
    means = reference_means(response, grid)
    best = np.argwhere(means == means.max())
    centers = [((b.y0 + b.y1) / 2, (b.x0 + b.x1) / 2) for b in boxes]
    sounds = [
        any(i / grid <= y < (i + 1) / grid and j / grid <= x < (j + 1) / grid for y, x in centers) for i, j in best
    ]
    return np.mean(sounds)


def hits(maps, clip_ids, boxes, grid=2, protocol=PAPER):
    return score(maps, clip_ids, boxes, protocol, grid=grid).extra["quadrant"]


def random_boxes(generator, clip_ids, per_clip):
    corners = np.sort(generator.random((len(clip_ids) * per_clip, 2, 2)) * 0.9, axis=1)
    owners = np.repeat(np.array(clip_ids), per_clip)
    return [
        Box(str(i), f"s{k}", "x", True, x0, y0, x1 + 0.1, y1 + 0.1)
        for k, (i, ((x0, y0), (x1, y1))) in enumerate(zip(owners, corners.tolist(), strict=True))
    ]


def test_the_mean_decides_not_the_peak():
    peaked, broad = np.zeros((4, 4)), np.zeros((4, 4))
    peaked[0, 0] = 3.0
    broad[2:, 2:] = 1.0
    maps = np.stack([peaked + broad, peaked + broad])

    scores = score(maps, ["a", "b"], [box("a", 1, 1), box("b", 0, 0)], PAPER, grid=2)

    np.testing.assert_array_equal(scores.extra["quadrant"], [1, 0])
    np.testing.assert_array_equal(scores.pointing, [0, 1])


def test_a_response_in_two_cells_counts_in_each_with_its_share():
    # Three responses along an axis, two cells: the middle one is shared by halves.
    np.testing.assert_allclose(cell_means(np.array([[0.0, 6.0, 3.0]]), 2), [[2, 4], [2, 4]], rtol=1e-15)
    # Two responses, three cells: the middle cell has half of each.
    np.testing.assert_allclose(cell_means(np.array([[1.0], [3.0]]), 3), [[1] * 3, [2] * 3, [3] * 3], rtol=1e-15)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("grid", [2, 3, 4])
def test_means_are_those_of_repeated_pixels(size, grid):
    response = np.random.default_rng(0).normal(size=size)
    means = cell_means(response, grid)
    np.testing.assert_allclose(means, reference_means(response, grid), rtol=0, atol=1e-13)
    assert means.mean() == pytest.approx(response.mean(), abs=1e-13)


@pytest.mark.parametrize("grid", [2, 3, 5])
@pytest.mark.parametrize("per_clip", [1, 3])
def test_hits_are_those_of_the_reference(grid, per_clip):
    generator = np.random.default_rng(grid)
    clip_ids = [f"c{k}" for k in range(60)]
    boxes = random_boxes(generator, clip_ids, per_clip)
    maps = generator.normal(size=(60, 14, 11)).astype(np.float32)

    found = hits(maps, clip_ids, boxes, grid)

    expected = [
        reference_hit(each.astype(float), [b for b in boxes if b.clip_id == i], grid)
        for i, each in zip(clip_ids, maps, strict=True)
    ]
    np.testing.assert_array_equal(found, expected)
    assert 0 < found.mean() < 1


def test_tied_cells_share():
    two, flat = np.zeros((14, 14)), np.full((7, 7), 0.3, dtype=np.float32)
    two[:, :5] = 1.0  # both left cells
    maps = [two, flat[:, :1], flat, -two]
    boxes = [[box("a", 0, 0)], [box("a", 0, 0), box("a", 1, 0)]]
    for response, shares in zip(maps, ([1 / 2, 1], [1 / 4, 1 / 2], [1 / 4, 1 / 2], [0, 0]), strict=True):
        for of_clip, share in zip(boxes, shares, strict=True):
            assert hits(response[None], ["a"], of_clip) == [share]


def test_rounding_does_not_break_ties():
    # Sums of 0.1 with the weights of three cells are rounded differently.
    assert strongest_cells(np.full((7, 7), 0.1), 3).all()
    # The upper right cell has the responses of the upper left one in another order.
    generator = np.random.default_rng(0)
    for _ in range(20):
        cell = generator.random(36)
        upper = np.hstack([cell.reshape(6, 6), generator.permutation(cell).reshape(6, 6)])
        np.testing.assert_array_equal(strongest_cells(np.vstack([upper, upper - 1]), 2), [[1, 1], [0, 0]])


@pytest.mark.parametrize("grid", [2, 3])
def test_scale_and_offset_change_nothing_and_mirroring_mirrors(grid):
    generator = np.random.default_rng(7)
    maps = generator.normal(size=(40, 13, 9))
    clip_ids = [f"c{k}" for k in range(40)]
    boxes = random_boxes(generator, clip_ids, 2)
    known = hits(maps, clip_ids, boxes, grid)

    np.testing.assert_array_equal(hits(5.3 * maps - 17, clip_ids, boxes, grid), known)
    flat = np.zeros_like(maps)
    np.testing.assert_array_equal(hits(flat + 1e6, clip_ids, boxes, grid), hits(flat, clip_ids, boxes, grid))
    mirrored = [replace(b, x0=1 - b.x1, x1=1 - b.x0) for b in boxes]
    np.testing.assert_array_equal(hits(maps[:, :, ::-1], clip_ids, mirrored, grid), known)
    np.testing.assert_array_equal(strongest_cells(maps[0, :, ::-1], grid), strongest_cells(maps[0], grid)[:, ::-1])
    np.testing.assert_array_equal(strongest_cells(maps[0].T, grid), strongest_cells(maps[0], grid).T)
    # The order of clips and boxes does not matter either.
    np.testing.assert_array_equal(hits(maps[::-1], clip_ids[::-1], boxes[::-1], grid), known[::-1])


def test_random_maps_are_at_chance():
    generator = np.random.default_rng(1)
    clip_ids = [f"clip-{k}" for k in range(4000)]
    places = generator.integers(0, 2, (len(clip_ids), 2)).tolist()
    boxes = [box(i, row, column) for i, (row, column) in zip(clip_ids, places, strict=True)]
    sounding = {each.clip_id: [each] for each in boxes}
    for maps in (generator.normal(size=(len(clip_ids), 16, 16)), random_smooth_maps(clip_ids)):
        scores = quadrant_scores(maps, clip_ids, sounding, 2).values()
        # Three standard deviations: 3 √(1/4 · 3/4 / 4000) = 0.02.
        assert np.mean([each.hit for each in scores]) == pytest.approx(0.25, abs=0.021)
        assert {each.chance for each in scores} == {0.25}


def test_content_free_maps_that_prefer_no_cell_score_exactly_the_chance():
    boxes = [box("a", 0, 1, 3), box("b", 2, 2, 3), box("b", 0, 0, 3)]
    for maps in (all_ones(), np.full((5, 5), -2.5)):
        summary = summarize(score(maps, ["a", "b"], boxes, PAPER, grid=3))
        assert summary["quadrant_accuracy"] == pytest.approx(1.5 / 9, rel=1e-15)
        assert summary["quadrant_chance"] == pytest.approx(1.5 / 9, rel=1e-15)
    # A centered blob prefers none of four cells, and of nine the middle one.
    assert strongest_cells(centered_gaussian(), 2).all()
    assert np.argwhere(strongest_cells(centered_gaussian(), 3)).tolist() == [[1, 1]]


def test_a_cell_sounds_if_the_center_of_a_sounding_box_is_in_it():
    # Most of the box is in the right cell, its center in the left one by less than a pixel.
    wide = Box("a", "s", "x", True, 0.0, 0.0, 0.999, 0.5)
    assert np.argwhere(sounding_cells([wide], 2)).tolist() == [[0, 0]]
    # A center between two cells belongs to the second one.
    assert np.argwhere(sounding_cells([Box("a", "s", "x", True, 0.25, 0.25, 0.75, 0.75)], 2)).tolist() == [[1, 1]]
    # Two boxes in one cell are one sounding cell.
    assert sounding_cells([box("a", 1, 0), box("a", 1, 0)], 2).sum() == 1
    corner = Box("a", "s", "x", True, math.nextafter(1.0, 0), math.nextafter(1.0, 0), 1.0, 1.0)
    assert np.argwhere(sounding_cells([corner], 3)).tolist() == [[2, 2]]


def test_only_scored_clips_count_and_silent_boxes_are_no_target():
    response = np.zeros((2, 2))
    response[0, 1] = 1.0
    maps = np.stack([response] * 4)
    boxes = [
        box("hit", 0, 1),
        box("hit", 1, 1, sounding=False),
        box("miss", 0, 1, sounding=False),
        box("miss", 1, 1),
        box("silent", 0, 1, sounding=False),
        box("no map", 0, 1),
    ]

    scores = score(maps, ["hit", "silent", "miss", "unknown"], boxes, PAPER, grid=2)

    assert scores.clip_ids == ("hit", "miss")
    np.testing.assert_array_equal(scores.extra["quadrant"], [1, 0])
    np.testing.assert_array_equal(scores.extra["quadrant_chance"], [1 / 4, 1 / 4])


def test_every_protocol_gives_the_same_hits():
    generator = np.random.default_rng(3)
    clip_ids = [f"f_{k}" for k in range(12)]
    # Boxes in whole cells have pixels on every grid.
    boxes = [box(i, *generator.integers(0, 2, 2).tolist()) for i in clip_ids]
    maps = generator.normal(size=(12, 9, 9)) - 5  # "relu-max" clips all of it
    found = score_all(maps, clip_ids, boxes, PROTOCOLS.values(), grid=2)
    known = hits(maps, clip_ids, boxes)
    assert 0 < known.sum() < 12
    for scores in found.values():
        np.testing.assert_array_equal(scores.extra["quadrant"], known)


def runs_of(seeds, grid):
    """Scores by prefix of models with random maps, as `evaluate` computes them."""
    clip_ids = [f"c{k}" for k in range(30)]
    boxes = [box(i, k % 2, k // 2 % 2) for k, i in enumerate(clip_ids)]
    rules = scoring_rules(PAPER)
    runs = []
    for seed in seeds:
        own, other = np.random.default_rng(seed).normal(size=(2, 30, 8, 8))
        scored = [score_rules(maps, clip_ids, boxes, rules, threshold=0.5, grid=grid) for maps in (own, other)]
        runs.append(scored[0] | {SHUFFLED + prefix: scores for prefix, scores in scored[1].items()})
    return runs


def test_keys_of_metrics_with_one_and_with_several_seeds():
    several, one = runs_of([0, 1, 2], 2), flat_metrics(runs_of([0], 2))
    metrics = flat_metrics(several)

    ends = ("", "_low", "_high", "_seeds")
    expected = {f"{audio}quadrant_accuracy{end}" for audio in ("", SHUFFLED) for end in ends} | {"quadrant_chance"}
    assert {key for key in metrics if "quadrant" in key} == expected
    assert {key for key in one if "quadrant" in key} == {key for key in expected if not key.endswith("_seeds")}
    assert metrics["quadrant_chance"] == 0.25
    for audio in ("", SHUFFLED):
        means = [run[audio].extra["quadrant"].mean() for run in several]
        assert metrics[f"{audio}quadrant_accuracy_seeds"] == means
        assert metrics[f"{audio}quadrant_accuracy"] == pytest.approx(np.mean(means), abs=1e-15)
        assert metrics[f"{audio}quadrant_accuracy_low"] <= np.mean(means) <= metrics[f"{audio}quadrant_accuracy_high"]


def test_without_a_grid_nothing_is_added_and_a_grid_moves_no_other_score():
    without, with_grid = flat_metrics(runs_of([0, 1], None)), flat_metrics(runs_of([0, 1], 2))
    assert not [key for key in without if "quadrant" in key]
    assert list(without) == [key for key in with_grid if "quadrant" not in key]
    for key, value in without.items():
        assert with_grid[key] == pytest.approx(value, abs=1e-12), key
