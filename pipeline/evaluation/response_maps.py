"""Response maps of a model on a split: each frame with its own audio, and with the audio of another clip."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.common.errors import CheckpointError, EvaluationError
from pipeline.features.reader import FeatureSet
from pipeline.methods.trained_model import TrainedModel
from pipeline.scoring.map_file import ResponseMaps
from pipeline.scoring.scorable import check_shuffling
from pipeline.shards.reader import ShardSet
from pipeline.training.checkpoints import load_model

SHUFFLE_SEED = 0  # equal pairs for every method, so that their scores can be compared
BATCH_SIZE = 64


def compute_maps(
    path: Path, shards: ShardSet, *, split: str, seed: int | None = None, device: str = "auto"
) -> ResponseMaps:
    """Run a model on all clips twice: with their own audio, and with the audio of other clips.

    Parameters
    ----------
    path : Path
        ``model.pt``.
    shards : ShardSet
        At least 2 clips, extracted with the same settings as the training clips.
    split : str
        The split of the clips.
    seed : int, optional
        Seed that the model must have; default: any.
    device : str

    Raises
    ------
    CheckpointError
        The model cannot be read, or a response is not finite.
    EvaluationError
        The model has another seed, the clips were extracted with other settings, or there are fewer than 2.
    """
    model = load_model_for(path, shards)
    if seed is None:
        seed = int(model.description["seed"])
    elif model.description["seed"] != seed:
        raise EvaluationError(
            f"{path}: trained with seed {model.description['seed']}, expected {seed}; run `dvc repro train` again"
        )
    order = derangement(len(shards), seed=SHUFFLE_SEED)
    own, shuffled = (
        model.response_maps(shards, batch_size=BATCH_SIZE, device=device, audio_order=audio_order)
        for audio_order in (None, order)
    )
    check_finite(path, own, shuffled)
    return ResponseMaps(
        clip_ids=shards.clip_ids,
        response=own,
        shuffled_response=shuffled,
        shuffled_clip_ids=[shards.clip_ids[i] for i in order],
        split=split,
        seed=seed,
        shards=shards.fingerprint,
        normalization=model.normalization,
    )


def load_model_for(path: Path, shards: ShardSet) -> TrainedModel:
    """Load a model for clips.

    Raises
    ------
    EvaluationError
        The shards were extracted with other settings than the training clips.
    FeatureError
        The clips have stored features of another backbone than the model's.
    """
    model = load_model(path)
    description = model.description
    check_same_input({"image_size": description["image_size"], **description["audio"]}, shards.settings, path)
    if isinstance(shards, FeatureSet):
        shards.check_model(model.encoders, description["encoder"], path)
    return model


def check_same_input(trained: Mapping[str, Any], given: Mapping[str, Any], where: Path) -> None:
    """Check that clips have the frame size and the spectrograms that a model was trained with.

    Parameters
    ----------
    trained, given : mapping of str to value
        ``image_size`` and the audio settings. A setting that is not in `given` is not compared.
    where : Path
        The model, or the card of the clips; for the message.

    Raises
    ------
    EvaluationError
        A setting differs. Maps would be meaningless, without any other error.
    """
    for name, value in trained.items():
        if given.get(name, value) != value:
            raise EvaluationError(
                f"{where}: trained with {name} {value}, but these clips are made with {given[name]}; copy the setting to the card of "
                "their dataset, and extract them again"
            )


def check_finite(path: Path, *responses: np.ndarray) -> None:
    """Raise CheckpointError if a response of the model at `path` is not finite: finite weights may be too large."""
    if not all(np.isfinite(values).all() for values in responses):
        raise CheckpointError(
            f"{path}: the model's responses are not finite, so its weights are unusable; train it again"
        )


def derangement(n: int, *, seed: int) -> list[int]:
    """Return a random permutation of 0 … n-1 without fixed points: one random cycle.

    Raises
    ------
    EvaluationError
        n is below 2.
    """
    check_shuffling(n)
    cycle = np.random.default_rng(seed).permutation(n)
    # Each clip is followed by the next one of the cycle, so none is followed by itself.
    order = np.empty(n, dtype=np.int64)
    order[cycle] = np.roll(cycle, 1)
    return [int(i) for i in order]
