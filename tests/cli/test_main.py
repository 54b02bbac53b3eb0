import json
import os
import re
import signal
import subprocess
import sys
from importlib import import_module

import click
import h5py
import pytest
import yaml

from pipeline.cli.main import soundspot
from pipeline.common.console import run_command
from pipeline.manifests.boxes import read_boxes
from pipeline.manifests.clips import Clip, read_clips, write_clips
from tests.shards.test_shards import make_shard
from tests.support.importing import make_project, tree, write_files, write_json, write_lines, write_video
from tests.support.splits import finish_split

GOOD, EMPTY = "zpWuikVorYg_000032", "M1P1xla8rg0_000000"


@pytest.fixture
def project(tmp_path, monkeypatch):
    folder = make_project(tmp_path / "project")
    monkeypatch.chdir(folder)
    monkeypatch.delenv("SOUNDSPOT_MEDIA_ROOT", raising=False)
    return folder


def run(*arguments):
    """Run the command line and return its exit code."""
    with pytest.raises(SystemExit) as stopped:
        run_command(soundspot, [str(argument) for argument in arguments])
    return stopped.value.code


def all_commands(group, context):
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        yield name, command
        if isinstance(command, click.Group):
            yield from all_commands(command, click.Context(command, parent=context))


def test_every_command_shows_an_example():
    for name, command in all_commands(soundspot, click.Context(soundspot)):
        assert "Example" in (command.help or ""), name
        assert "soundspot " in command.help, name


def test_the_preset_of_the_demo(project, capsys):
    assert run("import", "demo", "--name", "tiny", "--train", 4, "--test", 2, "--preset", "nothing") == 1
    assert "demo, other, soundnet_flickr" in capsys.readouterr().err
    assert not (project / "data_manifests").exists()
    assert run("import", "demo", "--name", "tiny", "--train", 4, "--test", 2, "--preset", "other") == 0
    assert yaml.safe_load((project / "params.yaml").read_text())["training"]["tiny"] == {"batch_size": 2}
    capsys.readouterr()
    assert run("import", "demo", "--name", "tiny", "--train", 4, "--test", 2) == 0
    assert "unchanged, kept data_manifests/tiny" in capsys.readouterr().out
    assert run("import", "demo", "--name", "tiny", "--train", 5, "--test", 2) == 1
    assert "would change train.csv" in capsys.readouterr().err


def test_a_usage_error_is_2(capsys):
    assert run("nonsense") == 2
    assert run("import", "vggss") == 2
    assert "Missing option '--annotations'" in capsys.readouterr().err
    assert run("import", "folder") == 2


@pytest.mark.parametrize(
    ("typed", "suggested"),
    [
        (["localise", "a.mp4"], "localize"),
        (["evalute"], "evaluate"),
        (["veriffy"], "verify"),  # not lazy
        (["import", "vgg-ss"], "vggss"),
        (["import", "musicsynthetic"], "music-synthetic"),
        (["pl", "lst"], "list"),
        (["protocols", "--jsn"], "--json"),
    ],
)
def test_a_mistyped_command_or_option_is_answered_with_the_nearest(capsys, typed, suggested):
    assert run(*typed) == 2
    assert f"Did you mean '{suggested}'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("stage", "typed", "suggested"), [("train", "--intial", "--initial"), ("evaluate", "--map", "--maps")]
)
def test_so_is_an_option_of_a_stage(capsys, stage, typed, suggested):
    main = import_module(f"stages.{stage}").main
    with pytest.raises(SystemExit) as stopped:
        run_command(main, [typed, "x"])
    assert stopped.value.code == 2
    assert f"Did you mean '{suggested}'?" in capsys.readouterr().err.replace("Did you mean one of: ", "Did you mean ")


