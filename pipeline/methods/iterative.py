"""Iterative contrastive learning, Eq. 4-7: the paper's method, with two switches for the ablations of Table 2.

`itr` has both switches off, `itr_intra` and `itr_inter` have one on, `iterative` has both on.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pipeline.common.config import IterationSettings
from pipeline.methods.base import Batch, Method
from pipeline.model.encoders import AudioVisualModel
from pipeline.model.equations import iterative_loss, non_sounding_cells, sample_features, sounding_cells
from pipeline.model.inference import localize_by_response

SILENT = ("delta_v_silent",)
RELATION = ("relation_share", "relation_from")


class Iterative(Method):
    """Contrasts the cells that sounded in the previous epoch with the audio of the batch.

    Parameters
    ----------
    settings : IterationSettings
    intra : bool
        Intra-frame sampling: the non-sounding cells of the frame are additional negatives (Eq. 5).
    inter : bool
        Inter-frame relation: audio similar to the frame's own is an additional positive (Eq. 6).
    """

    def __init__(self, settings: IterationSettings, *, intra: bool, inter: bool) -> None:
        self.settings = settings
        self.intra = intra
        self.inter = inter

    @classmethod
    def unread(cls, **switches: bool) -> frozenset[str]:
        """Return the settings of x⁻ without intra-frame sampling, and those of y without the inter-frame relation."""
        return frozenset([*(() if switches["intra"] else SILENT), *(() if switches["inter"] else RELATION)])

    def loss(self, model: AudioVisualModel, batch: Batch) -> Tensor:
        """Return Eq. 7 on one batch."""
        if batch.previous_response is None:
            raise ValueError("the iterative objective needs the previous epoch's pseudo-labels")
        features = model.encode_frames(batch.frames)  # V (k, d, h, w)
        audio = model.encode_audio(batch.log_mel)  # a (k, d)
        # Eq. 4, 5: cells that the previous epoch's model marked as sounding, and as not sounding.
        delta_v, settings = self.settings.delta_v_at(batch.epoch), self.settings
        below = delta_v if settings.delta_v_silent is None else settings.delta_v_silent
        sounding = sounding_cells(batch.previous_response, delta_v=delta_v)  # x⁺ (k, h, w)
        silent = non_sounding_cells(batch.previous_response, delta_v=below)  # x⁻ (k, h, w)
        losses = []
        for _ in range(settings.draws):
            # Every variant samples both, so that a switch changes the loss but not the random draws.
            positive, negative = (
                sample_features(features, mask, cells=settings.cells, generator=batch.generator)
                for mask in (sounding, silent)
            )  # v⁺, v⁻ (k, d)
            losses.append(
                iterative_loss(
                    positive,
                    audio,
                    temperature=settings.temperature,
                    negative=negative if self.intra else None,
                    relation=batch.relation if self.inter else None,  # Eq. 6
                )
            )
        return torch.stack(losses).mean()

    def uninformed_loss(self, model: AudioVisualModel, batch: Batch) -> Tensor:
        """Return log n - mean log |y_i|: all cosines are equal, among n = k logits per frame, or 2k with intra-frame sampling.

        |y_i| is the number of audio clips related to frame i by Eq. 6, itself included; 1 without the inter-frame relation. With
        intra-frame sampling, a model that tells sounding from silent cells, but no audio from another, is already below this value.
        """
        k = len(batch.rows)
        related = torch.eye(k, dtype=torch.bool, device=batch.frames.device)
        if self.inter and batch.relation is not None:
            related = related | batch.relation
        return math.log(2 * k if self.intra else k) - related.sum(dim=1).log().mean()

    def localize(self, model: AudioVisualModel, frames: Tensor, log_mel: Tensor) -> tuple[Tensor, Tensor]:
        """Return Eq. 1 before min-max, and a."""
        return localize_by_response(model, frames, log_mel)
