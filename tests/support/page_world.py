"""Input of the report's page: two methods, twelve scored clips, nine training clips.

Titles, labels and sources contain hostile HTML. Only some clips have media.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from pipeline.common.config import load_card
from pipeline.common.files import write_csv
from pipeline.common.project import labels_path, weights_path
from pipeline.manifests.boxes import Box, write_boxes
from pipeline.manifests.clips import CLIP_COLUMNS
from pipeline.model.encoders import build_model
from pipeline.pseudo_labels.artifact import write_pseudo_labels
from pipeline.report.page.page import write_page
from pipeline.report.section import Chart, ChartCurve, ChartPanel, Grid, Section
from pipeline.report.source import Source
from pipeline.scoring.map_file import ResponseMaps, write_maps
from pipeline.training.checkpoints import model_content, write_checkpoint
from tests.support.labeled_runs import make_labels
from tests.support.media_files import write_media
from tests.support.scored_world import SETTINGS, SIZE, boxes_of, make_manifest, make_split
from tests.support.synthetic import ENCODER, make_settings

HOSTILE = '<script>window.pwned = 1</script>"><img src=x onerror="window.pwned = 2">'
TEST = [f"test-{i:02d}" for i in range(12)]
TRAIN = [f"train-{i:02d}" for i in range(9)]
VARIANTS = ["initial", "iterative"]
CIOU = {
    "initial": {clip_id: 0.3 + 0.02 * i for i, clip_id in enumerate(TEST)},
    "iterative": {clip_id: 0.05 + 0.08 * ((5 * i) % 12) for i, clip_id in enumerate(TEST)},
}
THRESHOLDS = [round(0.05 * i, 2) for i in range(21)]
TABLE = "Some words.\n\n| | cIoU@0.5 |\n| --- | ---: |\n| Ours | 63.5 (60.5–66.7) |\n| DMC | – |\n"


def make_source(folder: Path) -> Source:
    """Write the results, the runs, the clip list and some media, and return the source of a report."""
    manifest = make_manifest(folder / "manifest", TEST, elsewhere=[])
    card = (manifest / "dataset.yaml").read_text().replace("title: Squares", f"title: '{HOSTILE}'")
    (manifest / "dataset.yaml").write_text(card)
    boxes = [box for clip_id in TEST for box in boxes_of(clip_id)]
    write_boxes(manifest / "test_boxes.csv", [Box(*({**vars(box), "source": HOSTILE}).values()) for box in boxes])
    write_clip_list(folder / "clips.csv")
    for name in ("train-00", "test-07", "test-00"):
        sound = np.sin(np.arange(16_000) / 6)[None].astype(np.float32)
        (folder / "media").mkdir(exist_ok=True)
        write_media(folder / "media" / f"{name}.mp4", sound=0.5 * sound, rate=16_000)
    scored = make_split(folder / "test", TEST)
    source = Source(
        results=folder / "results",
        runs=folder / "runs",
        folder=folder / "report",
        train_shards=make_split(folder / "train", TRAIN),
        scored_shards=scored,
        scored_input=scored,
        manifest=manifest,
        clips=folder / "clips.csv",
        split="test",
        variants=VARIANTS,
        seeds=[0],
        card=load_card(manifest),
        media_root=folder / "media",
    )
    for place, name in enumerate(VARIANTS):
        write_scores(source, name, np.random.default_rng(place))
        write_weights(source.runs / name, name, seed=10 * place)
        for epoch in range(3):
            labels = make_labels(epoch if name == "iterative" else epoch // 2, TRAIN).with_attributes(epoch=epoch)
            write_pseudo_labels(labels_path(source.runs / name, epoch), labels)
    return source


def make_page(folder: Path) -> Path:
    """Write a page and return its path."""
    source = make_source(folder)
    sections = [
        Section(f"Table 1: {HOSTILE}", TABLE + HOSTILE),
        Section("Success over thresholds (Figure 3)", "Curves.", "figure3.png", kind="curves", chart=success_chart()),
        Section("Response maps by system (Figure 4)", "Not shown.", "figure4.png", ("figure4.csv",), kind="maps"),
        Section(
            "Response maps, ablation (Figure 5)",
            "Not shown.",
            "figure5.png",
            ("figure5.csv", "figure5.npz"),
            kind="maps",
        ),
        Section("Response maps by epoch (Figure 6)", "Not shown.", "figure6.png", ("figure6.npz",), kind="epochs"),
        Section("Pseudo-labels by epoch", "Relation.", kind="relation", chart=relation_chart()),
        Section("Training", "Loss.", kind="training", chart=training_chart(), folded=[("More", TABLE)]),
        Section("Audio retrieval (Figure 7)", "Neighbors.", "figure7.png", grid=retrieval_grid(source)),
    ]
    path = source.folder / "index.html"
    write_page(
        path,
        title=source.card.title,
        lead=f"A `lead` {HOSTILE}",
        tiles=[],
        sections=sections,
        provenance=[("Code", f"soundspot 1 {HOSTILE}")],
        source=source,
    )
    return path


def retrieval_grid(source: Source) -> Grid:
    """Return a query with two neighbors; one caption is hostile."""
    frames = source.train_shards.read([0, 1, 2])[0]
    row = [
        (frame, name, caption) for frame, name, caption in zip(frames, TRAIN, ("bell", HOSTILE, "drum"), strict=False)
    ]
    return Grid(["query", "1st", "2nd"], [row])


def write_clip_list(path: Path) -> None:
    labels = ["bell", "drum", HOSTILE]
    rows = [("train", name, labels[i % 2]) for i, name in enumerate(TRAIN)]
    rows += [("test", name, labels[i % 3]) for i, name in enumerate(TEST)]
    lines = [[split, name, f"{name}.mp4", "", "", "", label] for split, name, label in rows]
    write_csv(path, ("split", *CLIP_COLUMNS), lines)


def write_scores(source: Source, name: str, rng: np.random.Generator) -> None:
    response = rng.uniform(-1, 1, (len(TEST), 4, 4)).astype(np.float32)
    maps = ResponseMaps(
        clip_ids=TEST,
        response=response,
        shuffled_response=response,
        shuffled_clip_ids=TEST[1:] + TEST[:1],
        split="test",
        seed=0,
        shards=source.scored_shards.fingerprint,
    )
    write_maps(source.results / "maps" / name / "maps.h5", maps)
    write_csv(
        source.results / name / "scores.csv",
        ["clip_id", "seed", "ciou"],
        [[clip_id, 0, value] for clip_id, value in CIOU[name].items()],
    )


def write_weights(run: Path, name: str, *, seed: int) -> None:
    """Write a model.pt of two epochs, and the weights of earlier epochs; all random and different."""
    for epoch in range(3):
        torch.manual_seed(seed + epoch)
        description = {
            "method": name,
            "stage": "train",
            "seed": 0,
            "epoch": epoch,
            "fingerprint": "a" * 32,
            "image_size": SIZE,
            "delta_v": 0.5,
            "encoder": ENCODER.model_dump_json(),
            "iteration": make_settings().iterate.model_dump_json(),
            "audio": json.dumps(
                {key: value for key, value in SETTINGS.items() if key not in ("fingerprint", "image_size")}
            ),
            "n_clips": len(TRAIN),
            "classes": "[]",
        }
        path = weights_path(run, epoch) if epoch < 2 else run / "model.pt"
        write_checkpoint(path, model_content(build_model(ENCODER), description))


def success_chart() -> Chart:
    """Return a panel with every kind of curve, each a straight line from its success rate at 0 down to 0 at 1."""
    curves = [
        ChartCurve(label, kind, [round((1 - threshold) * share, 4) for threshold in THRESHOLDS])
        for label, kind, share in (
            ("iterative (Eq. 7)", "model", 1.0),
            ("initial (Eq. 3)", "model", 0.8),
            ("iterative (Eq. 7), shuffled audio", "shuffled", 0.2),
            ("random map", "content_free", 0.1),
        )
    ]
    mark = (0.5, "success rate at 0.5")
    panels = [ChartPanel("Ablation (Table 2)", "success rate", curves)]
    return Chart("Success rate over cIoU thresholds", "cIoU threshold", THRESHOLDS, mark, panels)


def relation_chart() -> Chart:
    """Return two panels over three epochs; one has no value in the first."""
    panels = [
        ChartPanel("precision of y", "fraction", [ChartCurve("iterative (Eq. 7)", "model", [0.9, 0.9, 0.9])]),
        ChartPanel("IoU of masks", "fraction", [ChartCurve("iterative (Eq. 7)", "model", [None, 0.6, 0.6])]),
    ]
    return Chart("Pseudo-labels by epoch", "epoch", [0, 1, 2], None, panels)


def training_chart() -> Chart:
    """Return a panel of values that are no fractions, over three epochs, the first without a value."""
    panels = [
        ChartPanel("loss", "loss", [ChartCurve("iterative (Eq. 7)", "model", [None, 3.5, 1.25])], percent=False),
        ChartPanel(
            "audio gap", "audio gap", [ChartCurve("iterative (Eq. 7)", "model", [-0.5, 0.1, 0.2])], percent=False
        ),
    ]
    return Chart("Training", "epoch", [0, 1, 2], None, panels)
