"""The report on what each epoch leaves for the next: the relation of Eq. 6 against the labels, and how sounding masks settle."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.common.errors import EvaluationError
from pipeline.common.files import write_csv
from pipeline.common.project import HISTORY_FILE, seed_folder
from pipeline.evaluation.relation_quality import measured_clips, relation_of_labels, relation_quality, share_a_label
from pipeline.figures.figures import COLORS, save
from pipeline.figures.lines import Line, LinePanel, line_panels
from pipeline.manifests.clips import TRAIN_SPLIT
from pipeline.pseudo_labels.artifact import PseudoLabels
from pipeline.report.source import ABLATION, Section, Source
from pipeline.scoring.tables import MISSING, Table, label_of
from pipeline.training.class_labels import read_label_sets
from pipeline.training.run_artifacts import artifact_paths, centers_audio

STEM = "relation_quality"
COLUMNS = {
    "precision": "precision of y",
    "recall": "recall of y",
    "alike": "precision by chance",
    "related": "recall by chance",
    "positives_per_clip": "positives per clip",
    "mask_iou_previous": "IoU of masks",
}
LOSS = "loss"  # in the CSV file alone: losses of different methods cannot be compared in a table
PERCENT = ("precision", "recall", "alike", "related")


@dataclass(frozen=True)
class EpochRow:
    """What one epoch's pseudo-labels of one run are worth.

    Attributes
    ----------
    variant : str
    seed, epoch : int
        Epoch 0 is the initialization.
    values : mapping of str to float
        `loss` and the keys of COLUMNS; NaN where there is none. `loss` is that of the epoch's own training, `positives_per_clip`
        counts, as the next epoch's training did, the other clips of a batch that are related, and `mask_iou_previous` compares
        with the epoch before.
    """

    variant: str
    seed: int
    epoch: int
    values: Mapping[str, float]


def relation_section(source: Source) -> Section:
    """Write and draw precision and recall of y, and the IoU of sounding masks, for every epoch of every variant."""
    label_sets = read_label_sets(source.clips, TRAIN_SPLIT, source.train_shards.clip_ids)
    positions = measured_clips(label_sets)
    alike = share_a_label([label_sets[position] for position in positions])
    rows = []
    for name in source.variants:
        for seed in source.seeds:
            folder = seed_folder(source.runs / name, source.seeds, seed)
            rows += _run_rows(folder, name, seed, source.train_shards.clip_ids, positions, alike)
    keys = [*COLUMNS, LOSS]
    lines = [[row.variant, row.seed, row.epoch, *(_csv_cell(row.values[key]) for key in keys)] for row in rows]
    write_csv(source.folder / f"{STEM}.csv", ["variant", "seed", "epoch", *keys], lines)
    measured = len(positions) > 1
    save(line_panels(_panels(source.variants, rows, measured=measured)), source.folder / f"{STEM}.png")
    text = _text(source, rows, n_labeled=sum(map(bool, label_sets)), n_measured=len(positions))
    return Section("What each epoch leaves for the next", text, f"{STEM}.png", (f"{STEM}.csv",), kind="relation")


def _run_rows(
    folder: Path, variant: str, seed: int, clip_ids: Sequence[str], positions: Sequence[int], alike: np.ndarray
) -> list[EpochRow]:
    paths = artifact_paths(folder, variant=variant)
    center = centers_audio(folder)
    history = _read_history(folder / HISTORY_FILE, variant)
    rows = []
    for path in paths:
        labels = PseudoLabels.open(path)
        epoch = int(labels.attrs["epoch"])
        values = dict.fromkeys(COLUMNS, math.nan)
        if len(positions) > 1:
            relation = relation_of_labels(labels, clip_ids, positions, center_audio=center)
            quality = relation_quality(relation, alike)
            values |= {key: getattr(quality, key) for key in PERCENT}
        values |= {key: history.get(epoch, {}).get(key, math.nan) for key in (LOSS, "mask_iou_previous")}
        values["positives_per_clip"] = history.get(epoch + 1, {}).get("positives_per_clip", math.nan)
        rows.append(EpochRow(variant, seed, epoch, values))
    return rows


def _read_history(path: Path, variant: str) -> dict[int, dict[str, float]]:
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return {
                int(row["epoch"]): {key: float(value) if value else math.nan for key, value in row.items()}
                for row in csv.DictReader(file)
            }
    except FileNotFoundError:
        raise EvaluationError(f"{path}: no such history; run `dvc repro train@{variant}`") from None


def _panels(variants: Sequence[str], rows: Sequence[EpochRow], *, measured: bool) -> list[LinePanel]:
    """Return a panel for each of precision, recall and IoU; only the last where there are no labels."""
    # As many lines as there are colors; the rows of the ablation, where they were trained.
    shown = [name for name in ABLATION if name in variants] or list(variants[: len(COLORS)])

    def lines(key: str) -> list[Line]:
        each = [(name, _over_epochs(rows, name)) for name in shown]
        return [
            Line(label_of(name), list(epochs), [values[key] for values in epochs.values()]) for name, epochs in each
        ]

    panels = []
    if measured:
        epochs = _over_epochs(rows, shown[-1])
        chance = Line("chance", list(epochs), [values["alike"] for values in epochs.values()], reference=True)
        panels = [
            LinePanel("precision of y", "epoch", [*lines("precision"), chance]),
            LinePanel("recall of y", "epoch", lines("recall")),
        ]
    return [*panels, LinePanel("IoU of sounding masks\nwith the epoch before", "epoch", lines("mask_iou_previous"))]


def _text(source: Source, rows: Sequence[EpochRow], *, n_labeled: int, n_measured: int) -> str:
    seeds = f"means over the seeds {', '.join(map(str, source.seeds))}" if len(source.seeds) > 1 else "one seed"
    n_clips = len(source.train_shards)
    parts = [
        f"The pseudo-labels that each epoch leaves of the training set, and epoch 0 the initialization; {seeds}. The IoU "
        "of sounding masks (Eq. 2) with those of the epoch before says how far they have settled. Positives per clip: how "
        "many other clips of a batch Eq. 6 relates to a clip while the next epoch learns."
    ]
    if n_measured > 1:
        parts.append(
            f"y of Eq. 6 is measured against the clips' labels, which it does not see, over all pairs of {n_measured} clips "
            f"({n_labeled} of {n_clips} have labels): its precision is the share of related pairs that share a label, "
            "its recall the share of the pairs with a label in common that are related. In percent; a relation of as many "
            "pairs by chance would have the values beside them."
        )
    else:
        parts.append("The clips have no labels, so the relation of Eq. 6 cannot be measured against them.")
    keys = [key for key in COLUMNS if n_measured > 1 or key not in PERCENT]
    parts.append(f"“{label_of(source.shown)}” over the epochs:")
    epochs = _over_epochs(rows, source.shown)
    parts.append(_table("epoch", {str(epoch): values for epoch, values in epochs.items()}, keys).markdown().strip())
    if len(source.variants) > 1:
        parts.append("All variants after their last epoch (positives per clip: in it):")
        parts.append(
            _table("", {label_of(each): _last(rows, each) for each in source.variants}, keys).markdown().strip()
        )
    return "\n\n".join(parts)


def _over_epochs(rows: Sequence[EpochRow], variant: str) -> dict[int, dict[str, float]]:
    """Return epoch → the means over seeds of each value of one variant."""
    own = [row for row in rows if row.variant == variant]
    return {
        epoch: {key: _mean([row.values[key] for row in own if row.epoch == epoch]) for key in COLUMNS}
        for epoch in sorted({row.epoch for row in own})
    }


def _last(rows: Sequence[EpochRow], variant: str) -> dict[str, float]:
    """Return the values of a variant's last epoch; the last count of positives is of the labels before those."""
    epochs = list(_over_epochs(rows, variant).values())
    before = epochs[-2]["positives_per_clip"] if len(epochs) > 1 else math.nan
    return epochs[-1] | {"positives_per_clip": before}


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan


def _table(corner: str, lines: Mapping[str, Mapping[str, float]], keys: Sequence[str]) -> Table:
    cells = [(label, *(_cell(values[key], key) for key in keys)) for label, values in lines.items()]
    return Table((corner, *(COLUMNS[key] for key in keys)), tuple(cells))


def _cell(value: float, key: str) -> str:
    if math.isnan(value):
        return MISSING
    return f"{100 * value:.1f}" if key in PERCENT else f"{value:.2f}"


def _csv_cell(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"
