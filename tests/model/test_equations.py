"""Response maps and sounding regions (Eq. 1 and 2), and the examples in the docstrings of all equations."""

import doctest

import numpy as np
import pytest
import torch

from pipeline.model import equations
from pipeline.model.equations import min_max, response_map, sounding_region


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def naive_response(features, audio):
    n, d, h, w = features.shape
    response = np.zeros((n, h, w))
    for i in range(n):
        for y in range(h):
            for x in range(w):
                response[i, y, x] = sum(features[i, c, y, x] * audio[i, c] for c in range(d))
    return response


def test_response_equals_the_naive_loop():
    features, audio = torch.randn(2, 5, 3, 4, dtype=torch.float64), torch.randn(2, 5, dtype=torch.float64)
    np.testing.assert_allclose(response_map(features, audio), naive_response(features.numpy(), audio.numpy()))


def test_response_of_equal_unit_features_is_one():
    audio = torch.nn.functional.normalize(torch.randn(3, 6), dim=1)
    features = audio[:, :, None, None].expand(3, 6, 2, 2)
    torch.testing.assert_close(response_map(features, audio), torch.ones(3, 2, 2))


def test_response_moves_with_the_cells():
    features, audio = torch.randn(1, 4, 5, 5), torch.randn(1, 4)
    assert torch.equal(response_map(features.flip(3), audio), response_map(features, audio).flip(2))


def test_response_rejects_shapes_that_do_not_match():
    with pytest.raises(ValueError, match=r"\(2, 4, 3, 3\).*\(2, 5\)"):
        response_map(torch.zeros(2, 4, 3, 3), torch.zeros(2, 5))


def test_min_max_closed_form():
    response = torch.tensor([[[-1.0, 1.0], [0.0, 3.0]]])
    torch.testing.assert_close(min_max(response), torch.tensor([[[0.0, 0.5], [0.25, 1.0]]]))


def test_min_max_treats_each_map_separately_and_ignores_scale_and_offset():
    response = torch.randn(4, 6, 7)
    normalized = min_max(response)
    assert normalized.amin(dim=(1, 2)).eq(0).all()
    assert normalized.amax(dim=(1, 2)).eq(1).all()
    factors = torch.tensor([0.5, 2.0, 8.0, 100.0]).view(4, 1, 1)
    torch.testing.assert_close(min_max(response * factors - 3), normalized, atol=1e-5, rtol=1e-5)


def test_min_max_of_a_constant_map_is_zero():
    assert torch.equal(min_max(torch.full((2, 3, 3), 0.7)), torch.zeros(2, 3, 3))


def test_sounding_region_is_strictly_above_the_threshold():
    response = torch.tensor([[0.0, 0.5, 0.51, 1.0]])
    assert sounding_region(response, delta_v=0.5).tolist() == [[False, False, True, True]]
    assert not sounding_region(response, delta_v=1.0).any()


@pytest.mark.parametrize("delta_v", [-0.1, 1.1, float("nan")])
def test_sounding_region_rejects_other_thresholds(delta_v):
    with pytest.raises(ValueError, match=f"delta_v.*{delta_v}"):
        sounding_region(torch.zeros(1, 2, 2), delta_v=delta_v)


def test_the_examples_run():
    result = doctest.testmod(equations)
    assert result.failed == 0
    assert result.attempted >= 20
