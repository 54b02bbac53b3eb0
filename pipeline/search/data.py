"""The training and the validation split of a dataset. What is missing is made, as the stages do it."""

from __future__ import annotations

from pathlib import Path

from pipeline.common.config import Card, Params, load_card
from pipeline.common.errors import FeatureError, SearchError
from pipeline.common.project import (
    CLIPS_FILE,
    DATA_FOLDER,
    features_folder,
    manifest_folder,
    shards_folder,
    stage_name,
)
from pipeline.datasets.prepare import prepare_dataset
from pipeline.extraction.extract import extract_split
from pipeline.features.compute import compute_features
from pipeline.features.reader import open_clips
from pipeline.manifests.boxes import boxes_path
from pipeline.manifests.clips import TRAIN_SPLIT, VALIDATION_SPLIT, check_held_out
from pipeline.manifests.prepared import (
    FINGERPRINTS_FILE,
    read_media_fingerprint,
    read_prepared_clips,
    resolve_media_root,
)
from pipeline.scoring.scorable import validate_for_evaluation
from pipeline.search.validation import Validation, check_metric, default_metric
from pipeline.shards.listing import SHARDS_FILE
from pipeline.shards.reader import ShardSet


def open_data(
    project: Path, dataset: str, params: Params, *, metric: str | None, device: str, workers: int | None
) -> tuple[ShardSet, Validation]:
    """Open the training split, and the validation split with its boxes; extract what is missing.

    Parameters
    ----------
    project : Path
    dataset : str
    params : Params
    metric : str, optional
        Default: see `pipeline.search.validation.default_metric`.
    device : str
    workers : int, optional
        Processes of the extraction; default: one per core.

    Raises
    ------
    SearchError
        The dataset has no validation split with boxes, the metric is unknown, or shards were extracted with other settings than the
        card's.
    ManifestError, EvaluationError, ExtractionError, FeatureError, ShardError
        As in the stages.
    """
    manifest, settings = manifest_folder(project, dataset), params.training[dataset]
    card = load_card(manifest)
    for needed in (manifest / f"{VALIDATION_SPLIT}.csv", boxes_path(manifest, VALIDATION_SPLIT)):
        if not needed.is_file():
            raise SearchError(
                f"{needed}: no such file; settings are chosen on a validation split with boxes, never on test"
            )
    metric = metric or default_metric(card.evaluation)
    check_metric(metric, card.evaluation)
    clips = project / DATA_FOLDER / dataset / CLIPS_FILE
    if not clips.is_file():
        prepare_dataset(
            manifest,
            clips.parent,
            media_root=resolve_media_root(card, project, dataset),
            scheduler=None,
            workers=workers,
            score_split=VALIDATION_SPLIT,
            batch_size=settings.batch_size,
        )
    train, validation = (
        _open_split(project, dataset, split, params, card, device=device, workers=workers)
        for split in (TRAIN_SPLIT, VALIDATION_SPLIT)
    )
    if not card.leaks_allowed:
        check_held_out(
            validation.clip_ids, read_prepared_clips(clips, TRAIN_SPLIT), where=f"{manifest / VALIDATION_SPLIT}.csv"
        )
    boxes = validate_for_evaluation(manifest, VALIDATION_SPLIT, validation.clip_ids, card.evaluation)
    return train, Validation(validation, boxes, card.evaluation, metric, device)


def _open_split(
    project: Path, dataset: str, split: str, params: Params, card: Card, *, device: str, workers: int | None
) -> ShardSet:
    folder, features = shards_folder(project, dataset, split), features_folder(project, dataset, split)
    settings, clips = params.training[dataset], project / DATA_FOLDER / dataset / CLIPS_FILE
    if not (folder / SHARDS_FILE).is_file():  # written last
        extract_split(
            clips,
            split,
            media_root=resolve_media_root(card, project, dataset),
            folder=folder,
            audio=card.audio,
            image_size=card.image_size,
            clips_per_shard=params.extract.clips_per_shard,
            max_reject_fraction=params.extract.max_reject_fraction,
            clip_time_limit_s=params.extract.clip_time_limit_s,
            scheduler=None,
            workers=workers,
            encoding=params.extract.encoding,
            media=read_media_fingerprint(clips.with_name(FINGERPRINTS_FILE)),
        )
    shards = ShardSet.open(folder)
    found = {**shards.settings, **shards.encoding.model_dump()}
    wanted = {
        "the dataset's card": {**card.audio.model_dump(), "image_size": card.image_size},
        "params.yaml": params.extract.encoding.model_dump(),
    }
    for source, expected in wanted.items():
        for name, value in expected.items():
            if found.get(name) != value:
                raise SearchError(
                    f"{folder}: extracted with {name} {found.get(name)}, but {source} has {value}; run "
                    f"`dvc repro {stage_name('extract', folder)}`"
                )
    try:
        return open_clips(shards, features, settings)
    except FeatureError:
        compute_features(folder, features, settings=settings, workers=workers, device=device)
        return open_clips(shards, features, settings)
