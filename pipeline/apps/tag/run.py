"""Tag a split: one task per shard and classifier, then the label file. ``OUTPUT.parts`` keeps finished shards, so that a run resumes."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.apps.tag.classes import ClassList, Groups, check_same_groups, read_groups
from pipeline.apps.tag.frames import FrameModel
from pipeline.apps.tag.label_file import SideFacts, Tagged, finished, write_labels
from pipeline.apps.tag.parts import (
    FrameTask,
    Part,
    SoundTask,
    clips_of,
    is_done,
    loaded,
    read_part,
    write_part,
)
from pipeline.apps.tag.sounds import SoundModel
from pipeline.common.cluster import run_tasks
from pipeline.common.config import load_card
from pipeline.common.console import report
from pipeline.common.errors import ClusterError, TaggingError
from pipeline.common.files import fingerprint, locked, remove_leftovers, storing
from pipeline.common.project import CLIPS_FILE, DATA_FOLDER, manifest_folder, shards_folder
from pipeline.manifests.prepared import read_prepared_clips, resolve_media_root
from pipeline.shards.reader import ShardSet
from pipeline.training.class_labels import SIDES

Task = FrameTask | SoundTask
Model = FrameModel | SoundModel


@dataclass(frozen=True)
class Split:
    """The clips to tag.

    Attributes
    ----------
    project : Path
    dataset, name : str
    clip_time_limit_s : float
        Time limit for decoding one clip, seconds.
    max_reject_fraction : float
        The command fails if more of the clips than this have unusable audio.
    """

    project: Path
    dataset: str
    name: str
    clip_time_limit_s: float = 30.0
    max_reject_fraction: float = 0.1


def tag(
    split: Split,
    output: Path,
    *,
    frames: FrameModel | None = None,
    sounds: SoundModel | None = None,
    groups: Path | None = None,
    overwrite: bool = False,
    workers: int | None = None,
) -> Tagged:
    """Tag a split with a frame classifier, an audio tagger, or both.

    Parameters
    ----------
    split : Split
    output : Path
    frames, sounds : optional
        At least one.
    groups : Path, optional
        Which classes are summed up to which, see `read_groups`. By default, each class is its own.
    overwrite : bool
        Replace a file that was made from something else.
    workers : int, optional
        Processes; by default one per core.

    Raises
    ------
    TaggingError
        The classifiers, their names or the groups cannot be used, the output exists, too much audio is unusable, or another process
        writes the same file. Finished shards are kept.
    CheckpointError, PackageError, ShardError, ManifestError
        See `FrameModel.load`, `ShardSet.open` and `read_prepared_clips`.
    """
    models: dict[str, Model] = {
        side: _absolute(model) for side, model in zip(SIDES, (frames, sounds), strict=True) if model is not None
    }
    if not models:
        raise TaggingError("no classifier: pass one of frames (--frames), one of audio (--sounds), or both")
    if output.suffix.lower() != ".csv":
        raise TaggingError(f"{output}: the output is a table; use the extension .csv")
    shards = ShardSet.open(shards_folder(split.project, split.dataset, split.name).absolute())
    classifiers = {side: loaded(model, None) for side, model in models.items()}
    digests = {side: each.digest for side, each in classifiers.items()}
    grouped = _groups({side: each.classes for side, each in classifiers.items()}, groups)
    parts = output.absolute().with_name(f"{output.name}.parts")
    tasks = _tasks(split, shards, parts, models, digests, grouped)
    identity = fingerprint([task.fingerprint for of_side in tasks.values() for task in of_side])
    with storing(output, TaggingError), locked(parts, TaggingError):
        if (kept := finished(output, identity, overwrite=overwrite)) is not None:
            return kept
        parts.mkdir(exist_ok=True)
        remove_leftovers(parts)
        _run([task for of_side in tasks.values() for task in of_side], workers, parts)
        results = {side: _joined(of_side) for side, of_side in tasks.items()}
        _check_rejects(results, split)
        facts = {
            side: SideFacts(model, digests[side], dict(zip(grouped[side].names, grouped[side].members, strict=True)))
            for side, model in models.items()
        }
        written = write_labels(output, results, facts, dataset=split.dataset, split=split.name, identity=identity)
        shutil.rmtree(parts)
    return written


def _absolute(model: Model) -> Model:
    """Return a model with absolute paths: workers of an external cluster have a different working directory."""
    update: dict[str, Any] = {name: value.absolute() for name, value in vars(model).items() if isinstance(value, Path)}
    if isinstance(model, FrameModel) and Path(model.weights).is_file():
        update["weights"] = str(Path(model.weights).absolute())
    return replace(model, **update)


def _groups(classes: Mapping[str, ClassList], path: Path | None) -> dict[str, Groups]:
    if path is not None:
        return read_groups(path, classes)
    found = {side: Groups.each_class(each) for side, each in classes.items()}
    check_same_groups(found, "without --groups")
    return found


def _tasks(
    split: Split,
    shards: ShardSet,
    parts: Path,
    models: Mapping[str, Model],
    digests: Mapping[str, str],
    groups: Mapping[str, Groups],
) -> dict[str, list[Task]]:
    """Return the tasks of each side, one per shard that has clips."""
    tasks: dict[str, list[Task]] = {}
    numbers = [number for number in range(len(shards.paths)) if len(shards.rows(number))]
    for side, model in models.items():
        paths = {number: parts / f"{side}-{number:05d}.h5" for number in numbers}
        if isinstance(model, FrameModel):
            folder, content = shards.paths[0].parent, shards.content_digest
            tasks[side] = [
                FrameTask(paths[number], model, digests[side], groups[side], folder, content, number)
                for number in numbers
            ]
            continue
        card = load_card(manifest_folder(split.project, split.dataset))
        listed = split.project / DATA_FOLDER / split.dataset / CLIPS_FILE
        clips = clips_of(shards.clip_ids, read_prepared_clips(listed, split.name), listed)
        root = resolve_media_root(card, split.project, split.dataset).absolute()
        tasks[side] = [
            SoundTask(
                path=paths[number],
                model=model,
                digest=digests[side],
                groups=groups[side],
                content=shards.content_digest,
                clips=tuple(clips[row] for row in shards.rows(number)),
                media_root=root,
                clip_seconds=card.audio.clip_seconds,
                time_limit_s=split.clip_time_limit_s,
            )
            for number in numbers
        ]
    return tasks


def _run(tasks: Sequence[Task], workers: int | None, parts: Path) -> None:
    missing = [task for task in tasks if not is_done(task)]
    if len(missing) < len(tasks):
        report(f"{parts}: {len(tasks) - len(missing)} of {len(tasks)} parts are finished, checksums verified; resuming")
    here = [task for task in missing if isinstance(task, FrameTask) and task.model.device != "cpu"]
    for task in here:
        write_part(task)
    on_workers = [task for task in missing if task not in here]
    try:
        for _ in run_tasks(write_part, [(task,) for task in on_workers], scheduler=None, workers=workers, label="tag"):
            pass
    except ClusterError as error:
        if error.task is None:
            raise
        raise TaggingError(
            f"{on_workers[error.task].path}: the worker process died twice on this part: out of memory? Use fewer workers. "
            "Finished parts are kept"
        ) from None


def _joined(tasks: Sequence[Task]) -> Part:
    parts = [read_part(task.path) for task in tasks]
    return Part(
        [clip_id for part in parts for clip_id in part.clip_ids],
        np.concatenate([part.probability for part in parts]),
        {clip_id: reason for part in parts for clip_id, reason in part.reasons.items()},
    )


def _check_rejects(results: Mapping[str, Part], split: Split) -> None:
    for part in results.values():
        allowed = split.max_reject_fraction * len(part.clip_ids)
        # With one classifier, a clip without audio would have no label at all, and no method could be trained.
        if len(part.reasons) > allowed or (part.reasons and len(results) == 1):
            clip_id, reason = next(iter(part.reasons.items()))
            advice = (
                "repair the media" if len(results) == 1 else "is SOUNDSPOT_MEDIA_ROOT right? See max_reject_fraction"
            )
            raise TaggingError(
                f"the audio of {len(part.reasons)} of {len(part.clip_ids)} clips cannot be tagged, such as {clip_id!r} ({reason}); {advice}; "
                "finished parts are kept"
            )
