"""Maps per class against the published loop, and what a silent class must do."""

import numpy as np
import pytest

from pipeline.common.errors import EvaluationError
from pipeline.manifests.boxes import Box
from pipeline.scoring.class_maps import score_class_maps
from pipeline.scoring.protocols import get_protocol
from pipeline.scoring.results import summarize

CLASSES = ("cello", "flute", "trumpet", "violin")
MUSIC = get_protocol("music-synthetic-a")


def box(clip_id, source, x0, y0, x1, y1, sounding=True):
    return Box(clip_id, source, "a", sounding, x0, y0, x1, y1)


def nearest_block(cells, pixel, size=224):
    """Half-pixel linear interpolation of one axis, as cell weights."""
    position = max((pixel + 0.5) * cells / size - 0.5, 0)
    low = int(position)
    return low, min(low + 1, cells - 1), position - low


def upsample(cells):
    rows = [nearest_block(len(cells), pixel) for pixel in range(224)]
    half = np.array([(1 - f) * cells[low] + f * cells[high] for low, high, f in rows])
    return np.array([(1 - f) * half[:, low] + f * half[:, high] for low, high, f in rows]).T


def test_published_loop():
    generator = np.random.default_rng(0)
    maps = generator.integers(0, 65, size=(3, 4, 14, 14)) / 64
    maps[:, 2] *= 0.25  # a quiet class
    # [x, y, width, height] as published; rounded corner by corner, most far edges would lie a pixel further
    truth = {
        "a": {"cello": [(0.103, 0.102, 0.404, 0.403)], "flute": [(0.5, 0.6, 0.4, 0.3), (0.417, 0.51, 0.2, 0.199)]},
        "b": {"violin": [(0.0, 0.5, 0.5, 0.5)]},
        "c": {"flute": [(0.3, 0.0, 0.5, 0.4)], "violin": [(0.2, 0.503, 0.499, 0.399)]},
    }
    boxes = [
        box(i, s, x, y, x + w, y + h)
        for i, sources in truth.items()
        for s, own in sources.items()
        for x, y, w, h in own
    ]

    scores = score_class_maps(maps, CLASSES, list("abc"), boxes, MUSIC)

    for k, (clip_id, sources) in enumerate(truth.items()):
        values = []
        for source, own in sources.items():
            m = upsample(maps[k, CLASSES.index(source)])
            g = np.zeros((224, 224))
            for x, y, w, h in (tuple(int(value * 224) for value in row) for row in own):
                g[y : y + h, x : x + w] = 1
            region = m > 0.5 * m.max()
            values.append((region * (g > 0)).sum() / (g.sum() + (region * (g == 0)).sum()))
        silent = [np.mean(upsample(maps[k, c]) <= 0.2) for c, name in enumerate(CLASSES) if name not in sources]
        assert scores.clip_ids[k] == clip_id
        assert scores.ciou[k] == pytest.approx(np.mean(values), abs=1e-9)
        assert scores.extra["nsa"][k] == pytest.approx(np.mean(silent), abs=1e-9)
    assert summarize(scores)["nsa"] == pytest.approx(scores.extra["nsa"].mean())


def test_perfect_classes():
    maps = np.zeros((1, 4, 16, 16))
    maps[0, 0, :8, :8] = 1
    maps[0, 1, 8:, 8:] = 1
    boxes = [
        box("a", "cello", 0, 0, 0.5, 0.5),
        box("a", "flute", 0.5, 0.5, 1, 1),
        box("a", "violin", 0, 0, 1, 1, False),
    ]

    scores = score_class_maps(maps, CLASSES, ["a"], boxes, MUSIC)

    assert scores.ciou[0] == pytest.approx(1, abs=0.01)
    assert scores.pointing[0] == 1
    assert scores.extra["nsa"][0] == 1
    # A silent class that responds everywhere is heard.
    maps[0, 3] = 0.9
    assert score_class_maps(maps, CLASSES, ["a"], boxes, MUSIC).extra["nsa"][0] == 0.5


def test_clips_that_cannot_be_scored_are_counted():
    maps = np.random.default_rng(0).random((3, 1, 7, 7))
    boxes = [box("a", "cello", 0, 0, 1, 1), box("c", "cello", 1.1, 0, 1.2, 1), box("d", "cello", 0, 0, 1, 1)]

    scores = score_class_maps(maps, ["cello"], list("abc"), boxes, MUSIC)

    assert scores.clip_ids == ("a",)
    assert {key: value for key, value in scores.counts.items() if value} == {
        "n_clips": 1, "n_skipped": 2, "n_skipped_silent": 1, "n_skipped_empty": 1, "n_missing_maps": 1,
        "n_boxes_outside": 1,
    }  # fmt: skip
    assert np.isnan(scores.extra["nsa"]).all()


def test_errors_say_what_is_wrong():
    maps = np.ones((1, 1, 4, 4))
    with pytest.raises(EvaluationError, match=r"'a'.*'oboe'.*cello"):
        score_class_maps(maps, ["cello"], ["a"], [box("a", "oboe", 0, 0, 1, 1)], MUSIC)
    with pytest.raises(EvaluationError, match=r"paper256.*music-synthetic-a"):
        score_class_maps(maps, ["cello"], ["a"], [box("a", "cello", 0, 0, 1, 1)], get_protocol("paper256"))
    with pytest.raises(EvaluationError, match=r"\(clip, 2, row, col\), got \(1, 1, 4, 4\)"):
        score_class_maps(maps, ["cello", "flute"], ["a"], [], MUSIC)
    with pytest.raises(EvaluationError, match="no clip is left"):
        score_class_maps(maps, ["cello"], ["a"], [], MUSIC)
