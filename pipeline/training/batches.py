"""Batches of training pairs from shards, read ahead by a thread.

Conventions
-----------
A batch has k pairs: frames (k, 3, H, W) in 0..255, log-mels (k, mel, time), and from the second phase on the previous epoch's
R̃ (k, h, w), moved as the frames were, and y (k, k). Frames keep the memory order of the shards, which torch calls
channels_last. The order of clips and every random change follow from the words that name the epoch.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from pipeline.common.config import AugmentationSettings
from pipeline.common.seeding import generator
from pipeline.model.sampling import audio_relation
from pipeline.pseudo_labels.artifact import PseudoLabels
from pipeline.shards.reader import ShardSet
from pipeline.training.augmentation import Changes, draw_changes, jitter_colors, move_frames, move_maps, roll_log_mel

READ_AHEAD = 3  # batches in memory besides the one in use

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Batch:
    """What a method's loss sees of k training pairs.

    Attributes
    ----------
    frames : Tensor (k, 3, H, W) uint8 or float32, 0..255
    log_mel : Tensor (k, mel, time) float32
    rows : np.ndarray (k,) int64
        Positions of the clips in the shards.
    previous_response : Tensor (k, h, w) float32 in [0, 1], or None
        R̃, in the view of `frames`; None before there are pseudo-labels.
    relation : Tensor (k, k) bool, or None
        y of Eq. 6 from the previous epoch's embeddings.
    targets : Tensor (k, classes) float32 in [0, 1], or None
        What the clips are labeled with; None for methods that learn without labels.
    generator : torch.Generator
        On the CPU, for the method's own draws.
    """

    frames: Tensor
    log_mel: Tensor
    rows: np.ndarray
    previous_response: Tensor | None
    relation: Tensor | None
    targets: Tensor | None
    generator: torch.Generator


class Timed(Iterator[Result]):
    """Passes items on, and counts in `seconds` how long the caller has waited for them.

    All that happens on the caller's thread before an item is there counts; what a GPU still has to do for it does not.
    """

    def __init__(self, items: Iterable[Result]):
        self._items = iter(items)
        self.seconds = 0.0

    def __next__(self) -> Result:
        start = time.perf_counter()
        try:
            return next(self._items)
        finally:
            self.seconds += time.perf_counter() - start


@dataclass(frozen=True)
class PreviousEpoch:
    """The pseudo-labels of the previous epoch in the order of the shards, and how Eq. 6 reads them."""

    response: np.ndarray  # (n, h, w) float32, R̃
    audio_embedding: Tensor  # (n, d) float32, ã
    center: Tensor | None  # (d,) float32
    delta_a: float

    @classmethod
    def of(cls, labels: PseudoLabels, shards: ShardSet, *, delta_a: float, center_audio: bool) -> PreviousEpoch:
        """Align an artifact with the shards. Raises PseudoLabelError where a clip has no labels."""
        rows = labels.rows(shards.clip_ids)
        embedding = torch.from_numpy(labels.audio_embedding[rows])
        return cls(labels.response[rows], embedding, embedding.mean(dim=0) if center_audio else None, delta_a)


def training_batches(
    shards: ShardSet,
    *,
    batch_size: int,
    augmentation: AugmentationSettings,
    cell_stride: int,
    words: tuple[int | str, ...],
    previous: PreviousEpoch | None,
    targets: np.ndarray | None = None,
    device: torch.device,
) -> Iterator[Batch]:
    """Yield one epoch of augmented batches in random order; the pairs that fill no batch are left out.

    Parameters
    ----------
    shards : ShardSet
    batch_size : int
    augmentation : AugmentationSettings
    cell_stride : int
        Pixels of the frame in a cell of the maps.
    words : tuple
        Name of the epoch, such as (seed, stage, epoch); all that is random follows from it.
    previous : PreviousEpoch, optional
    targets : np.ndarray (len(shards), classes) float32, optional
    device : torch.device
    """
    order = torch.randperm(len(shards), generator=generator(*words, "order")).numpy()
    batches = [order[i : i + batch_size] for i in range(0, len(order) - batch_size + 1, batch_size)]

    def read(numbered: tuple[int, np.ndarray]) -> tuple[int, Changes, Tensor, Tensor]:
        number, rows = numbered
        changes = draw_changes(
            len(rows), **augmentation.model_dump(), generator=generator(*words, "augmentation", number)
        )
        frames, log_mel = shards.read(rows.tolist())
        if augmentation.flip or augmentation.shift_cells:
            frames = move_frames(frames, changes, cell_stride=cell_stride)
        if augmentation.roll_audio:
            log_mel = roll_log_mel(log_mel, changes)
        return number, changes, *_as_tensors(frames, log_mel, pin=device.type == "cuda")

    for number, changes, frames, log_mel in read_ahead(read, enumerate(batches)):
        rows = batches[number]
        frames = frames.to(device, non_blocking=True)
        yield Batch(
            frames=jitter_colors(frames, changes) if augmentation.color_jitter else frames,
            log_mel=log_mel.to(device, non_blocking=True),
            rows=rows,
            **_previous(previous, rows, changes, device),
            targets=None if targets is None else torch.from_numpy(targets[rows]).to(device, non_blocking=True),
            generator=generator(*words, "cells", number),
        )


def plain_batches(
    shards: ShardSet, *, batch_size: int, device: torch.device, audio_order: Sequence[int] | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield all frames and log-mels in the order of the shards, un-augmented.

    `audio_order` pairs frame i with the sound of clip audio_order[i].
    """
    starts = range(0, len(shards), batch_size)

    def read(start: int) -> tuple[Tensor, Tensor]:
        rows = range(start, min(start + batch_size, len(shards)))
        frames, log_mel = shards.read(rows)
        if audio_order is not None:
            log_mel = shards.read([int(audio_order[row]) for row in rows])[1]
        return _as_tensors(frames, log_mel, pin=device.type == "cuda")

    for frames, log_mel in read_ahead(read, starts):
        yield frames.to(device, non_blocking=True), log_mel.to(device, non_blocking=True)


def read_ahead(read: Callable[[Item], Result], items: Iterable[Item], *, depth: int = READ_AHEAD) -> Iterator[Result]:
    """Yield read(item) for each item in order, with a thread reading up to `depth` items ahead.

    An error inside `read` is raised where its result is due.
    """
    remaining = iter(items)
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="read-ahead") as thread:
        pending = deque(thread.submit(read, item) for item in islice(remaining, depth))
        try:
            while pending:
                result = pending.popleft().result()
                pending.extend(thread.submit(read, item) for item in islice(remaining, 1))
                yield result
        finally:
            for future in pending:
                future.cancel()


def _as_tensors(frames: np.ndarray, log_mel: np.ndarray, *, pin: bool) -> tuple[Tensor, Tensor]:
    tensors = torch.from_numpy(frames), torch.from_numpy(log_mel)
    pixels, spectra = (tensor.pin_memory() for tensor in tensors) if pin else tensors
    return pixels.permute(0, 3, 1, 2), spectra  # n H W c -> n c H W


def _previous(
    previous: PreviousEpoch | None, rows: np.ndarray, changes: Changes, device: torch.device
) -> dict[str, Tensor | None]:
    if previous is None:
        return {"previous_response": None, "relation": None}
    response = torch.from_numpy(move_maps(previous.response[rows], changes))
    relation = audio_relation(previous.audio_embedding[rows], delta_a=previous.delta_a, center=previous.center)
    return {
        "previous_response": response.to(device, non_blocking=True),
        "relation": relation.to(device, non_blocking=True),
    }
