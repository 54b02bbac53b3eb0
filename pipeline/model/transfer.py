"""Move data between host and device without making the host wait, so that a GPU has work at all times."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn


def send(values: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of the host on a device. For a GPU it is copied to pinned memory first; otherwise the host would wait for the GPU."""
    if device.type == "cuda" and not values.is_cuda:
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


class HostBuffers(nn.Module):
    """A module whose buffers in HOST stay on the host, because a Python condition reads them at every step."""

    HOST: ClassVar[tuple[str, ...]] = ()

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> HostBuffers:
        # What `to` and its like call for every module, the only place where torch lets a module keep a buffer back.
        kept = {name: getattr(self, name) for name in self.HOST}
        super()._apply(fn, recurse)
        for name, buffer in kept.items():
            setattr(self, name, buffer)
        return self
