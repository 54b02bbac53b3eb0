import math

import pytest

from pipeline.common.errors import ManifestError
from pipeline.datasets.importers.box_checks import BoxFault, box_faults, refuse_other_schema


@pytest.mark.parametrize(
    ("box", "faults"),
    [
        ([0, 0, 1, 1], []),
        ([0.2, 0.3, 0.4, 0.31], []),
        ([0.4, 0.3, 0.2, 0.5], ["width <= 0"]),
        ([0.2, 0.5, 0.4, 0.5], ["height <= 0"]),
        ([0.2, 0.2, 0.2, 0.2], ["width <= 0", "height <= 0"]),
        ([0.2, 0.2, -2.88e16, -2.88e16], ["corrupt coordinate"] * 2 + ["width <= 0", "height <= 0"]),
        ([0.2, 0.2, math.inf, 0.4], ["corrupt coordinate"]),
        ([0.2, math.nan, 0.4, 0.4], ["corrupt coordinate"]),
        ([0.2, 0.2, 10**400, 0.4], ["corrupt coordinate"]),
        ([0.2, 0.2, 0.4, -(10**400)], ["corrupt coordinate", "height <= 0"]),
        ([0.2, 0.2, 1.1, 0.4], ["outside the frame"]),
        ([-0.1, 0.2, 0.3, 0.4], ["outside the frame"]),
        ([0.2, 0.2, 0.4], ["not four numbers"]),
        ([0.2, 0.2, 0.4, "0.4"], ["not four numbers"]),
        ([0, 0, True, 1], ["not four numbers"]),
    ],
)
def test_all_faults_of_a_box_are_listed(box, faults):
    assert box_faults(box, low=0, high=1) == faults


def test_the_range_is_that_of_the_file():
    assert box_faults([1, 1, 256, 256], low=1, high=256) == []
    assert box_faults([0, 1, 256, 256], low=1, high=256) == ["outside the frame"]


def test_sizes_read_as_corners_are_refused_for_the_whole_file(tmp_path):
    sizes = [[0.1 + 0.05 * i, 0.5, 0.2, 0.3] for i in range(12)]
    faults = [
        BoxFault(f"clip{i}", tuple(map(str, box)), tuple(box_faults(box, low=0, high=1))) for i, box in enumerate(sizes)
    ]
    with pytest.raises(ManifestError, match=r"boxes\.json: 12 of 12 .*'height <= 0'.*clip0.*\[x, y, width, height\]"):
        refuse_other_schema(faults, 12, tmp_path / "boxes.json")


def test_pixels_read_as_fractions_are_refused_for_the_whole_file(tmp_path):
    faults = [BoxFault(f"clip{i}", ("10", "20", "30", "40"), ("outside the frame",)) for i in range(5)]
    with pytest.raises(ManifestError, match=r"boxes.json: 5 of 5 .*another unit"):
        refuse_other_schema(faults, 5, tmp_path / "boxes.json")


def test_a_few_faulty_boxes_do_not_reject_the_file(tmp_path):
    faults = [BoxFault(f"clip{i}", ("1", "0", "1", "1"), ("width <= 0",)) for i in range(18)]
    for few, n_boxes in ((faults, 5941), (faults[:4], 4)):
        assert refuse_other_schema(few, n_boxes, tmp_path / "boxes.json") is None
