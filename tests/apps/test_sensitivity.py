"""`soundspot sensitivity`: which experiments are compared, and what table, file and figure show."""

from __future__ import annotations

import csv
import random
import subprocess

import numpy as np
import pytest
import yaml
from PIL import Image

from pipeline.apps.compare.sensitivity import compare, sensitivity_figure, sensitivity_rows, sensitivity_table
from pipeline.cli.main import soundspot
from pipeline.cli.scoring.sensitivity import sensitivity
from pipeline.common.console import run_command
from pipeline.common.errors import EvaluationError
from tests.support.projects import DVC, ROOT, environment

WRITTEN = {}  # (revision, path) → scores.json; the revision of a made experiment is its name
ITERATE = {"delta_v": 0.8, "delta_a": 0.9, "temperature": 0.3}


def scores(success, auc=0.4, *, split="validation", quadrant=None):
    metrics = {"split": split, "protocol": "paper256"}
    further = () if quadrant is None else (("quadrant_accuracy", quadrant),)
    for key, value in (("success_rate", success), ("auc", auc), *further):
        metrics |= {key: value, f"{key}_low": value - 0.05, f"{key}_high": value + 0.04}
    return metrics


def flat(value, prefix=""):
    """Flatten as DVC does: dotted keys, numbers as float, all else as text, empty mappings left out."""
    if isinstance(value, dict):
        return {k: v for key, inner in value.items() for k, v in flat(inner, f"{prefix}{key}.").items()}
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return {prefix[:-1]: float(value) if number else str(value)}


def experiment(name, *, success=0.5, split="validation", variants=("iterative",), **more):
    """One row of `dvc.api.exp_show`; `more` are settings of `iterate`, `methods`, `seeds` and `extract`, and `quadrant`."""
    quadrant = more.pop("quadrant", None)
    methods = more.pop("methods", {"iterative": {}, "itr": {}})
    top = {"dataset": "tiny", "variants": list(variants), "seeds": more.pop("seeds", [0]), "score_split": split}
    top["extract"] = {"clips_per_shard": 512, "max_reject_fraction": 0.1} | more.pop("extract", {})
    top["training"] = {"tiny": {"batch_size": 8, "iterate": ITERATE | more, "methods": methods}}
    written = scores(success, split=split, quadrant=quadrant)
    for variant in variants:
        WRITTEN[name, f"results/tiny/{variant}/scores.json"] = written
    # A key of several files has a prefix, as `seeds` here. Metrics must not be read: they have no split.
    columns = {"success_rate": 0.999, "image_size": 32.0, "results/other.json:seeds": "[0]"}
    columns |= {"params.yaml:seeds" if key == "seeds" else key: value for key, value in flat(top).items()}
    return {"Experiment": name, "rev": name, "typ": "branch_commit", "State": None, **columns}


def read_written(rev, path):
    return WRITTEN.get((rev, path.as_posix()))


def shown(*experiments):
    """All rows: the workspace, whose scores must not count, then the experiments."""
    return [experiment("none", success=0.99, delta_v=0.123) | {"typ": "baseline", "rev": "workspace"}, *experiments]


def series_of(*experiments, setting="delta_v", **options):
    given = {"split": "validation", "read_scores": read_written} | options
    return compare(shown(*experiments), setting, dataset="tiny", **given)


def values(series):
    return [(point.value, point.metrics["success_rate"], point.experiment) for point in series.points]


def test_experiments_are_ordered_by_the_setting():
    (series,) = series_of(
        experiment("b", delta_v=0.9, success=0.3),
        experiment("a", delta_v=0.6, success=0.2),
        experiment("c", success=0.4),
    )
    assert values(series) == [(0.6, 0.2, "a"), (0.8, 0.4, "c"), (0.9, 0.3, "b")]
    assert (series.variant, series.label) == ("iterative", "iterative (Eq. 7)")
    table = sensitivity_table([series], "delta_v")
    assert table.header == ("", "delta_v", "success rate", "AUC")
    assert table.rows[0] == ("iterative (Eq. 7)", "0.6", "20.0 (15.0–24.0)", "40.0 (35.0–44.0)")


def test_mosaics_add_a_column_unless_an_experiment_was_scored_without():
    with_grid = [experiment("a", delta_v=0.6, quadrant=0.7), experiment("b", delta_v=0.7, quadrant=0.75)]
    series = series_of(*with_grid)
    table = sensitivity_table(series, "delta_v")
    assert table.header[2:] == ("success rate", "AUC", "quadrant accuracy")
    assert [row[-1] for row in table.rows] == ["70.0 (65.0–74.0)", "75.0 (70.0–79.0)"]
    header, lines = sensitivity_rows(series)
    assert dict(zip(header, lines[1], strict=True))["quadrant_accuracy_low"] == pytest.approx(0.7)
    assert len(sensitivity_figure(series, "delta_v").axes) == 3
    older = series_of(*with_grid, experiment("c", delta_v=0.8))
    assert sensitivity_table(older, "delta_v").header[2:] == ("success rate", "AUC")
    assert len(sensitivity_table(older, "delta_v").rows) == 3


