"""phi and the losses (Eq. 3 and 7) against naive loops and closed forms."""

import math

import pytest
import torch
from torch.nn import functional as F

from pipeline.model.equations import contrastive_loss, iterative_loss, phi


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def unit(*shape, dtype=torch.float64):
    return F.normalize(torch.randn(*shape, dtype=dtype), dim=1)


def random_relation(k):
    related = torch.rand(k, k) < 0.3
    return related | related.T | torch.eye(k, dtype=torch.bool)


def dot(u, v):
    return sum(float(a) * float(b) for a, b in zip(u, v, strict=True))


def naive_phi(features):
    k, d, h, w = features.shape
    pooled = torch.zeros(k, d, dtype=features.dtype)
    for i in range(k):
        for y in range(h):
            for x in range(w):
                cell = features[i, :, y, x]
                pooled[i] += cell / math.sqrt(dot(cell, cell)) / (h * w)
    return pooled


def naive_eq3(visual, audio, temperature):
    k, total = len(audio), 0.0
    for i in range(k):
        numerator = math.exp(dot(visual[i], audio[i]) / temperature)
        total += math.log(numerator / sum(math.exp(dot(visual[i], audio[j]) / temperature) for j in range(k)))
    return -total / k


def naive_eq7(positive, negative, audio, relation, temperature):
    k, total = len(audio), 0.0
    for i in range(k):
        numerator = denominator = 0.0
        for j in range(k):
            term = math.exp(dot(positive[i], audio[j]) / temperature)
            numerator += term * bool(relation[i, j])
            denominator += term + math.exp(dot(negative[i], audio[j]) / temperature)
        total += math.log(numerator / denominator)
    return -total / k


def test_phi_equals_the_naive_loop():
    features = torch.randn(3, 5, 2, 4, dtype=torch.float64)
    torch.testing.assert_close(phi(features), naive_phi(features))


def test_phi_ignores_the_length_of_a_cell():
    features = torch.randn(2, 5, 3, 3)
    torch.testing.assert_close(phi(features * (0.1 + torch.rand(2, 1, 3, 3))), phi(features))


@pytest.mark.parametrize("k", [1, 2, 7])
@pytest.mark.parametrize("temperature", [0.07, 1.0])
class TestAgainstNaiveLoops:
    def test_eq3(self, k, temperature):
        visual, audio = phi(torch.randn(k, 6, 3, 3, dtype=torch.float64)), unit(k, 6)
        assert contrastive_loss(visual, audio, temperature=temperature).item() == pytest.approx(
            naive_eq3(visual, audio, temperature), abs=1e-12
        )

    def test_eq7(self, k, temperature):
        positive, negative, audio, relation = unit(k, 6), unit(k, 6), unit(k, 6), random_relation(k)
        loss = iterative_loss(positive, audio, temperature=temperature, negative=negative, relation=relation)
        assert loss.item() == pytest.approx(naive_eq7(positive, negative, audio, relation, temperature), abs=1e-12)

    def test_eq7_without_its_switches_is_eq3_on_the_sounding_features(self, k, temperature):
        positive, audio = unit(k, 6), unit(k, 6)
        loss = iterative_loss(positive, audio, temperature=temperature)
        assert loss.item() == pytest.approx(naive_eq3(positive, audio, temperature), abs=1e-12)

    def test_eq7_with_identity_alone(self, k, temperature):
        positive, negative, audio = unit(k, 6), unit(k, 6), unit(k, 6)
        loss = iterative_loss(positive, audio, temperature=temperature, negative=negative)
        expected = naive_eq7(positive, negative, audio, torch.eye(k), temperature)
        assert loss.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("k", [2, 9])
