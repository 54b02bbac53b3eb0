"""`soundspot evaluate`: score stored maps under any protocol; `soundspot protocols`: list the protocols."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from pipeline.apps.compare.protocol_tables import fitted
from pipeline.cli.main import soundspot
from pipeline.common.console import run_command
from pipeline.common.text_table import Table
from pipeline.manifests.boxes import Box, write_boxes
from pipeline.scoring.map_file import ResponseMaps, write_maps
from pipeline.scoring.protocols import PROTOCOLS, get_protocol
from pipeline.scoring.score import score
from tests.support.scored_world import boxes_of, make_manifest, mask

CLIPS = [f"test-{i:02d}" for i in range(8)]
PARAMS = """\
dataset: squares
variants: [good, noisy, untrained]
seeds: [0, 7]
extract: {}
training:
  squares:
    batch_size: 2
    encoder: {visual: {}, audio: {}, embedding_dim: null, batch_norm: false, audio_pooling: mean}
    augmentation: {}
    initialize: {epochs: 1, temperature: 0.1, learning_rate: 1.0e-3, weight_decay: 0.0}
    iterate: {epochs: 1, temperature: 0.1, learning_rate: 1.0e-3, weight_decay: 0.0, delta_v: 0.5, delta_a: 0.5}
    methods: {good: {}, noisy: {}, untrained: {}}
