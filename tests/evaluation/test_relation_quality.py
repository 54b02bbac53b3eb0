"""Precision and recall of y against labels: closed forms and a naive loop."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipeline.evaluation.relation_quality import (
    measured_clips,
    relation_of_labels,
    relation_quality,
    share_a_label,
)
from pipeline.pseudo_labels.artifact import PseudoLabels

BELL, DRUM, BOTH, NONE = frozenset({"bell"}), frozenset({"drum"}), frozenset({"bell", "drum"}), frozenset()


def labels_of(embedding, *, delta_a, clip_ids=None):
    embedding = np.asarray(embedding, dtype=np.float32)
    clip_ids = clip_ids or [f"clip-{i}" for i in range(len(embedding))]
    return PseudoLabels.from_responses(
        clip_ids,
        np.zeros((len(embedding), 2, 2), np.float32),
        embedding,
        epoch=3,
        stage="train",
        objective="iterative",
        delta_v=0.5,
        delta_a=delta_a,
        temperature=0.1,
        fingerprint="f",
        shards="s",
    )


def naive(embedding, label_sets, delta_a, *, center):
    """Count pair by pair, in Python's own floats."""
    n, d = len(embedding), len(embedding[0])
    mean = [sum(row[k] for row in embedding) / n if center else 0.0 for k in range(d)]
    vectors = [[row[k] - mean[k] for k in range(d)] for row in embedding]
    both = related = alike = 0
    for i in range(n):
        for j in range(n):
            if i == j:
                continue
            product = sum(a * b for a, b in zip(vectors[i], vectors[j], strict=True))
            y = product / math.hypot(*vectors[i]) / math.hypot(*vectors[j]) >= delta_a
            same = bool(label_sets[i] & label_sets[j])
            both, related, alike = both + (y and same), related + y, alike + same
    return both / related, both / alike, related / (n * n - n), alike / (n * n - n)


def quality(embedding, label_sets, *, delta_a, center_audio=False):
    labels = labels_of(embedding, delta_a=delta_a)
    relation = relation_of_labels(labels, labels.clip_ids, range(len(embedding)), center_audio=center_audio)
    return relation_quality(relation, share_a_label(label_sets))


def test_closed_form():
    # Two sounds in the first direction, two in the second; the third clip is labeled with the other kind.
    found = quality([[1, 0], [1, 0], [0, 1], [0, 1]], [BELL, BELL, BELL, DRUM], delta_a=0.9)
    # Related: (0,1) and (2,3); alike: (0,1), (0,2), (1,2), each in both orders.
    assert (found.precision, found.recall) == (0.5, pytest.approx(1 / 3))
    assert (found.related, found.alike) == (pytest.approx(2 / 6), 0.5)
    assert found.n_clips == 4


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("delta_a", [0.2, 0.6])
def test_agrees_with_a_naive_loop(center, delta_a):
    rng = np.random.default_rng(5)
    embedding = (rng.normal(size=(40, 5)) + 0.5).astype(np.float16).astype(np.float64)
    label_sets = [(BELL, DRUM, BOTH, frozenset({"gong"}))[i] for i in rng.integers(4, size=40)]
    found = quality(embedding, label_sets, delta_a=delta_a, center_audio=center)
    expected = naive(embedding.tolist(), label_sets, delta_a, center=center)
    assert (found.precision, found.recall, found.related, found.alike) == pytest.approx(expected)
    assert 0 < found.precision < 1
    assert 0 < found.recall < 1


def test_batches_of_random_clips_have_the_same_values_in_expectation():
    rng = np.random.default_rng(1)
    label_sets = [(BELL, DRUM)[i] for i in rng.integers(2, size=60)]
    embedding = rng.normal(size=(60, 4)) + [[1.5 * (labels == BELL), 0, 0, 0] for labels in label_sets]
    labels = labels_of(embedding, delta_a=0.5)
    relation = relation_of_labels(labels, labels.clip_ids, range(60), center_audio=True)
    alike = share_a_label(label_sets)
    others = ~np.eye(12, dtype=bool)
    both = related = 0
    for _ in range(400):
        batch = rng.permutation(60)[:12]
        y, same = relation[np.ix_(batch, batch)] & others, alike[np.ix_(batch, batch)]
        both, related = both + (y & same).sum(), related + y.sum()
    assert relation_quality(relation, alike).precision == pytest.approx(both / related, abs=0.01)


def test_the_order_of_the_clips_does_not_matter():
    rng = np.random.default_rng(2)
    embedding, label_sets = rng.normal(size=(20, 3)), [(BELL, DRUM)[i % 2] for i in range(20)]
    order = rng.permutation(20)
    mixed = quality(embedding[order], [label_sets[i] for i in order], delta_a=0.3)
    assert mixed == quality(embedding, label_sets, delta_a=0.3)


def test_labels_as_sounds_are_perfect_and_a_relation_of_all_is_chance():
    label_sets = [BELL, DRUM, BELL, DRUM, DRUM]
    perfect = quality([[1, 0] if labels == BELL else [0, 1] for labels in label_sets], label_sets, delta_a=0.9)
    assert (perfect.precision, perfect.recall) == (1.0, 1.0)
    everything = quality(np.ones((5, 2)), label_sets, delta_a=0.9)
    assert everything.precision == everything.alike == pytest.approx(8 / 20)
    assert (everything.recall, everything.related) == (1.0, 1.0)


def test_nothing_to_count_is_nan():
    lonely = quality(np.eye(3), [BELL, DRUM, frozenset({"gong"})], delta_a=0.9)
    assert math.isnan(lonely.precision)
    assert math.isnan(lonely.recall)
    assert (lonely.related, lonely.alike) == (0.0, 0.0)
    assert math.isnan(relation_quality(np.ones((1, 1), bool), np.ones((1, 1), bool)).alike)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 2\) and \(3, 3\)"):
        relation_quality(np.ones((2, 2), bool), np.ones((3, 3), bool))


def test_clips_share_a_label_if_they_have_one_in_common():
    found = share_a_label([BELL, DRUM, BOTH, NONE])
    expected = [[1, 0, 1, 0], [0, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 0]]
    np.testing.assert_array_equal(found, np.array(expected, dtype=bool))


def test_measured_clips_have_labels_and_are_spread():
    assert measured_clips([BELL, NONE, DRUM, BOTH]) == [0, 2, 3]
    assert measured_clips([BELL] * 9, most=3) == [0, 4, 8]
    assert measured_clips([NONE, NONE]) == []


def test_the_center_is_that_of_all_clips_and_not_of_those_measured():
    embedding = np.array([[1, 0.2], [1, -0.2], [1, 0.1], [-9, 0]], dtype=np.float32)
    labels = labels_of(embedding, delta_a=0.9)
    every = relation_of_labels(labels, labels.clip_ids, range(4), center_audio=True)
    some = relation_of_labels(labels, labels.clip_ids, [0, 1], center_audio=True)
    np.testing.assert_array_equal(some, every[:2, :2])
    alone = labels_of(embedding[:2], delta_a=0.9)
    assert some[0, 1]
    assert not relation_of_labels(alone, alone.clip_ids, [0, 1], center_audio=True)[0, 1]
