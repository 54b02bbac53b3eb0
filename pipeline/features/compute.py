"""Compute the features of a split with frozen backbones, one file per shard (stage `features`).

A rerun keeps every intact file whose shard, backbones, weights and code (that of the import closure) are unchanged. A finished file is
trusted if its stamp is unchanged (`pipeline.shards.stamps`), and read otherwise. A file's bytes depend only on these and on the device,
not on the number of workers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

from pipeline.common.cluster import run_tasks
from pipeline.common.code import code_digest
from pipeline.common.config import EncoderSettings, Side, TrainingSettings
from pipeline.common.console import report
from pipeline.common.errors import ClusterError, FeatureError
from pipeline.common.files import locked, remove_leftovers, storing
from pipeline.common.project import FEATURES_PATTERN, features_path, stage_name
from pipeline.common.record import changed_code, read_record, write_record
from pipeline.features.backbone import origin_of
from pipeline.features.build_file import FeatureTask, compute_file, entry_of, frozen_model, why_stale
from pipeline.features.reader import n_views
from pipeline.features.store import read_header
from pipeline.model.devices import select_device
from pipeline.shards.reader import ShardSet
from pipeline.shards.stamps import Entry, add_entry, file_stamps, how_checked, read_entries, write_entries

CODE = "pipeline.features.compute"  # where the code of this stage starts


def compute_features(
    shards: Path,
    folder: Path,
    *,
    settings: TrainingSettings,
    scheduler: str | None = None,
    workers: int | None = None,
    device: str = "auto",
    fresh: bool = False,
    verify: bool = False,
) -> int:
    """Compute the features of a split whose settings store them (`TrainingSettings.stored_features`).

    Parameters
    ----------
    shards : Path
        Folder of the split's shards.
    folder : Path
        Output folder, named like the split; created if absent.
    settings : TrainingSettings
    scheduler, workers
        See `pipeline.common.cluster.run_tasks`; not used on CUDA, where one shard after the other is computed in this process.
    device : str
    fresh : bool
        Compute everything again, even if nothing changed.
    verify : bool
        Verify the checksums of all finished files, even if their stamps are unchanged.

    Returns
    -------
    int
        Number of files that were computed; the others were kept.

    Raises
    ------
    FeatureError
        The folder cannot be written or another process writes to it, a worker died, or a feature exceeds the range of float16.
        Finished files are kept, and the next run resumes from them.
    ShardError
        A shard is missing or damaged.
    CheckpointError
        The weights cannot be used.
    ClusterError
        The Dask scheduler cannot be reached.
    """
    # Workers of an external cluster have a different working directory.
    shards, folder, encoder = shards.absolute(), folder.absolute(), _absolute(settings.encoder)
    sides = settings.stored_features
    clips, where = ShardSet.open(shards), select_device(device)
    backbones = origin_of(encoder.model_dump(mode="json"), frozen_model(encoder, sides), sides)
    tasks = [
        FeatureTask(
            path=features_path(folder, shard),
            shards=shards,
            content=clips.content_digest,
            shard=shard,
            encoder=encoder,
            sides=sides,
            views=n_views(settings, folder.name),
            shard_digest=digest,
            backbones=tuple(backbones.items()),
            device=str(where),
        )
        for shard, digest in enumerate(clips.digests)
    ]
    with storing(folder, FeatureError), locked(folder, FeatureError):
        kept, n_trusted = _keep(folder, tasks, fresh=fresh, verify=verify)
        missing = [task for task in tasks if task.path.name not in kept]
        finished = kept | _run_all(missing, scheduler, workers, on_cpu=where.type == "cpu")
        digests = {task.path.name: finished[task.path.name].digest for task in tasks}
        write_record(folder, code=code_digest(CODE), files=digests)
    if not missing:
        report(
            f"features {folder.name}: {len(tasks)} files unchanged, {how_checked(n_trusted, len(tasks))}, kept; to compute them again: "
            f"SOUNDSPOT_FRESH=1 dvc repro -f -s {stage_name('features', folder)}"
        )
    return len(missing)


def _run_all(
    tasks: Sequence[FeatureTask], scheduler: str | None, workers: int | None, *, on_cpu: bool
) -> dict[str, Entry]:
    """Compute files, and note each one that is finished; return their entries by file name."""
    entries: dict[str, Entry] = {}
    for entry in _computed(tasks, scheduler, workers) if on_cpu else map(compute_file, tasks):
        add_entry(tasks[0].path.parent, entry)
        entries[entry.name] = entry
    return entries


def _computed(tasks: Sequence[FeatureTask], scheduler: str | None, workers: int | None) -> Iterator[Entry]:
    arguments = [(task,) for task in tasks]
    label = f"features {tasks[0].path.parent.name}" if tasks else ""
    try:
        for _, entry in run_tasks(compute_file, arguments, scheduler=scheduler, workers=workers, label=label):
            yield entry
    except ClusterError as error:
        if error.task is None:
            raise
        raise FeatureError(
            f"{tasks[error.task].path}: the worker process died repeatedly on this file: out of memory? Use fewer workers. Finished files "
            "are kept"
        ) from None


def _keep(folder: Path, tasks: Sequence[FeatureTask], *, fresh: bool, verify: bool) -> tuple[dict[str, Entry], int]:
    """Remove the files that cannot be kept, and report why; return the others by name, and how many of them were not read."""
    folder.mkdir(parents=True, exist_ok=True)
    record, code = read_record(folder), code_digest(CODE)
    recorded, expected = record.get("files", {}), {task.path: task for task in tasks}
    recode = "SOUNDSPOT_FRESH is set" if fresh else changed_code(record, code)
    trusted = {} if recode or verify else _trusted(folder, tasks)
    kept: dict[str, Entry] = {}
    removed: Counter[str] = Counter()
    for path in sorted(folder.glob(FEATURES_PATTERN)):
        task, known = expected.get(path), trusted.get(path.name)
        if task is None:
            reason = recode or "the shards changed"
        else:
            reason = recode or _why_removed(task, known, recorded.get(path.name))
            if not reason:
                kept[path.name] = known or entry_of(task)
        if reason:
            removed[reason] += 1
            path.unlink()
    for reason, count in removed.items():
        report(f"features {folder.name}: removed {count} files, to be computed again: {reason}")
    remove_leftovers(folder)
    write_entries(folder, kept.values())
    write_record(folder, code=code)
    return kept, len(kept.keys() & trusted.keys())


def _trusted(folder: Path, tasks: Sequence[FeatureTask]) -> dict[str, Entry]:
    """Return the entries of those finished files whose inputs and stamps are unchanged, by file name."""
    entries = read_entries(folder)
    stamps = file_stamps(task.path for task in tasks if task.path.name in entries)
    found = {task.path.name: (task.fingerprint, stamps.get(task.path)) for task in tasks}
    return {name: entry for name, entry in entries.items() if found.get(name) == (entry.fingerprint, entry.stamp)}


def _why_removed(task: FeatureTask, known: Entry | None, recorded: str | None) -> str:
    """Return why a file cannot be kept, or an empty string. `known` is its entry if it is trusted, `recorded` its digest in the record."""
    if known is None and (reason := why_stale(task)):
        return reason
    digest = known.digest if known else read_header(task.path).digest
    return "modified after they had been computed" if recorded not in (None, digest) else ""


def _absolute(encoder: EncoderSettings) -> EncoderSettings:
    """Return the settings with absolute paths of those weights that are files."""
    update = {}
    for side in get_args(Side):
        backbone = getattr(encoder, side)
        if backbone.weights is not None and Path(backbone.weights).is_file():
            update[side] = backbone.model_copy(update={"weights": str(Path(backbone.weights).absolute())})
    return encoder.model_copy(update=update)
