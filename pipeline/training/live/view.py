"""The view of one run while it trains: a progress bar on a terminal, one line per epoch, and a log for other programs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType

from tqdm import tqdm

from pipeline.common.console import progress_disabled
from pipeline.common.project import locate
from pipeline.common.text_table import printable
from pipeline.model.ranks import is_first
from pipeline.training.history import converged
from pipeline.training.live.lines import report_convergence, report_epoch, seconds_left
from pipeline.training.live.steps import EpochSteps
from pipeline.training.live.writers import open_writer
from pipeline.training.run import TrainingRun
from pipeline.training.state import TrainingState


class LiveView:
    """Shows a run. A context manager around its epochs.

    Parameters
    ----------
    run : TrainingRun
    state : TrainingState
        What is already in it is logged first, so a run that resumes has each step once in its log.
    """

    def __init__(self, run: TrainingRun, state: TrainingState) -> None:
        self._run, self._state = run, state
        self._bar: tqdm | None = None
        self._began, self._read = time.perf_counter(), 0
        self._writer = open_writer(run.live if is_first() else "off", locate(run.folder.model))
        self._logged = 0
        self._log_points()
        for row in state.history[1:]:
            self._writer.epoch(row)
        self._writer.flush()

    def __enter__(self) -> LiveView:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close(finished=error is None)

    def steps(self, epoch: int) -> EpochSteps:
        """Return what collects the steps of an epoch, and show them."""
        run = self._run
        self._began, self._read = time.perf_counter(), 0
        self._bar = tqdm(
            total=run.n_pairs,
            desc=printable(f"{run.spec.name}: epoch {epoch} of {run.epochs}"),
            unit="clip",
            leave=False,
            disable=progress_disabled(),
        )
        return EpochSteps(
            f"{run.spec.name}, epoch {epoch}/{run.epochs}",
            kept=f"Earlier epochs in {run.folder.path} are kept",
            bar=self._bar,
            on_read=self._on_read,
        )

    def epoch_ended(self) -> None:
        """Show the epoch that was added to the history."""
        run, history = self._run, self._state.history
        self._writer.epoch(history[-1])
        self._writer.flush()
        report_epoch(run.spec.name, history, epochs=run.epochs)
        rule = run.spec.iteration.until_converged
        if rule and converged(history, rule) and self._state.epoch < run.epochs:
            report_convergence(run.spec.name, history, rule)

    def _on_read(self, losses: Sequence[float]) -> None:
        run, state = self._run, self._state
        for loss in losses:
            state.curve.add(loss)
        self._read += len(losses)
        elapsed = time.perf_counter() - self._began
        if self._read == run.n_steps:
            state.curve.end_epoch()
        self._log_points()
        self._writer.present(
            epoch=state.epoch + 1,
            learning_rate=state.learning_rate,
            clips_per_second=self._read * run.spec.batch_size / elapsed,
        )
        self._writer.flush()
        if self._bar is not None:
            left = seconds_left(state.history, epochs=run.epochs) - elapsed
            total = f", {tqdm.format_interval(left)} for all epochs" if left > 0 else ""
            self._bar.set_postfix_str(f"loss {losses[-1]:.4g}, lr {state.learning_rate:g}{total}", refresh=False)

    def _log_points(self) -> None:
        points = self._state.curve.points
        for step, loss in points[self._logged :]:
            self._writer.step(step, loss)
        self._logged = len(points)
