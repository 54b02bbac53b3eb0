"""A model together with the method that trained it, which reads response maps from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from pipeline.methods.base import Method
from pipeline.model.devices import Precision, move, select_device
from pipeline.model.encoders import AudioVisualModel
from pipeline.model.inference import inference, plain_batches, predict
from pipeline.shards.reader import ShardSet


@dataclass(frozen=True)
class TrainedModel:
    """Encoders and their method, as returned by `pipeline.training.checkpoints.load_model`.

    Attributes
    ----------
    encoders : AudioVisualModel
    method : Method
    description : mapping
        Entries of ``model.pt`` other than the weights, see `pipeline.training.checkpoints`.
    """

    encoders: AudioVisualModel
    method: Method
    description: Mapping[str, Any] = field(default_factory=dict)

    @property
    def normalization(self) -> Literal["min-max", "relu-max"] | None:
        """How the method normalizes its maps; None leaves the choice to the scoring protocol."""
        return self.method.normalization

    def to(self, device: str | torch.device) -> TrainedModel:
        """Move the encoders to a device, in place, and switch to evaluation mode."""
        move(self.encoders, select_device(device) if isinstance(device, str) else device)
        self.encoders.eval()
        return self

    def localize(self, frames: Tensor, log_mel: Tensor) -> tuple[Tensor, Tensor]:
        """Return raw response maps (n, h, w) and audio embeddings (n, d) of un-augmented pairs, without gradient.

        Parameters
        ----------
        frames : Tensor (n, 3, H, W) uint8 or floating, 0..255
            On the encoders' device, like `log_mel`.
        log_mel : Tensor (n, mel, time)
        """
        with inference():
            return self.method.localize(self.encoders, frames, log_mel)

    def predict(
        self,
        shards: ShardSet,
        *,
        batch_size: int,
        device: str | torch.device = "auto",
        audio_order: Sequence[int] | None = None,
        clips: range | None = None,
        precision: Precision = "ieee",
    ) -> tuple[np.ndarray, np.ndarray]:
        """Localize all clips; return raw maps (n, h, w) and audio embeddings (n, d), float32, in the order of the shards.

        Parameters
        ----------
        shards : ShardSet
        batch_size : int >= 1
            About 64 is fastest on a CPU.
        device : str or torch.device
        audio_order : sequence of int, optional
            Pairs frame i with the audio of clip audio_order[i].
        clips : range, optional
            Only these.
        precision : str
            Of convolutions and matrix products on CUDA: "ieee", or the faster "tf32".

        Raises
        ------
        TrainingError
            The device is not available.
        """
        device = select_device(device) if isinstance(device, str) else device
        self.to(device)
        localize = partial(self.method.localize, self.encoders)
        return predict(
            localize,
            shards,
            batch_size=batch_size,
            device=device,
            audio_order=audio_order,
            clips=clips,
            precision=precision,
        )

    def response_maps(
        self,
        shards: ShardSet,
        *,
        batch_size: int,
        device: str | torch.device = "auto",
        audio_order: Sequence[int] | None = None,
    ) -> np.ndarray:
        """Return the raw maps of `predict`."""
        return self.predict(shards, batch_size=batch_size, device=device, audio_order=audio_order)[0]

    def audio_clusters(self) -> np.ndarray | None:
        """Return the cluster distribution of the audio of every training clip (clip, cluster); None without clusters."""
        return self.method.audio_clusters(self.encoders)

    def class_maps(
        self, shards: ShardSet, *, batch_size: int, device: str | torch.device = "auto"
    ) -> np.ndarray | None:
        """Return one map per clip and cluster, float32 (n, c, h, w); None for a method without clusters."""
        device = select_device(device) if isinstance(device, str) else device
        self.to(device)
        parts = []
        with inference():
            for frames, log_mel in plain_batches(shards, batch_size=batch_size, device=device):
                maps = self.method.class_maps(self.encoders, frames, log_mel)
                if maps is None:
                    return None
                parts.append(maps.float().cpu())
        return np.asarray(torch.cat(parts))
