"""Sound-guided attention: the row "Attention" of Table 1 (Senocak et al., CVPR 2018), its unsupervised half.

The sound h attends over the cells of the frame, and what it attended to, z, is brought near the clip's own sound. Two forms of
the loss are public: the original's, which keeps z away from another clip's sound ("triplet"), and that of the version which
DSOL compared with, which lets the sound attend in another clip's frame, too, and keeps that z away from it ("contrastive").

The default is "contrastive". The triplet never sees a sound with a wrong frame, so z need not show anything of the frame: it can
tell the sound by which cells that sound picks. The original's features are frozen; here the encoders learn, too, and this
is what they learn: on the demo's validation clips, after four epochs of it, z of another clip's frame lies nearer to the
sound that attended than to a random one in 94 % (own frame: 95 %), and the maps point worse than a centered blob.

Conventions
-----------
V (k, d, h, w) features of the frames' cells and a (k, d) of the sounds, both L2-normalized; h (k, d) the query, likewise; z and
the visual embedding f (k, d). Losses are computed in float32 at least, averaged over the clips of the batch, and ≥ 0.

Where the sources leave it open, are at odds, or do not fit encoders that all methods share:

- V and a are those of Eq. 1, from the shared encoders; h and f are two fully connected layers each, with a ReLU between, and as
  wide as V. The original has frozen VGG and SoundNet features of different lengths, DSOL the un-normalized audio features.
- f is compared with a at length 1, not with raw audio features: as the audio encoder learns here, longer features would lower the
  loss and say nothing. A margin therefore lies in the range of distances of a (0 to 2); DSOL's 10 belongs to its raw features.
- No ReLU on the attention's logits nor on f. The original cuts negative logits off, which leaves every cell without gradient
  where all are negative, and its features, unlike ours, have few such; the DSOL form cuts f off because its target is.
- `temperature` divides the logits; neither source has one, so theirs is 1, where cosines give the best cell at most e² times
  the weight of the worst.
- Negatives are drawn uniformly from the other clips of the batch, one for each clip, as both draw from the training set.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.common.config import IterationSettings, Positive
from pipeline.methods.base import Batch, Method
from pipeline.model.encoders import AudioVisualModel
from pipeline.model.equations import response_map

QUERY, EMBEDDING = "attention_query", "attention_embedding"  # names in model.heads


class AttentionSettings(IterationSettings):
    """Settings of the method's own; `temperature` is that of the attention's softmax."""

    loss: Literal["contrastive", "triplet"] = "contrastive"  # why: see the module's docstring
    # Of "contrastive": distance from which a wrong pair costs nothing; sounds at 90° are at 1.41.
    margin: Positive = 1.0


class Attention(Method):
    """Softmax attention of the sound over the frame's cells."""

    Settings = AttentionSettings

    def __init__(self, settings: AttentionSettings) -> None:
        self.temperature = settings.temperature
        self.kind = settings.loss
        self.margin = settings.margin

    def prepare(self, model: AudioVisualModel, *, n_clips: int, classes: Sequence[str]) -> None:
        """Make the layers of h and of f."""
        model.heads[QUERY] = _two_layers(model.dim)
        model.heads[EMBEDDING] = _two_layers(model.dim)

    def loss(self, model: AudioVisualModel, batch: Batch) -> Tensor:
        """Compare f with its own sound and another ("triplet"), or a sound with f of its own frame and another."""
        features = model.encode_frames(batch.frames)  # V (k, d, h, w)
        audio = model.encode_audio(batch.log_mel)  # a (k, d)
        query = _query(model, audio)
        other = another_clip(len(audio), generator=batch.generator).to(audio.device)
        visual = self._embed(model, features, query)
        if self.kind == "triplet":
            return triplet_loss(visual, audio, audio[other])
        return margin_loss(visual, self._embed(model, features[other], query), audio, margin=self.margin)

    def localize(self, model: AudioVisualModel, frames: Tensor, log_mel: Tensor) -> tuple[Tensor, Tensor]:
        """Return the attention's logits ⟨V, h⟩, and a.

        The sources show the attention itself. Its logits order the cells in the same way, but after min-max (Eq. 1) they are
        as comparable with a threshold as every other method's cosines, whatever the temperature.
        """
        audio = model.encode_audio(log_mel)
        return response_map(model.encode_frames(frames), _query(model, audio)), audio

    def _embed(self, model: AudioVisualModel, features: Tensor, query: Tensor) -> Tensor:
        attended = attend(features, query, temperature=self.temperature)
        embedding: Tensor = model.heads[EMBEDDING](attended)
        return embedding.float()


def attend(features: Tensor, query: Tensor, *, temperature: float) -> Tensor:
    """z: the mean of a frame's cells, weighted by softmax(⟨V, h⟩ / temperature) over its cells.

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
        The shapes do not belong together, or the temperature is not positive and finite.
    """
    if not (temperature > 0 and math.isfinite(temperature)):
        raise ValueError(f"temperature must be positive and finite, got {temperature}")
    weights = torch.softmax(response_map(features, query).flatten(1) / temperature, dim=1)  # (k, h·w)
    # k d c, k c -> k d
    return (features.flatten(2) * weights[:, None, :]).sum(dim=2)


def triplet_loss(visual: Tensor, audio: Tensor, other_audio: Tensor) -> Tensor:
    """‖softmax(d⁺, d⁻) - (0, 1)‖² of the distances d⁺ to the own sound and d⁻ to another: the original's loss.

    The sum over the two terms, as the paper has it; the original's code takes their mean, which is half of it.

    Parameters
    ----------
    visual : Tensor (k, d)
        f.
    audio, other_audio : Tensor (k, d)
        a of the same clip, and of another.

    Returns
    -------
    Tensor, scalar in [0, 2]
    """
    # The second term equals the first: softmax over two is σ(d⁺ - d⁻) and 1 - σ.
    closeness = torch.sigmoid(_distance(visual, audio) - _distance(visual, other_audio))
    return 2 * closeness.square().mean()


def margin_loss(visual: Tensor, other_visual: Tensor, audio: Tensor, *, margin: float) -> Tensor:
    """½·d² of right pairs and ½·max(0, margin - d)² of wrong ones, averaged over both: the DSOL form's loss.

    Parameters
    ----------
    visual, other_visual : Tensor (k, d)
        f of the sound's own frame, and of another; the sound attends in both.
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
    """Return for each of n clips the number of another one, uniformly: (n,) int64. Raises ValueError if there is none."""
    if n < 2:
        raise ValueError(f"a negative needs another clip; the batch has {n}")
    return (torch.arange(n) + torch.randint(1, n, (n,), generator=generator)) % n


def _two_layers(dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim))


def _query(model: AudioVisualModel, audio: Tensor) -> Tensor:
    return F.normalize(model.heads[QUERY](audio).float(), dim=1)


def _distance(visual: Tensor, audio: Tensor) -> Tensor:
    if visual.ndim != 2 or visual.shape != audio.shape or len(visual) == 0:
        raise ValueError(f"visual {tuple(visual.shape)} and audio {tuple(audio.shape)} must both be (k, d) with k > 0")
    dtype = torch.promote_types(torch.promote_types(visual.dtype, audio.dtype), torch.float32)
    return torch.linalg.vector_norm(visual.to(dtype) - audio.to(dtype), dim=1)  # its gradient at 0 is 0
