"""Resolve TARGET, a path or the name of a variant, to a model or to pseudo-labels; find the shards of a run."""

from __future__ import annotations

from pathlib import Path

from pipeline.apps.inspection.views import Artifacts, find_artifacts
from pipeline.common.config import load_card, load_params
from pipeline.common.console import note
from pipeline.common.errors import CheckpointError, PseudoLabelError, SoundspotError
from pipeline.common.project import (
    CARD_FILE,
    CLIPS_FILE,
    DATA_FOLDER,
    INITIAL_RUN,
    LABELS_FOLDER,
    MODEL_FILE,
    RUNS_FOLDER,
    SHARD_PATTERN,
    find_variant,
    manifest_folder,
    runs_folder,
    seed_name,
    shards_folder,
)
from pipeline.manifests.clips import TRAIN_SPLIT, Clip
from pipeline.manifests.prepared import read_prepared_clips, resolve_media_root
from pipeline.shards.reader import ShardSet
from pipeline.training.class_labels import read_label_sets


def resolve_model(word: str, *, dataset: str | None, seed: int | None, params_path: Path) -> Path:
    """Find a ``model.pt`` by path, run folder, or variant.

    Parameters
    ----------
    word : str
        A path if it contains a slash, ends in .pt or exists; otherwise the name of a variant in ``runs/DATASET``.
    dataset : str, optional
        Of the variant; default: the active one of the settings file.
    seed : int, optional
        Default: the first.
    params_path : Path
        Settings file; read for variants only.

    Raises
    ------
    CheckpointError
        There is no such model; the message lists those that exist.
    SettingsError
        The settings file cannot be read.
    """
    path = _resolve(word, MODEL_FILE, CheckpointError, dataset=dataset, seed=seed, params_path=params_path)
    model = path / MODEL_FILE if path.is_dir() else path
    if not model.is_file():
        raise CheckpointError(
            f"{model}: no such model; pass a model.pt, a run folder, or the name of a trained variant"
        )
    return model


def find_model(word: str | None, *, dataset: str | None, seed: int | None, params_path: Path) -> Path:
    """Return the model that --model names, see `resolve_model`; without it, `newest_model`, which is then reported."""
    if word:
        return resolve_model(word, dataset=dataset, seed=seed, params_path=params_path)
    path = newest_model(dataset=dataset, seed=seed, params_path=params_path)
    note(f"model: {path}, the newest run on the dataset; choose another one with --model")
    return path


def newest_model(*, dataset: str | None, seed: int | None, params_path: Path) -> Path:
    """Find the ``model.pt`` that was written last in ``runs/DATASET``, without the initialization; parameters as in `resolve_model`.

    Raises
    ------
    CheckpointError
        There is none, or no settings file that names the active dataset.
    SettingsError
        The settings file is malformed.
    """
    if dataset is None and not params_path.is_file():
        raise CheckpointError(
            f"no {params_path} here, so there is no default model; pass --model or set SOUNDSPOT_MODEL"
        )
    folder = runs_folder(Path(), dataset or load_params(params_path).dataset)
    models = [path for path in folder.glob(f"*/{MODEL_FILE}") if path.parent.name != INITIAL_RUN]
    if not models:
        raise CheckpointError(
            f"{folder}: no trained model; train one with `soundspot train FOLDER` or `dvc repro train`, or pass --model"
        )
    newest = max(models, key=lambda path: (path.stat().st_mtime_ns, path))
    return resolve_model(f"{newest.parent}/", dataset=dataset, seed=seed, params_path=params_path)


def resolve_labels(word: str, *, dataset: str | None, seed: int | None, params_path: Path) -> Artifacts:
    """Find the pseudo-labels of a run, or one epoch's file; parameters as in `resolve_model`.

    Raises
    ------
    PseudoLabelError
        There are no pseudo-labels; the message lists those that exist.
    SettingsError
        The settings file cannot be read.
    """
    return find_artifacts(
        _resolve(word, LABELS_FOLDER, PseudoLabelError, dataset=dataset, seed=seed, params_path=params_path)
    )


