"""Training in float16 with scaled losses, and with compiled backbones: on a CPU, in place of the GPUs that need them."""

import functools

import numpy as np
import pytest
import torch

import stages.initialize
import stages.train
from pipeline.common.errors import TrainingError
from pipeline.model import devices
from pipeline.training import state as states
from pipeline.training.checkpoints import read_checkpoint
from pipeline.training.run import TrainingRun
from pipeline.training.spec import initialize_specs, train_specs
from pipeline.training.train import Execution, initialize, train
from tests.support.synthetic import make_settings, make_world

CPU = torch.device("cpu")


class StopError(Exception):
    pass


def stop(epoch, model):
    if epoch == 2:
        raise StopError


@pytest.fixture(scope="module")
def world():
    return make_world(24, size=32)[0]


@pytest.fixture(scope="module")
def initial(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "initialize"
    initialize(world, folder, settings=make_settings(), seeds=[0], device="cpu")
    return folder


@pytest.fixture
def float16(monkeypatch):
    """A CPU that trains in float16. The scale doubles after every other step, so the state of the scaler matters."""
    monkeypatch.setattr(devices, "half_precision", lambda device: torch.float16)
    scaler = functools.partial(torch.amp.GradScaler, init_scale=256.0, growth_interval=2)
    monkeypatch.setattr(torch.amp, "GradScaler", scaler)


def trained(world, initial, folder, **options):
    train(world, initial, folder, method="iterative", settings=make_settings(), seeds=[0], device="cpu", **options)
    return read_checkpoint(folder / "model.pt")


def weights(content):
    return np.concatenate([v.numpy().ravel() for name, v in content.items() if name.startswith("model.")])


def run_of(world, initial, folder):
    (spec,) = train_specs(world, initial, folder, method="iterative", settings=make_settings(), seeds=[0])
    return TrainingRun(spec, world, CPU)


def test_float16_ends_close_to_float32_and_resumes_with_its_scale(world, initial, tmp_path, monkeypatch):
    in_float32 = weights(trained(world, initial, tmp_path / "float32"))
    with monkeypatch.context() as patched:
        float16.__wrapped__(patched)
        whole = trained(world, initial, tmp_path / "whole")
        with pytest.raises(StopError):
            trained(world, initial, tmp_path / "cut", on_epoch=stop)
        saved = read_checkpoint(tmp_path / "cut/state.pt")
        # Three steps per epoch: after the first epoch the scale has doubled once, and is one step from the next time.
        assert (saved["scaler.scale"], saved["scaler._growth_tracker"]) == (512.0, 1)
        scaler = states.resume_or_start(run_of(world, initial, tmp_path / "cut")).scaler
        assert (scaler.get_scale(), scaler.state_dict()["_growth_tracker"]) == (512.0, 1)
        np.testing.assert_array_equal(weights(trained(world, initial, tmp_path / "cut")), weights(whole))
    moved = np.abs(in_float32 - weights(read_checkpoint(initial / "model.pt"))).max()
    assert 0 < np.abs(weights(whole) - in_float32).max() < 0.2 * moved


def test_a_step_that_overflows_is_skipped(world, tmp_path, float16):
    (spec,) = initialize_specs(world, tmp_path / "run", settings=make_settings(), seeds=[0])
    state = states.start(TrainingRun(spec, world, CPU))
    before = [each.detach().clone() for each in state.model.parameters()]
    (state.scaler.scale(state.model.encode_audio(torch.randn(4, 16, 32)).sum()) * torch.inf).backward()
    state.step()
    assert state.scaler.get_scale() == 128.0
    assert all(torch.equal(*pair) for pair in zip(before, state.model.parameters(), strict=True))
    state.optimizer.zero_grad()
    state.scaler.scale(state.model.encode_audio(torch.randn(4, 16, 32))[:, 0].sum()).backward()
    state.step()
    assert not all(torch.equal(*pair) for pair in zip(before, state.model.parameters(), strict=True))


def test_without_float16_a_state_has_no_scale_and_can_be_resumed_with_one(world, initial, tmp_path, monkeypatch):
    with pytest.raises(StopError):
        trained(world, initial, tmp_path / "cut", on_epoch=stop)
    saved = read_checkpoint(tmp_path / "cut/state.pt")
    assert not [name for name in saved if name.startswith("scaler")]
    float16.__wrapped__(monkeypatch)
    assert states.resume_or_start(run_of(world, initial, tmp_path / "cut")).scaler.get_scale() == 256.0


def test_another_device_is_reported(world, initial, tmp_path, monkeypatch, capsys):
    with pytest.raises(StopError):
        trained(world, initial, tmp_path / "cut", on_epoch=stop)
    run = run_of(world, initial, tmp_path / "cut")
    assert states.resume_or_start(run).epoch == 1
    assert "began on" not in capsys.readouterr().err
    saved = run.folder.saved_state()
    monkeypatch.setattr(type(run.folder), "saved_state", lambda self: {**saved, "device": "cuda"})
    assert states.resume_or_start(run).epoch == 1
    assert "started on cuda, resumes on cpu" in capsys.readouterr().err


@pytest.mark.slow
def test_compiled_backbones_train_the_same(world, initial, tmp_path, monkeypatch):
    compiled, compile_it = [], torch.compile

    def traced(function, **options):
        # Traced, but not translated to C++, which takes a minute.
        compiled.append(function.__self__)
        return compile_it(function, backend="eager", **options)

    monkeypatch.setattr(torch, "compile", traced)
    eager = weights(trained(world, initial, tmp_path / "eager"))
    assert not compiled
    found = weights(trained(world, initial, tmp_path / "compiled", execution=Execution(compiled=True)))
    assert len(compiled) == 2
    np.testing.assert_allclose(found, eager, atol=1e-5)


def test_what_cannot_be_compiled(world, initial, tmp_path, monkeypatch):
    compile_it = torch.compile

    def backend(graph, inputs):
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(torch, "compile", lambda function, **_: compile_it(function, backend=backend))
    with pytest.raises(TrainingError, match=r"SOUNDSPOT_COMPILE.*no C\+\+ compiler"):
        trained(world, initial, tmp_path / "run", execution=Execution(compiled=True))
    with pytest.raises(TrainingError, match=r"SOUNDSPOT_COMPILE with 2 processes"):
        trained(world, initial, tmp_path / "run", execution=Execution(compiled=True, n_processes=2))


@pytest.mark.parametrize("stage", [stages.initialize, stages.train])
@pytest.mark.parametrize(("value", "expected"), [("0", False), ("1", True), (None, None)])
def test_a_stage_takes_both_settings_from_the_environment(monkeypatch, stage, value, expected):
    for name in ("SOUNDSPOT_COMPILE", "SOUNDSPOT_DETERMINISTIC"):
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)
    needed = [part for each in stage.main.params if each.required for part in (each.opts[0], "x")]
    given = stage.main.make_context("stage", needed).params
    by_default = {"compiled": False, "deterministic": True}
    for name, default in by_default.items():
        assert given[name] is (default if expected is None else expected)
