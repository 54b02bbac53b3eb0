"""`soundspot check`: what it finds missing, what it estimates and measures, and that it writes nothing."""

from __future__ import annotations

import json
import math
import shutil
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import h5py
import numpy as np
import pytest
import torch
import yaml

from pipeline.apps.preflight import check as preflight
from pipeline.apps.preflight import outputs
from pipeline.apps.preflight.check import check_dataset
from pipeline.apps.preflight.findings import human_bytes, human_seconds
from pipeline.apps.preflight.memory import activation_bytes, peak, reset_peak
from pipeline.apps.preflight.synthetic import SyntheticFeatures
from pipeline.apps.preflight.timing import Profile, Throughput, profile_stages, stage_times
from pipeline.cli.main import soundspot
from pipeline.common.config import TimmSettings, load_params
from pipeline.common.console import run_command
from pipeline.datasets.prepare import SplitCoverage
from pipeline.manifests.boxes import write_boxes
from pipeline.manifests.clips import Clip, write_clips
from pipeline.methods.contrastive import Contrastive
from pipeline.methods.registry import METHODS, MethodSpec
from pipeline.model.encoders import build_model
from pipeline.scoring.map_file import ResponseMaps, write_maps
from pipeline.training.train import initialize, train
from tests.support.feature_world import frozen_settings, write_weights
from tests.support.importing import tree
from tests.support.localizing import AUDIO
from tests.support.scored_world import FRAMES, MELS, SIZE, boxes_of, make_manifest, make_split
from tests.support.synthetic import make_settings, make_world

PARAMS = """\
dataset: squares
variants: [itr]
seeds: [0, 3]
extract: {clips_per_shard: 16}
training:
  squares:
    batch_size: 8
    encoder: {visual: &net {blocks: [1, 1, 1, 1], width: 8, strides: [1, 2, 1, 1], kernel_sizes: [3, 1, 1, 1], weights: null},
              audio: *net, embedding_dim: 16, batch_norm: true, audio_pooling: mean}
    augmentation: {}
    initialize: {epochs: 3, temperature: 0.1, learning_rate: 1.0e-3, weight_decay: 0.0}
    iterate: {epochs: 2, temperature: 0.1, learning_rate: 1.0e-3, weight_decay: 0.0, delta_v: 0.5, delta_a: 0.5}
    methods: {initial: {}, itr: {}}
"""
TRAIN = [f"train-{i:02d}" for i in range(40)]
TEST = [f"test-{i:02d}" for i in range(6)]
CPU = torch.device("cpu")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A small dataset whose media are all there, with nothing extracted yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SOUNDSPOT_MEDIA_ROOT", raising=False)
    (tmp_path / "params.yaml").write_text(PARAMS)
    manifest = make_manifest(tmp_path / "data_manifests" / "squares", TEST, elsewhere=[])
    (tmp_path / "nowhere").mkdir()
    for split, clip_ids in (("train", TRAIN), ("test", TEST)):
        write_clips(manifest / f"{split}.csv", [Clip(clip_id, video=f"{clip_id}.mp4") for clip_id in clip_ids])
        for clip_id in clip_ids:
            (tmp_path / "nowhere" / f"{clip_id}.mp4").write_bytes(b"x")
    return tmp_path


def check(project, **changes):
    params = load_params(project / "params.yaml")
    options = {"variants": params.variants, "n_batches": 0, "device": "cpu", **changes}
    return check_dataset(project, params, options.pop("dataset", "squares"), **options)


def world():
    """Return shards in memory of the project's training clips."""
    shards, _ = make_world(40, size=32)
    shards.clip_ids = TRAIN
    return shards


def run(*arguments):
    with pytest.raises(SystemExit) as stopped:
        run_command(soundspot, ["check", *map(str, arguments)])
    return stopped.value.code


