"""The evaluator: what it counts, shares and refuses; and the summary that is written down."""

import json
from dataclasses import replace

import numpy as np
import pytest

from pipeline.common.errors import EvaluationError
from pipeline.manifests.boxes import Box
from pipeline.scoring import metrics
from pipeline.scoring import score as scoring
from pipeline.scoring.metrics import average_precision
from pipeline.scoring.protocols import PROTOCOLS, get_protocol
from pipeline.scoring.results import COUNTS, Scores, summarize
from pipeline.scoring.score import score, score_all
from pipeline.scoring.summary import flat_metrics
from tests.scoring import reference

PAPER = get_protocol("paper256")


def box(clip_id, x0=0.25, y0=0.25, x1=0.75, y1=0.75, *, sounding=True, source="thing", annotator="renderer"):
    return Box(clip_id, source, annotator, sounding, x0, y0, x1, y1)


@pytest.fixture
def clips():
    generator = np.random.default_rng(0)
    ids = [f"frame_{k // 2}_{k % 2}" for k in range(12)]
    boxes = [
        box(i, *np.sort(generator.random((2, 2)), axis=0).ravel(), source=s, annotator=a)
        for i in ids
        for s, a in (("cello", "x"), ("flute", "y"), ("cello", "z"))
    ]
    return generator.normal(size=(12, 14, 14)).astype(np.float32), ids, boxes


def test_a_perfect_map_succeeds_and_a_silent_object_is_a_mistake():
    left, right = np.zeros((8, 8)), np.zeros((8, 8))
    left[:, :4], right[:, 4:] = 1, 1
    boxes = [box("a", 0, 0, 0.5, 1), box("a", 0.5, 0, 1, 1, sounding=False)]

    good, bad = score(left[None], ["a"], boxes, PAPER), score(right[None], ["a"], boxes, PAPER)

    assert (good.ciou[0], good.iou[0], good.pointing[0], good.success[0]) == (1, 1, 1, True)
    assert (bad.ciou[0], bad.iou[0], bad.pointing[0], bad.success[0]) == (0, 0, 0, False)


def test_values_are_those_of_the_metric_functions(clips):
    _, ids, boxes = clips
    region = np.random.default_rng(1).random((12, 256, 256)) > 0.4

    scores = score(region, ids, boxes, PAPER)

    truths = [
        scoring.ground_truth([b for b in boxes if b.clip_id == i], 256, rounding="nearest", consensus="annotators")[0]
        for i in scores.clip_ids
    ]
    kept = region[[ids.index(i) for i in scores.clip_ids]]
    np.testing.assert_allclose(scores.ciou, reference.ciou(kept, [t.g for t in truths]), rtol=0, atol=1e-12)
    np.testing.assert_allclose(scores.iou, reference.iou(kept, [t.support for t in truths]), rtol=0, atol=1e-12)
    # The pixels of a region share its peak.
    shares = [(r & t.support).sum() / r.sum() for r, t in zip(kept, truths, strict=True)]
    np.testing.assert_allclose(scores.pointing, shares, rtol=0, atol=1e-12)


def test_pointing_shares_a_peak_among_its_pixels():
    unique, tied = np.zeros((256, 256)), np.zeros((256, 256))
    unique[1, 1] = 1.0
    tied[2, 127:130] = 1.0
    maps = np.stack([unique, tied, np.ones((256, 256)), -unique])

    scores = score(maps, list("abcd"), [box(i, 0, 0, 0.5, 1) for i in "abcd"], PAPER)

    # The peak of the negated map is shared by all other pixels.
    np.testing.assert_allclose(scores.pointing, [1, 1 / 3, 1 / 2, (2**15 - 1) / (2**16 - 1)], rtol=1e-12)


def test_all_protocols_at_once_equal_one_at_a_time(clips):
    together = score_all(*clips, PROTOCOLS.values())

    assert list(together) == list(PROTOCOLS)
    for name, protocol in PROTOCOLS.items():
        alone = score(*clips, protocol)
        np.testing.assert_array_equal(alone.ciou, together[name].ciou)
        np.testing.assert_array_equal(alone.pointing, together[name].pointing)
        assert alone.counts == together[name].counts


