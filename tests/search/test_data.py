"""Trials of frozen backbones read stored features; the search makes them if they are missing."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from pipeline.common.errors import SearchError
from pipeline.common.project import features_folder, shards_folder
from pipeline.features.reader import FeatureSet
from pipeline.search import data
from tests.support.feature_world import AUDIO, SIZE, frozen_settings, write_shards, write_weights
from tests.support.searching import make_params


def test_missing_features_are_computed_once(tmp_path, monkeypatch):
    def run_here(function, tasks, **_):
        yield from ((index, function(*task)) for index, task in enumerate(tasks))

    monkeypatch.setattr("pipeline.features.compute.run_tasks", run_here)
    write_shards(shards_folder(tmp_path, "easy", "validation"), counts=(5,))
    settings = frozen_settings(write_weights(tmp_path / "weights.pth"))
    params = make_params().model_copy(update={"training": {"easy": settings}})

    card = SimpleNamespace(audio=AUDIO, image_size=SIZE)

    def open_split():
        return data._open_split(tmp_path, "easy", "validation", params, card, device="cpu", workers=1)

    assert isinstance(open_split(), FeatureSet)
    (path,) = features_folder(tmp_path, "easy", "validation").glob("*.h5")
    monkeypatch.setattr(data, "compute_features", None)
    assert isinstance(open_split(), FeatureSet)
    assert path.is_file()
    compact = params.extract.model_copy(update={"frame_codec": "jpeg"})
    params = params.model_copy(update={"extract": compact})
    with pytest.raises(SearchError, match=r"extracted with frame_codec raw, but params\.yaml has jpeg"):
        open_split()
