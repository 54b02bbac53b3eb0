"""The report: from trained models to the page, its tables and its pictures."""

from __future__ import annotations

import csv
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from pipeline.config import TrainingSettings, load_card
from pipeline.errors import EvaluationError
from pipeline.evaluation import evaluate, evaluate_content_free
from pipeline.examples import ranked_clips, read_epoch_maps, spread
from pipeline.map_files import read_maps
from pipeline.pseudo_labels import PseudoLabels
from pipeline.report import Section, markdown_page, write_report
from pipeline.training import initialize, train
from tests.scored_world import make_manifest, make_split

TEST = [f"test-{i:02d}" for i in range(10)]
TRAIN = [f"train-{i:02d}" for i in range(8)]
VARIANTS = ["initial", "iterative"]
SEEDS = [0, 4]
RESNET = {"blocks": (1, 1, 1, 1), "width": 2, "strides": (1, 2, 1, 1), "kernel_sizes": (3, 3, 1, 1)}
PHASE = {"epochs": 1, "temperature": 0.1, "learning_rate": 1e-3, "weight_decay": 0.0}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Two methods trained with two seeds on eight clips, and scored on ten: everything a report is made from."""
    folder = tmp_path_factory.mktemp("project")
    train_shards, test_shards = (make_split(folder / name, clips) for name, clips in (("train", TRAIN), ("test", TEST)))
    manifest = make_manifest(folder / "manifest", TEST, elsewhere=["validation-01"])
    write_clip_list(folder / "clips.csv")
    settings = TrainingSettings(
        batch_size=4,
        encoder={"visual": RESNET, "audio": RESNET, "embedding_dim": 4, "batch_norm": True},
        augmentation={"flip": False},
        initialize=PHASE,
        iterate={**PHASE, "epochs": 2, "delta_v": 0.6, "delta_a": 0.9},
        methods={name: {} for name in VARIANTS},
    )
    initialize(train_shards, folder / "runs" / "initialize", settings=settings, seeds=SEEDS, device="cpu")
    rules = {"split": "test", "evaluation": load_card(manifest).evaluation}
    evaluate_content_free(test_shards, manifest, folder / "results" / "baselines.json", **rules)
    for name in VARIANTS:
        run = folder / "runs" / name
        initial = folder / "runs" / "initialize"
        train(train_shards, initial, run, method=name, settings=settings, seeds=SEEDS, device="cpu")
        evaluate(
            run,
            test_shards,
            manifest,
            folder / "results" / name,
            maps_folder=folder / "results" / "maps" / name,
            baselines=folder / "results" / "baselines.json",
            seeds=SEEDS,
            device="cpu",
            **rules,
        )
    report(folder, train_shards, test_shards)
    return folder, train_shards, test_shards


def write_clip_list(path):
    """Two classes, taking turns through each split."""
    clips = [("train", clip_id) for clip_id in TRAIN] + [("test", clip_id) for clip_id in TEST]
    lines = [f"{split},{name},{name}.mp4,,,,{('bell', 'drum')[i % 2]}" for i, (split, name) in enumerate(clips)]
    path.write_text("\n".join(["split,clip_id,video,frame,audio,centre_s,label", *lines]) + "\n")


def report(folder, train_shards, test_shards, *, name="report", results="results", runs="runs"):
    write_report(
        folder / results,
        folder / runs,
        folder / name,
        train_shards=train_shards,
        scored_shards=test_shards,
        manifest=folder / "manifest",
        clips=folder / "clips.csv",
        split="test",
        variants=VARIANTS,
        seeds=SEEDS,
    )


@pytest.mark.slow
def test_every_file_that_the_page_links_is_there(project):
    folder = project[0] / "report"
    page = (folder / "index.md").read_text()
    linked = set(re.findall(r"\]\(([^)]+)\)", page))
    assert {"table.md", "table.csv", "success_curves.png", "overlays.png", "epochs.png", "epochs.npz"} <= linked
    assert linked | {"index.md"} == {path.name for path in folder.iterdir()}
    assert page.startswith("# Squares\n\n10 clips of the split `test`, protocol `paper256`")
    assert "mean over the seeds 0, 4" in page


@pytest.mark.slow
def test_table_has_the_content_free_rows_then_each_model_and_its_shuffled_row(project):
    text = (project[0] / "report" / "table.md").read_text()
    first = text.split("\n\n")[2].splitlines()[2:]
    assert [line.split("|")[1].strip() for line in first] == [
        "random map",
        "all ones",
        "centred Gaussian",
        "mean of the boxes elsewhere",
        "initial (Eq. 3)",
        "initial (Eq. 3), shuffled audio",
        "iterative (Eq. 7)",
        "iterative (Eq. 7), shuffled audio",
    ]
    assert text.startswith("Scores on the split `test`, in percent")
    assert "Under the median rule:" in text
    assert "success, seed 4" in text
    rows = list(csv.DictReader((project[0] / "report" / "table.csv").open()))
    assert len(rows) == 8 * 2
    scores = list(csv.DictReader((project[0] / "results" / "iterative" / "scores.csv").open()))
    (own,) = (row for row in rows if (row["row"], row["shuffled"], row["rule"]) == ("iterative", "0", "protocol"))
    assert float(own["mean_ciou"]) == pytest.approx(np.mean([float(row["ciou"]) for row in scores]))


@pytest.mark.slow
def test_success_curves_hold_every_row(project):
    rows = list(csv.DictReader((project[0] / "report" / "success_curves.csv").open()))
    curves = {}
    for row in rows:
        curves.setdefault((row["row"], row["kind"]), []).append(float(row["success_rate"]))
    assert [kind for _, kind in curves] == ["model", "shuffled"] * 2 + ["content_free"] * 4
    assert all(len(curve) == 21 and curve[0] == 1 for curve in curves.values())
    assert all(np.all(np.diff(curve) <= 0) for curve in curves.values())


@pytest.mark.slow
def test_examples_run_from_the_best_clip_to_the_worst(project):
    folder = project[0]
    shown = list(csv.DictReader((folder / "report" / "overlays.csv").open()))
    scores = csv.DictReader((folder / "results" / "initial" / "scores.csv").open())
    ciou = [float(row["ciou"]) for row in scores if row["seed"] == "0"]
    assert len(shown) == 8
    values = [float(row["ciou_initial"]) for row in shown]
    assert values == sorted(values, reverse=True)
    assert (values[0], values[-1]) == (max(ciou), min(ciou))
    data = np.load(folder / "report" / "overlays.npz")
    maps = read_maps(folder / "results" / "maps" / "iterative" / "maps.h5")
    assert list(data["clip_id"]) == [row["clip_id"] for row in shown]
    np.testing.assert_array_equal(data["iterative"][0], maps.response[maps.clip_ids.index(shown[0]["clip_id"])])


@pytest.mark.slow
def test_epoch_maps_are_those_of_the_artifacts(project):
    folder = project[0]
    data = np.load(folder / "report" / "epochs.npz")
    assert list(data["method"]) == ["iterative", "initial"]
    assert list(data["epoch"]) == [0, 1, 2]
    assert data["response"].shape[:3] == (2, 3, 3)
    labels = PseudoLabels.open(folder / "runs" / "initial" / "pseudo_labels" / "epoch_002.h5")
    for place, clip_id in enumerate(data["clip_id"]):
        np.testing.assert_array_equal(data["response"][1, place, 2], labels.response[labels.clip_ids.index(clip_id)])


@pytest.mark.slow
def test_pictures_open_and_are_not_blank(project):
    for path in (project[0] / "report").glob("*.png"):
        picture = np.asarray(Image.open(path).convert("L"))
        assert min(picture.shape) > 300, path
        assert picture.std() > 5, path


@pytest.mark.slow
def test_the_same_results_give_the_same_report(project):
    report(*project, name="again")
    files = sorted(path.name for path in (project[0] / "report").iterdir())
    assert [(project[0] / "again" / name).read_bytes() for name in files] == [
        (project[0] / "report" / name).read_bytes() for name in files
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("iterative/metrics.json", r"metrics\.json: no such scores; run `dvc repro evaluate@iterative`"),
        ("iterative/success_curve.csv", r"success_curve\.csv: no such curve; run `dvc repro evaluate@iterative`"),
        ("initial/scores.csv", r"scores\.csv: no such scores; run `dvc repro evaluate@initial`"),
        ("maps/iterative/maps.h5", r"maps\.h5: no response maps; run `dvc repro evaluate`"),
        ("baselines.json", r"baselines\.json: no such scores; run `dvc repro baselines`"),
    ],
)
def test_a_missing_result_names_the_stage_that_makes_it(project, tmp_path, lost, message):
    shutil.copytree(project[0] / "results", tmp_path / "results")
    (tmp_path / "results" / lost).unlink()
    with pytest.raises(EvaluationError, match=message):
        report(*project, name="broken", results=tmp_path / "results")


@pytest.mark.slow
def test_results_of_other_shards_are_refused(project, tmp_path):
    other = make_split(tmp_path / "test", [*TEST, "test-99"])
    with pytest.raises(
        EvaluationError, match=r"made from other shards or another seed; run `dvc repro evaluate@initial`"
    ):
        report(project[0], project[1], other, name="broken")


def test_runs_without_artifacts_name_the_stage(tmp_path):
    with pytest.raises(EvaluationError, match=r"no artifacts; run `dvc repro train@itr`"):
        read_epoch_maps({"itr": tmp_path / "itr"}, ["train-00"])


@pytest.mark.parametrize(
    ("n", "count", "expected"), [(9, 3, [0, 4, 8]), (2, 8, [0, 1]), (1, 3, [0]), (100, 2, [0, 99])]
)
def test_spread_takes_equal_steps_with_both_ends(n, count, expected):
    assert spread(n, count) == expected


def test_ranking_does_not_depend_on_the_order_of_equal_clips():
    ciou = {"b": 0.5, "a": 0.5, "c": 0.9, "d": 0.1}
    assert ranked_clips(ciou, 4) == ranked_clips(dict(reversed(ciou.items())), 4) == ["c", "a", "b", "d"]


def test_page_links_pictures_and_data():
    page = markdown_page(
        "Title", "Lead.", [Section("Part", "Text.", "p.png", ("p.csv", "p.npz")), Section("Last", "End.")]
    )
    assert page == (
        "# Title\n\nLead.\n\n## Part\n\nText.\n\n![Part](p.png)\n\nData: [p.csv](p.csv), [p.npz](p.npz)\n\n## Last\n\nEnd.\n"
    )
