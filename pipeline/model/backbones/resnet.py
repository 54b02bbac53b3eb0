"""Our ResNet, the paper's backbone: basic blocks, with receptive fields that are centered on their cells.

State-dict names are torchvision's, so that published weights load. Kernel sizes, the padding and the centering are ours (see `ResNet`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.common.config import Padding, ResNetSettings
from pipeline.model.backbones.interface import IMAGENET_MEAN, IMAGENET_STD, Backbone
from pipeline.model.backbones.pooling import max_pool

STEM_PADDING = 3  # of the 7×7 stem, on each side, as in torchvision


class ReplicateConv2d(nn.Conv2d):
    """A convolution that repeats the border of its input instead of padding zeros."""

    def forward(self, x: Tensor) -> Tensor:
        vertical, horizontal = (int(side) for side in self.padding)
        x = _pad(x, (horizontal, horizontal, vertical, vertical), "replicate")
        return F.conv2d(x, self.weight, self.bias, self.stride)


class BasicBlock(nn.Module):
    """Two convolutions and a shortcut (He et al. 2016), with a configurable kernel size.

    A `shift` of 1 moves the receptive field of both branches one pixel to the bottom right. `padding_mode` is "zeros" or "replicate".
    """

    def __init__(
        self,
        channels_in: int,
        channels: int,
        *,
        stride: int,
        kernel_size: int,
        shift: int = 0,
        padding_mode: Padding = "zeros",
    ) -> None:
        super().__init__()
        padding = kernel_size // 2
        self.padding_mode = padding_mode
        # Padding (left, right, top, bottom) of conv1 and of the shortcut; a negative value crops.
        self.moved = [(p - shift, p + shift) * 2 for p in (padding, 0)] if shift else None
        own = 0 if shift else padding
        kind = nn.Conv2d if padding_mode == "zeros" else ReplicateConv2d
        conv = partial(kind, kernel_size=kernel_size, bias=False)
        self.conv1 = conv(channels_in, channels, stride=stride, padding=own)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = conv(channels, channels, padding=padding)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = None
        if stride != 1 or channels_in != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride=stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        x, shortcut = (x, x) if self.moved is None else (_pad(x, padding, self.padding_mode) for padding in self.moved)
        if self.downsample is not None:
            shortcut = self.downsample(shortcut)
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(x)) + shortcut, inplace=True)


class ResNet(Backbone):
    """A ResNet of basic blocks without its classifier: (n, channels_in, H, W) → (n, dim, H / stride, W / stride).

    There is one difference to torchvision. With symmetric padding, a cell's receptive field is centered on the top left pixel of its
    patch, half a cell away from where upsampling (and a mirrored frame) expects it. If `centered`, the stem pads less at the top
    left and more at the bottom right. From stride 16 on this is not enough, so the stages that halve the map do the same, with
    their shortcuts. Each cell is then centered on its own patch, to within half a pixel. Away from the borders this is the same
    network on a frame shifted by some pixels, so published weights remain valid. The audio encoder pools its whole map, so it keeps
    the symmetric padding.

    Zero padding makes the cells next to the border of every frame alike, which Eq. 1 can mistake for what sounds. With `padding`
    "replicate", a frame of one color has a constant map. Max-pooling pads with -inf, which never reaches its output.
    """

    def __init__(self, settings: ResNetSettings, *, channels_in: int, centered: bool) -> None:
        super().__init__()
        channels = [settings.width * 2**stage for stage in range(4)]
        self.dim, self.stride = channels[-1], resnet_stride(settings)
        self.mean, self.std = (IMAGENET_MEAN, IMAGENET_STD) if channels_in == 3 else ((0.0,), (1.0,))
        offset, shifts = _centering(settings) if centered else (0, (0, 0, 0, 0))
        before, after = STEM_PADDING - offset, STEM_PADDING + offset
        self.padding_mode = settings.padding
        self.padding = (before, after, before, after)
        self.conv1 = nn.Conv2d(channels_in, settings.width, 7, stride=2, bias=False)
        self.bn1 = nn.BatchNorm2d(settings.width)
        inputs = [settings.width, *channels[:-1]]
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            _stage(settings, i, inputs[i], channels[i], shifts[i]) for i in range(4)
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(_pad(x, self.padding, self.padding_mode))), inplace=True)
        return self.layer4(self.layer3(self.layer2(self.layer1(max_pool(x)))))

    def last_stage(self) -> Iterator[nn.Parameter]:
        return self.layer4.parameters()


def resnet_stride(settings: ResNetSettings) -> int:
    """Return the number of pixels from one cell of the map to the next."""
    return 4 * math.prod(settings.strides)


def receptive_field(settings: ResNetSettings) -> int:
    """Return the side, in pixels, of the square of the input that a cell of the map depends on.

    From random weights, the model only learns to localize if this is about the size of an object: if every cell sees the whole
    object, Eq. 3 rewards all cells equally. For a plain ResNet-18 it is several hundred pixels.
    """
    size, jump = 11, 4  # the stem: 7×7 with stride 2, then 3×3 with stride 2
    for blocks, stride, kernel in zip(settings.blocks, settings.strides, settings.kernel_sizes, strict=True):
        size += (kernel - 1) * jump
        jump *= stride
        size += (kernel - 1) * jump * (2 * blocks - 1)
    return size


def _centering(settings: ResNetSettings) -> tuple[int, tuple[int, ...]]:
    """Return how far the stem and the first block of each stage shift to the bottom right, in pixels of their input."""
    wanted = (resnet_stride(settings) - 1) // 2
    stem = min(wanted, STEM_PADDING)
    wanted, jump, shifts = wanted - stem, 4, []
    for stride in settings.strides:
        shifts.append(int(stride > 1 and wanted >= jump))
        wanted -= shifts[-1] * jump
        jump *= stride
    return stem, tuple(shifts)


def _stage(settings: ResNetSettings, index: int, channels_in: int, channels: int, shift: int) -> nn.Sequential:
    block = partial(BasicBlock, kernel_size=settings.kernel_sizes[index], padding_mode=settings.padding)
    first = block(channels_in, channels, stride=settings.strides[index], shift=shift)
    return nn.Sequential(first, *(block(channels, channels, stride=1) for _ in range(settings.blocks[index] - 1)))


def _pad(x: Tensor, padding: Sequence[int], mode: Padding) -> Tensor:
    """Pad (left, right, top, bottom); negative values, only at the left and the top, crop."""
    if mode == "zeros":
        return F.pad(x, padding)
    left, right, top, bottom = padding
    x = x[..., max(0, -top) :, max(0, -left) :]
    # Not F.pad: on CUDA, its deterministic backward pass is very slow.
    x = torch.cat([x[..., :1]] * left + [x] + [x[..., -1:]] * right, dim=-1)
    return torch.cat([x[..., :1, :]] * top + [x] + [x[..., -1:, :]] * bottom, dim=-2)
