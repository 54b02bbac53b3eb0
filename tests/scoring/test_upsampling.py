"""Enlarged maps against torch's own interpolation, and the thresholds read from them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.scoring.protocols import PROTOCOLS, get_protocol
from pipeline.scoring.upsampling import UpsampledMap, normalize, sounding_pixels, upsampling_key


def upsampled_map(raw, protocol):
    return UpsampledMap(normalize(raw[None], protocol.normalization), 0, protocol)


@pytest.mark.parametrize("name", ["paper256", "lvs224-median", "ezvsl224-median", "ezvsl224-validate", "slavc224"])
@pytest.mark.parametrize("shape", [(16, 16), (7, 7), (5, 9), (64, 64), (224, 224)])
def test_enlarging_is_torch_interpolation(name, shape):
    protocol = get_protocol(name)
    raw = np.random.default_rng(0).normal(size=shape)

    upsampled = upsampled_map(raw, protocol)

    expected = torch.nn.functional.interpolate(
        torch.from_numpy((raw - raw.min()) / (raw.max() - raw.min()))[None, None],
        size=(protocol.size, protocol.size),
        mode=protocol.interpolation,
        align_corners=protocol.align_corners,
    )[0, 0].numpy()
    np.testing.assert_allclose(upsampled.values, expected, atol=1e-6)
    assert upsampled.values.dtype == np.float32


def test_order_statistics_are_those_of_the_sorted_pixels():
    upsampled = upsampled_map(np.random.default_rng(0).normal(size=(14, 14)), get_protocol("lvs224-median"))
    in_order = np.sort(upsampled.values.ravel())

    for index in (0, 1, 25088, 50175):
        assert upsampled.order_statistic(index) == in_order[index]
    assert upsampled.maximum == in_order[-1]
    np.testing.assert_array_equal(upsampled.values.ravel()[upsampled.peak], in_order[-1])


def test_confidence_is_the_top_quarter_on_the_scale_of_the_raw_map():
    raw = np.random.default_rng(0).uniform(-0.3, 0.8, size=(7, 7))
    upsampled = upsampled_map(raw, get_protocol("slavc224"))

    full = torch.nn.functional.interpolate(
        torch.from_numpy(raw)[None, None], size=(224, 224), mode="bicubic", align_corners=True
    )
    expected = np.sort((full.numpy().ravel() + 1) / 2)[-224 * 224 // 4 :].mean()
    assert upsampled.confidence == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("low", "high"), [(-0.3, 0.8), (0.1, 0.8), (-0.9, -0.2)])
def test_confidence_of_a_map_that_is_cut_off_at_zero(low, high):
    raw = np.random.default_rng(0).uniform(low, high, size=(7, 7))
    upsampled = upsampled_map(raw, replace(get_protocol("slavc224"), normalization="relu-max"))

    full = torch.nn.functional.interpolate(
        torch.from_numpy(np.maximum(raw, 0))[None, None], size=(224, 224), mode="bicubic", align_corners=True
    )
    expected = np.sort((full.numpy().ravel() + 1) / 2)[-224 * 224 // 4 :].mean()
    assert upsampled.confidence == pytest.approx(expected, abs=1e-6)


def test_a_given_region_is_taken_as_it_is():
    region = np.array([[True, False], [False, False]])
    expected = np.zeros((224, 224), bool)
    expected[:112, :112] = True

    for protocol in (p for p in PROTOCOLS.values() if p.size == 224):
        np.testing.assert_array_equal(sounding_pixels(upsampled_map(region, protocol), protocol, 7), expected)


@pytest.mark.parametrize(
    ("name", "share"),
    [("paper256", 0), ("lvs224-median", 0), ("ezvsl224-median", 1), ("sspl224", 0), ("sslalignment224-adaptive", 0)],
)
@pytest.mark.parametrize("level", [-2.0, 0.0, 0.7])
def test_flat_map_predicts_nothing_or_everything(name, share, level):
    protocol = get_protocol(name)
    upsampled = upsampled_map(np.full((7, 7), level), protocol)

    assert upsampled.flat
    assert sounding_pixels(upsampled, protocol, 100).mean() == share


def test_flat_map_under_the_rule_that_cuts_off_negatives():
    protocol = get_protocol("mssl256")

    assert sounding_pixels(upsampled_map(np.full((4, 4), 0.2), protocol), protocol, 1).all()
    assert not sounding_pixels(upsampled_map(np.full((4, 4), -0.2), protocol), protocol, 1).any()
    negative = upsampled_map(np.array([[-1.0, -2.0], [-3.0, -4.0]]), protocol)
    assert negative.flat
    assert not sounding_pixels(negative, protocol, 1).any()


def test_oracle_rule_without_ground_truth_falls_back_to_the_median():
    protocol = get_protocol("sslalignment224-adaptive")
    upsampled = upsampled_map(np.random.default_rng(0).random((7, 7)), protocol)

    assert sounding_pixels(upsampled, protocol, 0).mean() == pytest.approx(0.5, abs=1e-3)
    # The k-th largest value is not above itself.
    assert sounding_pixels(upsampled, protocol, 1000).sum() == 999


def test_protocols_share_what_they_can():
    assert upsampling_key(get_protocol("paper256")) == upsampling_key(get_protocol("paper256-median"))
    assert upsampling_key(get_protocol("paper256")) != upsampling_key(get_protocol("mssl256"))
    assert len({upsampling_key(p) for p in PROTOCOLS.values()}) == 6
