"""Locate the pseudo-labels of a trained run, and read settings of its model."""

from __future__ import annotations

import io
import pickle
import re
import zipfile
from collections import OrderedDict
from pathlib import Path, PurePath
from typing import Any

from pipeline.common.errors import CheckpointError, EvaluationError
from pipeline.common.project import HISTORY_FILE, LABELS_FOLDER, LABELS_PATTERN, MODEL_FILE, STATE_FILE, stage_name
from pipeline.common.reading import parse_json
from pipeline.common.record import read_record
from pipeline.training.history import read_history


def labels_by_epoch(run: Path) -> dict[int, Path]:
    """Return the pseudo-label artifacts of a run by epoch, in ascending order; may be empty."""
    # Sorted by number: as text, epoch_1000 would come before epoch_101.
    numbered = (
        (re.fullmatch(r"epoch_(\d{3,})\.h5", each.name), each) for each in (run / LABELS_FOLDER).glob(LABELS_PATTERN)
    )
    return dict(sorted((int(match[1]), each) for match, each in numbered if match))


def artifact_paths(run: Path) -> list[Path]:
    """Return the pseudo-label artifacts of a run, in order of epochs.

    Parameters
    ----------
    run : Path
        Folder of one seed.

    Raises
    ------
    EvaluationError
        There are none, or one that the finished run had written is missing.
    """
    paths = labels_by_epoch(run)
    again = f"run `dvc repro {stage_name('train', run)}`"
    if not paths:
        raise EvaluationError(f"{run / LABELS_FOLDER}: no artifacts; {again}")
    there = [path.relative_to(run).as_posix() for path in paths.values()]
    for name in read_record(run).get("files", {}):
        if name not in there and PurePath(name).match(f"{LABELS_FOLDER}/{LABELS_PATTERN}"):
            raise EvaluationError(f"{run / name}: no such pseudo-labels; {again}")
    return list(paths.values())


def history_by_artifact(run: Path) -> dict[int, dict[str, float]]:
    """Return the rows of ``history.csv`` by the epoch of the artifact that was written with them; empty without that file."""
    path = run / HISTORY_FILE
    if not path.is_file():
        return {}
    rows = read_history(path)
    # A finished run with only this artifact is an initialization, which labels the training set after its last epoch, as epoch 0. An
    # unfinished one may also be of a method that labels few epochs.
    if set(labels_by_epoch(run)) == {0} and not (run / STATE_FILE).exists():
        return {0: rows[-1]}
    return {int(row["epoch"]): row for row in rows}


def centers_audio(run: Path) -> bool:
    """Return whether Eq. 6 of a run subtracts the mean audio embedding, according to its ``model.pt``.

    Raises
    ------
    CheckpointError
        The file is missing, damaged, or lacks the setting.
    """
    return bool(_setting(run, "center_audio"))


def relation_from(run: Path) -> str:
    """Return the setting `relation_from` of a run, according to its ``model.pt``; raises like `centers_audio`."""
    return str(_setting(run, "relation_from", default="previous"))


def _setting(run: Path, name: str, default: Any = None) -> Any:
    """Return a setting from the ``model.pt`` of a run, which does not contain all defaults.

    Raises
    ------
    CheckpointError
        The file is missing, damaged, or lacks the setting.
    """
    path = run / MODEL_FILE
    try:
        settings = parse_json(_without_tensors(path)["iteration"], str(path), CheckpointError)
        return settings[name] if default is None else settings.get(name, default)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except Exception:  # a damaged pickle can raise anything
        raise CheckpointError(f"{path}: no readable setting `{name}`; run the stage that wrote it again") from None


def _without_tensors(path: Path) -> dict[str, Any]:
    """Return the content of a file of `torch.save`, with None for each tensor. Importing torch would take a second."""
    with zipfile.ZipFile(path) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith("/data.pkl"))
        content: dict[str, Any] = _WithoutTensors(io.BytesIO(archive.read(name))).load()
    return content


class _WithoutTensors(pickle.Unpickler):
    """Runs no code from the file: every class and function in it is replaced by one that returns None."""

    def find_class(self, module: str, name: str) -> Any:
        return OrderedDict if (module, name) == ("collections", "OrderedDict") else _nothing

    def persistent_load(self, pid: Any) -> None:
        return None


def _nothing(*_: Any) -> None:
    return None