def change(project, name, old, new):
    path = project / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_dataset_that_can_run(project, capsys):
    before = tree(project)
    assert run("--device", "cpu", "--batches", 1) == 0
    printed = capsys.readouterr()
    assert printed.out.endswith("squares: ready to run\n")
    assert "problem" not in printed.err
    for text in ("train      40     40", "runs/squares/itr/pseudo_labels", "maps of itr", "peak of training"):
        assert text in printed.out
    assert tree(project) == before


def test_json_holds_everything(project, capsys):
    assert run("--device", "cpu", "--batches", 1, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["can_run"] is True
    assert found["clips"]["train"] == {"listed": 40, "found": 40}
    assert [time["stage"] for time in found["times"]] == ["initialize", "itr", "maps of itr"]
    assert all(time["total_seconds"] > 0 for time in found["times"])
    assert 0 < found["memory_needed"] < found["memory_available"]


def test_everything_that_is_missing_is_one_line_with_what_to_do(project, capsys):
    change(project, "params.yaml", "weights: null", "weights: weights/none.pth")
    change(project, "params.yaml", "batch_size: 8", "batch_size: 64")
    change(project, "data_manifests/squares/dataset.yaml", "protocol: paper256", "protocol: paper265")
    (project / "data_manifests/squares/test_boxes.csv").unlink()
    for clip_id in TEST:
        (project / "nowhere" / f"{clip_id}.mp4").unlink()
    (project / "nowhere" / f"{TRAIN[3]}.mp4").write_bytes(b"")
    assert run("itr", "no_such_method", "--device", "cpu", "--batches", 0) == 1
    printed = capsys.readouterr()
    problems = printed.err.splitlines()
    for text in (
        "'paper265'",
        "test: none of the 6 clips",
        "weights/none.pth",
        "'no_such_method'",
        "batch_size 64 is larger than the training set of 39 clips",
    ):
        assert sum(text in problem for problem in problems) == 1, text
    assert len(problems) == 5
    assert "train: 1 of 40 clips have no media" in printed.out
    assert "cannot run yet (5 problems)" in printed.out


@pytest.mark.parametrize(
    ("visual", "problem"),
    [
        (TimmSettings(backbone="timm:resnet81"), "'resnet81'"),
        (TimmSettings(backbone="timm:levit_128s"), "224 × 224 pixels only, got 32 × 32"),
        (TimmSettings(backbone="timm:test_resnet", weights="pip:no-such-package"), "pip:no-such-package"),
        (TimmSettings(backbone="timm:test_vit", stride=16), ""),
    ],
)
def test_backbones_are_built_and_tried_on_frames_of_this_size(project, visual, problem):
    params = load_params(project / "params.yaml")
    block = params.training["squares"]
    encoder = block.encoder.model_copy(update={"visual": visual})
    training = {"squares": block.model_copy(update={"encoder": encoder})}
    found = check_dataset(
        project,
        params.model_copy(update={"training": training}),
        "squares",
        variants=["itr"],
        n_batches=0,
        device="cpu",
    )
    assert [problem in each for each in found.problems] == ([True] if problem else [])


def test_a_batch_that_cannot_be_filled_is_not_measured(project):
    change(project, "params.yaml", "batch_size: 8", "batch_size: 64")
    found = check(project, n_batches=1)
    assert [problem for problem in found.problems if "batch_size 64 is" in problem] == found.problems != []
    assert (found.times, found.memory_needed) == ([], 0)


def test_without_boxes_training_can_start(project):
    boxes = project / "data_manifests/squares/test_boxes.csv"
    boxes.unlink()
    run_ = check(project)
    assert run_.problems == []
    assert any(note.startswith("no boxes for the split 'test'") for note in run_.notes)
    boxes.write_text("nonsense\n")
    (problem,) = check(project).problems
    assert "test_boxes.csv" in problem


@pytest.fixture
def elsewhere(project):
    """Another dataset on which the models are to be scored."""
    ids = [f"other-{i}" for i in range(4)]
    manifest = make_manifest(project / "data_manifests" / "elsewhere", ids, elsewhere=[])
    write_clips(manifest / "test.csv", [Clip(clip_id, video=f"{clip_id}.mp4") for clip_id in ids])
    for clip_id in ids[1:]:
        (project / "nowhere" / f"{clip_id}.mp4").write_bytes(b"x")
    change(project, "params.yaml", "seeds: [0, 3]", "seeds: [0, 3]\ncross_datasets: [elsewhere]")
    return manifest


def test_other_datasets_that_are_scored_are_looked_at_too(project, elsewhere):
    found = check(project)
    assert found.problems == []
    (note,) = [note for note in found.notes if note.startswith("elsewhere: test: 1 of 4 clips have no media under ")]
    assert "data/elsewhere/missing.csv" in note
    assert found.clips["elsewhere: test"] == SplitCoverage(4, 3)
    folders = {output.folder: output.count for output in found.outputs}
    assert folders["data/elsewhere/shards/test"] == 1
    assert folders["results/squares/on/elsewhere/maps/itr"] == 2


def test_what_is_wrong_with_another_dataset_is_found_before_hours_are_spent(project, elsewhere):
    card = (elsewhere / "dataset.yaml").read_text()
    change(project, "data_manifests/elsewhere/dataset.yaml", "image_size: ", "image_size: 1")
    (problem,) = check(project).problems
    assert "elsewhere/dataset.yaml: trained with image_size 32, but these clips are made with 132" in problem
    (elsewhere / "dataset.yaml").write_text(card)
    write_clips(
        elsewhere / "test.csv",
        [Clip(f"other-{i}", video=f"other-{i}.mp4") for i in range(4)] + [Clip(TRAIN[3], video="x.mp4")],
    )
    (problem,) = check(project).problems
    assert f"1 of 5 clips have an id that is also in the training set, such as '{TRAIN[3]}'" in problem
    (elsewhere / "dataset.yaml").write_text(card + "leaks_allowed: true\n")
    assert check(project).problems == []
    for path in (project / "nowhere").glob("other-*"):
        path.unlink()
    (elsewhere / "test_boxes.csv").unlink()
    assert [("no boxes" in each, "none of the 5 clips" in each) for each in check(project).problems] == [
        (True, False),
        (False, True),
    ]
    (elsewhere / "dataset.yaml").write_text(card.replace("protocol: paper256", "protocol: mine"))
    assert "'mine'" in check(project).problems[0]
    shutil.rmtree(elsewhere)
    (problem,) = check(project).problems
    assert "elsewhere/dataset.yaml: no such file" in problem


def test_without_card_or_settings_or_lists(project, capsys):
    assert run("--dataset", "other") == 1
    assert "training.other: no such block; copy one of squares" in capsys.readouterr().err
    (project / "data_manifests/squares/train.csv").unlink()
    assert "train.csv: no such clip list" in check(project).problems[0]
    shutil.rmtree(project / "data_manifests")
    (problem,) = check(project).problems
    assert "dataset.yaml: no such file" in problem


def test_a_leak_is_a_problem(project):
    clips = [Clip(clip_id, video=f"{clip_id}.mp4") for clip_id in (*TRAIN, TEST[0])]
    write_clips(project / "data_manifests/squares/train.csv", clips)
    (problem,) = check(project).problems
    assert "train.csv and test.csv" in problem


def test_a_method_that_learns_from_labels_finds_one_for_each_clip(project, capsys):
    own = "{class_threshold: 0.3, hidden: 8, projection_hidden: 8, projection_dim: 8}"
    methods = f"mssl: {own}, mssl_stage1: {{class_threshold: 0.3, hidden: 8}}"
    change(project, "params.yaml", "itr: {}", f"itr: {{}}, {methods}")
    # What training would stop with, once, though two methods want it; what needs no labels is not kept from it.
    assert run("itr", "mssl", "mssl_stage1", "--device", "cpu", "--batches", 0) == 1
    (problem,) = capsys.readouterr().err.splitlines()
    assert "squares/train.csv, column label: 40 of 40 " in problem
    assert "'train-00'" in problem
    assert not check(project).problems

    write_clips(project / "data_manifests/squares/train.csv", [Clip(i, video=f"{i}.mp4", label=i[-1]) for i in TRAIN])
    assert not check(project, variants=["mssl"]).problems

    change(project, "params.yaml", "mssl: {", "mssl: {label_file: tags.csv, ")
    (problem,) = check(project, variants=["mssl", "mssl_stage1"]).problems
    assert "tags.csv: no such label file" in problem
    (project / "tags.csv").write_text("clip_id,dog\n" + "".join(f"{clip_id},0.5\n" for clip_id in TRAIN[1:]))
    (problem,) = check(project, variants=["mssl"]).problems
    assert "tags.csv: 1 of 40 " in problem
    assert "'train-00'" in problem
    # A clip that will be left out needs none.
    (project / "nowhere" / f"{TRAIN[0]}.mp4").unlink()
    assert not check(project, variants=["mssl"]).problems


def test_rendered_media_need_not_be_there(project):
    shutil.rmtree(project / "nowhere")
    with (project / "data_manifests/squares/dataset.yaml").open("a") as file:
        file.write("render: {seed: 0}\n")
    found = check(project)
    assert not found.problems
    assert found.clips["train"].found == 40
    assert found.notes[0].startswith("train: 40 of 40 videos")


def stored_bytes(path):
    """Sum the arrays in an HDF5 file or a checkpoint, without ids, which the estimate leaves out."""
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            found = [file[name] for name in file if file[name].dtype.kind in "fiu" and file[name].dims[0].keys()]
            return sum(values.nbytes for values in found)
    tensors = torch.load(path, weights_only=True)
    return sum(value.nbytes for value in tensors.values() if isinstance(value, torch.Tensor))


def test_estimated_outputs_are_the_arrays_that_training_stores(tmp_path, project):
    """Train on as many clips of the same shape, and compare every kind of file."""
    shards = world()
    settings = load_params(project / "params.yaml").training["squares"]
    initialize(shards, project / "runs/squares/initialize", settings=settings, seeds=[0, 3], device="cpu")
    found = {(o.what, o.folder): o for o in check(project).outputs}
    train(shards, project / "runs/squares/initialize", tmp_path / "itr", method="itr", settings=settings, seeds=[0, 3])
    for name, folder in (("initialize", project / "runs/squares/initialize"), ("itr", tmp_path / "itr")):
        for what, pattern, place in (
            ("pseudo-labels", "epoch_*.h5", f"runs/squares/{name}/pseudo_labels"),
            ("model.pt", "model.pt", f"runs/squares/{name}"),
            ("checkpoints", "epoch_*.pt", f"runs/squares/{name}/weights"),
        ):
            files = list(folder.rglob(pattern))
            if name == "initialize" and what == "checkpoints":
                assert files == []
                continue
            assert found[what, place].count == len(files)
            assert found[what, place].size == sum(map(stored_bytes, files)) > 0


def test_estimated_shards_and_maps_are_their_arrays(project, tmp_path):
    make_split(tmp_path, TEST)
    shape = {"image_size": SIZE, "n_mels": MELS, "n_frames": FRAMES}
    with h5py.File(tmp_path / "shard-00000.h5") as file:
        stored = file["frame"].nbytes + file["log_mel"].nbytes
    card = SimpleNamespace(image_size=SIZE, audio=SimpleNamespace(**shape))
    params = load_params(project / "params.yaml")
    found = outputs.shard_output(params, card, "squares", "test", len(TEST))
    assert (found.count, found.size) == (1, stored)
    assert outputs.shard_output(params, card, "squares", "test", 33).count == 3
    compact = params.extract.model_copy(update={"log_mel": "float16", "frame_codec": "jpeg"})
    few = outputs.shard_output(params.model_copy(update={"extract": compact}), card, "squares", "test", len(TEST)).size
    # 21 kB for 256² pixels: see docs/scale.md
    assert few == pytest.approx(len(TEST) * (SIZE**2 * 21e3 / 256**2 + MELS * FRAMES * 2), rel=0.01)
    response = np.zeros((6, 4, 4), dtype=np.float32)
    write_maps(tmp_path / "maps.h5", ResponseMaps(TEST, response, response, TEST, "test", 0, "0" * 32))
    with h5py.File(tmp_path / "maps.h5") as file:
        stored = file["response"].nbytes + file["shuffled_response"].nbytes
    assert outputs.map_output(params, Path("x"), 6, side=4).size == 2 * stored  # two seeds


@pytest.mark.parametrize("size", [64, 63, 50, 33])
def test_the_side_of_a_map_is_the_models(size):
    settings = make_settings()
    model = build_model(settings.encoder).eval()
    with torch.inference_mode():
        side = model.encode_frames(torch.zeros(1, 3, size, size)).shape[-1]
    assert outputs.map_side(SimpleNamespace(image_size=size), settings) == side


def test_what_is_written_already_needs_no_room(project):
    empty = check(project).disk_needed
    for number, name in enumerate(
        ("model.pt", "seed_3/model.pt", "pseudo_labels/epoch_000.h5", "seed_3/pseudo_labels/epoch_001.h5")
    ):
        path = project / "runs/squares/itr" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(1000))
        assert empty - check(project).disk_needed == 1000 * (number + 1), name


