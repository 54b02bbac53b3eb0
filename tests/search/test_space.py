"""The block `search` of params.yaml: what is searched, and what is refused."""

from __future__ import annotations

import pytest

from pipeline.common.config import IterationSettings, SearchRange, load_params
from pipeline.common.config.base import validated
from pipeline.common.config.search import SearchSettings
from pipeline.common.errors import SettingsError
from pipeline.methods.registry import METHODS
from pipeline.search.results import FOLLOWERS
from pipeline.search.space import row_spaces, with_values
from tests.support.projects import ROOT
from tests.support.searching import SPACES, TAU, make_params, make_spaces


def test_the_initialization_comes_first_and_is_never_left_out():
    reordered = dict(reversed(SPACES.items()))
    assert [space.row for space in make_spaces(reordered)] == ["initialize", "itr"]
    assert [space.row for space in make_spaces(SPACES, rows=["itr"])] == ["initialize", "itr"]


def test_the_first_trial_has_the_values_of_params():
    initialize, itr = make_spaces(methods={"itr": {"temperature": 0.2}})
    assert initialize.first == {"temperature": 0.1}
    assert itr.first == {"temperature": 0.2, "delta_v": 0.7}
    assert itr.epochs == 2
    assert "temperature" not in itr.fixed
    assert itr.fixed["learning_rate"] == 1e-3


def test_a_setting_of_whole_numbers_has_whole_numbers():
    (space,) = make_spaces(
        {"dsol": {"clusters": SearchRange(low=4, high=20), "correspondence_weight": SearchRange(low=0, high=1)}}
    )
    assert space.whole == {"clusters"}


def test_an_addition_at_its_default_can_be_searched():
    (space,) = make_spaces({"iterative": {"draws": [1, 4], "delta_v_silent": [None, 0.4]}})
    assert space.first == {"draws": 1, "delta_v_silent": None}


@pytest.mark.parametrize(
    ("spaces", "message"),
    [
        ({"itr_intre": {"temperature": TAU}}, r"\.itr_intre: .*itr_inter"),
        ({"itr": {"temprature": TAU}}, "'temprature'.*temperature"),
        ({"initialize": {"delta_v": [0.5]}}, "initialize: no setting 'delta_v'"),
        ({"itr": {"epochs": [2, 20]}}, "epochs is not searched"),
        ({"itr": {"until_converged": [None]}}, "until_converged is not searched"),
        ({"itr": {"delta_v": SearchRange(low=0.5, high=1.5)}}, "itr.*'delta_v'.*1.5"),
        ({"attention": {"loss": ["contrastive", "triple"]}}, "attention.*'triple'"),
        ({"dsol": {"clusters": SearchRange(low=2.5, high=20)}}, "dsol.*'clusters'.*2.5"),
        ({"itr": {"temperature": SearchRange(low=0.4, high=0.6)}}, r"itr.temperature: 0.3 .*outside"),
        ({"itr": {"delta_v": [0.5, 0.6]}}, r"itr.delta_v: 0.7 .*outside"),
        ({"itr": {}}, "itr: no settings"),
        ({"attention": {"draws": [1, 2]}}, "attention.*draws"),
    ],
)
def test_what_does_not_fit_is_named(spaces, message):
    with pytest.raises(SettingsError, match=message):
        make_spaces(spaces)


def test_an_unknown_row_or_dataset():
    with pytest.raises(SettingsError, match=r"'itrr'.*itr"):
        make_spaces(SPACES, rows=["itrr"])
    with pytest.raises(SettingsError, match="'other'"):
        row_spaces(make_params(), "other")


def test_every_row_has_the_same_epochs():
    with pytest.raises(SettingsError, match="itr trains 9 epochs, other rows 2"):
        make_spaces(methods={"itr": {"epochs": 9}})


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"low": 1, "high": 1}, "low 1 is not below high 1"),
        ({"low": 0, "high": 1, "log": True}, "low 0 has no logarithm"),
        ({"low": 1}, "temperature.high.* missing"),
        ({"low": 1, "hihg": 2, "high": 3}, "temperature.hihg"),
        ([], "temperature"),
    ],
)
def test_a_malformed_space(space, message):
    with pytest.raises(SettingsError, match=message):
        validated(SearchSettings, {"spaces": {"easy": {"itr": {"temperature": space}}}}, "params.yaml")


def test_values_change_their_row_alone():
    settings = make_params().training["easy"]
    changed = with_values(settings, "itr", {"temperature": 0.5})
    assert changed.method("itr", IterationSettings).temperature == 0.5
    assert changed.method("itr_intra", IterationSettings).temperature == 0.3
    assert changed.initialize == settings.initialize
    assert with_values(settings, "initialize", {"temperature": 0.5}).initialize.temperature == 0.5
    assert settings.initialize.temperature == 0.1


@pytest.mark.parametrize("dataset", ["demo", "real"])
def test_the_spaces_of_the_project_are_valid_and_have_every_row_of_the_tables(dataset):
    rows = {space.row for space in row_spaces(load_params(ROOT / "params.yaml"), dataset)}
    searched = {name for name, spec in METHODS.items() if spec.table_1 or spec.table_2} - {"untouched", *FOLLOWERS}
    assert rows == searched | {"initialize"}
