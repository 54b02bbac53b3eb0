"""The trials of one row on disk, and the sampler: Optuna.

Conventions
-----------
The study is an SQLite file of Optuna, so that other tools, such as optuna-dashboard, can read it. A trial is written with its settings
before it starts. After a kill it is found as running, and continued with the same settings. The settings of a new trial depend only on
the seed, the row and the finished trials. A search that was killed therefore has the same trials as one that was not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from pipeline.common.config import SearchRange, Space
from pipeline.common.errors import SearchError
from pipeline.common.packages import load_package
from pipeline.common.seeding import derive_seed
from pipeline.search.space import RowSpace

STUDY_FILE = "study.db"
# TPE models the scores after this many trials with a score, the first included; before, it draws at random. Ours: Optuna's 10 would leave little of a small budget.
RANDOM_TRIALS = 5
MOST_DRAWS = 20  # a repeated setting would waste a trial, but a small list of choices can be used up
DIGITS = 3  # of sampled numbers, so that params.yaml has exactly what was trained
PRUNED_BEFORE = 4  # finished trials before the pruner compares with their median


@dataclass(frozen=True)
class Trial:
    """One trial.

    Attributes
    ----------
    number : int
        From 0.
    state : str
        "running", "complete", "pruned", or "failed": training diverged, or the settings do not fit together.
    settings : mapping of str to value
        The settings that are searched.
    score : float or None
        On the validation split; of a pruned trial, after its last epoch.
    seconds : float
        Training and scoring.
    epoch_scores : mapping of int to float
        Score after each epoch, if the search prunes.
    """

    number: int
    state: str
    settings: Mapping[str, Any]
    score: float | None = None
    seconds: float = 0.0
    epoch_scores: Mapping[int, float] = field(default_factory=dict)


def load_optuna() -> ModuleType:
    """Import Optuna. Raises PackageError if it is not installed."""
    optuna = load_package("optuna", purpose="the search", extra="search")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


class RowStudy:
    """The study of one row. Only one process may use it at a time.

    Parameters
    ----------
    folder : Path
        Receives ``study.db``.
    space : RowSpace
    seed : int
    conditions : mapping
        What the scores depend on, apart from the trials' settings; JSON values.

    Raises
    ------
    SearchError
        The file is damaged, or its trials were made under other conditions.
    PackageError
        Optuna is not installed.
    """

    def __init__(self, folder: Path, space: RowSpace, *, seed: int, conditions: Mapping[str, Any]) -> None:
        self._optuna = load_optuna()
        self._space, self._seed = space, seed
        self._distributions = distributions(space)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / STUDY_FILE
        again = f"start it over with `soundspot search --fresh --rows {space.row}`"
        database = import_module("sqlalchemy.exc").DatabaseError
        try:
            storage = self._optuna.storages.RDBStorage(f"sqlite:///{path}")
            self._study = self._optuna.create_study(
                storage=storage, study_name=space.row, direction="maximize", load_if_exists=True
            )
        except (database, self._optuna.exceptions.StorageInternalError) as error:
            reason = " ".join(str(error).split())[:100]
            raise SearchError(f"{path}: damaged ({reason}); {again}") from None
        stored = self._study.user_attrs.get("conditions")
        if stored is None:
            self._study.set_user_attr("conditions", dict(conditions))
        elif stored != conditions:
            changed = [name for name in conditions if stored.get(name) != conditions[name]] or ["conditions"]
            raise SearchError(f"{path}: its trials were made with other {', '.join(changed)}; {again}")

    def trials(self) -> list[Trial]:
        """Return all trials, in their order."""
        names = {"RUNNING": "running", "COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
        return [
            Trial(
                number=each.number,
                state=names[each.state.name],
                settings=each.params,
                score=each.value if each.value is not None else each.user_attrs.get("score"),
                seconds=each.user_attrs.get("seconds", 0.0),
                epoch_scores=each.intermediate_values,
            )
            for each in self._study.get_trials()
        ]

    def next(self) -> Trial:
        """Return the trial that was running when the search was killed, or a new one."""
        trials = self.trials()
        if trials and trials[-1].state == "running":
            return trials[-1]
        settings = propose(self._space, trials, seed=self._seed)
        trial = self._optuna.trial
        # In one transaction: there is no trial without all of its settings.
        self._study.add_trial(
            trial.create_trial(state=trial.TrialState.RUNNING, params=settings, distributions=self._distributions)
        )
        return self.trials()[-1]

    def report(self, number: int, epoch: int, score: float) -> bool:
        """Store the score after an epoch; return whether it is below the median of the earlier trials at that epoch."""
        handle = self._handle(number)
        if epoch not in self.trials()[number].epoch_scores:
            handle.report(score, epoch)
        self._study.pruner = self._optuna.pruners.MedianPruner(n_startup_trials=PRUNED_BEFORE)
        return bool(handle.should_prune())

    def finish(self, number: int, state: str, *, score: float | None, seconds: float) -> None:
        """Store the result of a trial; `state` as in `Trial`."""
        handle = self._handle(number)
        handle.set_user_attr("seconds", seconds)
        if state == "pruned" and score is not None:
            handle.set_user_attr("score", score)
        states = self._optuna.trial.TrialState
        found = {"complete": states.COMPLETE, "pruned": states.PRUNED, "failed": states.FAIL}[state]
        self._study.tell(number, score if state == "complete" else None, state=found)

    def remove(self) -> None:
        """Remove all trials, and what they depend on."""
        self._optuna.delete_study(study_name=self._space.row, storage=self._study._storage)

    def _handle(self, number: int) -> Any:
        return self._optuna.trial.Trial(self._study, self._study.get_trials(deepcopy=False)[number]._trial_id)


def distributions(space: RowSpace) -> dict[str, Any]:
    """Return Optuna's distribution of each setting."""
    kinds = load_optuna().distributions

    def of(name: str, each: Space) -> Any:
        if not isinstance(each, SearchRange):
            return kinds.CategoricalDistribution(each)
        kind = kinds.IntDistribution if name in space.whole else kinds.FloatDistribution
        return kind(each.low, each.high, log=each.log)

    return {name: of(name, each) for name, each in space.spaces.items()}


