"""What all methods share: names, settings, entries of params.yaml; and that a new one can be added."""

from __future__ import annotations

import re
import sys
from types import ModuleType

import pytest

from pipeline.common.config import IterationSettings, OptimizationSettings
from pipeline.common.errors import SettingsError
from pipeline.methods.build import build_method, check_methods, method_class, method_settings, settings_class
from pipeline.methods.registry import METHODS, MethodSpec
from pipeline.training.checkpoints import load_model
from pipeline.training.train import initialize, train
from tests.support.projects import ROOT
from tests.support.synthetic import make_settings, make_world


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_made_from_its_own_settings(name):
    settings = method_settings(make_settings(methods={name: {"delta_v": 0.25}}), name)
    assert isinstance(settings, settings_class(name))
    assert settings.delta_v == 0.25
    assert type(build_method(name, settings)) is method_class(name)


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ({"itr": {"delta_w": 1}}, "methods.itr.*'delta_w'"),
        ({"itr": {}, "iterative": {"delta_v": 2}}, "methods.iterative.*'delta_v'.*2"),
        ({"dreaming": {}}, "'dreaming'.*itr, itr_intra"),
    ],
)
def test_a_wrong_entry_is_named(methods, message):
    with pytest.raises(SettingsError, match=message):
        check_methods(make_settings(methods=methods))


def test_a_method_without_an_entry():
    with pytest.raises(SettingsError, match=r"'itr'.*iterative"):
        make_settings(methods={"iterative": {}}).method("itr", IterationSettings)


def test_the_method_of_contributing_has_twenty_lines_and_trains(tmp_path, monkeypatch):
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (code,) = re.findall(r'```python title="pipeline/methods/best_cell\.py"\n(.*?)```', text, re.DOTALL)
    assert sum(bool(line.strip()) for line in code.splitlines()) <= 20
    module = ModuleType("best_cell")
    exec(compile(code, "best_cell.py", "exec"), vars(module))
    monkeypatch.setitem(sys.modules, "best_cell", module)
    monkeypatch.setitem(METHODS, "best_cell", MethodSpec("best_cell:BestCell", "best cell"))
    once = OptimizationSettings(epochs=1, temperature=0.1, learning_rate=1e-3, weight_decay=1e-4)
    settings = make_settings(initialize=once, methods={"best_cell": {"epochs": 1}})
    world = make_world(24, size=32)[0]

    initialize(world, tmp_path / "initialize", settings=settings, seeds=[0], device="cpu")
    train(
        world, tmp_path / "initialize", tmp_path / "run", method="best_cell", settings=settings, seeds=[0], device="cpu"
    )

    before, model = (load_model(tmp_path / name / "model.pt") for name in ("initialize", "run"))
    assert model.description["method"] == "best_cell"
    assert not model.encoders.visual.conv1.weight.equal(before.encoders.visual.conv1.weight)
    assert model.response_maps(world, batch_size=8, device="cpu").shape == (24, 4, 4)
