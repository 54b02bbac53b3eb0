"""What a run would have said of some clips after earlier epochs, from the weights that it kept.

Training never looks at the scored clips, so their maps over the epochs are made afterwards. Nothing is chosen by them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pipeline.common.errors import EvaluationError
from pipeline.common.project import MODEL_FILE, WEIGHTS_FOLDER, WEIGHTS_PATTERN
from pipeline.model.inference import select_device
from pipeline.shards.reader import ShardSet
from pipeline.training.checkpoints import load_model, read_checkpoint


@dataclass(frozen=True)
class EarlierMaps:
    """Raw response maps R of some clips after each of some epochs.

    Attributes
    ----------
    epochs : list of int
        Rising; the last is that of the finished model, whose maps are not among these.
    response : np.ndarray (len(epochs) - 1, clip, row, col) float32
    """

    epochs: list[int]
    response: np.ndarray


def earlier_maps(run: Path, shards: ShardSet, clip_ids: Sequence[str], *, device: str = "auto") -> EarlierMaps:
    """Localize some clips, as many as make a batch, with each of the weights that a run kept.

    Parameters
    ----------
    run : Path
        Of one seed.
    shards : ShardSet
        That have the clips.
    clip_ids : sequence of str
    device : str

    Raises
    ------
    EvaluationError
        The run kept no weights.
    CheckpointError
        Weights are damaged.
    """
    paths = sorted((run / WEIGHTS_FOLDER).glob(WEIGHTS_PATTERN), key=lambda path: int(path.stem.split("_")[1]))
    if not paths:
        raise EvaluationError(
            f"{run / WEIGHTS_FOLDER}: no weights of earlier epochs; run `dvc repro -f -s train@{run.name}`, then `dvc repro`"
        )
    chosen = select_device(device)
    places = {clip_id: place for place, clip_id in enumerate(shards.clip_ids)}
    frames, log_mels = shards.read([places[clip_id] for clip_id in clip_ids])
    pairs = torch.from_numpy(frames).permute(0, 3, 1, 2).to(chosen), torch.from_numpy(log_mels).to(chosen)
    epochs, maps = [], []
    for path in paths:
        model = load_model(path)
        epochs.append(int(model.description["epoch"]))
        response, _ = model.to(chosen).localize(*pairs)
        maps.append(response.float().cpu().numpy())
    return EarlierMaps([*epochs, int(read_checkpoint(run / MODEL_FILE)["epoch"])], np.stack(maps))
