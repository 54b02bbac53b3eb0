"""The visual and the audio ResNet, which map frames and audio to features in the same space.

Conventions
-----------
Frames are (n, 3, H, W), uint8 or floating, in 0..255; log-mels are (n, mel, time), natural logarithm. Frame features are V (n, d, h,
w), audio embeddings are a (n, d); both are float32 and L2-normalized over d. h = H / stride, where the stride is 4 (stem) times the
strides of the stages. State-dict names are torchvision's, so that published weights load.

Our choices, where the paper is silent: ImageNet normalization of frames, per-clip standardization of log-mels, the projection, the
BatchNorm, the padding, and receptive fields centered on their cells (see `ResNet`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.common.config import EncoderSettings, Padding, ResNetSettings
from pipeline.common.errors import SettingsError
from pipeline.model.pretrained import load_pretrained

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # RGB in 0..1, as published with torchvision's weights
IMAGENET_STD = (0.229, 0.224, 0.225)
STEM_PADDING = 3  # of the 7×7 stem, on each side, as in torchvision
SILENCE_STD = 1.0e-5  # a log-mel with a smaller standard deviation counts as constant and becomes zeros


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


class ResNet(nn.Module):
    """A ResNet of basic blocks without its classifier: (n, channels_in, H, W) → (n, dim, H / stride, W / stride).

    There is one difference to torchvision. With symmetric padding, a cell's receptive field is centered on the top left pixel of its
    patch, half a cell away from where upsampling (and a mirrored frame) expects it. If `centered`, the stem pads less at the top
    left and more at the bottom right. From stride 16 on this is not enough, so the stages that halve the map do the same, with
    their shortcuts. Each cell is then centered on its own patch, up to half a pixel. Away from the borders this is the same
    network on a frame shifted by some pixels, so published weights remain valid. The audio encoder pools its whole map, so it keeps
    the symmetric padding.

    Zero padding makes the cells next to the border of every frame alike, which Eq. 1 can mistake for what sounds. With `padding`
    "replicate", a frame of one color has a constant map. Max-pooling pads with -inf, which never reaches its output.
    """

    def __init__(self, settings: ResNetSettings, *, channels_in: int, centered: bool) -> None:
        super().__init__()
        channels = [settings.width * 2**stage for stage in range(4)]
        self.dim = channels[-1]
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
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


class AudioVisualModel(nn.Module):
    """The visual and the audio encoder. Create it with `build_model`.

    Attributes
    ----------
    visual, audio : ResNet
    heads : nn.ModuleDict
        Layers of the method, trained and stored with the rest of the model; empty if the method needs none.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, settings: EncoderSettings) -> None:
        super().__init__()
        self.visual = ResNet(settings.visual, channels_in=3, centered=True)
        self.audio = ResNet(settings.audio, channels_in=1, centered=False)
        self.audio_pooling: Literal["mean", "max"] = settings.audio_pooling
        self.visual_projection: nn.Module = nn.Identity()
        self.audio_projection: nn.Module = nn.Identity()
        self.dim = self.visual.dim
        if settings.embedding_dim is not None:
            self.dim = settings.embedding_dim
            self.visual_projection = nn.Conv2d(self.visual.dim, self.dim, 1)
            self.audio_projection = nn.Linear(self.audio.dim, self.dim)
        self.visual_norm = nn.BatchNorm2d(self.dim, affine=False) if settings.batch_norm else nn.Identity()
        self.audio_norm = nn.BatchNorm1d(self.dim, affine=False) if settings.batch_norm else nn.Identity()
        self.heads = nn.ModuleDict()
        self.cell_stride = cell_stride(settings.visual)
        self.register_buffer("mean", 255 * torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    def visual_features(self, frames: Tensor) -> Tensor:
        """Return raw features of the visual ResNet: (n, 3, H, W) in 0..255 → (n, channels, h, w)."""
        # Shards are channels_last. With that memory format, oneDNN's backward pass corrupts memory in narrow networks (torch 2.13,
        # CPU).
        return self.visual(((frames.float() - self.mean) / self.std).contiguous())

    def audio_features(self, log_mel: Tensor) -> Tensor:
        """Return raw features of the audio ResNet, pooled over mel and time: (n, mel, time) → (n, channels)."""
        return self.pool_audio(self.audio_maps(log_mel))

    def audio_maps(self, log_mel: Tensor) -> Tensor:
        """Return raw features of the audio ResNet before pooling: (n, mel, time) → (n, channels, mel', time')."""
        features: Tensor = self.audio(standardize(log_mel).unsqueeze(1))
        return features

    def pool_audio(self, features: Tensor) -> Tensor:
        """Pool raw audio features over mel and time (mean or max): (n, channels, mel', time') → (n, channels)."""
        return features.mean(dim=(2, 3)) if self.audio_pooling == "mean" else features.amax(dim=(2, 3))

    def project_frames(self, features: Tensor) -> Tensor:
        """Return V before its L2 normalization: raw features (n, channels, h, w) → (n, d, h, w) float32."""
        projected: Tensor = self.visual_norm(self.visual_projection(features))
        return projected.float()

    def project_audio(self, features: Tensor) -> Tensor:
        """Return a before its L2 normalization: raw pooled features (n, channels) → (n, d) float32."""
        projected: Tensor = self.audio_norm(self.audio_projection(features))
        return projected.float()

    def encode_frames(self, frames: Tensor) -> Tensor:
        """Return V of Eq. 1-7, each cell L2-normalized.

        The paper normalizes V in φ (Eq. 3-5), but does not say whether Eq. 1 uses raw or normalized features. We normalize
        everywhere: the response is then the cosine that the losses train, and a cell cannot score high only because its feature is
        long.

        Parameters
        ----------
        frames : Tensor (n, 3, H, W) uint8 or floating, 0..255

        Returns
        -------
        Tensor (n, d, h, w) float32
        """
        return F.normalize(self.project_frames(self.visual_features(frames)), dim=1)

    def encode_audio(self, log_mel: Tensor) -> Tensor:
        """Return a of Eq. 1-7, L2-normalized: (n, mel, time) floating → (n, d) float32.

        The length of a does not change Eq. 1 after min-max, but Eq. 6 requires the normalization.
        """
        return F.normalize(self.project_audio(self.audio_features(log_mel)), dim=1)


def build_model(settings: EncoderSettings) -> AudioVisualModel:
    """Create the model with random weights from torch's global generator; load pretrained visual weights if set.

    Raises
    ------
    SettingsError
        The encoders' features differ in length and there is no projection, or a kernel size is even.
    CheckpointError
        The weights of a backbone cannot be found, or do not match it.
    """
    for name, resnet in (("visual", settings.visual), ("audio", settings.audio)):
        if any(size % 2 == 0 for size in resnet.kernel_sizes):
            raise SettingsError(f"encoder.{name}.kernel_sizes must be odd, got {resnet.kernel_sizes}")
    if settings.embedding_dim is None and settings.visual.width != settings.audio.width:
        raise SettingsError(
            f"encoder: visual.width {settings.visual.width} and audio.width {settings.audio.width} give features of "
            "different lengths; make them equal or set embedding_dim"
        )
    model = AudioVisualModel(settings)
    for name, backbone in (("visual", settings.visual), ("audio", settings.audio)):
        if backbone.weights is not None:
            load_pretrained(getattr(model, name), Path(backbone.weights), setting=f"encoder.{name}.weights")
    return model


def cell_stride(settings: ResNetSettings) -> int:
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


def standardize(log_mel: Tensor) -> Tensor:
    """Scale each clip's log-mel to mean 0 and standard deviation 1, float32; a constant log-mel becomes zeros."""
    log_mel = log_mel.float()
    std, mean = torch.std_mean(log_mel, dim=(1, 2), keepdim=True, correction=0)
    return (log_mel - mean) * torch.where(std > SILENCE_STD, std.clamp_min(SILENCE_STD).reciprocal(), 0.0)


def _centering(settings: ResNetSettings) -> tuple[int, tuple[int, ...]]:
    """Return how far the stem and the first block of each stage shift to the bottom right, in pixels of their input."""
    wanted = (cell_stride(settings) - 1) // 2
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