@pytest.mark.parametrize("group", [[], ["import"], ["pl"]])
def test_the_list_of_commands_has_whole_sentences(capsys, group):
    assert run(*group, "--help") == 0
    commands = capsys.readouterr().out.split("Commands:\n")[1]
    entries = [" ".join(entry.split()) for entry in re.split(r"\n  (?=\S)", commands)]
    assert len(entries) > 5
    assert [entry for entry in entries if not entry.endswith(".") or entry.endswith(("..", "Eq."))] == []
    assert "  pl " not in commands  # hidden: another name of pseudo-labels


def test_far_from_every_command_there_is_no_suggestion(capsys):
    assert run("xyzzy") == 2
    error = capsys.readouterr().err
    assert "No such command 'xyzzy'." in error
    assert "Did you mean" not in error


def test_vggss_problems_are_printed_without_any_media(project, tmp_path, capsys):
    records = [
        {"file": GOOD, "class": "x", "bbox": [[0.1, 0.1, 0.5, 0.5], [0.4, 0.4, -2.88e16, 0.5]]},
        {"file": EMPTY, "class": "x", "bbox": [[0.2, 1.0, 0.7, 1.0]]},
    ]
    path = write_json(tmp_path / "vggss.json", records)
    before = tree(project)
    assert run("import", "vggss", "--annotations", path, "--check-only") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "vggss: boxes: 3 read, 2 faulty" in lines
    assert "vggss:   corrupt coordinate: 1" in lines
    assert f"vggss:   1: no usable box: {EMPTY}" in lines
    assert lines[-1] == "checked; nothing was written"
    assert tree(project) == before


def test_a_leak_is_1_and_the_report_comes_first(project, tmp_path, capsys):
    path = write_json(tmp_path / "v.json", [{"file": GOOD, "class": "x", "bbox": [[0, 0, 1, 1]]}])
    train = write_lines(tmp_path / "t.txt", [GOOD])
    assert run("import", "vggss", "--annotations", path, "--train", train, "--check-only") == 1
    printed = capsys.readouterr()
    assert "test: 1 listed" in printed.out
    assert printed.err.startswith("error: vggss: 1 training clip in")
    assert printed.err.count("\n") == 1


@pytest.mark.parametrize("check", [[], ["--check-only"]])
def test_every_leak_is_listed_in_the_requested_report(project, tmp_path, capsys, check):
    leaks = [f"{'a' * 9}{k:02d}_000001" for k in range(60)]
    path = write_json(tmp_path / "v.json", [{"file": i, "class": "x", "bbox": [[0, 0, 1, 1]]} for i in leaks])
    command = ["import", "vggss", "--annotations", path, "--train", write_lines(tmp_path / "t.txt", leaks), *check]
    assert run(*command) == 1
    error = capsys.readouterr().err
    assert "and 10 more (--report FILE lists all)" in error

    report = tmp_path / "leaks.json"
    assert run(*command, "--report", report) == 1
    printed = capsys.readouterr()
    assert f"and 10 more (full list: {report})" in printed.err
    assert "--leaks drop" in printed.err
    assert (f"and 50 more (full list: {report})" in printed.out) == bool(check)
    assert json.loads(report.read_text())["leaks"] == leaks
    assert not (project / "data_manifests").exists()


def test_files_shared_with_train_are_listed_in_the_report_too(project, tmp_path, capsys):
    names = [f"dog_{pair}_{kind}" for pair in range(10) for kind in "ab"]
    media = tmp_path / "media"
    write_files(
        media, [f"{kind}/{n}.{end}" for n in names for kind, end in (("visual_frames", "jpg"), ("audio_wav", "wav"))]
    )
    records = [
        {"image": f"/x/visual_frames/{n}.jpg", "audio": f"/x/audio_wav/{n}.wav", "gt_box": [0.0, 0.0, 9.0, 9.0]}
        for n in names
    ]
    own = [Clip(f"own-{n}", frame=f"visual_frames/{n}.jpg", audio=f"audio_wav/{n}.wav") for n in names]
    write_clips(tmp_path / "own.csv", own)
    annotations, report = write_json(tmp_path / "is3.json", records), tmp_path / "shared.json"
    arguments = ["--annotations", annotations, "--media", media, "--train", tmp_path / "own.csv"]
    assert run("import", "is3", *arguments, "--report", report) == 1
    error = capsys.readouterr().err
    assert "share 40 " in error
    assert f"file 'visual_frames/{names[0]}.jpg'" in error
    assert f"and 30 more (full list: {report})" in error
    assert len(json.loads(report.read_text())["shared"]) == 40


