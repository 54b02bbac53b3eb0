"""Several ranks give the losses, gradients and running statistics of one process.

In float64, where what is left is rounding. Ranks are real processes that exchange messages by gloo; one start of two serves all tests here.
"""

from __future__ import annotations

import copy
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.common.errors import TrainingError
from pipeline.methods.build import build_method, method_settings
from pipeline.methods.registry import METHODS
from pipeline.model import ranks
from pipeline.model.backbones.torchvision_compat import load_timm
from pipeline.model.encoders import build_model
from pipeline.pseudo_labels.artifact import PseudoLabels
from pipeline.training.batches import PreviousEpoch, training_batches
from pipeline.training.parallel import run_as_ranks
from tests.support.synthetic import CELL, make_settings, make_world

TRAINED = [name for name in METHODS if name != "untouched"]
EPOCHS = (1, 2)  # the methods with two stages are in the first, then in the second
N_CLIPS, BATCH_SIZE = 24, 8
ATTRS = {"epoch": 0, "stage": "initialize", "objective": "initial", "delta_v": 0.7, "delta_a": 0.8, "temperature": 0.3}


@contextmanager
def in_float64():
    """Let the code that asks for float32 compute in float64."""
    before = torch.Tensor.float
    torch.Tensor.float = torch.Tensor.double
    try:
        yield
    finally:
        torch.Tensor.float = before


def make_labels(world):
    rng = np.random.default_rng(0)
    audio = rng.normal(size=(N_CLIPS, 16)) + 3 * np.eye(16)[np.arange(N_CLIPS) % 4]  # four kinds of audio
    audio /= np.linalg.norm(audio, axis=1, keepdims=True)
    response = rng.random((N_CLIPS, 4, 4)).astype(np.float32)
    return PseudoLabels.from_responses(
        world.clip_ids, response, audio.astype(np.float32), **ATTRS, fingerprint="f", shards=world.fingerprint
    )


def losses_and_gradients(name):
    """Return the losses of two batches of one method, and what they leave in the model; the same code for any number of ranks."""
    settings, world = make_settings(), make_world(N_CLIPS, size=32)[0]
    method, labels = build_method(name, method_settings(settings, name)), make_labels(world)
    torch.manual_seed(0)
    model = build_model(settings.encoder)
    method.prepare(model, n_clips=N_CLIPS, classes=["a", "b", "c"])
    ranks.share_batch_norm(model.visual, model.audio)
    model.double()
    previous = PreviousEpoch.of(labels, world, delta_a=0.8, center_audio=False)
    targets = np.random.default_rng(1).integers(0, 2, (N_CLIPS, 2, 3)).astype(np.float32)
    found = {}
    for epoch in EPOCHS:
        with in_float64():
            ranks.by_first(partial(method.start_epoch, model.eval(), world, labels, epoch=epoch, seed=0))
        ranks.copy_of_first(model)
        batches = training_batches(
            world, batch_size=BATCH_SIZE, augmentation=settings.augmentation, cell_stride=CELL, key=(epoch,),
            previous=previous, targets=targets, device=torch.device("cpu"), epoch=epoch,
        )  # fmt: skip
        batch = next(batches)
        assert len(batch.frames) == BATCH_SIZE // ranks.n_ranks()
        model.zero_grad()
        with in_float64():
            loss = method.loss(model.train(), batch)
            loss.backward()
        ranks.average_gradients(model)
        found[f"loss {epoch}"] = loss.detach()
        found |= {f"gradient {epoch} {n}": p.grad for n, p in model.named_parameters() if p.grad is not None}
    return found | {f"buffer {n}": value.clone() for n, value in model.named_buffers()}


def batch_norms():
    with_activation = load_timm().layers.BatchNormAct2d(3, act_layer=nn.SiLU)
    torch.manual_seed(0)
    nets = [
        (nn.BatchNorm2d(3), (BATCH_SIZE, 3, 4, 5)),
        (nn.BatchNorm1d(3), (BATCH_SIZE, 3)),
        (nn.BatchNorm2d(3, momentum=None), (BATCH_SIZE, 3, 4, 5)),
        (nn.BatchNorm2d(3, affine=False), (BATCH_SIZE, 3, 4, 5)),
        (with_activation, (BATCH_SIZE, 3, 4, 5)),
    ]
    return [(net.double(), 5 + torch.randn(shape, dtype=torch.float64)) for net, shape in nets]


