"""Scores of a trained method, of the same method with shuffled audio, and of the content-free rows.

What a key of the scores means stands in `pipeline.scoring.summary`. Response maps are stored raw, so that any other rule can
score them later without the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.common.config import EvaluationSettings
from pipeline.common.errors import EvaluationError
from pipeline.common.files import write_csv, write_json
from pipeline.common.project import (
    CALIBRATION_FILE,
    MAPS_FILE,
    METRICS_FILE,
    MODEL_FILE,
    SCORES_FILE,
    SUCCESS_CURVE_FILE,
    seed_folder,
)
from pipeline.evaluation.calibrating import calibrate_on
from pipeline.evaluation.calibration import write_calibration
from pipeline.evaluation.class_evaluation import class_metrics
from pipeline.evaluation.response_maps import compute_maps
from pipeline.figures.curves import Curve, success_curves
from pipeline.figures.style import save
from pipeline.manifests.boxes import Box, read_split_boxes
from pipeline.manifests.clips import TRAIN_SPLIT, check_held_out
from pipeline.manifests.prepared import read_prepared_clips
from pipeline.scoring.map_file import ResponseMaps, write_maps
from pipeline.scoring.metrics import THRESHOLDS
from pipeline.scoring.protocols import ScoringProtocol, get_protocol
from pipeline.scoring.results import Scores
from pipeline.scoring.score import score_rules
from pipeline.scoring.summary import SHUFFLED, flat_metrics, mean_curves, read_baselines, scoring_rules
from pipeline.scoring.tables import Row, normalization_note, summary, with_shuffled
from pipeline.shards.reader import ShardSet


def evaluate(
    run_folder: Path,
    shards: ShardSet,
    manifest: Path,
    folder: Path,
    *,
    maps_folder: Path,
    baselines: Path,
    split: str,
    evaluation: EvaluationSettings,
    seeds: Sequence[int],
    clips: Path | None = None,
    leaks_allowed: bool = False,
    device: str = "auto",
) -> None:
    """Score a trained method on one split, write what came out, and print it beside the content-free rows.

    Parameters
    ----------
    run_folder : Path
        ``runs/NAME/VARIANT``; the last part is the row's name.
    shards : ShardSet
        The scored split.
    manifest : Path
        Folder with ``<split>_boxes.csv``.
    folder : Path
        Gets ``metrics.json``; ``scores.csv``, one line per clip and seed; ``success_curve.csv`` and ``.png``.
    maps_folder : Path
        Gets ``maps.h5`` and ``calibration.json`` of the first seed, and ``seed_<seed>/…`` of each further one.
    baselines : Path
        ``baselines.json``, written by `pipeline.scoring.baselines.evaluate_content_free`.
    split : str
    evaluation : EvaluationSettings
        Protocol, and the cIoU threshold of a success.
    seeds : sequence of int
    clips : Path, optional
        ``clips.csv`` of the data that the method learned from, none of which may be scored. Under a protocol with the
        consensus "per-source", its labels name the clusters of a method that has a map for each, and ``metrics.json`` gets the
        keys ``class_…``.
    leaks_allowed : bool
        Score them all the same: what the card says.
    device : str

    Raises
    ------
    EvaluationError
        There are no boxes for the split, a model has not been trained, maps and boxes share no clip, or clips of the split were
        learned from.
    """
    if clips is not None and not leaks_allowed:
        check_held_out(shards.clip_ids, read_prepared_clips(clips, TRAIN_SPLIT), where=f"{manifest / split}.csv")
    boxes = read_split_boxes(manifest, split)
    rules = scoring_rules(get_protocol(evaluation.protocol))
    content_free = read_baselines(baselines)
    models = {seed: seed_folder(run_folder, seeds, seed) / MODEL_FILE for seed in seeds}
    for path in models.values():
        if not path.is_file():
            raise EvaluationError(f"{path}: no trained model; run `dvc repro train@{run_folder.name}`")
    runs = []
    for seed, path in models.items():
        maps = compute_maps(path, shards, split=split, seed=seed, device=device)
        folder_of_seed = seed_folder(maps_folder, seeds, seed)
        write_maps(folder_of_seed / MAPS_FILE, maps)
        write_calibration(folder_of_seed / CALIBRATION_FILE, calibrate_on(maps, path, shards, device=device))
        runs.append(score_maps(maps, boxes, rules, threshold=evaluation.threshold))
    metrics = {"split": split, "seeds": list(seeds), **flat_metrics(runs)}
    if maps.normalization:
        metrics["normalization"] = maps.normalization
    by_class = ""
    if clips is not None and rules[""].consensus == "per-source":
        further, by_class = class_metrics(
            [path.parent for path in models.values()],
            shards,
            boxes,
            rules[""],
            variant=run_folder.name,
            clips=clips,
            threshold=evaluation.threshold,
            device=device,
        )
        metrics |= further
    write_json(folder / METRICS_FILE, metrics)
    _write_scores(folder / SCORES_FILE, runs, seeds)
    _write_curves(folder, mean_curves(runs), run_folder.name, threshold=evaluation.threshold)
    rows = [*(Row(name, values) for name, values in content_free.items()), *with_shuffled(run_folder.name, metrics)]
    print(describe(metrics, shards))
    if own := normalization_note({run_folder.name: metrics}, rules[""].normalization):
        print(own)
    print(summary(rows).text())
    if by_class:
        print(by_class)


def score_maps(
    maps: ResponseMaps, boxes: Sequence[Box], rules: Mapping[str, ScoringProtocol], *, threshold: float
) -> dict[str, Scores]:
    """Return the scores of one model by prefix ``<audio><rule>``."""
    rules = {prefix: maps.rule(protocol) for prefix, protocol in rules.items()}
    own, shuffled = (
        score_rules(response, maps.clip_ids, boxes, rules, threshold=threshold)
        for response in (maps.response, maps.shuffled_response)
    )
    return own | {SHUFFLED + prefix: scores for prefix, scores in shuffled.items()}


def describe(metrics: Mapping[str, Any], shards: ShardSet) -> str:
    """Return one line: what was scored, under which rule, what was left out, and what ± means below it."""
    left_out = {
        "n_skipped": "without a sounding box",
        "n_missing_maps": "with boxes but not in the shards",
        "n_flat_maps": "with a flat map",
    }
    notes = [f"{metrics[key]} {reason}" for key, reason in left_out.items() if metrics.get(key)]
    return (
        f"{metrics['split']}: {metrics['n_clips']} of {len(shards)} clips, protocol {metrics['protocol']}, success from cIoU "
        f"{metrics['threshold']:g}"
        + (f" ({'; '.join(notes)})" if notes else "")
        # The paper's tables have ± for the deviation over seeds.
        + "; ±: half the bootstrap 95 % interval over clips"
    )


def _write_scores(path: Path, runs: Sequence[Mapping[str, Scores]], seeds: Sequence[int]) -> None:
    rows = []
    for seed, run in zip(seeds, runs, strict=True):
        own, shuffled = run[""], run[SHUFFLED]
        columns = (own.clip_ids, own.ciou, own.iou, own.pointing, shuffled.ciou)
        rows += [[clip_id, seed, *map(float, values)] for clip_id, *values in zip(*columns, strict=True)]
    write_csv(path, ["clip_id", "seed", "ciou", "iou", "pointing", "shuffled_ciou"], rows)


def _write_curves(folder: Path, curves: Mapping[str, np.ndarray], name: str, *, threshold: float) -> None:
    header = ["threshold", *(f"{prefix}success_rate" for prefix in curves)]
    columns = [THRESHOLDS, *curves.values()]
    write_csv(folder / SUCCESS_CURVE_FILE, header, [[float(v) for v in row] for row in zip(*columns, strict=True)])
    drawn = [Curve(name, curves[""]), Curve(name, curves[SHUFFLED], "shuffled")]
    save(success_curves(THRESHOLDS, drawn, threshold=threshold), (folder / SUCCESS_CURVE_FILE).with_suffix(".png"))
