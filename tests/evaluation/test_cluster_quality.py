"""Clusters against class labels: purity, NMI and covered classes, and their section of the report."""

from __future__ import annotations

import csv
import math
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.common.errors import PseudoLabelError
from pipeline.common.hdf5 import ascii_ids, write_arrays
from pipeline.evaluation.cluster_quality import cluster_quality, read_clusters
from pipeline.report.sections.clusters import cluster_sections
from tests.support.synthetic import write_clip_list


def one_each(names):
    return [frozenset([name]) for name in names]


def test_clusters_that_are_the_classes():
    found = cluster_quality(np.array([2, 2, 0, 0, 1]), one_each("aabbc"))
    assert (found.clusters, found.classes, found.covered, found.purity) == (3, 3, 3, 1.0)
    assert found.nmi == pytest.approx(1)


def test_two_classes_in_one_cluster_and_a_wasted_one():
    """Cluster 0 has 3 × a and 2 × b, cluster 1 one b alone, cluster 2 one c; so c and both others are covered."""
    clusters, names = np.array([0, 0, 0, 0, 0, 1, 2]), "aaabbbc"
    found = cluster_quality(clusters, one_each(names))
    assert (found.clusters, found.classes, found.covered) == (3, 3, 3)
    assert found.purity == pytest.approx(5 / 7)

    def entropy(values):
        shares = [list(values).count(each) / len(values) for each in set(values)]
        return -sum(share * math.log(share) for share in shares)

    pairs = list(zip(clusters.tolist(), names, strict=True))
    information = entropy(clusters.tolist()) + entropy(names) - entropy(pairs)
    assert found.nmi == pytest.approx(2 * information / (entropy(clusters.tolist()) + entropy(names)))
    assert cluster_quality(np.zeros(7, dtype=int), one_each(names)).covered == 1


def test_only_clips_with_one_label_count():
    sets = [frozenset("a"), frozenset("ab"), frozenset(), frozenset("b")]
    found = cluster_quality(np.array([0, 0, 0, 1]), sets)
    assert (found.clusters, found.classes, found.purity) == (2, 2, 1.0)
    assert cluster_quality(np.array([0, 1]), [frozenset(), frozenset("ab")]) is None


def make_source(folder, *, clusters, name="pseudo_class", epochs=(1, 2), seeds=(0,)):
    clip_ids = [f"c{i}" for i in range(6)]
    for epoch in epochs:
        arrays = {"clip_id": (("clip",), ascii_ids(clip_ids)), name: (("clip",), np.array(clusters[epoch - 1]))}
        path = folder / f"runs/dsol/pseudo_labels/start_{epoch:03d}.h5"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_arrays(path, arrays, {"epoch": epoch, "method": "dsol"})
    (folder / "runs/itr/pseudo_labels").mkdir(parents=True)
    (folder / "report").mkdir()
    return SimpleNamespace(
        runs=folder / "runs", folder=folder / "report", variants=["itr", "dsol"], seeds=list(seeds),
        clips=write_clip_list(folder / "clips.csv", clip_ids), train_shards=SimpleNamespace(clip_ids=clip_ids),
    )  # fmt: skip


def test_the_section_has_the_last_epoch_and_the_file_all(tmp_path):
    # Clips 0 to 5 are of the kinds 0, 1, 2, 0, 1, 2.
    source = make_source(tmp_path, clusters=[[0, 0, 1, 0, 0, 1], [0, 1, 2, 0, 1, 2]])
    (section,) = cluster_sections(source)
    rows = list(csv.DictReader((tmp_path / "report" / section.data[0]).open()))
    assert [(row["variant"], row["seed"], row["epoch"]) for row in rows] == [("dsol", "0", "1"), ("dsol", "0", "2")]
    assert [(row["covered"], float(row["purity"])) for row in rows] == [("2", pytest.approx(4 / 6)), ("3", 1.0)]
    (line,) = [line for line in section.text.splitlines() if "DSOL" in line]
    assert [cell.strip() for cell in line.strip("|").split("|")][1:] == ["0", "3", "3 of 3", "100.0", "1.00"]


def test_nothing_to_compare_gives_no_section(tmp_path):
    assert cluster_sections(make_source(tmp_path / "other", clusters=[[0] * 6], name="other", epochs=(1,))) == []
    source = make_source(tmp_path / "unlabeled", clusters=[[0] * 6], epochs=(1,))
    source.clips.write_text(source.clips.read_text().replace("kind0", "").replace("kind1", "").replace("kind2", ""))
    assert cluster_sections(source) == []


def test_a_damaged_file_is_named(tmp_path):
    make_source(tmp_path, clusters=[[0] * 6], epochs=(1,))
    path = tmp_path / "runs/dsol/pseudo_labels/start_001.h5"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(PseudoLabelError, match=r"start_001\.h5: damaged"):
        read_clusters(path)
