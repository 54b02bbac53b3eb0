"""Audio retrieval (Figure 7): query clips, the clips with the most similar audio, and the precision of the retrieval.

Clips are from the training set, and embeddings from the last pseudo-labels, as Eq. 6 uses them (centered if the run centers
them), so no model runs here. Precision is measured on class labels, which no unsupervised method has seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.common.files import write_csv
from pipeline.common.seeding import evenly_spaced
from pipeline.evaluation.labels import label_of
from pipeline.evaluation.retrieval import chance_precision, neighbors, precision_at_k
from pipeline.figures.overlays import Panel, overlay_grid
from pipeline.figures.style import save
from pipeline.manifests.clips import TRAIN_SPLIT
from pipeline.pseudo_labels.artifact import PseudoLabels
from pipeline.report.section import Grid, Section
from pipeline.report.source import Source
from pipeline.training.artifacts import artifact_paths, centers_audio
from pipeline.training.class_labels import read_label_sets

TITLE = "Audio retrieval (Figure 7)"
STEM = "figure7_retrieval"
PRECISION = "figure7_precision.csv"
FOUND = 3  # as in the paper's figure
QUERIES = 5
MOST_QUERIES = 10_000  # for the precision; one or two minutes on one core with 144,000 clips
CAPTION = 26  # characters


def retrieval_section(source: Source) -> Section:
    """Draw training clips with their nearest neighbors by audio, and measure how often their labels agree (Figure 7)."""
    name = source.shown
    last = PseudoLabels.open(artifact_paths(source.runs / name)[-1])
    if len(last.clip_ids) < 2:
        return Section(TITLE, "No figure: there is only one training clip, so there is nothing to retrieve.")
    center = centers_audio(source.runs / name)
    labels = read_label_sets(source.clips, TRAIN_SPLIT, last.clip_ids)
    # Skip both ends of the list, as in Figure 6.
    queries = evenly_spaced(len(last.clip_ids), QUERIES + 2)[1:-1] or [0]
    indices, similarity = neighbors(last.audio_embedding, queries, k=FOUND, center=center)
    grid = _draw(source, last.clip_ids, labels, queries, indices, similarity)
    text = (
        f"{len(queries)} training clips, evenly spaced in the clip list, each with the {indices.shape[1]} clips whose audio is "
        "most similar, by the cosine of the audio embeddings that Eq. 6 uses. The embeddings are from the last pseudo-labels "
        f"of “{label_of(name)}” (seed {source.seed}){', minus the mean of the training set' if center else ''}. "
    )
    labeled = [row for row, names in enumerate(labels) if names]
    if len(labeled) < 2:
        return Section(
            TITLE,
            text + "The clips have no class labels, so precision cannot be computed.",
            f"{STEM}.png",
            (f"{STEM}.csv",),
            grid=grid,
        )
    measured = [labeled[i] for i in evenly_spaced(len(labeled), MOST_QUERIES)]
    found, _ = neighbors(last.audio_embedding, measured, k=FOUND, center=center)
    text += _write_precision(source.folder / PRECISION, labels, measured, precision_at_k(found, measured, labels))
    return Section(TITLE, text, f"{STEM}.png", (f"{STEM}.csv", PRECISION), grid=grid)


def _draw(
    source: Source,
    clip_ids: Sequence[str],
    labels: Sequence[frozenset[str]],
    queries: Sequence[int],
    indices: np.ndarray,
    similarity: np.ndarray,
) -> Grid:
    place = {clip_id: i for i, clip_id in enumerate(source.train_shards.clip_ids)}
    names = ["+".join(sorted(names)) for names in labels]

    def cell(row: int, note: str = "") -> tuple[np.ndarray, str, str]:
        # Longer captions would run into their neighbors.
        caption = (names[row] or clip_ids[row])[: CAPTION - len(note)] + note
        return source.train_shards.read([place[clip_ids[row]]])[0][0], clip_ids[row], caption

    rows, lines = [], []
    for query, found, cosines in zip(queries, indices, similarity, strict=True):
        rows.append([cell(query), *(cell(i, f", {cos:.3f}") for i, cos in zip(found, cosines, strict=True))])
        for rank, (i, cos) in enumerate(zip(found, cosines, strict=True), start=1):
            lines.append([clip_ids[query], names[query], rank, clip_ids[i], names[i], float(cos)])
    grid = Grid(["query", *("1st", "2nd", "3rd")[: indices.shape[1]]], rows)
    panels = [[Panel(frame, caption=caption) for frame, _, caption in row] for row in rows]
    save(overlay_grid(panels, columns=grid.columns), source.folder / f"{STEM}.png")
    header = ["query", "query_label", "rank", "clip_id", "label", "cosine"]
    write_csv(source.folder / f"{STEM}.csv", header, lines)
    return grid


def _write_precision(
    path: Path, labels: Sequence[frozenset[str]], measured: Sequence[int], precision: np.ndarray
) -> str:
    """Write the precision over all queries and for each label, and return it as a sentence."""
    chance = chance_precision(labels)[np.array(measured)]
    own = np.array(["+".join(sorted(labels[row])) for row in measured])
    # NaN: no retrieved clip has a label, so the query says nothing about precision.
    known = ~np.isnan(precision)
    groups = {"": known} | {name: known & (own == name) for name in sorted(set(own))}
    header = ["label", "clips", f"precision_at_{FOUND}", "chance"]
    lines = [
        [name, int(rows.sum()), float(precision[rows].mean()), float(chance[rows].mean())]
        for name, rows in groups.items()
        if rows.any()
    ]
    write_csv(path, header, lines)
    if not lines:
        return "None of the retrieved clips has a label, so precision cannot be computed."
    _, clips, overall, by_chance = lines[0]
    which = "all" if len(measured) == sum(map(bool, labels)) else "evenly spaced in the list"
    return (
        f"Precision@{FOUND} is {100 * overall:.1f}% over {clips:,} labeled clips as queries ({which}); chance level is "
        f"{100 * by_chance:.1f}%."
    )
