"""The loss of an uninformed model: each method's closed form is what its loss returns for such a model."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pipeline.methods.attention import EMBEDDING
from pipeline.methods.build import build_method, method_settings
from pipeline.methods.dsol import method as dsol
from pipeline.methods.registry import METHODS
from pipeline.model.encoders import build_model
from tests.support.easy_world import make_easy_world, whole_batch
from tests.support.synthetic import ENCODER, make_settings

K, CLASSES, DIM = 8, 4, 16


def build(name, **own):
    """Return the method, a model whose cells and audio are all the same unit vector, and a batch with a relation."""
    world, _, labels = make_easy_world(K, 0, size=32)
    relation = torch.eye(K, dtype=torch.bool)
    relation[0, 1] = relation[1, 0] = relation[2, 3] = relation[3, 2] = relation[0, 2] = relation[2, 0] = True
    response = torch.rand(K, 4, 4, generator=torch.Generator().manual_seed(0))
    batch = whole_batch(world, previous_response=response, relation=relation, labels=labels)
    method = build_method(name, method_settings(make_settings(methods={name: own}), name))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_model(ENCODER)
        method.prepare(model, n_clips=K, classes=list("abcd"))
    model.encode_frames = lambda frames: axis(0).view(1, DIM, 1, 1).expand(K, DIM, 4, 4)
    model.encode_audio = lambda log_mel: axis(0).expand(K, DIM)
    return method, model, batch


def axis(number):
    return F.one_hot(torch.tensor(number), DIM).float()


def at_distance(distance):
    """Return a unit vector at a distance from the first axis."""
    cosine = 1 - distance**2 / 2
    return cosine * axis(0) + math.sqrt(1 - cosine**2) * axis(1)


class Always(nn.Module):
    """Return the same row or map, whatever comes in."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, x):
        return self.value.expand(len(x), *self.value.shape)


def found(method, model, batch):
    batch.generator.manual_seed(0)
    return method.loss(model, batch).item(), float(method.uninformed_loss(model, batch))


@pytest.mark.parametrize("name", ["initial", "itr", "itr_intra", "itr_inter", "iterative"])
def test_softmax_over_equal_cosines(name):
    loss, closed = found(*build(name))
    logits = 2 * K if name in ("itr_intra", "iterative") else K
    # Clips 0 and 2 have two related clips each, 1 and 3 one.
    related = (2 * math.log(3) + 2 * math.log(2)) / K if name in ("itr_inter", "iterative") else 0
    assert closed == pytest.approx(math.log(logits) - related)
    assert loss == pytest.approx(closed)


@pytest.mark.parametrize("margin", [0.5, 1.0, 2.0])
def test_attention_at_half_the_margin(margin):
    method, model, batch = build("attention", margin=margin)

    def loss_at(distance):
        model.heads[EMBEDDING] = Always(at_distance(distance))
        return found(method, model, batch)[0]

    closed = float(method.uninformed_loss(model, batch))
    assert closed == pytest.approx(margin**2 / 8)
    assert loss_at(margin / 2) == pytest.approx(closed)
    assert min(loss_at(margin / 2 + step) for step in (-0.1, 0.1)) > closed


def test_attention_with_the_triplet_loss():
    loss, closed = found(*build("attention", loss="triplet"))
    assert loss == pytest.approx(closed) == 0.5


@pytest.mark.parametrize("margin", [1.0, 1.4, 2.0])
def test_dmc_at_half_the_margin(margin):
    method, model, batch = build("dmc", margin=margin)
    closed = float(method.uninformed_loss(model, batch))

    def loss_at(distance):
        method._cluster_frames = lambda model, frames: (axis(0).expand(K, 2, DIM), None, None)
        method._cluster_audio = lambda model, log_mel: at_distance(distance).expand(K, 1, DIM)
        return found(method, model, batch)[0]

    assert closed == pytest.approx(margin**2 / 4)
    assert loss_at(margin / 2) == pytest.approx(closed, rel=1e-4)
    assert min(loss_at(margin / 2 + step) for step in (-0.1, 0.1)) > closed


