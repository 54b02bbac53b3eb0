"""Sizes from the formats against real files."""

import numpy as np
import pytest
import torch

from pipeline.apps.preflight.file_sizes import (
    map_side,
    maps_bytes,
    model_bytes,
    pseudo_label_bytes,
    shard_bytes,
    split_bytes,
    state_bytes,
)
from pipeline.model.encoders import build_model, cell_stride
from pipeline.pseudo_labels.artifact import PseudoLabels, write_pseudo_labels
from pipeline.scoring.map_file import ResponseMaps, write_maps
from pipeline.training.checkpoints import WEIGHTS, flatten_optimizer, write_checkpoint
from tests.support.scored_world import FRAMES, MELS, SIZE, make_split
from tests.support.synthetic import ENCODER

WITHIN = 0.04
ATTRIBUTES = {
    "epoch": 0,
    "stage": "train",
    "objective": "iterative",
    "delta_v": 0.5,
    "delta_a": 0.5,
    "temperature": 0.1,
    "fingerprint": "0" * 32,
    "shards": "1" * 32,
}


@pytest.mark.parametrize("n_clips", [16, 300])
def test_a_shard(tmp_path, n_clips):
    make_split(tmp_path, [f"clip-{i:04d}" for i in range(n_clips)])
    foreseen = shard_bytes(n_clips, image_size=SIZE, log_mel_shape=(MELS, FRAMES))
    assert foreseen == pytest.approx((tmp_path / "shard-00000.h5").stat().st_size, rel=WITHIN)


def test_a_split_is_the_sum_of_its_shards():
    shape = {"image_size": 64, "log_mel_shape": (16, 20)}
    each = [shard_bytes(n, **shape) for n in (100, 100, 7)]
    assert split_bytes(207, clips_per_shard=100, **shape) == sum(each)
    assert split_bytes(200, clips_per_shard=100, **shape) == sum(each[:2])
    assert split_bytes(0, clips_per_shard=100, **shape) == 0


@pytest.mark.parametrize(("n_clips", "side", "dim"), [(40, 16, 128), (300, 8, 64), (1100, 16, 512)])
def test_pseudo_labels_and_maps(tmp_path, n_clips, side, dim):
    random = np.random.default_rng(0)
    ids = [f"clip-{i:06d}" for i in range(n_clips)]
    response = random.random((n_clips, side, side), dtype=np.float32)
    audio = random.random((n_clips, dim), dtype=np.float32)
    write_pseudo_labels(tmp_path / "labels.h5", PseudoLabels.from_responses(ids, response, audio, **ATTRIBUTES))
    foreseen = pseudo_label_bytes(n_clips, side=side, embedding_dim=dim, id_bytes=11)
    assert foreseen == pytest.approx((tmp_path / "labels.h5").stat().st_size, rel=WITHIN)
    write_maps(tmp_path / "maps.h5", ResponseMaps(ids, response, response, ids, "test", 0, "0" * 32))
    foreseen = maps_bytes(n_clips, side=side, id_bytes=11)
    assert foreseen == pytest.approx((tmp_path / "maps.h5").stat().st_size, rel=WITHIN)


def test_checkpoints(tmp_path):
    model = build_model(ENCODER)
    weights = {WEIGHTS + name: value for name, value in model.state_dict().items()}
    write_checkpoint(tmp_path / "model.pt", weights)
    assert model_bytes(model) == pytest.approx((tmp_path / "model.pt").stat().st_size, rel=WITHIN)
    optimizer = torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    write_checkpoint(tmp_path / "state.pt", {**weights, **flatten_optimizer(optimizer)})
    assert state_bytes(model) == pytest.approx((tmp_path / "state.pt").stat().st_size, rel=WITHIN)


@pytest.mark.parametrize("size", [64, 63, 50, 33])
def test_the_side_of_a_map_is_the_models(size):
    model = build_model(ENCODER).eval()
    with torch.inference_mode():
        side = model.encode_frames(torch.zeros(1, 3, size, size)).shape[-1]
    assert map_side(size, cell_stride=cell_stride(ENCODER.visual)) == side
