"""Audio relations by the share of related pairs, in place of the threshold δ_a of Eq. 6 (ours).

A threshold suits one embedding: during training, and from one dataset to the next, the same δ_a relates different numbers of clips. A
share keeps their number. Embeddings are ã (n, d); pairs are unordered and of different clips, n (n - 1) / 2 of them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.common.seeding import evenly_spaced

SAMPLE = 3000  # clips; their 4.5 million pairs take a fraction of a second


def cosines_of_pairs(audio_embedding: Tensor, *, center: Tensor | None = None) -> Tensor:
    """Return the cosines of all pairs, (n (n - 1) / 2,), as Eq. 6 computes them: row by row of the upper triangle.

    Examples
    --------
    >>> cosines_of_pairs(torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]]))
    tensor([0.8000, 0.0000, 0.6000])
    """
    embedding = audio_embedding if center is None else audio_embedding - center
    embedding = F.normalize(embedding, dim=1)
    row, col = torch.triu_indices(len(embedding), len(embedding), offset=1, device=embedding.device)
    return (embedding @ embedding.T)[row, col]


def share_threshold(cosines: Tensor, *, share: float) -> float:
    """Return the smallest cosine of the most similar pairs, a `share` in (0, 1) of all; infinity if that is less than half a pair.

    Examples
    --------
    >>> share_threshold(torch.tensor([0.75, 0.0, 0.5]), share=0.7)
    0.5
    """
    if not 0 < share < 1:
        raise ValueError(f"share must lie between 0 and 1, got {share}")
    n = math.floor(share * len(cosines) + 0.5)
    return float(cosines.topk(n).values[-1]) if n else math.inf


def relation_by_share(audio_embedding: Tensor, *, share: float, center: Tensor | None = None) -> Tensor:
    """Return y with the most similar pairs related, of all pairs of the batch.

    Parameters
    ----------
    audio_embedding : Tensor (k, d)
        ã of the previous epoch.
    share : float in (0, 1)
        Pairs as similar as the last one of this share are related too.
    center : Tensor (d,), optional
        Subtracted from ã first, as in `pipeline.model.equations.audio_relation`.

    Returns
    -------
    Tensor (k, k) bool, symmetric, with a true diagonal

    Examples
    --------
    >>> embedding = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])  # cosines 0.8, 0 and 0.6
    >>> relation_by_share(embedding, share=1 / 3).int()
    tensor([[1, 1, 0],
            [1, 1, 0],
            [0, 0, 1]], dtype=torch.int32)
    """
    k = len(audio_embedding)
    cosines = cosines_of_pairs(audio_embedding, center=center)
    relation = torch.eye(k, dtype=torch.bool, device=cosines.device)
    row, col = torch.triu_indices(k, k, offset=1, device=cosines.device)
    related = cosines >= share_threshold(cosines, share=share)
    relation[row, col] = related
    relation[col, row] = related
    return relation


def equivalent_delta_a(audio_embedding: Tensor, *, share: float, center_audio: bool) -> float:
    """Return the δ_a in [0, 1] at which Eq. 6 relates a share of the pairs of the training set, from a sample of its clips.

    Parameters
    ----------
    audio_embedding : Tensor (n, d)
        ã of the training set.
    share : float in (0, 1)
    center_audio : bool
        Subtract the mean first.
    """
    center = audio_embedding.mean(dim=0) if center_audio else None
    sample = audio_embedding[evenly_spaced(len(audio_embedding), SAMPLE)]
    return min(max(share_threshold(cosines_of_pairs(sample, center=center), share=share), 0.0), 1.0)
