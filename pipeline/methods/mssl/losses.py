"""The losses of MSSL (Qian et al., ECCV 2020) and its maps, as pure functions of tensors.

Conventions
-----------
k pairs in a batch, C classes, d features, p features after a projection. Class activations are (k, C, h, w), ≥ 0. All is
computed in float32 at least; every loss is a scalar ≥ 0. The formulae are those of the public code of the system.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

# Added to the sum of a class activation that may be 0 everywhere, as in the public code.
NO_ACTIVATION = 1.0e-10
# Smallest squared distance of which a root is taken: the root's slope at 0 is infinite.
SMALLEST_SQUARE = 1.0e-8
# Rows of the alignment's matrix in memory at once: with hundreds of classes the whole of it has 10^9 entries and more.
PAIR_ROWS = 1024


def correspondence_loss(logits: Tensor) -> Tensor:
    """Half the mean cross-entropy of the right pairs plus half that of the wrong ones.

    Parameters
    ----------
    logits : Tensor (k, k) floating, k >= 2
        How much frame i and sound j seem to belong together; right pairs on the diagonal. One logit is the difference of
        the two outputs that the public code has under a softmax, and gives the same loss.

    Raises
    ------
    ValueError
        The logits are not square, or there is no wrong pair.
    """
    if logits.ndim != 2 or len(logits) != logits.shape[1] or len(logits) < 2:
        raise ValueError(f"logits must be (k, k) with k >= 2, got {tuple(logits.shape)}")
    logits, k = _wide(logits), len(logits)
    own = torch.eye(k, dtype=torch.bool, device=logits.device)
    wrong = F.softplus(logits).masked_fill(own, 0).sum() / (k * (k - 1))
    return (F.softplus(-logits.diagonal()).mean() + wrong) / 2


def classification_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy of each class, averaged over clips and classes.

    Parameters
    ----------
    logits : Tensor (k, C) floating
    targets : Tensor (k, C) floating, in [0, 1]

    Raises
    ------
    ValueError
        The shapes differ.
    """
    if logits.shape != targets.shape:
        raise ValueError(f"logits {tuple(logits.shape)} and targets {tuple(targets.shape)} must have the same shape")
    logits = _wide(logits)
    return F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype))


def activated_features(features: Tensor, activation: Tensor) -> Tensor:
    """Mean of the cells' features, weighted by each class's activation; zeros where a class is active nowhere.

    The public code divides the mean over cells by the sum of the activation, which leaves the features too small by the number
    of cells. Sum by sum, as here, they are as large as those of a cell, with which they are compared later.

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
    """Draw what one clip's sound and frame say of one class together, and push all else apart.

    D = 2 - 2 cos between each audible and each visible (clip, class): mean D of those with the same clip and class, plus the
    mean of max(0, margin - √D)² of all others. A mean over nothing is 0. Memory grows with `rows` times the visible ones; time
    with the product of both.

    Parameters
    ----------
    audio, visual : Tensor (k, C, p) floating
        L2-normalized.
    audible, visible : Tensor (k, C) bool
        Which of them take part.
    margin : float > 0
        Distance √D from which two that do not belong together cost nothing; √2 is a right angle.
    rows : int >= 1
        Audible ones that are compared at once; no part of the result.

    Raises
    ------
    ValueError
        The shapes do not belong together, or the margin is not positive.
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
    heard, seen = (mask.flatten().nonzero().squeeze(1) for mask in (audible, visible))
    heard_points, seen_points = audio.flatten(0, 1)[heard], visual.flatten(0, 1)[seen]

    def apart(points: Tensor, own: Tensor) -> Tensor:
        # i p, j p -> i j
        square = (2 - 2 * points @ seen_points.T).clamp_min(SMALLEST_SQUARE)
        return F.relu(margin - square.sqrt()).square().masked_fill(own[:, None] == seen[None, :], 0).sum()

    # Each block's matrix is made again for the gradient, so that no two stand in memory at once.
    blocks = zip(heard_points.split(rows), heard.split(rows), strict=True)
    far = sum((checkpoint(apart, *block, use_reentrant=False) for block in blocks), start=near.new_zeros(()))
    return near + far / (len(heard) * len(seen) - both.sum()).clamp_min(1)


def present(class_maps: Tensor, *, threshold: float) -> Tensor:
    """Tell which classes are there: a probability above the threshold, and a cell that is active.

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
    """Tell which classes are active in any cell: (k, C, h, w) -> (k, C) bool."""
    return (class_maps > 0).flatten(2).any(dim=2)


def class_weights(logits: Tensor, *, threshold: float, usable: Tensor | None = None) -> Tensor:
    """Probabilities above the threshold, over their sum; the most probable class alone where none is above it.

    Parameters
    ----------
    logits : Tensor (n, C) floating
    threshold : float in [0, 1]
    usable : Tensor (n, C) bool, optional
        Classes that may count; by default all.

    Returns
    -------
    Tensor (n, C), each row with sum 1, or 0 where no class is usable
    """
    probability = torch.sigmoid(_wide(logits))
    usable = torch.ones_like(logits, dtype=torch.bool) if usable is None else usable
    best = F.one_hot(logits.masked_fill(~usable, -torch.inf).argmax(dim=1), logits.shape[1]).bool()
    kept = (probability > threshold) & usable
    kept = kept | (best & usable & ~kept.any(dim=1, keepdim=True))
    weights = probability * kept
    return weights / weights.sum(dim=1, keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)


def weighted_map(maps: Tensor, weights: Tensor) -> Tensor:
    """Sum of the positive parts of maps per class (n, C, h, w), weighted by (n, C): (n, h, w)."""
    # n C h w, n C -> n h w
    return (F.relu(maps) * weights[:, :, None, None]).sum(dim=1)


def _wide(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
