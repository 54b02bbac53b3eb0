"""What determines the features of a frozen visual backbone: its settings and its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from torch import nn

from pipeline.common.files import fingerprint


def origin_of(visual: Mapping[str, Any], backbone: nn.Module) -> dict[str, str]:
    """Return the attributes ``backbone`` and ``weights`` of files of features.

    Parameters
    ----------
    visual : mapping
        Settings of the visual backbone, as JSON. Where its weights come from does not count, only what they are.
    backbone : nn.Module
    """
    architecture = {name: value for name, value in visual.items() if name not in ("weights", "trainable")}
    return {"backbone": fingerprint(architecture), "weights": _digest(backbone)}


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
