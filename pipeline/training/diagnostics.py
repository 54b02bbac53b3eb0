"""Diagnostics of training that need no boxes: has the model collapsed?

Measured on a fixed sample of training clips, before the first epoch and after every epoch, on what `Method.localize` returns.

Conventions
-----------
Maps are raw, (n, h, w); embeddings and features are rows, (n, d). Values that the sample does not define are NaN: one clip has no
pairs, a constant map has no range, and values that are not finite measure nothing. Columns of the history:

- `border_peaks`: share of the maps' peaks on the outermost cells of the frame, in [0, 1]; `border_cells`: share of these cells among
  all cells, which is the chance level.
- `audio_cosine`: mean cosine of the audio embeddings of two different clips; 1 if all are alike.
- `audio_gap`: how much higher a frame's peak response is to its own audio than to another clip's, as a fraction of the range of its
  map; 0 if the audio makes no difference.
- `audio_rank`, `visual_rank`: effective rank of the audio embeddings a, and of the features V of all cells; from 1, if all point in
  the same direction, to their dimension.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from pipeline.common.seeding import evenly_spaced

if TYPE_CHECKING:
    import torch

    from pipeline.methods.trained_model import TrainedModel
    from pipeline.shards.reader import ShardSet

COLUMNS = ("border_peaks", "border_cells", "audio_cosine", "audio_gap", "audio_rank", "visual_rank")
# ours: 128 clips give a share to ± 4 points; 3 × 128 frames are encoded, next to 6,000 in an epoch of the demo
SAMPLE = 128
# ours: share of the peaks on the border, scaled so that 0 is chance and 1 is all. It is 1 in collapsed runs and below 0.1 in others.
BORDER_EXCESS = 0.9
# ours: audio makes no difference if it raises the peak by less than 2% of the map's range. A run that has just started is below that
# too, so this counts only together with one of the next two. It is 0.3% in collapsed runs, 4% and more in good ones.
AUDIO_GAP = 0.02
# ours: 0.91 to 0.97 in collapsed runs, 0.1 or less in the demo.
AUDIO_COSINE = 0.9
# ours: steps before embeddings and features are judged. The running statistics of BatchNorm still hold 0.9^steps of their first value;
# until they follow the data, good embeddings are alike as well (cosine 0.95 after 20 steps, 0.6 after 40).
STEPS = 50
# ours: nearly all features in one direction, which has more than 88% of the sum of the singular values. The demo has 13 and more.
EFFECTIVE_RANK = 1.5
# ours: share of the loss of an uninformed model. It is 1.00 to 1.02 in collapsed runs. After 50 steps, others have at most 0.94, or
# 0.991 at temperature 0.3, where cosines change the loss little.
LOSS_SHARE = 0.998


def diagnose(model: TrainedModel, shards: ShardSet, *, batch_size: int, device: torch.device) -> dict[str, float]:
    """Measure COLUMNS on the sample of the shards. The weights and all random generators stay as they are."""
    # These take a second, and reading a history does not need them.
    import torch
    from torch.nn import functional as F

    from pipeline.model.inference import as_tensors, inference

    rows = np.array(evenly_spaced(len(shards), SAMPLE))
    # Clips next to each other in a list are often of one class or one video, so the other clip is half of the sample away.
    other = np.roll(rows, len(rows) // 2)
    model.to(device)
    parts = []
    for first in range(0, len(rows), batch_size):
        part = slice(first, first + batch_size)
        frames, log_mel = as_tensors(*shards.read(rows[part].tolist()), pin=False)
        frames, other_log_mel = frames.to(device), torch.from_numpy(shards.read(other[part].tolist())[1])
        with inference():
            features = model.encoders.visual_features(frames)
            cells = F.normalize(model.encoders.project_frames(features), dim=1).movedim(1, -1).flatten(0, 2)
        own, audio = model.localize(frames, log_mel.to(device))
        swapped, _ = model.localize(frames, other_log_mel.to(device))
        parts.append([own, swapped, audio, cells])
    maps, swapped_maps, embeddings, vectors = (
        torch.cat(part).double().cpu().numpy() for part in zip(*parts, strict=True)
    )
    return {
        "border_peaks": border_peaks(maps),
        "border_cells": float(_border(*maps.shape[1:]).mean()),
        "audio_cosine": mean_cosine(embeddings),
        "audio_gap": audio_gap(maps, swapped_maps) if len(rows) > 1 else math.nan,
        "audio_rank": effective_rank(embeddings) if len(rows) > 1 else math.nan,
        "visual_rank": effective_rank(vectors),
    }


def collapse(row: Mapping[str, float]) -> str:
    """Return what in a row of the history indicates that the model collapsed, as one line; empty if nothing does.

    Row 0 is never judged: a model that is not trained yet need not have learned anything.
    """
    signs = []
    excess = (row["border_peaks"] - row["border_cells"]) / (1 - row["border_cells"]) if row["border_cells"] < 1 else 0
    if excess >= BORDER_EXCESS:
        signs.append(
            f"{100 * row['border_peaks']:.1f}% of the response peaks are on the border of the frame "
            f"({100 * row['border_cells']:.1f}% of its cells)"
        )
    # Constant maps have no gap, so it is not above the threshold.
    if row["steps"] >= STEPS and not row["audio_gap"] > AUDIO_GAP:
        alike = []
        if row["audio_cosine"] >= AUDIO_COSINE:
            alike.append(f"the mean cosine of the audio embeddings of different clips is {row['audio_cosine']:.2f}")
        for name, column in (("audio embeddings", "audio_rank"), ("visual features", "visual_rank")):
            if row[column] <= EFFECTIVE_RANK:
                alike.append(f"the effective rank of the {name} is {row[column]:.1f}")
        lowered = f"another clip's audio lowers the peak by {100 * row['audio_gap']:.1f}% of the map's range"
        if alike:
            signs += [*alike, "the audio gap is undefined" if math.isnan(row["audio_gap"]) else lowered]
    if row["steps"] >= STEPS and row["loss_share"] >= LOSS_SHARE:
        signs.append(
            f"the loss is {100 * row['loss_share']:.1f}% of that of an uninformed model (change `temperature`, `margin` or "
            "`learning_rate`)"
        )
    if not signs or not row["epoch"]:
        return ""
    return f"the model looks collapsed: {'; '.join(signs)}; see docs/troubleshooting.md, 'Collapsed training'"


def border_peaks(response: np.ndarray) -> float:
    """Return the share of maps (n, h, w) whose peak is on the border; of a peak that several cells share, the share of these cells."""
    if not np.isfinite(response).all():
        return math.nan
    peaks = response == response.max(axis=(1, 2), keepdims=True)
    on_border = (peaks & _border(*response.shape[1:])).sum(axis=(1, 2))
    return float((on_border / peaks.sum(axis=(1, 2))).mean())


def mean_cosine(embedding: np.ndarray) -> float:
    """Return the mean cosine of all pairs of different rows (n, d); NaN for fewer than two. A zero row has cosine 0 with all others."""
    n = len(embedding)
    if n < 2:
        return math.nan
    length = np.linalg.norm(embedding, axis=1, keepdims=True)
    unit = embedding / np.where(length == 0, 1, length)
    # The sum over all pairs, less the pairs of a row with itself.
    return float((np.square(unit.sum(axis=0)).sum() - np.square(unit).sum()) / (n * (n - 1)))


def audio_gap(own: np.ndarray, other: np.ndarray) -> float:
    """Return the mean rise of the peak with the own audio, relative to the mean range of the maps: (n, h, w) each.

    Methods have maps on different scales: cosines, probabilities, sums of activations. Relative to their range they compare.
    """
    spread = np.ptp(own, axis=(1, 2)).mean()
    rise = (own.max(axis=(1, 2)) - other.max(axis=(1, 2))).mean()
    return float(rise / spread) if spread > 0 else math.nan


def effective_rank(vectors: np.ndarray) -> float:
    """Return the exponential of the entropy of the normalized singular values of (n, d) (Roy and Vetterli, EUSIPCO 2007)."""
    if not np.isfinite(vectors).all() or not vectors.any():
        return math.nan
    # Of the smaller of the two Gram matrices, whose eigenvalues are the squared singular values: the cells are many.
    gram = vectors.T @ vectors if vectors.shape[0] > vectors.shape[1] else vectors @ vectors.T
    singular = np.sqrt(np.clip(np.linalg.eigvalsh(gram), 0, None))
    share = singular / singular.sum()
    share = share[share > 0]
    return float(np.exp(-(share * np.log(share)).sum()))


def _border(height: int, width: int) -> np.ndarray:
    border = np.ones((height, width), dtype=bool)
    border[1:-1, 1:-1] = False
    return border
