"""The table of all trials, the winners that follow from it, and what makes rows incomparable."""

from __future__ import annotations

import dataclasses

import pytest

from pipeline.common.config import load_params
from pipeline.common.errors import SearchError
from pipeline.search.figure import draw_trials
from pipeline.search.results import Line, best_trial, read_table, settings_to_write, update_table, winners, write_table
from pipeline.search.space import row_settings
from pipeline.search.study import Trial
from tests.support.projects import ROOT

SCORES = {"initialize": [0.2, 0.4, 0.3], "itr": [0.5, 0.5, 0.1], "dmc": [0.1, None, 0.2]}
TABLES = sorted((ROOT / "docs/search").glob("*.csv"))


def lines_of(row, scores, **changes):
    values = {"row": row, "epochs": 7 if row == "initialize" else 4, "metric": "auc", "conditions": row[:2] * 6}
    values |= {} if row == "initialize" else {"conditions": "abcdef012345"}
    return [
        Line(
            trial=Trial(i, "failed" if score is None else "complete", {"temperature": 0.1 * (i + 1)}, score, 2.0),
            **values | changes,
        )
        for i, score in enumerate(scores)
    ]


def made(path, **changes):
    write_table(
        path, [line for row, scores in SCORES.items() for line in lines_of(row, scores, **changes.get(row, {}))]
    )
    return path


def test_the_table_is_read_back_in_the_order_of_the_tables(tmp_path):
    path = made(tmp_path / "easy.csv")
    expected = [line for row in ("initialize", "dmc", "itr") for line in lines_of(row, SCORES[row])]
    assert read_table(path) == expected
    text = path.read_text()
    write_table(path, read_table(path))
    assert path.read_text() == text


def test_a_row_is_replaced_and_the_others_stay(tmp_path):
    path = made(tmp_path / "easy.csv")
    update_table(path, "itr", lines_of("itr", [0.9]))
    found = read_table(path)
    assert [line.trial.score for line in found if line.row == "itr"] == [0.9]
    assert [line.trial.score for line in found if line.row == "dmc"] == SCORES["dmc"]


def test_the_earliest_of_the_best_complete_trials_wins(tmp_path):
    found = winners(made(tmp_path / "easy.csv"))
    assert {row: winner.trial.number for row, winner in found.items()} == {"initialize": 1, "itr": 0, "dmc": 2}
    assert found["initialize"].trial.settings == {"temperature": 0.2}
    assert {winner.n_trials for winner in found.values()} == {3}


def test_a_pruned_trial_never_wins():
    trials = [Trial(0, "complete", {}, 0.2), Trial(1, "pruned", {}, 0.9), Trial(2, "failed", {})]
    assert best_trial(trials) == trials[0]
    assert best_trial(trials[1:]) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 8}, r"epochs \(.*8: dmc"),
        ({"metric": "mean_ciou"}, r"metrics \(.*mean_ciou: dmc"),
    ],
)
def test_rows_with_other_conditions_have_no_winners(tmp_path, change, message):
    with pytest.raises(SearchError, match=message):
        winners(made(tmp_path / "easy.csv", dmc=change))


def test_rows_with_other_starts_have_no_winners(tmp_path):
    lines = [line for row in ("itr", "itr_intra", "dmc") for line in lines_of(row, [0.1, 0.2])]
    other = [dataclasses.replace(line, conditions="0123") if line.row == "dmc" else line for line in lines]
    write_table(tmp_path / "easy.csv", other)
    with pytest.raises(SearchError, match=r"conditions \(.*0123: dmc;"):
        winners(tmp_path / "easy.csv")


def test_one_trial_of_another_length_within_a_row(tmp_path):
    lines = lines_of("itr", [0.1, 0.2, 0.3])
    write_table(tmp_path / "easy.csv", [*lines[:2], dataclasses.replace(lines[2], epochs=5)])
    with pytest.raises(SearchError, match="4: itr; 5: itr"):
        winners(tmp_path / "easy.csv")


def test_unequal_numbers_of_trials_have_no_winners(tmp_path):
    path = made(tmp_path / "easy.csv")
    update_table(path, "itr", lines_of("itr", [0.9, 0.8]))
    with pytest.raises(SearchError, match=r"numbers of trials \(3: initialize, dmc; 2: itr\)"):
        winners(path)


def test_a_row_without_a_complete_trial(tmp_path):
    path = made(tmp_path / "easy.csv")
    update_table(path, "itr", lines_of("itr", [None] * 3))
    with pytest.raises(SearchError, match="no trial of itr"):
        winners(path)


def test_a_malformed_table(tmp_path):
    path = made(tmp_path / "easy.csv")
    for old, new, message in (
        ("0.4", "much", "line 3.*much"),
        ("{", "[", "line 2"),
        ("complete", "done", "line 2.*done"),
        ("row,", "rows,", "columns"),
    ):
        text = path.read_text()
        path.write_text(text.replace(old, new, 1))
        with pytest.raises(SearchError, match=message):
            read_table(path)
        path.write_text(text)
    with pytest.raises(SearchError, match="no such file"):
        read_table(tmp_path / "none.csv")


def test_the_plot_has_a_panel_for_each_row_and_a_dot_for_each_trial(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("pipeline.search.figure.save", lambda figure, path: drawn.append((figure, path)))
    draw_trials(read_table(made(tmp_path / "easy.csv")), tmp_path / "easy.png")
    ((figure, path),) = drawn
    assert path == tmp_path / "easy.png"
    panels = {axes.get_title(): axes for axes in figure.axes if axes.get_visible()}
    assert list(panels) == ["initialize", "dmc", "itr"]
    complete, _, failed = (each.get_offsets() for each in panels["dmc"].collections)
    assert complete.tolist() == [[0, 10], [2, 20]]
    assert failed[:, 0].tolist() == [1]
    (best,) = panels["itr"].get_lines()
    assert best.get_ydata().tolist() == [50, 50, 50]


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_params_has_the_winners_of_the_committed_tables(path):
    """Every row had the same number of trials and epochs: `winners` raises otherwise."""
    settings = load_params(ROOT / "params.yaml").training[path.stem]
    for row, values in settings_to_write(winners(path)).items():
        own = row_settings(settings, row)
        assert {name: getattr(own, name) for name in values} == values, row