def test_what_is_there_of_another_split_or_dataset_makes_no_room(project, elsewhere):
    empty = check(project).disk_needed
    for name in ("data/elsewhere/shards/train/shard-00000.h5", "results/squares/on/old/maps/itr/maps.h5"):
        (project / name).parent.mkdir(parents=True)
        (project / name).write_bytes(bytes(10**7))
    assert check(project).disk_needed == empty
    shard = project / "data/elsewhere/shards/test/shard-00000.h5"
    shard.parent.mkdir(parents=True)
    shard.write_bytes(bytes(1000))
    assert check(project).disk_needed == empty - 1000


def test_a_full_disk(project, monkeypatch):
    needed = check(project).disk_needed
    usage = shutil.disk_usage(project)
    monkeypatch.setattr(outputs.shutil, "disk_usage", lambda path: usage._replace(free=needed - 5000))
    (problem,) = check(project).problems
    assert "5 kB of disk space missing" in problem
    monkeypatch.setattr(outputs.shutil, "disk_usage", lambda path: usage._replace(free=needed + 5000))
    found = check(project)
    assert not found.problems
    assert "DVC's cache" in found.notes[0]


def test_a_batch_that_needs_more_memory_than_there_is(project, monkeypatch):
    throughput = {"initialize": Throughput(0.5, 0.25), "itr": Throughput(2.0, 1.0)}
    monkeypatch.setattr(preflight, "available_bytes", lambda device: 5 * 10**8)
    monkeypatch.setattr(preflight, "profile_stages", lambda *a, **k: Profile(throughput, 10**9))
    found = check(project, n_batches=1)
    (problem,) = found.problems
    assert "a batch of 8 needs about 1 GB on cpu, but only 500 MB" in problem
    assert "lower it to about 3" in problem
    # Beside what was measured, the pseudo-labels of 40 clips.
    assert 10**9 + 4 * 40 * 4 * 16 < found.memory_needed < 1.001e9


