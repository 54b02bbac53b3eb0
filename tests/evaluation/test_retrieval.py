"""Retrieval by sound: naive loops, closed forms, invariance, degenerate input."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipeline.evaluation import retrieval
from pipeline.evaluation.retrieval import chance_precision, neighbors, precision_at_k


def naive(embedding, query, k, *, center):
    """Sort all other clips by their cosine with the query, one at a time."""
    rows = [list(map(float, row)) for row in embedding]
    mean = [sum(column) / len(rows) for column in zip(*rows, strict=True)] if center else [0.0] * len(rows[0])
    rows = [[value - m for value, m in zip(row, mean, strict=True)] for row in rows]

    def cosine(a, b):
        return sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))

    others = [(-cosine(rows[query], row), i) for i, row in enumerate(rows) if i != query]
    return [(i, -value) for value, i in sorted(others)[:k]]


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize(("n", "d", "k"), [(7, 3, 1), (40, 5, 3), (12, 2, 11)])
def test_neighbors_are_those_of_a_sorted_list(n, d, k, center):
    embedding = np.random.default_rng(n).normal(0.3, 1, (n, d)).astype(np.float32)
    queries = [n - 1, 0, n // 2]
    indices, similarity = neighbors(embedding, queries, k=k, center=center)
    for place, query in enumerate(queries):
        expected = naive(embedding, query, k, center=center)
        assert list(indices[place]) == [i for i, _ in expected]
        np.testing.assert_allclose(similarity[place], [value for _, value in expected], atol=1e-6)


def test_clips_at_known_angles():
    degrees = np.array([0, 10, 90, 180, 350])
    radians = np.deg2rad(degrees)
    embedding = np.stack([np.cos(radians), np.sin(radians)], axis=1) * [[1], [5], [1], [0.1], [2]]
    indices, similarity = neighbors(embedding, [0, 2], k=3, center=False)
    # 10° and 350° are equally near to 0°: the earlier clip comes first.
    assert indices.tolist() == [[1, 4, 2], [1, 0, 3]]
    np.testing.assert_allclose(similarity[0], [np.cos(np.pi / 18)] * 2 + [0], atol=1e-6)


def test_centering_removes_what_all_clips_share():
    own = np.array([[1.0, 0.0], [1.0, 0.1], [-1.0, 0.0], [-1.0, -0.1]])
    shared = np.hstack([own, np.full((4, 1), 50.0)])
    indices, similarity = neighbors(shared, range(4), k=3, center=True)
    assert indices[:, 0].tolist() == [1, 0, 3, 2]
    assert similarity[:, 0].min() > 0.99 > 0 > similarity[:, 2].max()
    assert neighbors(shared, range(4), k=3, center=False)[1].min() > 0.99


@pytest.mark.parametrize("center", [False, True])
def test_another_order_of_the_clips_gives_the_same_neighbors(center):
    rng = np.random.default_rng(1)
    embedding, order = rng.normal(size=(30, 4)), rng.permutation(30)
    indices, similarity = neighbors(embedding, range(30), k=4, center=center)
    moved, moved_similarity = neighbors(embedding[order], range(30), k=4, center=center)
    np.testing.assert_array_equal(order[moved], indices[order])
    np.testing.assert_array_equal(moved_similarity, similarity[order])


def test_blocks_of_any_size_give_the_same(monkeypatch):
    embedding = np.random.default_rng(2).normal(size=(25, 6))
    embedding[5:15] = embedding[5]  # ties across the blocks
    whole = neighbors(embedding, range(25), k=6, center=True)
    for cells in (1, 75, 130):
        monkeypatch.setattr(retrieval, "CELLS", cells)
        np.testing.assert_array_equal(neighbors(embedding, range(25), k=6, center=True), whole)


def test_fewer_clips_than_asked_for_are_all_given():
    indices, similarity = neighbors(np.eye(3), [1], k=10, center=False)
    assert indices.tolist() == [[0, 2]]
    assert similarity.tolist() == [[0, 0]]


def test_one_clip_has_no_neighbors_and_no_query_finds_none():
    assert neighbors(np.ones((1, 2)), [0], k=3, center=True)[0].shape == (1, 0)
    assert neighbors(np.eye(4), [], k=3, center=True)[0].shape == (0, 3)


@pytest.mark.parametrize(("center", "cosine"), [(False, 1), (True, 0)])
def test_identical_clips_tie_and_come_in_order(center, cosine):
    embedding = np.tile(np.array([[0.1, 0.7, 0.3]], dtype=np.float32), (11, 1))
    indices, similarity = neighbors(embedding, [4, 0], k=3, center=center)
    assert indices.tolist() == [[0, 1, 2], [1, 2, 3]]
    assert (similarity == cosine).all()


def test_zero_rows_have_no_direction():
    embedding = np.array([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    indices, similarity = neighbors(embedding, [1, 0], k=2, center=False)
    assert indices.tolist() == [[0, 2], [1, 2]]
    assert similarity.tolist() == [[0, -1], [0, 0]]
    assert np.isfinite(neighbors(np.zeros((3, 2)), [0], k=2, center=True)[1]).all()


@pytest.mark.parametrize(
    ("embedding", "queries", "k", "message"),
    [
        (np.ones(3), [0], 1, r"\(3,\) must be \(n, d\)"),
        (np.eye(3), [0], 0, "k 0 >= 1"),
        (np.eye(3), [3], 1, r"queries must lie in 0 … 2, got 3"),
        (np.eye(3), [-1], 1, r"queries must lie in 0 … 2, got -1"),
    ],
)
def test_wrong_arguments_are_named(embedding, queries, k, message):
    with pytest.raises(ValueError, match=message):
        neighbors(embedding, queries, k=k, center=False)


def test_precision_counts_neighbors_that_share_a_class():
    labels = [{"cat"}, {"cat", "dog"}, {"dog"}, set(), {"cow"}]
    indices = np.array([[1, 2, 4], [0, 2, 3], [3, 0, 4], [0, 1, 2], [3, 3, 3]])
    expected = [1 / 3, 1, 0, np.nan, np.nan]
    np.testing.assert_allclose(precision_at_k(indices, range(5), labels), expected)
    np.testing.assert_allclose(precision_at_k(indices[[2, 0]], [2, 0], labels), [0, 1 / 3])


def test_precision_of_the_query_order_given():
    labels = [{"a"}, {"a"}, {"b"}]
    np.testing.assert_array_equal(precision_at_k(np.array([[0], [2]]), [1, 0], labels), [1, 0])


def test_chance_is_the_precision_of_all_other_clips():
    rng = np.random.default_rng(3)
    labels = [set(rng.choice(list("abcd"), size=rng.integers(0, 3), replace=False)) for _ in range(40)]
    others = [[j for j in range(40) if j != i and labels[j]] for i in range(40)]
    expected = [np.mean([bool(labels[i] & labels[j]) for j in others[i]]) if labels[i] else np.nan for i in range(40)]
    np.testing.assert_allclose(chance_precision(labels), expected)


@pytest.mark.parametrize("labels", [[], [set()], [{"a"}], [{"a"}, set()]])
def test_chance_is_unknown_without_another_labeled_clip(labels):
    chance = chance_precision(labels)
    assert chance.shape == (len(labels),)
    assert np.isnan(chance).all()


def test_chance_of_equal_classes():
    np.testing.assert_allclose(chance_precision([{"a"}] * 3 + [{"b"}] * 3), 2 / 5)
