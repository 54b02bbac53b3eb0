"""Devices, and how they compute: precision, memory format, deterministic algorithms.

On a CPU, everything is float32. On CUDA, training uses the half precision that the GPU supports best, labels are computed in TF32, and
everything that is scored is computed in whole float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import nn

from pipeline.common.errors import TrainingError

Precision = Literal["ieee", "tf32"]  # torch's names for the whole of float32, and for 10 of its 23 bits


def select_device(name: str) -> torch.device:
    """Return the device named "cpu", "cuda", "cuda:1" …; "auto" uses CUDA if available.

    Raises
    ------
    TrainingError
        The name is unknown, this machine has no such device, or torch has no code for it.
    """
    try:
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "cpu"
        device = torch.device(name)
        if device.type == "mps":
            raise RuntimeError("Apple's GPUs have not been tested, and wrong results would go unnoticed")
        if device.type not in ("cpu", "cuda"):
            raise RuntimeError("unsupported type")
        # Fails now, not after minutes of work, if the device does not exist, or is too old for this build of torch.
        torch.ones(1, device=device).add_(1).item()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        if "no kernel image" in reason:
            raise TrainingError(
                f"device {name!r} is not supported by this build of torch; install another, or use cpu"
            ) from None
        raise TrainingError(f"device {name!r} cannot be used ({reason}); use auto, cpu or cuda") from None
    return device


def move(model: nn.Module, device: torch.device) -> None:
    """Move a model to a device, in place. Convolutions are faster with channels_last on CUDA, and only there (see `visual_features`)."""
    layout = torch.channels_last if device.type == "cuda" else torch.contiguous_format
    model.to(device, memory_format=layout)  # type: ignore[call-overload]  # missing in the annotations of torch


def half_precision(device: torch.device) -> torch.dtype | None:
    """Return the type that convolutions are trained in; None for float32.

    bfloat16 has the range of float32. float16, for GPUs with fast float16 but no bfloat16 (V100, T4), does not, so losses are scaled. On
    a CPU, on older GPUs or emulated, both are slower than float32.
    """
    if device.type != "cuda":
        return None
    capability = torch.cuda.get_device_capability(device)
    if capability >= (8, 0):
        return torch.bfloat16
    return torch.float16 if capability >= (7, 0) else None


def autocast(device: torch.device) -> torch.autocast:
    """Return the context of the forward pass of a training step."""
    half = half_precision(device)
    return torch.autocast(device.type, dtype=half or torch.bfloat16, enabled=half is not None)


def loss_scaler(device: torch.device) -> torch.amp.GradScaler:
    """Return what scales losses in float16, and skips a step whose gradient overflows; otherwise it does nothing."""
    return torch.amp.GradScaler(device.type, enabled=half_precision(device) is torch.float16)


@contextmanager
def float32_as(precision: Precision) -> Iterator[None]:
    """Set how CUDA computes convolutions and matrix products of float32: convolutions are in TF32 by default."""
    backends: Any = torch.backends  # type checkers do not know all of its attributes
    settings = (backends.cudnn.conv, backends.cuda.matmul)
    before = [each.fp32_precision for each in settings]
    try:
        for each in settings:
            each.fp32_precision = precision
        yield
    finally:
        for each, value in zip(settings, before, strict=True):
            each.fp32_precision = value


@contextmanager
def algorithms(device: torch.device, *, deterministic: bool) -> Iterator[None]:
    """Use deterministic algorithms; torch warns about CUDA operations that have none. Or, on CUDA only, the fastest for the current sizes."""
    if device.type == "cuda" and not deterministic:
        before = torch.backends.cudnn.benchmark
        torch.backends.cudnn.benchmark = True
        try:
            yield
        finally:
            torch.backends.cudnn.benchmark = before
        return
    memory: Any = torch.utils.deterministic  # type checkers do not know its attribute
    enabled, fill = torch.are_deterministic_algorithms_enabled(), memory.fill_uninitialized_memory
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Do not fill uninitialized memory: it is always overwritten here, so filling it only costs time.
    memory.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        memory.fill_uninitialized_memory = fill
