"""Memory that training takes, and that there is.

Conventions
-----------
Bytes. On a CPU memory is what this process holds (resident), on CUDA what the device's tensors take.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil  # type: ignore[import-untyped]
import torch
from torch import Tensor

from pipeline.common.config import TrainingSettings
from pipeline.methods import build_method
from pipeline.model.encoders import build_model
from pipeline.training.batches import READ_AHEAD, Batch

# Measured on a CPU, with encoders of 4 and 90 MB and batches of 4 to 96; within a tenth.
_WORKSPACE = (
    1.1  # what the layers keep for the backward pass, with gradients and scratch memory, as a multiple of itself
)
_RUNTIME = 300_000_000  # the libraries' own, and what the allocator holds back
_COPIES = (
    10  # of the weights: themselves, gradients, two moments, and weights and moments twice when state.pt is written
)


def forecast_bytes(settings: TrainingSettings, *, image_size: int, log_mel_shape: tuple[int, int]) -> int:
    """Estimate the memory that training takes beyond that of this process, without running a whole batch.

    What the layers keep of two pairs for the backward pass is counted, and is proportional to the batch.

    Parameters
    ----------
    settings : TrainingSettings
        Published weights are not read.
    image_size : int
        Pixels.
    log_mel_shape : tuple of int
        (mel, time).
    """
    with torch.random.fork_rng(devices=[]):
        model = build_model(settings.encoder.model_copy(update={"visual_weights": None}))
        frames = torch.randint(0, 256, (2, 3, image_size, image_size), dtype=torch.uint8)
        log_mel = torch.randn(2, *log_mel_shape)
    weights = {value.untyped_storage().data_ptr() for value in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    batch = Batch(frames, log_mel, np.arange(2), None, None, None, torch.Generator())
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = build_method("initial", settings.iterate).loss(model, batch)
    del loss  # not before: the tensors that it keeps alive cannot share an address
    inputs = (READ_AHEAD + 2) * (frames.nbytes + log_mel.nbytes) + 4 * frames.nbytes  # queued, and as float32
    parameters = sum(value.nbytes for value in model.parameters())
    per_pair = (_WORKSPACE * sum(kept.values()) + inputs) / 2
    return round(settings.batch_size * per_pair + _COPIES * parameters + _RUNTIME)


def reset_peak(device: torch.device) -> None:
    """Start to measure the peak of memory anew, where the system can."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError):  # not Linux, or not allowed: the peak is then that of the whole process
        Path("/proc/self/clear_refs").write_text("5")


def peak(device: torch.device) -> int:
    """Return the most memory in use since `reset_peak`, bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        (line,) = (line for line in lines if line.startswith("VmHWM:"))
        return 1024 * int(line.split()[1])
    except (OSError, ValueError):
        return resident_bytes()


def resident_bytes() -> int:
    """Return the memory that this process has now, bytes."""
    return int(psutil.Process().memory_info().rss)


def available_bytes(device: torch.device) -> int:
    """Return the memory that training can have: what is free on the device, or what this process can grow to."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    from distributed.system import memory_limit  # knows the limits of containers

    return min(int(psutil.virtual_memory().available) + resident_bytes(), int(memory_limit()))
