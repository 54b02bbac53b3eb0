"""What stands between a dataset and its results: what is missing, how large the files, how long it takes, what fits.

Conventions
-----------
Sizes are bytes, times wall-clock s on this machine. Nothing is written to the project. A problem is something that would
stop a stage, said in one line with what to do; a note is something to know. Estimates of files come from their formats
(`pipeline.apps.preflight.file_sizes`), times and memory from a rehearsal of the real stages (`pipeline.apps.preflight.timing`).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from pipeline.apps.preflight.datasets import check_lists, check_media
from pipeline.apps.preflight.dry_run_cross import check_cross_dataset
from pipeline.apps.preflight.file_sizes import (
    map_side,
    maps_bytes,
    model_bytes,
    pseudo_label_bytes,
    split_bytes,
    state_bytes,
)
from pipeline.apps.preflight.findings import DryRun, Output, human_bytes
from pipeline.apps.preflight.memory import available_bytes, forecast_bytes, resident_bytes
from pipeline.apps.preflight.timing import rehearse, stage_times
from pipeline.common.config import Card, LabeledSettings, Params, TrainingSettings, load_card
from pipeline.common.errors import SoundspotError
from pipeline.common.project import (
    INITIAL_RUN,
    LABELS_FOLDER,
    LABELS_PATTERN,
    MAPS_FILE,
    MAPS_FOLDER,
    MODEL_FILE,
    SHARD_PATTERN,
    STATE_FILE,
    WEIGHTS_FOLDER,
    WEIGHTS_PATTERN,
    manifest_folder,
    results_folder,
    runs_folder,
    shards_folder,
)
from pipeline.evaluation.evaluate import boxes_path, read_split_boxes
from pipeline.manifests.clips import TRAIN_SPLIT, Clip
from pipeline.manifests.prepared import resolve_media_root
from pipeline.methods import build_method, method_settings
from pipeline.model.encoders import build_model, cell_stride
from pipeline.model.inference import select_device
from pipeline.training.class_labels import classes_of_clips


def check_dataset(
    project: Path,
    params: Params,
    dataset: str,
    *,
    variants: Sequence[str],
    n_batches: int,
    device: str = "auto",
    tell: Callable[[str], None] = lambda stage: None,
) -> DryRun:
    """Go through all that the pipeline needs for one dataset.

    Parameters
    ----------
    project : Path
        The project's root; paths of weights in the settings are relative to the working directory, as in training.
    params : Params
    dataset : str
        A folder of ``data_manifests`` and a block of `params.training`.
    variants : sequence of str
        The methods that are to be trained.
    n_batches : int
        Batches of each epoch of the rehearsal; 0 leaves it out.
    device : str
        As for training.
    tell : callable
        Is given the name of each stage of the rehearsal as it begins.
    """
    run = DryRun(dataset)
    settings = params.training.get(dataset)
    if settings is None:
        run.problems.append(
            f"training.{dataset}: no such block of settings; copy one of {', '.join(params.training)} and adapt it"
        )
        return run
    manifest = manifest_folder(project, dataset)
    cards: list[Card] = []
    if not run.holds(lambda: cards.append(load_card(manifest))):
        return run
    (card,) = cards
    splits = check_lists(run, manifest, card, needed=(TRAIN_SPLIT, params.score_split))
    if params.score_split in splits:
        _check_boxes(run, manifest, params.score_split)
    there = check_media(run, splits, card, dataset=dataset, root=resolve_media_root(card, project, dataset))
    trainable = _check_training(run, settings, variants)
    _check_labels(run, settings, trainable, there.get(TRAIN_SPLIT, []), manifest / f"{TRAIN_SPLIT}.csv")
    if trainable:
        id_bytes = max((len(clip.clip_id) for clips in there.values() for clip in clips), default=0)
        side = map_side(card.image_size, cell_stride=cell_stride(settings.encoder.visual))
        for other in params.cross_datasets if dataset == params.dataset else ():
            train = there.get(TRAIN_SPLIT, [])
            check_cross_dataset(run, project, params, card, other, train=train, variants=trainable, side=side)
        _foresee_files(run, params, card, settings, trainable, id_bytes=id_bytes, side=side)
        _check_disk(run, project)
        _rehearse(run, params, card, settings, trainable, n_batches=n_batches, device=device, tell=tell)
    return run


def _check_boxes(run: DryRun, manifest: Path, split: str) -> None:
    """Check the boxes of the scored split; without any one can still train."""
    if boxes_path(manifest, split).is_file():
        run.holds(lambda: read_split_boxes(manifest, split))
    else:
        run.notes.append(
            f"no boxes for the split {split!r}: nothing can be scored; `dvc repro train@VARIANT` trains all the same"
        )


def _check_training(run: DryRun, settings: TrainingSettings, variants: Sequence[str]) -> list[str]:
    """Check settings, weights and the size of a batch; return the variants that can be trained."""
    bare = settings.encoder.model_copy(update={"visual_weights": None})
    with torch.random.fork_rng(devices=[]):
        # Without its weights a model has the same size and pace; with encoders that do not fit each other it has none.
        usable = run.holds(lambda: build_model(bare))
        if usable and settings.encoder.visual_weights is not None:
            run.holds(lambda: build_model(settings.encoder))
    trainable = [name for name in variants if run.holds(partial(_method, settings, name))]
    train = run.clips.get(TRAIN_SPLIT)
    if train and train.found < settings.batch_size:
        run.problems.append(
            f"training.{run.dataset}.batch_size is {settings.batch_size}, and only {train.found} training clips are "
            "there; lower it, or provide more clips"
        )
    return trainable if usable else []


def _method(settings: TrainingSettings, name: str) -> None:
    build_method(name, method_settings(settings, name))


def _check_labels(
    run: DryRun, settings: TrainingSettings, variants: Sequence[str], clips: Sequence[Clip], path: Path
) -> None:
    """Check that the methods that learn from labels find one for each training clip; each source of them once."""
    of_methods = [method_settings(settings, name) for name in variants] if clips else []
    sources = dict.fromkeys(own.label_file for own in of_methods if isinstance(own, LabeledSettings))
    for label_file in [None if name is None else Path(name) for name in sources]:
        ids = [clip.clip_id for clip in clips]
        run.holds(partial(classes_of_clips, clips, ids, where=path, label_file=label_file))


def _foresee_files(
    run: DryRun,
    params: Params,
    card: Card,
    settings: TrainingSettings,
    variants: Sequence[str],
    *,
    id_bytes: int,
    side: int,
) -> None:
    """List what will be written."""
    n_train, n_scored = (run.clips[s].found if s in run.clips else 0 for s in (TRAIN_SPLIT, params.score_split))
    n_seeds, root = len(params.seeds), runs_folder(Path(), run.dataset)
    with torch.random.fork_rng(devices=[]):
        model = build_model(settings.encoder.model_copy(update={"visual_weights": None}))
    shape = (card.audio.n_mels, card.audio.n_frames)
    labels = pseudo_label_bytes(n_train, side=side, embedding_dim=model.dim, id_bytes=id_bytes)
    for split, n in {TRAIN_SPLIT: n_train, params.score_split: n_scored}.items():
        per_shard = params.extract.clips_per_shard
        size = split_bytes(n, clips_per_shard=per_shard, image_size=card.image_size, log_mel_shape=shape)
        run.outputs.append(Output("shards", str(shards_folder(Path(), run.dataset, split)), -(-n // per_shard), size))
    one = model_bytes(model)
    settings_of = {name: method_settings(settings, name) for name in variants}
    for name, own in {INITIAL_RUN: None, **settings_of}.items():
        count = n_seeds * (own.epochs + 1 if own else 1)
        run.outputs.append(Output("pseudo-labels", str(root / name / LABELS_FOLDER), count, count * labels))
        run.outputs.append(Output(MODEL_FILE, str(root / name), n_seeds, n_seeds * one))
        if own:
            kept = n_seeds * (min(own.epochs + 1, own.keep_epochs) - 1)
            run.outputs.append(Output("kept weights", str(root / name / WEIGHTS_FOLDER), kept, kept * one))
    run.outputs.append(Output(f"{STATE_FILE}, while training", str(root), 1, state_bytes(model)))
    maps = maps_bytes(n_scored, side=side, id_bytes=id_bytes)
    for name in variants:
        run.outputs.append(
            Output("maps", str(results_folder(Path(), run.dataset) / MAPS_FOLDER / name), n_seeds, n_seeds * maps)
        )


def _check_disk(run: DryRun, project: Path) -> None:
    """Compare what will be written with what is there already and with the free disk."""
    run.disk_needed = sum(max(0, output.size - _present(output, project)) for output in run.outputs)
    run.disk_free = shutil.disk_usage(project).free
    if run.disk_needed > run.disk_free:
        short = human_bytes(run.disk_needed - run.disk_free)
        run.problems.append(
            f"{project.resolve()}: {short} of disk space are missing; make room, or train fewer variants"
        )
    elif 2 * run.disk_needed > run.disk_free:
        run.notes.append(
            f"disk: DVC's cache takes {human_bytes(run.disk_needed)} more where the file system cannot share copies "
            "(`dvc config cache.type hardlink,symlink` avoids it), and that does not fit"
        )


def _present(output: Output, project: Path) -> int:
    """Return how many bytes of an output are there, those of all seeds."""
    patterns = {
        "shards": SHARD_PATTERN,
        "pseudo-labels": LABELS_PATTERN,
        MODEL_FILE: MODEL_FILE,
        "kept weights": WEIGHTS_PATTERN,
        "maps": MAPS_FILE,
    }
    if output.what not in patterns:
        return 0
    folder = project / output.folder
    whole = folder.parent if output.what in ("pseudo-labels", "kept weights") else folder  # further seeds lie beside it
    return sum(path.stat().st_size for path in whole.rglob(patterns[output.what]))


def _rehearse(
    run: DryRun,
    params: Params,
    card: Card,
    settings: TrainingSettings,
    variants: Sequence[str],
    *,
    n_batches: int,
    device: str,
    tell: Callable[[str], None],
) -> None:
    """Compare memory with what there is and, if a batch fits, measure how long it takes."""
    devices: list[torch.device] = []
    if not run.holds(lambda: devices.append(select_device(device))):
        return
    (chosen,) = devices
    run.device = str(chosen)
    shape = (card.audio.n_mels, card.audio.n_frames)
    on_cpu = chosen.type == "cpu"
    run.memory_available = available_bytes(chosen)
    labels = 0 if not on_cpu else _labels_in_memory(run, card, settings)
    forecast = forecast_bytes(settings, image_size=card.image_size, log_mel_shape=shape)
    run.memory_needed = labels + forecast + (resident_bytes() if on_cpu else 0)
    if run.memory_needed > run.memory_available and on_cpu:
        _note_memory(run, settings)
        return
    train = run.clips.get(TRAIN_SPLIT)
    if not n_batches or (train and train.found < settings.batch_size):
        return  # a batch that cannot be filled is a problem by itself
    try:
        rehearsal = rehearse(
            settings,
            variants,
            image_size=card.image_size,
            log_mel_shape=shape,
            n_batches=n_batches,
            device=chosen,
            tell=tell,
        )
    except torch.OutOfMemoryError:
        _note_memory(run, settings)
        return
    except SoundspotError as error:
        run.problems.append(f"rehearsal of the training stages: {' '.join(str(error).split())}")
        return
    run.memory_needed, run.measured = labels + rehearsal.peak_bytes, True
    if run.memory_needed > run.memory_available:
        _note_memory(run, settings)
    run.times = stage_times(rehearsal, run.clips, params=params, settings=settings, methods=variants)
    if on_cpu and len(params.seeds) > 1:
        run.notes.append(
            "the times are of seeds one after the other; SOUNDSPOT_SEEDS_AT_ONCE trains them side by side, which a small net "
            "gains from"
        )


def _labels_in_memory(run: DryRun, card: Card, settings: TrainingSettings) -> int:
    """Return what the maps and embeddings of the training set take, of this epoch and the last, as read and as aligned."""
    side = map_side(card.image_size, cell_stride=cell_stride(settings.encoder.visual))
    dim = settings.encoder.embedding_dim or 8 * settings.encoder.visual.width
    return 4 * 4 * (run.clips[TRAIN_SPLIT].found if TRAIN_SPLIT in run.clips else 0) * (side**2 + dim)


def _note_memory(run: DryRun, settings: TrainingSettings) -> None:
    share = run.memory_available / run.memory_needed
    run.problems.append(
        f"training.{run.dataset}.batch_size: a batch of {settings.batch_size} needs about {human_bytes(run.memory_needed)} "
        f"on {run.device}, of which {human_bytes(run.memory_available)} are there; lower it to about "
        f"{max(2, int(0.9 * share * settings.batch_size))}, or take a machine with more memory"
    )
