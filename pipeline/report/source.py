"""What a report is made from, and the readers that several sections share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.common.config import Card
from pipeline.common.errors import EvaluationError
from pipeline.common.files import replacing
from pipeline.common.project import BASELINES_FILE, CLIP_SCORES_FILE, MAPS_FILE, MAPS_FOLDER, SCORES_FILE, stage_name
from pipeline.report.examples import Scored, read_ciou
from pipeline.scoring.map_file import read_maps
from pipeline.scoring.summary import read_baselines, read_scores
from pipeline.shards.reader import ShardSet

OURS, INITIAL = "iterative", "initial"
COMPARED = (OURS, "attention", "dmc", "mssl", "dsol")  # columns of the paper's Figure 4
ABLATION = (OURS, INITIAL, "itr", "itr_intra", "itr_inter")  # columns of its Figure 5


@dataclass(frozen=True)
class Source:
    """The inputs of a report, and the folder that it is written to.

    Attributes
    ----------
    results : Path
        ``results/NAME``, with ``baselines.json``, ``VARIANT/`` and ``maps/VARIANT/``.
    runs : Path
        ``runs/NAME``, with the pseudo-labels of each variant.
    folder : Path
        Output folder of the report.
    train_shards, scored_shards : ShardSet
    scored_input : ShardSet
        The scored clips as models read them: with stored features if there are any.
    manifest : Path
        Folder with the dataset card and the boxes.
    clips : Path
        ``clips.csv``. Some sections read its class labels, and report that there are none if it has none.
    split : str
        The scored split.
    variants : sequence of str
        Rows of CSV files, in this order; `ordered` is that of everything that is shown.
    seeds : sequence of int
    card : Card
    media_root : Path
        Folder of the clips' media files, for their audio; the files may be missing.
    device : str
        Device that runs intermediate checkpoints.
    """

    results: Path
    runs: Path
    folder: Path
    train_shards: ShardSet
    scored_shards: ShardSet
    scored_input: ShardSet
    manifest: Path
    clips: Path
    split: str
    variants: Sequence[str]
    seeds: Sequence[int]
    card: Card
    media_root: Path
    device: str = "auto"

    @property
    def seed(self) -> int:
        """The first seed, whose maps are shown."""
        return self.seeds[0]

    @property
    def shown(self) -> str:
        """The variant to show where there is room for one: `iterative`, or the last one if it was not trained."""
        return OURS if OURS in self.variants else self.variants[-1]

    @property
    def ordered(self) -> list[str]:
        """The variants in the order in which everything but the paper's tables shows them: `shown` first."""
        return sorted(self.variants, key=lambda name: name != self.shown)

    @property
    def shown_over_epochs(self) -> list[str]:
        """The shown variant and, for comparison, `initial`, which learns nothing from the previous epoch."""
        return list(dict.fromkeys([self.shown, *(name for name in self.variants if name == INITIAL)]))

    # Cached: several sections and the page read the scores.
    @cached_property
    def metrics(self) -> dict[str, dict[str, Any]]:
        """Variant → its flat scores. Raises EvaluationError if some are missing."""
        return {name: read_scores(self.results / name / SCORES_FILE) for name in self.variants}

    @cached_property
    def content_free(self) -> dict[str, dict[str, Any]]:
        """Content-free baseline → its flat scores. Raises EvaluationError if they are missing."""
        return read_baselines(self.results / BASELINES_FILE)


def read_scored(source: Source, name: str) -> Scored:
    """Read the maps and scores of one variant. Raises EvaluationError if they are missing or belong to other shards."""
    path = source.results / MAPS_FOLDER / name / MAPS_FILE
    maps, shards = read_maps(path), source.scored_shards
    again = f"run `dvc repro {stage_name('evaluate', path.parent)}`"
    # Maps of other clips would be drawn over the wrong frames without any error.
    if maps.shards != shards.fingerprint or maps.clip_ids != shards.clip_ids or maps.seed != source.seed:
        raise EvaluationError(f"{path}: made from other shards or another seed; {again}")
    return Scored(name, maps, read_ciou(source.results / name / CLIP_SCORES_FILE, seed=source.seed))


def write_npz(path: Path, **arrays: np.ndarray) -> None:
    """Write named arrays atomically; the same arrays give the same bytes."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
