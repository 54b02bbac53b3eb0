"""The trials of a row: the sampler depends on the trials before and on nothing else, and no trial is lost."""

from __future__ import annotations

import dataclasses
import math
import sys

import pytest

from pipeline.common.config import SearchRange
from pipeline.common.errors import PackageError, SearchError
from pipeline.search.study import RANDOM_TRIALS, RowStudy, Trial, load_optuna, propose
from tests.support.searching import make_spaces

SPACES = {
    "dsol": {
        "clusters": SearchRange(low=2, high=40),
        "temperature": SearchRange(low=0.01, high=1.0, log=True),
        "silence_grid": [1, 2],
    }
}
(SPACE,) = make_spaces(SPACES)


def peak(settings):
    """Best at a temperature of 0.1 and 20 clusters."""
    return 1 - abs(math.log10(settings["temperature"]) + 1) / 2 - abs(settings["clusters"] - 20) / 100


def trials_of(space, n, *, seed=0, score=peak):
    trials = []
    for number in range(n):
        settings = propose(space, trials, seed=seed)
        trials.append(Trial(number, "complete", settings, score(settings)))
    return trials


class TestSampler:
    def test_the_first_trial_is_that_of_params(self):
        assert propose(SPACE, [], seed=0) == SPACE.first == {"clusters": 11, "temperature": 0.3, "silence_grid": 1}

    def test_values_are_in_the_space_and_short(self):
        for trial in trials_of(SPACE, 12):
            own = trial.settings
            assert isinstance(own["clusters"], int)
            assert 2 <= own["clusters"] <= 40
            assert 0.01 <= own["temperature"] <= 1.0
            assert own["temperature"] == float(f"{own['temperature']:.3g}")
            assert own["silence_grid"] in (1, 2)

    def test_it_depends_on_the_trials_before_the_row_and_the_seed(self):
        trials = trials_of(SPACE, 8)
        assert propose(SPACE, trials[:7], seed=0) == trials[7].settings
        assert propose(SPACE, trials[:7], seed=1) != trials[7].settings
        assert propose(dataclasses.replace(SPACE, row="dmc"), trials[:7], seed=0) != trials[7].settings
        worse = [dataclasses.replace(each, score=-peak(each.settings)) for each in trials[:7]]
        assert propose(SPACE, worse, seed=0) != trials[7].settings

    def test_it_learns_from_the_scores(self):
        """Later trials are better than the random ones, on average over seeds."""
        late, early = [], []
        for seed in range(4):
            scores = [each.score for each in trials_of(SPACE, 24, seed=seed)]
            early += scores[1:RANDOM_TRIALS]
            late += scores[-8:]
        assert sum(late) / len(late) > sum(early) / len(early) + 0.1

    def test_nothing_is_tried_twice_until_all_is_tried(self):
        (space,) = make_spaces({"itr": {"delta_v": [0.5, 0.6, 0.7, 0.8]}})
        trials = trials_of(space, 5, score=lambda settings: settings["delta_v"])
        assert {each.settings["delta_v"] for each in trials[:4]} == {0.5, 0.6, 0.7, 0.8}

    def test_a_failed_trial_does_not_stop_it(self):
        trials = [dataclasses.replace(each, state="failed", score=None) for each in trials_of(SPACE, 8)]
        assert propose(SPACE, trials, seed=0)


class TestFile:
    def open(self, folder, *, conditions=None, space=SPACE):
        return RowStudy(folder, space, seed=0, conditions=conditions or {"seed": 0})

    def test_trials_are_read_back(self, tmp_path):
        study = self.open(tmp_path)
        for state, score in (("complete", 0.5), ("failed", None), ("pruned", 0.25)):
            trial = study.next()
            study.finish(trial.number, state, score=score, seconds=2.5)
        found = self.open(tmp_path).trials()
        assert [(each.number, each.state, each.score, each.seconds) for each in found] == [
            (0, "complete", 0.5, 2.5),
            (1, "failed", None, 2.5),
            (2, "pruned", 0.25, 2.5),
        ]
        assert found[0].settings == SPACE.first

    def test_a_trial_that_was_running_is_run_again(self, tmp_path):
        study = self.open(tmp_path)
        study.finish(study.next().number, "complete", score=0.5, seconds=1.0)
        started = study.next()
        again = self.open(tmp_path).next()
        assert (again.number, again.settings, again.state) == (1, started.settings, "running")
        assert again.settings != SPACE.first

    def test_a_stopped_study_goes_on_as_if_it_had_not_stopped(self, tmp_path):
        def run(folder, n):
            study = self.open(folder)
            for _ in range(n):
                trial = study.next()
                study.finish(trial.number, "complete", score=peak(trial.settings), seconds=1.0)
            return study.trials()

        whole = run(tmp_path / "whole", 9)
        run(tmp_path / "parts", 4)
        self.open(tmp_path / "parts").next()
        assert [each.settings for each in run(tmp_path / "parts", 5)] == [each.settings for each in whole]

    def test_other_conditions_are_refused_and_named(self, tmp_path):
        self.open(tmp_path, conditions={"seed": 0, "encoder": {"width": 4}})
        self.open(tmp_path, conditions={"seed": 0, "encoder": {"width": 4}})
        with pytest.raises(SearchError, match=r"other encoder; .*--fresh --rows dsol"):
            self.open(tmp_path, conditions={"seed": 0, "encoder": {"width": 8}})

    def test_a_damaged_file(self, tmp_path):
        (tmp_path / "study.db").write_bytes(b"not a database" * 100)
        with pytest.raises(SearchError, match=r"study\.db: damaged .*--fresh"):
            self.open(tmp_path)

    def test_pruning_compares_with_the_median_of_earlier_trials(self, tmp_path):
        study = self.open(tmp_path)
        for score in (0.1, 0.2, 0.3, 0.4, 0.5):
            trial = study.next()
            pruned = study.report(trial.number, 1, score)
            assert not pruned
            study.finish(trial.number, "complete", score=score, seconds=1.0)
        trial = study.next()
        assert not study.report(trial.number, 1, 0.31)
        study.finish(trial.number, "complete", score=0.31, seconds=1.0)
        trial = study.next()
        assert study.report(trial.number, 1, 0.29)
        assert self.open(tmp_path).trials()[-1].epoch_scores == {1: 0.29}


def test_without_optuna(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(PackageError, match=r"optuna.*\[search\]"):
        load_optuna()
