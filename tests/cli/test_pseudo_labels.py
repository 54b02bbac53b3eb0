"""`soundspot pseudo-labels`: each subcommand as a user calls it."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from pipeline.cli.main import soundspot
from pipeline.common.console import run_command
from pipeline.common.project import labels_path
from pipeline.pseudo_labels.artifact import PseudoLabels
from pipeline.shards.reader import ShardSet
from tests.cli.test_evaluate import PARAMS
from tests.support.labeled_runs import make_run, make_train_shards


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with one variant that has been trained, and its shards."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(PARAMS)
    shards = ShardSet.open(make_train_shards(tmp_path / "data/squares/shards/train"))
    make_run(tmp_path / "runs/squares/good", shards=shards.fingerprint)
    return tmp_path


def run(*arguments):
    """Run the command line and return its exit code."""
    with pytest.raises(SystemExit) as stopped:
        run_command(soundspot, ["pl", *(str(argument) for argument in arguments)])
    return stopped.value.code


def printed_json(capsys, *arguments):
    assert run(*arguments, "--json") == 0
    printed = capsys.readouterr()
    return json.loads(printed.out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def open_picture(path):
    with Image.open(path) as picture:
        picture.load()
        return picture


def test_list(project, capsys):
    assert run("list", "good") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 3
    assert lines[3].split()[:5] == ["1", "iterative", "12", "12.5", "50.0"]
    listed = printed_json(capsys, "list", "good")
    assert [each["change"] for each in listed] == [None, pytest.approx(1 / 2), pytest.approx(1 / 3)]
    assert printed_json(capsys, "list", labels_path(project / "runs/squares/good", 1))[0]["epoch"] == 1


def test_the_long_name_is_the_same(project, capsys):
    outputs = []
    for name in ("pl", "pseudo-labels", "pseudo_labels"):
        with pytest.raises(SystemExit):
            run_command(soundspot, [name, "list", "good"])
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1] == outputs[2] != ""
    with pytest.raises(SystemExit):
        run_command(soundspot, ["--help"])
    help_text = capsys.readouterr().out
    assert "pseudo-labels" in help_text
    assert "\n  pl " not in help_text


def test_show(project, capsys):
    assert run("show", "good", 2, "clip-03", "-k", 2, "-o", "out/clip.png") == 0
    text = capsys.readouterr().out
    assert "clip-03, epoch 2 (iterative)" in text
    assert "sounding 18.8% of the cells" in text
    assert "peak     row 3, column 0" in text
    assert text.count("yes") + text.count("no\n") == 2
    assert min(open_picture("out/clip.png").size) > 200
    view = printed_json(capsys, "show", "good", "clip-03")
    assert (view["epoch"], len(view["response"]), len(view["neighborhood"]["neighbors"])) == (2, 4, 5)
    file = labels_path(project / "runs/squares/good", 0)
    assert printed_json(capsys, "show", file, "clip-03")["epoch"] == 0


def test_show_sends_a_picture_only_to_a_terminal_that_takes_it(project, capsysbinary, monkeypatch):
    monkeypatch.setenv("KITTY_WINDOW_ID", "1")
    monkeypatch.setenv("TERM", "xterm-kitty")
    monkeypatch.delenv("TMUX", raising=False)
    assert run("show", "good", "clip-03") == 0
    assert b"\x1b" not in capsysbinary.readouterr().out
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert run("show", "good", "clip-03") == 0
    assert b"\x1b_Ga=T" in capsysbinary.readouterr().out
    for quiet in ("--json", "--no-image"):
        assert run("show", "good", "clip-03", quiet) == 0
        assert b"\x1b_G" not in capsysbinary.readouterr().out


def test_an_ascii_terminal_gets_ascii(project, monkeypatch):
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", out)
    for arguments in (("list", "good"), ("show", "good", "clip-03"), ("histogram", "good"), ("compare", "good", 0, 1)):
        assert run(*arguments) == 0
    out.flush()
    assert b"@@" in out.buffer.getvalue()


def test_without_shards_there_are_pictures_without_frames(project, capsys):
    (project / "data/squares/shards/train/shard-00000.h5").unlink()
    assert run("show", "good", "clip-03", "-o", "clip.png") == 0
    assert "no shards" in capsys.readouterr().err
    assert (project / "clip.png").exists()
    assert run("show", "good", "clip-03", "-o", "clip.png", "--shards", "nowhere") == 1
    assert "nowhere: no shards" in capsys.readouterr().err


def test_files_of_other_thresholds_are_compared_with_a_note(project, capsys):
    make_run(project / "runs/squares/other", delta_v=0.7)
    assert run("compare", "good", 2, "runs/squares/other/pseudo_labels/epoch_002.h5") == 0
    assert "note: δ_v differs (0.5 and 0.7)" in capsys.readouterr().err
    assert run("compare", "good", 0, "last") == 0
    assert "δ_v is" not in capsys.readouterr().err


def test_compare(project, capsys):
    assert run("compare", "good", 0, "last", "--top", 3, "-o", "page.html") == 0
    text = capsys.readouterr().out
    assert "mask IoU of 12 clips: mean 0.333" in text
    assert text.count("clip-") == 3
    page = (project / "page.html").read_text()
    assert page.count("<img") == 10  # three of each clip, and the color bar
    assert run("compare", "good", "first", "last", "-o", "page.png", "--top", 2) == 0
    assert open_picture("page.png").size[1] > 400
    other = labels_path(make_run(project / "other"), 2)
    capsys.readouterr()
    comparison = printed_json(capsys, "compare", "good", 2, other)
    assert (comparison["mean_mask_iou"], comparison["unchanged"]) == (1, 1)


def test_neighbors(project, capsys):
    assert run("neighbors", "good", "clip-04", "-k", 3, "--epoch", 0, "-o", "n.png") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 3 + 1
    assert lines[-1].endswith("(mean subtracted)")
    assert open_picture("n.png")
    found = printed_json(capsys, "neighbors", "good", "clip-04", "--no-center")
    assert found["centered"] is False
    assert len(found["neighbors"]) == 10


def test_what_the_model_says_decides_on_the_mean(project, capsys):
    make_run(project / "runs/squares/good", center_audio=False)
    assert printed_json(capsys, "neighbors", "good", "clip-04")["centered"] is False
    (project / "runs/squares/good/model.pt").unlink()
    assert run("neighbors", "good", "clip-04", "--json") == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["centered"] is True
    assert printed.err.startswith("note: runs/squares/good has no finished model")


def test_histogram(project, capsys):
    assert run("histogram", "good", "--epoch", 1, "-o", "h.png", "--bins", 8) == 0
    text = capsys.readouterr().out
    assert "12.50% above δ_v = 0.5" in text
    assert text.count("←") == 2
    assert open_picture("h.png")
    both = printed_json(capsys, "histogram", "good")
    assert [each["name"] for each in both] == ["response", "audio similarity"]
    assert sum(both[0]["counts"]) == 12 * 16


def test_export(project, capsys):
    assert run("export", "good", "--format", "npz", "-o", "a.npz", "--epoch", 1) == 0
    with np.load("a.npz", allow_pickle=False) as arrays:
        expected = PseudoLabels.open(labels_path(project / "runs/squares/good", 1))
        np.testing.assert_array_equal(arrays["response"].astype(np.float32), expected.response)
    assert run("export", "good", "--format", "png", "-o", "pictures", "--clip", "clip-03", "--clip", "clip-11") == 0
    assert sorted(path.name for path in (project / "pictures").iterdir()) == ["clip-03.png", "clip-11.png"]
    assert run("export", "good", "--format", "coco", "-o", "c.json") == 0
    content = json.loads((project / "c.json").read_text())
    assert (len(content["images"]), len(content["annotations"]), content["images"][0]["width"]) == (12, 12, 6)
    assert capsys.readouterr().out == ""


def test_exports_are_not_replaced_by_chance(project, capsys):
    cases = {"npz": ("a.npz", "a.npz"), "coco": ("a.json", "a.json"), "png": ("pictures", "pictures/clip-03.png")}
    for format, (output, file) in cases.items():
        (project / file).parent.mkdir(exist_ok=True)
        (project / file).write_text("mine")
        assert run("export", "good", "--format", format, "-o", output) == 1
        assert f"error: {file}: exists" in capsys.readouterr().err
        assert (project / file).read_text() == "mine"
    assert [path.name for path in (project / "pictures").iterdir()] == ["clip-03.png"]
    # What another clip's picture would replace is not in the way of this one's.
    assert run("export", "good", "--format", "png", "-o", "pictures", "--clip", "clip-04") == 0
    for format, (output, file) in cases.items():
        assert run("export", "good", "--format", format, "-o", output, "--overwrite") == 0
        assert (project / file).read_bytes() != b"mine"


def test_regions_in_pixels_need_the_shards(project, capsys):
    away = project / "elsewhere"
    (project / "data/squares/shards/train").rename(away)
    assert run("export", "good", "--format", "coco", "-o", "c.json") == 1
    assert "error: runs/squares/good: no shards" in capsys.readouterr().err
    assert not (project / "c.json").exists()
    assert run("export", "good", "--format", "coco", "-o", "c.json", "--shards", away) == 0
    assert json.loads((project / "c.json").read_text())["images"][0]["width"] == 6


def test_verify(project, capsys):
    assert run("verify", "good") == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [f"good: runs/squares/good/pseudo_labels/epoch_00{i}.h5" for i in range(3)]
    assert printed.err == ""
    path = labels_path(project / "runs/squares/good", 1)
    path.write_bytes(path.read_bytes()[:-9])
    assert run("verify", "good") == 1
    printed = capsys.readouterr()
    assert printed.out.count("good: ") == 2
    assert "damaged: runs/squares/good/pseudo_labels/epoch_001.h5: damaged" in printed.err
    assert printed.err.splitlines()[-1].startswith("error: runs/squares/good: 1 problem;")
    assert run("verify", "good", "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["n_problems"], len(found["artifacts"][1]["problems"])) == (1, 1)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("list", "godo"), 1, "runs/squares/godo: no run with pseudo_labels; available: good"),
        (("list", "no/where"), 1, "no/where: no such file or folder"),
        (("show", "good", "clip_03"), 1, "no clip 'clip_03' among its 12 clips"),
        (("show", "good", "clip-0"), 1, "'clip-0' is the prefix of 10 clip ids"),
        (("show", "good", "9", "clip-03"), 1, "no pseudo-labels of epoch '9'; there are 0 to 2"),
        (("show", "good", "1", "2", "3"), 2, "expected [EPOCH] CLIP, got 1 2 3"),
        (("show", "good"), 2, "Missing argument"),
        (("show", "good", "clip-03", "-o", "x.jpg"), 1, "x.jpg: the file name must end in .png"),
        (("compare", "good", "0", "1", "-o", "x.txt"), 1, "x.txt: the file name must end in .png or .html"),
        (("neighbors", "good", "clip-03", "--seed", "5"), 1, "no folder seed_5"),
        (("export", "good", "--format", "xml", "-o", "x"), 2, "'xml' is not one of"),
        (("export", "good", "--format", "npz", "-o", "x.json"), 1, "x.json: the file name must end in .npz"),
        (("export", "good", "--format", "coco", "-o", "x"), 1, "x: the file name must end in .json"),
    ],
)
def test_mistakes_are_one_line(project, capsys, arguments, code, message):
    assert run(*arguments) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    if code == 1:
        assert printed.err.count("\n") == 1