class TestClosedForms:
    def test_equal_features(self, k):
        same = unit(1, 4).expand(k, 4)
        assert contrastive_loss(same, same, temperature=0.1).item() == pytest.approx(math.log(k))
        assert iterative_loss(same, same, temperature=0.1, negative=same).item() == pytest.approx(math.log(2 * k))
        everything = torch.ones(k, k, dtype=torch.bool)
        both = iterative_loss(same, same, temperature=0.1, negative=same, relation=everything)
        assert both.item() == pytest.approx(math.log(2))

    def test_all_related_without_negatives_is_zero(self, k):
        loss = iterative_loss(unit(k, 4), unit(k, 4), temperature=0.1, relation=torch.ones(k, k, dtype=torch.bool))
        assert loss.item() == pytest.approx(0, abs=1e-12)

    def test_orthogonal_pairs_at_a_low_temperature_cost_nothing(self, k):
        basis = torch.eye(16)[:k]
        assert contrastive_loss(basis, basis, temperature=0.01).item() == pytest.approx(0, abs=1e-6)
        assert iterative_loss(basis, basis, temperature=0.01, negative=-basis).item() == pytest.approx(0, abs=1e-6)


def test_orders():
    positive, negative, audio, relation = unit(8, 5), unit(8, 5), unit(8, 5), random_relation(8)
    intra = iterative_loss(positive, audio, temperature=0.2, negative=negative)
    inter = iterative_loss(positive, audio, temperature=0.2, relation=relation)
    neither = iterative_loss(positive, audio, temperature=0.2)
    assert inter < neither < intra
    assert inter >= 0


def test_permutation_of_the_batch_changes_nothing():
    positive, negative, audio, relation = unit(8, 5), unit(8, 5), unit(8, 5), random_relation(8)
    order = torch.randperm(8)
    loss = iterative_loss(positive, audio, temperature=0.2, negative=negative, relation=relation)
    permuted = iterative_loss(
        positive[order], audio[order], temperature=0.2, negative=negative[order], relation=relation[order][:, order]
    )
    torch.testing.assert_close(loss, permuted)
    torch.testing.assert_close(
        contrastive_loss(positive, audio, temperature=0.2),
        contrastive_loss(positive[order], audio[order], temperature=0.2),
    )


def test_a_clip_is_always_related_to_itself():
    positive, audio = unit(4, 5), unit(4, 5)
    nothing = torch.zeros(4, 4, dtype=torch.bool)
    torch.testing.assert_close(
        iterative_loss(positive, audio, temperature=0.2, relation=nothing),
        iterative_loss(positive, audio, temperature=0.2),
    )


def test_gradients():
    inputs = [unit(4, 3).requires_grad_() for _ in range(3)]
    relation = random_relation(4)
    assert torch.autograd.gradcheck(lambda v, a: contrastive_loss(v, a, temperature=0.3), inputs[:2])
    assert torch.autograd.gradcheck(
        lambda p, a, n: iterative_loss(p, a, temperature=0.3, negative=n, relation=relation), inputs
    )
    features = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(phi, features)


def test_extreme_logits_stay_finite():
    basis = torch.eye(3).requires_grad_()
    loss = iterative_loss(-basis, torch.eye(3), temperature=1e-3, negative=basis)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(basis.grad).all()
    assert loss.item() == pytest.approx(2000, rel=1e-3)


def test_half_precision_is_widened_even_under_autocast():
    positive, audio = unit(6, 4, dtype=torch.float32), unit(6, 4, dtype=torch.float32)
    exact = contrastive_loss(positive, audio, temperature=0.05)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(contrastive_loss(positive, audio, temperature=0.05), exact)
    assert contrastive_loss(positive.bfloat16(), audio.bfloat16(), temperature=0.05).dtype == torch.float32


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_temperature_is_checked(temperature):
    with pytest.raises(ValueError, match=f"temperature.*{temperature}"):
        contrastive_loss(unit(2, 3), unit(2, 3), temperature=temperature)


def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(3, 3\)"):
        contrastive_loss(unit(2, 3), unit(3, 3), temperature=0.1)
    with pytest.raises(ValueError, match="k > 0"):
        contrastive_loss(torch.zeros(0, 3), torch.zeros(0, 3), temperature=0.1)
    with pytest.raises(ValueError, match=r"relation.*\(2, 2\).*torch\.float32"):
        iterative_loss(unit(2, 3), unit(2, 3), temperature=0.1, relation=torch.ones(2, 2))
    with pytest.raises(ValueError, match=r"\(3, 3\)"):
        iterative_loss(unit(2, 3), unit(2, 3), temperature=0.1, negative=unit(3, 3))
