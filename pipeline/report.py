"""The report on a dataset: comparison tables, figures with the data behind each, and one page that shows them.

The page is a list of `Section`; `markdown_page` renders it as ``index.md``, and any further form of the page takes the
same list. Beside it lie ``table.md`` and ``table.csv``, and for every picture NAME.png the numbers in it: NAME.csv or
NAME.npz.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import Card, load_card
from pipeline.errors import EvaluationError
from pipeline.evaluation import THRESHOLDS, read_split_boxes, score_content_free
from pipeline.examples import (
    Scored,
    maps_over_epochs,
    overlays,
    ranked_clips,
    read_ciou,
    read_epoch_maps,
    spread,
)
from pipeline.figures import Curve, save, success_curves
from pipeline.files import replacing, write_csv, write_text
from pipeline.map_files import MAPS_FILE, read_maps
from pipeline.protocols import get_protocol
from pipeline.shards import ShardSet
from pipeline.summaries import SHUFFLED, read_baselines, read_metrics
from pipeline.tables import Row, comparison, label_of, per_seed, rules, with_shuffled, write_comparison_csv

EXAMPLES = 8  # scored clips with their maps
EPOCH_EXAMPLES = 3  # training clips with their maps over the epochs
RULE_TITLES = {"": "the card's protocol", "median_": "the median rule", "fixed_": "a fixed threshold of 0.5"}


@dataclass(frozen=True)
class Section:
    """One part of the page.

    Attributes
    ----------
    title : str
    text : str
        Markdown: what is shown, and how it was chosen.
    picture : str
        File name of a PNG in the report's folder, or empty.
    data : tuple of str
        File names of the numbers behind it.
    """

    title: str
    text: str
    picture: str = ""
    data: tuple[str, ...] = field(default=())


def write_report(
    results: Path,
    runs: Path,
    folder: Path,
    *,
    train_shards: ShardSet,
    scored_shards: ShardSet,
    manifest: Path,
    split: str,
    variants: Sequence[str],
    seeds: Sequence[int],
) -> None:
    """Write the report on one dataset.

    Parameters
    ----------
    results : Path
        ``results/NAME``, with ``baselines.json``, ``VARIANT/`` and ``maps/VARIANT/``.
    runs : Path
        ``runs/NAME``, with the pseudo-labels of each variant.
    folder : Path
        Gets the report.
    train_shards, scored_shards : ShardSet
    manifest : Path
        Folder with the card and the boxes.
    split : str
        The scored split.
    variants : sequence of str
        Rows of the table, in this order. The first one's cIoU decides which clips are shown.
    seeds : sequence of int

    Raises
    ------
    EvaluationError
        Something that a stage before should have written is missing, or was made from other clips.
    """
    card = load_card(manifest)
    source = _Source(
        results=results,
        runs=runs,
        folder=folder,
        train_shards=train_shards,
        scored_shards=scored_shards,
        manifest=manifest,
        split=split,
        variants=variants,
        seed=seeds[0],
        card=card,
    )
    metrics = {name: read_metrics(results / name / "metrics.json") for name in variants}
    sections = [
        _comparison(folder, read_baselines(results / "baselines.json"), metrics, split=split, seeds=seeds),
        _success(source),
        _examples(source),
        _epochs(source),
    ]
    write_text(
        folder / "index.md", markdown_page(card.title, _lead(card, metrics[variants[0]], split, seeds), sections)
    )


@dataclass(frozen=True)
class _Source:
    """What the figures are made from; see `write_report`."""

    results: Path
    runs: Path
    folder: Path
    train_shards: ShardSet
    scored_shards: ShardSet
    manifest: Path
    split: str
    variants: Sequence[str]
    seed: int
    card: Card


def markdown_page(title: str, lead: str, sections: Sequence[Section]) -> str:
    """Return the page in Markdown, pictures and data linked by their file names."""
    parts = [f"# {title}", lead]
    for section in sections:
        parts += [f"## {section.title}", section.text.strip()]
        if section.picture:
            parts.append(f"![{section.title}]({section.picture})")
        if section.data:
            parts.append("Data: " + ", ".join(f"[{name}]({name})" for name in section.data))
    return "\n\n".join(parts) + "\n"


def _lead(card: Card, metrics: Mapping[str, Any], split: str, seeds: Sequence[int]) -> str:
    seed_note = f"seed {seeds[0]}" if len(seeds) == 1 else f"mean over the seeds {', '.join(map(str, seeds))}"
    return (
        f"{metrics['n_clips']} clips of the split `{split}`, protocol `{metrics['protocol']}`, success from a cIoU of "
        f"{metrics['threshold']:g}; models: {seed_note}. Source of the data: {card.source}."
    )


def _comparison(
    folder: Path,
    content_free: Mapping[str, Mapping[str, Any]],
    metrics: Mapping[str, Mapping[str, Any]],
    *,
    split: str,
    seeds: Sequence[int],
) -> Section:
    rows = [Row(name, values) for name, values in content_free.items()]
    models = [row for name, values in metrics.items() for row in with_shuffled(name, values)]
    parts = [
        f"Scores on the split `{split}`, in percent, with the bootstrap 95 % interval over clips. The first rows know "
        "nothing of the clip; *shuffled audio* is the model of the row above, given the sound of another clip."
    ]
    for rule in rules([*rows, *models]):
        parts += [f"Under {RULE_TITLES[rule]}:", comparison([*rows, *models], rule=rule).markdown().strip()]
    if len(seeds) > 1:
        parts += ["Each seed, under the card's protocol:", per_seed(models, seeds=seeds).markdown().strip()]
    text = "\n\n".join(parts)
    write_text(folder / "table.md", text + "\n")
    write_comparison_csv(folder / "table.csv", [*rows, *models])
    return Section("Comparison", text, data=("table.md", "table.csv"))


def _success(source: _Source) -> Section:
    curves = []
    for name in source.variants:
        columns = _read_curves(source.results / name / "success_curve.csv")
        curves.append(Curve(label_of(name), columns["success_rate"]))
        curves.append(Curve(label_of(name), columns[SHUFFLED + "success_rate"], "shuffled"))
    evaluation = source.card.evaluation
    scored = score_content_free(source.scored_shards, source.manifest, split=source.split, evaluation=evaluation)
    curves += [Curve(label_of(name), by_rule[""].curve, "content_free") for name, by_rule in scored.items()]
    save(success_curves(THRESHOLDS, curves, threshold=evaluation.threshold), source.folder / "success_curves.png")
    lines = [
        [curve.label, curve.kind, float(threshold), float(rate)]
        for curve in curves
        for threshold, rate in zip(THRESHOLDS, curve.success_rate, strict=True)
    ]
    write_csv(source.folder / "success_curves.csv", ["row", "kind", "threshold", "success_rate"], lines)
    text = (
        "Share of clips whose cIoU reaches each threshold (Figure 3 of the paper). The area under a curve is the "
        "table's AUC. Grey: rows that know nothing of the clip. Dotted: the model of the same colour, given the sound "
        "of another clip."
    )
    return Section("Success over thresholds", text, "success_curves.png", ("success_curves.csv",))


def _examples(source: _Source) -> Section:
    methods = [_read_scored(source, name) for name in source.variants]
    clip_ids = ranked_clips(methods[0].ciou, EXAMPLES)
    protocol = get_protocol(source.card.evaluation.protocol)
    boxes = read_split_boxes(source.manifest, source.split)
    save(overlays(clip_ids, methods, source.scored_shards, boxes, protocol), source.folder / "overlays.png")
    header = ["clip_id", *(f"ciou_{method.name}" for method in methods)]
    rows = [[clip_id, *(method.ciou[clip_id] for method in methods)] for clip_id in clip_ids]
    write_csv(source.folder / "overlays.csv", header, rows)
    places = [source.scored_shards.clip_ids.index(clip_id) for clip_id in clip_ids]
    maps = {method.name: method.maps.response[places] for method in methods}
    write_npz(source.folder / "overlays.npz", clip_id=np.array(clip_ids), **maps)
    text = (
        f"Frames and response maps (of seed {source.seed}) of {len(clip_ids)} clips at equal steps through the ranking "
        f"by the cIoU of “{label_of(methods[0].name)}”, its best clip first and its worst last. White boxes are "
        "sounding objects, dashed ones silent; the blue line surrounds what the protocol takes for the sounding region."
    )
    return Section("Example clips", text, "overlays.png", ("overlays.csv", "overlays.npz"))


def _epochs(source: _Source) -> Section:
    compared = [name for name in ("iterative", "initial") if name in source.variants] or [source.variants[-1]]
    # The ends of the list are left out: importers and generators tend to put special cases there.
    places = spread(len(source.train_shards), EPOCH_EXAMPLES + 2)[1:-1] or [0]
    clip_ids = [source.train_shards.clip_ids[place] for place in places]
    maps = read_epoch_maps({name: source.runs / name for name in compared}, clip_ids)
    protocol = get_protocol(source.card.evaluation.protocol)
    save(maps_over_epochs(maps, source.train_shards, protocol), source.folder / "epochs.png")
    write_npz(
        source.folder / "epochs.npz",
        method=np.array(maps.names),
        clip_id=np.array(maps.clip_ids),
        epoch=np.array(maps.epochs),
        delta_v=maps.delta_v,
        response=maps.response,
    )
    text = (
        f"Response maps (of seed {source.seed}) of {len(clip_ids)} training clips, at equal steps through the clip "
        "list, after each epoch (Figure 6 of the paper). Epoch 0 is the common initialisation. The maps are those of "
        "the pseudo-label artifacts; the blue line surrounds the sounding region (Eq. 2) that the next epoch learns "
        "from."
    )
    return Section("Maps over the epochs", text, "epochs.png", ("epochs.npz",))


def _read_scored(source: _Source, name: str) -> Scored:
    path = source.results / "maps" / name / MAPS_FILE
    maps, shards = read_maps(path), source.scored_shards
    if maps.shards != shards.fingerprint or maps.clip_ids != shards.clip_ids or maps.seed != source.seed:
        raise EvaluationError(f"{path}: made from other shards or another seed; run `dvc repro evaluate@{name}`")
    return Scored(name, maps, read_ciou(source.results / name / "scores.csv", seed=source.seed))


def _read_curves(path: Path) -> dict[str, np.ndarray]:
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        raise EvaluationError(f"{path}: no such curve; run `dvc repro evaluate@{path.parent.name}`") from None
    return {key: np.array([float(row[key]) for row in rows]) for key in rows[0]}


def write_npz(path: Path, **arrays: np.ndarray) -> None:
    """Write arrays by name, whole or not at all; the same arrays give the same bytes."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
