"""What the encoders need to know about a backbone, and how a part of it is frozen."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

from torch import nn

from pipeline.common.config import Trainable

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # RGB in 0..1, as published with torchvision's weights
IMAGENET_STD = (0.229, 0.224, 0.225)


class Backbone(nn.Module, ABC):
    """A net without a classifier: normalized images (n, c, H, W) → features (n, dim, h, w), with h = ⌈H / stride⌉.

    Attributes
    ----------
    dim : int
        Channels of the feature map.
    stride : int
        Pixels from one cell of the map to the next.
    mean, std : tuple of float
        What the net expects of its input, one value per channel in 0..1: (pixel - mean) / std.
    trainable : str
        "all", "last_stage" or "none", see `freeze`.
    """

    dim: int
    stride: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    trainable: Trainable = "all"

    @abstractmethod
    def last_stage(self) -> Iterable[nn.Parameter]:
        """Return the parameters of the last stage."""

    def fix_size(self, height: int, width: int) -> None:
        """Prepare an export: from now on, all images are of this size."""
        return

    def freeze(self, trainable: Trainable) -> None:
        """Let only a part of the net learn: all of it, its last stage, or nothing.

        The rest gets no gradients, and stays in evaluation mode under `train`, so that its BatchNorm statistics do not move either.
        """
        self.trainable = trainable
        if trainable != "all":
            self.requires_grad_(False)
        if trainable == "last_stage":
            for parameter in self.last_stage():
                parameter.requires_grad_(True)
        self.train(self.training)

    def train(self, mode: bool = True) -> Backbone:
        super().train(mode)
        if self.trainable != "all":
            for module in self.modules():
                module.training = mode and any(parameter.requires_grad for parameter in module.parameters())
        return self
