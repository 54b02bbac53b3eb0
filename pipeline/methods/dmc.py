"""Deep multimodal clustering (Hu et al., CVPR 2019): the row DMC of Table 1.

The cells of a frame are clustered into the sources and the background, those of its audio into the sources. Each audio center must be
close to a center of its own frame, and far from those of the other frames in the batch. Our choices and their reasons:
docs/methods.md, "DMC".

Conventions
-----------
p cells, of a frame or of the audio feature map, are (n, p, d) and L2-normalized, so that distances are in [0, 2], and the sharpness z
and the margin mean the same with any encoder. K centers are (n, K, d); assignments are (n, p, K) and sum to 1 over K.
Everything after the encoders is computed in at least float32, also under autocast.
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
from pipeline.methods.heads import identity_layer
from pipeline.model.encoders import AudioVisualModel

# Lower bound of squared distances: the gradient of the square root is infinite at 0, and in float32 a difference of inner
# products of unit vectors is only accurate to about 1e-7.
SMALLEST_SQUARE = 1.0e-6


class DmcSettings(IterationSettings):
    """Settings of the clustering. Of the inherited ones, only the optimizer's are used."""

    sources: Count = 1  # clusters of the audio
    # Clusters that the frame has in addition. 1 in the sources; a frame whose background has several parts needs more,
    # because otherwise the object does not get a cluster of its own: docs/methods.md.
    background: Count = 1
    # z in the softmax over distances. With 30, as in public code, one outlying cell can remain a cluster of its own.
    sharpness: Positive = 10.0
    rounds: Count = 4  # of k-means
    # Distance beyond which a wrong pair costs nothing. Ours: the largest distance. An uninformed model has a loss of m²/4. With a
    # smaller margin, this is less than the loss of the initialization, so training moves toward it.
    margin: Annotated[float, Field(gt=0, le=2)] = 2.0


class Dmc(Method):
    """Matches clusters of frame cells to clusters of audio cells."""

    Settings = DmcSettings
    reads_labels = False

    def __init__(self, settings: DmcSettings) -> None:
        self.sources = settings.sources
        self.background = settings.background
        self.sharpness = settings.sharpness
        self.rounds = settings.rounds
        self.margin = settings.margin

    def prepare(self, model: AudioVisualModel, *, n_clips: int, classes: Sequence[str]) -> None:
        """Add one fully connected layer per modality, initialized to the identity."""
        for name in ("dmc_visual", "dmc_audio"):
            model.heads[name] = identity_layer(model.dim)

    def loss(self, model: AudioVisualModel, batch: Batch) -> Tensor:
        """Return the contrastive loss on the distances of all pairs in the batch."""
        visual, _, _ = self._cluster_frames(model, batch.frames)
        audio = self._cluster_audio(model, batch.log_mel)
        return margin_loss(pair_distances(visual, audio), margin=self.margin)

    def uninformed_loss(self, model: AudioVisualModel, batch: Batch) -> float:
        """Return m²/4: a distance d of all pairs costs ½ (d² + (m - d)²), which is least at m/2."""
        return self.margin**2 / 4

    def localize(self, model: AudioVisualModel, frames: Tensor, log_mel: Tensor) -> tuple[Tensor, Tensor]:
        """Return the assignments to the sounding clusters, and the mean of the audio centers as audio embedding."""
        visual, assignments, (height, width) = self._cluster_frames(model, frames)
        audio = self._cluster_audio(model, log_mel)
        response = sounding_assignments(assignments, visual, audio)
        return response.unflatten(1, (height, width)), F.normalize(F.normalize(audio, dim=2).mean(dim=1), dim=1)

    def _cluster_frames(self, model: AudioVisualModel, frames: Tensor) -> tuple[Tensor, Tensor, tuple[int, int]]:
        features = model.project_frames(model.visual_features(frames))  # n d h w
        cells = features.flatten(2).transpose(1, 2)  # n p d
        centers, assignments = self._cluster(model.heads["dmc_visual"], cells, self.sources + self.background)
        return centers, assignments, (features.shape[2], features.shape[3])

    def _cluster_audio(self, model: AudioVisualModel, log_mel: Tensor) -> Tensor:
        # `encode_audio` pools this map and then projects it; here every cell is projected.
        raw = model.audio_maps(log_mel).flatten(2).transpose(1, 2)  # n c p -> n p c
        features = model.project_audio(raw.flatten(0, 1)).reshape(*raw.shape[:2], -1)  # n p d
        return self._cluster(model.heads["dmc_audio"], features, self.sources)[0]

    def _cluster(self, layer: nn.Module, features: Tensor, count: int) -> tuple[Tensor, Tensor]:
        with torch.autocast(features.device.type, enabled=False):
            cells = F.normalize(layer(F.normalize(features, dim=2)), dim=2)  # n p d
            initial = spread_cells(cells, count)
            return soft_k_means(cells, initial, sharpness=self.sharpness, rounds=self.rounds)


