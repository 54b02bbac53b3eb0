"""Iterative contrastive learning, Eq. 4-7: the paper's method, with two switches for the ablations of Table 2.

`itr` has both switches off, `itr_intra` and `itr_inter` have one on, `iterative` has both on.
"""

from __future__ import annotations

from torch import Tensor

from pipeline.common.config import IterationSettings
from pipeline.methods.base import Batch, Method
from pipeline.model.encoders import AudioVisualModel
from pipeline.model.equations import iterative_loss, non_sounding_cells, sample_features, sounding_cells
from pipeline.model.inference import localize_by_response


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
        self.temperature = settings.temperature
        self.delta_v = settings.delta_v
        self.cells = settings.cells
        self.intra = intra
        self.inter = inter

    def loss(self, model: AudioVisualModel, batch: Batch) -> Tensor:
        """Return Eq. 7 on one batch."""
        if batch.previous_response is None:
            raise ValueError("the iterative objective needs the previous epoch's pseudo-labels")
        features = model.encode_frames(batch.frames)  # V (k, d, h, w)
        audio = model.encode_audio(batch.log_mel)  # a (k, d)
        # Eq. 4, 5: cells that the previous epoch's model marked as sounding, and as not sounding.
        sounding = sounding_cells(batch.previous_response, delta_v=self.delta_v)  # x⁺ (k, h, w)
        silent = non_sounding_cells(batch.previous_response, delta_v=self.delta_v)  # x⁻ (k, h, w)
        # Every variant samples both, so that a switch changes the loss but not the random draws.
        positive, negative = (
            sample_features(features, mask, cells=self.cells, generator=batch.generator) for mask in (sounding, silent)
        )  # v⁺, v⁻ (k, d)
        return iterative_loss(
            positive,
            audio,
            temperature=self.temperature,
            negative=negative if self.intra else None,
            relation=batch.relation if self.inter else None,  # Eq. 6
        )

    def localize(self, model: AudioVisualModel, frames: Tensor, log_mel: Tensor) -> tuple[Tensor, Tensor]:
        """Return Eq. 1 before min-max, and a."""
        return localize_by_response(model, frames, log_mel)
