"""The losses and maps of MSSL (Qian et al., ECCV 2020) as pure functions of tensors.

Conventions
-----------
A batch has k pairs; C classes, d features, p features after a projection. Class activations are (k, C, h, w), ≥ 0. Everything is
computed in at least float32; losses are scalars ≥ 0. The formulas are those of the public code.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

# Added to the sum of a class activation, which may be 0 everywhere; as in the public code.
NO_ACTIVATION = 1.0e-10
# Lower bound of squared distances: the gradient of the square root is infinite at 0.
SMALLEST_SQUARE = 1.0e-8
# Rows of the alignment's distance matrix per block: with hundreds of classes the full matrix has more than 10^9 entries.
PAIR_ROWS = 1024


def correspondence_loss(logits: Tensor) -> Tensor:
    """Return half the mean cross-entropy of the right pairs plus half that of the wrong pairs.

    Parameters
    ----------
    logits : Tensor (k, k) floating, k >= 2
        How well frame i and audio j match; right pairs are on the diagonal. The public code has two outputs under a softmax;
        their difference is our logit, and gives the same loss.

    Raises
    ------
    ValueError
        The matrix is not square, or has no wrong pair.
    """
    if logits.ndim != 2 or len(logits) != logits.shape[1] or len(logits) < 2:
        raise ValueError(f"logits must be (k, k) with k >= 2, got {tuple(logits.shape)}")
    logits, k = _wide(logits), len(logits)
    own = torch.eye(k, dtype=torch.bool, device=logits.device)
    wrong = F.softplus(logits).masked_fill(own, 0).sum() / (k * (k - 1))
    return (F.softplus(-logits.diagonal()).mean() + wrong) / 2


def classification_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the binary cross-entropy, averaged over the clips and classes whose target is known; 0 if none is.

    Parameters
    ----------
    logits : Tensor (k, C) floating
    targets : Tensor (k, C) floating, in [0, 1], or NaN where unknown

    Raises
    ------
    ValueError
        The shapes differ.
    """
    if logits.shape != targets.shape:
        raise ValueError(f"logits {tuple(logits.shape)} and targets {tuple(targets.shape)} must have the same shape")
    logits, known = _wide(logits), ~targets.isnan()
    # As a weight, not as a sum over a selection: if all targets are known, the gradient has the bits of the plain mean.
    weight = known * (known.numel() / known.sum().clamp_min(1))
    return F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype).nan_to_num(), weight=weight)


def activated_features(features: Tensor, activation: Tensor) -> Tensor:
    """Return the mean of the cells' features, weighted by each class's activation; zeros for a class that is active nowhere.

    The public code divides the mean over cells by the sum of the activation, which makes the features too small by a factor of the
    number of cells. Dividing sum by sum puts them on the scale of a cell's features, with which they are compared later.

    Parameters
    ----------
    features : Tensor (k, d, h, w) floating
    activation : Tensor (k, C, h, w) floating, >= 0

    Returns
    -------
    Tensor (k, C, d)
    """
    weights = activation.flatten(2)
    # k C s, k d s -> k C d
    return weights @ features.flatten(2).transpose(1, 2) / (weights.sum(dim=2, keepdim=True) + NO_ACTIVATION)


