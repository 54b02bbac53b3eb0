"""Plain contrastive learning, Eq. 3: the initialization of all methods, and the row `initial` of Table 2.

Two more rows are ours. `untouched` is the initialization itself, without any further epoch: a method that scores below it has lost
something in training. `initial_matched` is `initial` at the temperature of `iterative`, so that the two differ in the method alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field
from torch import Tensor

from pipeline.common.config import IterationSettings
from pipeline.methods.base import Batch, Method
from pipeline.model.encoders import AudioVisualModel
from pipeline.model.equations import contrastive_loss, phi
from pipeline.model.inference import localize_by_response


class UntouchedSettings(IterationSettings):
    """Settings of `untouched`: no epoch, whatever `iterate` has."""

    FIXED: ClassVar[Mapping[str, Any]] = {"epochs": 0}
    epochs: Annotated[int, Field(ge=0, le=0)]


class Contrastive(Method):
    """Contrasts φ(V), pooled over the whole frame, with the audio of the batch."""

    reads_labels = False

    def __init__(self, settings: IterationSettings) -> None:
        self.temperature = settings.temperature

    def loss(self, model: AudioVisualModel, batch: Batch) -> Tensor:
        """Return Eq. 3 on one batch."""
        features = model.encode_frames(batch.frames)  # V (k, d, h, w)
        audio = model.encode_audio(batch.log_mel)  # a (k, d)
        return contrastive_loss(phi(features), audio, temperature=self.temperature)

    def uninformed_loss(self, model: AudioVisualModel, batch: Batch) -> float:
        """Return log k: all cosines are equal, so each of the k audio clips is equally likely."""
        return math.log(len(batch.rows))

    def localize(self, model: AudioVisualModel, frames: Tensor, log_mel: Tensor) -> tuple[Tensor, Tensor]:
        """Return Eq. 1 before min-max, and a."""
        return localize_by_response(model, frames, log_mel)


class Untouched(Contrastive):
    """The initialization as it is; `loss` is never called, because there is no epoch."""

    Settings = UntouchedSettings
