"""The figure of maps without photographs: which clips, which boxes, and the names in them."""

from __future__ import annotations

import sys

import numpy as np
from PIL import Image

from benchmarks.mosaic_maps import draw, main
from pipeline.common.project import manifest_folder
from pipeline.manifests.boxes import Box, boxes_path, write_boxes
from pipeline.scoring.map_file import ResponseMaps, write_maps

IDS = ["c0", "c1", "c2"]
BOXES = {
    clip: [
        Box(clip, "dog", "given", True, x0=0.0, y0=0.0, x1=0.5, y1=0.5),
        Box(clip, "cat", "given", False, x0=0.5, y0=0.5, x1=1.0, y1=0.75),
    ]
    for clip in IDS
}
MAPS = np.random.default_rng(0).normal(size=(3, 4, 4)).astype(np.float32)


def test_each_box_has_the_name_of_its_class():
    figure = draw({"initial": MAPS, "itr": MAPS}, IDS, BOXES)
    assert len(figure.axes) == 6
    for axes in figure.axes:
        assert {text.get_text(): text.get_position() for text in axes.texts} == {
            "dog": (0.25, 0.25),
            "cat": (0.75, 0.625),
        }
    assert [axes.get_title() for axes in figure.axes] == [*IDS, "", "", ""]


def test_a_constant_map_is_drawn():
    figure = draw({"initial": np.zeros((1, 4, 4), np.float32)}, ["c0"], BOXES)
    opacity = figure.axes[0].images[1].get_array()[..., 3]
    assert not opacity.any()


def test_it_reads_a_project(tmp_path, monkeypatch):
    manifest = manifest_folder(tmp_path, "real")
    manifest.mkdir(parents=True)
    write_boxes(boxes_path(manifest, "test"), [box for boxes in BOXES.values() for box in boxes])
    for name in ("initial", "itr_inter"):
        path = tmp_path / "results/real/maps" / name / "maps.h5"
        path.parent.mkdir(parents=True)
        write_maps(path, ResponseMaps(IDS, MAPS, MAPS, IDS[::-1], "test", 0, "fingerprint"))
    output = tmp_path / "images/maps.png"
    monkeypatch.setattr(
        sys, "argv", ["mosaic_maps.py", "--project", str(tmp_path), "--clips", "2", "--output", str(output)]
    )
    main()
    with Image.open(output) as image:
        assert min(image.size) > 100