def alignment_loss(
    audio: Tensor, visual: Tensor, *, audible: Tensor, visible: Tensor, margin: float, rows: int = PAIR_ROWS
) -> Tensor:
    """Pull a clip's audio and visual feature of the same class together, and push all other pairs apart.

    With D = 2 - 2 cos between every audible and every visible (clip, class): the mean of D over pairs of the same clip and class, plus
    the mean of max(0, margin - √D)² over all other pairs. A mean over no pairs is 0. Memory grows with `rows` × visible, time with
    audible × visible.

    Parameters
    ----------
    audio, visual : Tensor (k, C, p) floating
        L2-normalized.
    audible, visible : Tensor (k, C) bool
        Which (clip, class) features take part.
    margin : float > 0
        Distance √D beyond which a wrong pair costs nothing; orthogonal features are √2 apart.
    rows : int >= 1
        Audible features per block; does not change the result.

    Raises
    ------
    ValueError
        The shapes do not match, or the margin is not positive.
    """
    if audio.shape != visual.shape or audio.ndim != 3 or not audible.shape == visible.shape == audio.shape[:2]:
        raise ValueError(
            f"audio {tuple(audio.shape)} and visual {tuple(visual.shape)} must both be (k, C, p), audible "
            f"{tuple(audible.shape)} and visible {tuple(visible.shape)} (k, C)"
        )
    if not margin > 0:
        raise ValueError(f"margin must be positive, got {margin}")
    audio, visual, both = _wide(audio), _wide(visual), audible & visible
    near = (2 - 2 * (audio * visual).sum(dim=2))[both].sum() / both.sum().clamp_min(1)
    # The number of features is known on the host only after the GPU is done, so stage II waits in every step. Without this selection, time
    # and memory would grow with all classes.
    heard, seen = (mask.flatten().nonzero().squeeze(1) for mask in (audible, visible))
    heard_points, seen_points = audio.flatten(0, 1)[heard], visual.flatten(0, 1)[seen]

    def apart(points: Tensor, own: Tensor) -> Tensor:
        # i p, j p -> i j
        square = (2 - 2 * points @ seen_points.T).clamp_min(SMALLEST_SQUARE)
        return F.relu(margin - square.sqrt()).square().masked_fill(own[:, None] == seen[None, :], 0).sum()

    # Each block's matrix is recomputed for the gradient, so that only one is in memory at a time.
    blocks = zip(heard_points.split(rows), heard.split(rows), strict=True)
    far = sum(
        (checkpoint(apart, *block, use_reentrant=False, preserve_rng_state=False) for block in blocks),
        start=near.new_zeros(()),
    )
    return near + far / (len(heard) * len(seen) - both.sum()).clamp_min(1)


def present(class_maps: Tensor, *, threshold: float) -> Tensor:
    """Return which classes are present: probability above the threshold, and at least one active cell.

    Parameters
    ----------
    class_maps : Tensor (k, C, h, w) floating
        Output of a class layer.
    threshold : float in [0, 1]

    Returns
    -------
    Tensor (k, C) bool
    """
    return (torch.sigmoid(_wide(class_maps).mean(dim=(2, 3))) > threshold) & active(class_maps)


def active(class_maps: Tensor) -> Tensor:
    """Return which classes are active in any cell: (k, C, h, w) -> (k, C) bool."""
    return (class_maps > 0).flatten(2).any(dim=2)


def class_weights(logits: Tensor, *, threshold: float, usable: Tensor | None = None) -> Tensor:
    """Return the probabilities above the threshold, divided by their sum; only the most probable class if none is above.

    Parameters
    ----------
    logits : Tensor (n, C) floating
    threshold : float in [0, 1]
    usable : Tensor (n, C) bool, optional
        Classes that may get a weight; by default all.

    Returns
    -------
    Tensor (n, C), rows sum to 1, or to 0 if no class is usable
    """
    probability = torch.sigmoid(_wide(logits))
    usable = torch.ones_like(logits, dtype=torch.bool) if usable is None else usable
    best = F.one_hot(logits.masked_fill(~usable, -torch.inf).argmax(dim=1), logits.shape[1]).bool()
    kept = (probability > threshold) & usable
    kept = kept | (best & usable & ~kept.any(dim=1, keepdim=True))
    weights = probability * kept
    return weights / weights.sum(dim=1, keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)


def weighted_map(maps: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted sum of the positive parts of class maps: (n, C, h, w) and (n, C) -> (n, h, w)."""
    # n C h w, n C -> n h w
    return (F.relu(maps) * weights[:, :, None, None]).sum(dim=1)


def _wide(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
