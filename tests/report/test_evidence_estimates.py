"""Intervals over clips and seeds against closed forms, a naive bootstrap and their own coverage; the rule of the verdicts."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipeline.report.evidence.estimates import Estimate, estimate, over_seeds, unpaired_difference
from pipeline.report.evidence.wording import cell, compared, interval, seeds_ahead, signed, spread


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.001, 0.2, "supported"),
        (-0.2, -0.001, "contradicted"),
        (-0.001, 0.2, "inconclusive"),
        (0.0, 0.2, "inconclusive"),
        (-0.2, 0.0, "inconclusive"),
        (0.0, 0.0, "inconclusive"),
        (math.nan, math.nan, "no interval"),
    ],
)
def test_a_claim_is_supported_above_zero_and_contradicted_below(low, high, verdict):
    assert Estimate(0.1, low, high, (0.1,)).verdict == verdict


def naive_bootstrap(of_clips, *, resamples=1200, seed=5):
    """One resample at a time, with another generator than the project's."""
    generator, means = np.random.RandomState(seed), []
    for _ in range(resamples):
        means.append(np.mean([of_clips[generator.randint(len(of_clips))] for _ in of_clips]))
    return np.quantile(means, [0.025, 0.975])


def test_one_seed_is_the_bootstrap_of_the_paired_differences():
    generator = np.random.default_rng(0)
    hard = generator.normal(size=60)
    first, second = hard + generator.normal(0.3, 0.2, 60), hard + generator.normal(0, 0.2, 60)
    found = estimate((first - second)[None])
    assert found.value == pytest.approx(first.mean() - second.mean())
    assert (found.low, found.high) == pytest.approx(naive_bootstrap(first - second), abs=0.01)
    # Pairing matters here: the clips differ far more than the rows.
    assert found.high - found.low < 0.3 * np.ptp(naive_bootstrap(first - second[::-1], resamples=200))


def test_without_variation_over_clips_it_is_students_t_over_seeds():
    of_seeds = np.array([0.1, 0.2, 0.6])
    found = estimate(np.repeat(of_seeds[:, None], 50, axis=1))
    # The quantile of Student's t with 2 degrees of freedom is in every table; the standard deviation of 1, 2, 6 is the root of 7.
    half = 4.302653 * math.sqrt(0.07) / math.sqrt(3)
    assert (found.value, found.low, found.high) == pytest.approx((0.3, 0.3 - half, 0.3 + half), abs=1e-6)
    assert found.of_seeds == pytest.approx(of_seeds)
    alone = over_seeds(of_seeds)
    assert (alone.low, alone.high) == pytest.approx((found.low, found.high))


def test_both_parts_add_in_quadrature():
    generator = np.random.default_rng(1)
    of_clips, of_seeds = generator.normal(0.2, 1, 80), np.array([-0.1, 0.0, 0.0, 0.1])
    found = estimate(of_clips[None] + of_seeds[:, None])
    clips = estimate(of_clips[None])
    half = 3.182446 * of_seeds.std(ddof=1) / 2
    assert found.value - found.low == pytest.approx(math.hypot(clips.value - clips.low, half), abs=1e-6)
    assert found.high - found.value == pytest.approx(math.hypot(clips.high - clips.value, half), abs=1e-6)


def test_equal_rows_are_not_a_finding():
    found = estimate(np.zeros((3, 20)))
    assert (found.low, found.high, found.verdict) == (0, 0, "inconclusive")


def test_one_seed_has_no_interval_over_seeds():
    assert over_seeds([0.4]).verdict == "no interval"
    assert over_seeds([0.4, 0.4]).verdict == "supported"


def test_an_interval_of_three_seeds_contains_the_truth():
    """The clips, the seeds and each run vary. A bootstrap of seeds and clips misses the truth in one experiment of six."""
    generator, hits, rounds = np.random.default_rng(7), 0, 300
    for _ in range(rounds):
        clips, seeds = generator.normal(0, 0.5, (1, 60)), generator.normal(0, 0.1, (3, 1))
        found = estimate(0.2 + clips + seeds + generator.normal(0, 0.3, (3, 60)))
        hits += found.low <= 0.2 <= found.high
    assert 0.93 * rounds <= hits <= 0.995 * rounds


def test_a_difference_of_two_intervals():
    first, second = Estimate(0.6, 0.57, 0.64, (0.5, 0.7)), Estimate(0.2, 0.18, 0.23, (0.2,))
    found = unpaired_difference(first, second)
    assert (found.low, found.high) == pytest.approx((0.4 - math.hypot(0.03, 0.03), 0.4 + math.hypot(0.04, 0.02)))
    assert found.of_seeds == pytest.approx((0.3, 0.5))
    certain = unpaired_difference(first, Estimate(0.2, 0.2, 0.2, (0.2,)))
    assert (certain.low, certain.high) == pytest.approx((0.37, 0.44))


def test_numbers_are_points():
    found = Estimate(-0.0123, -0.05, 0.0004, (-0.02, 0.003, -0.02))
    assert (signed(0.174), signed(-0.0123), signed(0.0004), signed(-0.0004)) == ("+17.4", "-1.2", "0.0", "0.0")
    assert interval(found) == "-5.0 to 0.0"
    assert spread(found) == "95% interval -5.0 to 0.0; 1 of 3 seeds ahead"
    assert spread(over_seeds([0.1])) == "one seed, so no interval"
    assert seeds_ahead(found) == "1 of 3 seeds ahead"
    assert seeds_ahead(over_seeds([0.1])) == "one seed"
    assert cell(found) == "inconclusive, -1.2"
    assert cell(Estimate(0.2, 0.1, 0.3, (0.2,))) == "**supported**, +20.0"
    assert compared("a", "b", found, "AUC") == "a is 1.2 points below b in AUC"
    assert compared("a", "b", over_seeds([0.00049]), "AUC") == "a is level with b in AUC"
