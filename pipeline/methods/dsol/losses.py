"""The losses of DSOL as pure functions of tensors: correspondence, class masks, category matching.

Source: Hu et al., "Discriminative Sounding Objects Localization via Self-supervised Audiovisual Matching", NeurIPS 2020.

Conventions
-----------
A batch has k pairs and c clusters ("classes"). Features V (k, d, h, w) and dictionary keys D (c, d) are L2-normalized, so that
a class mask is a cosine. Location logits are (k, h, w); the location map l is their sigmoid. Functions compute in the dtype of
their inputs; callers pass at least float32.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def correspondence_loss(positive: Tensor, negative: Tensor, *, grid: int) -> Tensor:
    """Return ½ BCE(max l⁺, 1) + ½ BCE(max l⁻, 0): some cell sounds in a true pair, none in a false pair.

    Parameters
    ----------
    positive : Tensor (k, h, w)
        Location logits of frames with their own audio.
    negative : Tensor (k, h, w)
        Location logits of frames with other audio.
    grid : int >= 1
        The maps of false pairs are divided into grid × grid equal parts, and the maximum of each part is penalized. The public
        code uses 1 in stage one and 2 in stage two, for mosaics of 2 × 2 scenes.

    Returns
    -------
    Tensor, scalar
        Computed from the logits: the sigmoid is monotone, so the maxima are at the same cells.

    Raises
    ------
    ValueError
        The maps have fewer cells per side than the grid.
    """
    if grid < 1 or min(negative.shape[1:]) < grid:
        raise ValueError(f"silence_grid {grid} does not fit maps of {tuple(negative.shape[1:])} cells")
    heard = F.softplus(-positive.amax(dim=(1, 2))).mean()
    # No adaptive_max_pool2d: its backward pass on CUDA is not deterministic.
    parts = [part for rows in negative.tensor_split(grid, dim=1) for part in rows.tensor_split(grid, dim=2)]
    silent = F.softplus(torch.stack([part.amax(dim=(1, 2)) for part in parts])).mean()
    return 0.5 * (heard + silent)


def class_masks(features: Tensor, keys: Tensor) -> Tensor:
    """Return m (k, c, h, w) = max(0, D · V) in [0, 1]: where each class is, whether it sounds or not.

    The paper's features come out of a ReLU, so their inner products are never negative. Ours are centered, so the negative half is
    cut off: a cell that is unlike a class does not tell where the class is.
    """
    # k d h w, c d -> k c h w
    return torch.einsum("kdhw,cd->kchw", features, keys).relu()


def category_logits(masks: Tensor, location: Tensor, *, temperature: float) -> Tensor:
    """Return logits (k, c) of p_so, the classes that sound in the frame: the spatial mean of m ⊙ l, over a temperature.

    Parameters
    ----------
    masks : Tensor (k, c, h, w)
        m.
    location : Tensor (k, h, w) in [0, 1]
        l.
    temperature : float > 0
        Ours. The paper's inner products of raw features are in the tens and need none. Here, products of two values below 1,
        averaged over a frame that is mostly background, are a few hundredths.
    """
    return (masks * location[:, None]).mean(dim=(2, 3)) / temperature


def matching_loss(image_logits: Tensor, audio_distribution: Tensor) -> Tensor:
    """Return KL(p_a ‖ p_so), summed over classes and averaged over clips: the classes seen sounding match those heard.

    Parameters
    ----------
    image_logits : Tensor (k, c)
        See `category_logits`.
    audio_distribution : Tensor (k, c)
        p_a; rows sum to 1.

    Notes
    -----
    The paper writes D_KL without saying which argument is the target. The public code takes p_a, and so do we. The code also averages
    over classes, which weakens the term by their number; we do not.
    """
    return F.kl_div(image_logits.log_softmax(dim=1), audio_distribution, reduction="batchmean")