def normalized(net, x):
    """Return the output, the gradients and the running statistics."""
    x = x.clone().requires_grad_()
    y = net.train()(x)
    whole = ranks.gather(y)
    loss = (whole * torch.arange(whole.numel(), dtype=x.dtype).view_as(whole).sin()).sum()
    loss.backward()
    ranks.average_gradients(net)
    assert x.grad is not None
    gradient = ranks.gather(x.grad) / ranks.n_ranks()
    parameters = [parameter.grad for parameter in net.parameters()]
    return [whole.detach(), gradient, *parameters, *net.buffers()]


def measure(folder, device):
    """What each rank does: measure everything, and write it."""
    found = {name: losses_and_gradients(name) for name in TRAINED}
    own, normed = ranks.own_part(BATCH_SIZE), []
    for net, x in batch_norms():
        ranks.share_batch_norm(nn.Sequential(net))
        normed.append(normalized(net, x[own]))
    clips = ranks.own_clips(11, 4)  # 4 + 4 + 3
    of_first = ranks.joined_arrays([np.array(clips)])
    none_of_first = ranks.joined_arrays(None if ranks.is_first() else [np.arange(3)])
    checks = {
        "by_first": ranks.by_first(lambda: ("rank", ranks.is_first())),
        "on_all": (ranks.on_all(True), ranks.on_all(ranks.is_first())),
        "clips": list(clips),
        "arrays": [each.tolist() for each in (*of_first, *none_of_first)],
    }
    torch.save(
        {"methods": found, "norms": normed, "checks": checks}, folder / f"{'first' if ranks.is_first() else 'other'}.pt"
    )


pytestmark = pytest.mark.slow  # each process imports torch


@pytest.fixture(scope="module")
def of_ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    run_as_ranks(partial(measure, folder), n_ranks=2, device="cpu")
    return [torch.load(folder / f"{name}.pt", weights_only=False) for name in ("first", "other")]


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        scale = max(float(value.double().abs().max()), 1e-3)
        assert torch.allclose(found[name].double(), value.double(), rtol=0, atol=1e-11 * scale), name


@pytest.mark.parametrize("name", TRAINED)
def test_every_method_has_the_loss_and_gradients_of_one_process(of_ranks, name):
    expected = losses_and_gradients(name)
    assert sum("gradient 2" in key for key in expected) > 20
    for found in of_ranks:
        assert_close(found["methods"][name], expected)


def test_batch_norm_uses_the_whole_batch(of_ranks):
    for found in of_ranks:
        for (net, x), values in zip(batch_norms(), found["norms"], strict=True):
            expected = normalized(copy.deepcopy(net), x)
            for value, wanted in zip(values, expected, strict=True):
                torch.testing.assert_close(value, wanted, rtol=1e-10, atol=1e-12)


def test_the_first_rank_works_for_all(of_ranks):
    first, other = (found["checks"] for found in of_ranks)
    assert first["by_first"] == other["by_first"] == ("rank", True)
    assert first["on_all"] == other["on_all"] == (True, False)
    # Whole batches, in order; the incomplete one belongs to the last rank.
    assert (first["clips"], other["clips"]) == ([0, 1, 2, 3], [4, 5, 6, 7, 8, 9, 10])
    assert first["arrays"] == [list(range(11)), [0, 1, 2]]
    assert other["arrays"] == []


def test_a_single_process_changes_nothing():
    x = torch.randn(4, 3)
    net = nn.Sequential(nn.BatchNorm1d(3))
    before = copy.deepcopy(net.state_dict())
    assert ranks.gather(x) is x
    ranks.share_batch_norm(net)
    ranks.copy_of_first(net)
    ranks.average_gradients(net)
    assert type(net[0]) is nn.BatchNorm1d
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert (ranks.n_ranks(), ranks.is_first(), ranks.launched()) == (1, True, False)
    assert ranks.own_part(8) == slice(0, 8)
    assert ranks.own_clips(11, 4) == range(11)
    array = np.arange(3)
    assert ranks.joined_arrays([array])[0] is array
    assert ranks.by_first(lambda: 5) == 5
    assert [ranks.on_all(True), ranks.on_all(False)] == [True, False]


@pytest.mark.parametrize(("size", "fits"), [(1, True), (2, True), (4, True), (3, False), (16, False)])
def test_a_batch_must_be_divisible(size, fits):
    if fits:
        ranks.check_batch_size(8, size)
    else:
        with pytest.raises(TrainingError, match=rf"batch_size 8 .* {size} processes"):
            ranks.check_batch_size(8, size)
