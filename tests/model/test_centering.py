"""Cells of any backbone lie on their patches: known offsets, mirrored frames, and no cell or pixel lost."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pipeline.common.config import TimmSettings
from pipeline.common.errors import SettingsError
from pipeline.model.backbones.build import build_backbone
from pipeline.model.backbones.centering import Extension, receptive_field_offset


def build(name, stride, *, centered=True):
    torch.manual_seed(0)
    settings = TimmSettings(backbone=f"timm:{name}", stride=stride)
    return build_backbone(settings, channels_in=3, centered=centered, setting="encoder.visual").eval()


@pytest.mark.parametrize(
    ("name", "stride", "offset"),
    [
        # (stride - 1) / 2: padding as TensorFlow does it, or as torchvision does it; and none, in patches
        ("tf_efficientnet_lite0", 32, 15.5),
        ("tf_efficientnet_lite0", 8, 3.5),
        ("resnet18", 32, -15.5),
        ("resnet18", 16, -7.5),
        ("test_convnext", 32, 0),
        ("test_vit", 16, 0),
    ],
)
def test_known_offsets(name, stride, offset):
    assert build(name, stride).extension.offset == offset


def test_the_offset_of_a_net_that_is_known_by_hand():
    """Two strided convolutions: with kernel 5 and padding 0 at the left, a cell starts at pixel 2i, and its center is 2i + 2."""

    class Net(nn.Module):
        def __init__(self, pad):
            super().__init__()
            self.pad, self.conv, self.pool = pad, nn.Conv2d(3, 4, 5, stride=2), nn.MaxPool2d(3, 2, padding=1)
            self.norm = nn.LayerNorm(4)

        def forward(self, x):
            x = self.conv(F.pad(x, self.pad))
            return self.pool(self.norm(x.movedim(1, -1)).movedim(-1, 1))

    for left, expected in ((0, 2 - 0.5 - 1), (1, 1 - 0.5 - 1), (3, -1 - 0.5 - 1)):
        found = receptive_field_offset(Net((left, 4 - left) * 2), size=32, channels_in=3)
        assert found == expected  # the pooling, with padding 1 at the left, moves its cells by half a pixel of 2


@pytest.mark.parametrize(
    ("offset", "before", "cropped"), [(15.5, 16, 0), (-15.5, 17, 1), (0, 0, 0), (-0.5, 0, 0), (-40.0, 24, 2), (1, 1, 0)]
)
def test_frames_are_extended_and_maps_cropped(offset, before, cropped):
    extension = Extension(32, offset)
    assert (extension.before, extension.cropped) == (before, cropped)
    assert -0.5 <= offset - before + 32 * cropped <= 0
    for side in (224, 250, 33, 31):
        frame = torch.arange(side * side, dtype=torch.float32).view(1, 1, side, side)
        extended = extension.images(frame)
        assert extended.shape[-1] % 32 == 0
        assert torch.equal(extended[..., before : before + side, before : before + side], frame)
        assert torch.equal(
            extended[0, 0], torch.from_numpy(np.pad(frame[0, 0], _widths(extended, side, before), mode="reflect"))
        )
        cells = extension.maps(extended[..., ::32, ::32], (side, side))
        assert cells.shape[-2:] == (math.ceil(side / 32),) * 2


def _widths(extended: torch.Tensor, side: int, before: int) -> tuple[int, int]:
    return before, extended.shape[-1] - side - before


@pytest.mark.parametrize(("name", "stride"), [("tf_efficientnet_lite0", 32), ("resnet18", 32), ("test_convnext", 16)])
def test_a_mirrored_frame_has_the_mirrored_map(name, stride):
    """For a blob far from the borders, and up to the half pixel by which all cells are off; uncentered nets are twice their offset off."""
    ramp = torch.arange(512.0)
    blob = torch.exp(-(((ramp - 280) / 15) ** 2)) * ((ramp - 280).abs() < 60)  # denormal numbers are slow
    frame = (blob[:, None] * blob).expand(1, 3, -1, -1)
    apart = {}
    for centered in (False, True):
        net = build(name, stride, centered=centered)
        for module in net.modules():
            if isinstance(module, nn.Conv2d):  # symmetric and positive: the blob stays where it is
                module.weight.data.fill_(1 / module.weight[0].numel())
        for module in list(net.modules()):
            for part, child in module.named_children():
                if isinstance(child, nn.MaxPool2d):
                    setattr(module, part, nn.AvgPool2d(3, 2, 1))
                elif "Norm" in type(child).__name__:
                    setattr(module, part, nn.Identity())
        with torch.no_grad():
            maps = (net(frame)[0].sum(dim=(0, 1)), net(frame.flip(3)).flip(3)[0].sum(dim=(0, 1)))
        centers = [float((seen * torch.arange(len(seen))).sum() / seen.sum()) for seen in maps]
        apart[centered] = abs(centers[0] - centers[1]) * stride
        if centered:
            assert sum(centers) / 2 * stride + (stride - 1) / 2 == pytest.approx(280, abs=0.5)
    assert apart[True] <= 1.2
    assert apart[False] == pytest.approx(0 if name == "test_convnext" else stride - 1, abs=1)


def test_every_pixel_of_the_frame_counts():
    for name, stride in (("tf_efficientnet_lite0", 32), ("resnet18", 32), ("test_convnext", 32), ("test_vit", 16)):
        net = build(name, stride)
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):  # timm starts some at 0
                module.weight.data.fill_(1)
        frame = torch.rand(1, 3, 100, 91, requires_grad=True)
        features = net(frame)
        assert features.shape[-2:] == (math.ceil(100 / stride), math.ceil(91 / stride))
        features.square().sum().backward()
        reached = frame.grad[0].abs().sum(dim=0) > 0
        assert reached.any(dim=0).all(), name
        assert reached.any(dim=1).all(), name


def test_a_net_that_does_not_pad_is_refused(monkeypatch):
    net = build("test_resnet", 32)
    monkeypatch.setattr(net.net, "forward", lambda x: [torch.zeros(1, 96, 6, 6)])
    with pytest.raises(SettingsError, match=r"timm:test_resnet.*does not pad"):
        net(torch.zeros(1, 3, 224, 224))


def test_a_net_of_one_size_names_it():
    net = build("levit_128s", 32)
    with torch.no_grad():
        assert net(torch.zeros(1, 3, 224, 224)).shape == (1, 256, 7, 7)
        with pytest.raises(SettingsError, match=r"timm:levit_128s.*224 × 224.*192 × 192.*image_size"):
            net(torch.zeros(1, 3, 192, 192))
