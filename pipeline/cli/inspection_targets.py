"""From what a user names to a run's artifacts and the shards that it was trained on."""

from __future__ import annotations

from pathlib import Path

from pipeline.apps.inspection.views import Artifacts, find_artifacts
from pipeline.common.config import load_params
from pipeline.common.errors import PseudoLabelError
from pipeline.common.project import LABELS_FOLDER, RUNS_FOLDER, SHARD_PATTERN, find_variant, seed_name, shards_folder
from pipeline.manifests.clips import TRAIN_SPLIT
from pipeline.shards.reader import ShardSet


def resolve_target(word: str, *, dataset: str | None, seed: int | None, params_path: Path) -> Artifacts:
    """Find the artifacts of a path or of a variant.

    Parameters
    ----------
    word : str
        A path, if it has a slash or leads to a file or to a run's folder; else a variant's name in ``runs/DATASET``.
    dataset : str, optional
        Of the variant; by default the active one of the settings file.
    seed : int, optional
        By default the first.
    params_path : Path
        Read only for a variant.

    Raises
    ------
    PseudoLabelError
        There is nothing there; the message names what there is.
    SettingsError
        The settings file cannot be read.
    """
    path = Path(word)
    if "/" in word or path.is_file() or (path / LABELS_FOLDER).is_dir():
        if seed is not None and not (path / seed_name(seed)).is_dir():
            raise PseudoLabelError(
                f"{path}: no folder {seed_name(seed)} in it; the first seed of a run has none, leave --seed out"
            )
        return find_artifacts(path if seed is None else path / seed_name(seed))
    params = load_params(params_path)
    found = find_variant(word, dataset=dataset or params.dataset, seeds=params.seeds, holding=LABELS_FOLDER)
    if not found.folder.is_dir():
        hint = f"there are {', '.join(found.available)}" if found.available else "train first: dvc repro train"
        raise PseudoLabelError(f"{found.folder}: no such run; {hint}")
    folder = found.folder_of_seed(seed)
    if folder is None:
        raise PseudoLabelError(
            f"{found.folder}: no folder seed_{seed}, and seed {seed} is not among the seeds of {params_path}: "
            f"{', '.join(map(str, params.seeds))}"
        )
    return find_artifacts(folder)


def open_shards(run: Path, folder: Path | None) -> ShardSet | None:
    """Open the shards of a run's training set.

    Parameters
    ----------
    run : Path
        If it lies in ``PROJECT/runs/DATASET/``, the shards are in ``PROJECT/data/DATASET/shards/train``.
    folder : Path, optional
        Where they are instead.

    Returns
    -------
    ShardSet, or None if no folder is given and none is found

    Raises
    ------
    ShardError
        They are damaged, or `folder` holds none.
    """
    if folder is not None:
        return ShardSet.open(folder)
    run = run.resolve()
    for runs in run.parents:
        if runs.name == RUNS_FOLDER:
            found = shards_folder(runs.parent, run.relative_to(runs).parts[0], TRAIN_SPLIT)
            return ShardSet.open(found) if any(found.glob(SHARD_PATTERN)) else None
    return None