def test_their_order_in_the_print_does_not_matter():
    every = [experiment(f"e{i}", delta_v=0.5 + i / 20, success=i / 10) for i in range(6)]
    mixed = every.copy()
    random.Random(3).shuffle(mixed)
    assert series_of(*mixed) == series_of(*every)


def test_experiments_that_differ_elsewhere_are_other_series_and_named_by_the_difference():
    found = series_of(
        experiment("a", delta_v=0.6),
        experiment("b", delta_v=0.7),
        experiment("c", delta_v=0.6, temperature=0.1, success=0.7),
        experiment("d", delta_v=0.7, temperature=0.1, success=0.8),
        experiment("e", delta_v=0.7, delta_a=0.5),  # the only one with this delta_a
    )
    assert {series.label: values(series) for series in found} == {
        "iterative (Eq. 7), temperature 0.1": [(0.6, 0.7, "c"), (0.7, 0.8, "d")],
        "iterative (Eq. 7), temperature 0.3": [(0.6, 0.5, "a"), (0.7, 0.5, "b")],
    }


def test_seeds_are_never_mixed_and_lists_of_variants_may_differ():
    (series,) = series_of(
        experiment("a", delta_v=0.6, seeds=[0]),
        experiment("b", delta_v=0.7, seeds=[0], variants=("itr", "iterative")),
        experiment("c", delta_v=0.8, seeds=[0, 1]),
    )
    assert [point.experiment for point in series.points] == ["a", "b"]


def test_settings_that_change_no_score_may_differ():
    (series,) = series_of(
        experiment("a", delta_v=0.6, extract={"clips_per_shard": 64, "clip_time_limit_s": 5.0}),
        experiment("b", delta_v=0.7, keep_epochs=5),
        experiment("c", delta_v=0.8, methods={"iterative": {"keep_epochs": 2}}),
    )
    assert [point.experiment for point in series.points] == ["a", "b", "c"]
    assert series.label == "iterative (Eq. 7)"


def test_the_example_queues_from_a_committed_start():
    example = [line.strip() for line in sensitivity.help.split("Example")[1].splitlines()[1:]]
    page = (ROOT / "docs" / "experiments.md").read_text()
    start, commit, queue, *rest = (line for line in example if line)
    assert f"```\n{start}\n{commit}\n```" in page
    # What the start has set must not change again: another split would have to be extracted, and finds no media.
    assert queue == "dvc exp run --queue -S training.demo.iterate.delta_v=0.7,0.8,0.9"
    assert rest == ["dvc exp run --run-all --jobs 1", "soundspot sensitivity delta_v"]


def test_a_bare_name_is_what_the_variant_trains_with():
    pair = [
        experiment("a", delta_v=0.6, variants=("itr", "iterative"), methods={"iterative": {"delta_v": 0.5}, "itr": {}}),
        experiment("b", delta_v=0.7, variants=("itr", "iterative"), methods={"iterative": {"delta_v": 0.5}, "itr": {}}),
    ]
    (itr,) = series_of(*pair)  # `iterative` overrides the sweep: both are 0.5
    assert (itr.variant, [point.value for point in itr.points]) == ("itr", [0.6, 0.7])
    own = [experiment(name, methods={"iterative": {"delta_v": value}}) for name, value in (("c", 0.3), ("d", 0.4))]
    (iterative,) = series_of(*own)
    assert [point.value for point in iterative.points] == [0.3, 0.4]


def test_a_dotted_key_is_taken_at_its_word_and_variants_can_be_chosen():
    both = ("itr", "iterative")
    pair = [experiment("a", temperature=0.1, variants=both), experiment("b", temperature=0.2, variants=both)]
    found = series_of(*pair, setting="training.tiny.iterate.temperature", variants=["itr"])
    assert [(series.variant, [point.value for point in series.points]) for series in found] == [("itr", [0.1, 0.2])]


def test_the_first_listed_and_so_latest_of_two_experiments_at_one_value_counts():
    (series,) = series_of(
        experiment("new", delta_v=0.6, success=0.2),
        experiment("old", delta_v=0.6, success=0.9),
        experiment("other", delta_v=0.7),
    )
    assert [point.experiment for point in series.points] == ["new", "other"]


def test_other_splits_and_unfinished_experiments_are_left_out():
    failed = experiment("failed", delta_v=0.5) | {"State": "Failed"}
    queued = experiment("queued", delta_v=0.55) | {"rev": "not run"}
    running = experiment("running", delta_v=0.45, success=0.9) | {
        "State": "Running"
    }  # with the scores of the one before
    (series,) = series_of(
        failed,
        queued,
        running,
        experiment("a"),
        experiment("b", delta_v=0.7),
        experiment("test", delta_v=0.6, split="test"),
    )
    assert [point.experiment for point in series.points] == ["b", "a"]


