"""From features to a sounding region: Eq. 1 and 2 of the paper.

Conventions
-----------
V (n, d, h, w) features of the frames' cells, a (n, d) features of the sounds, R (n, h, w) response maps; row 0 is the top.
"Raw" maps of Eq. 1 are inner products in [-1, 1] (other systems have other maps: `pipeline.methods`); R̃ is a map after min-max normalization, in [0, 1].
"""

from __future__ import annotations

from torch import Tensor


def response_map(features: Tensor, audio: Tensor) -> Tensor:
    """Raw response map R = V * a, the inner product at every cell (Eq. 1, first line).

    Parameters
    ----------
    features : Tensor (n, d, h, w)
    audio : Tensor (n, d)

    Returns
    -------
    Tensor (n, h, w)

    Raises
    ------
    ValueError
        The shapes do not belong together.
    """
    if features.ndim != 4 or audio.shape != features.shape[:2]:
        raise ValueError(
            f"features {tuple(features.shape)} and audio {tuple(audio.shape)} are not (n, d, h, w) and (n, d)"
        )
    # n d h w, n d -> n h w
    return (features * audio[:, :, None, None]).sum(dim=1)


def min_max(response: Tensor) -> Tensor:
    """R̃: every map stretched to [0, 1] (Eq. 1, second line). A constant map becomes zeros, so that no cell sounds.

    Parameters
    ----------
    response : Tensor (..., h, w) floating
    """
    low, high = response.amin(dim=(-2, -1), keepdim=True), response.amax(dim=(-2, -1), keepdim=True)
    spread = high - low
    return (response - low) / spread.masked_fill(spread == 0, 1)


def sounding_region(normalized_response: Tensor, *, delta_v: float) -> Tensor:
    """S = idx(R̃ > δ_v), as a mask (Eq. 2).

    Parameters
    ----------
    normalized_response : Tensor (..., h, w) in [0, 1]
        After `min_max`.
    delta_v : float in [0, 1]

    Returns
    -------
    Tensor (..., h, w) bool
    """
    if not 0 <= delta_v <= 1:
        raise ValueError(f"delta_v must lie in [0, 1], got {delta_v}")
    return normalized_response > delta_v
