"""Training in several processes (ranks), one for each device, with the results of a single one.

Each rank encodes its part of a batch. The features of all parts are gathered right after the backbones, so every rank computes the loss of
the whole batch, and no method knows of ranks. Before that, BatchNorm uses the statistics of the whole batch; afterward, the gradients are
averaged. Order, augmentation and sampled cells are drawn for the whole batch. So the result depends on the number of ranks only in the last
bits, because sums are added in another order.

The first rank alone writes and reports. In a single process, all functions here return their argument, or the obvious.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pipeline.common.console import be_silent
from pipeline.common.errors import TrainingError

# The first rank works alone at times: it verifies a finished run, or clusters the training set for DSOL. A rank that died is noticed at
# once, by its closed connections or by what started it; this is only for one that hangs.
TIMEOUT = timedelta(hours=2)
SPEAKS_FIRST_S = 30  # how long a rank with an error waits to be ended, if another one reports an error

Result = TypeVar("Result")


def launched() -> bool:
    """Return whether this process was started as one of several ranks, by torchrun or `run_as_ranks`."""
    return "RANK" in os.environ and "MASTER_ADDR" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def n_ranks() -> int:
    """Return the number of ranks that have `joined`; 1 in a single process."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first() -> bool:
    """Return whether this is the first rank, which writes and reports; True in a process that has not `joined` others."""
    return _rank() == 0


@contextmanager
def joined(device: str) -> Iterator[str]:
    """Connect the ranks that were started together, and yield the name of this rank's device: cuda:N of the N-th rank of a machine.

    If several ranks raise an error, the one that was first reports it, because the others have probably lost their connection to it.

    Raises
    ------
    TrainingError
        The device is one of several GPUs, or the machine has fewer GPUs than ranks.
    """
    if not launched():
        yield device
        return
    device = _own_device(device)
    store, rank, size = next(iter(dist.rendezvous("env://")))
    backend = "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    if not is_first():
        be_silent()
    try:
        yield device
    except Exception:
        if store.add("soundspot/errors", 1) > 1:
            time.sleep(SPEAKS_FIRST_S)
        raise
    with _connected():
        dist.barrier()
    dist.destroy_process_group()


def check_batch_size(batch_size: int, size: int) -> None:
    """Raise TrainingError if a batch cannot be divided among so many ranks."""
    if batch_size % size:
        raise TrainingError(
            f"batch_size {batch_size} cannot be divided among {size} processes; choose a number of processes that divides it"
        )


def own_part(batch_size: int) -> slice:
    """Return which pairs of a batch this rank encodes."""
    size = batch_size // n_ranks()
    return slice(_rank() * size, (_rank() + 1) * size)


