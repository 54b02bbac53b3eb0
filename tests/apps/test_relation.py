"""`soundspot pl relation`: y of each epoch at two thresholds, against loops over the pairs."""

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest

from pipeline.cli.main import soundspot
from pipeline.common.console import run_command
from pipeline.common.files import write_csv
from pipeline.common.project import labels_path
from pipeline.manifests.clips import CLIP_COLUMNS
from pipeline.pseudo_labels.artifact import PseudoLabels, write_pseudo_labels
from tests.cli.test_evaluate import PARAMS
from tests.support.labeled_runs import make_run

N = 48
CLIPS = [f"clip-{i:02d}" for i in range(N)]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with a run of two epochs, whose clips are of three kinds, with noise."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(PARAMS)
    run = make_run(tmp_path / "runs/squares/good", epochs=(0, 1), delta_a=0.8)
    for epoch in (0, 1):
        rng = np.random.default_rng(epoch)
        audio = (np.eye(8)[np.arange(N) % 3] + 0.25 * rng.normal(size=(N, 8)) + 1).astype(np.float32)
        attrs = PseudoLabels.open(labels_path(run, epoch)).attrs
        attrs = {key: attrs[key] for key in attrs if key != "format_version"}
        labels = PseudoLabels.from_responses(CLIPS, np.zeros((N, 4, 4), np.float32), audio, **attrs)
        write_pseudo_labels(labels_path(run, epoch), labels)
    return tmp_path


def write_clips(path):
    rows = [["train", clip, "x.mp4", "", "", "", f"kind{i % 3}"] for i, clip in enumerate(CLIPS)]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_csv(path, ["split", *CLIP_COLUMNS], rows)


def run(*arguments):
    with pytest.raises(SystemExit) as stopped:
        run_command(soundspot, ["pl", "relation", *map(str, arguments)])
    return stopped.value.code


def printed(capsys, *arguments):
    assert run(*arguments, "--json") == 0
    return json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def naive(epoch, delta_a):
    """Return positives per clip, precision and recall of an epoch, counted pair by pair."""
    labels = PseudoLabels.open(f"runs/squares/good/pseudo_labels/epoch_{epoch:03d}.h5")
    audio = labels.audio_embedding.astype(np.float64)
    audio = audio - audio.mean(axis=0)
    both = related = alike = 0
    for i in range(N):
        for j in range(N):
            if i != j:
                y = audio[i] @ audio[j] / math.hypot(*audio[i]) / math.hypot(*audio[j]) >= delta_a
                same = i % 3 == j % 3
                both, related, alike = both + (y and same), related + y, alike + same
    return related / N, both / related, both / alike


def test_both_thresholds_equal_the_naive_loop(project, capsys):
    write_clips(project / "data/squares/clips.csv")
    epochs = printed(capsys, "good")
    assert [each["epoch"] for each in epochs] == [0, 1]
    for each in epochs:
        assert each["trained"]["delta_a"] == 0.8
        assert each["recommended"]["delta_a"] != 0.8
        for related in (each["trained"], each["recommended"]):
            found = [related[name] for name in ("positives_per_clip", "precision", "recall")]
            assert found == pytest.approx(naive(each["epoch"], related["delta_a"]), rel=1e-6)
        assert each["alike"] == pytest.approx(15 / 47)
        assert each["recommended"]["recall"] > 0.9
        assert each["recommended"]["precision"] > 0.9


def test_without_labels_the_recommendation_is_the_same(project, capsys):
    without = printed(capsys, "good")
    write_clips(project / "elsewhere.csv")
    labeled = printed(capsys, "good", "--clips", "elsewhere.csv")
    for one, other in zip(without, labeled, strict=True):
        assert (one["trained"]["precision"], one["recommended"]["recall"], one["alike"]) == (None, None, None)
        assert one["recommended"]["delta_a"] == other["recommended"]["delta_a"]
        assert one["percentiles"] == other["percentiles"]
    assert run("good") == 0
    assert "no class labels" in capsys.readouterr().err


def test_the_csv_file_and_the_tables(project, capsys):
    write_clips(project / "data/squares/clips.csv")
    first, _ = printed(capsys, "good")
    assert run("good", "-o", "relation.csv") == 0
    text = capsys.readouterr().out
    assert f"{first['recommended']['delta_a']:.3f}" in text
    with open("relation.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[0]["delta_a_recommended"]) == pytest.approx(first["recommended"]["delta_a"], rel=1e-5)
    assert float(rows[0]["p99"]) == pytest.approx(first["percentiles"]["p99"], rel=1e-5)
    assert float(rows[0]["recall"]) == pytest.approx(first["trained"]["recall"], rel=1e-5)
    assert run("good", "-o", "relation.txt") == 1
    assert "relation.txt" in capsys.readouterr().err


def test_a_run_of_two_clips_has_no_recommendation(project, capsys):
    make_run(project / "runs/squares/small", epochs=(0,))
    (each,) = printed(capsys, "runs/squares/small")
    assert each["recommended"] is None
