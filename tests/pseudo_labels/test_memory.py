"""Pseudo-labels are processed in blocks: with the same values and bytes as in one piece, and little memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pipeline.pseudo_labels import hdf5_file
from pipeline.pseudo_labels.artifact import PseudoLabels, write_pseudo_labels
from pipeline.training.batches import PreviousEpoch

ATTRS = {"stage": "train", "objective": "itr", "temperature": 0.1, "fingerprint": "a" * 32, "shards": "b" * 32}


def make_labels(n, seed, *, side=4, dim=6):
    rng = np.random.default_rng(seed)
    audio = rng.normal(size=(n, dim)).astype(np.float32)
    audio /= np.linalg.norm(audio, axis=1, keepdims=True)
    response = rng.normal(size=(n, side, side)).astype(np.float32)
    ids = [f"clip-{i:05d}" for i in range(n)]
    return (
        PseudoLabels.from_responses(ids, response, audio, epoch=seed, delta_v=0.6, delta_a=0.8, **ATTRS),
        response,
        audio,
    )


@pytest.fixture
def blocks_of(monkeypatch) -> Callable[[int], None]:
    def set_size(size):
        monkeypatch.setattr("pipeline.pseudo_labels.artifact.blocks", partial(hdf5_file.blocks, size=size))

    return set_size


def test_blocks_change_neither_bytes_nor_values(blocks_of, tmp_path):
    found = {}
    for size in (1000, 3):
        blocks_of(size)
        labels, response, audio = make_labels(10, 1)
        other = make_labels(10, 2)[0]
        write_pseudo_labels(tmp_path / f"{size}.h5", labels)
        write_pseudo_labels(tmp_path / f"{size}-other.h5", labels.with_attributes(delta_v=0.3))
        files = [(tmp_path / name).read_bytes() for name in (f"{size}.h5", f"{size}-other.h5")]
        backwards = PseudoLabels.open(tmp_path / f"{size}.h5").select(labels.clip_ids[::-1])
        found[size] = [*files, labels.mask_ious(other).tobytes(), backwards.stored("audio_embedding").tobytes()]
        np.testing.assert_array_equal(backwards.stored("audio_embedding"), audio[::-1].astype(np.float16))
        low, high = response.min(axis=(1, 2), keepdims=True), response.max(axis=(1, 2), keepdims=True)
        expected = ((response - low) / (high - low)).astype(np.float16)
        np.testing.assert_allclose(labels.response, expected, atol=1e-3)
        assert labels.response.dtype == np.float32
        mine, theirs = labels.masks, other.masks
        iou = [(a & b).sum() / max((a | b).sum(), 1) for a, b in zip(mine, theirs, strict=True)]
        np.testing.assert_allclose(labels.mask_ious(other), iou)
    assert found[1000] == found[3]


def test_labels_of_no_clips_have_the_shape_of_the_file(tmp_path):
    write_pseudo_labels(tmp_path / "a.h5", make_labels(3, 1)[0])
    none = PseudoLabels.open(tmp_path / "a.h5").select([])
    assert none.stored("response").shape == (0, 4, 4)
    assert none.mask_ious(none).shape == (0,)


def peak_of(action: Callable[[], Any]) -> int:
    """Return the largest amount of memory, in bytes, that NumPy and Python hold at once during an action."""
    tracemalloc.start()
    try:
        kept = action()  # counted, like everything that is returned
        peak = tracemalloc.get_traced_memory()[1]
        del kept
    finally:
        tracemalloc.stop()
    return peak


def test_maps_are_kept_once_and_in_half_precision(blocks_of, tmp_path):
    blocks_of(256)
    n = 4000
    labels, response, audio = make_labels(n, 1, side=16, dim=64)
    maps = response.nbytes  # of one float32 copy
    write_pseudo_labels(tmp_path / "a.h5", labels)
    opened, earlier = (PseudoLabels.open(tmp_path / "a.h5") for _ in range(2))
    opened.rows(["clip-00000"])  # the index of clip ids is made once
    again = partial(PseudoLabels.from_responses, labels.clip_ids, response, audio, **labels.attrs)
    assert peak_of(again) < 0.9 * maps
    assert peak_of(lambda: opened.mask_iou(earlier)) < 0.5 * maps
    shards = SimpleNamespace(clip_ids=labels.clip_ids)
    previous = PreviousEpoch.of(opened, shards, delta_a=0.5, center_audio=False)
    assert previous.response.dtype == previous.audio[0][0].dtype == np.float16
    assert peak_of(lambda: PreviousEpoch.of(opened, shards, delta_a=0.5, center_audio=False)) < 1.0 * maps
    rows = np.array([7, 3999, 0])
    expected = labels.audio_embedding[rows] @ labels.audio_embedding[rows].T >= 0.5
    np.testing.assert_array_equal(previous.relation(rows).numpy(), expected | np.eye(3, dtype=bool))