def test_a_train_size_without_a_training_list_is_a_usage_error(project, tmp_path, capsys):
    path = write_json(tmp_path / "v.json", [{"file": GOOD, "class": "x", "bbox": [[0, 0, 1, 1]]}])
    assert run("import", "vggss", "--annotations", path, "--train-size", 5, "--check-only") == 2
    assert "--train-size requires --train" in capsys.readouterr().err


def test_soundnet_flickr_by_its_dataset_name(project, tmp_path, capsys):
    media = tmp_path / "media"
    write_files(media, [f"Data/{i[-1]}/{i}{s}" for i in ("10", "21", "32") for s in (".jpg", ".wav")])
    train = write_lines(tmp_path / "train.txt", ["21", "32", "43"])
    boxes = write_json(tmp_path / "b.json", {"boxes": {"10": [[1, 1, 128, 128]]}})
    arguments = ["--train", train, "--boxes", boxes, "--media", media]
    assert run("import", "soundnet_flickr", *arguments) == 0
    printed = capsys.readouterr().out
    assert "train: 3 listed, 2 used, 1 left out" in printed
    assert f"export SOUNDSPOT_MEDIA_ROOT_SOUNDNET_FLICKR={media}" in printed
    assert [c.clip_id for c in read_clips(project / "data_manifests/soundnet_flickr/train.csv")] == ["21", "32"]
    assert read_boxes(project / "data_manifests/soundnet_flickr/test_boxes.csv")[0].x1 == 127 / 256
    assert run("import", "soundnet-flickr", *arguments) == 0
    assert "unchanged, kept data_manifests/soundnet_flickr" in capsys.readouterr().out
    write_lines(train, ["21"])
    assert run("import", "soundnet-flickr", *arguments) == 1
    assert "would change train.csv; pass --force" in capsys.readouterr().err
    assert run("import", "soundnet-flickr", *arguments, "--force") == 0


def test_the_media_root_comes_from_the_environment(project, tmp_path, monkeypatch, capsys):
    name = "a_b_1_a"
    write_files(tmp_path / "is3", [f"frames/{name}.jpg", f"audio/{name}.wav"])
    path = write_json(tmp_path / "b.json", [{"image": f"{name}.jpg", "audio": f"{name}.wav", "gt_box": [0, 0, 9, 9]}])
    assert run("import", "is3", "--annotations", path) == 1
    assert "data/is3/media: no such media folder" in capsys.readouterr().err
    monkeypatch.setenv("SOUNDSPOT_MEDIA_ROOT", str(tmp_path / "is3"))
    assert run("import", "is3", "--annotations", path) == 0


def test_own_videos(project, tmp_path, capsys):
    for i in range(5):
        write_video(project / f"videos/{i}.mkv")
    assert run("import", "folder", "--name", "own", "--media", "videos") == 0
    assert "train: 4 used" in capsys.readouterr().out
    assert 'media_root: "videos"' in (project / "data_manifests/own/dataset.yaml").read_text()


def test_the_demo_dataset(project, capsys):
    assert run("import", "demo", "--name", "tiny", "--train", 3, "--validation", 0, "--test", 2) == 0
    folder = project / "data_manifests/tiny"
    assert (len(read_clips(folder / "train.csv")), len(read_clips(folder / "test.csv"))) == (3, 2)
    assert not (folder / "validation.csv").exists()
    assert "data/tiny/media" in (folder / "dataset.yaml").read_text()
    assert "  tiny:" in (project / "params.yaml").read_text()
    assert run("import", "demo", "--name", "tiny") == 1


