"""Move data between host and device without making the host wait, so that a GPU has work at all times."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn


def send(values: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of the host on a device. For a GPU it is copied to pinned memory first; otherwise the host would wait for the GPU."""
    if device.type == "cuda" and not values.is_cuda:
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


def fetch(values: Iterable[Tensor]) -> Callable[[], list[np.ndarray]]:
    """Start to copy tensors to the host, as float32. The function that is returned waits for them: call it once the device has new work."""
    copies = [each.float() for each in values]
    device = copies[0].device
    copies = [each.to("cpu", non_blocking=True) for each in copies]
    done = torch.cuda.current_stream(device).record_event() if device.type == "cuda" else None

    def wait() -> list[np.ndarray]:
        if done is not None:
            done.synchronize()
        return [each.numpy() for each in copies]

    return wait


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
