"""The report: from trained models to the page, its tables and its figures."""

from __future__ import annotations

import csv
import json
import re
import shutil
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import yaml
from dvc_render.vega import VegaRenderer
from PIL import Image

from pipeline.common.config import TrainingSettings, load_card
from pipeline.common.errors import EvaluationError
from pipeline.evaluation.evaluate import evaluate
from pipeline.pseudo_labels.artifact import PseudoLabels
from pipeline.report.examples import EpochMaps, cell_region, maps_over_epochs, ranked_clips, read_epoch_maps
from pipeline.report.report import markdown_page, write_report
from pipeline.report.section import Section
from pipeline.report.sections.curves import panel_names
from pipeline.report.sections.examples import methods_section
from pipeline.report.sections.retrieval import retrieval_section
from pipeline.report.source import Source
from pipeline.scoring.baselines import evaluate_content_free
from pipeline.scoring.map_file import read_maps
from pipeline.scoring.protocols import get_protocol
from pipeline.training.train import initialize, train
from tests.support.projects import ROOT
from tests.support.scored_world import make_manifest, make_split

TEST = [f"test-{i:02d}" for i in range(10)]
TRAIN = [f"train-{i:02d}" for i in range(8)]
VARIANTS = ["initial", "iterative"]
CONTENT_FREE = ["random", "all_ones", "centered_gaussian", "mean_of_boxes"]
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


def class_of(clip_id):
    """Two classes, taking turns through each split."""
    return ("bell", "drum")[int(clip_id[-1]) % 2]


def write_clip_list(path):
    clips = [("train", clip_id) for clip_id in TRAIN] + [("test", clip_id) for clip_id in TEST]
    lines = [f"{split},{name},{name}.mp4,,,,{class_of(name)}" for split, name in clips]
    path.write_text("\n".join(["split,clip_id,video,frame,audio,centre_s,label", *lines]) + "\n")


def make_source(
    folder, train_shards, test_shards, *, name="report", results="results", clips="clips.csv", variants=VARIANTS
):
    return Source(
        results=folder / results,
        runs=folder / "runs",
        folder=folder / name,
        train_shards=train_shards,
        scored_shards=test_shards,
        scored_input=test_shards,
        manifest=folder / "manifest",
        clips=folder / clips,
        split="test",
        variants=variants,
        seeds=SEEDS,
        card=load_card(folder / "manifest"),
        media_root=folder / "media",
        device="cpu",
    )


def report(folder, train_shards, test_shards, **choices):
    write_report(make_source(folder, train_shards, test_shards, **choices))


@pytest.mark.slow
def test_every_file_that_the_page_links_is_there(project):
    folder = project[0] / "report"
    page = (folder / "index.md").read_text()
    linked = set(re.findall(r"\]\(([^)]+)\)", page))
    figures = [path.name for path in sorted(folder.glob("*.png"))]
    assert figures == [
        "figure3_success_curves.png",
        "figure4_methods.png",
        "figure5_ablation.png",
        "figure6_epochs.png",
        "figure7_retrieval.png",
        "relation_quality.png",
    ]
    assert {f"table{number}.{ending}" for number in (1, 2) for ending in ("md", "csv", "html")} <= linked
    assert {"table.md", "table.csv", "figure5_ablation.npz", "figure6_epochs.npz", "figure7_retrieval.csv"} <= linked
    files = {path.name for path in folder.iterdir()}
    assert linked | {"index.md", "index.html"} == files
    in_html = set(re.findall(r'href="([\w.]+)"', (folder / "index.html").read_text()))
    assert in_html | {"index.html"} == files
    assert page.startswith("# Squares\n\n10 clips ")
    assert all(part in page for part in ("`test`", "`paper256`", "seeds 0, 4"))


@pytest.mark.slow
def test_table_has_each_model_with_its_shuffled_row_then_the_content_free_rows(project):
    text = (project[0] / "report" / "table.md").read_text()
    first = next(part for part in text.split("\n\n") if part.startswith("| ")).splitlines()[2:]
    assert [line.split("|")[1].strip() for line in first] == [
        "iterative (Eq. 7)",
        "iterative (Eq. 7), shuffled audio",
        "initial (Eq. 3)",
        "initial (Eq. 3), shuffled audio",
        "random map",
        "all ones",
        "centered Gaussian",
        "mean of other splits' boxes",
    ]
    assert "`test`" in text
    assert "median rule" in text
    assert "By seed (0 / 4)" in text
    rows = list(csv.DictReader((project[0] / "report" / "table.csv").open()))
    assert len(rows) == 8 * 2
    scores = list(csv.DictReader((project[0] / "results" / "iterative" / "scores.csv").open()))
    (own,) = (row for row in rows if (row["row"], row["shuffled"], row["rule"]) == ("iterative", "0", "protocol"))
    assert float(own["mean_ciou"]) == pytest.approx(np.mean([float(row["ciou"]) for row in scores]))


