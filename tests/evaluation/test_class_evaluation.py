"""Scores by class: clusters get their names from the training clips alone, and each map meets its own boxes."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from pipeline.common.config import EvaluationSettings
from pipeline.evaluation.class_evaluation import class_metrics, class_of_clusters
from pipeline.evaluation.evaluate import evaluate
from pipeline.manifests.boxes import Box, write_boxes
from pipeline.scoring.class_maps import score_class_maps
from pipeline.scoring.protocols import get_protocol
from pipeline.scoring.results import summarize
from pipeline.training.checkpoints import load_model
from pipeline.training.train import initialize, train
from tests.support.easy_world import make_easy_world, write_easy_clips
from tests.support.synthetic import COLORS, make_settings

MUSIC = get_protocol("music-synthetic-a")
KINDS = [f"kind{i}" for i in range(len(COLORS))]


def one_class(*names):
    return [frozenset({name}) for name in names]


class TestNames:
    def test_each_cluster_is_the_class_in_whose_clips_it_is_heard(self):
        heard = np.eye(4)[[2, 2, 0, 3]]
        assert class_of_clusters(heard, one_class("bell", "bell", "drum", "flute")) == {
            "bell": 2,
            "drum": 0,
            "flute": 3,
        }

    def test_the_best_of_all_assignments(self):
        rng = np.random.default_rng(0)
        heard = rng.dirichlet(np.ones(5), size=40)
        labels = [frozenset(rng.choice(list("abcde"), size=2, replace=False)) for _ in heard]
        shares = []
        for name in "abcde":
            own = sum(p for p, classes in zip(heard, labels, strict=True) if name in classes)
            shares.append(own / own.sum())
        best = max(itertools.permutations(range(5)), key=lambda order: sum(shares[i][c] for i, c in enumerate(order)))
        assert class_of_clusters(heard, labels) == dict(zip("abcde", best, strict=True))

    def test_a_frequent_class_does_not_choose_for_the_others(self):
        # Counted by clips, the six tenths of 100 clips would outweigh the nine tenths of one.
        heard = np.array([[0.4, 0.6]] * 100 + [[0.1, 0.9]])
        assert class_of_clusters(heard, one_class(*["often"] * 100, "rare")) == {"often": 0, "rare": 1}

    def test_clips_without_labels_and_clusters_without_classes(self):
        heard = np.eye(3)[[0, 1, 1]]
        assert class_of_clusters(heard, [frozenset(), frozenset({"bell"}), frozenset()]) == {"bell": 1}
        assert class_of_clusters(heard, [frozenset()] * 3) == {}

    def test_more_classes_than_clusters(self):
        found = class_of_clusters(np.eye(2)[[0, 1, 1]], one_class("bell", "drum", "flute"))
        assert len(found) == 2
        assert found["bell"] == 0


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """DSOL and `initial`, trained with two seeds on labeled clips, and a scored split with the boxes of their classes."""
    folder = tmp_path_factory.mktemp("world")
    shards, _, labels = make_easy_world(24, 0, size=32)
    write_easy_clips(folder / "clips.csv", labels)
    settings = make_settings(methods={"dsol": {"epochs": 2, "clusters": 5}, "initial": {"epochs": 1}})
    initialize(shards, folder / "initialize", settings=settings, seeds=[0, 4], device="cpu")
    for name in ("dsol", "initial"):
        start, out = folder / "initialize", folder / name
        train(shards, start, out, method=name, settings=settings, seeds=[0, 4], device="cpu")
    unseen, boxes, _ = make_easy_world(12, 1, size=32)
    second = [Box(box.clip_id, KINDS[(KINDS.index(box.source) + 1) % 4], "x", True, 0, 0, 0.25, 0.5) for box in boxes]
    return folder, unseen, [*boxes, *second]


def scored(world, name="dsol", *, clips="clips.csv", boxes=None):
    folder, unseen, own = world
    return class_metrics(
        [folder / name, folder / name / "seed_4"],
        unseen,
        own if boxes is None else boxes,
        MUSIC,
        variant=name,
        clips=folder / clips,
        threshold=0.3,
        device="cpu",
    )


def test_each_class_has_the_map_of_its_cluster(world):
    folder, unseen, boxes = world
    metrics, line = scored(world)
    assert set(metrics) == {
        f"class_{key}{end}" for key in ("success_rate", "auc", "nsa") for end in ("", "_low", "_high", "_seeds")
    }
    assert ": success_rate " in line
    names = [line.split(",")[-1] for line in (folder / "clips.csv").read_text().splitlines()[1:]]
    for seed, run in enumerate((folder / "dsol", folder / "dsol" / "seed_4")):
        model = load_model(run / "model.pt")
        cluster = class_of_clusters(model.method.audio_clusters(model.encoders), one_class(*names))
        assert sorted(cluster) == KINDS
        maps = model.class_maps(unseen, batch_size=5, device="cpu")
        assert maps.shape == (12, 5, 4, 4)
        own = summarize(score_class_maps(maps[:, list(cluster.values())], list(cluster), unseen.clip_ids, boxes, MUSIC))
        for key in ("success_rate", "auc", "nsa"):
            assert metrics[f"class_{key}_seeds"][seed] == pytest.approx(own[key])


def test_the_scored_clips_do_not_name_the_clusters(world):
    _, _, boxes = world
    turned = [Box(*({**vars(b), "source": KINDS[(KINDS.index(b.source) + 1) % 4]}).values()) for b in boxes]
    assert scored(world)[0]["class_auc"] != scored(world, boxes=turned)[0]["class_auc"]


@pytest.mark.parametrize(("protocol", "by_class"), [("music-synthetic-a", True), ("music-synthetic-b", False)])
def test_evaluation_adds_them_under_a_protocol_by_source(world, tmp_path, capsys, protocol, by_class):
    folder, unseen, boxes = world
    (tmp_path / "baselines.json").write_text("{}")
    write_boxes(tmp_path / "test_boxes.csv", boxes)
    evaluate(
        folder / "dsol",
        unseen,
        tmp_path,
        tmp_path / "results",
        maps_folder=tmp_path / "maps",
        baselines=tmp_path / "baselines.json",
        split="test",
        evaluation=EvaluationSettings(protocol=protocol, threshold=0.3),
        seeds=[0, 4],
        clips=folder / "clips.csv",
        leaks_allowed=True,  # the worlds have other clips under the same ids
        device="cpu",
    )
    metrics = json.loads((tmp_path / "results" / "scores.json").read_text())
    own, line = scored(world)
    assert {key: value for key, value in metrics.items() if key.startswith("class_")} == (own if by_class else {})
    assert (line in capsys.readouterr().out) == by_class


def test_why_there_are_no_scores_by_class(world):
    folder, _, boxes = world
    text = (folder / "clips.csv").read_text()
    lines = [line if i == 0 else line[: line.rindex(",") + 1] for i, line in enumerate(text.splitlines())]
    (folder / "unlabeled.csv").write_text("\n".join(lines) + "\n")
    metrics, line = scored(world, clips="unlabeled.csv")
    assert metrics == {}
    assert "'kind0': they have no labels" in line
    other = [*boxes, Box(boxes[0].clip_id, "oboe", "x", True, 0, 0, 1, 1)]
    line = scored(world, boxes=other)[1]
    assert "'oboe'" in line
    assert "they have no labels" not in line
    # A method with one map per clip has no class scores.
    assert scored(world, "initial") == ({}, "")
