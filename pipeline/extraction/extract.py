"""Extract a clip list into shards of decoded clips on Dask, one task per shard.

Unusable clips are listed in ``rejects.csv`` (columns ``clip_id, reason``) and are never replaced by other clips. The
split fails if too many clips are unusable or if the folder cannot be written.

``rejects.csv`` is written last and marks a finished split. A rerun keeps every intact shard whose clips, settings and code (that
of the import closure) are unchanged. Shards with rejects are rebuilt if the split failed because of too many rejects, or
if the media root or the time limit changed. A shard's bytes depend only on its clips and the settings, not on the number
of workers or the location of the media.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from pipeline.common.cluster import run_tasks
from pipeline.common.code import code_digest
from pipeline.common.config import AudioSettings
from pipeline.common.console import report
from pipeline.common.errors import ClusterError, ExtractionError, ManifestError, ShardError
from pipeline.common.files import fingerprint, locked, remove_leftovers, storing, write_csv, write_text
from pipeline.common.project import SHARD_PATTERN, shard_path, stage_name
from pipeline.common.record import changed_code, read_record, write_record
from pipeline.extraction.build_shard import ShardTask, build_shard
from pipeline.manifests.clips import Clip, media_path
from pipeline.shards.reader import REJECTS_FILE, read_rejects, read_shard_fingerprint, shard_digest

PARTIAL_REJECTS_FILE = "rejects.partial.csv"
CONDITIONS_FILE = ".conditions"  # DVC ignores it
CODE = "pipeline.extraction.extract"  # where the code of this stage starts


@dataclass(frozen=True)
class ExtractionSummary:
    """Counts of a finished extraction.

    Attributes
    ----------
    n_clips : int
        Clips stored in the shards.
    n_rejected : int
        Clips listed in rejects.csv.
    n_shards : int
        Shards of the split.
    n_kept : int
        Shards kept from an earlier, unfinished run.
    """

    n_clips: int
    n_rejected: int
    n_shards: int
    n_kept: int


def extract_split(
    clips: Sequence[Clip],
    *,
    media_root: Path,
    folder: Path,
    audio: AudioSettings,
    image_size: int,
    clips_per_shard: int,
    max_reject_fraction: float,
    clip_time_limit_s: float,
    scheduler: str | None,
    workers: int | None,
    media: str = "",
    fresh: bool = False,
) -> ExtractionSummary:
    """Decode a split's clips into shards.

    Parameters
    ----------
    clips : sequence of Clip
        The split; its order is kept.
    media_root : Path
        Folder that the clips' paths are relative to. With a scheduler, workers must have access to it and to `folder`.
    folder : Path
        Output folder for the shards and rejects.csv; created if absent.
    audio : AudioSettings
        Log-mel settings.
    image_size : int > 0
        Side of the stored frame, pixels.
    clips_per_shard : int > 0
    max_reject_fraction : float in [0, 1]
        Stop as soon as more than this fraction of the split is unusable.
    clip_time_limit_s : float > 0
        Time limit for one clip in seconds, after which it is rejected.
    scheduler, workers
        See `pipeline.common.cluster.run_tasks`.
    media : str
        Fingerprint of generated media, so that shards of different media are not kept; empty for other media.
    fresh : bool
        Extract everything again, even if nothing changed.

    Raises
    ------
    ManifestError
        The list is empty, a clip id is repeated, or a path leaves the media root.
    ExtractionError
        Too many clips are unusable (they are listed in rejects.partial.csv), the folder cannot be written or another
        process is writing to it, or a worker process died. Finished shards are kept, and the next run resumes from them.
    ClusterError
        The Dask scheduler cannot be reached.
    """
    _check_clips(clips, folder)
    parts = [tuple(clips[start : start + clips_per_shard]) for start in range(0, len(clips), clips_per_shard)]
    # Workers of an external cluster have a different working directory.
    media_root, folder = media_root.absolute(), folder.absolute()
    tasks = [
        ShardTask(shard_path(folder, index), part, media_root, audio, image_size, media, clip_time_limit_s, len(parts))
        for index, part in enumerate(parts)
    ]
    rejects: dict[str, str] = {}
    n_kept = 0
    with ExitStack() as stack:
        with storing(folder, ExtractionError):
            stack.enter_context(locked(folder, ExtractionError))
            n_before = _clean(folder, tasks, fresh=fresh)
        for n_seen, kept, rejected in stack.enter_context(closing(_build_all(tasks, scheduler, workers))):
            n_kept += kept
            rejects |= rejected
            # A split without a single usable clip is an error under any limit.
            if len(rejects) > max_reject_fraction * len(clips) or len(rejects) == len(clips):
                rows = _write_rejects(folder / PARTIAL_REJECTS_FILE, clips, rejects)
                raise ExtractionError(_too_many(rows, n_seen, len(clips), max_reject_fraction, folder))
        with storing(folder, ExtractionError):
            digests = {task.path.name: shard_digest(task.path) for task in tasks}
            write_record(folder, code=code_digest(CODE), files=digests)
        _write_rejects(folder / REJECTS_FILE, clips, rejects)
    if n_kept == len(tasks):
        report(
            f"extract {folder.name}: {n_kept} shards unchanged, checksums verified, kept; to extract again: "
            f"SOUNDSPOT_FRESH=1 dvc repro -f -s {stage_name('extract', folder)}"
        )
    elif n_kept < n_before:
        report(f"extract {folder.name}: {n_before - n_kept} shards were damaged and have been extracted again")
    return ExtractionSummary(len(clips) - len(rejects), len(rejects), len(tasks), n_kept)


def _build_all(
    tasks: Sequence[ShardTask], scheduler: str | None, workers: int | None
) -> Generator[tuple[int, bool, dict[str, str]], None, None]:
    """Yield for each finished shard the number of clips processed so far, whether it was kept, and its rejects."""
    n_seen = 0
    label = f"extract {tasks[0].path.parent.name}"
    arguments = [(task,) for task in tasks]
    try:
        for index, (kept, rejects) in run_tasks(
            build_shard, arguments, scheduler=scheduler, workers=workers, label=label
        ):
            n_seen += len(tasks[index].clips)
            yield n_seen, kept, rejects
    except ClusterError as error:
        if error.task is None:
            raise
        task = tasks[error.task]
        raise ExtractionError(
            f"{task.path}: the worker process died twice on this shard (clips {task.clips[0].clip_id!r} to "
            f"{task.clips[-1].clip_id!r}): out of memory, or a decoder crashed. Use fewer workers, or remove the clip "
            "from the list. Finished shards are kept"
        ) from None


def _check_clips(clips: Sequence[Clip], folder: Path) -> None:
    if not clips:
        raise ManifestError(f"{folder.name}: no clips to extract")
    repeated = [clip_id for clip_id, count in Counter(clip.clip_id for clip in clips).items() if count > 1]
    if repeated:
        raise ManifestError(f"{folder.name}: clip_id {repeated[0]!r} is repeated")
    # Fail before any work: a path that leaves the media root is a mistake in the list, not an unusable clip.
    for clip in clips:
        for medium in clip.media:
            media_path(Path(), medium)


def _clean(folder: Path, tasks: Sequence[ShardTask], *, fresh: bool) -> int:
    """Remove stale outputs and report why; return the number of shards that stay. `build_shard` verifies these."""
    folder.mkdir(parents=True, exist_ok=True)
    partial, conditions_path = folder / PARTIAL_REJECTS_FILE, folder / CONDITIONS_FILE
    record, code = read_record(folder), code_digest(CODE)
    recode = changed_code(record, code)
    # What may make a rejected clip usable. Not in the record, because it belongs to the machine.
    conditions = fingerprint([str(tasks[0].media_root), tasks[0].clip_time_limit_s])
    retry = partial.exists() or (conditions_path.is_file() and conditions_path.read_text() != conditions)
    expected = {task.path: task.fingerprint for task in tasks}
    removed: Counter[str] = Counter()
    n_kept = 0
    for path in folder.glob(SHARD_PATTERN):
        if fresh:
            reason = "SOUNDSPOT_FRESH is set"
        elif recode:
            reason = recode
        elif path not in expected or _fingerprint(path) != expected[path]:
            reason = "the clip list or the settings changed"
        elif path.name in record.get("files", {}) and shard_digest(path) != record["files"][path.name]:
            reason = "they were modified after they had been extracted"
        elif retry and _has_rejects(path):
            reason = "their rejected clips may be usable now"
        else:
            n_kept += 1
            continue
        removed[reason] += 1
        path.unlink()
    for reason, count in removed.items():
        report(f"extract {folder.name}: removed {count} shards: {reason}")
    # rejects.csv is deleted last: a split without it counts as unfinished.
    remove_leftovers(folder)
    for path in (partial, folder / REJECTS_FILE):
        path.unlink(missing_ok=True)
    write_text(conditions_path, conditions)
    write_record(folder, code=code)
    return n_kept


def _fingerprint(path: Path) -> str:
    try:
        return read_shard_fingerprint(path)
    except ShardError:
        return ""  # damaged: never equal to an expected one


def _has_rejects(path: Path) -> bool:
    try:
        return bool(read_rejects(path))
    except ShardError:
        return True  # unreadable: it is rebuilt anyway


def _write_rejects(path: Path, clips: Sequence[Clip], rejects: dict[str, str]) -> list[tuple[str, str]]:
    rows = [(clip.clip_id, rejects[clip.clip_id]) for clip in clips if clip.clip_id in rejects]
    with storing(path, ExtractionError):
        write_csv(path, ("clip_id", "reason"), rows)
    return rows


def _too_many(rows: Sequence[tuple[str, str]], n_seen: int, n_clips: int, limit: float, folder: Path) -> str:
    commonest = Counter(_kind(reason) for _, reason in rows).most_common(3)
    listed = "; ".join(f"{count} x {reason}" for reason, count in commonest)
    return (
        f"{folder.name}: {len(rows)} of the {n_seen} clips processed are unusable ({n_clips} in the split, limit "
        f"{limit:.0%}): {listed}. They are listed in {folder / PARTIAL_REJECTS_FILE}. Check the media root, fix the "
        "clip list, or raise extract.max_reject_fraction; shards without rejects are kept"
    )


def _kind(reason: str) -> str:
    """Return a reason without its leading file name, so that equal reasons are counted together."""
    return reason.split(": ", 1)[-1]
