"""`soundspot scores`: one line per variant, and why there are none."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from pipeline.cli.main import soundspot
from pipeline.common.console import run_command
from tests.support.made_results import write_content_free, write_row
from tests.support.projects import ROOT


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    return tmp_path


def ciou(*shares):
    """One row per seed: that share of 40 clips has cIoU 1, all others 0."""
    return np.array([(np.arange(40) < share * 40).astype(float) for share in shares])


def run(*arguments):
    with pytest.raises(SystemExit) as stop:
        run_command(soundspot, ["scores", *arguments])
    return stop.value.code


def cells(line):
    label, *further = re.split(r"\s\s+", line.strip())
    return label, further


def printed(capsys):
    """The blocks that were printed: the title, and the other cells of each row by its label."""
    blocks = capsys.readouterr().out.strip().split("\n\n")
    return [(lines[0], dict(map(cells, lines[1:]))) for lines in map(str.splitlines, blocks)]


def test_the_demo_has_one_line_per_variant_ours_first(project, capsys):
    folder = project / "results/demo"
    for name, own, other in (
        ("own_try", 0.3, 0.3),
        ("attention", 0.1, 0.05),
        ("iterative", 0.75, 0.25),
        ("itr", 0.5, 0),
    ):
        write_row(folder / name, ciou(own), shuffled=ciou(other))
    write_content_free(folder)
    assert run() == 0
    ((title, rows),) = printed(capsys)
    assert (
        title
        == "demo: split test, 40 clips (few: a rate near 50% is ± 15 points), protocol paper256, success at cIoU ≥ 0.5"
    )
    assert list(rows)[2:] == ["iterative (Eq. 7)", "Attention", "itr", "own_try"]
    success, area, gap, best = rows["iterative (Eq. 7)"]
    assert (gap, best) == ("50.0", "20.0 centered Gaussian")
    value, low, high = map(float, re.findall(r"[\d.]+", success))
    assert (value, low < 75 < high) == (75, True)
    # The curve is 1 at threshold 0 and 0.75 at the other 20; the area is by trapezoids.
    assert float(area.split()[0]) == pytest.approx(75.6, abs=0.05)
    assert rows["own_try"][2] == "0.0"


def test_mosaics_have_their_quadrants_and_the_chance(project, capsys):
    folder = project / "results/demo"
    write_row(folder / "iterative", ciou(0.5, 0.5), quadrant=ciou(0.75, 0.25))
    write_content_free(folder, mosaic=True)
    assert run("--dataset", "demo") == 0
    ((title, rows),) = printed(capsys)
    assert title.endswith("means over 2 seeds, quadrant chance 25.0")
    assert rows["iterative (Eq. 7)"][-1].startswith("50.0 (")


def test_scores_of_another_split_are_a_block_of_their_own_without_its_baselines(project, capsys):
    folder = project / "results/demo"
    for name in ("iterative", "itr"):
        write_row(folder / name, ciou(0.5))
    write_content_free(folder)
    path = folder / "itr/scores.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"split": "validation"}))
    assert run() == 0
    (test, _), (validation, rows) = printed(capsys)
    assert ("split test" in test, "split validation" in validation) == (True, True)
    assert rows["itr"][-1] == "–"


def test_all_datasets_and_their_models_on_others(project, capsys):
    for folder in ("real", "demo", "demo/on/real"):
        write_row(project / "results" / folder / "iterative", ciou(0.5))
        write_content_free(project / "results" / folder)
    assert run("--all") == 0
    assert [title.split(":")[0] for title, _ in printed(capsys)] == ["demo", "demo/on/real", "real"]
    assert run("--all", "--dataset", "demo") == 2


@pytest.mark.parametrize(
    ("arguments", "made", "message"),
    [
        (["--dataset", "nope"], [], "data_manifests/nope: "),
        ([], ["data_manifests/demo"], "demo/test_boxes.csv: "),
        ([], ["data_manifests/demo", "data_manifests/demo/test_boxes.csv"], "`dvc repro evaluate`"),
        (["--all"], [], "results: "),
    ],
)
def test_without_scores_one_line_says_why(project, capsys, arguments, made, message):
    for path in made:
        (project / path).mkdir(parents=True) if "." not in path else (project / path).touch()
    assert run(*arguments) == 1
    assert message in capsys.readouterr().err


def test_scores_of_another_version_are_one_line(project, capsys):
    write_content_free(project / "results/demo")
    (project / "results/demo/iterative").mkdir()
    (project / "results/demo/iterative/scores.json").write_text('{"split": "test"}')
    assert run() == 1
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "iterative/scores.json: has no seeds, protocol" in message
    assert "dvc repro evaluate@demo-iterative" in message
