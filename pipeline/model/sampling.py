"""From the previous epoch's labels to what Eq. 7 needs: v⁺ (Eq. 4), v⁻ (Eq. 5) and y (Eq. 6).

Conventions
-----------
A batch has k pairs. R̃ (k, h, w) is the previous epoch's response map after min-max, in [0, 1], moved as the frame was when it
was augmented; ã (k, d) the previous epoch's audio embedding; V (k, d, h, w) the features of the current weights. Gradients flow
through V alone.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.model.equations import sounding_region


def sounding_cells(previous_response: Tensor, *, delta_v: float) -> Tensor:
    """x⁺ = idx(R̃ > δ_v) of Eq. 4, as a mask; where no cell passes, the single best one (ours).

    Parameters
    ----------
    previous_response : Tensor (k, h, w) in [0, 1]
        R̃.
    delta_v : float in [0, 1]

    Returns
    -------
    Tensor (k, h, w) bool, at least one true in each map
    """
    return _or_extreme(sounding_region(previous_response, delta_v=delta_v), previous_response)


def silent_cells(previous_response: Tensor, *, delta_v: float) -> Tensor:
    """x⁻ = idx(R̃ < δ_v) of Eq. 5, as a mask; where no cell passes, the single worst one (ours). See `sounding_cells`."""
    if not 0 <= delta_v <= 1:
        raise ValueError(f"delta_v must lie in [0, 1], got {delta_v}")
    return _or_extreme(previous_response < delta_v, -previous_response)


def sample_features(features: Tensor, mask: Tensor, *, cells: int, generator: torch.Generator) -> Tensor:
    """φ(feats(V, x)) of Eq. 4 and 5: L2-normalize the features of randomly sampled cells and average them.

    The paper samples "randomly" without saying how many. We draw `cells` different ones, uniformly.

    Parameters
    ----------
    features : Tensor (k, d, h, w)
        V of the current weights.
    mask : Tensor (k, h, w) bool
        The cells to draw from; each map needs at least one.
    cells : int >= 0
        How many to draw; all of them where the mask has fewer. 0 takes the mean over all of the mask's cells.
    generator : torch.Generator
        On the CPU.

    Returns
    -------
    Tensor (k, d)
        v⁺ or v⁻.
    """
    if mask.shape != features.shape[:1] + features.shape[2:] or mask.dtype != torch.bool:
        raise ValueError(f"mask must be bool (k, h, w) of features {tuple(features.shape)}, got {tuple(mask.shape)}")
    if cells < 0:
        raise ValueError(f"cells must be 0 or more, got {cells}")
    features, mask = features.flatten(2), mask.flatten(1)  # (k, d, h·w), (k, h·w)
    if cells > 0:
        keys = torch.rand(mask.shape, generator=generator).to(mask.device)
        chosen = keys.masked_fill(~mask, -1).topk(min(cells, mask.shape[1]), dim=1).indices  # (k, cells)
        features = features.gather(2, chosen[:, None, :].expand(-1, features.shape[1], -1))
        mask = mask.gather(1, chosen)
    weights = mask / mask.sum(dim=1, keepdim=True)
    # k d c, k c -> k d
    return (F.normalize(features, dim=1) * weights[:, None, :].to(features.dtype)).sum(dim=2)


def audio_relation(audio_embedding: Tensor, *, delta_a: float, center: Tensor | None = None) -> Tensor:
    """y of Eq. 6: which sounds of the batch belong to which frames, by the likeness of the sounds.

    Parameters
    ----------
    audio_embedding : Tensor (k, d)
        ã.
    delta_a : float in [0, 1]
        Smallest cosine of related sounds.
    center : Tensor (d,), optional
        Subtracted from ã before the cosines (ours): the mean over the training set. Without it all cosines of
        non-negative or unbalanced features lie near 1 and the threshold separates nothing.

    Returns
    -------
    Tensor (k, k) bool, symmetric, its diagonal true
    """
    if not 0 <= delta_a <= 1:
        raise ValueError(f"delta_a must lie in [0, 1], got {delta_a}")
    embedding = audio_embedding if center is None else audio_embedding - center
    embedding = F.normalize(embedding, dim=1)
    own = torch.eye(len(embedding), dtype=torch.bool, device=embedding.device)
    return (embedding @ embedding.T >= delta_a) | own


def _or_extreme(mask: Tensor, score: Tensor) -> Tensor:
    best = score.flatten(1).argmax(dim=1, keepdim=True)
    empty = ~mask.flatten(1).any(dim=1, keepdim=True)
    fallback = torch.zeros_like(mask).flatten(1).scatter(1, best, empty)
    return mask | fallback.view_as(mask)
