"""The animation of the README: which clips, which maps, and how long each picture is shown."""

from __future__ import annotations

import numpy as np

from benchmarks.demo_animation import GAP, HOLD_MS, LINE, SIDE, STEPS, animate, one_per_label

LABEL_OF = {"a0": "drum", "a1": "drum", "b0": "bell", "c0": "bird"}


def test_no_two_clips_have_the_same_label():
    for seed in range(20):
        drawn = one_per_label(list(LABEL_OF), LABEL_OF, n=3, seed=seed)
        assert sorted(LABEL_OF[clip] for clip in drawn) == ["bell", "bird", "drum"]
    assert {tuple(one_per_label(list(LABEL_OF), LABEL_OF, n=1, seed=seed)) for seed in range(40)} == {
        (clip,) for clip in LABEL_OF
    }


def test_each_epoch_is_held_and_blended_into_the_next():
    frames = np.full((2, 8, 8, 3), 128, dtype=np.uint8)
    maps = np.zeros((3, 2, 4, 4), dtype=np.float32)
    maps[2] = 1  # only in the last epoch
    pictures, milliseconds = animate(frames, ["drum", "bell"], maps, [0, 2, 4])
    assert len(pictures) == len(milliseconds) == 2 * STEPS + 1
    assert [i for i, each in enumerate(milliseconds) if each >= HOLD_MS] == [0, STEPS, 2 * STEPS]
    x, y = SIDE // 2, LINE + SIDE + GAP + SIDE // 2  # middle of the first map
    shown = [np.asarray(each.convert("RGB")).astype(int)[y, x] for each in pictures]
    assert np.ptp(shown[: STEPS + 1], axis=0).max() == 0  # the first two epochs have the same map
    assert np.abs(shown[-1] - shown[0]).max() > 40
    above = [np.asarray(each.convert("RGB")).astype(int)[LINE + SIDE // 2, x] for each in pictures]
    assert np.ptp(above, axis=0).max() == 0  # the frame itself never changes
