"""Search the settings of all rows: the initialization first, then every row from its winner.

```
search/NAME/initialize/study.db  trial_004/      the winner's run, which all rows start from
search/NAME/ROW/study.db         trial_007/      only while the trial runs
docs/search/NAME.csv                             all trials, see `pipeline.search.results`
```
A killed search resumes where it stopped: finished trials are kept, and the one that was running resumes after its last epoch.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock

from pipeline.common.config import TrainingSettings
from pipeline.common.console import report
from pipeline.common.errors import SearchError, SettingsError
from pipeline.common.files import fingerprint, locked
from pipeline.common.project import INITIAL_RUN, MODEL_FILE
from pipeline.methods.build import method_settings
from pipeline.search.results import Line, best_trial, update_table
from pipeline.search.space import RowSpace, with_values
from pipeline.search.study import STUDY_FILE, RowStudy, Trial
from pipeline.search.trial import TrialRunner, trial_folder
from pipeline.search.validation import Validation
from pipeline.shards.reader import ShardSet
from pipeline.training.parallel import run_in_parallel
from pipeline.training.spec import read_classes
from pipeline.training.train import initialize


@dataclass(frozen=True)
class Search:
    """What all rows share.

    Attributes
    ----------
    folder : Path
        ``search/NAME``.
    table : Path
        ``docs/search/NAME.csv``.
    settings : TrainingSettings
        Of params.yaml.
    train : ShardSet
    validation : Validation
    clips : Path
        ``clips.csv``, for methods that learn from class labels.
    seed : int
    trials : int
        Per row.
    prune : bool
        End a trial early if it is below the median. Off, all trials have the same epochs.
    device : str
    """

    folder: Path
    table: Path
    settings: TrainingSettings
    train: ShardSet
    validation: Validation
    clips: Path
    seed: int
    trials: int
    prune: bool = False
    device: str = "auto"

    def run(self, spaces: Sequence[RowSpace], *, jobs: int = 1) -> None:
        """Search all rows, with up to `jobs` rows at a time, each in its own process.

        Raises
        ------
        SearchError
            Earlier trials were made under other conditions, or another process searches the same row.
        SettingsError, TrainingError …
            A row cannot be trained with the settings of params.yaml.
        """
        start, rows = self._initialized(spaces)
        tasks = [partial(start.search_row, space) for space in rows]
        if jobs > 1:
            run_in_parallel(tasks, n_parallel=jobs, limited_by="--jobs")
        else:
            for task in tasks:
                task()

    def _initialized(self, spaces: Sequence[RowSpace]) -> tuple[_FromStart, list[RowSpace]]:
        """Search the initialization, if it has a space, and return the search of the other rows, which starts from the winner."""
        own, rows = [s for s in spaces if s.row == INITIAL_RUN], [s for s in spaces if s.row != INITIAL_RUN]
        folder, settings = self.folder / INITIAL_RUN / "start", self.settings
        for space in own:
            trials = _FromStart(self, None).search_row(space)
            best = best_trial(trials)
            if best is None:
                raise SearchError(f"{self.folder / INITIAL_RUN}: no trial is complete; widen its space")
            folder = trial_folder(self.folder, INITIAL_RUN, best.number)
            settings = with_values(settings, INITIAL_RUN, best.settings)
        search = replace(self, settings=settings)
        if rows and not (own and (folder / MODEL_FILE).is_file()):
            initialize(self.train, folder, settings=settings, seeds=[self.seed], device=self.device)
        return _FromStart(search, folder), rows


@dataclass(frozen=True)
class _FromStart:
    """The search of one row after another, from the run in `start`; None for the initialization itself."""

    search: Search
    start: Path | None

    def search_row(self, space: RowSpace) -> list[Trial]:
        """Run the trials of a row that are missing, and return all."""
        search, folder = self.search, self.search.folder / space.row
        shared = self._shared_conditions()
        own = {
            "space": {name: _plain(each) for name, each in space.spaces.items()},
            "settings": dict(space.fixed),
            "class labels": self._class_labels(space.row),
        }
        conditions = json.loads(json.dumps({**shared, **own}))
        runner = TrialRunner(
            search.folder,
            search.settings,
            search.train,
            search.validation,
            search.clips,
            search.seed,
            self.start,
            search.device,
        )
        with locked(folder, SearchError):
            study = RowStudy(folder, space, seed=search.seed, conditions=conditions)
            trials = self._publish(study, space, shared)
            runner.remove_runs(space.row, trials)  # left by a kill
            while sum(each.state != "running" for each in trials) < search.trials:
                trial = study.next()
                on_score = partial(study.report, trial.number) if search.prune else None
                try:
                    result = runner.run(space.row, trial, on_score=on_score)
                except SettingsError:
                    # Of the first trial: once params.yaml is mended, the study starts with its settings.
                    study.remove()
                    raise
                study.finish(trial.number, result.state, score=result.score, seconds=result.seconds)
                trials = self._publish(study, space, shared)
                runner.remove_runs(space.row, trials)
                report(_describe(space.row, trials, search))
        return trials

    def _class_labels(self, row: str) -> list[Any]:
        search = self.search
        if row == INITIAL_RUN:
            return []
        classes = read_classes(method_settings(search.settings, row), search.train, search.clips)
        return classes.identity if classes else []

    def _shared_conditions(self) -> dict[str, Any]:
        search, settings = self.search, self.search.settings
        return {
            "seed": search.seed,
            **search.validation.conditions,
            "training clips": [search.train.fingerprint, search.train.content_digest],
            "batch_size": settings.batch_size,
            "encoder": settings.encoder.model_dump(mode="json"),
            "augmentation": settings.augmentation.model_dump(mode="json"),
            "initialization": settings.initialize.model_dump(mode="json") if self.start else None,
            "pruning": search.prune,
        }

    def _publish(self, study: RowStudy, space: RowSpace, shared: Mapping[str, Any]) -> list[Trial]:
        """Write the finished trials to the table, and return all trials."""
        trials, search = study.trials(), self.search
        identifier = fingerprint(shared)[:12]
        lines = [
            Line(space.row, each, space.epochs, search.validation.metric, identifier)
            for each in trials
            if each.state != "running"
        ]
        # Until a first trial is finished, a table that was committed keeps its lines.
        if lines:
            with FileLock(search.folder / ".table.lock"):
                update_table(search.table, space.row, lines)
        return trials


def start_over(folder: Path, rows: Sequence[str]) -> None:
    """Remove the trials of some rows."""
    for row in rows:
        with locked(folder / row, SearchError):
            if (folder / row).exists():
                (folder / row / STUDY_FILE).unlink(missing_ok=True)
                shutil.rmtree(folder / row)


def _plain(space: Any) -> Any:
    return space.model_dump() if hasattr(space, "model_dump") else list(space)


def _describe(row: str, trials: Sequence[Trial], search: Search) -> str:
    last, best = [each for each in trials if each.state != "running"][-1], best_trial(trials)
    values = ", ".join(f"{name} {value}" for name, value in last.settings.items())
    result = last.state if last.score is None or last.state != "complete" else f"{100 * last.score:.1f}%"
    so_far = f"; best {100 * (best.score or 0):.1f}% (trial {best.number})" if best else ""
    return f"{row}, trial {last.number} of {search.trials}: {search.validation.metric} {result}{so_far}; {values}"
