"""Whatever a later stage refuses, `soundspot check` refuses before hours are spent, for the same reason.

The stage `prepare` refuses what concerns the files of a dataset. It does not know methods and weights, so those are left to
`soundspot check` alone; the table says which.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from pipeline.cli.main import soundspot
from pipeline.common.config import load_card, load_params
from pipeline.common.console import run_command
from pipeline.common.errors import SoundspotError
from pipeline.evaluation.evaluate import evaluate
from pipeline.evaluation.response_maps import compute_maps
from pipeline.manifests.boxes import Box, boxes_path, write_boxes
from pipeline.manifests.clips import Clip, read_clips, write_clips
from pipeline.scoring.baselines import evaluate_content_free
from pipeline.training.train import initialize, train
from stages.prepare import main as prepare_stage
from tests.support.scored_world import boxes_of, make_manifest, make_split
from tests.support.synthetic import make_world

PARAMS = """\
dataset: squares
variants: [itr]
seeds: [0]
cross_datasets: [elsewhere]
extract: {clips_per_shard: 16}
training:
  squares:
    batch_size: 8
    encoder: {visual: &net {blocks: [1, 1, 1, 1], width: 8, strides: [1, 2, 1, 1], kernel_sizes: [3, 1, 1, 1], weights: null},
              audio: *net, embedding_dim: 16, batch_norm: true, audio_pooling: mean}
    augmentation: {}
    initialize: {epochs: 1, temperature: 0.1, learning_rate: 1.0e-3, weight_decay: 0.0}
    iterate: {epochs: 2, temperature: 0.1, learning_rate: 1.0e-3, weight_decay: 0.0, delta_v: 0.5, delta_a: 0.5}
    methods: {initial: {}, itr: {}, dsol: {}, dsol_two_stage: {}, mssl_stage1: {class_threshold: 0.3, hidden: 8}}
