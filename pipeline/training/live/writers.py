"""Logs of a run for other programs: DVCLive's, which `dvc plots` and `dvc exp show` read, and event files for TensorBoard.

They are in the project's folder ``live``, outside the outputs of any stage: they only show a run, so DVC does not keep them.
Each run that starts or resumes writes its log again from the start, from what its ``state.pt`` has.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from pipeline.common.console import note
from pipeline.common.packages import load_package
from pipeline.common.project import ProjectPaths

Log = Literal["auto", "dvclive", "tensorboard", "off"]
# Of the history's columns; in DVC, each is a column of `dvc exp show` as well, so these are few.
EPOCH_COLUMNS = ("loss_share", "mask_iou_previous", "audio_gap")


class Writer:
    """The interface of a log. This one writes nothing."""

    def step(self, step: int, loss: float) -> None:
        """Log the loss of a step, counted over the run from 1."""

    def epoch(self, row: Mapping[str, float]) -> None:
        """Log a row of the history."""

    def present(self, *, epoch: int, learning_rate: float, clips_per_second: float) -> None:
        """Log the state of training at the last step."""

    def flush(self) -> None:
        """Let others see what was logged."""

    def close(self, *, finished: bool) -> None:
        """End the log; `finished` says whether the run has ended, or was interrupted."""


class DvcLiveWriter(Writer):
    """DVCLive's files: ``metrics/RUN.json`` and ``runs/RUN/plots/metrics/*.tsv``. dvc.yaml names the two folders."""

    def __init__(self, folder: Path, run: Path) -> None:
        self._metrics = folder / "metrics" / run.with_name(f"{run.name}.json")
        self._live = _new_live(folder / "runs" / run, self._metrics)

    def step(self, step: int, loss: float) -> None:
        """Add a row to loss.tsv."""
        self._live.step = step
        self._live.log_metric("loss", loss)

    def epoch(self, row: Mapping[str, float]) -> None:
        """Add a row to the file of each of EPOCH_COLUMNS, at the last step of the epoch."""
        self._live.step = int(row["steps"])
        self._live.log_metric("epoch", int(row["epoch"]), plot=False)
        for column in EPOCH_COLUMNS:
            if not math.isnan(row[column]):
                self._live.log_metric(column, row[column])

    def present(self, *, epoch: int, learning_rate: float, clips_per_second: float) -> None:
        """Set values of the JSON file."""
        values = {"epoch": epoch, "learning_rate": learning_rate, "clips_per_second": round(clips_per_second, 1)}
        for name, value in values.items():
            self._live.log_metric(name, value, plot=False)

    def flush(self) -> None:
        """Write the JSON file, once there is something for it; the others are written at once."""
        if self._live.summary:
            self._live.make_summary()

    def close(self, *, finished: bool) -> None:
        """Remove the JSON file of a finished run: its columns would crowd `dvc exp show`. The plots stay."""
        if finished:
            self._metrics.unlink(missing_ok=True)


class TensorBoardWriter(Writer):
    """Event files in ``tensorboard/RUN``, with all columns of the history."""

    def __init__(self, folder: Path, run: Path) -> None:
        tensorboard = load_package("torch.utils.tensorboard", purpose="a log for TensorBoard", extra="tensorboard")
        shutil.rmtree(folder / "tensorboard" / run, ignore_errors=True)
        self._events = tensorboard.SummaryWriter(str(folder / "tensorboard" / run))
        self._step = 0

    def step(self, step: int, loss: float) -> None:
        """Log the scalar `loss`."""
        self._step = step
        self._events.add_scalar("loss", loss, step)

    def epoch(self, row: Mapping[str, float]) -> None:
        """Log the scalars `epoch/COLUMN`, at the last step of the epoch."""
        for column, value in row.items():
            if column not in ("epoch", "steps") and not math.isnan(value):
                self._events.add_scalar(f"epoch/{column}", value, int(row["steps"]))

    def present(self, *, epoch: int, learning_rate: float, clips_per_second: float) -> None:
        """Log the scalars `learning_rate` and `clips_per_second`."""
        self._events.add_scalar("learning_rate", learning_rate, self._step)
        self._events.add_scalar("clips_per_second", clips_per_second, self._step)

    def flush(self) -> None:
        """Write the event file to disk."""
        self._events.flush()

    def close(self, *, finished: bool) -> None:
        """Close the event file."""
        self._events.close()


def open_writer(log: Log, paths: ProjectPaths | None) -> Writer:
    """Return an empty log of a run.

    Parameters
    ----------
    log : str
        "dvclive", "tensorboard" or "off"; "auto" is DVCLive if it is installed.
    paths : ProjectPaths or None
        Where the run is. A run outside a project's ``runs`` folder has no log.

    Raises
    ------
    PackageError
        The log's package is not installed.
    """
    if log == "auto":
        log = "dvclive" if find_spec("dvclive") else "off"
    if log == "off" or paths is None:
        return Writer()
    run = Path(paths.dataset, "-".join([paths.variant, *paths.seed_part]))
    if log == "tensorboard":
        return TensorBoardWriter(paths.live, run)
    try:
        return DvcLiveWriter(paths.live, run)
    except import_module("scmrepo.exceptions").SCMError as error:  # such as a Git repository without a commit
        note(f"no log for DVC: {error}; make a commit first, or set SOUNDSPOT_LIVE=off")
        return Writer()


def _new_live(folder: Path, metrics: Path) -> Any:
    """Return a `dvclive.Live` whose JSON file is outside `folder`, which then has plots only: DVC reads every file of a folder."""
    dvclive = load_package("dvclive", purpose="a log for DVC", extra="live")

    class Live(dvclive.Live):  # type: ignore[name-defined]
        @property
        def metrics_file(self) -> str:
            return str(metrics)

    # Whatever the environment asks for, this log starts empty: DVCLive's own way to resume would repeat rows.
    shutil.rmtree(folder, ignore_errors=True)
    metrics.parent.mkdir(parents=True, exist_ok=True)
    metrics.unlink(missing_ok=True)
    # The pipeline has a dvc.yaml and experiments already.
    return Live(dir=str(folder), resume=False, save_dvc_exp=False, dvcyaml=False, report=None)
