"""Cells, sampled features and relations (Eq. 4 to 6) against naive loops."""

import math

import pytest
import torch
from torch.nn import functional as F

from pipeline.model.equations import audio_relation, non_sounding_cells, sample_features, sounding_cells


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def naive_cells(response, keep, best):
    """The sets x of Eq. 4 and 5 with loops: one list of (row, col) per map."""
    sets = []
    for one in response:
        cells = [(y, x) for y in range(one.shape[0]) for x in range(one.shape[1]) if keep(float(one[y, x]))]
        sets.append(
            cells or [best((float(one[y, x]), y, x) for y in range(one.shape[0]) for x in range(one.shape[1]))[1:]]
        )
    return sets


def naive_mean(features, cells):
    """φ over the given cells of one V (d, h, w)."""
    total = torch.zeros(features.shape[0], dtype=features.dtype)
    for y, x in cells:
        cell = features[:, y, x]
        total += cell / math.sqrt(float((cell * cell).sum()))
    return total / len(cells)


@pytest.mark.parametrize("delta_v", [0.3, 0.7])
def test_sets_equal_the_naive_loops(delta_v):
    response = torch.rand(5, 4, 3)
    sounding = naive_cells(response, lambda r: r > delta_v, max)
    silent = naive_cells(response, lambda r: r < delta_v, min)
    for i in range(5):
        assert sounding_cells(response, delta_v=delta_v)[i].nonzero().tolist() == [list(c) for c in sounding[i]]
        assert non_sounding_cells(response, delta_v=delta_v)[i].nonzero().tolist() == [list(c) for c in silent[i]]


def test_a_cell_at_the_threshold_is_in_neither_set():
    response = torch.tensor([[[0.0, 0.5, 1.0]]])
    assert sounding_cells(response, delta_v=0.5).tolist() == [[[False, False, True]]]
    assert non_sounding_cells(response, delta_v=0.5).tolist() == [[[True, False, False]]]


def test_empty_sets_fall_back_to_the_best_and_the_worst_cell():
    response = torch.tensor([[[0.2, 0.9], [0.4, 0.1]]])
    assert sounding_cells(response, delta_v=1.0).tolist() == [[[False, True], [False, False]]]
    assert non_sounding_cells(response, delta_v=0.0).tolist() == [[[False, False], [False, True]]]
    constant = torch.zeros(1, 2, 2)
    assert sounding_cells(constant, delta_v=0.5).sum() == 1
    assert non_sounding_cells(constant, delta_v=0.0).sum() == 1


def test_the_mean_over_all_cells_equals_the_naive_loop():
    response, features = torch.rand(4, 3, 5), torch.randn(4, 6, 3, 5, dtype=torch.float64)
    positive = sample_features(features, sounding_cells(response, delta_v=0.6), cells=0, generator=generator())
    negative = sample_features(features, non_sounding_cells(response, delta_v=0.6), cells=0, generator=generator())
    for i, (up, down) in enumerate(
        zip(naive_cells(response, lambda r: r > 0.6, max), naive_cells(response, lambda r: r < 0.6, min), strict=True)
    ):
        torch.testing.assert_close(positive[i], naive_mean(features[i], up))
        torch.testing.assert_close(negative[i], naive_mean(features[i], down))


@pytest.mark.parametrize("cells", [1, 2, 3])
def test_draws_are_different_cells_of_the_set_and_uniform(cells):
    mask = torch.zeros(2, 3, 3, dtype=torch.bool)
    mask[0, 0, :] = mask[0, 1, 1] = mask[1, 2, 2] = True  # four cells, and one
    one_hot = torch.eye(9).view(1, 9, 3, 3).expand(2, 9, 3, 3)  # the feature of a cell is its own number
    rng = generator()
    drawn = torch.stack([sample_features(one_hot, mask, cells=cells, generator=rng) for _ in range(2000)])
    share = drawn[:, 0].mean(dim=0)
    torch.testing.assert_close(share, mask[0].flatten() / 4, atol=0.05, rtol=0)
    assert (drawn[:, 0].gt(0).sum(dim=1) == cells).all()
    assert (drawn[:, 0].max(dim=1).values == torch.tensor(1 / cells)).all()
    # The second set is smaller than the number of draws: all of it, with full weight.
    assert torch.equal(drawn[:, 1], torch.eye(9)[8].expand(2000, 9))