@pytest.mark.parametrize("single", [False, True])
def test_a_map_is_enlarged_once_per_distinct_rule(clips, monkeypatch, single):
    maps, ids, boxes = clips
    made = []
    original = scoring.UpsampledMap
    monkeypatch.setattr(scoring, "UpsampledMap", lambda *of: made.append(of) or original(*of))

    monkeypatch.setattr(scoring, "CHUNK", 5)

    score_all(maps[0] if single else maps, ids, boxes, PROTOCOLS.values())

    assert len(made) == 6 * (1 if single else len(ids))


def test_chunks_do_not_show(clips, monkeypatch):
    whole = score_all(*clips, PROTOCOLS.values())
    monkeypatch.setattr(scoring, "CHUNK", 5)

    for name, scores in score_all(*clips, PROTOCOLS.values()).items():
        np.testing.assert_array_equal(scores.ciou, whole[name].ciou)
        assert scores.clip_ids == whole[name].clip_ids


def test_order_of_clips_and_boxes_does_not_matter(clips):
    maps, ids, boxes = clips
    order = np.random.default_rng(2).permutation(len(ids))

    there = score(maps, ids, boxes, PAPER)
    back = score(maps[order], [ids[k] for k in order], boxes[::-1], PAPER)

    assert back.clip_ids == tuple(ids[k] for k in order if ids[k] in there.clip_ids)
    lookup = dict(zip(there.clip_ids, there.ciou, strict=True))
    np.testing.assert_array_equal(back.ciou, [lookup[i] for i in back.clip_ids])


def test_one_map_stands_for_every_clip(clips):
    maps, ids, boxes = clips

    single = score(maps[3], ids, boxes, PAPER)
    repeated = score(np.repeat(maps[3:4], len(ids), axis=0), ids, boxes, PAPER)

    np.testing.assert_array_equal(single.ciou, repeated.ciou)


def test_degenerate_clips_are_counted_and_left_out():
    ids = ["scored", "flat", "silent_object", "no_row", "outside", "partly"]
    maps = np.random.default_rng(0).random((6, 8, 8))
    maps[1] = 0.3
    boxes = [
        box("scored"),
        box("flat"),
        box("silent_object", sounding=False),
        box("outside", 1.2, 0, 1.5, 1),
        box("partly"),
        box("partly", 0.5, 0.5, 0.5, 0.5),
        box("without_map"),
        box("without_map_and_silent", sounding=False),
    ]

    scores = score(maps, ids, boxes, PAPER)

    assert scores.clip_ids == ("scored", "flat", "partly")
    assert scores.counts == {
        "n_clips": 3,
        "n_skipped": 3,
        "n_skipped_silent": 2,
        "n_skipped_empty": 1,
        "n_missing_maps": 1,
        "n_flat_maps": 1,
        "n_boxes_outside": 2,
    }
    assert set(scores.counts) == set(COUNTS)
    assert scores.ciou[1] == 0
    # A flat map points at random: at the quarter of the frame that the box covers.
    assert scores.pointing[1] == 0.25


def test_silent_clips_enter_the_detection_metrics_only():
    slavc = get_protocol("slavc224")
    ids = ["a", "b", "silent_1", "silent_2"]
    levels = np.array([0.8, 0.6, -0.5, -0.7])
    bump = np.zeros((7, 7))
    bump[2:5, 2:5] = 0.1
    maps = levels[:, None, None] + bump

    scores = score(maps, ids, [box("a", 0.15, 0.15, 0.85, 0.85), box("b", 0.15, 0.15, 0.85, 0.85)], slavc)
    summary = summarize(scores)

    assert scores.counts["n_skipped_silent"] == 2
    assert scores.extra["confidence"].min() > scores.extra["silent_confidence"].max()
    np.testing.assert_allclose(
        np.diff([*scores.extra["confidence"], *scores.extra["silent_confidence"]]), np.diff(levels) / 2, atol=1e-6
    )
    assert (summary["localization_accuracy"], summary["max_f1"]) == (1.0, 1.0)
    # Swapping the levels makes the silent clips the confident ones.
    worse = score(maps[::-1], ids, [box("a", 0.15, 0.15, 0.85, 0.85), box("b", 0.15, 0.15, 0.85, 0.85)], slavc)
    assert summarize(worse)["max_f1"] == pytest.approx(2 / 3)
    assert summarize(worse)["localization_accuracy"] == 1.0


