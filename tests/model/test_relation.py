"""Relations by share: the most similar pairs, against a naive sort of all pairs."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from pipeline.model import relation as module
from pipeline.model.equations import audio_relation
from pipeline.model.relation import cosines_of_pairs, equivalent_delta_a, relation_by_share, share_threshold


def embeddings(n, d=3, *, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.5


def naive_cosines(embedding, center=None):
    """Return {(i, j): cosine}, i < j, in Python's own floats."""
    vectors = [
        [float(x) - (float(center[k]) if center is not None else 0.0) for k, x in enumerate(row)] for row in embedding
    ]
    return {
        (i, j): sum(a * b for a, b in zip(vectors[i], vectors[j], strict=True)) / math.hypot(*vectors[i]) / math.hypot(*vectors[j])
        for i, j in itertools.combinations(range(len(vectors)), 2)
    }  # fmt: skip


@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("share", [0.02, 0.25, 0.5, 0.9])
def test_the_most_similar_pairs_are_related(share, centered):
    embedding = embeddings(12)
    center = embedding.mean(dim=0) if centered else None
    cosines = naive_cosines(embedding, center)
    ranked = sorted(cosines, key=cosines.get, reverse=True)
    expected = set(ranked[: math.floor(share * 66 + 0.5)])
    found = relation_by_share(embedding, share=share, center=center)
    assert {(i, j) for i, j in cosines if found[i, j]} == expected
    assert torch.equal(found, found.T)
    assert found.diagonal().all()
    np.testing.assert_allclose(cosines_of_pairs(embedding, center=center), list(cosines.values()), rtol=1e-12)


def test_pairs_as_similar_as_the_last_one_are_related_too():
    embedding = torch.eye(3)[[0, 0, 1, 1, 2, 2]]  # three pairs of cosine 1, and twelve of 0
    for share in (1 / 15, 3 / 15):
        assert int(relation_by_share(embedding, share=share).sum()) == 6 + 2 * 3
    assert relation_by_share(embedding, share=4 / 15).all()


def test_less_than_half_a_pair_relates_nothing():
    assert torch.equal(relation_by_share(embeddings(4), share=0.08), torch.eye(4, dtype=torch.bool))
    assert int(relation_by_share(embeddings(4), share=0.09).sum()) == 4 + 2
    assert torch.equal(relation_by_share(embeddings(1), share=0.9), torch.eye(1, dtype=torch.bool))


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1])
def test_a_share_outside_of_0_to_1_is_refused(share):
    with pytest.raises(ValueError, match=rf"share.*{share}"):
        share_threshold(torch.zeros(3), share=share)


class TestEquivalentThreshold:
    @pytest.mark.parametrize("center_audio", [False, True])
    def test_eq_6_with_it_relates_the_share_of_all_pairs(self, center_audio):
        embedding = embeddings(60).float()
        delta_a = equivalent_delta_a(embedding, share=0.1, center_audio=center_audio)
        center = embedding.mean(dim=0) if center_audio else None
        related = audio_relation(embedding, delta_a=delta_a, center=center)
        assert torch.equal(related, relation_by_share(embedding, share=0.1, center=center))
        assert int(related.sum()) == 60 + 2 * 177

    def test_many_clips_are_sampled(self, monkeypatch):
        monkeypatch.setattr(module, "SAMPLE", 200)
        embedding = embeddings(2000).float()
        delta_a = equivalent_delta_a(embedding, share=0.1, center_audio=True)
        cosines = cosines_of_pairs(embedding, center=embedding.mean(dim=0))
        assert float((cosines >= delta_a).double().mean()) == pytest.approx(0.1, abs=0.01)

    def test_it_is_a_threshold_of_eq_6(self):
        opposite = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
        assert equivalent_delta_a(opposite, share=0.9, center_audio=False) == 0.0
        assert equivalent_delta_a(opposite, share=0.01, center_audio=False) == 1.0
