"""Batches of training pairs from shards, read ahead in a thread.

Conventions
-----------
A batch has k pairs: frames (k, 3, H, W) in 0..255 and log-mels (k, mel, time), or stored features of either (see `Batch`). After the
initialization it also has the previous epoch's R̃ (k, h, w), augmented like the frames, and y (k, k) of Eq. 6. Frames keep the shards'
memory format, channels_last. The order of the clips and all augmentation follow from the epoch's RNG key.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.common.config import AugmentationSettings
from pipeline.common.seeding import generator
from pipeline.features.reader import FeatureSet
from pipeline.methods.base import Batch
from pipeline.model.equations import audio_relation
from pipeline.model.inference import as_tensors, read_ahead
from pipeline.model.ranks import own_part
from pipeline.model.relation import relation_by_share
from pipeline.model.transfer import send
from pipeline.pseudo_labels.artifact import PseudoLabels
from pipeline.shards.reader import ShardSet
from pipeline.training.augmentation import Changes, draw_changes, jitter_colors, move_frames, move_maps, roll_log_mel


@dataclass(frozen=True)
class PreviousEpoch:
    """The pseudo-labels of the previous epoch in the order of the shards, and the parameters of Eq. 6.

    Maps and embeddings stay float16, as they are stored; a batch converts its own rows.
    """

    response: np.ndarray  # (n, h, w) float16, R̃
    # ã (n, d) float16 and what is subtracted from it, (d,) float32; y is true where one of them says so
    audio: tuple[tuple[np.ndarray, Tensor | None], ...]
    delta_a: float
    share: float | None  # of related pairs, in place of delta_a

    @classmethod
    def of(
        cls,
        labels: PseudoLabels,
        shards: ShardSet,
        *,
        delta_a: float,
        center_audio: bool,
        share: float | None = None,
        related_by: Sequence[PseudoLabels] = (),
    ) -> PreviousEpoch:
        """Align an artifact with the shards; y is from its own ã, or from those of `related_by`. PseudoLabelError if a clip is missing."""
        audio = []
        for each in related_by or [labels]:
            embedding = each.select(shards.clip_ids).stored("audio_embedding")
            center = torch.from_numpy(embedding.astype(np.float32)).mean(dim=0) if center_audio else None
            audio.append((embedding, center))
        return cls(labels.select(shards.clip_ids).stored("response"), tuple(audio), delta_a, share)

    def maps(self, rows: np.ndarray, changes: Changes) -> Tensor:
        """Return R̃ of a batch, (k, h, w) float32, augmented like its frames."""
        return torch.from_numpy(move_maps(self.response[rows].astype(np.float32), changes))

    def relation(self, rows: np.ndarray) -> Tensor:
        """Return y of a batch, (k, k) bool: Eq. 6, or the share of its pairs."""
        relations = []
        for embedding, center in self.audio:
            audio = torch.from_numpy(embedding[rows].astype(np.float32))
            relations.append(
                audio_relation(audio, delta_a=self.delta_a, center=center)
                if self.share is None
                else relation_by_share(audio, share=self.share, center=center)
            )
        return torch.stack(relations).any(dim=0)


def training_batches(
    shards: ShardSet,
    *,
    batch_size: int,
    augmentation: AugmentationSettings,
    cell_stride: int,
    key: tuple[int | str, ...],
    previous: PreviousEpoch | None,
    targets: np.ndarray | None = None,
    device: torch.device,
    epoch: int = 1,
) -> Iterator[Batch]:
    """Yield one epoch of augmented batches in random order, without an incomplete last batch.

    Parameters
    ----------
    shards : ShardSet
        Or a FeatureSet; a flip then selects the features of the mirrored frame.
    batch_size : int
    augmentation : AugmentationSettings
    cell_stride : int
        Pixels per cell of the maps.
    key : tuple
        RNG key of the epoch, such as (seed, stage, epoch); determines everything random.
    previous : PreviousEpoch, optional
    targets : np.ndarray (len(shards), 2, classes) float32, optional
    device : torch.device
    epoch : int
        Passed on with each batch.
    """
    # Each purpose has its own generator, so that the read-ahead thread cannot change the order of draws.
    order = torch.randperm(len(shards), generator=generator(*key, "order")).numpy()
    batches = [order[i : i + batch_size] for i in range(0, len(order) - batch_size + 1, batch_size)]
    # All is drawn for the whole batch. With several ranks, each reads and transforms its own part of the frames and log-mels.
    own = own_part(batch_size)

    def read(numbered: tuple[int, np.ndarray]) -> tuple[int, Changes, Tensor, Tensor]:
        number, rows = numbered
        drawn = draw_changes(len(rows), **augmentation.model_dump(), generator=generator(*key, "augmentation", number))
        rows, changes = rows[own], drawn.of(own)
        if isinstance(shards, FeatureSet):
            frames, log_mel = shards.read(rows.tolist(), mirrored=changes.flip)
        else:
            frames, log_mel = shards.read(rows.tolist())
            if augmentation.flip or augmentation.shift_cells:
                frames = move_frames(frames, changes, cell_stride=cell_stride)
        if augmentation.roll_audio:
            log_mel = roll_log_mel(log_mel, changes)
        return number, drawn, *as_tensors(frames, log_mel, pin=device.type == "cuda")

    for number, changes, frames, log_mel in read_ahead(read, enumerate(batches)):
        rows = batches[number]
        frames = frames.to(device, non_blocking=True)
        yield Batch(
            frames=jitter_colors(frames, changes.of(own)) if augmentation.color_jitter else frames,
            log_mel=log_mel.to(device, non_blocking=True),
            rows=rows,
            **_previous(previous, rows, changes, device),
            targets=None if targets is None else send(torch.from_numpy(targets[rows]), device),
            generator=generator(*key, "cells", number),
            epoch=epoch,
        )


def _previous(
    previous: PreviousEpoch | None, rows: np.ndarray, changes: Changes, device: torch.device
) -> dict[str, Tensor | None]:
    if previous is None:
        return {"previous_response": None, "relation": None}
    # Augmentation does not change which clips sound alike, so y is computed from the un-augmented embeddings.
    return {
        "previous_response": send(previous.maps(rows, changes), device),
        "relation": send(previous.relation(rows), device),
    }
