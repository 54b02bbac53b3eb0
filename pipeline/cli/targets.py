"""From what a user names to a ``model.pt``."""

from __future__ import annotations

from pathlib import Path

from pipeline.common.config import load_params
from pipeline.common.errors import CheckpointError
from pipeline.common.project import MODEL_FILE, find_variant, seed_name


def resolve_model(word: str, *, dataset: str | None, seed: int | None, params_path: Path) -> Path:
    """Find the model of a path or of a variant.

    Parameters
    ----------
    word : str
        A ``model.pt``, or a run's folder, if it has a slash, ends in .pt or exists; else a variant's name in ``runs/DATASET``.
    dataset : str, optional
        Of the variant; by default the active one of the settings file.
    seed : int, optional
        By default the first.
    params_path : Path
        Read only for a variant.

    Raises
    ------
    CheckpointError
        There is no model; the message names what there is.
    SettingsError
        The settings file cannot be read.
    """
    path = Path(word)
    if "/" in word or path.suffix == ".pt" or path.is_file() or (path / MODEL_FILE).is_file():
        return _model_at(path, seed)
    params = load_params(params_path)
    found = find_variant(word, dataset=dataset or params.dataset, seeds=params.seeds, holding=MODEL_FILE)
    if not found.exists:
        hint = (
            f"there are models of {', '.join(found.available)}" if found.available else "train first: dvc repro train"
        )
        raise CheckpointError(f"{found.folder / MODEL_FILE}: no such model; {hint}")
    folder = found.folder_of_seed(seed)
    if folder is None:
        raise CheckpointError(
            f"{found.folder}: no folder seed_{seed}, and seed {seed} is not among the seeds of {params_path}: "
            f"{', '.join(map(str, params.seeds))}"
        )
    return _model_at(folder, None)


def _model_at(path: Path, seed: int | None) -> Path:
    if seed is not None:
        path = (path.parent if path.is_file() else path) / seed_name(seed)
    model = path / MODEL_FILE if path.is_dir() else path
    if not model.is_file():
        hint = "the first seed of a run has no folder of its own, leave --seed out; else " if seed is not None else ""
        raise CheckpointError(
            f"{model}: no such model; {hint}give a model.pt, a run's folder, or the name of a variant that has been trained"
        )
    return model
