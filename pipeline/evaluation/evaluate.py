"""The stage `evaluate`: score a trained method, with its own and with shuffled audio, next to the content-free baselines.

    model.pt ─→ response maps ─┬→ calibration
                               └→ scores per clip ─→ metrics, curves, table

Once per seed up to the scores; metrics are means over seeds. `pipeline.scoring.summary` documents the keys of
``scores.json`` and ``metrics.json``. Response maps are stored raw, so that any other protocol can score them later without the model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.common.config import EvaluationSettings
from pipeline.common.console import echo
from pipeline.common.errors import EvaluationError
from pipeline.common.files import DAY_S, remove_leftovers, write_csv, write_json
from pipeline.common.project import (
    CALIBRATION_FILE,
    CLIP_SCORES_FILE,
    MAPS_FILE,
    METRICS_FILE,
    MODEL_FILE,
    SCORES_FILE,
    SUCCESS_CURVE_FILE,
    seed_folder,
    stage_name,
)
from pipeline.evaluation.calibration import calibrate_on, write_calibration
from pipeline.evaluation.class_evaluation import class_metrics
from pipeline.evaluation.labels import LABELS
from pipeline.evaluation.response_maps import compute_maps
from pipeline.figures.curves import Curve, success_curves
from pipeline.figures.style import save
from pipeline.manifests.boxes import Box
from pipeline.manifests.clips import TRAIN_SPLIT, check_held_out, clip_list_path
from pipeline.manifests.prepared import read_prepared_clips
from pipeline.scoring.map_file import ResponseMaps, write_maps
from pipeline.scoring.metrics import THRESHOLDS
from pipeline.scoring.protocols import ScoringProtocol, get_protocol
from pipeline.scoring.results import Scores
from pipeline.scoring.scorable import validate_for_evaluation
from pipeline.scoring.score import score_rules
from pipeline.scoring.summary import SHUFFLED, flat_metrics, main_metrics, mean_curves, read_baselines, scoring_rules
from pipeline.scoring.tables import Row, normalization_note, quadrant_note, summary, with_shuffled
from pipeline.shards.reader import ShardSet
from pipeline.training.artifacts import history_by_artifact
from pipeline.training.diagnostics import COLUMNS


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
    """Score a trained method on one split, write the results, and print them next to the content-free baselines.

    Parameters
    ----------
    run_folder : Path
        ``runs/NAME/VARIANT``; the last part names the method.
    shards : ShardSet
        The scored split.
    manifest : Path
        Folder with ``<split>_boxes.csv``.
    folder : Path
        Gets ``scores.json`` with all scores; ``metrics.json`` with the few that DVC shows; ``scores.csv``, one line per clip
        and seed; ``success_curve.csv`` and ``.png``.
    maps_folder : Path
        Gets ``maps.h5`` and ``calibration.json`` of the first seed, and ``seed_<seed>/…`` of each further seed.
    baselines : Path
        ``baselines.json``, written by `pipeline.scoring.baselines.evaluate_content_free`.
    split : str
    evaluation : EvaluationSettings
        Protocol, the cIoU threshold of a success, and the grid of mosaics.
    seeds : sequence of int
    clips : Path, optional
        ``clips.csv`` of the training data, none of which may be scored. Under a protocol with the consensus "per-source",
        its labels also name the clusters of a method with class maps, and ``scores.json`` gets the keys ``class_…``.
    leaks_allowed : bool
        Setting of the dataset card: score clips that are also in the training data.
    device : str

    Raises
    ------
    EvaluationError
        The split cannot be scored (`pipeline.scoring.scorable.validate_for_evaluation`), clips of it are in the training
        data, or a model is missing.
    """
    # Check all inputs first: computing the maps can take hours.
    if clips is not None and not leaks_allowed:
        check_held_out(
            shards.clip_ids, read_prepared_clips(clips, TRAIN_SPLIT), where=str(clip_list_path(manifest, split))
        )
    boxes = validate_for_evaluation(manifest, split, shards.clip_ids, evaluation)
    rules = scoring_rules(get_protocol(evaluation.protocol))
    content_free = read_baselines(baselines)
    models = _find_models(run_folder, seeds)

    scores: dict[str, Any] = {
        "split": split,
        "seeds": list(seeds),
        **_training_diagnostics(list(models.values())),
    }
    runs, class_note = [], ""
    for seed, model in models.items():
        # Stored seed by seed, so that only one seed's maps are in memory.
        maps = _store_maps(model, shards, seed_folder(maps_folder, seeds, seed), split=split, seed=seed, device=device)
        runs.append(score_maps(maps, boxes, rules, evaluation))
        # All seeds have the same method, and so the same normalization.
        scores |= {"normalization": maps.normalization} if maps.normalization else {}
    scores |= flat_metrics(runs)
    if clips is not None and rules[""].consensus == "per-source":
        of_classes, class_note = class_metrics(
            [path.parent for path in models.values()],
            shards,
            boxes,
            rules[""],
            variant=run_folder.name,
            clips=clips,
            threshold=evaluation.threshold,
            device=device,
        )
        scores |= of_classes

    remove_leftovers(folder, min_age_s=DAY_S)
    write_json(folder / SCORES_FILE, scores)
    write_json(folder / METRICS_FILE, main_metrics(scores, content_free))
    _write_clip_scores(folder / CLIP_SCORES_FILE, runs, seeds)
    _write_curves(folder / SUCCESS_CURVE_FILE, mean_curves(runs), name=run_folder.name, threshold=evaluation.threshold)
    echo(describe(scores, shards))
    _print_table(run_folder.name, scores, content_free, usual=rules[""].normalization)
    if class_note:
        echo(class_note)


def _store_maps(model: Path, shards: ShardSet, folder: Path, *, split: str, seed: int, device: str) -> ResponseMaps:
    """Write the response maps and the calibration of one seed, and return the maps."""
    maps = compute_maps(model, shards, split=split, seed=seed, device=device)
    calibration = calibrate_on(maps, model, shards, device=device)
    write_maps(folder / MAPS_FILE, maps)
    write_calibration(folder / CALIBRATION_FILE, calibration)
    return maps


def score_maps(
    maps: ResponseMaps, boxes: Sequence[Box], rules: Mapping[str, ScoringProtocol], evaluation: EvaluationSettings
) -> dict[str, Scores]:
    """Return the scores of one model by prefix ``<audio><rule>``, see `pipeline.scoring.summary`."""
    rules = {prefix: maps.rule(protocol) for prefix, protocol in rules.items()}
    own, shuffled = (
        score_rules(response, maps.clip_ids, boxes, rules, threshold=evaluation.threshold, grid=evaluation.grid)
        for response in (maps.response, maps.shuffled_response)
    )
    return own | {SHUFFLED + prefix: scores for prefix, scores in shuffled.items()}


def describe(metrics: Mapping[str, Any], shards: ShardSet) -> str:
    """Return one line: what was scored, under which protocol, what was skipped, and what ± means in the table."""
    skipped = {
        "n_skipped": "without a sounding box",
        "n_missing_maps": "with boxes but not in the shards",
        "n_flat_maps": "with a flat map",
    }
    notes = [f"{metrics[key]} {reason}" for key, reason in skipped.items() if metrics.get(key)]
    return (
        f"{metrics['split']}: {metrics['n_clips']} of {len(shards)} clips, protocol {metrics['protocol']}, success at cIoU ≥ "
        f"{metrics['threshold']:g}"
        + (f" ({'; '.join(notes)})" if notes else "")
        # Spelled out because ± in the paper's tables is the standard deviation over seeds.
        + "; ±: half the bootstrap 95% interval over clips"
    )


def _training_diagnostics(models: Sequence[Path]) -> dict[str, float]:
    """Return the diagnostics of training after its last epoch as ``training_…``: means over the seeds that have a value."""
    histories = [list(history_by_artifact(model.parent).values()) for model in models]
    found = {
        f"training_{name}": [rows[-1][name] for rows in histories if rows and not math.isnan(rows[-1][name])]
        for name in COLUMNS
    }
    return {name: float(np.mean(values)) for name, values in found.items() if values}


def _find_models(run_folder: Path, seeds: Sequence[int]) -> dict[int, Path]:
    """Return the path of each seed's model. Raises EvaluationError if one is missing."""
    models = {seed: seed_folder(run_folder, seeds, seed) / MODEL_FILE for seed in seeds}
    for path in models.values():
        if not path.is_file():
            raise EvaluationError(f"{path}: no trained model; run `dvc repro {stage_name('train', run_folder)}`")
    return models


