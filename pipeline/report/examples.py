"""Example clips of a report: the choice of clips, their maps, and the figures.

The choice is deterministic, so examples cannot be cherry-picked: scored clips are evenly spaced in the ranking by one
method's cIoU, from best to worst, and training clips are evenly spaced in the clip list. Maps are upsampled as in the scoring
protocol. On scored clips the protocol's sounding region is outlined, on training clips the cells of Eq. 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.common.errors import EvaluationError
from pipeline.common.project import stage_name
from pipeline.common.seeding import evenly_spaced
from pipeline.common.tables import read_records
from pipeline.evaluation.labels import label_of
from pipeline.figures.overlays import Panel, overlay_grid
from pipeline.manifests.boxes import Box
from pipeline.pseudo_labels.artifact import PseudoLabels
from pipeline.scoring.ground_truth import ground_truth
from pipeline.scoring.map_file import ResponseMaps
from pipeline.scoring.protocols import ScoringProtocol
from pipeline.scoring.upsampling import UpsampledMap, normalize, sounding_pixels, upsample
from pipeline.shards.reader import ShardSet
from pipeline.training.artifacts import artifact_paths

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Scored:
    """One method's maps of the scored split and the cIoU of each scored clip, both for the first seed."""

    name: str
    maps: ResponseMaps
    ciou: Mapping[str, float]


def read_ciou(path: Path, *, seed: int) -> dict[str, float]:
    """Read each clip's cIoU for one seed from ``scores.csv``. Raises EvaluationError if it is missing or damaged."""
    again = f"run `dvc repro {stage_name('evaluate', path.parent)}`"
    if not path.is_file():
        raise EvaluationError(f"{path}: no such scores; {again}")
    try:
        rows = read_records(path, EvaluationError)
        return {row["clip_id"]: float(row["ciou"]) for row in rows if int(row["seed"]) == seed}
    except (KeyError, ValueError) as error:
        raise EvaluationError(f"{path}: damaged ({error}); {again}") from None


def ranked_clips(ciou: Mapping[str, float], count: int) -> list[str]:
    """Return up to `count` clips, evenly spaced in the ranking from best to worst."""
    # Clip ids break ties, so that the choice does not depend on the order of the file.
    ranking = sorted(ciou, key=lambda clip_id: (-ciou[clip_id], clip_id))
    return [ranking[i] for i in evenly_spaced(len(ranking), count)]


def overlays(
    clip_ids: Sequence[str],
    methods: Sequence[Scored],
    shards: ShardSet,
    boxes: Sequence[Box],
    protocol: ScoringProtocol,
    *,
    threshold: float,
) -> Figure:
    """Return a grid with one clip per row: the frame, then each method's map over it, with boxes and cIoU.

    `threshold` is the smallest cIoU of a success.
    """
    rows = []
    for clip_id in clip_ids:
        frame = shards.read([shards.clip_ids.index(clip_id)])[0][0]
        own = [box for box in boxes if box.clip_id == clip_id]
        panels = [Panel(frame, own, caption=clip_id)]
        for method in methods:
            raw = method.maps.response[method.maps.clip_ids.index(clip_id)]
            heat, region = drawn_map(raw, own, method.maps.rule(protocol))
            panels.append(Panel(frame, own, heat, region, caption=f"cIoU {rounded(method.ciou[clip_id], threshold)}"))
        rows.append(panels)
    return overlay_grid(rows, columns=["frame", *(label_of(method.name) for method in methods)])


def rounded(value: float, threshold: float) -> str:
    """Return a value with two decimals, or as many as it takes to be on its own side of the threshold: 0.496, not 0.50."""
    texts = [f"{value:.{digits}f}" for digits in range(2, 7)]
    return next((text for text in texts if (float(text) >= threshold) == (value >= threshold)), texts[-1])


