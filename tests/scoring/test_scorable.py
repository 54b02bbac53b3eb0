"""Which splits can be scored, before there are maps: the answer is that of scoring itself, on random boxes."""

import numpy as np
import pytest

from pipeline.common.config import EvaluationSettings
from pipeline.common.errors import EvaluationError
from pipeline.manifests.boxes import Box, write_boxes
from pipeline.scoring.protocols import PROTOCOLS
from pipeline.scoring.scorable import check_scorable, check_shuffling, validate_for_evaluation


def covers_a_pixel(box, protocol):
    """Draw the box without the project's code, following the published rounding of each protocol."""
    size = protocol.size

    def edge(value):
        if protocol.rounding == "nearest":
            return int(np.floor(value * size + 0.5))
        if protocol.rounding == "one-based-floor":
            return size * (round(value * 256) + 1) // 256
        return int(np.floor(value * size))

    if protocol.rounding == "xywh-floor":
        right, bottom = (edge(a) + int((b - a) * size + 1e-9) for a, b in ((box.x0, box.x1), (box.y0, box.y1)))
    else:
        right, bottom = edge(box.x1), edge(box.y1)
    image = np.zeros((size, size))
    image[edge(box.y0) : bottom, edge(box.x0) : right] = 1
    return image.any()


@pytest.mark.parametrize("name", PROTOCOLS)
def test_one_sounding_box_with_a_pixel_is_enough_and_needed(name):
    protocol, rng = PROTOCOLS[name], np.random.default_rng(0)
    outcomes = set()
    for trial in range(40):
        x0, y0 = rng.uniform(0, 0.9, 2)
        width, height = rng.choice([0.001, 0.002, 0.004, 0.05], 2)
        box = Box("a", "dog", "me", bool(trial % 4), x0, y0, x0 + width, y0 + height)
        others = [Box("b", "dog", "me", False, 0, 0, 1, 1), Box("elsewhere", "dog", "me", True, 0, 0, 1, 1)]
        expected = box.sounding and covers_a_pixel(box, protocol)
        outcomes.add(expected)
        if expected:
            check_scorable(["a", "b"], [*others, box], protocol)
        else:
            with pytest.raises(EvaluationError, match=rf"{protocol.name}: no clip is left"):
                check_scorable(["a", "b"], [*others, box], protocol)
    assert outcomes == {True, False}


def test_the_message_counts_what_is_wrong():
    boxes = [
        Box("b", "", "", False, 0, 0, 1, 1),
        Box("c", "", "", True, 0.5001, 0, 0.5002, 1),
        Box("x", "", "", True, 0, 0, 1, 1),
    ]
    with pytest.raises(
        EvaluationError, match=r"2 clips have no sounding box, 1 have boxes outside.* 1 clips with sounding"
    ):
        check_scorable(["a", "b", "c"], boxes, PROTOCOLS["paper256"])


def test_an_empty_split_has_nothing_to_score():
    with pytest.raises(EvaluationError, match="no clip is left"):
        check_scorable([], [], PROTOCOLS["paper256"])


def test_other_audio_needs_another_clip():
    check_shuffling(2)
    with pytest.raises(EvaluationError, match="has 1"):
        check_shuffling(1)


def test_the_boxes_of_a_split_that_can_be_scored_are_returned(tmp_path):
    boxes = [Box("a", "dog", "me", True, 0.1, 0.1, 0.5, 0.5)]
    write_boxes(tmp_path / "test_boxes.csv", boxes)
    rule = EvaluationSettings(protocol="paper256")
    assert validate_for_evaluation(tmp_path, "test", ["a", "b"], rule) == boxes
    with pytest.raises(EvaluationError, match="no boxes for the split 'validation'"):
        validate_for_evaluation(tmp_path, "validation", ["a", "b"], rule)
    with pytest.raises(EvaluationError, match="'none'"):
        validate_for_evaluation(tmp_path, "test", ["a", "b"], EvaluationSettings(protocol="none"))
