"""What determines the features of frozen backbones: their settings and their weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from pipeline.common.config import Side
from pipeline.common.files import fingerprint
from pipeline.model.encoders import AudioVisualModel


def origin_of(encoder: Mapping[str, Any], model: AudioVisualModel, sides: Sequence[Side]) -> dict[str, str]:
    """Return the attributes ``SIDE_backbone`` and ``SIDE_weights`` of files of features.

    Parameters
    ----------
    encoder : mapping
        Settings of the encoders, as JSON. Where weights come from does not count, only what they are.
    model : AudioVisualModel
    sides : sequence of Side
        The encoders whose features are stored.
    """
    origin = {}
    for side in sides:
        architecture = {name: value for name, value in encoder[side].items() if name not in ("weights", "trainable")}
        origin[f"{side}_backbone"] = fingerprint(architecture)
        origin[f"{side}_weights"] = _digest(getattr(model, side))
    return origin


def _digest(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        # Counts training steps; old files of published weights lack it.
        if name.endswith("num_batches_tracked"):
            continue
        values = value.detach().cpu().contiguous().numpy()
        digest.update(f"{name} {values.dtype.str} {values.shape}\n".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()
