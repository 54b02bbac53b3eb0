"""Memory in use and memory available, in bytes: resident memory of this process on a CPU, of tensors on CUDA.

`activation_bytes` estimates what a batch needs before it is tried. On a CPU, the system kills a process that needs too much
without a message, so trying cannot tell.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import torch

from pipeline.model.encoders import AudioVisualModel


def reset_peak(device: torch.device) -> None:
    """Reset the peak that `peak` reports, where the system supports it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError):  # not Linux, or no permission: `peak` then covers the life of the process
        Path("/proc/self/clear_refs").write_text("5")


def peak(device: torch.device) -> int:
    """Return the peak memory use since `reset_peak`."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        (line,) = (line for line in lines if line.startswith("VmHWM:"))
        return 1024 * int(line.split()[1])
    except (OSError, ValueError):
        return _resident_bytes()


def activation_bytes(
    model: AudioVisualModel, *, image_size: int, log_mel_shape: tuple[int, int], batch_size: int
) -> int:
    """Return the size of the tensors that a forward pass of one batch keeps for its gradients: a lower bound of the need.

    Measured on two pairs, and scaled.
    """
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    weights = {value.untyped_storage().data_ptr() for value in model.state_dict().values()}
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        features = model.encode_frames(torch.zeros(2, 3, image_size, image_size))
        audio = model.encode_audio(torch.zeros(2, *log_mel_shape))
    del features, audio  # until here, no address is used twice
    return sum(size for address, size in kept.items() if address not in weights) * batch_size // 2


def available_bytes(device: torch.device) -> int:
    """Return the memory available for training: free on the device, or what this process can grow to."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    from distributed.system import memory_limit  # respects the limits of containers

    return min(int(psutil.virtual_memory().available) + _resident_bytes(), int(memory_limit()))


def _resident_bytes() -> int:
    return int(psutil.Process().memory_info().rss)