def test_mssl_with_class_frequencies_and_equal_pairs():
    method, model, batch = build("mssl", margin=1.2)
    batch = replace(batch, targets=batch.targets * torch.tensor([0.9, 0.6])[None, :, None])
    p = batch.targets.mean(dim=0)  # of frames and of audio
    heads = model.heads["mssl"]
    nn.init.zeros_(heads.pair_logit.weight)
    nn.init.zeros_(heads.pair_logit.bias)
    for layer, frequency in zip((heads.visual_classes, heads.audio_classes), p, strict=True):
        nn.init.zeros_(layer.weight)
        layer.bias.data = torch.logit(frequency)
    loss, closed = found(method, model, batch)
    p = p.numpy()
    entropy = -np.mean(p * np.log(p) + (1 - p) * np.log(1 - p))
    assert closed == pytest.approx(math.log(2) + 2 * entropy)
    assert loss == pytest.approx(closed)
    # In stage II every class is present, and all features are at half the margin.
    heads.stage_two.fill_(True)
    for layer in (heads.visual_classes, heads.audio_classes):
        layer.bias.data.fill_(1)
    heads.heard = lambda sounds, activation: axis(0).expand(K, CLASSES, DIM)
    heads.seen = lambda features, activation: at_distance(0.6).expand(K, CLASSES, DIM)
    of_ones = 2 * (p * -math.log(1 / (1 + math.exp(-1))) + (1 - p) * -math.log(1 / (1 + math.exp(1)))).mean()
    loss, closed = found(method, model, batch)
    assert closed == pytest.approx(math.log(2) + 2 * entropy + 1.2**2 / 2)
    assert loss - of_ones == pytest.approx(closed - 2 * entropy, rel=1e-4)


@pytest.mark.parametrize("unknown", [slice(2), slice(K)])
def test_mssl_with_unknown_targets(unknown):
    """The audio of some clips, or of all, has no class labels."""
    method, model, batch = build("mssl_stage1")
    targets = batch.targets * torch.tensor([0.9, 0.6])[None, :, None]
    targets[unknown, 1] = torch.nan
    heads = model.heads["mssl"]
    nn.init.zeros_(heads.pair_logit.weight)
    nn.init.zeros_(heads.pair_logit.bias)
    for layer, side in zip((heads.visual_classes, heads.audio_classes), targets.unbind(1), strict=True):
        nn.init.zeros_(layer.weight)
        layer.bias.data = torch.logit(side.nanmean(dim=0).nan_to_num(0.5).clamp(1e-6, 1 - 1e-6))
    loss, closed = found(method, model, replace(batch, targets=targets))
    assert loss == pytest.approx(closed, rel=1e-5)
    assert closed > math.log(2) + 0.1


def test_mssl_without_labels():
    method, model, batch = build("mssl_stage1_unlabeled")
    batch = replace(batch, targets=None)
    nn.init.zeros_(model.heads["mssl"].pair_logit.weight)
    nn.init.zeros_(model.heads["mssl"].pair_logit.bias)
    loss, closed = found(method, model, batch)
    assert loss == pytest.approx(closed) == pytest.approx(math.log(2))


def test_dsol_stage_one_with_class_frequencies():
    method, model, batch = build("dsol_two_stage", epochs=2, clusters=CLASSES)
    head = dsol.dsol_head(model)
    head.stage.fill_(dsol.STAGE_ONE)
    head.pseudo_class.copy_(torch.tensor([0, 0, 0, 0, 1, 1, 2, 2]))
    head.scale.data.zero_()
    frequency = torch.tensor([0.5, 0.25, 0.25, 1e-30])
    for layer in (head.image_classes, head.audio_classes):
        nn.init.zeros_(layer.weight)
        layer.bias.data = frequency.log() * method.settings.class_temperature
    loss, closed = found(method, model, batch)
    assert closed == pytest.approx(math.log(2) + 2 * (0.5 * math.log(2) + 0.5 * math.log(4)))
    assert loss == pytest.approx(closed)


def test_dsol_stage_two_with_the_mean_distribution(monkeypatch):
    method, model, batch = build("dsol", clusters=CLASSES, correspondence_weight=0.3)
    head = dsol.dsol_head(model)
    head.stage.fill_(dsol.STAGE_TWO)
    heard = torch.rand(K, CLASSES, generator=torch.Generator().manual_seed(1)).softmax(dim=1)
    head.audio_distribution.copy_(heard)
    mean = heard.mean(dim=0)
    head.scale.data.zero_()
    nn.init.zeros_(head.audio_classes.weight)
    head.audio_classes.bias.data = mean.log() * method.settings.class_temperature
    monkeypatch.setattr(dsol, "category_logits", lambda *_, **__: mean.log().expand(K, CLASSES))
    loss, closed = found(method, model, batch)
    divergence = float((heard * (heard / mean).log()).sum(dim=1).mean())
    cross_entropy = float(-(heard * mean.log()).sum(dim=1).mean())
    assert closed == pytest.approx(divergence + cross_entropy + 0.3 * math.log(2))
    assert loss == pytest.approx(closed)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_one(name):
    own = {"epochs": 2, "clusters": CLASSES} if name.startswith("dsol") else {}
    method, model, batch = build(name, **own)
    if "unlabeled" in name:
        batch = replace(batch, targets=None)
    value = float(method.uninformed_loss(model, batch))
    assert math.isfinite(value)
    assert value > 0