"""


def good_maps(clips=CLIPS):
    """2 inside the sounding square, 0 outside: a perfect map on a grid of eighths."""
    return np.stack([2.0 * mask(boxes_of(clip)[0], 16) for clip in clips]).astype(np.float32)


def noisy_maps(seed):
    return np.random.default_rng(seed).normal(size=(len(CLIPS), 4, 4)).astype(np.float32)


def store(folder, response, *, seed=0, clips=CLIPS):
    shuffled = [*clips[1:], clips[0]]
    maps = ResponseMaps(list(clips), response, np.roll(response, -1, axis=0), shuffled, "test", seed, "fingerprint")
    write_maps(folder / "maps.h5", maps)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project in which `good` has one seed's maps, `noisy` two seeds', and `untrained` none."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "600")
    (tmp_path / "params.yaml").write_text(PARAMS)
    make_manifest(tmp_path / "data_manifests" / "squares", CLIPS, elsewhere=["validation-01", "validation-03"])
    store(tmp_path / "results/squares/maps/good", good_maps())
    store(tmp_path / "results/squares/maps/noisy", noisy_maps(0))
    store(tmp_path / "results/squares/maps/noisy/seed_7", noisy_maps(7), seed=7)
    return tmp_path


def run(*arguments):
    """Run the command line and return its exit code."""
    with pytest.raises(SystemExit) as stopped:
        run_command(soundspot, [str(argument) for argument in arguments])
    return stopped.value.code


def scores_of(project, *arguments):
    assert run("evaluate", *arguments, "--output", project / "out.json") == 0
    rows = json.loads((project / "out.json").read_text())["rows"]
    return {(row["row"], row["shuffled"]): row["protocols"] for row in rows}


def line_of(text, start):
    (line,) = [line for line in text.splitlines() if line.startswith(start)]
    return line


def test_each_protocol_scores_the_same_as_alone(project):
    rows = scores_of(project, "good", "noisy")
    boxes = [box for clip in CLIPS for box in boxes_of(clip)]
    for name, protocol in PROTOCOLS.items():
        alone = [score(noisy_maps(seed), CLIPS, boxes, protocol) for seed in (0, 7)]
        found = rows["noisy", False][name]
        assert found["mean_ciou_seeds"] == pytest.approx([each.ciou.mean() for each in alone], abs=1e-12), name
        assert found["success_rate"] == np.mean([each.success.mean() for each in alone]), name
        assert found["threshold"] == protocol.success_threshold
    assert list(rows) == [
        (name, False)
        for name in ("random", "all_ones", "centered_gaussian", "mean_of_boxes", "good", "noisy")
    ]  # fmt: skip


def test_the_protocol_alone_changes_the_score_of_a_perfect_map(project):
    rows = scores_of(project, "good", "--shuffled")
    good = rows["good", False]
    # 0 is the median of a map that is 0 outside its square: `>` finds the square, `>=` the whole frame.
    assert good["lvs224-median"]["success_rate"] == 1.0
    assert good["ezvsl224-median"]["success_rate"] == 0.0
    # The whole frame's cIoU is the share of the square, 3/8 × 3/8.
    ones = rows["all_ones", False]
    for name in ("paper256", "vggss224", "music-synthetic-a"):
        assert ones[name]["mean_ciou"] == pytest.approx(9 / 64, abs=1e-12), name
    assert good["ezvsl224-median"]["mean_ciou"] == ones["ezvsl224-median"]["mean_ciou"]
    assert good["paper256"]["success_rate"] == 1.0
    assert rows["good", True]["paper256"]["mean_ciou"] < good["paper256"]["mean_ciou"]


def test_the_seeds_are_printed(project, capsys):
    heads = []
    for variants in (["good"], ["noisy"], ["good", "noisy"]):
        assert run("evaluate", *variants, "--protocol", "paper256") == 0
        heads.append(capsys.readouterr().out.splitlines()[0])
    assert heads == [
        "squares, test, seed 0; percent",
        "squares, test, means over seeds 0, 7; percent",
        "squares, test, good: seed 0, noisy: means over seeds 0, 7; percent",
    ]


def test_maps_that_define_their_own_normalization_are_named(project, capsys):
    maps = ResponseMaps(CLIPS, good_maps(), good_maps(), CLIPS, "test", 0, "fingerprint", normalization="relu-max")
    write_maps(project / "results/squares/maps/good/maps.h5", maps)
    assert run("evaluate", "good", "--protocol", "paper256", "--protocol", "vggss224") == 0
    assert capsys.readouterr().err.count("relu-max") == 1


def test_the_table_has_protocols_as_columns_and_their_range(project, capsys):
    assert run("evaluate", "good", "--protocol", "paper256", "--protocol", "ezvsl224-median") == 0
    printed = capsys.readouterr().out
    assert line_of(printed, "success / AUC").split()[-1] == "range"
    cells = line_of(printed, "good").split()
    assert len(cells) == 1 + 3 * 3
    paper, median, spread = float(cells[1]), float(cells[4]), float(cells[7])
    assert (paper, median, spread) == (100.0, 0.0, 100.0)
    for label in ("random map", "all ones", "centered Gaussian", "mean of other splits' boxes"):
        assert line_of(printed, label).count("/") == 3
    assert run("evaluate", "good", "--protocol", "paper256") == 0
    assert "range" not in capsys.readouterr().out


def test_mosaics_have_a_quadrant_accuracy(project, capsys):
    card = project / "data_manifests/squares/dataset.yaml"
    card.write_text(card.read_text().replace("threshold: 0.5", "threshold: 0.5, grid: 2"))
    options = ("good", "noisy", "--shuffled", "--protocol", "vggss224", "--protocol", "slavc224")
    assert run("evaluate", *options, "--output", "out.csv") == 0
    printed = capsys.readouterr().out
    assert "quadrant accuracy (chance 25.0)" in line_of(printed, "any protocol")
    block = printed[printed.index("any protocol") :]
    assert line_of(block[: block.index("\n\n")], "good ").split()[1:] == ["100.0", "(100.0–100.0)"]
    assert line_of(block[: block.index("\n\n")], "all ones").split()[2:] == ["25.0", "(25.0–25.0)"]
    with open("out.csv", newline="") as file:
        rows = {(row["row"], row["shuffled"], row["protocol"]): row for row in csv.DictReader(file)}
    for protocol in ("vggss224", "slavc224"):
        assert rows["good", "0", protocol]["quadrant_accuracy"] == "1.0"
        assert float(rows["good", "1", protocol]["quadrant_accuracy"]) < 1
        assert rows["random", "0", protocol]["quadrant_chance"] == "0.25"
    card.write_text(card.read_text().replace(", grid: 2", ""))
    assert run("evaluate", *options, "--output", "out.csv") == 0
    assert "quadrant" not in capsys.readouterr().out + (project / "out.csv").read_text()


def test_default_is_every_evaluated_variant_under_every_protocol(project, capsys):
    assert run("evaluate") == 0
    printed = capsys.readouterr()
    assert "not evaluated yet: untrained" in printed.err
    header = line_of(printed.out, "success / AUC")
    assert all(name in header for name in PROTOCOLS)
    assert "silent outside boxes, music-synthetic-a" in line_of(printed.out, "further metrics")


def test_detection_without_any_silent_clip_is_noted(project, capsys):
    assert run("evaluate", "good", "--protocol", "slavc224", "--protocol", "paper256") == 0
    assert capsys.readouterr().err.startswith("slavc224: there are no silent clips")
    assert run("evaluate", "good", "--protocol", "paper256") == 0
    assert capsys.readouterr().err == ""
    boxes = [box for clip_id in CLIPS[1:] for box in boxes_of(clip_id)]
    write_boxes(project / "data_manifests/squares/test_boxes.csv", boxes)
    assert run("evaluate", "good", "--protocol", "slavc224") == 0
    assert capsys.readouterr().err == ""


def test_degenerate_cases_are_counted(project, capsys):
    maps = good_maps()
    maps[2] = 0.5
    store(project / "results/squares/maps/flat", maps)
    path = project / "data_manifests/squares/test_boxes.csv"
    kept = [box for clip in CLIPS[2:] for box in boxes_of(clip)]
    write_boxes(path, [*kept, *boxes_of("test-77"), Box(CLIPS[1], "bright", "test", True, 0.9905, 0.0, 0.991, 1.0)])
    assert run("evaluate", "flat", "--protocol", "paper256", "--protocol", "vggss224") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if "cIoU >=" in line]
    # protocol, success, scored, no sounding box, boxes without a pixel, no map, boxes off the grid, flat maps
    assert [line[4:9] for line in lines] == [["6", "1", "1", "1", "1"]] * 2
    assert [line[9:] for line in lines] == [["flat", "1"]] * 2


def test_the_threshold_and_the_quirk_of_public_code(project):
    # Two annotators disagree, so that g is 1/2 on 3/4 of the frame: the whole of it has the cIoU (3/8) / (3/8 + 1/4) =
    # 0.6, and 0.05 * 12 is a bit more.
    boxes = [Box(clip, "a", "one", True, 0.0, 0.0, 1.0, 0.5) for clip in CLIPS]
    boxes += [Box(clip, "a", "two", True, 0.0, 0.75, 1.0, 1.0) for clip in CLIPS]
    write_boxes(project / "data_manifests/squares/test_boxes.csv", boxes)
    options = ("good", "--protocol", "paper256", "--threshold", 0.6)
    ones = scores_of(project, *options)["all_ones", False]["paper256"]
    assert (ones["success_rate"], ones["threshold"]) == (1.0, 0.6)
    legacy = scores_of(project, *options, "--legacy-float")["all_ones", False]["paper256"]
    assert legacy["success_rate"] == 0.0
    assert ones["auc"] - legacy["auc"] == pytest.approx(0.05)


def test_files(project, capsys):
    assert run("evaluate", "good", "noisy", "--output", "out.csv") == 0
    with open("out.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6 * len(PROTOCOLS)
    first = next(row for row in rows if (row["row"], row["protocol"]) == ("good", "paper256"))
    assert float(first["success_rate"]) == 1.0
    assert (first["threshold"], first["n_clips"], first["iiou"]) == ("0.5", "8", "")
    assert next(row for row in rows if row["protocol"] == "iiou224")["iiou"] != ""
    assert run("evaluate", "good", "--protocol", "paper256", "--output", "out.md") == 0
    assert "| good | 100.0 / " in (project / "out.md").read_text()
    assert capsys.readouterr().out.endswith("wrote out.md\n")


def test_errors_are_one_line(project, capsys):
    def error(*arguments):
        assert run("evaluate", *arguments) == 1
        message = capsys.readouterr().err
        assert message.count("\n") == 1
        return message

    assert "'lvs'" in error("--protocol", "lvs")
    assert "no response maps of untrained" in error("untrained")
    assert "no response maps of itrative" in error("itrative")
    assert "out.txt" in error("--output", "out.txt")
    assert "no boxes for the split 'train'" in error("--split", "train")
    assert "good/maps.h5: maps of the split 'test', not of 'validation'; pass --split test" in error(
        "good", "--split", "validation"
    )
    assert "results/other/maps" in error_of_other_dataset(project, error)
    store(project / "results/squares/maps/fewer", good_maps(CLIPS[:5]), clips=CLIPS[:5])
    assert "'fewer'" in error("good", "fewer")


def error_of_other_dataset(project, error):
    make_manifest(project / "data_manifests" / "other", CLIPS, elsewhere=[])
    return error("--dataset", "other")


def test_protocols_are_listed_with_fields_and_source(capsys):
    assert run("protocols") == 0
    printed = capsys.readouterr().out
    for name, protocol in PROTOCOLS.items():
        assert line_of(printed, f"{name} ").split()[1] == str(protocol.size)
        assert f"{name}\n    {protocol.source}\n" in printed
    assert run("protocols", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in listed] == list(PROTOCOLS)
    assert listed[0]["map_threshold"] == get_protocol("paper256").map_threshold


def test_wide_tables_are_split_and_lose_nothing():
    table = Table(("", *(f"rule-{i}" for i in range(5))), (("row", *"abcde"),))
    blocks = fitted(table, width=20)
    assert [block.header for block in blocks] == [("", "rule-0", "rule-1"), ("", "rule-2", "rule-3"), ("", "rule-4")]
    assert [cell for block in blocks for cell in block.rows[0][1:]] == list("abcde")
    assert all(len(line) <= 20 for block in blocks for line in block.text().splitlines())
    assert len(fitted(table, width=1)) == 5


def test_maps_of_another_dataset(project):
    others = [f"other-{i:02d}" for i in range(4)]
    make_manifest(project / "data_manifests" / "elsewhere", others, elsewhere=[])
    store(project / "results/squares/on/elsewhere/maps/good", good_maps(others), clips=others)
    assert scores_of(project, "good", "--on", "elsewhere")["good", False]["paper256"]["n_clips"] == 4
    facts = json.loads((project / "out.json").read_text())
    assert (facts["dataset"], facts["trained_on"]) == ("elsewhere", "squares")
    assert scores_of(project, "good")["good", False]["paper256"]["n_clips"] == len(CLIPS)


def test_another_dataset_on_which_nothing_was_scored(project, capsys):
    make_manifest(project / "data_manifests" / "elsewhere", CLIPS, elsewhere=[])
    assert run("evaluate", "--on", "elsewhere") == 1
    message = capsys.readouterr().err
    assert "results/squares/on/elsewhere/maps: no response maps of good" in message
    assert "elsewhere into cross_datasets" in message
    assert run("evaluate", "--on", "nowhere") == 1
    assert "--on nowhere: no such dataset in data_manifests" in capsys.readouterr().err
    assert run("evaluate", "--on", "squares") == 1
    assert "--on squares: is the training dataset" in capsys.readouterr().err
