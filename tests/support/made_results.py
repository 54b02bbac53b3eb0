"""Folders of results with made scores, written as the stages write them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np

from pipeline.scoring.protocols import get_protocol
from pipeline.scoring.results import COUNTS, Scores
from pipeline.scoring.summary import SHUFFLED, flat_metrics

PROTOCOL = get_protocol("paper256")
CLIPS = 40
# Success rate under the protocol and under the median rule.
CONTENT_FREE = {"random": (0.0, 0.0), "all_ones": (0.1, 0.9), "centered_gaussian": (0.2, 0.7)}


def scores(ciou, quadrant=None) -> Scores:
    """Return the scores of one seed, given each clip's cIoU and, for mosaics, whether its strongest cell sounds."""
    ciou = np.asarray(ciou, dtype=np.float64)
    extra = (
        {}
        if quadrant is None
        else {"quadrant": np.asarray(quadrant, float), "quadrant_chance": np.full(len(ciou), 0.25)}
    )
    counts = dict.fromkeys(COUNTS, 0) | {"n_clips": len(ciou)}
    names = tuple(f"c{i:03}" for i in range(len(ciou)))
    return Scores(PROTOCOL, 0.5, False, names, ciou, ciou, (ciou > 0.4).astype(float), counts, extra)


def write_row(folder: Path, ciou, *, shuffled=None, median=None, quadrant=None, seeds=None) -> None:
    """Write ``scores.json`` and ``scores.csv`` of one variant.

    Parameters
    ----------
    folder : Path
    ciou, shuffled, median, quadrant : array_like, shape (seed, clip)
        cIoU with own audio, with that of another clip (default 0), under the median rule (default 0); for mosaics, 0 or 1.
    seeds : sequence of int
        Default: 0, 1, …
    """
    ciou = np.asarray(ciou, dtype=np.float64)
    zeros = np.zeros_like(ciou)
    shuffled, median = (zeros if each is None else np.asarray(each, float) for each in (shuffled, median))
    runs = []
    for seed in range(len(ciou)):
        hits = (None, None) if quadrant is None else (quadrant[seed], zeros[seed])
        runs.append({
            "": scores(ciou[seed], hits[0]), "median_": scores(median[seed], hits[0]),
            SHUFFLED: scores(shuffled[seed], hits[1]), f"{SHUFFLED}median_": scores(zeros[seed], hits[1]),
        })  # fmt: skip
    names = list(range(len(ciou))) if seeds is None else list(seeds)
    folder.mkdir(parents=True, exist_ok=True)
    metrics = {"split": "test", "seeds": names, **flat_metrics(runs)}
    (folder / "scores.json").write_text(json.dumps(metrics))
    with (folder / "scores.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            [
                "clip_id",
                "seed",
                "ciou",
                "shuffled_ciou",
                *([] if quadrant is None else ["quadrant", "shuffled_quadrant"]),
            ]
        )
        for seed, run in zip(names, runs, strict=True):
            for i, clip_id in enumerate(run[""].clip_ids):
                hits = [] if quadrant is None else [run[""].extra["quadrant"][i], run[SHUFFLED].extra["quadrant"][i]]
                writer.writerow([clip_id, seed, run[""].ciou[i], run[SHUFFLED].ciou[i], *hits])


def write_content_free(folder: Path, *, clips: int = CLIPS, mosaic: bool = False) -> None:
    """Write ``baselines.json``: a share of the clips succeeds, the first ones; for mosaics, a quarter of them."""
    rows = {}
    for name, (share, by_median) in CONTENT_FREE.items():
        ciou = (np.arange(clips) < share * clips).astype(float)
        quadrant = np.arange(clips) % 4 == 0 if mosaic else None
        median = np.arange(clips) < by_median * clips
        by_rule = {"": scores(ciou, quadrant), "median_": scores(median, quadrant)}
        rows[name] = {"split": "test", **flat_metrics([by_rule]), "success_curve": by_rule[""].curve.tolist()}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "baselines.json").write_text(json.dumps(rows))


def successes(*counts: int, clips: int = CLIPS) -> np.ndarray:
    """Return cIoU 1 for the first `count` clips and 0 for the others, one row per seed, shape (seed, clip)."""
    return (np.arange(clips)[None] < np.array(counts)[:, None]).astype(float)
