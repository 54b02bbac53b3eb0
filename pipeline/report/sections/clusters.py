"""Clusters that a method learns from in place of class labels (DSOL), against the class labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, fields

from pipeline.common.files import write_csv
from pipeline.common.project import LABELS_FOLDER, START_PATTERN, seed_folder
from pipeline.common.text_table import Table
from pipeline.evaluation.cluster_quality import ClusterQuality, cluster_quality, read_clusters
from pipeline.evaluation.labels import label_of
from pipeline.manifests.clips import TRAIN_SPLIT
from pipeline.report.section import Section
from pipeline.report.source import Source
from pipeline.training.class_labels import read_label_sets

FILE = "cluster_quality.csv"
Measured = Mapping[tuple[str, int, int], ClusterQuality]  # by variant, seed and epoch


def cluster_sections(source: Source) -> list[Section]:
    """Measure the clusters of every variant, seed and epoch; empty without clusters or without class labels."""
    measured = _measure(source)
    if not measured:
        return []
    names = [field.name for field in fields(ClusterQuality)]
    write_csv(
        source.folder / FILE,
        ["variant", "seed", "epoch", *names],
        [[*run, *(f"{value:.6g}" for value in astuple(quality))] for run, quality in measured.items()],
    )
    last = {run[:2]: quality for run, quality in measured.items()}  # epochs ascend
    cells = [
        (label_of(name), str(seed), str(each.clusters), f"{each.covered} of {each.classes}", *_decimals(each))
        for (name, seed), each in last.items()
    ]
    header = ("", "seed", "clusters", "classes covered", "purity, %", "NMI")
    text = (
        "Clusters of the training set that a method learns from, before its last epoch, against the class labels, which it does not "
        "use. A class is covered if it is the most frequent one of some cluster; two classes in one cluster cannot be told apart "
        "afterward. Purity is the share of the clips in the most frequent class of their cluster.\n\n"
    )
    return [Section("Clusters and class labels", text + Table(header, tuple(cells)).markdown().strip(), data=(FILE,))]


def _measure(source: Source) -> Measured:
    label_sets = dict(
        zip(
            source.train_shards.clip_ids,
            read_label_sets(source.clips, TRAIN_SPLIT, source.train_shards.clip_ids),
            strict=True,
        )
    )
    measured = {}
    for name in source.variants:
        for seed in source.seeds:
            folder = seed_folder(source.runs / name, source.seeds, seed) / LABELS_FOLDER
            for path in sorted(folder.glob(START_PATTERN)):
                if (found := read_clusters(path)) is None:
                    continue
                epoch, clip_ids, clusters = found
                quality = cluster_quality(clusters, [label_sets.get(clip_id, frozenset()) for clip_id in clip_ids])
                if quality:
                    measured[name, seed, epoch] = quality
    return measured


def _decimals(quality: ClusterQuality) -> tuple[str, str]:
    return f"{100 * quality.purity:.1f}", f"{quality.nmi:.2f}"