def test_a_batch_that_would_end_the_process_is_not_tried(project, monkeypatch):
    monkeypatch.setattr(preflight, "available_bytes", lambda device: 10**5)
    monkeypatch.setattr(preflight, "profile_stages", lambda *a, **k: pytest.fail("tried"))
    (problem,) = check(project, n_batches=1).problems
    assert "a batch of 8 needs at least" in problem
    assert "only 100 kB are available" in problem
    assert check(project).problems == []


def test_the_estimated_need_of_a_batch_is_what_the_gradients_keep():
    weight = torch.nn.Parameter(torch.ones(1))

    class Model:
        def state_dict(self):
            return {"weight": weight}

        def encode_frames(self, frames):
            return (frames * weight).exp().sigmoid()  # keeps its frames and both results

        def encode_audio(self, log_mel):
            return (log_mel + weight).exp()  # keeps its result

    needed = activation_bytes(Model(), image_size=10, log_mel_shape=(4, 5), batch_size=6)
    assert needed == 6 * 4 * (3 * 3 * 10 * 10 + 4 * 5)


@pytest.mark.parametrize("changes", [{"clusters": 64}, {"clusters": 4, "stage_one_epochs": 3, "epochs": 5}])
def test_methods_with_stages_and_clusters_are_measured(changes):
    settings = make_settings(methods={"dsol_two_stage": changes})
    shape = {"image_size": 32, "audio": AUDIO, "n_batches": 1, "device": CPU}
    found = profile_stages(settings, ["dsol_two_stage"], **shape, on_stage=lambda stage: None)
    assert found.throughput["dsol_two_stage"].pair_seconds > 0


