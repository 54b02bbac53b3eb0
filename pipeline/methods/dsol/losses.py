"""Objectives of DSOL as pure functions of tensors: correspondence, class masks, category matching.

Source: Hu et al., "Discriminative Sounding Objects Localization via Self-supervised Audiovisual Matching", NeurIPS 2020.

Conventions
-----------
A batch has k pairs and c clusters ("classes"). Features V (k, d, h, w) and dictionary keys D (c, d) are L2-normalized, so that
a class mask is a cosine. Location logits are (k, h, w); the location map l is their sigmoid. Everything is computed in the
dtype it comes in: callers hand over float32 or better.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def correspondence_loss(positive: Tensor, negative: Tensor, *, grid: int) -> Tensor:
    """Some cell sounds in a true pair, none in a false one: ½ BCE(max l⁺, 1) + ½ BCE(max l⁻, 0).

    Parameters
    ----------
    positive : Tensor (k, h, w)
        Location logits of frames with their own sounds.
    negative : Tensor (k, h, w)
        Location logits of frames with other sounds.
    grid : int >= 1
        The false pairs' map is silenced in each of grid × grid equal parts by its own maximum, not by one for the whole
        map. The public code has 1 in stage one, and in stage two 2, for mosaics of 2 × 2 scenes.

    Returns
    -------
    Tensor, scalar
        Computed from logits: the sigmoid is monotone, so its maximum is where theirs is.

    Raises
    ------
    ValueError
        The maps have fewer cells a side than the grid.
    """
    if grid < 1 or min(negative.shape[1:]) < grid:
        raise ValueError(f"silence_grid {grid} does not fit maps of {tuple(negative.shape[1:])} cells")
    heard = F.softplus(-positive.amax(dim=(1, 2))).mean()
    # Not adaptive_max_pool2d: its backward pass on CUDA is not deterministic.
    parts = [part for rows in negative.tensor_split(grid, dim=1) for part in rows.tensor_split(grid, dim=2)]
    silent = F.softplus(torch.stack([part.amax(dim=(1, 2)) for part in parts])).mean()
    return 0.5 * (heard + silent)


def class_masks(features: Tensor, keys: Tensor) -> Tensor:
    """Where each class is, whether it sounds or not: m (k, c, h, w) = max(0, D · V), in [0, 1].

    The paper's features follow a ReLU, so that its inner products are never negative; ours are centered, and the negative
    half is cut off here: what is unlike a class says nothing about where the class is.
    """
    # k d h w, c d -> k c h w
    return torch.einsum("kdhw,cd->kchw", features, keys).relu()


def category_logits(masks: Tensor, location: Tensor, *, temperature: float) -> Tensor:
    """Logits (k, c) of p_so, which classes of the frame sound: the spatial mean of m ⊙ l for each class, over a temperature.

    Parameters
    ----------
    masks : Tensor (k, c, h, w)
        m.
    location : Tensor (k, h, w) in [0, 1]
        l.
    temperature : float > 0
        Ours. The paper's inner products of raw features are in the tens, so that their softmax needs none; the mean of a
        product of two values below 1 over a frame that is mostly background is a few hundredths.
    """
    return (masks * location[:, None]).mean(dim=(2, 3)) / temperature


def matching_loss(image_logits: Tensor, audio_distribution: Tensor) -> Tensor:
    """KL(p_a ‖ p_so): the classes that sound in a frame are those that are heard, summed over classes, averaged over clips.

    Parameters
    ----------
    image_logits : Tensor (k, c)
        See `category_logits`.
    audio_distribution : Tensor (k, c)
        p_a, each row sums to 1.

    Notes
    -----
    The paper writes D_KL without saying which argument is the target; the public code takes p_a for it, and so do we. It
    also averages over clips and classes, which weakens the term by the number of classes; we do not.
    """
    return F.kl_div(image_logits.log_softmax(dim=1), audio_distribution, reduction="batchmean")
