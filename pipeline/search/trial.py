"""One trial: train a row with some settings, and score it on the validation split."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.common.config import TrainingSettings
from pipeline.common.console import report
from pipeline.common.errors import DivergenceError, SettingsError
from pipeline.common.project import INITIAL_RUN, MODEL_FILE
from pipeline.evaluation.response_maps import load_model_for
from pipeline.methods.trained_model import TrainedModel
from pipeline.search.results import best_trial
from pipeline.search.space import with_values
from pipeline.search.study import Trial
from pipeline.search.validation import Validation
from pipeline.shards.reader import ShardSet
from pipeline.training.run import no_hook
from pipeline.training.train import initialize, train

TRIAL_PATTERN = "trial_*"
KEEP_EPOCHS = 2  # weights of the epochs between are not needed


class _PrunedError(Exception):
    """Ends the training of a trial that is below the median."""


def trial_folder(folder: Path, row: str, number: int) -> Path:
    """Folder of the run of a trial; `folder` is ``search/NAME``."""
    return folder / row / f"trial_{number:03d}"


@dataclass(frozen=True)
class TrialRunner:
    """Runs trials.

    Attributes
    ----------
    folder : Path
        ``search/NAME``.
    settings : TrainingSettings
        Of which a trial changes some.
    train : ShardSet
    validation : Validation
    clips : Path
        ``clips.csv``.
    seed : int
    start : Path or None
        The initial run; None for trials of the initialization.
    device : str
    """

    folder: Path
    settings: TrainingSettings
    train: ShardSet
    validation: Validation
    clips: Path
    seed: int
    start: Path | None
    device: str

    def run(self, row: str, trial: Trial, *, on_score: Callable[[int, float], bool] | None = None) -> Trial:
        """Train and score one trial; an interrupted run of it resumes.

        Parameters
        ----------
        row : str
        trial : Trial
        on_score : callable, optional
            Gets epoch and score after each epoch; returns whether to end the trial. Not called in the initialization.

        Returns
        -------
        Trial
            With state, score and seconds. "failed" if training diverges, or the settings do not fit together.

        Raises
        ------
        SettingsError
            The settings of params.yaml, which the first trial has, do not fit together.
        """
        began, name = time.perf_counter(), f"{row}, trial {trial.number}"
        scores: list[float] = []

        def hook(epoch: int, model: TrainedModel) -> None:
            if on_score is not None:
                scores.append(self.validation.score(model, name))
                if on_score(epoch, scores[-1]):
                    raise _PrunedError

        state, score = "complete", None
        try:
            model = self._train(row, trial, hook if on_score else no_hook)
            score = self.validation.score(load_model_for(model, self.validation.shards), name)
        except _PrunedError:
            state, score = "pruned", scores[-1]
        except (DivergenceError, SettingsError) as error:
            if isinstance(error, SettingsError) and trial.number == 0:
                raise
            report(f"{name}: failed: {error}")
            state = "failed"
        return replace(trial, state=state, score=score, seconds=time.perf_counter() - began)

    def remove_runs(self, row: str, trials: Sequence[Trial]) -> None:
        """Remove the runs of finished trials, except for that of the best initialization, which the other rows start from."""
        best = best_trial(trials) if row == INITIAL_RUN else None
        for each in trials:
            if each.state != "running" and each != best:
                path = trial_folder(self.folder, row, each.number)
                shutil.rmtree(path, ignore_errors=True)
                path.with_name(f".{path.name}.lock").unlink(missing_ok=True)

    def _train(self, row: str, trial: Trial, hook: Callable[[int, TrainedModel], None]) -> Path:
        folder = trial_folder(self.folder, row, trial.number)
        if row == INITIAL_RUN:
            settings = with_values(self.settings, row, trial.settings)
            initialize(self.train, folder, settings=settings, seeds=[self.seed], device=self.device)
        else:
            settings = with_values(self.settings, row, {**trial.settings, "keep_epochs": KEEP_EPOCHS})
            assert self.start is not None
            train(
                self.train,
                self.start,
                folder,
                method=row,
                settings=settings,
                seeds=[self.seed],
                clips=self.clips,
                device=self.device,
                on_epoch=hook,
            )
        return folder / MODEL_FILE
