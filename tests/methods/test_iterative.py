"""The paper's method and its ablations: every row localizes an easy set, uses the audio, and its loss falls."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.common.config import AugmentationSettings, IterationSettings, OptimizationSettings
from pipeline.methods.build import build_method, method_settings
from pipeline.model.encoders import build_model
from tests.support.easy_world import BACKGROUND, SHARP, easy_scores, make_easy_world, overfit, train_easily, whole_batch
from tests.support.synthetic import make_settings

ROWS = ("initial", "itr", "itr_intra", "itr_inter", "iterative")
OPTIMIZER = {"temperature": 0.1, "weight_decay": 1e-4}
# Trained longer or faster, single cells of the object stand out more and more, and where is up to the last bits.
SETTINGS = make_settings(
    batch_size=16,
    encoder=SHARP,
    augmentation=AugmentationSettings(flip=True),
    initialize=OptimizationSettings(epochs=5, learning_rate=3e-3, **OPTIMIZER),
    iterate=IterationSettings(epochs=4, learning_rate=5e-4, **OPTIMIZER, delta_v=0.7, delta_a=0.9),
    methods={name: {} for name in ROWS},
)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Shards, and a folder in which all rows share an initialization."""
    return make_easy_world(96, 0)[0], tmp_path_factory.mktemp("easy")


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_it_localizes_an_easy_set(start, name):
    shards, folder = start
    model = train_easily(folder, name, shards, SETTINGS)
    found, shuffled, blind = easy_scores(model, *make_easy_world(64, 1)[:2])
    # Mean ± SD of 15 runs with initial weights perturbed by 1e-6, five on each of three CPU capabilities, of the row that is
    # nearest to its bound: itr_inter 2.17 ± 0.03 × blind (least 2.12), and 0.40 ± 0.01 above shuffled (least 0.39).
    assert found > 2 * blind
    assert found > shuffled + 0.3


# Of the same 15 runs: 0.065 ± 0.004, 0.349 ± 0.007, 0.308 ± 0.004, at most 0.001, and 0.024 ± 0.005 (most 0.044).
FALLS_TO = {"initial": 0.2, "itr": 0.45, "itr_intra": 0.36, "itr_inter": 0.01, "iterative": 0.1}


@pytest.mark.parametrize("name", ROWS)
def test_the_loss_falls_on_a_few_clips(name):
    """With fixed pseudo-labels: over epochs they would change, and the loss with them."""
    world, _, kinds = make_easy_world(16, 3, size=32)
    # How far a cell's color is from the gray background; 1 where the object fills the cell.
    distance = (torch.from_numpy(world.frames).float() - BACKGROUND).abs().amax(3) / 80
    response = distance.clamp(max=1).unfold(1, 8, 8).unfold(2, 8, 8).mean((3, 4))
    relation = torch.from_numpy(kinds[:, None] == kinds[None])
    batch = whole_batch(world, previous_response=response, relation=relation)
    torch.manual_seed(0)
    method, model = build_method(name, method_settings(SETTINGS, name)), build_model(SHARP)
    losses = overfit(method, model, batch, steps=25, learning_rate=3e-3)
    assert np.mean(losses[-3:]) < FALLS_TO[name] * np.mean(losses[:3])


@pytest.mark.parametrize("name", ROWS[1:])
def test_the_loss_is_eq_7_by_loops(name):
    """Of the mean over sounding cells and that over silent ones, which training on a plain background cannot tell apart."""
    response = torch.rand(4, 16, generator=torch.Generator().manual_seed(0))
    relation = torch.eye(4, dtype=torch.bool)
    relation[0, 2] = relation[2, 0] = relation[1, 3] = relation[3, 1] = True
    world = make_easy_world(4, 0, size=32)[0]
    batch = whole_batch(world, previous_response=response.view(4, 4, 4), relation=relation)
    settings = method_settings(SETTINGS, name).model_copy(update={"cells": 0})
    torch.manual_seed(0)
    method, model = build_method(name, settings), build_model(SHARP)
    model.eval()
    with torch.no_grad():
        features, audio = model.encode_frames(batch.frames).flatten(2), model.encode_audio(batch.log_mel)
        loss = method.loss(model, batch).item()

    def power(cells, sound):
        return np.exp(np.mean([float(cell @ sound) for cell in cells]) / OPTIMIZER["temperature"])

    terms = []
    for i in range(4):
        sounding, silent = (
            [features[i, :, c] for c in range(16) if (response[i, c] > 0.7) == on] for on in (True, False)
        )
        related = [j for j in range(4) if i == j or (name in ("itr_inter", "iterative") and relation[i, j])]
        every = sum(power(sounding, audio[j]) for j in range(4))
        if name in ("itr_intra", "iterative"):
            every += sum(power(silent, audio[j]) for j in range(4))
        terms.append(-np.log(sum(power(sounding, audio[j]) for j in related) / every))
    assert loss == pytest.approx(np.mean(terms), rel=1e-4)