def spread_cells(cells: Tensor, count: int) -> Tensor:
    """Choose initial centers: the cell nearest to the mean, then repeatedly the cell farthest from those chosen.

    Parameters
    ----------
    cells : Tensor (n, p, d) floating
    count : int >= 1
        K. With fewer than K distinct cells, some are chosen twice.

    Returns
    -------
    Tensor (n, K, d)
        Ties go to the first cell.
    """
    with torch.no_grad():
        rows = [distances(cells, cells.mean(dim=1, keepdim=True)).squeeze(2).argmin(dim=1)]  # (n,)
        nearest = torch.full(cells.shape[:2], torch.inf, dtype=cells.dtype, device=cells.device)
        for _ in range(count - 1):
            nearest = torch.minimum(nearest, distances(cells, _take(cells, rows[-1:])).squeeze(2))
            rows.append(nearest.argmax(dim=1))
    return _take(cells, rows)


def soft_k_means(cells: Tensor, initial: Tensor, *, sharpness: float, rounds: int) -> tuple[Tensor, Tensor]:
    """Soft k-means, differentiable through all rounds.

    Each round assigns the cells with softmax_k(-z |cell - center_k|), then sets each center to the mean of the cells, weighted by
    their assignments to it.

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
        Centers after the last round.
    assignments : Tensor (n, p, K)
        Assignments to these centers.

    Raises
    ------
    ValueError
        The shapes do not match, or `sharpness` or `rounds` is not positive.
    """
    if cells.ndim != 3 or initial.ndim != 3 or (len(cells), cells.shape[2]) != (len(initial), initial.shape[2]):
        raise ValueError(
            f"cells {tuple(cells.shape)} and centers {tuple(initial.shape)} are not (n, p, d) and (n, K, d)"
        )
    if not sharpness > 0 or rounds < 1:
        raise ValueError(f"sharpness and rounds must be positive, got {sharpness} and {rounds}")
    centers = initial
    for _ in range(rounds):
        # Normalized in log space: even if no cell is near a center, its weights still sum to 1.
        weights = F.log_softmax(-sharpness * distances(cells, centers), dim=2).softmax(dim=1)
        with torch.autocast(cells.device.type, enabled=False):
            centers = weights.transpose(1, 2) @ cells  # n K p, n p d -> n K d
    return centers, (-sharpness * distances(cells, centers)).softmax(dim=2)


def distances(x: Tensor, y: Tensor) -> Tensor:
    """Return Euclidean distances, (…, p, d) and (…, q, d) → (…, p, q), at least 1e-3, with a finite gradient everywhere."""
    with torch.autocast(x.device.type, enabled=False):
        squares = x.square().sum(dim=-1).unsqueeze(-1) + y.square().sum(dim=-1).unsqueeze(-2)
        return (squares - 2 * x @ y.transpose(-1, -2)).clamp_min(SMALLEST_SQUARE).sqrt()


def pair_distances(visual: Tensor, audio: Tensor) -> Tensor:
    """Return the distance of every frame i to every audio j, (k, k).

    The mean, over the centers of audio j, of the distance to the nearest center of frame i. All centers are scaled to unit length.

    Parameters
    ----------
    visual : Tensor (k, K_v, d)
        Centers of the frames.
    audio : Tensor (k, K_a, d)
        Centers of the audio.
    """
    visual, audio = F.normalize(visual, dim=2), F.normalize(audio, dim=2)
    # i 1 v d, 1 j a d -> i j v a
    return distances(visual[:, None], audio[None]).amin(dim=2).mean(dim=2)


def margin_loss(pairs: Tensor, *, margin: float) -> Tensor:
    """Return ½ (mean_i D_ii² + mean_{i≠j} max(0, m - D_ij)²).

    Parameters
    ----------
    pairs : Tensor (k, k), k > 1
        D_ij, frame i to audio j.
    margin : float
        m.

    Returns
    -------
    Tensor, scalar
    """
    k = len(pairs)
    if pairs.shape != (k, k) or k < 2:
        raise ValueError(f"pairs must be a (k, k) matrix with k >= 2, got {tuple(pairs.shape)}")
    own = torch.eye(k, dtype=torch.bool, device=pairs.device)
    others = (margin - pairs).clamp_min(0).square().masked_fill(own, 0).sum() / (k * (k - 1))
    return (pairs.diagonal().square().mean() + others) / 2


def sounding_assignments(assignments: Tensor, visual: Tensor, audio: Tensor) -> Tensor:
    """Return how strongly each cell is assigned to a sounding cluster.

    Parameters
    ----------
    assignments : Tensor (n, p, K_v)
    visual : Tensor (n, K_v, d)
        Centers of the frames.
    audio : Tensor (n, K_a, d)
        Centers of the audio.

    Returns
    -------
    Tensor (n, p) in [0, 1]
        Assignment to the cluster nearest to an audio center; the maximum over the audio centers.
    """
    winners = distances(F.normalize(visual, dim=2), F.normalize(audio, dim=2)).argmin(dim=1)  # (n, K_a)
    index = winners[:, None].expand(-1, assignments.shape[1], -1)  # n p a
    return assignments.gather(2, index).amax(dim=2)


def _take(cells: Tensor, rows: Sequence[Tensor]) -> Tensor:
    """Return the cells at K indices, each (n,), as (n, K, d)."""
    index = torch.stack(list(rows), dim=1)  # n K
    # No `gather`: its gradient on CUDA is summed in arbitrary order. No `len`: tracing for export would make it a constant.
    return cells[torch.arange(cells.shape[0], device=cells.device)[:, None], index]
