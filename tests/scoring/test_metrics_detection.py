"""SLAVC's detection metrics and IIoU against plain loops."""

import numpy as np
import pytest

from pipeline.scoring import metrics


def loop_precision_recall(has_box, cious, confidences, cut):
    true_positives = false_positives = misses = 0
    for sounding, value, confidence in zip(has_box, cious, confidences, strict=True):
        if confidence >= cut:
            if sounding and value >= 0.5:
                true_positives += 1
            else:
                false_positives += 1
        elif sounding:
            misses += 1
    found, there = true_positives + false_positives, true_positives + misses
    return true_positives / found if found else 1.0, true_positives / there if there else 1.0


def loop_average_precision(has_box, cious, confidences):
    pairs = [
        loop_precision_recall(has_box, cious, confidences, cut)
        for cut in np.sort(confidences)[:-1][:: -max(1, len(confidences) // 200)]
    ]
    precision, recall = zip(*pairs, strict=True)
    return sum(max(precision[i:]) * (recall[i + 1] - recall[i]) for i in range(len(pairs) - 1))


def loop_max_f1(has_box, cious, confidences):
    pairs = [
        loop_precision_recall(has_box, cious, confidences, cut)
        for cut in sorted(confidences)[:: max(1, len(confidences) // 10)]
    ]
    return max(2 * p * r / (p + r) if p + r else 0.0 for p, r in pairs)


@pytest.mark.parametrize(("n_clips", "n_silent"), [(7, 0), (40, 15), (300, 250), (3, 30)])
@pytest.mark.parametrize("ties", [False, True])
def test_detection_metrics_equal_plain_loops(n_clips, n_silent, ties):
    generator = np.random.default_rng(n_clips)
    cious = generator.random(n_clips)
    confidences = generator.random(n_clips + n_silent)
    if ties:
        cious, confidences = np.round(cious * 4) / 4, np.round(confidences * 4) / 4
    has_box = np.arange(n_clips + n_silent) < n_clips
    padded = np.concatenate([cious, np.zeros(n_silent)])
    split = confidences[:n_clips], confidences[n_clips:]

    assert metrics.average_precision(cious, *split) == pytest.approx(
        loop_average_precision(has_box, padded, confidences), abs=1e-9
    )
    assert metrics.max_f1(cious, *split) == pytest.approx(loop_max_f1(has_box, padded, confidences), abs=1e-9)


def test_perfect_detector_with_and_without_silent_clips():
    cious, confidences = np.ones(100), np.linspace(0.6, 0.9, 100)
    silent = np.linspace(0.1, 0.4, 100)

    # All but the dropped first segment: the two most confident clips lie before the second threshold.
    assert metrics.average_precision(cious, confidences, silent) == pytest.approx(0.98)
    assert metrics.max_f1(cious, confidences, silent) == pytest.approx(1.0)
    # Confidence the wrong way round: half of what is found is silent.
    assert metrics.max_f1(cious, silent, confidences) == pytest.approx(2 / 3)


def test_localization_accuracy_is_strict():
    assert metrics.localization_accuracy([0.5, 0.51, 0.2, 0.9]) == 0.5


def test_frames_of_clips():
    assert metrics.frame_of("accordion_female_10438_accordion") == "accordion_female_10438"
    assert metrics.frame_of("10000130166") == "10000130166"
    assert metrics.frame_of("_x") == "_x"


def test_iiou_equals_plain_loop_over_pairs():
    generator = np.random.default_rng(0)
    ids = [f"frame_{k // 2}_{'ab'[k % 2]}" for k in range(60)]
    cious = np.round(generator.random(60), 2)
    order = generator.permutation(60)

    def loop(threshold):
        return np.mean([min(cious[2 * k] >= threshold, cious[2 * k + 1] >= threshold) for k in range(30)])

    worst = metrics.worst_of_each_frame(cious[order], [ids[k] for k in order])
    assert len(worst) == 30
    assert metrics.succeeds(worst, 0.5).mean() == pytest.approx(loop(0.5))
    curve = [loop(k / 20 - 1e-12) for k in range(21)]
    area = sum((curve[k] + curve[k + 1]) / 40 for k in range(20))
    assert metrics.auc(metrics.success_curve(worst)) == pytest.approx(area, abs=1e-9)
