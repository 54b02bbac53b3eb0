"""Pseudo-labels over the epochs: precision and recall of y (Eq. 6) against class labels, and how far sounding masks move."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from pipeline.common.files import write_csv
from pipeline.common.project import seed_folder
from pipeline.common.text_table import MISSING, Table
from pipeline.evaluation.audio_similarity import LEVELS, percentiles, recommended_delta_a, sampled_cosines
from pipeline.evaluation.labels import label_of
from pipeline.evaluation.relation_quality import measured_clips, share_a_label
from pipeline.figures.lines import Line, LinePanel, line_panels
from pipeline.figures.style import COLORS, save
from pipeline.manifests.clips import TRAIN_SPLIT
from pipeline.pseudo_labels.artifact import PseudoLabels
from pipeline.report.epoch_quality import (
    COLUMNS,
    LOSS,
    RELATION,
    Means,
    after_last_epoch,
    mean_over_seeds,
    measure_run,
)
from pipeline.report.section import Chart, ChartCurve, ChartPanel, Section, chart_values
from pipeline.report.source import ABLATION, Source
from pipeline.training.artifacts import artifact_paths, centers_audio
from pipeline.training.class_labels import read_label_sets

STEM = "relation_quality"
TITLES = {
    "precision": "precision of y",
    "recall": "recall of y",
    "alike": "precision at chance",
    "related": "recall at chance",
    "positives_per_clip": "positives per clip",
    "mask_iou_previous": "IoU of masks",
}
CHANCE = {"precision": "alike", "recall": "related"}  # value → its chance level


def relation_section(source: Source) -> Section:
    """Measure the pseudo-labels of every variant, seed and epoch, and write and draw the values."""
    label_sets = read_label_sets(source.clips, TRAIN_SPLIT, source.train_shards.clip_ids)
    positions = measured_clips(label_sets)
    alike = share_a_label([label_sets[position] for position in positions])
    rows = []
    for name in source.variants:
        for seed in source.seeds:
            folder = seed_folder(source.runs / name, source.seeds, seed)
            rows += measure_run(folder, name, seed, source.train_shards.clip_ids, positions, alike)
    # Losses of different methods cannot be compared, so the loss is in the CSV file alone.
    keys = [*COLUMNS, LOSS]
    lines = [[row.variant, row.seed, row.epoch, *(_csv_cell(row.values[key]) for key in keys)] for row in rows]
    write_csv(source.folder / f"{STEM}.csv", ["variant", "seed", "epoch", *keys], lines)
    means = mean_over_seeds(rows)
    save(line_panels(figure_panels(means, measured=len(positions) > 1)), source.folder / f"{STEM}.png")
    return Section(
        "Pseudo-labels by epoch",
        f"{relation_text(source, means, n_labeled=sum(map(bool, label_sets)), n_measured=len(positions))}\n\n{similarity_text(source)}",
        f"{STEM}.png",
        (f"{STEM}.csv",),
        kind="relation",
        chart=relation_chart({name: means[name] for name in source.ordered}),
    )


def relation_chart(means: Mapping[str, Means]) -> Chart:
    """Return precision and recall of y and the IoU of sounding masks of every variant, for the page."""
    epochs = sorted({epoch for each in means.values() for epoch in each})
    names = list(means)

    def values(name: str, key: str) -> tuple[float | None, ...]:
        return chart_values(means[name].get(epoch, {}).get(key, math.nan) for epoch in epochs)

    panels = []
    for key in ("precision", "recall", "mask_iou_previous"):
        curves = [ChartCurve(label_of(name), "model", values(name, key)) for name in names]
        if key in CHANCE:
            label = f"chance, for {label_of(names[0])}"
            curves.append(ChartCurve(label, "content_free", values(names[0], CHANCE[key])))
        if any(value is not None for curve in curves for value in curve.values):
            panels.append(ChartPanel(TITLES[key], "fraction", curves))
    return Chart(
        title="Pseudo-labels by epoch",
        x="epoch",
        x_values=epochs,
        mark=None,
        panels=panels,
    )


def figure_panels(means: Mapping[str, Means], *, measured: bool) -> list[LinePanel]:
    """Return a panel each for precision, recall and IoU; without class labels (`measured` false) only the last."""
    # The ablation if it was trained; otherwise as many variants as there are colors.
    shown = [name for name in ABLATION if name in means] or list(means)[: len(COLORS)]

    def line(label: str, name: str, key: str, *, reference: bool = False) -> Line:
        epochs = means[name]
        return Line(label, list(epochs), [values[key] for values in epochs.values()], reference=reference)

    def lines(key: str) -> list[Line]:
        return [line(label_of(name), name, key) for name in shown]

    panels = []
    if measured:
        chance = line("chance", shown[-1], CHANCE["precision"], reference=True)
        panels = [
            LinePanel("precision of y", "epoch", [*lines("precision"), chance]),
            LinePanel("recall of y", "epoch", lines("recall")),
        ]
    return [*panels, LinePanel("IoU of sounding masks\nwith the previous epoch", "epoch", lines("mask_iou_previous"))]


def relation_text(source: Source, means: Mapping[str, Means], *, n_labeled: int, n_measured: int) -> str:
    """Return the section's text with its tables."""
    seeds = f"means over seeds {', '.join(map(str, source.seeds))}" if len(source.seeds) > 1 else "one seed"
    parts = [
        f"The pseudo-labels of the training set after each epoch, where epoch 0 is the initialization ({seeds}). The IoU of "
        "sounding masks (Eq. 2) with those of the previous epoch shows how far they have converged. Positives per clip: the "
        "number of other clips in a batch that Eq. 6 relates to a clip during the next epoch."
    ]
    if n_measured > 1:
        parts.append(
            f"The relation y of Eq. 6 is evaluated against class labels, which it does not use, over all pairs of {n_measured} clips "
            f"({n_labeled} of {len(source.train_shards)} have labels). Precision is the fraction of related pairs that share a "
            "label; recall is the fraction of pairs sharing a label that are related. In percent; the chance level for the same "
            "number of pairs is given alongside."
        )
    else:
        parts.append("The clips have no class labels, so the relation of Eq. 6 cannot be evaluated.")
    keys = [key for key in COLUMNS if n_measured > 1 or key not in RELATION]
    by_epoch = {str(epoch): values for epoch, values in means[source.shown].items()}
    parts += [f"“{label_of(source.shown)}” by epoch:", _markdown_table("epoch", by_epoch, keys)]
    if len(source.variants) > 1:
        by_variant = {label_of(name): after_last_epoch(means[name]) for name in source.ordered}
        parts.append("All variants after their last epoch (positives per clip: during that epoch):")
        parts.append(_markdown_table("", by_variant, keys))
    return "\n\n".join(parts)