def test_draws_follow_from_the_generator():
    features, mask = torch.randn(6, 4, 5, 5), torch.rand(6, 5, 5) < 0.8
    first = sample_features(features, mask, cells=1, generator=generator(1))
    assert torch.equal(first, sample_features(features, mask, cells=1, generator=generator(1)))
    assert not torch.equal(first, sample_features(features, mask, cells=1, generator=generator(2)))


def test_the_memory_order_of_features_does_not_matter():
    features, mask = torch.randn(3, 4, 5, 5), torch.rand(3, 5, 5) < 0.8
    other = features.contiguous(memory_format=torch.channels_last)
    assert torch.equal(
        sample_features(features, mask, cells=2, generator=generator()),
        sample_features(other, mask, cells=2, generator=generator()),
    )


@pytest.mark.parametrize("cells", [0, 1, 3])
def test_gradients_reach_the_sampled_cells_alone(cells):
    features = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[[True, True], [False, True]], [[False, True], [False, False]]])
    assert torch.autograd.gradcheck(lambda f: sample_features(f, mask, cells=cells, generator=generator()), features)
    sample_features(features, mask, cells=cells, generator=generator()).sum().backward()
    assert not features.grad.abs().sum(dim=1)[~mask].any()


def test_arguments_are_checked():
    features, mask = torch.zeros(2, 3, 4, 4), torch.ones(2, 4, 4, dtype=torch.bool)
    with pytest.raises(ValueError, match="bool"):
        sample_features(features, mask.float(), cells=1, generator=generator())
    with pytest.raises(ValueError, match=r"\(2, 3, 4\)"):
        sample_features(features, mask[:, :3], cells=1, generator=generator())
    with pytest.raises(ValueError, match=r"cells.*-1"):
        sample_features(features, mask, cells=-1, generator=generator())
    with pytest.raises(ValueError, match=r"delta_v.*2"):
        non_sounding_cells(torch.zeros(1, 2, 2), delta_v=2)
    with pytest.raises(ValueError, match=r"delta_a.*-1"):
        audio_relation(torch.zeros(2, 3), delta_a=-1)


@pytest.mark.parametrize("centered", [False, True])
def test_relation_equals_the_naive_loop(centered):
    embedding = F.normalize(torch.randn(12, 3, dtype=torch.float64) + 1, dim=1)
    center = embedding.mean(dim=0) if centered else None
    vectors = [row - center if centered else row for row in embedding]
    relation = audio_relation(embedding, delta_a=0.5, center=center)
    for i, u in enumerate(vectors):
        for j, v in enumerate(vectors):
            cosine = float(u @ v) / math.sqrt(float(u @ u) * float(v @ v))
            assert bool(relation[i, j]) == (cosine >= 0.5 or i == j)


def test_relation_is_symmetric_and_contains_each_clip_itself():
    relation = audio_relation(F.normalize(torch.randn(20, 4), dim=1), delta_a=0.9)
    assert torch.equal(relation, relation.T)
    assert relation.diagonal().all()
    assert audio_relation(torch.zeros(3, 4), delta_a=0.5).equal(torch.eye(3, dtype=torch.bool))


def test_centering_separates_what_a_common_offset_hides():
    kinds = torch.eye(4)[torch.tensor([0, 0, 1, 2])] * 0.2 + torch.tensor([5.0, 5.0, 5.0, 5.0])
    kinds = F.normalize(kinds, dim=1)
    assert audio_relation(kinds, delta_a=0.95).all()
    relation = audio_relation(kinds, delta_a=0.95, center=kinds.mean(dim=0))
    assert relation.sum() == 6
    assert relation[0, 1]


@pytest.mark.parametrize("delta_a", [0.0, 1.0])
def test_a_cosine_equal_to_the_threshold_is_related(delta_a):
    """Eq. 6 has ≥. Cosines of 0 and 1 are exact in floating point."""
    embedding = torch.tensor([[1.0, 0.0], [delta_a, 1.0 - delta_a]])
    assert audio_relation(embedding, delta_a=delta_a).all()
