"""The steps of an epoch: which loss is named, and what is averaged."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from pipeline.common.errors import DivergenceError
from pipeline.methods.base import Batch
from pipeline.training.live.steps import READ_EVERY, EpochSteps

K = 4
BATCH = Batch(torch.zeros(K), torch.zeros(K), np.arange(K), None, None, None, torch.Generator())


def take(losses, *, batch=BATCH):
    with EpochSteps("run, epoch 2/3", kept="kept") as steps:
        for each in losses:
            steps(batch, torch.tensor(each), 2.0)
    return steps.measures()


def test_measures_are_means_over_all_steps():
    relation = torch.eye(K, dtype=torch.bool)
    relation[0, 1:] = True
    losses = np.arange(READ_EVERY + 3, dtype=np.float32)
    measures = take(losses, batch=dataclasses.replace(BATCH, relation=relation))
    mean = sum(map(float, losses)) / len(losses)
    assert measures == {"loss": mean, "loss_share": mean / 2, "positives_per_clip": 3 / K}
    assert math.isnan(take([1.0])["positives_per_clip"])


@pytest.mark.parametrize("bad", [1, 7, READ_EVERY, READ_EVERY + 1, READ_EVERY + 3])
def test_the_first_bad_batch_is_named(bad):
    losses = [1.0] * (READ_EVERY + 5)
    losses[bad - 1] = math.inf
    losses[bad:] = [math.nan] * len(losses[bad:])
    with pytest.raises(DivergenceError, match=rf"epoch 2/3, batch {bad}: the loss is inf; .* kept"):
        take(losses)


def fail_after(loss, error):
    with EpochSteps("run", kept="") as steps:
        steps(BATCH, torch.tensor(loss), 2.0)
        raise error


def test_a_bad_loss_is_the_cause_of_a_later_error():
    with pytest.raises(DivergenceError, match="batch 1"):
        fail_after(math.nan, RuntimeError("probability tensor contains nan"))
    with pytest.raises(KeyboardInterrupt):
        fail_after(math.nan, KeyboardInterrupt())


def test_other_errors_stay_as_they_are():
    with pytest.raises(RuntimeError, match="out of memory"):
        fail_after(1.0, RuntimeError("out of memory"))


def test_no_loss_is_read_before_its_turn():
    """A loss on `meta` cannot be read at all, as one on a GPU cannot be read without waiting."""
    steps = EpochSteps("run", kept="")
    for _ in range(READ_EVERY - 1):
        steps(BATCH, torch.zeros((), device="meta"), 2.0)
    with pytest.raises(RuntimeError, match="meta"):
        steps(BATCH, torch.zeros((), device="meta"), 2.0)
