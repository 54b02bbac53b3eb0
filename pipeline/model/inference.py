"""One pass without gradient over a set of clips: response maps and audio embeddings.

Conventions
-----------
Evaluation mode, un-augmented pairs, float32 on every device, results in the order of the shards. Maps are raw (Eq. 1 before
min-max).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from pipeline.common.errors import TrainingError
from pipeline.methods.contrastive import localize_by_response
from pipeline.model.encoders import AudioVisualModel
from pipeline.shards.reader import ShardSet
from pipeline.training.batches import plain_batches


def select_device(name: str) -> torch.device:
    """Return the device of a name such as "cpu", "cuda", "cuda:1"; "auto" takes CUDA where there is one.

    Raises
    ------
    TrainingError
        The name is unknown, or there is no such device on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda"):
            raise RuntimeError("not one that is supported")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise TrainingError(f"device {name!r} cannot be used ({reason}); use auto, cpu or cuda") from None
    return device


def localize(model: AudioVisualModel, frames: Tensor, log_mel: Tensor) -> tuple[Tensor, Tensor]:
    """Return raw response maps (n, h, w) and audio embeddings (n, d) of un-augmented pairs, without gradient.

    Parameters
    ----------
    model : AudioVisualModel
        In evaluation mode, on the device of the data.
    frames : Tensor (n, 3, H, W) uint8 or floating, 0..255
    log_mel : Tensor (n, mel, time)
    """
    with torch.inference_mode(), _whole_float32():
        if model.method is None:
            return localize_by_response(model, frames, log_mel)
        return model.method.localize(model, frames, log_mel)


@contextmanager
def _whole_float32() -> Iterator[None]:
    """Keep cuDNN from rounding the factors of a convolution to 10 bits (TF32), which is torch's default on newer GPUs."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def predict(
    model: AudioVisualModel,
    shards: ShardSet,
    *,
    batch_size: int,
    device: torch.device,
    audio_order: Sequence[int] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Run the model over all clips; it is moved to `device` and left in evaluation mode.

    Returns
    -------
    response : np.ndarray (n, h, w) float32
        Raw maps, R.
    audio_embedding : np.ndarray (n, d) float32
        a, of the sounds that the frames were paired with.
    """
    model.to(device).eval()
    batches = plain_batches(shards, batch_size=batch_size, device=device, audio_order=audio_order)
    parts = [localize(model, frames, log_mel) for frames, log_mel in batches]
    response, audio = (torch.cat(part).float().cpu().numpy() for part in zip(*parts, strict=True))
    return response, audio


def response_maps(
    model: AudioVisualModel,
    shards: ShardSet,
    *,
    batch_size: int,
    device: str | torch.device = "auto",
    audio_order: Sequence[int] | None = None,
) -> np.ndarray:
    """Raw response maps of every clip.

    Parameters
    ----------
    model : AudioVisualModel
    shards : ShardSet
    batch_size : int >= 1
        About 64 is fastest on a CPU.
    device : str or torch.device
    audio_order : sequence of int, optional
        Pairs frame i with the sound of clip audio_order[i].

    Returns
    -------
    np.ndarray (n, h, w) float32, in the order of the shards
    """
    if audio_order is not None and len(audio_order) != len(shards):
        raise ValueError(f"audio_order has {len(audio_order)} entries for {len(shards)} clips")
    device = select_device(device) if isinstance(device, str) else device
    return predict(model, shards, batch_size=batch_size, device=device, audio_order=audio_order)[0]
