"""Score stored response maps under any evaluation protocols, without the model.

Conventions
-----------
Maps are those of ``results/NAME/maps/VARIANT/`` (`pipeline.scoring.map_file`): raw, so that each protocol normalizes and upsamples
them in its own way; a method that defines the normalization of its maps keeps it under every protocol. All protocols
score the same clips and the same content-free baselines, so two numbers in one row differ by the protocol alone. Scores are flat mappings of fractions (`pipeline.scoring.summary`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from tqdm import tqdm

from pipeline.common.console import progress_disabled
from pipeline.common.errors import EvaluationError
from pipeline.common.project import MAPS_FILE, SEED_PATTERN
from pipeline.evaluation.labels import label_of
from pipeline.manifests.boxes import Box
from pipeline.scoring.baselines import content_free_maps
from pipeline.scoring.map_file import ResponseMaps, read_maps
from pipeline.scoring.protocols import ScoringProtocol
from pipeline.scoring.score import score_all
from pipeline.scoring.summary import flat_metrics


@dataclass(frozen=True)
class RescoredRow:
    """One model or baseline under several protocols.

    Attributes
    ----------
    name : str
        A variant, or a content-free baseline.
    shuffled : bool
        Whether every frame was paired with the audio of another clip.
    metrics : mapping of str to mapping
        Protocol → flat scores, averaged over the seeds.
    """

    name: str
    shuffled: bool
    metrics: Mapping[str, Mapping[str, Any]]

    @property
    def label(self) -> str:
        """Text of the first column."""
        return f"{label_of(self.name)}, shuffled audio" if self.shuffled else label_of(self.name)


def read_stored_maps(folder: Path, *, split: str) -> list[ResponseMaps]:
    """Read the response maps of all seeds of one variant.

    Parameters
    ----------
    folder : Path
        ``results/NAME/maps/VARIANT``: ``maps.h5``, and ``seed_<seed>/maps.h5`` of each further seed.
    split : str
        Split that the maps must belong to.

    Raises
    ------
    EvaluationError
        There are no maps, or a file is damaged or belongs to another split.
    """
    further = sorted(
        folder.glob(f"{SEED_PATTERN}/{MAPS_FILE}"), key=lambda path: (len(path.parent.name), path.parent.name)
    )
    stored = {path: read_maps(path) for path in (folder / MAPS_FILE, *further)}
    for path, maps in stored.items():
        if maps.split != split:
            raise EvaluationError(
                f"{path}: maps of the split {maps.split!r}, not of {split!r}; pass --split {maps.split}, or set "
                f"score_split to {split} and run `dvc repro evaluate`"
            )
    return list(stored.values())


def rescore(
    stored: Mapping[str, Sequence[ResponseMaps]],
    boxes: Sequence[Box],
    protocols: Sequence[ScoringProtocol],
    *,
    prior_boxes: Iterable[Box] = (),
    threshold: float | None = None,
    legacy_float: bool = False,
    shuffled: bool = False,
    grid: int | None = None,
) -> list[RescoredRow]:
    """Score content-free baselines and stored maps under several protocols. Maps are upsampled once per distinct upsampling.

    Parameters
    ----------
    stored : mapping of str to sequence of ResponseMaps
        Variant → maps of its seeds, all for the same clips.
    boxes : sequence of Box
        Of the scored split.
    protocols : sequence of ScoringProtocol
    prior_boxes : iterable of Box
        Of other splits, for the baseline `mean_of_boxes`; boxes of scored clips are ignored.
    threshold : float, optional
        cIoU at which a clip counts as a success; default: each protocol's own.
    legacy_float : bool
        Compare with the threshold as public code does, see `pipeline.scoring.metrics.succeeds`.
    shuffled : bool
        Also score each model with the audio of other clips.
    grid : int, optional
        Cells per side of mosaics; adds quadrant accuracy, which is the same under all protocols.

    Returns
    -------
    list of RescoredRow
        The content-free baselines, then the variants in the given order.

    Raises
    ------
    EvaluationError
        There are no maps, they belong to different clips, or none of them has a box.
    """
    clip_ids = _common_clips(stored)
    known = set(clip_ids)
    others = [box for box in prior_boxes if box.clip_id not in known]
    # Name, whether shuffled, and for each seed the maps with the protocols that score them.
    predictions: list[tuple[str, bool, list[tuple[NDArray, list[ScoringProtocol]]]]] = [
        (name, False, [(maps, list(protocols))])
        for name, maps in content_free_maps(clip_ids, prior_boxes=others).items()
    ]
    for variant, runs in stored.items():
        for is_shuffled in (False, True) if shuffled else (False,):
            of_seeds = [
                (run.shuffled_response if is_shuffled else run.response, [run.rule(protocol) for protocol in protocols])
                for run in runs
            ]
            predictions.append((variant, is_shuffled, of_seeds))
    rows = []
    for name, is_shuffled, of_seeds in tqdm(
        predictions, desc="score", unit="row", leave=False, disable=progress_disabled()
    ):
        scored = [
            score_all(maps, clip_ids, boxes, own, threshold=threshold, legacy_float=legacy_float, grid=grid)
            for maps, own in of_seeds
        ]
        metrics = {
            protocol.name: flat_metrics([{"": by_rule[protocol.name]} for by_rule in scored]) for protocol in protocols
        }
        rows.append(RescoredRow(name, is_shuffled, metrics))
    return rows


def _common_clips(stored: Mapping[str, Sequence[ResponseMaps]]) -> list[str]:
    """Return the clips of the maps, in order. Raises EvaluationError if they differ."""
    named = [(name, maps) for name, runs in stored.items() for maps in runs]
    if not named:
        raise EvaluationError("no response maps to score; run `dvc repro evaluate`, or name variants that have maps")
    first_name, first = named[0]
    for name, maps in named[1:]:
        if maps.clip_ids != first.clip_ids:
            raise EvaluationError(
                f"the maps of {name!r} (seed {maps.seed}) and {first_name!r} (seed {first.seed}) belong to different "
                "clips, so their scores cannot be compared; run `dvc repro evaluate`, or score them separately"
            )
    return first.clip_ids
