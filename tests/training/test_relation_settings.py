"""Which clips y relates in training: by a share of the batch's pairs, and by ã of another epoch; against loops over the pairs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.common.config import AugmentationSettings
from pipeline.pseudo_labels.artifact import PseudoLabels
from pipeline.training.history import read_history
from pipeline.training.run import TrainingRun
from pipeline.training.spec import train_specs
from pipeline.training.train import initialize, train
from tests.support.synthetic import CELL, make_settings, make_world

METHOD = "itr_inter"


@pytest.fixture(scope="module")
def world():
    return make_world(24, size=32)[0]


@pytest.fixture(scope="module")
def initial(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "initialize"
    initialize(world, folder, settings=make_settings(), seeds=[0], device="cpu")
    return folder


def changed(**values):
    settings = make_settings()
    return settings.model_copy(update={"iterate": settings.iterate.model_copy(update=values)})


def trained(world, initial, folder, settings):
    """Train two epochs; return the run and its artifacts by epoch."""
    train(world, initial, folder, method=METHOD, settings=settings, seeds=[0], device="cpu")
    (spec,) = train_specs(world, initial, folder, method=METHOD, settings=settings, seeds=[0])
    run = TrainingRun(spec, world, torch.device("cpu"))
    return run, [PseudoLabels.open(folder / f"pseudo_labels/epoch_{epoch:03d}.h5") for epoch in range(3)]


def batches(run, epoch, labels):
    return list(run.batches(epoch, cell_stride=CELL, labels=labels[epoch - 1]))


def cosines(labels, run, rows):
    """Cosines of centered ã, clip by clip."""
    embedding = labels.audio_embedding[labels.rows(run.shards.clip_ids)].astype(np.float64)
    vectors = embedding[rows] - embedding.mean(axis=0)
    return np.array([[u @ v / np.linalg.norm(u) / np.linalg.norm(v) for v in vectors] for u in vectors])


def test_a_share_of_each_batchs_pairs_is_related(world, initial, tmp_path):
    run, labels = trained(world, initial, tmp_path / "run", changed(relation_share=0.25))
    for batch in batches(run, 2, labels):
        assert batch.epoch == 2
        upper = np.triu_indices(8, 1)
        values = cosines(labels[1], run, batch.rows)[upper]
        related = batch.relation.numpy()[upper]
        assert related.sum() == 7  # a quarter of 28
        assert values[related].min() > values[~related].max()
    # Seven pairs of eight clips: each clip is related to 14 / 8 others.
    assert [row["positives_per_clip"] for row in read_history(tmp_path / "run/history.csv")[1:]] == [1.75, 1.75]


def test_the_artifact_has_the_threshold_that_relates_the_share(world, initial, tmp_path):
    run, labels = trained(world, initial, tmp_path / "run", changed(relation_share=0.25))
    for each in labels:
        values = cosines(each, run, np.arange(24))[np.triu_indices(24, 1)]
        # Embeddings are stored in float16, so a pair next to the threshold may be on its other side.
        assert abs((values >= each.attrs["delta_a"]).sum() - 0.25 * 276) <= 2
    assert len({each.attrs["delta_a"] for each in labels}) == 3


@pytest.mark.parametrize("source", ["previous", "initialization", "either"])
def test_y_is_from_the_chosen_epoch(world, initial, tmp_path, source):
    settings = changed(relation_from=source, delta_a=0.5)
    settings = settings.model_copy(update={"augmentation": AugmentationSettings(flip=False)})
    run, labels = trained(world, initial, tmp_path / "run", settings)
    compared = 0
    for batch in batches(run, 2, labels):
        by_epoch = {epoch: cosines(labels[epoch], run, batch.rows) for epoch in (0, 1)}
        used = {"previous": [1], "initialization": [0], "either": [0, 1]}[source]
        clear = np.all([abs(each - 0.5) > 1e-4 for each in by_epoch.values()], axis=0)
        expected = np.any([by_epoch[epoch] >= 0.5 for epoch in used], axis=0)
        np.testing.assert_array_equal(batch.relation.numpy()[clear], expected[clear])
        compared += int(((by_epoch[0] >= 0.5) != (by_epoch[1] >= 0.5)).sum())
        clips = [world.clip_ids[row] for row in batch.rows]
        np.testing.assert_array_equal(batch.previous_response, labels[1].response[labels[1].rows(clips)])
    assert compared, "the two epochs relate the same pairs, so this test cannot tell them apart"
