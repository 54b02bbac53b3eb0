"""`soundspot train`: what it imports, writes and refuses before the stages run. tests/project/test_train_folder.py runs them."""

import os
import re
import shutil

import numpy as np
import pytest
import yaml

from pipeline.apps.preflight import check
from pipeline.cli import train as command
from pipeline.common.errors import TrainingError
from pipeline.manifests.boxes import Box, write_boxes
from pipeline.manifests.clips import read_clips
from tests.cli.test_main import run
from tests.support.importing import tree, write_files
from tests.support.media_files import steady, write_media
from tests.support.projects import ROOT, shrunk

BACKBONES = {"small": "demo", "lite0": "real", "resnet18": "soundnet_flickr"}
HEAD = """\
dataset: demo   # the active one
variants: [initial]   # to train
seeds: [0]
extract: {clips_per_shard: 512, max_reject_fraction: 0.1, clip_time_limit_s: 30.0}
"""


def hiss(seed):
    return np.random.default_rng(seed).normal(scale=0.1, size=(1, 8000)).astype(np.float32)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with small settings, and a folder of videos; DVC fails at once."""
    monkeypatch.chdir(tmp_path)
    for variable in ("SOUNDSPOT_MEDIA_ROOT", "SOUNDSPOT_MEDIA_ROOT_VIDEOS"):
        monkeypatch.delenv(variable, raising=False)
    presets = yaml.safe_load((ROOT / "params.yaml").read_text())["training"]
    blocks = {name: shrunk(presets[name], batch_size=96) for name in ("demo", "soundnet_flickr")}
    blocks["soundnet_flickr"]["encoder"]["embedding_dim"] = 8
    (tmp_path / "params.yaml").write_text(HEAD + yaml.safe_dump({"training": blocks}))
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    for name in ("videos", "my_videos"):
        (tmp_path / "runs" / name).mkdir(parents=True)  # the check measures only what has never been trained
    (tmp_path / "videos").mkdir()
    for number in range(10):
        write_media(tmp_path / "videos" / f"v{number}.mkv", times=steady(0.5, 4), sound=hiss(number))
    return tmp_path


@pytest.fixture
def targets(monkeypatch):
    """The stages that DVC is asked for. They fail, which ends the command."""
    asked = []

    def refuse(stages):
        asked.append(stages)
        raise TrainingError("stage refused")

    monkeypatch.setattr(command, "_reproduce", refuse)
    return asked


def train(*arguments):
    return run("train", "videos", "--backbone", "small", *arguments)


def params():
    with open("params.yaml") as file:
        return yaml.safe_load(file)


def test_it_imports_checks_and_asks_for_the_stages(project, targets, capsys):
    before = params()
    shutil.rmtree("runs")
    assert train() == 1
    printed = capsys.readouterr()
    assert "error: stage refused" in printed.err
    assert "videos: train: 8 used" in printed.out
    assert re.search("videos: checked; clips: train 8, test 2; .* training takes about [0-9.]+ s on", printed.out)
    assert targets == [["train@videos-iterative", "extract@videos-test"]]
    after = params()
    block = after["training"].pop("videos")
    assert block == before["training"]["demo"] | {"batch_size": 4}
    assert after == before | {"dataset": "videos", "variants": ["initial", "iterative"]}
    # What the user wrote stays as it is.
    text = (project / "params.yaml").read_text()
    assert text.startswith(HEAD.replace("demo ", "videos ", 1).replace("[initial]", "[initial, iterative]"))


def test_options_set_the_settings_also_of_an_imported_dataset(project, targets):
    assert train("--epochs", 3, "--batch-size", 2, "--method", "itr") == 1
    files = tree(project / "data_manifests")
    block = params()["training"]["videos"]
    assert [block["batch_size"], block["initialize"]["epochs"], block["iterate"]["epochs"]] == [2, 3, 3]
    assert params()["variants"] == ["initial", "itr"]
    # Without options, the settings stay.
    assert run("train", "videos", "--method", "itr") == 1
    assert params()["training"]["videos"] == block
    assert train("--epochs", 5, "--method", "itr") == 1
    block["initialize"]["epochs"] = block["iterate"]["epochs"] = 5
    assert params()["training"]["videos"] == block
    assert tree(project / "data_manifests") == files
    assert targets == 3 * [["train@videos-itr", "extract@videos-test"]]


def test_a_dataset_with_boxes_is_scored(project, targets, capsys):
    assert train() == 1
    manifest = project / "data_manifests/videos"
    (clip, *_) = read_clips(manifest / "test.csv")
    write_boxes(manifest / "test_boxes.csv", [Box(clip.clip_id, "dog", "1", True, 0.1, 0.1, 0.5, 0.5)])
    boxes = (manifest / "test_boxes.csv").read_bytes()
    assert train() == 1
    assert targets[1:] == [["report@videos"]]
    assert (manifest / "test_boxes.csv").read_bytes() == boxes
    shutil.copy("videos/v0.mkv", "videos/new.mkv")
    capsys.readouterr()
    assert train() == 1
    # Otherwise the import would remove the boxes.
    assert "--boxes data_manifests/videos/test_boxes.csv" in capsys.readouterr().err


def test_new_videos_are_named_and_not_added(project, targets, capsys):
    assert train() == 1
    files = tree(project / "data_manifests")
    shutil.copy("videos/v0.mkv", "videos/new.mkv")
    capsys.readouterr()
    assert train() == 1
    assert "1 video, such as 'new.mkv'" in capsys.readouterr().err
    assert tree(project / "data_manifests") == files
    assert len(targets) == 2


def test_videos_outside_the_project_are_found(project, targets, tmp_path_factory, monkeypatch, capsys):
    outside = tmp_path_factory.mktemp("elsewhere") / "my videos"
    shutil.move(project / "videos", outside)
    for _ in range(2):
        monkeypatch.setenv("SOUNDSPOT_MEDIA_ROOT_MY_VIDEOS", "")
        assert run("train", outside, "--backbone", "small") == 1
        assert os.environ["SOUNDSPOT_MEDIA_ROOT_MY_VIDEOS"] == str(outside)
    # The command sets the variable itself, and says at its end that other commands need it.
    assert "export SOUNDSPOT" not in capsys.readouterr().out
    lines = command._summary(outside, "my_videos", "iterative", "test", scored=False)
    assert lines["media"].endswith(f"export SOUNDSPOT_MEDIA_ROOT_MY_VIDEOS='{outside}'")
    shutil.copytree(outside, project / "inside")
    assert "media" not in command._summary(project / "inside", "my_videos", "iterative", "test", scored=False)
    assert targets == 2 * [["train@my_videos-iterative", "extract@my_videos-test"]]
    assert str(outside) not in (project / "data_manifests/my_videos/dataset.yaml").read_text()


def test_the_check_uses_the_device_of_the_stages(project, targets, monkeypatch):
    given = []
    own = check.check_dataset
    monkeypatch.setattr(check, "check_dataset", lambda *a, **k: given.append(k["device"]) or own(*a, **k))
    monkeypatch.setenv("SOUNDSPOT_DEVICE", "cpu")
    assert train() == 1
    assert given == ["cpu"]


def test_each_backbone_is_a_preset_of_the_project():
    presets = yaml.safe_load((ROOT / "params.yaml").read_text())["training"]
    assert {name: backbone.preset for name, backbone in command.BACKBONES.items()} == BACKBONES
    assert presets.keys() >= {*BACKBONES.values()}


def test_without_a_pretrained_backbone_the_user_chooses(project, targets, monkeypatch, capsys):
    monkeypatch.setattr(command, "_PACKAGES", ("no_such_package",))
    before = tree(project)
    assert run("train", "videos") == 1
    error = capsys.readouterr().err
    assert all(text in error for text in ("'.[backbones]'", "--backbone resnet18", "--backbone small"))
    assert tree(project) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere",), "nowhere: no such folder"),
        (("videos", "--method", "itrative"), "--method itrative: "),
        (("empty",), "empty: no usable clip in empty, at least 3 are required"),
        (("few",), "few: usable clips in few: 2, at least 3 are required; most frequent reason: cannot be opened"),
        (("videos", "--name", "demo"), "training.demo already; "),
        (("videos", "--name", "a/b"), "invalid dataset name 'a/b'"),
    ],
)
def test_what_cannot_be_imported_is_refused_on_one_line(project, targets, capsys, arguments, message):
    (project / "empty").mkdir()
    write_files(project / "few", ["broken.mp4"])
    for name in ("v0.mkv", "v1.mkv"):
        shutil.copy(project / "videos" / name, project / "few")
    before = tree(project)
    assert run("train", *arguments, "--backbone", "small") == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert message in line
    assert tree(project) == before
    assert targets == []


def test_other_videos_or_encoders_need_another_name(project, targets, capsys):
    assert train() == 1
    before = tree(project)
    write_files(project / "others", ["x.mp4"])
    assert run("train", "others", "--name", "videos") == 1
    assert "none of its videos are in others" in capsys.readouterr().err
    assert run("train", "videos", "--backbone", "resnet18") == 1
    assert "--backbone resnet18: training.videos" in capsys.readouterr().err
    assert {**tree(project)} == before | {"others/x.mp4": b"x"}


def test_a_variant_without_settings_is_refused_before_they_change(project, targets, capsys):
    assert train() == 1
    edited = params() | {"dataset": "demo", "variants": ["best_cell"]}
    edited["training"]["demo"]["methods"]["best_cell"] = edited["training"]["demo"]["methods"]["iterative"]
    (project / "params.yaml").write_text(yaml.safe_dump(edited))
    assert train() == 1
    assert "training.videos.methods has no best_cell" in capsys.readouterr().err
    assert params() == edited
    assert len(targets) == 1


def test_problems_of_the_check_end_the_command(project, targets, capsys):
    assert train("--batch-size", 9) == 1
    error = capsys.readouterr().err
    assert "problem: batch_size 9" in error
    assert "error: videos: cannot be trained yet (1 problem," in error
    assert targets == []


@pytest.mark.parametrize(
    "content",
    [b"", b"training: 3", HEAD.replace("variants", "rows").encode(), HEAD.encode(), HEAD.encode() + b"\xff\xfe"],
    ids=["empty", "no mapping", "no variants", "no training", "no UTF-8"],
)
def test_a_malformed_settings_file_is_one_line_and_nothing_is_written(project, targets, capsys, content):
    (project / "params.yaml").write_bytes(content)
    before = tree(project)
    assert train() == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: params.yaml: ")
    assert tree(project) == before


def test_one_held_out_video_is_too_few_to_calibrate_and_the_end_is_printed(project, monkeypatch, capsys):
    for number in range(3, 10):
        (project / "videos" / f"v{number}.mkv").unlink()
    monkeypatch.setattr(command, "_reproduce", lambda stages: None)
    assert train() == 0
    printed = capsys.readouterr()
    assert "videos: not calibrated, because only 1 video is held out" in printed.err
    assert "runs/videos/iterative/model.pt" in printed.out


def test_outside_a_project(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "videos").mkdir()
    assert run("train", "videos") == 1
    assert "dvc.yaml: no such file" in capsys.readouterr().err