"""
TRAIN, TEST, OTHER = ([f"{name}-{i:02d}" for i in range(n)] for name, n in (("train", 16), ("test", 6), ("other", 4)))


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A dataset to train on and one to score, whose media are all there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SOUNDSPOT_MEDIA_ROOT", raising=False)
    (tmp_path / "params.yaml").write_text(PARAMS)
    (tmp_path / "nowhere").mkdir()
    for dataset, scored in (("squares", TEST), ("elsewhere", OTHER)):
        manifest = make_manifest(tmp_path / "data_manifests" / dataset, scored, elsewhere=[])
        for split, clip_ids in {"test": scored, **({"train": TRAIN} if dataset == "squares" else {})}.items():
            write_clips(manifest / f"{split}.csv", [Clip(clip_id, video=f"{clip_id}.mp4") for clip_id in clip_ids])
            for clip_id in clip_ids:
                (tmp_path / "nowhere" / f"{clip_id}.mp4").write_bytes(b"x")
    return tmp_path


def change(name: str, old: str, new: str) -> Callable[[Path], None]:
    def apply(project: Path) -> None:
        text = (project / name).read_text()
        assert old in text
        (project / name).write_text(text.replace(old, new))

    return apply


def boxes(dataset: str, rows: list[Box]) -> Callable[[Path], None]:
    return lambda project: write_boxes(boxes_path(project / "data_manifests" / dataset, "test"), rows)


def clips(dataset: str, clip_ids: list[str]) -> Callable[[Path], None]:
    rows = [Clip(clip_id, video=f"{clip_id}.mp4") for clip_id in clip_ids]
    return lambda project: write_clips(project / "data_manifests" / dataset / "test.csv", rows)


def remove(name: str) -> Callable[[Path], None]:
    return lambda project: (project / name).unlink()


def text(name: str, content: str) -> Callable[[Path], None]:
    return lambda project: (project / name).write_text(content)


# The later stages, on what extraction would give them.


def initialized(project: Path, variant: str | None = None) -> Path:
    settings = load_params(project / "params.yaml").training["squares"]
    shards, _ = make_world(len(TRAIN), size=32)
    shards.clip_ids = TRAIN
    initialize(shards, project / "runs/initialize", settings=settings, seeds=[0], device="cpu")
    if variant:
        (project / "clips.csv").write_text("split,clip_id,video,frame,audio,centre_s,label\n")
        with (project / "clips.csv").open("a") as file:
            file.writelines(f"train,{clip_id},{clip_id}.mp4,,,,\n" for clip_id in TRAIN)
        folder = project / "runs" / variant
        options = {"method": variant, "settings": settings, "seeds": [0], "clips": project / "clips.csv"}
        train(shards, project / "runs/initialize", folder, device="cpu", **options)
    return project / "runs/initialize/model.pt"


def trained(variant: str) -> Callable[[Path], object]:
    return lambda project: initialized(project, variant)


def evaluated(dataset: str = "squares") -> Callable[[Path], None]:
    def run(project: Path) -> None:
        manifest = project / "data_manifests" / dataset
        found = [
            clip.clip_id for clip in read_clips(manifest / "test.csv") if (project / "nowhere" / clip.video).exists()
        ]
        shards = make_split(project / "data" / dataset / "shards" / "test", found)
        rule, folder = load_card(manifest).evaluation, project / "results"
        (project / "trained.csv").write_text(
            "split,clip_id,video,frame,audio,centre_s,label\ntrain,train-00,x.mp4,,,,\n"
        )
        (project / "baselines.json").write_text("{}")
        evaluate(
            project / "runs/itr",
            shards,
            manifest,
            folder,
            maps_folder=folder / "maps",
            baselines=project / "baselines.json",
            split="test",
            evaluation=rule,
            seeds=[0],
            clips=project / "trained.csv",
            device="cpu",
        )

    return run


def baselines_scored(project: Path) -> None:
    manifest = project / "data_manifests/squares"
    shards = make_split(project / "data/squares/shards/test", TEST)
    evaluate_content_free(shards, manifest, project / "b.json", split="test", evaluation=load_card(manifest).evaluation)


def other_maps_computed(project: Path) -> None:
    compute_maps(initialized(project), make_split(project / "shards/test", OTHER), split="test", device="cpu")


SILENT = [replace(box, sounding=False) for clip_id in TEST for box in boxes_of(clip_id)]
THIN = [Box(clip_id, "bright", "test", True, 0.501, 0.1, 0.5011, 0.5) for clip_id in TEST]
METHODS = "methods: {initial: {}, itr: {}, "


class Fault(NamedTuple):
    breaks: list[Callable[[Path], None]]
    reason: str  # a pattern that the messages of all stages contain
    later: Callable[[Path], object]
    variant: str = "itr"
    prepared: str = "squares"  # the dataset that `prepare` refuses; empty if only `soundspot check` can


FAULTS = {
    "one clip to score": Fault(
        [clips("squares", TEST[:1]), boxes("squares", boxes_of(TEST[0]))], "at least 2 clips.* has 1", evaluated()
    ),
    "all boxes silent": Fault([boxes("squares", SILENT)], "no clip is left.* 6 clips have no sounding", evaluated()),
    "all boxes silent, baselines": Fault(
        [boxes("squares", SILENT)], "no clip is left.* 6 clips have no sounding", baselines_scored
    ),
    "no box has a pixel": Fault([boxes("squares", THIN)], "no clip is left.* 6 have boxes outside", evaluated()),
    "boxes only for a clip without media": Fault(
        [boxes("squares", boxes_of(TEST[0])), remove(f"nowhere/{TEST[0]}.mp4")],
        "no clip is left.* 5 clips have no sounding.* 1 clips with sounding boxes",
        evaluated(),
    ),
    "malformed boxes": Fault(
        [text("data_manifests/squares/test_boxes.csv", "nonsense\n")], r"test_boxes\.csv:1: missing column", evaluated()
    ),
    "unknown protocol": Fault(
        [change("data_manifests/squares/dataset.yaml", "paper256", "paper265")], "'paper265'", evaluated()
    ),
    "batch larger than the training set": Fault(
        [change("params.yaml", "batch_size: 8", "batch_size: 17")], "batch_size 17 .* of 16 clips", initialized
    ),
    "no pretrained weights": Fault(
        [change("params.yaml", "weights: null", "weights: weights/none.pth")],
        r"weights/none\.pth: no such file",
        initialized,
        prepared="",
    ),
    "encoders that do not fit together": Fault(
        [change("params.yaml", "audio: *net, embedding_dim: 16", "audio: {width: 4}, embedding_dim: null")],
        "visual have 64 channels and those of audio 32.*embedding_dim",
        initialized,
        prepared="",
    ),
    "labels are missing": Fault([], "16 of 16 .*'train-00'", trained("mssl_stage1"), "mssl_stage1", prepared=""),
    "more clusters than clips": Fault(
        [change("params.yaml", "dsol: {}", "dsol: {clusters: 17}")],
        "clusters 17 .* 16",
        trained("dsol"),
        "dsol",
        prepared="",
    ),
    "maps too small": Fault(
        [change("params.yaml", "dsol: {}", "dsol: {silence_grid: 5}")],
        "silence_grid 5 .* 4 cells",
        trained("dsol"),
        "dsol",
        prepared="",
    ),
    "no epoch left for a stage": Fault(
        [change("params.yaml", "dsol_two_stage: {}", "dsol_two_stage: {stage_one_epochs: 2}")],
        "stage_one_epochs 2",
        trained("dsol_two_stage"),
        "dsol_two_stage",
        prepared="",
    ),
    "another dataset without boxes": Fault(
        [remove("data_manifests/elsewhere/test_boxes.csv")],
        "no boxes for the split 'test'",
        evaluated("elsewhere"),
        prepared="elsewhere",
    ),
    "another dataset with one clip": Fault(
        [clips("elsewhere", OTHER[:1]), boxes("elsewhere", boxes_of(OTHER[0]))],
        "at least 2 clips.* has 1",
        evaluated("elsewhere"),
        prepared="elsewhere",
    ),
    "another dataset with a training clip": Fault(
        [
            clips("elsewhere", [*OTHER, TRAIN[0]]),
            lambda project: (project / "data_manifests/elsewhere/test.csv").write_text(
                (project / "data_manifests/elsewhere/test.csv").read_text().replace("train-00.mp4", "train-00x.mp4")
            ),
            text("nowhere/train-00x.mp4", "x"),
        ],
        "1 of 5 clips have an id that is also in the training set",
        evaluated("elsewhere"),
        prepared="",
    ),
    "another dataset with other audio": Fault(
        [change("data_manifests/squares/dataset.yaml", "clip_seconds: 0.5", "clip_seconds: 1.0")],
        "trained with clip_seconds 1.0, but these clips are made with 0.5",
        other_maps_computed,
        prepared="",
    ),
}


def stop(command, *arguments) -> int:
    with pytest.raises(SystemExit) as stopped:
        run_command(command, [str(argument) for argument in arguments])
    return int(stopped.value.code or 0)


def prepare(project: Path, dataset: str) -> int:
    return stop(prepare_stage, "--manifest", project / "data_manifests" / dataset, "--out", project / "data" / dataset)


def test_the_dataset_of_the_table_is_sound(project, capsys):
    assert prepare(project, "squares") == prepare(project, "elsewhere") == 0
    for variant in ("itr", "dsol", "dsol_two_stage"):
        assert stop(soundspot, "check", variant, "--batches", 0, "--device", "cpu") == 0, capsys.readouterr().err


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_fault_is_refused_before_and_where_it_would_stop_a_stage(project, capsys, fault):
    for apply in fault.breaks:
        apply(project)

    assert stop(soundspot, "check", fault.variant, "--batches", 0, "--device", "cpu") == 1
    (problem,) = capsys.readouterr().err.splitlines()
    assert re.search(fault.reason, problem)

    others = {"squares", "elsewhere"} - {fault.prepared}
    assert all(prepare(project, dataset) == 0 for dataset in others)
    capsys.readouterr()
    if fault.prepared:
        assert prepare(project, fault.prepared) == 1
        assert re.search(fault.reason, capsys.readouterr().err)

    with pytest.raises(SoundspotError, match=fault.reason):
        fault.later(project)


def test_a_dataset_to_train_on_only_stays_usable(project, capsys):
    for name in ("test_boxes.csv", "test.csv"):
        (project / "data_manifests/squares" / name).unlink()
        assert prepare(project, "squares") == 0
        assert "no boxes for the split 'test'" in capsys.readouterr().err
        # Without a list, `score_split` cannot be extracted, which a complete `dvc repro` does.
        assert stop(soundspot, "check", "--batches", 0, "--device", "cpu") == (name == "test.csv")
        capsys.readouterr()


def test_a_dataset_that_is_not_the_active_one_is_not_held_to_its_batch_size(project):
    change("params.yaml", "dataset: squares", "dataset: third")(project)
    change("params.yaml", "batch_size: 8", "batch_size: 64")(project)
    settings = (project / "params.yaml").read_text()
    third = settings[settings.index("  squares:") :].replace("squares:", "third:")
    (project / "params.yaml").write_text(settings + third.replace("&net", "&third").replace("*net", "*third"))
    assert prepare(project, "squares") == 0


def test_another_dataset_needs_a_list_of_the_scored_split(project, capsys):
    change("params.yaml", "seeds: [0]", "seeds: [0]\nscore_split: validation")(project)
    assert prepare(project, "elsewhere") == 1
    assert "elsewhere/validation.csv: no such clip list" in capsys.readouterr().err


def test_what_only_weakens_scores_is_a_note(project, capsys):
    write_boxes(project / "data_manifests/squares/test_boxes.csv", [*boxes_of(TEST[0]), *boxes_of(TEST[0])])
    change("data_manifests/squares/dataset.yaml", "paper256", "music-synthetic-a")(project)
    assert stop(soundspot, "check", "--batches", 0, "--device", "cpu", "--json") == 0
    notes = json.loads(capsys.readouterr().out)["notes"]
    assert [note for note in notes if "2 boxes are listed twice" in note]
    assert [note for note in notes if "no training clip has the label 'bright'" in note]


def test_ids_that_a_spreadsheet_changed_are_named_with_those_of_the_list(project, capsys):
    write_clips(project / "data_manifests/squares/test.csv", [Clip(f"00{i}", video=f"test-0{i}.mp4") for i in range(6)])
    write_boxes(project / "data_manifests/squares/test_boxes.csv", [Box("2", "dog", "me", True, 0, 0, 1, 1)])
    assert prepare(project, "squares") == 1
    assert "such as '2'; the list has '002'" in capsys.readouterr().err