def drawn_map(raw: np.ndarray, boxes: Sequence[Box], protocol: ScoringProtocol) -> tuple[np.ndarray, np.ndarray]:
    """Return a raw response map under the protocol: upsampled, in [0, 1], and its sounding region."""
    upsampled = UpsampledMap(normalize(raw[None], protocol.normalization), 0, protocol)
    # Some protocols choose the threshold by the area of the true region.
    truth = ground_truth(boxes, protocol.size, rounding=protocol.rounding, consensus="union")
    region = sounding_pixels(upsampled, protocol, truth[0].n_support if truth else 0)
    # Bicubic interpolation overshoots [0, 1].
    return np.clip(upsampled.values, 0, 1), region


@dataclass(frozen=True)
class EpochMaps:
    """R̃ of some training clips over the epochs, as stored in the pseudo-labels.

    Attributes
    ----------
    names : list of str
        Methods.
    clip_ids : list of str
    epochs : list of int
        0 is the initialization.
    response : np.ndarray [shape=(method, clip, epoch, row, col), dtype=float32]
    delta_v : np.ndarray [shape=(method, epoch), dtype=float64]
    """

    names: list[str]
    clip_ids: list[str]
    epochs: list[int]
    response: np.ndarray
    delta_v: np.ndarray


def read_epoch_maps(folders: Mapping[str, Path], clip_ids: Sequence[str], *, most: int = 8) -> EpochMaps:
    """Read the maps of some clips from the pseudo-labels of several runs.

    Parameters
    ----------
    folders : mapping of str to Path
        Method → folder of its run.
    clip_ids : sequence of str
    most : int
        Largest number of epochs; of more, evenly spaced ones including the first and the last.

    Raises
    ------
    EvaluationError
        A run has no pseudo-labels.
    PseudoLabelError
        A file is damaged, or has no labels for a clip.
    """
    paths = [{path.name: path for path in artifact_paths(folder)} for folder in folders.values()]
    # Runs may have trained for different numbers of epochs, or have labels of some epochs only; the common ones are shown.
    names = [name for name in paths[0] if all(name in each for each in paths)]
    shown = [names[i] for i in evenly_spaced(len(names), most)]
    labels = [[PseudoLabels.open(each[name]) for name in shown] for each in paths]
    response = np.stack([[epoch.select(clip_ids).response for epoch in each] for each in labels])
    return EpochMaps(
        names=list(folders),
        clip_ids=list(clip_ids),
        epochs=[epoch.attrs["epoch"] for epoch in labels[0]],
        response=np.moveaxis(response, 2, 1),
        delta_v=np.array([[epoch.attrs["delta_v"] for epoch in each] for each in labels]),
    )


def maps_over_epochs(maps: EpochMaps, shards: ShardSet, protocol: ScoringProtocol) -> Figure:
    """Return Figure 6: a row for each clip and method, a column for each epoch; the cells above δ_v are outlined."""
    rows, names = [], []
    for j, clip_id in enumerate(maps.clip_ids):
        frame = shards.read([shards.clip_ids.index(clip_id)])[0][0]
        for i, name in enumerate(maps.names):
            rows.append(
                [
                    Panel(frame, heatmap=upsample(response, protocol), region=cell_region(response, level, protocol))
                    for response, level in zip(maps.response[i, j], maps.delta_v[i], strict=True)
                ]
            )
            names.append(f"{clip_id}\n{label_of(name)}")
    return overlay_grid(rows, columns=[f"epoch {epoch}" for epoch in maps.epochs], names=names)


def cell_region(response: np.ndarray, delta_v: float, protocol: ScoringProtocol) -> np.ndarray:
    """Return the cells that training uses (Eq. 2) on the protocol's grid, bool (size, size).

    This differs from thresholding the upsampled map: bilinear interpolation shrinks a lone cell and merges neighboring ones.
    """
    # In float32, as training compares them.
    cells = (response > np.float32(delta_v))[None]
    return UpsampledMap(normalize(cells, protocol.normalization), 0, protocol).values > 0