def propose(space: RowSpace, finished: Sequence[Trial], *, seed: int) -> dict[str, Any]:
    """Return the settings of the next trial: those of params.yaml, then samples of TPE.

    Parameters
    ----------
    space : RowSpace
    finished : sequence of Trial
    seed : int
        The result depends on nothing else.
    """
    tried = [dict(each.settings) for each in finished]
    if not tried:
        return dict(space.first)
    proposed: dict[str, Any] = {}
    for draw in range(MOST_DRAWS):
        proposed = _sample(space, finished, derive_seed(seed, "search", space.row, len(finished), draw) % 2**32)
        if proposed not in tried:
            break
    return proposed


def _sample(space: RowSpace, finished: Sequence[Trial], seed: int) -> dict[str, Any]:
    optuna, own = load_optuna(), distributions(space)
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=RANDOM_TRIALS)
    memory = optuna.create_study(direction="maximize", sampler=sampler)
    states = optuna.trial.TrialState
    for each in finished:
        # TPE does not use a trial without a score. A pruned one counts with its last score.
        state, value = (states.FAIL, None) if each.score is None else (states.COMPLETE, each.score)
        memory.add_trial(
            optuna.trial.create_trial(state=state, value=value, params=dict(each.settings), distributions=own)
        )
    drawn = memory.ask(own).params
    return {name: _rounded(value, space.spaces[name]) for name, value in drawn.items()}


def _rounded(value: Any, space: Space) -> Any:
    if not isinstance(space, SearchRange) or not isinstance(value, float):
        return value
    return min(max(float(f"{value:.{DIGITS}g}"), float(space.low)), float(space.high))
