"""Every method on the device `meta`, whose tensors have no values: what mixes devices, or waits for a value, fails without a GPU."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from pipeline.common.config import LabeledSettings
from pipeline.methods.base import Batch
from pipeline.methods.build import build_method, method_settings
from pipeline.methods.dsol.method import STAGE_ONE, STAGE_TWO
from pipeline.methods.registry import METHODS
from pipeline.model.encoders import build_model
from pipeline.model.optimizer import build_optimizer
from pipeline.model.transfer import HostBuffers, send
from pipeline.training.augmentation import draw_changes, jitter_colors
from pipeline.training.live.steps import EpochSteps
from tests.support.synthetic import ENCODER, make_settings

META = torch.device("meta")
K, N_CLIPS, SIZE, CLASSES = 4, 12, 32, ("cat", "dog")
# Stage II of MSSL selects features, whose number the host has to know; `losses.alignment_loss` says why.
STAGES = [(name, None) for name in METHODS if name not in ("untouched", "dsol", "dsol_two_stage")]
STAGES += [("dsol", STAGE_TWO), ("dsol_two_stage", STAGE_ONE), ("dsol_two_stage", STAGE_TWO)]


@pytest.fixture(autouse=True)
def no_autocast(monkeypatch):
    """Torch has no autocast for `meta`."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())


class NoWaiting(TorchFunctionMode):
    """Refuse copies from the host for which a host with a GPU would wait."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and args and isinstance(args[0], torch.Tensor):
            moved = args[0].device.type == "cpu" and result.device == META and args[0].ndim > 0
            assert not moved or (kwargs or {}).get("non_blocking"), f"a blocking copy to the device: {func}"
        return result


def prepared(name, stage):
    settings = make_settings()
    settings = settings.model_copy(update={"methods": {name: {}}})
    method = build_method(name, method_settings(settings, name))
    model = build_model(ENCODER)
    method.prepare(
        model, n_clips=N_CLIPS, classes=CLASSES if isinstance(method_settings(settings, name), LabeledSettings) else ()
    )
    model.to(META)
    if stage is not None:
        model.heads["dsol"].stage.fill_(stage)
    return method, model, build_optimizer(model, ENCODER, settings.iterate)


def a_batch(model):
    side = SIZE // model.cell_stride
    return Batch(
        frames=torch.zeros(K, 3, SIZE, SIZE, dtype=torch.uint8, device=META),
        log_mel=torch.zeros(K, 64, 96, device=META),
        rows=np.arange(K),
        previous_response=torch.zeros(K, side, side, device=META),
        relation=torch.zeros(K, K, dtype=torch.bool, device=META),
        targets=torch.zeros(K, 2, len(CLASSES), device=META),
        generator=torch.Generator(),
    )


@pytest.mark.parametrize(("name", "stage"), STAGES)
def test_a_step_stays_on_the_device_and_waits_for_nothing(name, stage):
    method, model, optimizer = prepared(name, stage)
    steps, batch = EpochSteps("run", kept=""), a_batch(model)
    with NoWaiting():
        loss = method.loss(model, batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        steps(batch, loss, method.uninformed_loss(model, batch))
    assert loss.device == META
    assert all(each.grad.device == META for each in model.parameters() if each.grad is not None)
    assert any(each.grad is not None for each in model.parameters())


@pytest.mark.parametrize(("name", "stage"), [*STAGES, ("untouched", None), ("mssl", True)])
def test_maps_stay_on_the_device(name, stage):
    method, model, _ = prepared(name, None if name == "mssl" else stage)
    if name == "mssl":
        model.heads["mssl"].stage_two.fill_(True)
    with torch.inference_mode(), NoWaiting():
        response, audio = method.localize(model.eval(), a_batch(model).frames, a_batch(model).log_mel)
    assert response.device == audio.device == META
    assert (len(response), len(audio)) == (K, K)


def test_settings_that_the_walk_leaves_at_their_defaults():
    method, model, _ = prepared("iterative", None)
    method.settings = method.settings.model_copy(update={"draws": 2, "cells": 3, "delta_v_silent": 0.4})
    method_of_triplets, attention, _ = prepared("attention", None)
    method_of_triplets.kind = "triplet"
    with NoWaiting():
        assert method.loss(model, a_batch(model)).device == META
        assert method_of_triplets.loss(attention, a_batch(attention)).device == META
        changes = draw_changes(
            K, flip=True, shift_cells=1, color_jitter=0.4, roll_audio=True, generator=torch.Generator()
        )
        assert jitter_colors(a_batch(model).frames, changes).device == META


def test_the_walk_finds_what_it_looks_for():
    _, model, _ = prepared("iterative", None)
    batch = a_batch(model)
    with pytest.raises(RuntimeError):
        batch.relation.sum().item()
    with pytest.raises(RuntimeError):
        bool(batch.relation.any())
    with pytest.raises(AssertionError, match="blocking"), NoWaiting():
        torch.zeros(2).to(META)
    with NoWaiting():
        assert send(torch.zeros(2), META).device == META


def test_buffers_of_the_host_stay_there_and_in_the_state():
    class Head(HostBuffers):
        HOST = ("stage",)

        def __init__(self):
            super().__init__()
            self.register_buffer("stage", torch.tensor(1))
            self.register_buffer("classes", torch.zeros(3))

    head = torch.nn.Sequential(Head())
    head.to(META)
    assert (head[0].stage.device.type, head[0].classes.device) == ("cpu", META)
    head[0].stage.fill_(2)
    assert head.state_dict()["0.stage"] == 2