def test_reading_a_averages_over_instruments_and_b_unites_them():
    quadrant = np.zeros((16, 16))
    quadrant[:8, :8] = 1.0
    boxes = [box("a", 0, 0, 0.5, 0.5, source="cello"), box("a", 0.5, 0.5, 1, 1, source="flute")]

    per_class = score(quadrant[None], ["a"], boxes, get_protocol("music-synthetic-a"))
    united = score(quadrant[None], ["a"], boxes, get_protocol("music-synthetic-b"))

    assert per_class.ciou[0] == pytest.approx(0.5, abs=0.01)
    assert united.ciou[0] == pytest.approx(0.5, abs=0.01)
    both = quadrant + quadrant[::-1, ::-1]
    assert score(both[None], ["a"], boxes, get_protocol("music-synthetic-a")).ciou[0] == pytest.approx(0.5, abs=0.01)
    assert score(both[None], ["a"], boxes, get_protocol("music-synthetic-b")).ciou[0] == pytest.approx(1, abs=0.01)
    assert per_class.threshold == 0.3
    # The map is silent outside its quadrant, so where no instrument sounds it is quiet, but for the soft edge.
    assert 0.95 < per_class.extra["nsa_agnostic"][0] <= 1


def test_over_seeds_the_interval_is_that_of_the_means_of_clips_and_of_frames():
    """For every metric that is a mean, those that only some protocols have included; by a bootstrap written here."""
    ids, generator = [f"frame_{k // 2}_{k % 2}" for k in range(60)], np.random.default_rng(5)
    seeds = []
    for _ in range(3):
        ciou, nsa = generator.random(60), generator.random(60)
        nsa[:10] = np.nan  # where nothing is silent, whatever the seed
        seeds.append(
            Scores(
                get_protocol("iiou224"),
                0.5,
                False,
                tuple(ids),
                ciou,
                ciou,
                ciou,
                dict.fromkeys(COUNTS, 0),
                {"nsa": nsa},
            )
        )
    metrics = flat_metrics([{"": each} for each in seeds])
    units = {
        "mean_ciou": [each.ciou for each in seeds],
        "iiou": [each.ciou.reshape(30, 2).min(axis=1) >= 0.5 for each in seeds],
        "nsa": [each.extra["nsa"][10:] for each in seeds],
    }
    for name, values in units.items():
        means = np.mean(values, axis=0)
        drawn = np.random.default_rng(9).integers(0, len(means), (20_000, len(means)))
        low, high = np.quantile(means[drawn].mean(axis=1), [0.025, 0.975])
        assert metrics[name] == pytest.approx(np.mean([np.mean(each) for each in values])), name
        assert metrics[f"{name}_seeds"] == pytest.approx([np.mean(each) for each in values]), name
        width = high - low
        assert metrics[f"{name}_low"] == pytest.approx(low, abs=0.1 * width), name
        assert metrics[f"{name}_high"] == pytest.approx(high, abs=0.1 * width), name
    assert metrics["n_frames"] == 30


def test_whole_frame_sounding_leaves_nothing_to_be_quiet():
    scores = score(np.eye(4)[None], ["a"], [box("a", 0, 0, 1, 1)], get_protocol("music-synthetic-b"))

    assert np.isnan(scores.extra["nsa_agnostic"]).all()
    assert "nsa_agnostic" not in summarize(scores)


def test_threshold_and_float_quirk_reach_the_scores():
    # 3 of 10 columns: every rule gives a cIoU of exactly 0.3 for the whole frame.
    protocol = replace(PAPER, size=10)
    whole = np.ones((1, 1), bool)
    boxes = [box("a", 0, 0, 0.3, 1)]

    assert score(whole, ["a"], boxes, protocol).success.tolist() == [False]
    assert score(whole, ["a"], boxes, protocol, threshold=0.3).success.tolist() == [True]
    legacy = score(whole, ["a"], boxes, protocol, threshold=0.3, legacy_float=True)
    assert legacy.success.tolist() == [False]
    assert legacy.curve.tolist() == [1.0] * 6 + [0.0] * 15
    assert summarize(legacy)["auc"] == pytest.approx(5.5 / 20)
    assert summarize(score(whole, ["a"], boxes, protocol))["auc"] == pytest.approx(6.5 / 20)


