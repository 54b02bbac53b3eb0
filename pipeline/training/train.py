"""The stages `initialize` and `train`: one run per seed; finished runs are verified and kept.

See `pipeline.training.loop` for what a run does.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from pipeline.common.config import TrainingSettings
from pipeline.common.console import report
from pipeline.common.errors import TrainingError
from pipeline.common.files import locked
from pipeline.common.project import SEED_PATTERN, is_seed_folder, stage_name
from pipeline.model.devices import algorithms, select_device
from pipeline.model.ranks import by_first, check_batch_size, is_first, launched, n_ranks
from pipeline.shards.reader import ShardSet
from pipeline.training.live.writers import Log
from pipeline.training.loop import train_run
from pipeline.training.parallel import run_as_ranks, run_in_parallel
from pipeline.training.relabel import relabel_from_checkpoints
from pipeline.training.run import EpochHook, TrainingRun, no_hook
from pipeline.training.run_folder import Status
from pipeline.training.spec import RunSpec, initialize_specs, train_specs


@dataclass(frozen=True)
class Execution:
    """How training is carried out on a machine. Nothing here changes what is learned, up to rounding, so nothing is in params.yaml.

    Attributes
    ----------
    n_parallel : int >= 1
        Number of seeds trained in parallel on a CPU (see `pipeline.training.parallel`); on CUDA they run one after another.
    n_processes : int >= 1
        Number of processes that train each seed together, one for each device (see `pipeline.model.ranks`).
    compiled : bool
        Compile the backbones with torch.compile: the first steps take minutes, the others less time.
    deterministic : bool
        False: on CUDA, the fastest algorithms, with which a resumed run differs from an uninterrupted one by rounding. On a CPU, no effect.
    fresh : bool
        Train from scratch even if a finished or interrupted run could be kept or resumed.
    live : str
        Which log to write while training, see `pipeline.training.live.writers`.
    """

    n_parallel: int = 1
    n_processes: int = 1
    compiled: bool = False
    deterministic: bool = True
    fresh: bool = False
    live: Log = "off"


DEFAULTS = Execution()


def initialize(
    shards: ShardSet,
    folder: Path,
    *,
    settings: TrainingSettings,
    seeds: Sequence[int],
    device: str = "auto",
    execution: Execution = DEFAULTS,
) -> None:
    """Train the initial model, which all methods share, with Eq. 3.

    Parameters
    ----------
    shards : ShardSet
        The training split.
    folder : Path
        Receives ``model.pt``, ``pseudo_labels/epoch_000.h5``, ``history.csv`` and ``timings.csv`` of the first seed; those of
        further seeds go to ``seed_<seed>/``.
    settings : TrainingSettings
        `iterate` and `methods` are not used.
    seeds : sequence of int
    device : str
        "auto", "cpu", "cuda" …
    execution : Execution
        Processes, determinism, logs.

    Raises
    ------
    TrainingError
        The batch size exceeds the training set or cannot be divided among the processes, another process is training in `folder`,
        or the loss is not finite.
    CheckpointError
        The file of pretrained weights cannot be used.
    """
    specs = initialize_specs(shards, folder, settings=settings, seeds=seeds)
    _train_all(specs, shards, folder, device, execution)


def train(
    shards: ShardSet,
    initial_folder: Path,
    folder: Path,
    *,
    method: str,
    settings: TrainingSettings,
    seeds: Sequence[int],
    clips: Path | None = None,
    device: str = "auto",
    execution: Execution = DEFAULTS,
    on_epoch: EpochHook = no_hook,
) -> None:
    """Train one method from the initial model and its pseudo-labels.

    Parameters
    ----------
    shards : ShardSet
        The training split.
    initial_folder : Path
        Folder that `initialize` wrote for the same seeds.
    folder : Path
        As in `initialize`, with one ``pseudo_labels/epoch_NNN.h5`` per epoch.
    method : str
        A name in `pipeline.methods.registry.METHODS`.
    settings : TrainingSettings
    seeds : sequence of int
    clips : Path, optional
        ``clips.csv``, for a method that learns from class labels.
    device, execution
        As in `initialize`.
    on_epoch : callable
        See `pipeline.training.run.TrainingRun`.

    Raises
    ------
    SettingsError
        The method is unknown.
    TrainingError
        As in `initialize`, or the initial model has different encoders.
    CheckpointError, PseudoLabelError
        A file of the initial run is missing, damaged, or belongs to other shards.
    ManifestError
        The method learns from class labels, and a clip has none.
    """
    specs = train_specs(shards, initial_folder, folder, method=method, settings=settings, seeds=seeds, clips=clips)
    _train_all(specs, shards, folder, device, execution, on_epoch)


def _train_all(
    specs: Sequence[RunSpec],
    shards: ShardSet,
    folder: Path,
    device_name: str,
    execution: Execution,
    on_epoch: EpochHook = no_hook,
) -> None:
    if launched() and n_ranks() == 1:
        raise TrainingError(
            "this process was started as one of several (RANK and WORLD_SIZE are set), but trains alone, in the same folder as the others; "
            "use `torchrun -m stages.train`, or unset WORLD_SIZE"
        )
    device = select_device(device_name)
    n_processes = 1 if launched() else execution.n_processes  # torchrun has started its processes
    together = max(n_processes, n_ranks())
    check_batch_size(specs[0].batch_size, together)
    if together > 1 and execution.n_parallel > 1:
        raise TrainingError(
            f"{execution.n_parallel} seeds at once, and {together} processes for each: use only one of the two"
        )
    if together > 1 and execution.compiled:
        raise TrainingError(
            f"SOUNDSPOT_COMPILE with {together} processes: the statistics of BatchNorm that they exchange cannot be compiled; unset it"
        )
    # Two processes in one folder would overwrite each other's files.
    with locked(folder, TrainingError) if is_first() else nullcontext():
        if execution.fresh:  # train, even where the weights of another run would serve
            specs = [replace(spec, reuses_weights_of=None) for spec in specs]
        kept = by_first(partial(_clean, folder, specs, execution.fresh))
        todo = [
            TrainingRun(spec, shards, device, on_epoch, execution.live, execution.compiled)
            for spec, is_kept in zip(specs, kept, strict=True)
            if not is_kept
        ]
        tasks = [partial(_carry_out, run, execution.deterministic) for run in todo]
        # Limited by all seeds, not by those left to train: the number of threads per seed affects the last bits of its result.
        n_parallel = min(execution.n_parallel, len(specs))
        if n_processes > 1:
            for task in tasks:
                run_as_ranks(task, n_ranks=n_processes, device=device_name)
        elif device.type == "cpu" and n_parallel > 1:
            run_in_parallel(tasks, n_parallel=n_parallel)
        else:
            for task in tasks:
                task()


def _clean(folder: Path, specs: Sequence[RunSpec], fresh: bool) -> list[bool]:
    """Remove what is not kept; return which runs are finished and unchanged."""
    _remove_other_seeds(folder, specs)
    return [_is_kept(spec, fresh) for spec in specs]


def _is_kept(spec: RunSpec, fresh: bool) -> bool:
    """Return True if the run is finished and unchanged; otherwise leave its folder resumable or empty. Reports which."""
    run = spec.folder
    run.remove_temporary_files()
    status, reason = run.status()
    if fresh and status in (Status.FINISHED, Status.RESUMABLE):
        status, reason = Status.STALE, "SOUNDSPOT_FRESH is set"
    if status is Status.FINISHED:
        stage = stage_name("train", run.path) if spec.stage == "train" else spec.stage
        report(
            f"{spec.name}: finished and unchanged, checksums verified, kept; to train again: "
            f"SOUNDSPOT_FRESH=1 dvc repro -f -s {stage}"
        )
        return True
    if status is Status.STALE:
        report(f"{spec.name}: removing the earlier run in {run.path} and training from scratch: {reason}")
        run.begin()
    return False


def _remove_other_seeds(folder: Path, specs: Sequence[RunSpec]) -> None:
    for stale in sorted(set(filter(is_seed_folder, folder.glob(SEED_PATTERN))) - {spec.folder.path for spec in specs}):
        report(f"removing {stale}: its seed is no longer in `seeds`")
        shutil.rmtree(stale)


def _carry_out(run: TrainingRun, deterministic: bool, device_name: str | None = None) -> None:
    if device_name is not None:
        run = replace(run, device=select_device(device_name))
    other = run.spec.reuses_weights_of
    with algorithms(run.device, deterministic=deterministic), _compiler_errors(run.compiled):
        try:
            if other and by_first(other.has_all_weights):
                relabel_from_checkpoints(run, other)
            else:
                train_run(run)
        except torch.OutOfMemoryError:
            raise TrainingError(
                f"{run.spec.name}: a batch of {run.spec.batch_size} does not fit in the memory of {run.device}; lower `batch_size`, or free "
                "the device (`soundspot check` measures what a batch takes)"
            ) from None


@contextmanager
def _compiler_errors(compiled: bool) -> Iterator[None]:
    """Convert what torch.compile raises, for example without a C++ compiler, into a TrainingError."""
    if not compiled:
        yield
        return
    from torch._dynamo.exc import TorchDynamoException  # the import takes seconds

    try:
        yield
    except TorchDynamoException as error:
        reason = " ".join(str(error).strip().split("\n\n")[0].split())  # what follows is advice for developers of torch
        raise TrainingError(f"SOUNDSPOT_COMPILE: the encoders cannot be compiled ({reason}); unset it") from None
