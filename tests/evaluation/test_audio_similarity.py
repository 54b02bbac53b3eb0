"""Percentiles of the cosines, and the recommended δ_a: on cosines and embeddings whose groups the test makes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

from pipeline.evaluation.audio_similarity import LEVELS, percentiles, recommended_delta_a, sampled_cosines
from pipeline.evaluation.relation_quality import relation_of_labels, relation_quality, share_a_label
from tests.evaluation.test_relation_quality import labels_of


def test_cosines_are_of_all_pairs_after_centering():
    embedding = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float16).astype(np.float64) + 1
    stored = labels_of(embedding, delta_a=0.5).audio_embedding.astype(np.float64)
    for center_audio in (False, True):
        vectors = stored - stored.mean(axis=0) * center_audio
        expected = [
            u @ v / math.hypot(*u) / math.hypot(*v) for i, u in enumerate(vectors) for v in vectors[i + 1 :]
        ]  # fmt: skip
        found = sampled_cosines(labels_of(embedding, delta_a=0.5), center_audio=center_audio)
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_percentiles_of_a_ramp():
    assert percentiles(np.linspace(0, 1, 101)) == pytest.approx({f"p{level}": level / 100 for level in LEVELS})
    assert all(map(math.isnan, percentiles(np.zeros(0)).values()))


@pytest.mark.parametrize("share", [0.05, 0.2])
@pytest.mark.parametrize("similar", [0.8, 1.4])
def test_it_is_where_two_groups_are_equally_probable(share, similar):
    """Dissimilar, unrelated and similar pairs, normal in Fisher's z; the closed form is where the weighted densities cross."""
    rng, n = np.random.default_rng(1), 40_000
    groups = {(-0.5, 0.12): 0.3, (0.0, 0.15): 0.7 - share, (similar, 0.2): share}
    z = np.concatenate([rng.normal(*group, size=int(weight * n)) for group, weight in groups.items()])
    grid = np.linspace(0, similar, 100_001)
    others = sum(weight * norm.pdf(grid, *group) for group, weight in list(groups.items())[:2])
    crossing = grid[np.flatnonzero(share * norm.pdf(grid, similar, 0.2) >= others)[0]]
    assert recommended_delta_a(rng.permutation(np.tanh(z))) == pytest.approx(math.tanh(crossing), abs=0.04)


def test_clips_of_a_kind_are_told_apart_without_labels():
    rng = np.random.default_rng(2)
    kinds = np.arange(300) % 6
    embedding = 3 * rng.normal(size=(6, 16))[kinds] + rng.normal(size=(300, 16))
    labels = labels_of(embedding, delta_a=0.0)
    delta_a = recommended_delta_a(sampled_cosines(labels, center_audio=True))
    alike = share_a_label([frozenset({str(kind)}) for kind in kinds])

    def f1(threshold):
        relation = relation_of_labels(labels, labels.clip_ids, range(300), center_audio=True, delta_a=threshold)
        quality = relation_quality(relation, alike)
        return 2 * quality.precision * quality.recall / (quality.precision + quality.recall)

    assert f1(delta_a) > 0.95 * max(f1(threshold) for threshold in np.linspace(0.05, 0.95, 19))
    assert f1(delta_a) > 0.9


@pytest.mark.parametrize("cosines", [np.zeros(0), np.zeros(1000), np.linspace(0, 1, 50), np.ones(500)])
def test_too_few_or_equal_cosines_suggest_nothing(cosines):
    assert math.isnan(recommended_delta_a(cosines.astype(np.float32)))


def test_it_is_never_below_zero():
    cosines = np.random.default_rng(3).normal(-0.6, 0.05, 5000)
    assert recommended_delta_a(cosines) >= 0 or math.isnan(recommended_delta_a(cosines))
