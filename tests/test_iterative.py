"""The paper's method and its ablations: every row localises an easy set, by ear, and its loss falls."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.batches import Batch
from pipeline.config import AugmentationSettings, IterationSettings, OptimisationSettings
from pipeline.encoders import build_model
from pipeline.methods import build_method, method_settings
from pipeline.training import initialize, load_model, response_maps, train
from tests.easy_world import BACKGROUND, content_free_scores, localisation_score, make_easy_world
from tests.synthetic import ENCODER, SMALL, make_settings

ROWS = ("initial", "itr", "itr_intra", "itr_inter", "iterative")
# With each cell looking at 11 pixels, maps end where the object does.
SHARP = ENCODER.model_copy(update={"visual": SMALL.model_copy(update={"kernel_sizes": (1, 1, 1, 1)})})
OPTIMISER = {"temperature": 0.1, "learning_rate": 3e-3, "weight_decay": 1e-4}
SETTINGS = make_settings(
    batch_size=16,
    encoder=SHARP,
    augmentation=AugmentationSettings(flip=True),
    initialize=OptimisationSettings(epochs=16, **OPTIMISER),
    iterate=IterationSettings(epochs=8, **OPTIMISER, delta_v=0.8, delta_a=0.9),
    methods={name: {} for name in ROWS},
)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Shards and the folder of an initialised run."""
    shards, folder = make_easy_world(64, 0)[0], tmp_path_factory.mktemp("easy")
    initialize(shards, folder, settings=SETTINGS, seeds=[0], device="cpu")
    return shards, folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_it_localises_an_easy_set(start, tmp_path, name):
    shards, initial = start
    train(shards, initial, tmp_path, method=name, settings=SETTINGS, seeds=[0], device="cpu")
    unseen, boxes, _ = make_easy_world(64, 1)
    model, _ = load_model(tmp_path / "model.pt")
    found, shuffled = (
        localisation_score(response_maps(model, unseen, batch_size=64, device="cpu", audio_order=order), boxes)
        for order in (None, np.roll(np.arange(64), 1))
    )
    assert found > 1.25 * max(content_free_scores(boxes).values())
    assert found > shuffled + 0.1


@pytest.mark.parametrize("name", ROWS)
def test_the_loss_falls_on_a_few_clips(name):
    """Under labels that stay: over epochs the labels move, and with them what the loss is of."""
    world, _, kinds = make_easy_world(16, 3, size=32)
    frames, log_mel = (torch.from_numpy(part) for part in world.read(range(16)))
    batch = Batch(
        frames=frames.permute(0, 3, 1, 2),
        log_mel=log_mel,
        rows=np.arange(16),
        # How far a cell is from the grey around the object, 1 where the object fills it.
        previous_response=((frames.float() - BACKGROUND).abs().amax(3) / 80)
        .clamp(max=1)
        .unfold(1, 8, 8)
        .unfold(2, 8, 8)
        .mean((3, 4)),
        relation=torch.from_numpy(kinds[:, None] == kinds[None]),
        targets=None,
        generator=torch.Generator().manual_seed(0),
    )
    method = build_method(name, method_settings(SETTINGS, name))
    torch.manual_seed(0)
    model = build_model(SHARP).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(25):
        loss = method.loss(model, batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])