def _write_clip_scores(path: Path, runs: Sequence[Mapping[str, Scores]], seeds: Sequence[int]) -> None:
    """Write one line per clip and seed, under the card's protocol."""
    rows = []
    for seed, run in zip(seeds, runs, strict=True):
        own, shuffled = run[""], run[SHUFFLED]
        columns = {"ciou": own.ciou, "iou": own.iou, "pointing": own.pointing, "shuffled_ciou": shuffled.ciou}
        if "quadrant" in own.extra:
            columns |= {"quadrant": own.extra["quadrant"], "shuffled_quadrant": shuffled.extra["quadrant"]}
        of_clips = zip(own.clip_ids, *columns.values(), strict=True)
        rows += [[clip_id, seed, *map(float, values)] for clip_id, *values in of_clips]
    write_csv(path, ["clip_id", "seed", *columns], rows)


def _write_curves(path: Path, curves: Mapping[str, np.ndarray], *, name: str, threshold: float) -> None:
    """Write one line per cIoU threshold, with a column for each prefix, and draw those with own and with shuffled audio as PNG."""
    header = ["threshold", *(f"{prefix}success_rate" for prefix in curves)]
    columns = [THRESHOLDS, *curves.values()]
    write_csv(path, header, [[float(v) for v in row] for row in zip(*columns, strict=True)])
    drawn = [Curve(name, curves[""]), Curve(name, curves[SHUFFLED], "shuffled")]
    save(success_curves(THRESHOLDS, drawn, threshold=threshold), path.with_suffix(".png"))


def _print_table(
    name: str, metrics: Mapping[str, Any], content_free: Mapping[str, Mapping[str, Any]], *, usual: str
) -> None:
    """Print the method below the content-free baselines; `usual` is the normalization of the protocol."""
    for note in (quadrant_note(metrics), normalization_note({name: metrics}, usual, labels=LABELS)):
        if note:
            echo(note)
    rows = [*(Row(baseline, values) for baseline, values in content_free.items()), *with_shuffled(name, metrics)]
    echo(summary(rows, labels=LABELS).text())