@pytest.mark.slow
def test_paper_tables_hold_the_trained_rows(project):
    rows = {row["name"]: row for row in csv.DictReader((project[0] / "report" / "table2.csv").open())}
    scores = csv.DictReader((project[0] / "results" / "iterative" / "scores.csv").open())
    each = {seed: [] for seed in SEEDS}
    for row in scores:
        each[int(row["seed"])].append(float(row["ciou"]) >= 0.5)
    rates = [np.mean(values) for values in each.values()]
    assert float(rows["iterative"]["success_rate"]) == pytest.approx(np.mean(rates))
    assert float(rows["iterative"]["success_rate_sd"]) == pytest.approx(np.std(rates, ddof=1))
    assert {name for name, row in rows.items() if row["success_rate"]} == {*VARIANTS, *CONTENT_FREE}


@pytest.mark.slow
def test_relation_quality_is_that_of_the_artifacts_and_the_clip_list(project):
    rows = list(csv.DictReader((project[0] / "report" / "relation_quality.csv").open()))
    assert [(row["variant"], int(row["seed"]), int(row["epoch"])) for row in rows] == [
        (name, seed, epoch) for name in VARIANTS for seed in SEEDS for epoch in range(3)
    ]
    own = next(row for row in rows if (row["variant"], row["seed"], row["epoch"]) == ("iterative", "4", "1"))
    folder = project[0] / "runs" / "iterative" / "seed_4"
    labels = PseudoLabels.open(folder / "pseudo_labels" / "epoch_001.h5")
    centered = labels.audio_embedding - labels.audio_embedding.mean(axis=0)
    centered /= np.linalg.norm(centered, axis=1, keepdims=True)
    pairs = [(i, j) for i in range(len(TRAIN)) for j in range(len(TRAIN)) if i != j]
    related = [(i, j) for i, j in pairs if centered[i] @ centered[j] >= 0.9]
    alike = [class_of(labels.clip_ids[i]) == class_of(labels.clip_ids[j]) for i, j in related]
    assert float(own["related"]) == pytest.approx(len(related) / len(pairs), abs=1e-5)
    assert float(own["precision"] or -1) == pytest.approx(np.mean(alike) if alike else -1, abs=1e-5)
    assert float(own["alike"]) == pytest.approx(24 / 56, abs=1e-5)
    history = {row["epoch"]: row for row in csv.DictReader((folder / "history.csv").open())}
    assert float(own["mask_iou_previous"]) == float(history["1"]["mask_iou_previous"])
    assert float(own["positives_per_clip"]) == float(history["2"]["positives_per_clip"])
    assert float(own["loss"]) == float(history["1"]["loss"])
    assert {row["loss"] for row in rows if row["epoch"] == "0"} == {""}


@pytest.mark.slow
def test_success_curves_hold_every_row(project):
    rows = list(csv.DictReader((project[0] / "report" / "figure3_success_curves.csv").open()))
    curves = {}
    for row in rows:
        curves.setdefault((row["row"], row["kind"]), []).append(float(row["success_rate"]))
    assert list(curves)[:4] == [(name, kind) for kind in ("model", "shuffled") for name in VARIANTS]
    assert [kind for _, kind in curves][4:] == ["content_free"] * 4
    assert all(len(curve) == 21 and curve[0] == 1 for curve in curves.values())
    assert all(np.all(np.diff(curve) <= 0) for curve in curves.values())
    own = list(csv.DictReader((project[0] / "results" / "iterative" / "success_curve.csv").open()))
    assert curves["iterative", "model"] == [float(row["success_rate"]) for row in own]
    assert curves["iterative", "shuffled"] == [float(row["shuffled_success_rate"]) for row in own]


