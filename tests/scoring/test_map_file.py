"""Stored maps that define their own normalization: as files, as a rule, and as drawn."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.report import examples
from pipeline.report.examples import Scored, overlays
from pipeline.scoring.map_file import ResponseMaps, read_maps, write_maps
from pipeline.scoring.protocols import get_protocol
from tests.support.scored_world import boxes_of, make_split, mask

CLIPS = ["test-00", "test-01"]


def make_maps(normalization):
    """0.8 in the sounding box and 0 elsewhere, but -1 in one corner: min-max lifts the 0 above one half."""
    response = np.stack([0.8 * mask(boxes_of(clip_id)[0], 64) for clip_id in CLIPS]).astype(np.float32)
    response[:, -1, 0] = -1
    return ResponseMaps(CLIPS, response, response[::-1].copy(), CLIPS[::-1], "test", 3, "0" * 32, normalization)


@pytest.mark.parametrize("normalization", [None, "relu-max"])
def test_what_is_read_is_what_was_written(tmp_path, normalization):
    maps = make_maps(normalization)
    write_maps(tmp_path / "maps.h5", maps)
    read = read_maps(tmp_path / "maps.h5")
    assert read.normalization == normalization
    for name in ("clip_ids", "shuffled_clip_ids", "split", "seed", "shards"):
        assert getattr(read, name) == getattr(maps, name)
    np.testing.assert_array_equal(read.response, maps.response)
    np.testing.assert_array_equal(read.shuffled_response, maps.shuffled_response)


@pytest.mark.parametrize("name", ["paper256", "mssl256", "ezvsl224-median"])
def test_the_rule_of_maps(name):
    protocol = get_protocol(name)
    assert make_maps(None).rule(protocol) is protocol
    own = make_maps("relu-max").rule(protocol)
    assert own.normalization == "relu-max"
    assert (own.name, own.size, own.threshold_rule) == (protocol.name, protocol.size, protocol.threshold_rule)


def test_pictures_draw_what_is_scored(tmp_path, monkeypatch):
    """The outlined region is the sounding box under the maps' own normalization, and nearly the frame under min-max."""
    drawn = []
    monkeypatch.setattr(examples, "overlay_grid", lambda rows, columns: drawn.append(rows))
    shards = make_split(tmp_path, CLIPS)
    boxes = [box for clip_id in CLIPS for box in boxes_of(clip_id)]
    methods = [
        Scored(str(normalization), make_maps(normalization), dict.fromkeys(CLIPS, 0.5))
        for normalization in (None, "relu-max")
    ]
    overlays(CLIPS, methods, shards, boxes, get_protocol("paper256"), threshold=0.5)
    for clip_id, (_, by_protocol, by_method) in zip(CLIPS, drawn[0], strict=True):
        sounding = mask(boxes_of(clip_id)[0], 256)
        assert by_protocol.region.mean() > 0.9
        assert (by_method.region != sounding).mean() < 0.02
