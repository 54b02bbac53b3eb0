"""An easy world in memory: one coloured object on a plain background, and a sound whose band follows from its colour.

Every method of the tables must localise here, far above predictors that know nothing of the clip.
"""

import numpy as np

from pipeline.content_free import all_ones, centred_gaussian
from pipeline.files import write_csv
from pipeline.manifests import CLIP_COLUMNS, Box
from pipeline.protocols import get_protocol
from pipeline.scoring import score
from tests.synthetic import COLOURS, MemoryShards

SIDE = 24  # pixels of the object
BACKGROUND = 128


def make_easy_world(n, seed, *, size=64):
    """Return shards of n clips, the box of each object (Box, fractions), and the class of each clip, int (n,)."""
    rng = np.random.default_rng(seed)
    frames = np.full((n, size, size, 3), BACKGROUND, dtype=np.uint8)
    log_mel = rng.normal(-6, 0.5, (n, 16, 32)).astype(np.float32)
    labels = rng.permutation(np.arange(n) % len(COLOURS))
    boxes = []
    for i, kind in enumerate(labels):
        row, col = rng.integers(0, size - SIDE + 1, 2)
        frames[i, row : row + SIDE, col : col + SIDE] = COLOURS[kind] + rng.integers(-10, 11, (SIDE, SIDE, 3))
        log_mel[i, 4 * kind : 4 * kind + 4] += 4
        corners = (value / size for value in (col, row, col + SIDE, row + SIDE))
        boxes.append(Box(f"clip-{i:04d}", f"kind{kind}", "test", True, *corners))
    return MemoryShards(frames, log_mel), boxes, labels


def targets_of(labels):
    """Return labels as `Batch.targets` has them, float32 (n, class)."""
    return np.eye(len(COLOURS), dtype=np.float32)[labels]


def write_easy_clips(path, labels):
    """Write the ``clips.csv`` of an easy world, for methods that learn from labels."""
    rows = [["train", f"clip-{i:04d}", "x.mp4", "", "", "", f"kind{kind}"] for i, kind in enumerate(labels)]
    write_csv(path, ["split", *CLIP_COLUMNS], rows)
    return path


def localisation_score(maps, boxes, *, protocol="paper256"):
    """Return the mean cIoU of response maps (clip, row, col), or of one map for all clips; `protocol` or its name."""
    rule = get_protocol(protocol) if isinstance(protocol, str) else protocol
    return float(score(np.asarray(maps), [box.clip_id for box in boxes], boxes, rule).ciou.mean())


def content_free_scores(boxes):
    """Return the mean cIoU of the rows that know nothing of a clip."""
    return {
        "all_ones": localisation_score(all_ones(), boxes),
        "centred_gaussian": localisation_score(centred_gaussian(), boxes),
    }
