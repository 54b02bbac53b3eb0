"""Response maps from intermediate checkpoints: how the maps of a few clips change over the epochs.

Training never uses the scored clips, so these maps are computed afterward from the checkpoints that a run kept. They are
only shown: no result and no choice depends on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pipeline.common.errors import EvaluationError
from pipeline.common.project import MODEL_FILE, WEIGHTS_FOLDER, WEIGHTS_PATTERN, stage_name
from pipeline.evaluation.response_maps import load_model_for
from pipeline.model.devices import select_device
from pipeline.shards.reader import ShardSet
from pipeline.training.checkpoints import read_checkpoint


@dataclass(frozen=True)
class CheckpointMaps:
    """Raw response maps R of some clips from each intermediate checkpoint.

    Attributes
    ----------
    epochs : list of int
        Ascending. The last is the epoch of the final model, whose maps are not included.
    response : np.ndarray (len(epochs) - 1, clip, row, col) float32
    """

    epochs: list[int]
    response: np.ndarray


def checkpoint_maps(run: Path, shards: ShardSet, clip_ids: Sequence[str], *, device: str = "auto") -> CheckpointMaps:
    """Compute the response maps of some clips, in one batch, with each checkpoint that a run kept.

    Parameters
    ----------
    run : Path
        Run folder of one seed.
    shards : ShardSet
        Must contain the clips.
    clip_ids : sequence of str
    device : str

    Raises
    ------
    EvaluationError
        The run kept no checkpoints.
    CheckpointError
        A checkpoint is damaged.
    """
    # By number, not by name: epoch_1000 follows epoch_999.
    paths = sorted((run / WEIGHTS_FOLDER).glob(WEIGHTS_PATTERN), key=lambda path: int(path.stem.split("_")[1]))
    last = int(read_checkpoint(run / MODEL_FILE)["epoch"])
    if last == 0:  # the initialization alone
        return CheckpointMaps([0], np.empty((0, len(clip_ids), 0, 0), np.float32))
    if not paths:
        raise EvaluationError(
            f"{run / WEIGHTS_FOLDER}: no checkpoints of earlier epochs; run `dvc repro -f -s {stage_name('train', run)}`, "
            "then `dvc repro`"
        )
    chosen = select_device(device)
    rows = {clip_id: row for row, clip_id in enumerate(shards.clip_ids)}
    frames, log_mels = shards.read([rows[clip_id] for clip_id in clip_ids])
    pairs = (
        torch.from_numpy(frames).permute(0, 3, 1, 2).to(chosen),
        torch.from_numpy(log_mels).to(chosen),
    )  # n H W c -> n c H W
    epochs, maps = [], []
    for path in paths:
        model = load_model_for(path, shards)
        epochs.append(int(model.description["epoch"]))
        response, _ = model.to(chosen).localize(*pairs)
        maps.append(response.float().cpu().numpy())
    return CheckpointMaps([*epochs, last], np.stack(maps))