@pytest.mark.parametrize("setting", ["delta_v", "no_such_setting", "training.tiny.batch_size"])
def test_nothing_to_compare_says_what_was_found(setting):
    with pytest.raises(EvaluationError, match=rf"{setting}: of 2 finished experiments, 1 scored tiny on the split"):
        series_of(experiment("a"), experiment("b", delta_v=0.7, split="test"), setting=setting)


def test_a_setting_that_is_off_or_text_is_not_a_value():
    with pytest.raises(EvaluationError, match="delta_v"):
        series_of(experiment("a", delta_v=True), experiment("b", delta_v="0.7x"))


def run(*arguments):
    with pytest.raises(SystemExit) as stop:
        run_command(soundspot, ["sensitivity", *arguments])
    return stop.value.code


def test_the_command_writes_table_numbers_and_picture(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    every = [experiment(f"e{i}", delta_v=0.6 + i / 10, success=0.2 + i / 10) for i in range(3)]
    monkeypatch.setattr("pipeline.cli.scoring.sensitivity.list_experiments", lambda *, all_commits: shown(*every))
    monkeypatch.setattr("pipeline.cli.scoring.sensitivity.read_from_commit", read_written)
    assert run("delta_v", "--dataset", "tiny") == 0
    assert "iterative (Eq. 7)      0.7  30.0 (25.0–34.0)" in capsys.readouterr().out
    folder = tmp_path / "results" / "tiny" / "sensitivity"
    rows = list(csv.DictReader((folder / "delta_v.csv").open(encoding="utf-8")))
    assert [(float(row["value"]), float(row["success_rate_high"])) for row in rows] == [
        (pytest.approx(0.6 + i / 10), pytest.approx(0.24 + i / 10)) for i in range(3)
    ]
    assert "| iterative (Eq. 7) | 0.8 | 40.0 (35.0–44.0) |" in (folder / "delta_v.md").read_text(encoding="utf-8")
    picture = np.asarray(Image.open(folder / "delta_v.png").convert("L"))
    assert min(picture.shape) > 300
    assert picture.std() > 5


def test_outside_of_a_dvc_project(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("delta_v", "--dataset", "tiny") == 1
    assert "run from the project's root" in capsys.readouterr().err


STAGE = """\
import json, pathlib, yaml
params = yaml.safe_load(open("params.yaml"))
delta_v = params["training"]["tiny"]["iterate"]["delta_v"]
folder = pathlib.Path("results/tiny/iterative")
folder.mkdir(parents=True, exist_ok=True)
values = {"success_rate": delta_v / 2, "auc": delta_v / 4}
ends = {key + end: value + step for key, value in values.items() for end, step in (("_low", -0.1), ("_high", 0.1))}
(folder / "metrics.json").write_text(json.dumps(values))
(folder / "scores.json").write_text(json.dumps({**values, **ends, "split": params["score_split"], "seeds": [0]}))
"""
PIPELINE = {
    "stages": {
        "evaluate": {
            "cmd": "python stage.py",
            "deps": ["stage.py"],
            "params": ["score_split", "training"],
            "outs": [{"results/tiny/iterative/scores.json": {"cache": False}}],
            "metrics": [{"results/tiny/iterative/metrics.json": {"cache": False}}],
        }
    }
}


@pytest.mark.slow
def test_experiments_of_a_real_dvc(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    params = {"dataset": "tiny", "variants": ["iterative"], "seeds": [0], "score_split": "test"}
    params["training"] = {"tiny": {"iterate": ITERATE, "methods": {"iterative": {}}}}
    for name, content in (("params.yaml", params), ("dvc.yaml", PIPELINE)):
        (tmp_path / name).write_text(yaml.safe_dump(content))
    (tmp_path / "stage.py").write_text(STAGE)
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    quiet = environment() | {"DVC_NO_ANALYTICS": "1"}
    changes = ["-S", "score_split=validation"]
    for command in (
        ["git", "init", "-q"],
        [*DVC, "init", "-q"],
        ["git", "add", "-A"],
        ["git", *identity, "commit", "-qm", "start"],
        [*DVC, "exp", "run", *changes, "-S", "training.tiny.iterate.delta_v=0.6"],
        [*DVC, "exp", "run", *changes, "-S", "training.tiny.iterate.delta_v=0.9"],
    ):
        done = subprocess.run(command, cwd=tmp_path, env=quiet, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    assert run("delta_v", "--dataset", "tiny") == 0
    rows = list(csv.DictReader((tmp_path / "results/tiny/sensitivity/delta_v.csv").open(encoding="utf-8")))
    assert [(float(row["value"]), float(row["success_rate"])) for row in rows] == [(0.6, 0.3), (0.9, 0.45)]
    assert all(row["experiment"] for row in rows)
