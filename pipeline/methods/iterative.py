"""Iterative contrastive learning, Eq. 4-7: the paper's method, and its ablations by two switches.

The rows of Table 2: `itr` has neither switch on, `itr_intra` and `itr_inter` one, `iterative` both.
"""

from __future__ import annotations

from torch import Tensor

from pipeline.common.config import IterationSettings
from pipeline.methods.base import Method
from pipeline.methods.contrastive import localize_by_response
from pipeline.model.encoders import AudioVisualModel
from pipeline.model.objectives import iterative_loss
from pipeline.model.sampling import sample_features, silent_cells, sounding_cells
from pipeline.training.batches import Batch


class Iterative(Method):
    """The sounding cells of the previous epoch against the sounds of the batch.

    Parameters
    ----------
    settings : IterationSettings
    intra : bool
        Intra-frame sampling: the frame's non-sounding cells are negatives, too.
    inter : bool
        Inter-frame relation: sounds alike to the frame's own are positives, too.
    """

    def __init__(self, settings: IterationSettings, *, intra: bool, inter: bool) -> None:
        self.temperature = settings.temperature
        self.delta_v = settings.delta_v
        self.cells = settings.cells
        self.intra = intra
        self.inter = inter

    def loss(self, model: AudioVisualModel, batch: Batch) -> Tensor:
        """Eq. 7."""
        if batch.previous_response is None:
            raise ValueError("the iterative objective needs the previous epoch's pseudo-labels")
        features = model.encode_frames(batch.frames)  # V (k, d, h, w)
        audio = model.encode_audio(batch.log_mel)  # a (k, d)
        sounding = sounding_cells(batch.previous_response, delta_v=self.delta_v)
        silent = silent_cells(batch.previous_response, delta_v=self.delta_v)
        # Both are drawn in every variant, so that the switches change the loss and not the draws.
        positive, negative = (
            sample_features(features, mask, cells=self.cells, generator=batch.generator) for mask in (sounding, silent)
        )
        return iterative_loss(
            positive,
            audio,
            temperature=self.temperature,
            negative=negative if self.intra else None,
            relation=batch.relation if self.inter else None,
        )

    def localize(self, model: AudioVisualModel, frames: Tensor, log_mel: Tensor) -> tuple[Tensor, Tensor]:
        """Eq. 1 before min-max."""
        return localize_by_response(model, frames, log_mel)
