"""The optimizer of a model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pipeline.common.config import EncoderSettings, OptimizationSettings
from pipeline.common.errors import TrainingError
from pipeline.model.encoders import AudioVisualModel


def build_optimizer(
    model: AudioVisualModel, encoder: EncoderSettings, settings: OptimizationSettings
) -> torch.optim.AdamW:
    """Return the optimizer of everything that is not frozen.

    Backbones that start from published weights form a second group if `backbone_learning_rate` is set: fine-tuning them takes a rate at
    which layers with random weights hardly learn. Raises TrainingError if all is frozen.
    """
    pretrained: set[Tensor] = set()
    if settings.backbone_learning_rate is not None:
        for name in ("visual", "audio"):
            if getattr(encoder, name).weights is not None:
                pretrained |= set(getattr(model, name).parameters())
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [each for each in trainable if each not in pretrained], "lr": settings.learning_rate},
        {"params": [each for each in trainable if each in pretrained], "lr": settings.backbone_learning_rate},
    ]
    groups = [group for group in groups if group["params"]]
    if not groups:
        raise TrainingError("encoder: both backbones are frozen, and there is nothing else to train; set embedding_dim")
    # On CUDA, one kernel for all parameters; None leaves the choice to torch.
    fused = True if trainable[0].is_cuda else None
    return torch.optim.AdamW(groups, weight_decay=settings.weight_decay, fused=fused)