@pytest.mark.parametrize(
    ("protocol", "more"),
    [
        ("paper256", set()),
        ("iiou224", {"iiou", "iiou_low", "iiou_high", "iauc", "iauc_low", "iauc_high", "n_frames"}),
        ("slavc224", {"average_precision", "max_f1", "localization_accuracy"}),
        ("music-synthetic-a", {"nsa_agnostic", "nsa_agnostic_low", "nsa_agnostic_high"}),
    ],
)
def test_summary_has_the_documented_keys(clips, protocol, more):
    scores = score(*clips, get_protocol(protocol))

    summary = summarize(scores, resamples=200)

    named = ("success_rate", "auc", "mean_ciou", "mean_iou", "pointing_accuracy")
    expected = {f"{name}{end}" for name in named for end in ("", "_low", "_high")}
    assert set(summary) == expected | more | set(COUNTS) | {"protocol", "threshold"}
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert summary["auc"] == pytest.approx(metrics.auc(scores.curve), abs=1e-12)
    assert summary["success_rate"] == metrics.succeeds(scores.ciou, scores.threshold).mean()
    assert summary["mean_ciou"] == pytest.approx(scores.ciou.mean())
    for name in named:
        assert summary[f"{name}_low"] <= summary[name] <= summary[f"{name}_high"]
    assert summarize(scores, resamples=200) == summary


def test_detection_is_scored_at_the_published_threshold_whatever_success_is():
    ciou, confidence, silent = np.array([0.4, 0.6, 0.9, 0.45]), np.array([0.9, 0.8, 0.7, 0.4]), np.array([0.5])
    extra = {"confidence": confidence, "silent_confidence": silent}
    made = Scores(get_protocol("slavc224"), 0.5, False, tuple("abcd"), ciou, ciou, ciou, {}, extra)
    published, lenient = summarize(made), summarize(replace(made, threshold=0.3))

    assert (published["success_rate"], lenient["success_rate"]) == (0.5, 1.0)
    # From 0.8, 0.7, 0.5, 0.4 on: precision 1/2, 2/3, 1/2, 2/5 (from there on at best 2/3, 2/3, 1/2), recall 1/3, 2/3, 2/3, 1.
    for summary in (published, lenient):
        assert summary["localization_accuracy"] == 0.5
        assert summary["max_f1"] == pytest.approx(2 / 3)
        assert summary["average_precision"] == pytest.approx(2 / 3 * 1 / 3 + 1 / 2 * 1 / 3)
    assert average_precision(ciou, confidence, silent, threshold=0.3) > 0.4


def test_interactive_iou_needs_both_clips_of_a_frame():
    left, right = np.zeros((8, 8)), np.zeros((8, 8))
    left[:, :4], right[:, 4:] = 1, 1
    ids = ["scene_1_dog", "scene_1_bell", "scene_2_dog", "scene_2_bell"]
    boxes = [box(i, 0, 0, 0.5, 1) if i.endswith("dog") else box(i, 0.5, 0, 1, 1) for i in ids]

    # The second scene's map does not follow the sound.
    summary = summarize(score(np.stack([left, right, left, left]), ids, boxes, get_protocol("iiou224-adaptive")))

    assert (summary["success_rate"], summary["iiou"], summary["n_frames"]) == (0.75, 0.5, 2)


@pytest.mark.parametrize(
    ("maps", "ids", "message"),
    [
        (np.zeros((2, 4, 4)), ["a"], "2 response maps .* 1 clip"),
        (np.zeros((2, 4, 4)), ["a", "a"], "'a'.* twice"),
        (np.zeros(4), ["a"], r"3 axes .*\(4,\)"),
        (np.zeros((1, 0, 4)), ["a"], r"shape \(1, 0, 4\)"),
        (np.stack([np.eye(3), np.full((3, 3), np.nan)]), ["a", "b"], "'b'.* not finite"),
        (np.full((3, 3), np.inf), ["a", "b"], "^the response map has .* not finite"),
        (np.zeros((0, 4, 4)), [], "no clip"),
        (
            np.zeros((1, 4, 4)),
            ["other"],
            "paper256.*1 clips have no sounding box.* 1 clips with sounding boxes are not among",
        ),
    ],
)
def test_maps_that_cannot_be_scored(maps, ids, message):
    with pytest.raises(EvaluationError, match=message):
        score(maps, ids, [box("a")], PAPER)
