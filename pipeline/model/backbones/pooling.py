"""Max-pooling that is fast on a CPU, with the values and gradients of PyTorch's own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_SIZE, _STRIDE, _PADDING, _DILATION = [3, 3], [2, 2], [1, 1], [1, 1]


def max_pool(x: Tensor) -> Tensor:
    """Return the maxima of 3×3 windows with stride 2, borders padded with -inf: (n, c, h, w) → (n, c, ⌈h/2⌉, ⌈w/2⌉)."""
    if x.device.type != "cpu":
        return F.max_pool2d(x, _SIZE, _STRIDE, _PADDING)
    if x.requires_grad:
        pooled: Tensor = _DifferentiableMaxPool.apply(x)
        return pooled
    return F.max_pool2d(_channels_last(x), _SIZE, _STRIDE, _PADDING).contiguous()


class _DifferentiableMaxPool(torch.autograd.Function):
    # Only the forward pass is faster in channels_last. The gradient keeps the layout of the layers before it, so that
    # their sums, and with them the weights, do not change in the last bits.

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        pooled, places = F.max_pool2d_with_indices(_channels_last(x), _SIZE, _STRIDE, _PADDING)
        ctx.save_for_backward(x, places.contiguous())
        return pooled.contiguous()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        x, places = ctx.saved_tensors
        result: Tensor = torch.ops.aten.max_pool2d_with_indices_backward(
            *gradients, x, _SIZE, _STRIDE, _PADDING, _DILATION, False, places
        )
        return result


def _channels_last(x: Tensor) -> Tensor:
    # PyTorch's max-pooling uses vector instructions in this layout only: it takes a quarter of the time, copies included.
    return x.contiguous(memory_format=torch.channels_last)