def similarity_text(source: Source) -> str:
    """Return a table of the cosines of ã by epoch, for the first seed of the variant that is shown, and the δ_a that they suggest."""
    run = seed_folder(source.runs / source.shown, source.seeds, source.seeds[0])
    center, rows = centers_audio(run), []
    for path in artifact_paths(run):
        labels = PseudoLabels.open(path)
        cosines = sampled_cosines(labels, center_audio=center)
        values = [*percentiles(cosines).values(), labels.attrs["delta_a"], recommended_delta_a(cosines)]
        rows.append((str(labels.attrs["epoch"]), *(_cell(value, "cosine") for value in values)))
    header = ("epoch", *(f"{level}%" for level in LEVELS), "δ_a", "recommended δ_a")
    title = (
        f"Percentiles of the cosines of “{label_of(source.shown)}” (seed {source.seeds[0]}) over pairs of clips, by epoch, and a recommended δ_a "
        "that is computed without class labels: above it, a pair more likely than not belongs to the group of the most similar pairs:"
    )
    return f"{title}\n\n{Table(header, tuple(rows)).markdown().strip()}"


def _markdown_table(corner: str, lines: Mapping[str, Mapping[str, float]], keys: Sequence[str]) -> str:
    cells = [(label, *(_cell(values[key], key) for key in keys)) for label, values in lines.items()]
    return Table((corner, *(TITLES[key] for key in keys)), tuple(cells)).markdown().strip()


def _cell(value: float, key: str) -> str:
    if math.isnan(value):
        return MISSING
    return f"{100 * value:.1f}" if key in RELATION else f"{value:.2f}"


def _csv_cell(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"
