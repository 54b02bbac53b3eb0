"""Inference over a set of clips: response maps and audio embeddings.

Conventions
-----------
Evaluation mode, no gradients, un-augmented pairs, float32 on every device unless a caller asks for TF32; results are in the order of the
shards. Maps are raw (Eq. 1 before min-max).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from pipeline.model.devices import Precision, float32_as
from pipeline.model.encoders import AudioVisualModel
from pipeline.model.equations import response_map
from pipeline.model.transfer import fetch
from pipeline.shards.reader import ShardSet

READ_AHEAD = 3  # batches in memory in addition to the one in use, or one more than threads that read them
MOST_READERS = 8  # ours: each holds a batch in memory, 25 MB with the paper's preset

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def inference(precision: Precision = "ieee") -> Iterator[None]:
    """Disable gradients, and, unless `precision` is "tf32", TF32, which rounds to 10 bits."""
    with float32_as(precision), torch.inference_mode():
        yield


def localize_by_response(model: AudioVisualModel, frames: Tensor, log_mel: Tensor) -> tuple[Tensor, Tensor]:
    """Return R = V * a (Eq. 1 before min-max) and a: the maps of the paper's method and of most others."""
    audio = model.encode_audio(log_mel)
    return response_map(model.encode_frames(frames), audio), audio


def predict(
    localize: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    shards: ShardSet,
    *,
    batch_size: int,
    device: torch.device,
    audio_order: Sequence[int] | None = None,
    clips: range | None = None,
    precision: Precision = "ieee",
) -> tuple[np.ndarray, np.ndarray]:
    """Localize all clips.

    Parameters
    ----------
    localize : callable
        Maps frames (n, 3, H, W) and log-mels (n, mel, time) to raw maps (n, h, w) and audio embeddings (n, d), on `device`.
    shards : ShardSet
    batch_size : int >= 1
    device : torch.device
    audio_order : sequence of int, optional
        Pairs frame i with the audio of clip audio_order[i].
    clips : range, optional
        Only these.
    precision : str
        Of convolutions and matrix products on CUDA: "ieee" or "tf32".

    Returns
    -------
    response : np.ndarray (n, h, w) float32
        Raw maps, R.
    audio_embedding : np.ndarray (n, d) float32
        a of the audio that each frame was paired with.

    Raises
    ------
    ValueError
        `audio_order` and the shards differ in length.
    """
    if audio_order is not None and len(audio_order) != len(shards):
        raise ValueError(f"audio_order has {len(audio_order)} entries for {len(shards)} clips")
    batches = plain_batches(shards, batch_size=batch_size, device=device, audio_order=audio_order, clips=clips)
    n_clips, n_done = len(shards if clips is None else clips), 0
    arrays: list[np.ndarray] = []
    with inference(precision):
        # Results leave the device batch by batch: those of millions of clips take gigabytes.
        for wait in _one_behind(fetch(localize(frames, log_mel)) for frames, log_mel in batches):
            found = wait()
            arrays = arrays or [np.empty((n_clips, *values.shape[1:]), np.float32) for values in found]
            for array, values in zip(arrays, found, strict=True):
                array[n_done : n_done + len(values)] = values
            n_done += len(found[0])
    response, audio = arrays
    return response, audio


def _one_behind(results: Iterable[Result]) -> Iterator[Result]:
    """Yield each result after the next one was made, so that a GPU has work while the host waits for a result."""
    made: deque[Result] = deque()
    for result in results:
        made.append(result)
        if len(made) > 1:
            yield made.popleft()
    yield from made


def plain_batches(
    shards: ShardSet,
    *,
    batch_size: int,
    device: torch.device,
    audio_order: Sequence[int] | None = None,
    clips: range | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield all frames and log-mels in the order of the shards, un-augmented.

    `audio_order` pairs frame i with the audio of clip audio_order[i]. `clips` limits them to a range.
    """
    chosen = range(len(shards)) if clips is None else clips
    starts = chosen[::batch_size]  # the last batch may be smaller: every clip is needed

    def read(start: int) -> tuple[Tensor, Tensor]:
        rows = range(start, min(start + batch_size, chosen.stop))
        frames, log_mel = shards.read(rows)
        if audio_order is not None:
            log_mel = shards.read([int(audio_order[row]) for row in rows])[1]
        return as_tensors(frames, log_mel, pin=device.type == "cuda")

    for frames, log_mel in read_ahead(read, starts):
        yield frames.to(device, non_blocking=True), log_mel.to(device, non_blocking=True)


def read_ahead(
    read: Callable[[Item], Result], items: Iterable[Item], *, n_threads: int | None = None
) -> Iterator[Result]:
    """Yield read(item) for each item, in order, while threads read the next items.

    By default, there are as many threads as torch computes with, but at most MOST_READERS. An error in `read` is raised when its result is
    due.
    """
    n_threads = min(torch.get_num_threads(), MOST_READERS) if n_threads is None else n_threads
    remaining, depth = iter(items), max(READ_AHEAD, n_threads + 1)
    with ThreadPoolExecutor(max_workers=n_threads, thread_name_prefix="read-ahead") as thread:
        pending = deque(thread.submit(read, item) for item in islice(remaining, depth))
        try:
            while pending:
                result = pending.popleft().result()
                pending.extend(thread.submit(read, item) for item in islice(remaining, 1))
                yield result
        finally:
            # The caller may stop early; leaving the pool would otherwise wait for reads that nobody needs.
            for future in pending:
                future.cancel()


def as_tensors(frames: np.ndarray, log_mel: np.ndarray, *, pin: bool) -> tuple[Tensor, Tensor]:
    """Return frames (n, c, H, W) and log-mels (n, mel, time) as CPU tensors, in pinned memory if `pin`."""
    tensors = torch.from_numpy(frames), torch.from_numpy(log_mel)
    # Copies from pinned memory to the GPU can overlap with computation.
    pixels, spectra = (tensor.pin_memory() for tensor in tensors) if pin else tensors
    return pixels.permute(0, 3, 1, 2), spectra  # n H W c -> n c H W