def test_verify_reports_each_shard(tmp_path, capsys):
    write_files(tmp_path / "test", ["shard-00000.h5", "shard-00001.h5"], b"no shard")
    assert run("verify", tmp_path) == 1
    error = capsys.readouterr().err
    assert all(f"damaged: {tmp_path}/test/shard-0000{i}.h5" in error for i in range(2))
    assert "error: " in error.splitlines()[-1]
    assert "2 of 2 files are damaged" in error
    assert run("verify", tmp_path / "none.h5") == 1
    assert "none.h5: no such" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert run("verify", tmp_path / "empty") == 1
    assert "contains no shards" in capsys.readouterr().err


def test_verify_of_a_project_looks_at_shards_and_features_only(tmp_path, capsys):
    make_shard(tmp_path / "data/demo/shards/train/shard-00000.h5", ["a", "b"])
    finish_split(tmp_path / "data/demo/shards/train")
    write_files(tmp_path / "runs/demo/iterative/pseudo_labels", ["epoch_000.h5", "start_001.h5"], b"pseudo-labels")
    write_files(tmp_path / "results/demo/maps/iterative", ["maps.h5"], b"maps")
    assert run("verify", tmp_path) == 0
    assert capsys.readouterr().out.count("good: ") == 1


def test_verify_detects_one_changed_byte(tmp_path, capsys):
    shard = tmp_path / "shard-00000.h5"
    make_shard(shard, ["a", "b"])
    finish_split(tmp_path)
    assert run("verify", tmp_path) == 0
    assert capsys.readouterr().out == f"good: {shard}\n"
    with h5py.File(shard) as file:
        place = file["frame"].id.get_chunk_info(0).byte_offset
    content = bytearray(shard.read_bytes())
    content[place] ^= 1
    shard.write_bytes(content)
    assert run("verify", shard) == 1
    error = capsys.readouterr().err
    assert f"damaged: {shard}" in error
    assert "delete it and rerun" in error


def test_verify_detects_a_missing_last_shard(tmp_path, capsys):
    for index in range(2):
        make_shard(tmp_path / f"train/shard-0000{index}.h5", [f"a{index}"])
    finish_split(tmp_path / "train")
    assert run("verify", tmp_path) == 0
    (tmp_path / "train/shard-00001.h5").unlink()
    assert run("verify", tmp_path) == 1
    assert "train: expected 2 shards, found 1" in capsys.readouterr().err


def test_verify_detects_a_shard_of_another_extraction(tmp_path, capsys):
    make_shard(tmp_path / "train/shard-00000.h5", ["a"])
    finish_split(tmp_path / "train")
    make_shard(tmp_path / "train/shard-00000.h5", ["b"])
    assert run("verify", tmp_path) == 1
    assert "shard-00000.h5: is not the shard that shards.json lists" in capsys.readouterr().err


def test_verify_does_not_advise_deleting_a_file_that_is_not_a_shard(tmp_path, capsys):
    path = tmp_path / "params.yaml"
    path.write_text("dataset: demo\n")
    assert run("verify", path) == 1
    error = capsys.readouterr().err
    assert "params.yaml: not a shard of this program" in error
    assert "delete" not in error


def test_ctrl_c_ends_a_real_process_with_130(tmp_path):
    # A named pipe keeps the command waiting, and opening it here waits until the command has begun to read.
    pipe = tmp_path / "v.json"
    os.mkfifo(pipe)
    command = [sys.executable, "-m", "pipeline.cli.main", "import", "vggss", "--annotations", str(pipe), "--check-only"]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        # A run in the background of a shell inherits that Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    writer = os.open(pipe, os.O_WRONLY)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    os.close(writer)
    assert process.returncode == 130
    assert "Traceback" not in error
