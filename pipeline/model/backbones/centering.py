"""Center the cells of any backbone on their patches.

With the padding of torchvision, the receptive field of a cell is centered near the top left of its patch, 15.5 pixels off at stride 32;
with that of TensorFlow near the bottom right. Upsampling, and a mirrored frame, expect it in the middle. Extending the frame by as many
pixels moves each cell to its place, to within half a pixel; cells that then lie outside the frame are cropped.

Conventions
-----------
An offset is in pixels, to the bottom right, and the same for rows and columns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

_OF_LINEAR = 1.0e-3  # mean output of a linear layer, relative to its input
_NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)


@dataclass(frozen=True)
class Extension:
    """Extends images by mirroring their border, to a multiple of the stride in all, and crops maps accordingly.

    So every cell has a whole patch, and maps have ⌈H / stride⌉ rows. Nets that pad as TensorFlow does, by the size of their input,
    then always pad alike.

    Attributes
    ----------
    stride : int
    offset : float
        Of the receptive field of a cell from the center of its patch; it is removed, rounded up to whole pixels.
    """

    stride: int
    offset: float = 0.0

    @property
    def cropped(self) -> int:
        """Rows of the map above the frame, and columns left of it."""
        return max(0, math.ceil(-math.ceil(self.offset) / self.stride))

    @property
    def before(self) -> int:
        """Pixels added at the top and at the left."""
        return math.ceil(self.offset) + self.cropped * self.stride

    def images(self, x: Tensor) -> Tensor:
        """Extend images (n, c, H, W)."""
        sizes = [int(side) for side in x.shape[-2:]]
        below, right = (self.cells(side) * self.stride - self.before - side for side in sizes)
        if not (self.before or below or right):
            return x
        # Repeating the border instead makes stripes, which are unlike any photograph.
        rows, cols = (
            _mirrored(side, self.before, after, device=x.device)
            for side, after in zip(sizes, (below, right), strict=True)
        )
        return x[..., rows[:, None], cols]

    def maps(self, features: Tensor, size: tuple[int, int]) -> Tensor:
        """Crop the maps (n, c, h, w) of extended images to the cells of images of this size."""
        rows, cols = (math.ceil(side / self.stride) for side in size)
        return features[..., self.cropped : self.cropped + rows, self.cropped : self.cropped + cols]

    def cells(self, side: int) -> int:
        """Return the rows of the map of an extended image with this height, before it is cropped."""
        return max(self.cropped + math.ceil(side / self.stride), math.ceil((self.before + side) / self.stride))


def _mirrored(side: int, before: int, after: int, *, device: torch.device) -> Tensor:
    """Return which pixels of `side` a row extends to: 2 1 | 0 1 2 | 1 0. Mirrored several times if it is short."""
    period = max(1, 2 * (side - 1))
    places = torch.arange(-before, side + after, device=device).abs() % period
    return torch.minimum(places, period - places)


@torch.enable_grad()
def receptive_field_offset(net: nn.Module, *, size: int, channels_in: int) -> float:
    """Measure how far the receptive fields of cells are from the centers of their patches, rounded to half a pixel.

    Only the structure of the net counts: its weights are overwritten. A convolution keeps its central weight only, so that a cell
    depends on a few pixels, whose centroid is measured. Linear layers, as in attention, keep little of their weight beside the
    shortcuts around them; what attention and pooling over the whole map add cancels between two cells that are symmetric about
    the center.

    Parameters
    ----------
    net : nn.Module
        (1, channels_in, size, size) → (1, c, h, w); not usable afterwards.
    size : int
        A multiple of the stride.
    channels_in : int
    """
    _simplify(net.double().eval())
    generator = torch.Generator().manual_seed(0)
    # Small, so that activations with an upper limit stay below it.
    image = 1e-3 * (0.5 + torch.rand(1, channels_in, size, size, generator=generator, dtype=torch.float64))
    features = net(image.requires_grad_())
    n = features.shape[-1]
    first, second = (n - 1) // 2, n // 2
    (features[..., first, first] + features[..., second, second]).sum().backward()
    assert image.grad is not None
    mass = image.grad[0].abs().sum(dim=0)
    place = torch.arange(size, dtype=torch.float64)
    centroid = (mass.sum(dim=0) + mass.sum(dim=1)) @ place / (2 * mass.sum())
    return round(2 * (float(centroid) - (size - 1) / 2)) / 2


def _simplify(net: nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    for parent in list(net.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.MaxPool2d):
                # It passes the gradient to one pixel only; this passes it to all of the same window.
                setattr(parent, name, nn.AvgPool2d(child.kernel_size, child.stride, child.padding, child.ceil_mode))
            elif isinstance(child, _NORMS):
                # Over equal channels, some would subtract everything.
                setattr(parent, name, nn.Identity())
    for name, parameter in net.named_parameters():
        with torch.no_grad():
            if parameter.ndim < 2:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)
                continue
            random = 0.5 + torch.rand(parameter.shape, generator=generator, dtype=parameter.dtype)
            if parameter.ndim == 4 and all(side % 2 for side in parameter.shape[2:]):
                center = torch.zeros_like(random)
                row, col = (side // 2 for side in parameter.shape[2:])
                center[..., row, col] = random[..., row, col]
                random = center
            parameter.copy_((_OF_LINEAR if parameter.ndim == 2 else 1.0) * random / random[0].sum())