def test_a_row_without_epochs_takes_no_training():
    settings = make_settings()
    shape = {"image_size": 32, "audio": AUDIO, "n_batches": 1, "device": CPU}
    found = profile_stages(settings, ["untouched"], **shape, on_stage=lambda stage: None)
    params = SimpleNamespace(seeds=[0, 1], score_split="test")
    clips = {"train": SimpleNamespace(found=80), "test": SimpleNamespace(found=10)}
    times = {
        each.stage: each for each in stage_times(found, clips, params=params, settings=settings, methods=["untouched"])
    }
    assert (times["untouched"].epochs, times["untouched"].total_seconds) == (0, 0)
    assert times["maps of untouched"].total_seconds > 0


def test_a_device_that_runs_out_of_memory(project, monkeypatch):
    def too_much(*arguments, **options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(preflight, "profile_stages", too_much)
    (problem,) = check(project, n_batches=1).problems
    assert "a batch of 8 does not fit" in problem
    assert "device 'cuda:99' cannot be used" in check(project, device="cuda:99").problems[0]


def test_times_are_those_of_the_schedule(project, monkeypatch):
    throughput = {"initialize": Throughput(0.5, 0.25), "itr": Throughput(2.0, 1.0)}
    monkeypatch.setattr(preflight, "profile_stages", lambda *a, **k: Profile(throughput, 1000))
    change(project, "params.yaml", "batch_size: 8", "batch_size: 12")
    first, second, maps = check(project, n_batches=1).times
    # 40 clips fill three batches of 12. Two seeds; the initialization labels once, each epoch of itr does.
    assert (first.epochs, first.epoch_seconds, first.label_seconds) == (6, 18.0, 10.0)
    assert first.total_seconds == 2 * (3 * 18.0 + 10.0)
    assert second.total_seconds == 2 * 2 * (72.0 + 40.0)
    assert maps.total_seconds == 2 * 2 * 6 * 1.0


TWINS = ("mssl_stage1", "mssl_stage1_eq2")


@pytest.mark.parametrize(("keep_epochs", "methods", "own", "trains"), [
    (3, TWINS, {}, False),
    (3, TWINS[::-1], {}, True),  # its twin has not ended when it begins
    (2, TWINS, {}, True),  # the weights of the start are not kept
    (3, TWINS[1:], {}, True),
    (3, TWINS, {"temperature": 0.5}, True),
])  # fmt: skip
def test_a_variant_that_reuses_weights_only_labels(project, monkeypatch, keep_epochs, methods, own, trains):
    iterate = make_settings().iterate.model_copy(update={"keep_epochs": keep_epochs})
    settings = make_settings(iterate=iterate, methods={TWINS[0]: {}, TWINS[1]: own})
    params = load_params(project / "params.yaml")
    found = Profile({name: Throughput(2.0, 1.0) for name in ("initialize", *methods)}, 1000)
    clips = {"train": SplitCoverage(40, 40), "test": SplitCoverage(6, 6)}
    times = {t.stage: t for t in stage_times(found, clips, params=params, settings=settings, methods=methods)}
    assert times[TWINS[1]].epoch_seconds == (80.0 if trains else 0.0)
    # Two seeds of two epochs. MSSL reads no labels: with two checkpoints, only the last epoch is labeled.
    labeling = 40.0 * (keep_epochs - 1)
    assert times[TWINS[1]].total_seconds == 2 * ((160.0 if trains else 0.0) + labeling)
    assert TWINS[0] not in methods or times[TWINS[0]].total_seconds == 2 * (160.0 + labeling)


def test_a_variant_that_reuses_weights_is_measured_by_itself():
    settings = make_settings(methods={name: {} for name in TWINS})
    found = profile_stages(
        settings, TWINS, image_size=32, audio=AUDIO, n_batches=2, device=CPU, on_stage=lambda stage: None
    )
    assert all(each.pair_seconds > 0 and each.label_seconds > 0 for each in found.throughput.values())


def test_seeds_side_by_side_are_mentioned(project, monkeypatch):
    throughput = {"initialize": Throughput(0.5, 0.25), "itr": Throughput(2.0, 1.0)}
    monkeypatch.setattr(preflight, "profile_stages", lambda *a, **k: Profile(throughput, 1000))
    assert any("SOUNDSPOT_SEEDS_AT_ONCE" in note for note in check(project, n_batches=1).notes)
    change(project, "params.yaml", "seeds: [0, 3]", "seeds: [0]")
    assert not any("SOUNDSPOT_SEEDS_AT_ONCE" in note for note in check(project, n_batches=1).notes)


def test_the_test_run_uses_the_real_loss(monkeypatch):
    calls = []

    class Slow(Contrastive):
        def loss(self, model, batch):
            calls.append(tuple(batch.frames.shape))
            time.sleep(0.08)
            return super().loss(model, batch)

    monkeypatch.setitem(sys.modules, "slow_method", SimpleNamespace(Slow=Slow))
    monkeypatch.setitem(METHODS, "slow", MethodSpec("slow_method:Slow", "slow"))
    settings = make_settings(methods={"slow": {}, "initial": {}})
    told = []
    found = profile_stages(
        settings, ["slow"], image_size=32, audio=AUDIO, n_batches=2, device=CPU, on_stage=told.append
    )
    assert calls == [(8, 3, 32, 32)] * 2
    assert told == ["initialize", "slow"]
    assert found.throughput["slow"].pair_seconds > 0.01  # 0.08 s in each loss of 8 pairs
    assert found.throughput["slow"].label_seconds > 0
    assert found.peak_bytes > 0


def test_the_peak_is_measured_again():
    reset_peak(CPU)
    before = peak(CPU)
    ballast = torch.ones(30_000_000)
    assert peak(CPU) - before > 0.9 * ballast.nbytes


def test_units():
    assert [human_bytes(n) for n in (12, 1500, 2.5e9, 4e12)] == ["12 B", "1.5 kB", "2.5 GB", "4 TB"]
    assert [human_seconds(n) for n in (0.5, 42, 210, 25200, 181440)] == ["0.5 s", "42 s", "3.5 min", "7.0 h", "2.1 d"]


def test_boxes_of_the_scored_split_are_enough(project):
    write_boxes(project / "data_manifests/squares/test_boxes.csv", boxes_of(TEST[0]))
    assert not check(project).problems


def freeze(project, *, audio=False):
    """Give the project a frozen visual backbone with weights, and a frozen audio backbone if `audio`."""
    params = yaml.safe_load((project / "params.yaml").read_text())
    encoder = params["training"]["squares"]["encoder"]
    for side in ("visual", "audio") if audio else ("visual",):
        encoder[side] = encoder[side] | {"trainable": "none", "weights": str(project / f"{side}.pth")}
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    settings = load_params(project / "params.yaml").training["squares"]
    write_weights(project / "visual.pth", visual=settings.encoder.visual)
    if audio:
        write_weights(project / "audio.pth", visual=settings.encoder.audio, channels_in=1)


@pytest.mark.parametrize("audio", [False, True], ids=["visual", "visual and audio"])
def test_stored_features_are_forecast(project, monkeypatch, audio):
    read = Mock(wraps=SyntheticFeatures.read)
    monkeypatch.setattr(SyntheticFeatures, "read", lambda *arguments, **options: read(*arguments, **options))
    freeze(project, audio=audio)
    found = check(project, n_batches=1)
    assert found.problems == []
    sizes = {output.folder: output.size for output in found.outputs if output.what == "features"}
    # 64 channels in float16; mirrored frames for training alone
    cells = (SIZE // 8) ** 2
    heard = math.ceil(MELS / 8) * math.ceil(FRAMES / 8) if audio else 0
    assert sizes == {
        "data/squares/features/train": 40 * 64 * (2 * cells + heard) * 2,
        "data/squares/features/test": 6 * 64 * (cells + heard) * 2,
    }
    # AdamW has no moments of a frozen net.
    model = build_model(load_params(project / "params.yaml").training["squares"].encoder)
    trained = ("visual_projection", "audio_projection") if audio else ("visual_projection", "audio_projection", "audio")
    moments = 2 * sum(v.nbytes for name, v in model.named_parameters() if name.split(".")[0] in trained)
    (state,) = [output.size for output in found.outputs if output.what.startswith("state.pt")]
    assert state == sum(value.nbytes for value in model.state_dict().values()) + moments
    stages = [time.stage for time in found.times]
    assert stages == ["features", "initialize", "itr", "maps of itr"]
    assert found.times[0].total_seconds > 0
    assert read.call_count > 4, "the test run must train on features"


def test_the_forecast_of_an_unfinished_run_includes_its_teacher(project):
    def forecast():
        return [output.size for output in check(project, n_batches=1).outputs if output.what.startswith("state.pt")]

    (plain,), params = forecast(), yaml.safe_load((project / "params.yaml").read_text())
    params["training"]["squares"]["iterate"]["teacher_decay"] = 0.9
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    model = build_model(load_params(project / "params.yaml").training["squares"].encoder)
    assert forecast() == [plain + sum(value.nbytes for value in model.state_dict().values())]


def test_a_trained_backbone_stores_no_features(project):
    found = check(project, n_batches=1)
    assert not [output for output in found.outputs if output.what == "features"]
    assert found.times[0].stage == "initialize"


def test_the_time_of_the_features_is_shared_by_the_workers():
    settings = frozen_settings(Path("net.pth"))
    times = stage_times(
        Profile(
            {"initialize": Throughput(1.0, 1.0), "itr": Throughput(1.0, 1.0)},
            1,
            frozen_seconds={"visual": 0.5, "audio": 0.25},
        ),
        {"train": SplitCoverage(40, 40), "test": SplitCoverage(10, 10)},
        params=SimpleNamespace(seeds=[0, 1], score_split="test"),
        settings=settings,
        methods=["itr"],
        workers=3,
    )
    assert (times[0].stage, times[0].total_seconds) == ("features", ((2 * 40 + 10) * 0.5 + (40 + 10) * 0.25) / 3)
