"""Sound-guided attention: the row "Attention" of Table 1, the unsupervised half of Senocak et al., CVPR 2018.

The audio, projected to a query h, attends over the cells of the frame; the attended feature z is pulled toward the audio of the same
clip. `loss` selects how negatives are formed. Our choices and their reasons: docs/methods.md, "Attention".

Conventions
-----------
V (k, d, h, w) are the features of the frames' cells and a (k, d) the audio embeddings, both L2-normalized, as is the query h (k, d).
z and the visual embedding f are (k, d). Losses are computed in at least float32, averaged over the batch, and ≥ 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.common.config import IterationSettings, Positive
from pipeline.methods.base import Batch, Method
from pipeline.methods.heads import ResidualLayers
from pipeline.model.encoders import AudioVisualModel
from pipeline.model.equations import response_map
from pipeline.model.transfer import send

QUERY, EMBEDDING = "attention_query", "attention_embedding"  # names in model.heads


class AttentionSettings(IterationSettings):
    """Settings of the method; `temperature` is that of the attention's softmax."""

    loss: Literal["contrastive", "triplet"] = "contrastive"
    # For "contrastive": distance beyond which a wrong pair costs nothing. Orthogonal embeddings are 1.41 apart.
    margin: Positive = 1.0


class Attention(Method):
    """Softmax attention of the audio over the frame's cells."""

    Settings = AttentionSettings
    reads_labels = False

    def __init__(self, settings: AttentionSettings) -> None:
        self.temperature = settings.temperature
        self.kind = settings.loss
        self.margin = settings.margin

    def prepare(self, model: AudioVisualModel, *, n_clips: int, classes: Sequence[str]) -> None:
        """Add the layers that compute h and f; both start as the identity."""
        model.heads[QUERY] = ResidualLayers(model.dim)
        model.heads[EMBEDDING] = ResidualLayers(model.dim)

    def loss(self, model: AudioVisualModel, batch: Batch) -> Tensor:
        """Compare f to the audio of its own and of another clip ("triplet"), or the audio to f of both frames ("contrastive")."""
        features = model.encode_frames(batch.frames)  # V (k, d, h, w)
        audio = model.encode_audio(batch.log_mel)  # a (k, d)
        query = _query(model, audio)
        other = send(another_clip(len(audio), generator=batch.generator), audio.device)
        visual = self._embed(model, features, query)
        if self.kind == "triplet":
            return triplet_loss(visual, audio, audio[other])
        return margin_loss(visual, self._embed(model, features[other], query), audio, margin=self.margin)

    def uninformed_loss(self, model: AudioVisualModel, batch: Batch) -> float:
        """Return ½ for "triplet", where both distances are equal, and m²/8 for "contrastive", where all distances are m/2.

        A distance d of all pairs costs (d² + (m - d)²) / 4, which is least at m/2. The encoders reach this by mapping all audio to one
        point, at the distance m/2 from the constant f.
        """
        return 0.5 if self.kind == "triplet" else self.margin**2 / 8

    def localize(self, model: AudioVisualModel, frames: Tensor, log_mel: Tensor) -> tuple[Tensor, Tensor]:
        """Return the attention's logits ⟨V, h⟩, and a.

        The sources show the attention itself. The logits rank the cells identically, but after min-max (Eq. 1) they can be
        thresholded like every other method's cosines, whatever the temperature.
        """
        audio = model.encode_audio(log_mel)
        return response_map(model.encode_frames(frames), _query(model, audio)), audio

    def _embed(self, model: AudioVisualModel, features: Tensor, query: Tensor) -> Tensor:
        attended = attend(features, query, temperature=self.temperature)
        embedding: Tensor = model.heads[EMBEDDING](attended)
        return embedding.float()


def attend(features: Tensor, query: Tensor, *, temperature: float) -> Tensor:
    """Return z: the mean of a frame's cells, weighted by softmax(⟨V, h⟩ / temperature).

    Parameters
    ----------
    features : Tensor (k, d, h, w) floating
        V.
    query : Tensor (k, d) floating
        h.
    temperature : float > 0

    Returns
    -------
    Tensor (k, d)

    Raises
    ------
    ValueError
        The shapes do not match, or the temperature is not positive and finite.
    """
    if not (temperature > 0 and math.isfinite(temperature)):
        raise ValueError(f"temperature must be positive and finite, got {temperature}")
    weights = torch.softmax(response_map(features, query).flatten(1) / temperature, dim=1)  # (k, h·w)
    # k d c, k c -> k d
    return (features.flatten(2) * weights[:, None, :]).sum(dim=2)


def triplet_loss(visual: Tensor, audio: Tensor, other_audio: Tensor) -> Tensor:
    """Return ‖softmax(d⁺, d⁻) - (0, 1)‖², with the distances d⁺ to the own audio and d⁻ to another: the original's loss.

    The sum of the two terms, as in the paper; the original's code takes their mean, which is half of it.

    Parameters
    ----------
    visual : Tensor (k, d)
        f.
    audio, other_audio : Tensor (k, d)
        a of the same clip and of another.

    Returns
    -------
    Tensor, scalar in [0, 2]
    """
    # Both terms are equal: a softmax over two values is σ(d⁺ - d⁻) and 1 - σ.
    closeness = torch.sigmoid(_distance(visual, audio) - _distance(visual, other_audio))
    return 2 * closeness.square().mean()


def margin_loss(visual: Tensor, other_visual: Tensor, audio: Tensor, *, margin: float) -> Tensor:
    """Return the mean of ½·d² over right pairs and ½·max(0, margin - d)² over wrong ones: the loss of DSOL's version.

    Parameters
    ----------
    visual, other_visual : Tensor (k, d)
        f of the audio's own frame and of another; the audio attends in both.
    audio : Tensor (k, d)
        a.
    margin : float > 0

    Returns
    -------
    Tensor, scalar
    """
    if not (margin > 0 and math.isfinite(margin)):
        raise ValueError(f"margin must be positive and finite, got {margin}")
    right = _distance(visual, audio).square()
    wrong = F.relu(margin - _distance(other_visual, audio)).square()
    return torch.cat([right, wrong]).mean() / 2


def another_clip(n: int, *, generator: torch.Generator) -> Tensor:
    """Draw for each of n clips the index of another one, uniformly: (n,) int64. Raises ValueError for n < 2."""
    if n < 2:
        raise ValueError(f"negatives require at least 2 clips per batch, got {n}")
    return (torch.arange(n) + torch.randint(1, n, (n,), generator=generator)) % n


def _query(model: AudioVisualModel, audio: Tensor) -> Tensor:
    return F.normalize(model.heads[QUERY](audio).float(), dim=1)


def _distance(visual: Tensor, audio: Tensor) -> Tensor:
    if visual.ndim != 2 or visual.shape != audio.shape or len(visual) == 0:
        raise ValueError(f"visual {tuple(visual.shape)} and audio {tuple(audio.shape)} must both be (k, d) with k > 0")
    dtype = torch.promote_types(torch.promote_types(visual.dtype, audio.dtype), torch.float32)
    return torch.linalg.vector_norm(visual.to(dtype) - audio.to(dtype), dim=1)  # its gradient at 0 is 0
