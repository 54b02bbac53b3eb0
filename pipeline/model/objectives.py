"""The two training objectives: Eq. 3 and Eq. 7 of the paper.

Conventions
-----------
A batch has k pairs. Visual features, φ(V), v⁺ or v⁻, are (k, d); audio features a are (k, d), L2-normalized. Everything is
computed in float32 at least, whatever autocast says, and averaged over the k frames; every loss is ≥ 0. The softmax runs
over the sounds j of a fixed frame i, in this direction only, as in the paper.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def phi(features: Tensor) -> Tensor:
    """φ: L2-normalize the feature dimension, then average over space.

    Parameters
    ----------
    features : Tensor (k, d, *space) floating

    Returns
    -------
    Tensor (k, d), of length at most 1.
    """
    return F.normalize(features, dim=1).flatten(2).mean(dim=2)


def contrastive_loss(visual: Tensor, audio: Tensor, *, temperature: float) -> Tensor:
    """Eq. 3: each frame against its own sound, among all the sounds of the batch.

    Parameters
    ----------
    visual : Tensor (k, d)
        φ(V).
    audio : Tensor (k, d)
    temperature : float > 0
        τ.

    Returns
    -------
    Tensor, scalar
    """
    logits = _logits(visual, audio, temperature)
    return F.cross_entropy(logits, torch.arange(len(logits), device=logits.device))


def iterative_loss(
    positive: Tensor,
    audio: Tensor,
    *,
    temperature: float,
    negative: Tensor | None = None,
    relation: Tensor | None = None,
) -> Tensor:
    """Eq. 7: v⁺ against every related sound, among v⁺ and v⁻ with all the sounds of the batch.

    Computed as a difference of two log-sum-exps, over {v⁺·a_j/τ, v⁻·a_j/τ} and over {v⁺·a_j/τ : y_ij = 1}.

    Parameters
    ----------
    positive : Tensor (k, d)
        v⁺, the sounding features (Eq. 4).
    audio : Tensor (k, d)
    temperature : float > 0
        τ.
    negative : Tensor (k, d), optional
        v⁻, the non-sounding features (Eq. 5). None leaves intra-frame sampling out.
    relation : Tensor (k, k) bool, optional
        y (Eq. 6); its diagonal counts as true whatever it says. None leaves the inter-frame relation out.

    Returns
    -------
    Tensor, scalar
    """
    positive_logits = _logits(positive, audio, temperature)  # (k, k)
    related = torch.eye(len(audio), dtype=torch.bool, device=audio.device)
    if relation is not None:
        if relation.shape != related.shape or relation.dtype != torch.bool:
            raise ValueError(
                f"relation must be bool {tuple(related.shape)}, got {relation.dtype} {tuple(relation.shape)}"
            )
        related = related | relation
    all_logits = positive_logits
    if negative is not None:
        all_logits = torch.cat([positive_logits, _logits(negative, audio, temperature)], dim=1)  # (k, 2k)
    numerator = positive_logits.masked_fill(~related, -math.inf).logsumexp(dim=1)
    return (all_logits.logsumexp(dim=1) - numerator).mean()


def _logits(visual: Tensor, audio: Tensor, temperature: float) -> Tensor:
    if visual.ndim != 2 or visual.shape != audio.shape or len(visual) == 0:
        raise ValueError(f"visual {tuple(visual.shape)} and audio {tuple(audio.shape)} must both be (k, d) with k > 0")
    if not (temperature > 0 and math.isfinite(temperature)):
        raise ValueError(f"temperature must be positive and finite, got {temperature}")
    with torch.autocast(visual.device.type, enabled=False):
        dtype = torch.promote_types(torch.promote_types(visual.dtype, audio.dtype), torch.float32)
        # i d, j d -> i j
        return visual.to(dtype) @ audio.to(dtype).T / temperature
