"""Deep multimodal clustering (Hu et al. 2019), the row DMC of Table 1.

The cells of a frame are clustered into the sources and one background, those of its sound into the sources; a center of
the sound must lie near one of its own frame's centers and far from those of the batch's other frames.

Conventions
-----------
p cells, of a frame or of a log-mel's feature map, are (n, p, d), L2-normalized, so that distances lie in [0, 2] and the
sharpness z and the margin mean the same with any encoder. K centers are (n, K, d), assignments (n, p, K) with sum 1 over K.
Everything after the encoders is computed in float32 at least, whatever autocast says.

What we chose where the sources are silent, or public code has a fault
---------------------------------------------------------------------
- Initial centers. Public code takes the cells 0, p/K, … in reading order: all on the frame's left edge when K divides its
  height, so that two lie on the background. Ours are the cell nearest to the mean of all, then again and again the one
  farthest from those chosen: no randomness, and no place in the frame is special.
- The assignments that are read as a map belong to the final centers: the last round assigns once more.
- Which center is the background is nowhere given: it is one that no center of the sound is nearest to. (One public version
  reads the map of the second nearest, without a reason.)
- The loss is the contrastive one with a margin of the version for sound localization, with unit centers and all other
  sounds of the batch in place of one; the hinge of the original code, with margin 10 on cosines, never ends and hence
  weighs all pairs alike.
- The sound is clustered as well, into `sources` centers, as the original text has it; the version for sound localization has
  one center. A pair's distance is the mean over the sound's centers.
- With several sources each center of the sound chooses its own nearest center of the frame. Two may choose the same one: a
  sound of one source must not be torn apart.
- The fully connected layer on each cell starts as the identity, so that training starts from what Eq. 3 has learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.common.config import Count, IterationSettings, Positive
from pipeline.methods.base import Batch, Method
from pipeline.model.encoders import AudioVisualModel

# Squared distances are raised to this: the square root has an infinite gradient at 0, and in float32 the difference of
# the inner products of unit vectors is only good to 1e-7.
SMALLEST_SQUARE = 1.0e-6


class DmcSettings(IterationSettings):
    """Those of `iterate` (of which only the optimizer's play a part), and the clustering's own."""

    sources: Count = 1  # clusters of the sound; a frame has one more, its background
    # z of the softmax over the distances to the centers; at the 30 of public code one outlying cell can remain a cluster
    sharpness: Positive = 10.0
    rounds: Count = 4  # of the clustering
    margin: Annotated[float, Field(gt=0, le=2)] = 1.4  # distance from which a pair of different clips costs nothing


class Dmc(Method):
    """Clusters of the frame's cells against clusters of the sound's."""

    Settings = DmcSettings

    def __init__(self, settings: DmcSettings) -> None:
        self.sources = settings.sources
        self.sharpness = settings.sharpness
        self.rounds = settings.rounds
        self.margin = settings.margin

    def prepare(self, model: AudioVisualModel, *, n_clips: int, classes: Sequence[str]) -> None:
        """Put a fully connected layer for each kind of cell into `model.heads`, as the identity."""
        for name in ("dmc_visual", "dmc_audio"):
            layer = nn.Linear(model.dim, model.dim)
            nn.init.eye_(layer.weight)
            nn.init.zeros_(layer.bias)
            model.heads[name] = layer

    def loss(self, model: AudioVisualModel, batch: Batch) -> Tensor:
        """Contrastive loss on the distances of all pairs of the batch."""
        visual, _, _ = self._cluster_frames(model, batch.frames)
        audio = self._cluster_audio(model, batch.log_mel)
        return margin_loss(pair_distances(visual, audio), margin=self.margin)

    def localize(self, model: AudioVisualModel, frames: Tensor, log_mel: Tensor) -> tuple[Tensor, Tensor]:
        """Return the assignments to the sounding clusters, and the mean of the sound's centers as its embedding."""
        visual, assignments, (height, width) = self._cluster_frames(model, frames)
        audio = self._cluster_audio(model, log_mel)
        response = sounding_assignments(assignments, visual, audio)
        return response.unflatten(1, (height, width)), F.normalize(F.normalize(audio, dim=2).mean(dim=1), dim=1)

    def _cluster_frames(self, model: AudioVisualModel, frames: Tensor) -> tuple[Tensor, Tensor, tuple[int, int]]:
        features = model.project_frames(model.visual_features(frames))  # n d h w
        cells = features.flatten(2).transpose(1, 2)  # n p d
        centers, assignments = self._cluster(model.heads["dmc_visual"], cells, self.sources + 1)
        return centers, assignments, (features.shape[2], features.shape[3])

    def _cluster_audio(self, model: AudioVisualModel, log_mel: Tensor) -> Tensor:
        # The map that `encode_audio` pools, every cell of it through the layers for the pooled one.
        raw = model.audio_maps(log_mel).flatten(2).transpose(1, 2)  # n c p -> n p c
        features = model.project_audio(raw.flatten(0, 1)).reshape(*raw.shape[:2], -1)  # n p d
        return self._cluster(model.heads["dmc_audio"], features, self.sources)[0]

    def _cluster(self, layer: nn.Module, features: Tensor, count: int) -> tuple[Tensor, Tensor]:
        with torch.autocast(features.device.type, enabled=False):
            cells = F.normalize(layer(F.normalize(features, dim=2)), dim=2)  # n p d
            initial = spread_cells(cells, count)
            return soft_k_means(cells, initial, sharpness=self.sharpness, rounds=self.rounds)


def spread_cells(cells: Tensor, count: int) -> Tensor:
    """Choose cells that differ as initial centers: the one nearest to the mean, then the farthest from those chosen.

    Parameters
    ----------
    cells : Tensor (n, p, d) floating
    count : int >= 1
        K. With fewer than K different cells, some are chosen again.

    Returns
    -------
    Tensor (n, K, d)
        Where several cells are equally far, the first of them.
    """
    with torch.no_grad():
        rows = [distances(cells, cells.mean(dim=1, keepdim=True)).squeeze(2).argmin(dim=1)]  # (n,)
        nearest = torch.full(cells.shape[:2], torch.inf, dtype=cells.dtype, device=cells.device)
        for _ in range(count - 1):
            nearest = torch.minimum(nearest, distances(cells, _take(cells, rows[-1:])).squeeze(2))
            rows.append(nearest.argmax(dim=1))
    return _take(cells, rows)


def soft_k_means(cells: Tensor, initial: Tensor, *, sharpness: float, rounds: int) -> tuple[Tensor, Tensor]:
    """Soft k-means, differentiable through all its rounds.

    A round assigns every cell with softmax_k(-z |cell - center_k|), and makes each center the mean of the cells with its
    assignments as weights.

    Parameters
    ----------
    cells : Tensor (n, p, d) floating
    initial : Tensor (n, K, d)
        Initial centers.
    sharpness : float > 0
        z.
    rounds : int >= 1

    Returns
    -------
    centers : Tensor (n, K, d)
        Of the last round.
    assignments : Tensor (n, p, K)
        To these centers.

    Raises
    ------
    ValueError
        The shapes do not belong together, or `sharpness` or `rounds` is not positive.
    """
    if cells.ndim != 3 or initial.ndim != 3 or (len(cells), cells.shape[2]) != (len(initial), initial.shape[2]):
        raise ValueError(
            f"cells {tuple(cells.shape)} and centers {tuple(initial.shape)} are not (n, p, d) and (n, K, d)"
        )
    if not sharpness > 0 or rounds < 1:
        raise ValueError(f"sharpness and rounds must be positive, got {sharpness} and {rounds}")
    centers = initial
    for _ in range(rounds):
        # Normalized over the cells as logarithms, a cluster that no cell is near to still has weights of sum 1.
        weights = F.log_softmax(-sharpness * distances(cells, centers), dim=2).softmax(dim=1)
        with torch.autocast(cells.device.type, enabled=False):
            centers = weights.transpose(1, 2) @ cells  # n K p, n p d -> n K d
    return centers, (-sharpness * distances(cells, centers)).softmax(dim=2)


def distances(x: Tensor, y: Tensor) -> Tensor:
    """Euclidean distances, (…, p, d) and (…, q, d) → (…, p, q), none below 1e-3; the gradient is finite everywhere."""
    with torch.autocast(x.device.type, enabled=False):
        squares = x.square().sum(dim=-1).unsqueeze(-1) + y.square().sum(dim=-1).unsqueeze(-2)
        return (squares - 2 * x @ y.transpose(-1, -2)).clamp_min(SMALLEST_SQUARE).sqrt()


def pair_distances(visual: Tensor, audio: Tensor) -> Tensor:
    """Distance between every frame and every sound, (k, k).

    Each center of sound j takes the nearest of frame i, all of unit length; the mean over the centers of the sound.

    Parameters
    ----------
    visual : Tensor (k, K_v, d)
        Centers of the frames.
    audio : Tensor (k, K_a, d)
        Centers of the sounds.
    """
    visual, audio = F.normalize(visual, dim=2), F.normalize(audio, dim=2)
    # i 1 v d, 1 j a d -> i j v a
    return distances(visual[:, None], audio[None]).amin(dim=2).mean(dim=2)


def margin_loss(pairs: Tensor, *, margin: float) -> Tensor:
    """½ (mean_i D_ii² + mean_{i≠j} max(0, m - D_ij)²).

    Parameters
    ----------
    pairs : Tensor (k, k), k > 1
        D: frame i, sound j.
    margin : float
        m.

    Returns
    -------
    Tensor, scalar
    """
    k = len(pairs)
    if pairs.shape != (k, k) or k < 2:
        raise ValueError(f"the distances of at least two clips are needed, as a square; got {tuple(pairs.shape)}")
    own = torch.eye(k, dtype=torch.bool, device=pairs.device)
    others = (margin - pairs).clamp_min(0).square().masked_fill(own, 0).sum() / (k * (k - 1))
    return (pairs.diagonal().square().mean() + others) / 2


def sounding_assignments(assignments: Tensor, visual: Tensor, audio: Tensor) -> Tensor:
    """Say how far each cell belongs to a cluster that sounds.

    Parameters
    ----------
    assignments : Tensor (n, p, K_v)
    visual : Tensor (n, K_v, d)
        Centers of the frames.
    audio : Tensor (n, K_a, d)
        Centers of the sounds.

    Returns
    -------
    Tensor (n, p) in [0, 1]
        Assignment to the cluster that a center of the sound is nearest to; the largest over these centers.
    """
    winners = distances(F.normalize(visual, dim=2), F.normalize(audio, dim=2)).argmin(dim=1)  # (n, K_a)
    index = winners[:, None].expand(-1, assignments.shape[1], -1)  # n p a
    return assignments.gather(2, index).amax(dim=2)


def _take(cells: Tensor, rows: Sequence[Tensor]) -> Tensor:
    """Cells at K indices of shape (n,) each: (n, K, d)."""
    index = torch.stack(list(rows), dim=1)  # n K
    # Not by `gather`, whose gradient on CUDA sums in any order; not with `len`, which a traced export takes for a constant.
    return cells[torch.arange(cells.shape[0], device=cells.device)[:, None], index]