def open_shards(run: Path, folder: Path | None) -> ShardSet | None:
    """Open the shards that a run was trained on.

    Parameters
    ----------
    run : Path
        For ``PROJECT/runs/DATASET/…`` the shards are in ``PROJECT/data/DATASET/shards/train``.
    folder : Path, optional
        Overrides the folder of the shards.

    Returns
    -------
    ShardSet, or None if `folder` is not given and there are no shards

    Raises
    ------
    ShardError
        The shards are damaged, or `folder` contains none.
    """
    if folder is not None:
        return ShardSet.open(folder)
    project, dataset = _project_of(run)
    found = shards_folder(project, dataset, TRAIN_SPLIT) if dataset else None
    return ShardSet.open(found) if found and any(found.glob(SHARD_PATTERN)) else None


def training_labels(run: Path, clips: Path | None) -> dict[str, frozenset[str]]:
    """Read the class labels of the clips that a run was trained on.

    Parameters
    ----------
    run : Path
        For ``PROJECT/runs/DATASET/…`` the labels are in ``PROJECT/data/DATASET/clips.csv``.
    clips : Path, optional
        Overrides the clip list.

    Returns
    -------
    dict of str to frozenset of str
        By clip; empty if `clips` is not given and there is no clip list.

    Raises
    ------
    ManifestError
        The clip list is malformed, or `clips` does not exist.
    """
    if clips is None:
        project, dataset = _project_of(run)
        clips = project / DATA_FOLDER / dataset / CLIPS_FILE if dataset else None
        if clips is None or not clips.is_file():
            return {}
    listed = [clip.clip_id for clip in read_prepared_clips(clips, TRAIN_SPLIT)]
    return dict(zip(listed, read_label_sets(clips, TRAIN_SPLIT, listed), strict=True))


def clip_list(run: Path, clips: Path | None) -> tuple[dict[str, Clip], Path]:
    """Read the clips that a run was trained on, by id, and find the folder of their media files, which may be missing.

    Parameters
    ----------
    run : Path
        For ``PROJECT/runs/DATASET/…`` the list is ``PROJECT/data/DATASET/clips.csv``.
    clips : Path, optional
        Overrides the clip list.

    Raises
    ------
    ManifestError
        The clip list is malformed, or `clips` does not exist.
    """
    project, dataset = _project_of(run)
    card = manifest_folder(project, dataset) / CARD_FILE if dataset else None
    media_root = (
        resolve_media_root(load_card(card.parent), project, dataset) if card and dataset and card.is_file() else project
    )
    path = clips or (project / DATA_FOLDER / dataset / CLIPS_FILE if dataset else None)
    if path is None or (clips is None and not path.is_file()):
        return {}, media_root
    return {clip.clip_id: clip for clip in read_prepared_clips(path, TRAIN_SPLIT)}, media_root


def _project_of(run: Path) -> tuple[Path, str | None]:
    """Return PROJECT and DATASET of ``PROJECT/runs/DATASET/…``; a run elsewhere has no dataset."""
    run = run.resolve()
    for runs in run.parents:
        if runs.name == RUNS_FOLDER:
            return runs.parent, run.relative_to(runs).parts[0]
    return run, None


def _resolve(
    word: str,
    holding: str,
    error: type[SoundspotError],
    *,
    dataset: str | None,
    seed: int | None,
    params_path: Path,
) -> Path:
    """Return a file or run folder. A path is returned as given, a variant only if its folder contains `holding`."""
    path = Path(word)
    if "/" in word or path.suffix in (".pt", ".h5") or path.is_file() or (path / holding).exists():
        if seed is None:
            return path
        folder = (path.parent if path.is_file() else path) / seed_name(seed)
        if not folder.is_dir():
            raise error(f"{folder}: no such folder; the first seed of a run has none, so leave out --seed")
        return folder
    params = load_params(params_path)
    found = find_variant(word, dataset=dataset or params.dataset, seeds=params.seeds, holding=holding)
    if not found.exists:
        hint = f"available: {', '.join(found.available)}" if found.available else "train first: dvc repro train"
        raise error(f"{found.folder}: no run with {holding}; {hint}")
    of_seed = found.folder_of_seed(seed)
    if of_seed is None:
        seeds = ", ".join(map(str, params.seeds))
        raise error(f"{found.folder}: no folder {seed_name(seed or 0)}, and the seeds of {params_path} are {seeds}")
    return of_seed
