"""Object features for DSOL: what the cells that sound look like, clip by clip.

Conventions
-----------
V (k, d, h, w) and a (k, d) are L2-normalized features of the current weights, R̃ (k, h, w) in [0, 1] the response map of the
epoch before, in the view of the frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.model.encoders import AudioVisualModel
from pipeline.model.equations import sample_features, sounding_cells
from pipeline.model.inference import plain_batches
from pipeline.pseudo_labels.artifact import PseudoLabels
from pipeline.shards.reader import ShardSet

PASS_BATCH = 64  # clips; a fixed number, so that the features do not depend on the batch size of training


@dataclass(frozen=True)
class ClipFeatures:
    """One row for each clip of the training set, float32."""

    objects: np.ndarray  # (clip, feature), mean of V over the sounding cells of the pseudo-labels
    audio: np.ndarray  # (clip, feature), a


def object_features(features: Tensor, previous_response: Tensor | None, *, delta_v: float) -> Tensor:
    """Mean feature (k, d) of the cells of V (k, d, h, w) with R̃ > δ_v; of the single best where there is none.

    Raises ValueError where there is no R̃ (k, h, w).
    """
    if previous_response is None:
        raise ValueError("DSOL takes its object masks from the previous epoch's pseudo-labels, and there are none")
    mask = sounding_cells(previous_response, delta_v=delta_v)
    return sample_features(features, mask, cells=0, generator=torch.Generator())


def clip_features(
    model: AudioVisualModel, shards: ShardSet, labels: PseudoLabels | None, *, delta_v: float
) -> ClipFeatures:
    """Encode the training set once, un-augmented, without gradient. Raises ValueError where there are no labels."""
    if labels is None:
        raise ValueError("DSOL takes its object masks from the previous epoch's pseudo-labels, and there are none")
    device = model.mean.device
    responses = torch.from_numpy(labels.response[labels.rows(shards.clip_ids)]).split(PASS_BATCH)
    parts = []
    with torch.no_grad():
        for response, (frames, log_mel) in zip(
            responses, plain_batches(shards, batch_size=PASS_BATCH, device=device), strict=True
        ):
            features = model.encode_frames(frames)
            objects = object_features(features, response.to(device), delta_v=delta_v)
            parts.append((objects, model.encode_audio(log_mel)))
    return ClipFeatures(*(torch.cat(part).cpu().numpy() for part in zip(*parts, strict=True)))