@pytest.mark.slow
def test_the_page_draws_the_numbers_of_the_csv_files(project):
    folder = project[0] / "report"
    page = (folder / "index.html").read_text()
    charts = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page)[1])["charts"]
    success = list(csv.DictReader((folder / "figure3_success_curves.csv").open()))
    own = [float(row["success_rate"]) for row in success if (row["row"], row["kind"]) == ("iterative", "model")]
    drawn = charts["curves"]["panels"][0]["curves"][0]
    assert drawn["label"] == "iterative (Eq. 7)"
    assert drawn["values"] == pytest.approx(own, abs=1e-5)
    quality = list(csv.DictReader((folder / "relation_quality.csv").open()))
    for panel, key in zip(charts["relation"]["panels"], ("precision", "recall", "mask_iou_previous"), strict=True):
        for epoch, value in enumerate(panel["curves"][0]["values"]):
            rows = [row for row in quality if (row["variant"], row["epoch"]) == ("iterative", str(epoch))]
            known = [float(row[key]) for row in rows if row[key]]
            assert len(rows) == len(SEEDS)
            assert (value is None) == (not known)
            assert value is None or value == pytest.approx(np.mean(known), abs=2e-5)


def dvc_plot(project, title):
    """Fill the template of one of dvc.yaml's plots, which must be of a file that the report writes."""
    entries = {
        name: entry
        for plots in yaml.safe_load((ROOT / "dvc.yaml").read_text())["plots"]
        for name, entry in plots.items()
    }
    (entry,) = (entry for name, entry in entries.items() if name.startswith(title))
    ((source, y),) = entry["y"].items()
    assert Path(source).parent == Path("results/${dataset}/report")
    rows = list(csv.DictReader((project[0] / "report" / Path(source).name).open()))
    properties = {"x": entry["x"], "y": y, "template": entry["template"], "template_dir": str(ROOT / ".dvc" / "plots")}
    plot = VegaRenderer([row | {"rev": "workspace"} for row in rows], "curves", **properties).get_filled_template()
    assert "<DVC" not in json.dumps(plot)
    return plot, {channel: encoding.get("field") for channel, encoding in plot["encoding"].items()}


@pytest.mark.slow
@pytest.mark.parametrize(("title", "column"), [("loss", "loss"), ("sounding regions", "mask_iou_previous")])
def test_dvc_plots_show_the_epochs_of_all_variants(project, title, column):
    plot, fields = dvc_plot(project, title)
    assert fields == {
        "x": "epoch", "y": column, "color": "variant", "detail": "seed", "strokeDash": "rev", "opacity": None,
    }  # fmt: skip
    assert plot["transform"] == [{"filter": f"datum['{column}'] !== ''"}]
    shown = {(row["variant"], row["seed"], row["epoch"]) for row in plot["data"]["values"] if row[column]}
    assert shown >= {(name, str(seed), epoch) for name in VARIANTS for seed in SEEDS for epoch in "12"}


@pytest.mark.slow
def test_dvc_plots_show_the_curves_of_all_rows(project):
    plot, fields = dvc_plot(project, "success")
    assert fields == {"x": "threshold", "y": "success_rate", "color": "row", "strokeDash": "rev", "opacity": None}
    assert {value["row"] for value in plot["data"]["values"]} > set(VARIANTS)


@pytest.mark.slow
def test_examples_run_from_the_best_clip_to_the_worst(project):
    folder = project[0]
    shown = list(csv.DictReader((folder / "report" / "figure5_ablation.csv").open()))
    scores = csv.DictReader((folder / "results" / "iterative" / "scores.csv").open())
    ciou = [float(row["ciou"]) for row in scores if row["seed"] == "0"]
    assert len(shown) == 6
    assert list(shown[0]) == ["clip_id", "ciou_iterative", "ciou_initial"]
    values = [float(row["ciou_iterative"]) for row in shown]
    assert values == sorted(values, reverse=True)
    assert (values[0], values[-1]) == (max(ciou), min(ciou))
    data = np.load(folder / "report" / "figure5_ablation.npz")
    maps = read_maps(folder / "results" / "maps" / "iterative" / "maps.h5")
    assert list(data["clip_id"]) == [row["clip_id"] for row in shown]
    np.testing.assert_array_equal(data["iterative"][0], maps.response[maps.clip_ids.index(shown[0]["clip_id"])])
    # Figure 4 shows the same clips, with the systems of Table 1 that there are.
    systems = list(csv.DictReader((folder / "report" / "figure4_methods.csv").open()))
    assert systems == [{key: row[key] for key in ("clip_id", "ciou_iterative")} for row in shown]
    page = (folder / "report" / "index.md").read_text()
    assert ": `attention`, `dmc`, `mssl`, `dsol`." in page
    assert ": `itr`, `itr_intra`, `itr_inter`." in page


