"""Object features for DSOL: the mean feature of each clip's sounding cells.

Conventions
-----------
V (k, d, h, w) and a (k, d) are the L2-normalized features under the current weights. R̃ (k, h, w) in [0, 1] is the response map of
the previous epoch, with the same augmentation as the frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.model.encoders import AudioVisualModel
from pipeline.model.equations import sample_features, sounding_cells
from pipeline.model.inference import inference, plain_batches
from pipeline.pseudo_labels.artifact import PseudoLabels
from pipeline.shards.reader import ShardSet

PASS_BATCH = 64  # clips; fixed, so that the features do not depend on the batch size of training


@dataclass(frozen=True)
class ClipFeatures:
    """Features of the training set, one row per clip, float32."""

    objects: np.ndarray  # (clip, feature), mean of V over the sounding cells of the pseudo-labels
    audio: np.ndarray  # (clip, feature), a


def object_features(features: Tensor, previous_response: Tensor | None, *, delta_v: float) -> Tensor:
    """Return the mean feature (k, d) of the cells of V (k, d, h, w) with R̃ > δ_v, or of the best cell if there is none.

    Raises ValueError if R̃ (k, h, w) is None.
    """
    if previous_response is None:
        raise ValueError("DSOL requires the pseudo-labels of the previous epoch, got None")
    mask = sounding_cells(previous_response, delta_v=delta_v)
    return sample_features(features, mask, cells=0, generator=torch.Generator())


def clip_features(
    model: AudioVisualModel, shards: ShardSet, labels: PseudoLabels | None, *, delta_v: float
) -> ClipFeatures:
    """Encode the training set once, un-augmented, without gradient. Raises ValueError if there are no pseudo-labels."""
    if labels is None:
        raise ValueError("DSOL requires the pseudo-labels of the previous epoch, got None")
    device = model.mean.device
    responses = torch.from_numpy(labels.response[labels.rows(shards.clip_ids)]).split(PASS_BATCH)
    parts = []
    with inference("tf32"):  # the precision of the pseudo-labels
        for response, (frames, log_mel) in zip(
            responses, plain_batches(shards, batch_size=PASS_BATCH, device=device), strict=True
        ):
            features = model.encode_frames(frames)
            objects = object_features(features, response.to(device), delta_v=delta_v)
            parts.append((objects, model.encode_audio(log_mel)))
    return ClipFeatures(*(torch.cat(part).cpu().numpy() for part in zip(*parts, strict=True)))
