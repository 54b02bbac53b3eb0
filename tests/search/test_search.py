"""A search trains what it says, starts all rows from the best initialization, and survives being killed at any time."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import signal
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest

from pipeline.common.config import Convergence, SearchRange
from pipeline.common.errors import DivergenceError, SearchError, SettingsError
from pipeline.common.files import write_csv
from pipeline.common.project import MODEL_FILE
from pipeline.evaluation.response_maps import compute_maps
from pipeline.scoring.protocols import get_protocol
from pipeline.scoring.score import score
from pipeline.search import trial as trial_module
from pipeline.search.results import best_trial, read_table
from pipeline.search.search import start_over
from pipeline.search.validation import Validation, check_metric, default_metric
from pipeline.training.checkpoints import load_model
from pipeline.training.history import read_history
from pipeline.training.train import initialize, train
from tests.support.searching import EVALUATION, SPACES, TAU, make_search, make_spaces
from tests.support.synthetic import make_settings

TRIALS = 3


def table(search):
    """Return the lines of the table without the seconds."""
    with open(search.table, newline="") as file:
        return [{name: cell for name, cell in line.items() if name != "seconds"} for line in csv.DictReader(file)]


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    search = make_search(tmp_path_factory.mktemp("searched"), trials=TRIALS)
    search.run(make_spaces())
    return search


def test_every_row_has_the_same_budget(searched):
    lines = read_table(searched.table)
    assert [(line.row, line.trial.number, line.trial.state) for line in lines] == [
        (row, number, "complete") for row in ("initialize", "itr") for number in range(TRIALS)
    ]
    assert {line.epochs for line in lines} == {2}
    assert len({json.dumps(dict(line.trial.settings)) for line in lines if line.row == "itr"}) == TRIALS


@pytest.mark.parametrize("where", ["iterate", "itr"])
def test_until_converged_does_not_shorten_trials(tmp_path, monkeypatch, where):
    rule = Convergence(mask_iou=1e-6, patience=1)  # holds after the first epoch
    if where == "iterate":
        changes = {"iterate": make_settings().iterate.model_copy(update={"until_converged": rule})}
    else:
        changes = {"methods": {"itr": {"until_converged": rule.model_dump()}}}
    own, epochs = trial_module.train, []

    def spy(shards, start, folder, **options):
        own(shards, start, folder, **options)
        epochs.append(read_history(folder / "history.csv")[-1]["epoch"])

    monkeypatch.setattr(trial_module, "train", spy)
    make_search(tmp_path, trials=1, **changes).run(make_spaces(**changes))
    assert epochs == [2]


def test_only_the_run_that_others_start_from_is_kept(searched):
    best = best_trial(line.trial for line in read_table(searched.table) if line.row == "initialize")
    runs = [path.parent.relative_to(searched.folder).as_posix() for path in searched.folder.rglob(MODEL_FILE)]
    assert runs == [f"initialize/trial_{best.number:03d}"]


def test_a_score_is_that_of_the_same_run_trained_by_hand(searched, tmp_path):
    """With the functions of the stages, from the settings in the table."""
    lines = read_table(searched.table)
    start = best_trial(line.trial for line in lines if line.row == "initialize").settings
    settings = searched.settings
    settings = settings.model_copy(update={"initialize": settings.initialize.model_copy(update=start)})
    initialize(searched.train, tmp_path / "initialize", settings=settings, seeds=[0], device="cpu")
    last = [line.trial for line in lines if line.row == "itr"][-1]
    settings = settings.model_copy(update={"methods": {**settings.methods, "itr": dict(last.settings)}})
    train(
        searched.train,
        tmp_path / "initialize",
        tmp_path / "itr",
        method="itr",
        settings=settings,
        seeds=[0],
        device="cpu",
    )
    held_out = searched.validation
    maps = compute_maps(tmp_path / "itr" / MODEL_FILE, held_out.shards, split="validation", device="cpu")
    expected = score(maps.response, maps.clip_ids, held_out.boxes, get_protocol("paper256")).ciou.mean()
    assert last.score == pytest.approx(expected, abs=1e-12)


def test_a_finished_search_trains_nothing(searched, monkeypatch):
    monkeypatch.setattr(trial_module, "train", None)
    monkeypatch.setattr(trial_module, "initialize", None)
    before = searched.table.read_bytes()
    searched.run(make_spaces())
    assert searched.table.read_bytes() == before


def test_another_start_is_refused(tmp_path):
    search = make_search(tmp_path, trials=1)
    search.run(make_spaces())
    start_over(search.folder, ["initialize"])
    other = {**SPACES, "initialize": {"learning_rate": SearchRange(low=1e-4, high=1e-2)}}
    changes = {"initialize": search.settings.initialize.model_copy(update={"temperature": 0.2})}
    with pytest.raises(SearchError, match=r"itr.*other initialization; .*--rows itr"):
        make_search(tmp_path, trials=1, **changes).run(make_spaces(other, **changes))


def test_other_boxes_are_refused(tmp_path):
    """Otherwise the best of scores against old and against corrected boxes would win."""
    search = make_search(tmp_path, trials=1)
    spaces = make_spaces()
    search.run(spaces)
    moved = [replace(box, x1=box.x1 - 0.05) for box in search.validation.boxes]
    other = replace(search, trials=2, validation=replace(search.validation, boxes=moved))
    with pytest.raises(SearchError, match=r"made with other validation boxes; .*--fresh"):
        other.run(spaces)


def test_other_class_labels_are_refused(tmp_path):
    labels = tmp_path / "labels.csv"
    methods = {"itr": {}, "mssl_stage1": {"label_file": str(labels), "hidden": 8}}
    spaces = make_spaces({"mssl_stage1": {"class_threshold": [0.3, 0.5]}}, methods=methods)
    search = make_search(tmp_path, trials=1, methods=methods)

    def label(first):
        write_csv(
            labels,
            ["clip_id", "label"],
            [[clip, first if i % 2 else "b"] for i, clip in enumerate(search.train.clip_ids)],
        )

    label("a")
    search.run(spaces)
    label("c")
    with pytest.raises(SearchError, match=r"made with other class labels; .*--fresh"):
        replace(search, trials=2).run(spaces)


def test_a_first_trial_that_cannot_be_trained_is_not_kept(tmp_path, monkeypatch):
    search, spaces = make_search(tmp_path, trials=1), make_spaces(rows=["itr"])

    def refuse(*_, **__):
        raise SettingsError("clusters 11 exceeds the number of training clips")

    with monkeypatch.context() as patch:
        patch.setattr(trial_module, "train", refuse)
        with pytest.raises(SettingsError, match="clusters 11"):
            search.run(spaces)
    # With a setting mended in params.yaml, the first trial has that one.
    (space,) = [space for space in spaces if space.row == "itr"]
    mended = replace(space, first={**space.first, "delta_v": 0.9})
    search.run([mended])
    (line,) = [line for line in read_table(search.table) if line.row == "itr"]
    assert (line.trial.state, line.trial.settings["delta_v"]) == ("complete", 0.9)


def test_two_searches_of_one_row(tmp_path):
    from pipeline.common.files import locked

    search = make_search(tmp_path, trials=1)
    with locked(search.folder / "initialize", SearchError), pytest.raises(SearchError, match="another process"):
        search.run(make_spaces())


@pytest.mark.slow
def test_rows_in_parallel_give_the_same_table(searched, tmp_path):
    search = make_search(tmp_path, trials=TRIALS)
    search.run(make_spaces(), jobs=2)
    assert table(search) == table(searched)


class TestFailures:
    def test_a_trial_that_diverges_counts(self, tmp_path, monkeypatch):
        own = trial_module.train

        def diverging(*args, **kwargs):
            if "trial_001" in str(args[2]):
                raise DivergenceError("the loss is nan")
            own(*args, **kwargs)

        monkeypatch.setattr(trial_module, "train", diverging)
        search = make_search(tmp_path, trials=TRIALS)
        search.run(make_spaces({"itr": {"temperature": TAU}}))
        states = [(line.trial.state, line.trial.score is None) for line in read_table(search.table)]
        assert states == [("complete", False), ("failed", True), ("complete", False)]

    def test_a_model_that_is_not_finite_has_no_score(self, searched):
        path = next(searched.folder.rglob(MODEL_FILE))
        model = load_model(path)
        for parameter in model.encoders.parameters():
            parameter.data.fill_(float("nan"))
        with pytest.raises(DivergenceError, match="trial 7"):
            searched.validation.score(model, "trial 7")


def test_pruning_ends_a_trial_after_an_epoch(tmp_path, monkeypatch):
    """Scores of the first trials are good, those of the fifth bad: it is not trained to its last epoch."""
    calls = []

    def scored(self, model, name):
        calls.append(name)
        return 0.1 if name.endswith("trial 4") else 0.5

    monkeypatch.setattr(Validation, "score", scored)
    search = make_search(tmp_path, trials=5, prune=True)
    search.run(make_spaces({"itr": {"temperature": TAU}}))
    lines = read_table(search.table)
    assert [line.trial.state for line in lines] == ["complete"] * 4 + ["pruned"]
    assert lines[-1].trial.score == 0.1
    assert calls.count("itr, trial 0") == 2 + 1  # two epochs, and the model at the end
    assert calls.count("itr, trial 4") == 1


def test_metrics():
    assert default_metric(EVALUATION) == "success_rate"
    assert default_metric(EVALUATION.model_copy(update={"grid": 2})) == "quadrant_accuracy"
    for metric, message in (("succes", "'succes'.*success_rate"), ("quadrant_accuracy", "grid")):
        with pytest.raises(SearchError, match=message):
            check_metric(metric, EVALUATION)


POINTS = [
    ("pipeline.training.loop", "save", "after"),
    ("pipeline.search.study:RowStudy", "next", "after"),
    ("pipeline.search.study:RowStudy", "finish", "before"),
    ("pipeline.search.search", "update_table", "before"),
    ("pipeline.search.search:TrialRunner", "remove_runs", "before"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("place", "name", "when"), POINTS, ids=[name for _, name, _ in POINTS])
def test_a_killed_search_has_the_trials_of_one_that_was_not(searched, tmp_path, place, name, when):
    """The process gets SIGKILL in the second call of a function, three times; then the search ends by itself."""
    search = make_search(tmp_path, trials=TRIALS)
    context = multiprocessing.get_context("fork")
    for _ in range(3):
        process = context.Process(target=run_and_die, args=(search, place, name, when))
        process.start()
        process.join(120)
        assert process.exitcode == -signal.SIGKILL
    search.run(make_spaces())
    assert table(search) == table(searched)


def run_and_die(search, place, name, when):
    module, _, attribute = place.partition(":")
    owner = getattr(import_module(module), attribute) if attribute else import_module(module)
    own, calls = getattr(owner, name), []

    def dying(*args, **kwargs):
        calls.append(name)
        if len(calls) == 2 and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = own(*args, **kwargs)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, dying)
    search.run(make_spaces())


def test_a_run_resumes_after_its_last_epoch(tmp_path, capsys):
    search = make_search(tmp_path, trials=1)
    process = multiprocessing.get_context("fork").Process(
        target=run_and_die, args=(search, "pipeline.training.loop", "save", "before")
    )
    process.start()
    process.join(120)
    search.run(make_spaces())
    assert "initialize, seed 0: resuming after epoch 1" in capsys.readouterr().err
    assert np.isfinite([line.trial.score for line in read_table(search.table)]).all()