@pytest.mark.slow
def test_epoch_maps_are_those_of_the_artifacts(project):
    folder = project[0]
    data = np.load(folder / "report" / "figure6_epochs.npz")
    assert list(data["method"]) == ["iterative", "initial"]
    assert list(data["epoch"]) == [0, 1, 2]
    assert data["response"].shape[:3] == (2, 3, 3)
    labels = PseudoLabels.open(folder / "runs" / "initial" / "pseudo_labels" / "epoch_002.h5")
    for place, clip_id in enumerate(data["clip_id"]):
        np.testing.assert_array_equal(data["response"][1, place, 2], labels.response[labels.clip_ids.index(clip_id)])


@pytest.mark.slow
def test_retrieval_finds_the_nearest_embeddings_of_the_last_epoch(project):
    folder = project[0]
    labels = PseudoLabels.open(folder / "runs" / "iterative" / "pseudo_labels" / "epoch_002.h5")
    own = labels.audio_embedding - labels.audio_embedding.mean(axis=0)
    own /= np.linalg.norm(own, axis=1, keepdims=True)
    cosine = own @ own.T - 2 * np.eye(len(own))
    rows = list(csv.DictReader((folder / "report" / "figure7_retrieval.csv").open()))
    queries = list(dict.fromkeys(row["query"] for row in rows))
    assert queries == ["train-01", "train-02", "train-04", "train-05", "train-06"]
    assert [row["rank"] for row in rows] == ["1", "2", "3"] * 5
    for row in rows:
        query = labels.clip_ids.index(row["query"])
        best = np.sort(cosine[query])[-int(row["rank"])]
        assert float(row["cosine"]) == pytest.approx(best, abs=1e-5)
        assert cosine[query, labels.clip_ids.index(row["clip_id"])] == pytest.approx(best, abs=1e-5)
        assert row["label"] == class_of(row["clip_id"])
    nearest = np.argsort(-cosine, axis=1)[:, :3]
    agree = [[class_of(TRAIN[i]) == class_of(TRAIN[j]) for j in found] for i, found in enumerate(nearest)]
    first, *classes = csv.DictReader((folder / "report" / "figure7_precision.csv").open())
    assert (first["label"], first["clips"]) == ("", "8")
    assert float(first["precision_at_3"]) == pytest.approx(np.mean(agree))
    assert float(first["chance"]) == pytest.approx(3 / 7)
    assert [(row["label"], row["clips"]) for row in classes] == [("bell", "4"), ("drum", "4")]
    sentence = re.search(r"Precision@3 .*", (folder / "report" / "index.md").read_text())[0]
    assert re.findall(r"[\d.]+(?=%| labeled)", sentence) == [f"{100 * np.mean(agree):.1f}", "8", f"{100 * 3 / 7:.1f}"]


@pytest.mark.slow
def test_what_cannot_be_shown_is_reported(project):
    folder = project[0]
    lines = (folder / "clips.csv").read_text().splitlines()
    (folder / "unlabeled.csv").write_text(
        "\n".join([lines[0], *(line[: line.rindex(",") + 1] for line in lines[1:])]) + "\n"
    )
    source = make_source(*project, name="less", clips="unlabeled.csv", variants=["initial"])
    methods, retrieval = methods_section(source), retrieval_section(source)
    assert "none of `iterative`, `attention`, `dmc`, `mssl`, `dsol`" in methods.text
    assert (methods.figure, methods.data) == ("", ())
    assert "“initial (Eq. 3)”" in retrieval.text
    assert "no class labels" in retrieval.text
    assert retrieval.data == ("figure7_retrieval.csv",)
    assert {path.name for path in (folder / "less").iterdir()} == {"figure7_retrieval.csv", "figure7_retrieval.png"}


