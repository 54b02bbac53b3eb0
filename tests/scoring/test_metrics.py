"""cIoU, success curve, AUC, pointing and intervals: against plain loops, in closed form, and at the edges."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics as sklearn_metrics

from pipeline.common.errors import EvaluationError
from pipeline.scoring import metrics
from pipeline.scoring.ground_truth import GroundTruth
from tests.scoring import reference

LEVELS = st.sampled_from([0.0, 0.5, 1.0])
PAIRS = st.tuples(arrays(bool, (5, 6)), arrays(np.float64, (5, 6), elements=LEVELS))


def ciou_and_iou(region, g):
    support, full = g > 0, g == 1
    return metrics.ciou_and_iou(region, GroundTruth(support, full, int(support.sum()), float(g.sum()), 0))


def loop_ciou(region, g):
    hit = mass = false_positives = 0.0
    for row in range(g.shape[0]):
        for col in range(g.shape[1]):
            mass += g[row, col]
            if region[row, col]:
                hit += g[row, col]
                false_positives += g[row, col] == 0
    return hit / (mass + false_positives)


@pytest.mark.parametrize("seed", range(5))
def test_ciou_and_iou_equal_plain_loops(seed):
    generator = np.random.default_rng(seed)
    region = generator.random((9, 7)) > generator.random()
    g = generator.choice([0.0, 0.5, 1.0], size=(9, 7))

    ciou, iou = ciou_and_iou(region, g)

    assert ciou == pytest.approx(loop_ciou(region, g), abs=1e-12)
    assert ciou == pytest.approx(float(reference.ciou(region, g)), abs=1e-12)
    assert iou == pytest.approx(loop_ciou(region, (g > 0).astype(float)), abs=1e-12)
    assert iou == pytest.approx(float(reference.iou(region, g > 0)), abs=1e-12)


def test_ciou_of_everything_is_mass_over_mass_plus_background():
    g = np.zeros((10, 10))
    g[:4] = 0.5
    g[:2] = 1.0

    assert ciou_and_iou(np.ones((10, 10), bool), g)[0] == pytest.approx(30 / (30 + 60))
    assert ciou_and_iou(g > 0, g) == (1, 1)
    # Leaving out half-agreed pixels costs their half weight; hitting them costs nothing.
    assert ciou_and_iou(g == 1, g)[0] == pytest.approx(20 / 30)
    assert ciou_and_iou(np.zeros((10, 10), bool), g) == (0, 0)


def test_iou_counts_half_agreed_pixels_fully():
    g = np.zeros((4, 4))
    g[0], g[1] = 0.5, 1
    region = np.zeros((4, 4), bool)
    region[1:3] = True

    assert ciou_and_iou(region, g)[1] == pytest.approx(4 / 12)


@settings(max_examples=60, deadline=None)
@given(PAIRS)
def test_ciou_is_a_fraction_and_moves_with_flips(pair):
    region, g = pair
    if not g.any():
        return
    values = ciou_and_iou(region, g)
    assert all(0 <= value <= 1 for value in values)
    assert values == ciou_and_iou(region[:, ::-1], g[:, ::-1])
    assert values == ciou_and_iou(region.T, g.T)


def test_success_curve_and_auc_equal_loop_and_scikit_learn():
    cious = np.random.default_rng(0).random(37)

    curve = metrics.success_curve(cious)

    expected = [sum(value >= k / 20 for value in cious) / 37 for k in range(21)]
    np.testing.assert_allclose(curve, expected, atol=1e-12)
    assert metrics.auc(curve) == pytest.approx(sklearn_metrics.auc(np.arange(21) / 20, expected), abs=1e-12)


def test_auc_is_the_trapezoid_not_the_mean():
    assert metrics.auc(metrics.success_curve([0.0])) == pytest.approx(0.025)
    assert metrics.auc(metrics.success_curve([1.0])) == pytest.approx(1.0)
    assert metrics.auc(metrics.success_curve([0.5])) == pytest.approx(0.525)
    with pytest.raises(EvaluationError, match="21 values, got 20"):
        metrics.auc(np.ones(20))


def test_thresholds_compare_exactly_unless_asked_to_repeat_public_code():
    exact = np.arange(21) / 20

    np.testing.assert_array_equal([metrics.succeeds(v, v) for v in exact], True)
    missed = [k for k in range(21) if not metrics.succeeds(exact[k], exact[k], legacy_float=True)]
    assert missed == [k for k in range(21) if k / 20 < 0.05 * k] != []
    assert 6 in missed  # a cIoU of exactly 0.3 fails "@0.3"
    curve = metrics.success_curve([0.3], legacy_float=True)
    assert (curve[5], curve[6]) == (1, 0)
    assert metrics.success_curve([0.3])[6] == 1
    # 0.7 - 0.4 is 0.29999999999999993: the same number, reached through other roundings.
    assert 0.7 - 0.4 < 0.3
    assert metrics.succeeds([0.7 - 0.4, 0.3 - 1e-9], 0.3).tolist() == [True, False]
    # Off the grid there is no quirk to repeat.
    assert metrics.succeeds([0.33, 0.32], 0.33, legacy_float=True).tolist() == [True, False]
    assert metrics.succeeds([np.nan, 1.0], 0.0).tolist() == [False, True]


def test_bootstrap_equals_a_plain_loop_over_resamples():
    values = np.random.default_rng(1).random((30, 2))

    low, high = metrics.bootstrap_interval(values, resamples=200, seed=5)

    generator = np.random.default_rng(5)
    means = np.array([values[generator.integers(0, 30, size=30)].mean(axis=0) for _ in range(200)])
    np.testing.assert_allclose(low, np.percentile(means, 2.5, axis=0), atol=1e-12)
    np.testing.assert_allclose(high, np.percentile(means, 97.5, axis=0), atol=1e-12)


def test_bootstrap_blocks_do_not_change_the_interval():
    # 30,000 clips need several blocks; the loop draws one resample at a time.
    values = np.random.default_rng(1).random(30_000)

    low, high = metrics.bootstrap_interval(values, resamples=100, seed=2)

    generator = np.random.default_rng(2)
    means = [values[generator.integers(0, 30_000, size=30_000)].mean() for _ in range(100)]
    np.testing.assert_allclose([low, high], np.percentile(means, [2.5, 97.5]), atol=1e-9)


def test_bootstrap_width_is_that_of_a_proportion():
    values = np.repeat([1.0, 0.0], [174, 75])

    low, high = metrics.bootstrap_interval(values, resamples=2000, seed=0)

    p = 174 / 249
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(p * (1 - p) / 249), rel=0.1)
    assert low < p < high
    assert metrics.bootstrap_interval(np.array([0.25])) == (0.25, 0.25)


@pytest.mark.parametrize("function", [metrics.success_curve, metrics.bootstrap_interval])
def test_nothing_to_score_is_an_error(function):
    with pytest.raises(EvaluationError, match="no clip is left"):
        function(np.zeros(0))
