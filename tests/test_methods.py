"""What all methods share: names, settings, and what an entry of params.yaml may hold."""

from __future__ import annotations

import pytest

from pipeline.config import IterationSettings
from pipeline.errors import SettingsError
from pipeline.methods import METHODS, build_method, check_methods, method_settings, settings_class
from tests.synthetic import make_settings


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_made_from_its_own_settings(name):
    settings = method_settings(make_settings(methods={name: {"delta_v": 0.25}}), name)
    assert isinstance(settings, settings_class(name))
    assert settings.delta_v == 0.25
    assert build_method(name, settings).loss is not None


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ({"itr": {"delta_w": 1}}, "methods.itr: unknown setting 'delta_w'"),
        ({"itr": {}, "iterative": {"delta_v": 2}}, "methods.iterative: setting 'delta_v'.*got 2"),
        ({"dreaming": {}}, "no method 'dreaming'; there are .*initial, itr"),
    ],
)
def test_a_wrong_entry_is_named(methods, message):
    with pytest.raises(SettingsError, match=message):
        check_methods(make_settings(methods=methods))


def test_a_method_without_an_entry():
    with pytest.raises(SettingsError, match="no entry for 'itr'; there are iterative"):
        make_settings(methods={"iterative": {}}).method("itr", IterationSettings)