@pytest.mark.slow
def test_figures_open_and_are_not_blank(project):
    for path in (project[0] / "report").glob("*.png"):
        image = np.asarray(Image.open(path).convert("L"))
        assert min(image.shape) > 300, path
        assert image.std() > 5, path


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
        ("iterative/scores.json", r"iterative/scores\.json.* `dvc repro evaluate`"),
        ("iterative/success_curve.csv", r"iterative/success_curve\.csv.* `dvc repro evaluate`"),
        ("initial/scores.csv", r"initial/scores\.csv.* `dvc repro evaluate`"),
        ("maps/iterative/maps.h5", r"iterative/maps\.h5.* `dvc repro evaluate"),
        ("baselines.json", r"baselines\.json.* `dvc repro baselines`"),
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
    with pytest.raises(EvaluationError, match=r"other shards.* `dvc repro evaluate@"):
        report(project[0], project[1], other, name="broken")


def test_figure_6_outlines_the_cells_that_training_takes(monkeypatch, tmp_path):
    # Enlarged, the lone cell of 0.9 falls below 0.85 within itself, and the two beside each other bridge their border.
    response = np.zeros((4, 4), dtype=np.float32)
    response[0, 0], response[2, 2:] = 0.9, (0.86, 1)
    maps = EpochMaps(
        ["itr"], ["test-00"], [0, 1], np.stack([response, response.T])[None, None], np.array([[0.85, 0.95]])
    )
    drawn = []
    monkeypatch.setattr("pipeline.report.examples.overlay_grid", lambda rows, **_: drawn.extend(rows))
    protocol = get_protocol("paper256")

    maps_over_epochs(maps, make_split(tmp_path, ["test-00"]), protocol)

    ((first, second),) = drawn
    np.testing.assert_array_equal(first.region, np.kron(response > 0.85, np.ones((64, 64), dtype=bool)))
    np.testing.assert_array_equal(second.region, np.kron(response.T > 0.95, np.ones((64, 64), dtype=bool)))
    assert first.heatmap.shape == (256, 256)
    # 0.85 in float32 is above 0.85 in float64, but training compares in float32.
    assert not cell_region(np.full((2, 2), 0.85, dtype=np.float32), np.float64(0.85), protocol).any()


@pytest.mark.parametrize(
    ("variants", "shown", "over_epochs"),
    [
        (["initial", "iterative", "dmc"], "iterative", ["iterative", "initial"]),
        (["initial", "dmc"], "dmc", ["dmc", "initial"]),
        (["dmc", "initial"], "initial", ["initial"]),
        (["itr"], "itr", ["itr"]),
    ],
)
def test_the_shown_variant_is_ours_or_the_last(variants, shown, over_epochs):
    source = Source(**dict.fromkeys(field.name for field in fields(Source)) | {"variants": variants})
    assert (source.shown, source.shown_over_epochs) == (shown, over_epochs)


def test_runs_without_artifacts_name_the_stage(tmp_path):
    with pytest.raises(EvaluationError, match=r"itr.* `dvc repro train`"):
        read_epoch_maps({"itr": tmp_path / "itr"}, ["train-00"])


def test_ranking_does_not_depend_on_the_order_of_equal_clips():
    ciou = {"b": 0.5, "a": 0.5, "c": 0.9, "d": 0.1}
    assert ranked_clips(ciou, 4) == ranked_clips(dict(reversed(ciou.items())), 4) == ["c", "a", "b", "d"]


@pytest.mark.parametrize(
    ("variants", "panels"),
    [
        (["initial", "itr_intra", "iterative"], {"Ablation (Table 2)": "iterative initial itr_intra"}),
        (["attention", "iterative"], {"Systems of Table 1": "iterative attention"}),
        (["iterative"], {"Systems of Table 1": "iterative"}),
        (["mine"], {"Variants of other systems": "mine"}),
        (
            ["dmc", "mssl", "mssl_stage1", "initial", "iterative"],
            {
                "Systems of Table 1": "iterative dmc mssl",
                "Ablation (Table 2)": "iterative initial",
                "Variants of other systems": "iterative mssl mssl_stage1",
            },
        ),
    ],
)
def test_panels_show_every_variant_and_none_repeats_another(variants, panels):
    assert panel_names(variants) == {title: names.split() for title, names in panels.items()}


def test_page_links_figures_and_data():
    page = markdown_page(
        "Title", "Lead.", [Section("Part", "Text.", "p.png", ("p.csv", "p.npz")), Section("Last", "End.")]
    )
    assert page == (
        "# Title\n\nLead.\n\n## Part\n\nText.\n\n![Part](p.png)\n\nData: [p.csv](p.csv), [p.npz](p.npz)\n\n## Last\n\nEnd.\n"
    )
