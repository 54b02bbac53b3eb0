"""Locate the artifacts of a trained run: its pseudo-labels by epoch, and one setting of its model."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path

from pipeline.common.errors import CheckpointError, EvaluationError
from pipeline.common.project import LABELS_FOLDER, LABELS_PATTERN, MODEL_FILE


def labels_by_epoch(run: Path) -> dict[int, Path]:
    """Return the pseudo-label artifacts of a run's folder by rising epoch; there may be none."""
    # Sorted by number: as text, epoch_1000 would stand before epoch_101.
    numbered = (
        (re.fullmatch(r"epoch_(\d{3,})\.h5", each.name), each) for each in (run / LABELS_FOLDER).glob(LABELS_PATTERN)
    )
    return dict(sorted((int(match[1]), each) for match, each in numbered if match))


def artifact_paths(run: Path, *, variant: str) -> list[Path]:
    """Return the pseudo-label artifacts of a run's folder by rising epoch.

    Parameters
    ----------
    run : Path
        Of one seed.
    variant : str
        Whose run it is, for the message.

    Raises
    ------
    EvaluationError
        There are none, or one before the last is missing.
    """
    paths = labels_by_epoch(run)
    again = f"run `dvc repro train@{variant}`"
    if not paths:
        raise EvaluationError(f"{run / LABELS_FOLDER}: no artifacts; {again}")
    if missing := set(range(max(paths))) - paths.keys():
        raise EvaluationError(f"{run / LABELS_FOLDER}: no artifact of epoch {min(missing)}; {again}")
    return list(paths.values())


def centers_audio(run: Path) -> bool:
    """Tell whether Eq. 6 of a run subtracts the mean of the audio embeddings, as its ``model.pt`` says.

    Raises
    ------
    CheckpointError
        The file is missing or damaged, or does not say.
    """
    import torch  # takes a second; most commands that list artifacts do without

    path = run / MODEL_FILE
    try:
        # Mapped and not read: the weights, which may be hundreds of megabytes, are of no interest.
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return bool(json.loads(content["iteration"])["center_audio"])
    except FileNotFoundError:
        reason = "no such file"
    except (RuntimeError, OSError, EOFError, KeyError, ValueError, TypeError, pickle.UnpicklingError):
        reason = "does not say whether the audio embeddings are centered: damaged, or no model of this program"
    raise CheckpointError(
        f"{path}: {reason}; if it is of one of this project's runs, remove its folder and run its stage again"
    )
