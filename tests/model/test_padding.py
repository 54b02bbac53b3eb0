"""Padding of the visual encoder, and the audio embeddings that the paper's preset starts from."""

import numpy as np
import pytest
import torch

from pipeline.common.config import ResNetSettings, load_params
from pipeline.model.backbones.resnet import BasicBlock, ResNet
from pipeline.model.encoders import build_model
from tests.support.projects import ROOT

# Stride 8, like the demo's, and stride 16, like the preset's, where a stage is shifted.
SHAPES = [
    ResNetSettings(width=4, blocks=(1, 1, 1, 1), strides=(1, 2, 1, 1)),
    ResNetSettings(width=4, blocks=(1, 1, 1, 1), strides=(1, 2, 2, 1)),
]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def nets(settings):
    """Return nets with zero and with replicate padding, and the same weights."""
    zeros, replicate = (
        ResNet(settings.model_copy(update={"padding": padding}), channels_in=3, centered=True).double().eval()
        for padding in ("zeros", "replicate")
    )
    replicate.load_state_dict(zeros.state_dict())
    return zeros, replicate


@pytest.mark.parametrize("settings", SHAPES, ids=["stride 8", "stride 16"])
def test_a_constant_frame_has_a_constant_map_only_with_replicate_padding(settings):
    zeros, replicate = nets(settings)
    frame = torch.tensor([0.3, -1.2, 0.8], dtype=torch.float64).view(1, 3, 1, 1).expand(1, 3, 128, 128)
    with torch.no_grad():
        seen, without = replicate(frame)[0], zeros(frame)[0]
    torch.testing.assert_close(seen, seen[:, :1, :1].expand_as(seen))
    middle = without.shape[1] // 2
    assert (without[:, 0, 0] - without[:, middle, middle]).abs().max() > 0.1 * without.abs().max()


@pytest.mark.parametrize("settings", SHAPES, ids=["stride 8", "stride 16"])
def test_away_from_the_border_the_padding_does_not_matter(settings):
    zeros, replicate = nets(settings)
    frame = torch.randn(1, 3, 512, 512, dtype=torch.float64)
    with torch.no_grad():
        first, second = zeros(frame), replicate(frame)
    inside = slice(first.shape[2] // 2 - 2, first.shape[2] // 2 + 2)
    torch.testing.assert_close(first[..., inside, inside], second[..., inside, inside])
    assert not torch.allclose(first[..., 0, :], second[..., 0, :])


@pytest.mark.parametrize("shift", [0, 1])
def test_a_block_repeats_the_border(shift):
    """Against a convolution by hand, on an input that NumPy extends by repeating its edge."""
    block = BasicBlock(2, 3, stride=2, kernel_size=3, shift=shift, padding_mode="replicate").double().eval()
    x = torch.randn(1, 2, 6, 6, dtype=torch.float64)

    def convolve(values, conv, *, stride, origin):
        weight = conv.weight.detach().numpy()
        side = weight.shape[-1]
        wide = np.pad(values, ((0, 0), (4, 4), (4, 4)), mode="edge")  # index 4 is the first pixel
        n = values.shape[1] // stride
        out = np.zeros((len(weight), n, n))
        for row in range(n):
            for col in range(n):
                top, left = (4 + stride * at + origin - side // 2 for at in (row, col))
                patch = wide[:, top : top + side, left : left + side]
                out[:, row, col] = (weight * patch).sum(axis=(1, 2, 3))
        return out / np.sqrt(1 + 1e-5)  # an untrained BatchNorm

    inner = np.maximum(convolve(x[0].numpy(), block.conv1, stride=2, origin=shift), 0)
    shortcut = convolve(x[0].numpy(), block.downsample[0], stride=2, origin=shift)
    expected = np.maximum(convolve(inner, block.conv2, stride=1, origin=0) + shortcut, 0)
    with torch.no_grad():
        np.testing.assert_allclose(block(x)[0].numpy(), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("changes", "low", "high"),
    [({}, -0.2, 0.1), ({"embedding_dim": None, "batch_norm": False, "audio_pooling": "max"}, 0.9, 1.0)],
    ids=["preset", "without projection and normalization"],
)
def test_the_papers_preset_starts_with_different_audio_embeddings(changes, low, high):
    """Where all audio is alike, all clips share one map, whatever the frame; `benchmarks/preset_on_mosaics.py` trains both."""
    encoder = load_params(ROOT / "params.yaml").training["soundnet_flickr"].encoder
    model = build_model(encoder.without_weights.model_copy(update=changes)).train()
    with torch.no_grad():
        audio = model.encode_audio(torch.randn(12, 64, 101) + torch.randn(12, 64, 1))  # 12 spectra
    cosines = (audio @ audio.T)[~torch.eye(12, dtype=torch.bool)]
    assert low < cosines.mean() < high