def own_clips(n_clips: int, batch_size: int) -> range:
    """Return the clips whose maps this rank computes: consecutive whole batches, so that batches are those of a single process."""
    n = -(-n_clips // batch_size)
    first, stop = (batch_size * (n * rank // n_ranks()) for rank in (_rank(), _rank() + 1))
    return range(first, min(stop, n_clips))


def gather(features: Tensor) -> Tensor:
    """Return the features (k, …) of the whole batch, from the parts of all ranks; differentiable."""
    return features if n_ranks() == 1 else _Gather.apply(features)


def share_batch_norm(*nets: nn.Module) -> None:
    """Let BatchNorm in these networks use the statistics of the whole batch. For networks before `gather`, in place."""
    if n_ranks() == 1:
        return
    for net in nets:
        for module in net.modules():
            if isinstance(module, _BatchNorm):
                kind: Any = type(module)
                module.__class__ = _shared(kind)


def average_gradients(model: nn.Module) -> None:
    """Replace the gradients by their mean over all ranks.

    What comes after `gather` has the same gradient on each rank. Before it, gradients are those of the own part of the batch, times the
    number of ranks.
    """
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    if n_ranks() == 1 or not gradients:
        return
    # One large message is faster than many small ones.
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    with _connected():
        dist.all_reduce(flat)
    flat /= n_ranks()
    for gradient, mean in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def copy_of_first(model: nn.Module) -> None:
    """Copy the weights and buffers of the first rank to all others."""
    if n_ranks() == 1:
        return
    with _connected(), torch.no_grad():
        for value in (*model.parameters(), *model.buffers()):
            # Contiguous, because a message has no memory format.
            sent = value.detach().contiguous()
            dist.broadcast(sent, src=0)
            value.copy_(sent)


def by_first(function: Callable[[], Result]) -> Result:
    """Call a function on the first rank only, and return its result on all, which wait for it. The result must be picklable."""
    if n_ranks() == 1:
        return function()
    found: list[Any] = [function() if is_first() else None]
    with _connected():
        dist.broadcast_object_list(found, src=0)
    result: Result = found[0]
    return result


def on_all(condition: bool) -> bool:
    """Return whether a condition holds on all ranks."""
    if n_ranks() == 1:
        return condition
    answers: list[Any] = [None] * n_ranks()
    with _connected():
        dist.all_gather_object(answers, condition)
    return all(answers)


def joined_arrays(arrays: Sequence[np.ndarray] | None) -> list[np.ndarray]:
    """Return the arrays of all ranks, each concatenated along its first axis; an empty list but for the first rank.

    `arrays` is None on a rank that has none.
    """
    if n_ranks() == 1:
        return list(arrays or ())
    parts: list[Any] | None = [None] * n_ranks() if is_first() else None
    with _connected():
        dist.gather_object(arrays, parts, dst=0)
    found = [part for part in parts or () if part is not None]
    return [np.concatenate(part) for part in zip(*found, strict=True)]


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def _own_device(device: str) -> str:
    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if device not in ("auto", "cuda"):
        raise TrainingError(f"device {device!r} cannot be used by several processes; use auto, cpu or cuda")
    number = int(os.environ.get("LOCAL_RANK", "0"))
    if number >= torch.cuda.device_count():
        raise TrainingError(
            f"process {number} of this machine has no GPU of its own: it sees {torch.cuda.device_count()}; start fewer processes, or, "
            "with SLURM, let each see all GPUs of the node (--gpus-per-node, not --gpus-per-task)"
        )
    torch.cuda.set_device(number)
    return f"cuda:{number}"


@contextmanager
def _connected() -> Iterator[None]:
    """Convert the failure of a message to other ranks into a TrainingError."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise lost(str(error)) from None


def lost(reason: str = "") -> TrainingError:
    """Return the error for a training that has lost one of its processes."""
    reason = f" ({' '.join(reason.split())[:300]})" if reason else ""
    return TrainingError(
        f"one of the processes of this training terminated unexpectedly{reason}: out of memory, killed, or unable to start (see above). "
        "Run the command again: it resumes"
    )


class _Gather(torch.autograd.Function):
    """Concatenate the parts of all ranks. Every rank computes the same loss, so the gradient needs no messages."""

    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:
        ctx.n = len(part)
        return _all_parts(part).flatten(0, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        # Times the number of ranks, because the mean over the ranks is taken in the end.
        own = slice(_rank() * ctx.n, (_rank() + 1) * ctx.n)
        return gradients[0][own] * n_ranks()


class _GatherStatistics(torch.autograd.Function):
    """Stack a tensor of each rank: (…) → (ranks, …). Each rank uses them for other clips, so gradients are added."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        return _all_parts(own)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        with _connected():
            dist.all_reduce(total)
        return total[_rank()]


def _all_parts(part: Tensor) -> Tensor:
    parts = part.new_empty((n_ranks(), *part.shape))
    with _connected():
        dist.all_gather(list(parts.unbind(0)), part.contiguous())
    return parts


@cache
def _shared(kind: Any) -> Any:
    """Return a class of BatchNorm with the statistics of the whole batch. `nn.SyncBatchNorm` does not run on CPUs."""
    return type(f"Shared{kind.__name__}", (_SharedStatistics, kind), {})


class _SharedStatistics(_BatchNorm):
    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            normalized: Tensor = super().forward(x)
            return normalized
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        each = [0, *range(2, x.ndim)]
        # Not from sums of squares: their difference would lose digits.
        own = torch.stack(torch.var_mean(wide, dim=each, correction=0))
        variances, means = _GatherStatistics.apply(own).unbind(1)
        mean = means.mean(dim=0)
        variance = variances.mean(dim=0) + (means - mean).square().mean(dim=0)
        self._follow(mean.detach(), variance.detach(), n_ranks() * x.numel() // x.shape[1])
        scale = torch.rsqrt(variance + self.eps)
        scale = scale if self.weight is None else scale * self.weight
        shift = -mean * scale if self.bias is None else self.bias - mean * scale
        shape = (-1, *[1] * (x.ndim - 2))
        normalized = (wide * scale.view(shape) + shift.view(shape)).to(x.dtype)
        # timm has classes of BatchNorm with an activation.
        for name in ("drop", "act"):
            normalized = getattr(self, name)(normalized) if hasattr(self, name) else normalized
        return normalized

    def _follow(self, mean: Tensor, variance: Tensor, n: int) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_((variance * n / (n - 1)).to(self.running_var.dtype), momentum)
