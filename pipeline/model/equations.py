"""Eq. 1-7 of the paper, in its order.

    Eq. 1  response_map, min_max          R = V * a, and R̃ in [0, 1]
    Eq. 2  sounding_region                S = idx(R̃ > δ_v)
    Eq. 3  phi, contrastive_loss          each frame against its own audio, among all audio of the batch
    Eq. 4  sounding_cells, sample_features  v⁺ from x⁺ = idx(R̃ > δ_v) of the previous epoch
    Eq. 5  non_sounding_cells, sample_features  v⁻ from x⁻ = idx(R̃ < δ_v) of the previous epoch
    Eq. 6  audio_relation                 y_ij = 1 where the previous epoch's audio embeddings are alike
    Eq. 7  iterative_loss                 v⁺ against every related audio, among v⁺ and v⁻ with all audio

Conventions
-----------
A batch has k pairs. V (k, d, h, w) are visual features, a (k, d) audio embeddings, both L2-normalized on d, so that every inner
product is a cosine in [-1, 1]. R (k, h, w) are raw response maps, R̃ the same after min-max; row 0 is the top. Values from the
previous epoch (R̃, ã) carry no gradient. Losses are averaged over the k frames, never negative, and computed in float32
at least, whatever autocast is set to. The functions are pure: no state, no device literals.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.model.transfer import send


def response_map(features: Tensor, audio: Tensor) -> Tensor:
    """Return the raw map R = V * a of Eq. 1: V (k, d, h, w) and a (k, d) → (k, h, w). ValueError for other shapes.

    Examples
    --------
    >>> features = torch.tensor([1.0, 0.0, 0.6, 0.8]).view(1, 2, 1, 2)  # cells (1, 0.6) and (0, 0.8)
    >>> audio = torch.tensor([[1.0, 0.0]])
    >>> response_map(features, audio)
    tensor([[[1., 0.]]])
    """
    if features.ndim != 4 or audio.shape != features.shape[:2]:
        raise ValueError(
            f"features {tuple(features.shape)} and audio {tuple(audio.shape)} are not (k, d, h, w) and (k, d)"
        )
    # k d h w, k d -> k h w
    return (features * audio[:, :, None, None]).sum(dim=1)


def min_max(response: Tensor) -> Tensor:
    """Return R̃ of Eq. 1: every map (..., h, w) scaled to [0, 1]. A constant map becomes zeros, so that no cell sounds.

    Examples
    --------
    >>> response = torch.tensor([[-0.5, 0.0], [0.25, 0.5]])
    >>> min_max(response)
    tensor([[0.0000, 0.5000],
            [0.7500, 1.0000]])
    """
    low, high = response.amin(dim=(-2, -1), keepdim=True), response.amax(dim=(-2, -1), keepdim=True)
    spread = high - low
    return (response - low) / spread.masked_fill(spread == 0, 1)


def sounding_region(normalized_response: Tensor, *, delta_v: float) -> Tensor:
    """Return S = idx(R̃ > δ_v) of Eq. 2 as a bool mask: R̃ (..., h, w) and δ_v in [0, 1].

    Examples
    --------
    >>> normalized = torch.tensor([[0.0, 0.5], [0.75, 1.0]])
    >>> sounding_region(normalized, delta_v=0.5)
    tensor([[False, False],
            [ True,  True]])
    """
    _check_unit(delta_v=delta_v)
    return normalized_response > delta_v


def phi(features: Tensor) -> Tensor:
    """Return φ(V) of Eq. 3: L2-normalize the features, then average over space: (k, d, *space) → (k, d).

    Examples
    --------
    >>> features = torch.tensor([2.0, 0.0, 0.0, 5.0]).view(1, 2, 1, 2)  # cells (2, 0) and (0, 5)
    >>> phi(features)
    tensor([[0.5000, 0.5000]])
    """
    return F.normalize(features, dim=1).flatten(2).mean(dim=2)


def contrastive_loss(visual: Tensor, audio: Tensor, *, temperature: float) -> Tensor:
    """Return Eq. 3: each frame against its own audio, among all audio of the batch (in this direction only).

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

    Examples
    --------
    >>> visual = torch.eye(2)
    >>> audio = torch.eye(2)
    >>> contrastive_loss(visual, audio, temperature=1.0)  # log(1 + e⁻¹)
    tensor(0.3133)
    """
    logits = _logits(visual, audio, temperature)
    return F.cross_entropy(logits, torch.arange(len(logits), device=logits.device))


def sounding_cells(previous_response: Tensor, *, delta_v: float) -> Tensor:
    """Return x⁺ = idx(R̃ > δ_v) of Eq. 4 as a mask; where no cell passes, the single best cell (ours).

    Parameters
    ----------
    previous_response : Tensor (k, h, w) in [0, 1]
        R̃ of the previous epoch.
    delta_v : float in [0, 1]

    Returns
    -------
    Tensor (k, h, w) bool, at least one cell true in each map

    Examples
    --------
    >>> previous = torch.tensor([[[0.0, 0.4], [0.8, 1.0]]])
    >>> sounding_cells(previous, delta_v=0.7)
    tensor([[[False, False],
             [ True,  True]]])
    """
    return _or_extreme(sounding_region(previous_response, delta_v=delta_v), previous_response)


def non_sounding_cells(previous_response: Tensor, *, delta_v: float) -> Tensor:
    """Return x⁻ = idx(R̃ < δ_v) of Eq. 5 as a mask; where no cell passes, the single worst cell (ours).

    Parameters and return value as for `sounding_cells`.

    Examples
    --------
    >>> previous = torch.tensor([[[0.0, 0.4], [0.8, 1.0]]])
    >>> non_sounding_cells(previous, delta_v=0.7)
    tensor([[[ True,  True],
             [False, False]]])
    """
    _check_unit(delta_v=delta_v)
    return _or_extreme(previous_response < delta_v, -previous_response)


def sample_features(features: Tensor, mask: Tensor, *, cells: int, generator: torch.Generator) -> Tensor:
    """Return φ(feats(V, x)) of Eq. 4 and 5: the mean of the L2-normalized features of randomly sampled cells.

    The paper samples "randomly" without saying how many cells. We draw `cells` different ones, uniformly.

    Parameters
    ----------
    features : Tensor (k, d, h, w)
        V of the current weights.
    mask : Tensor (k, h, w) bool
        x⁺ or x⁻; each map needs at least one true cell.
    cells : int >= 0
        How many to draw; all of them where the mask has fewer. 0 takes the mean over all cells of the mask.
    generator : torch.Generator
        On the CPU.

    Returns
    -------
    Tensor (k, d)
        v⁺ or v⁻.

    Examples
    --------
    >>> features = torch.tensor([2.0, 0.0, 0.0, 5.0]).view(1, 2, 1, 2)  # cells (2, 0) and (0, 5)
    >>> mask = torch.tensor([[[False, True]]])
    >>> sample_features(features, mask, cells=1, generator=torch.Generator())
    tensor([[0., 1.]])
    """
    if mask.shape != features.shape[:1] + features.shape[2:] or mask.dtype != torch.bool:
        raise ValueError(f"mask must be bool (k, h, w) of features {tuple(features.shape)}, got {tuple(mask.shape)}")
    if cells < 0:
        raise ValueError(f"cells must be 0 or more, got {cells}")
    features, mask = features.flatten(2), mask.flatten(1)  # (k, d, h·w), (k, h·w)
    if cells > 0:
        # The largest of uniform keys is a draw without replacement; cells outside the mask come last.
        keys = send(torch.rand(mask.shape, generator=generator), mask.device)
        chosen = keys.masked_fill(~mask, -1).topk(min(cells, mask.shape[1]), dim=1).indices  # (k, cells)
        features = features.gather(2, chosen[:, None, :].expand(-1, features.shape[1], -1))
        mask = mask.gather(1, chosen)
    weights = mask / mask.sum(dim=1, keepdim=True)
    # k d c, k c -> k d
    return (F.normalize(features, dim=1) * weights[:, None, :].to(features.dtype)).sum(dim=2)


def audio_relation(audio_embedding: Tensor, *, delta_a: float, center: Tensor | None = None) -> Tensor:
    """Return y of Eq. 6: which audio of the batch belongs to which frame, by the cosine of the audio embeddings.

    Parameters
    ----------
    audio_embedding : Tensor (k, d)
        ã of the previous epoch.
    delta_a : float in [0, 1]
        Smallest cosine of related clips.
    center : Tensor (d,), optional
        Subtracted from ã first (ours): the mean over the training set. Without it all cosines of non-negative or
        unbalanced features are close to 1 and the threshold separates nothing.

    Returns
    -------
    Tensor (k, k) bool, symmetric, with a true diagonal

    Examples
    --------
    >>> embedding = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])  # cosines 0.8, 0 and 0.6
    >>> audio_relation(embedding, delta_a=0.7).int()
    tensor([[1, 1, 0],
            [1, 1, 0],
            [0, 0, 1]], dtype=torch.int32)
    """
    _check_unit(delta_a=delta_a)
    embedding = audio_embedding if center is None else audio_embedding - center
    embedding = F.normalize(embedding, dim=1)
    own = torch.eye(len(embedding), dtype=torch.bool, device=embedding.device)
    return (embedding @ embedding.T >= delta_a) | own


def iterative_loss(
    positive: Tensor,
    audio: Tensor,
    *,
    temperature: float,
    negative: Tensor | None = None,
    relation: Tensor | None = None,
) -> Tensor:
    """Return Eq. 7: v⁺ against every related audio, among v⁺ and v⁻ with all audio of the batch.

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
        y (Eq. 6); its diagonal always counts as true. None leaves the inter-frame relation out.

    Returns
    -------
    Tensor, scalar

    Examples
    --------
    >>> positive, negative, audio = torch.eye(2), torch.zeros(2, 2), torch.eye(2)
    >>> iterative_loss(positive, audio, temperature=1.0)  # log(1 + e⁻¹)
    tensor(0.3133)
    >>> iterative_loss(positive, audio, temperature=1.0, negative=negative)  # log(1 + 3 e⁻¹)
    tensor(0.7437)
    """
    positive_logits = _logits(positive, audio, temperature)  # (k, k)
    related = torch.eye(len(audio), dtype=torch.bool, device=audio.device)
    if relation is not None:
        if relation.shape != related.shape or relation.dtype != torch.bool:
            raise ValueError(f"relation must be bool {(*related.shape,)}, got {relation.dtype} {(*relation.shape,)}")
        related = related | relation
    all_logits = positive_logits
    if negative is not None:
        all_logits = torch.cat([positive_logits, _logits(negative, audio, temperature)], dim=1)  # (k, 2k)
    # A difference of two log-sum-exps does not overflow at small τ, as the quotient of the paper would.
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


def _or_extreme(mask: Tensor, score: Tensor) -> Tensor:
    """Add the cell of the highest score to the maps whose mask is empty."""
    best = score.flatten(1).argmax(dim=1, keepdim=True)
    empty = ~mask.flatten(1).any(dim=1, keepdim=True)
    fallback = torch.zeros_like(mask).flatten(1).scatter(1, best, empty)
    return mask | fallback.view_as(mask)


def _check_unit(**threshold: float) -> None:
    for name, value in threshold.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must lie in [0, 1], got {value}")
