"""Our max-pooling has the values and the gradients of PyTorch's own, bit for bit."""

import pytest
import torch
from torch.nn import functional as F

from pipeline.model.backbones.pooling import max_pool

SHAPES = [(2, 24, 16, 16), (3, 5, 7, 10), (1, 1, 1, 1), (2, 3, 1, 6), (0, 4, 8, 8)]


def with_ties(shape, dtype=torch.float32):
    """Values after a ReLU, most of which are 0 or one of three others, so that the place of a maximum is ambiguous."""
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randint(-3, 4, shape, generator=generator).relu().to(dtype)


def gradient(pool, x, weights):
    x = x.clone().requires_grad_()
    (pool(x) * weights).sum().backward()
    return x.grad


def reference(x):
    return F.max_pool2d(x, 3, stride=2, padding=1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_values_and_gradients(shape, dtype):
    x = with_ties(shape, dtype)
    weights = torch.randn(reference(x).shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    with torch.inference_mode():
        assert torch.equal(max_pool(x), reference(x))
    assert torch.equal(gradient(max_pool, x, weights), gradient(reference, x, weights))


@pytest.mark.parametrize("change", [lambda x: x.transpose(2, 3), lambda x: x.to(memory_format=torch.channels_last)])
def test_other_layouts(change):
    x = change(with_ties((2, 4, 6, 9)))
    weights = torch.randn(reference(x).shape)
    assert torch.equal(max_pool(x), reference(x))
    assert torch.equal(gradient(max_pool, x, weights), gradient(reference, x, weights))


def test_the_layout_does_not_change():
    """oneDNN sums in another order in channels_last, which would change the last bits of the weights."""
    x = with_ties((2, 8, 12, 12))
    assert max_pool(x).is_contiguous()
    assert max_pool(x.requires_grad_()).is_contiguous()
    assert gradient(max_pool, x.detach(), torch.ones(2, 8, 6, 6)).is_contiguous()


def test_not_finite():
    x = with_ties((1, 2, 8, 8))
    x[0, 0, 3, 3], x[0, 1] = torch.nan, -torch.inf
    torch.testing.assert_close(max_pool(x), reference(x), rtol=0, atol=0, equal_nan=True)


def test_other_devices():
    x = torch.empty(2, 3, 8, 8, device="meta", requires_grad=True)
    pooled = max_pool(x)
    pooled.sum().backward()
    assert pooled.shape == (2, 3, 4, 4)
    assert x.grad.device.type == "meta"
