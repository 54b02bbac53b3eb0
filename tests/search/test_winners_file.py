"""Winners in params.yaml: only their values and the comment behind them change."""

from __future__ import annotations

import difflib

import pytest
import yaml

from pipeline.common.errors import SearchError, SettingsError
from pipeline.search.results import Winner
from pipeline.search.study import Trial
from pipeline.search.winners_file import write_winners
from tests.support.projects import ROOT

NOTE = "winner of 16 trials on validation, docs/search/easy.csv"
PARAMS = """\
# Settings.
dataset: easy
training:
  easy:
    initialize: {epochs: 7, temperature: 0.07, learning_rate: 1.0e-3}   # ours; AdamW
    iterate: {epochs: 4}     # aligned
    methods:
      # before attention
      attention: {loss: "contrastive", temperature: 1.0}
      # before stage 1
      stage1: &stage1 {threshold: 0.3}   # ours
      # before its alias
      stage1_eq2: *stage1
      stage1_eq1: *stage1
      itr:
        temperature: 0.1   # inside
        cells: 1

  # The paper's.
  other: &other
    methods: &methods
      dmc: {sources: 1}
  copy: *other
  merged:
    methods:
      <<: *methods
      dsol: {clusters: 4}
"""


@pytest.fixture
def params(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(PARAMS)
    return path


def write(path, dataset="easy", **rows):
    found = {row: Winner(row, Trial(3, "complete", values, 0.5), 16, "auc") for row, values in rows.items()}
    write_winners(path, dataset, found, table="docs/search/easy.csv")


def changed_lines(path, before=PARAMS):
    lines = difflib.unified_diff(before.splitlines(), path.read_text().splitlines(), n=0, lineterm="")
    return [line for line in lines if line[0] in "+-" and not line.startswith(("+++", "---"))]


def test_only_the_line_of_the_row_changes(params):
    write(params, attention={"temperature": 0.123})
    assert changed_lines(params) == [
        '-      attention: {loss: "contrastive", temperature: 1.0}',
        f'+      attention: {{loss: "contrastive", temperature: 0.123}}   # {NOTE}',
    ]


def test_a_comment_behind_the_row_stays(params):
    write(params, initialize={"learning_rate": 0.002})
    (_, new) = changed_lines(params)
    assert new == f"+    initialize: {{epochs: 7, temperature: 0.07, learning_rate: 0.002}}   # ours; AdamW; {NOTE}"


def test_writing_again_changes_nothing(params):
    rows = {"initialize": {"temperature": 0.1}, "attention": {"margin": 1.5}, "stage1": {"threshold": 0.5}}
    write(params, **rows)
    text = params.read_text()
    write(params, **rows)
    assert params.read_text() == text
    assert "margin: 1.5" in text


def test_rows_that_share_a_block_get_their_own(params):
    write(params, stage1={"threshold": 0.5}, stage1_eq2={"threshold": 0.6})
    methods = yaml.safe_load(params.read_text())["training"]["easy"]["methods"]
    assert [methods[row]["threshold"] for row in ("stage1", "stage1_eq2", "stage1_eq1")] == [0.5, 0.6, 0.3]
    for comment in ("# before stage 1", "# before its alias", "# ours"):
        assert comment in params.read_text()


def test_a_merged_row_is_overridden(params):
    write(params, "merged", dmc={"sources": 2})
    training = yaml.safe_load(params.read_text())["training"]
    assert training["merged"]["methods"] == {"dmc": {"sources": 2}, "dsol": {"clusters": 4}}
    assert training["other"] == training["copy"] == {"methods": {"dmc": {"sources": 1}}}


def test_a_row_that_follows_another_gets_its_optimization_alone(params):
    params.write_text(
        PARAMS.replace("      itr:\n", "      iterative: {cells: 1}\n      initial_matched: {}\n      itr:\n")
    )
    write(params, iterative={"temperature": 0.2, "delta_v": 0.5})
    methods = yaml.safe_load(params.read_text())["training"]["easy"]["methods"]
    assert methods["iterative"] == {"cells": 1, "temperature": 0.2, "delta_v": 0.5}
    assert methods["initial_matched"] == {"temperature": 0.2}
    assert (
        "{temperature: 0.2}   # winner of 16 trials on validation of iterative, docs/search/easy.csv"
        in params.read_text()
    )


def test_a_block_over_several_lines(params):
    write(params, itr={"temperature": 0.2})
    assert yaml.safe_load(params.read_text())["training"]["easy"]["methods"]["itr"] == {"temperature": 0.2, "cells": 1}
    assert changed_lines(params) == [
        "-        temperature: 0.1   # inside",
        f"+        temperature: 0.2   # inside; {NOTE}",
    ]


def test_values_that_a_row_has_already_are_not_written(params):
    params.write_text(PARAMS.replace("{epochs: 4} ", "{epochs: 4, temperature: 0.3, delta_v: 0.8} "))
    write(
        params,
        itr={"temperature": 0.1, "delta_v": 0.8},
        initialize={"learning_rate": 0.001},
        attention={"delta_v": 0.9},
    )
    methods = yaml.safe_load(params.read_text())["training"]["easy"]["methods"]
    assert methods["itr"] == {"temperature": 0.1, "cells": 1}  # δ_v is that of `iterate`
    assert methods["attention"]["delta_v"] == 0.9
    assert f"        temperature: 0.1   # inside; {NOTE}" in params.read_text()
    assert f"learning_rate: 1.0e-3}}   # ours; AdamW; {NOTE}" in params.read_text()


@pytest.mark.parametrize("value", [1e-5, 1.5e-7, 0.0001, 3, True, None, "either"])
def test_values_are_read_back_as_they_were(params, value):
    write(params, attention={"temperature": value})
    read = yaml.safe_load(params.read_text())["training"]["easy"]["methods"]["attention"]["temperature"]
    assert read == value
    assert type(read) is type(value)


def test_a_block_that_other_datasets_share_is_refused_and_kept(params):
    with pytest.raises(SearchError, match=r"training\.other is an alias"):
        write(params, "other", dmc={"sources": 2})
    assert params.read_text() == PARAMS


def test_an_unknown_dataset(params):
    with pytest.raises(SettingsError, match=r"training\.none"):
        write(params, "none", dmc={"sources": 2})


def test_the_projects_own_params(tmp_path):
    path = tmp_path / "params.yaml"
    before = (ROOT / "params.yaml").read_text()
    path.write_text(before)
    write(path, "demo", itr={"temperature": 0.123})
    write(path, "real", itr={"temperature": 0.456})
    changed = changed_lines(path, before)
    assert [line for line in changed if line[0] == "+" and NOTE not in line] == []
    assert len(changed) <= 4
