"""What a model is given that does not belong to the frame, how it is measured, and the command that does it without boxes."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
import torch

from pipeline.apps.localize.localizer import Localizer
from pipeline.common.errors import CheckpointError, EvaluationError
from pipeline.common.project import shard_path
from pipeline.evaluation import calibration
from pipeline.evaluation.calibration import (
    FEW_CLIPS,
    NOISES,
    Calibration,
    find_calibration,
    noise_peaks,
    read_calibration,
)
from pipeline.shards.reader import ShardSet
from pipeline.shards.writer import ShardWriter
from tests.cli.test_main import run
from tests.support.localizing import AUDIO, IMAGE_SIZE, save_model
from tests.support.projects import ROOT
from tests.support.splits import finish_split

N_CLIPS = 7


def write_shards(folder, n=N_CLIPS, **changed):
    rng = np.random.default_rng(1)
    settings = {"fingerprint": "0123456789abcdef" * 2, "image_size": IMAGE_SIZE, **AUDIO.model_dump(), **changed}
    mel_hz = np.linspace(10, 4000, AUDIO.n_mels)
    with ShardWriter.create(
        shard_path(folder, 0), settings=settings, capacity=n, mel_hz=mel_hz, n_frames=AUDIO.n_frames
    ) as shard:
        shard.append(
            [f"clip-{i}" for i in range(n)],
            frame=rng.integers(0, 256, (n, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8),
            log_mel=rng.normal(-6, 2, (n, AUDIO.n_mels, AUDIO.n_frames)).astype(np.float32),
            source_time_s=np.zeros(n),
        )
    finish_split(folder)
    return ShardSet.open(folder)


def wave(noise, number):
    return NOISES[noise](AUDIO.n_samples, AUDIO.sample_rate, np.random.default_rng(number))


def test_hum_is_the_mains_and_its_harmonics():
    mains = set()
    for number in range(20):
        power = np.abs(np.fft.rfft(wave("hum", number))) ** 2  # a second: one bin a hertz
        lines = np.flatnonzero(power > 1e-6 * power.max())
        mains.add(int(lines[0]))
        assert lines.tolist() == [k * lines[0] for k in range(1, 11)]
        # Amplitude falls as 1/k.
        assert power[lines] == pytest.approx(power[lines[0]] / np.arange(1, 11) ** 2)
    assert mains == {50, 60}


def test_hum_stays_below_half_the_sample_rate():
    low = NOISES["hum"](400, 400, np.random.default_rng(0))
    assert np.flatnonzero(np.abs(np.fft.rfft(low)) > 1).max() < 200


def test_hiss_is_white():
    power = np.mean([np.abs(np.fft.rfft(wave("hiss", number))) ** 2 for number in range(40)], axis=0)
    bands = power[1:-1].reshape(-1, 43).mean(axis=1) / AUDIO.n_samples
    assert bands == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("noise", list(NOISES))
def test_each_frame_gets_another_noise(noise):
    assert not np.allclose(wave(noise, 0), wave(noise, 1))
    assert (wave(noise, 3) == wave(noise, 3)).all()


@pytest.mark.parametrize("noise", list(NOISES))
def test_a_frame_is_answered_as_localize_answers_it(tmp_path, monkeypatch, noise):
    path = save_model(tmp_path / "model.pt")
    shards = write_shards(tmp_path / "test")
    localizer = Localizer.load(path, device="cpu")
    frames, _ = shards.read(range(len(shards)))
    windows = [wave(noise, number).astype(np.float32) for number in range(N_CLIPS)]
    expected = [
        localizer.localize_batch([frame], [window])[0].response.max()
        for frame, window in zip(frames, windows, strict=True)
    ]
    monkeypatch.setattr(calibration, "BATCH_SIZE", 3)
    assert noise_peaks(path, shards, device="cpu")[noise] == pytest.approx(np.array(expected), abs=1e-4)
    # Of many clips, some at equal steps.
    monkeypatch.setattr(calibration, "MAX_NOISE_CLIPS", 2)
    few = [localizer.localize_batch([frames[i]], [windows[k]])[0].response.max() for k, i in enumerate((0, 6))]
    assert noise_peaks(path, shards, device="cpu")[noise] == pytest.approx(np.array(few), abs=1e-4)


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = tmp_path / "runs/demo/iterative/model.pt"
    model.parent.mkdir(parents=True)
    save_model(model)
    write_shards(tmp_path / "data/demo/shards/test")
    return tmp_path


def test_a_model_is_calibrated_without_boxes(project, capsys):
    model = "runs/demo/iterative/model.pt"
    shutil.copy(ROOT / "params.yaml", project)
    assert run("calibrate", model) == 0
    written = project / "results/demo/maps/iterative/calibration.json"
    out = capsys.readouterr().out
    assert out.startswith(f"wrote {written}: calibrated on 7 clips (test), which is few: ")
    assert "for 1% to 47% of the frames" in out
    found = find_calibration(project / model)
    assert found == read_calibration(written)
    assert set(found.foreign) == {"shuffled", "hiss", "hum"}
    assert Localizer.load(model, device="cpu").calibration == found
    assert run("calibrate", "iterative", "--json", "-o", "elsewhere.json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["file"], facts["own"]) == ("elsewhere.json", found.own)
    assert read_calibration(project / "elsewhere.json") == found


def test_an_evaluated_variant_is_not_calibrated_in_its_place(project, capsys):
    """Its calibration tells that the scores beside it are of these weights."""
    shutil.copy(ROOT / "params.yaml", project)
    metrics = project / "results/demo/iterative/scores.json"
    metrics.parent.mkdir(parents=True)
    metrics.write_text("{}")
    assert run("calibrate", "iterative") == 1
    error = capsys.readouterr().err
    assert "results/demo/iterative/scores.json" in error
    assert "dvc repro evaluate@demo-iterative`" in error
    assert not (project / "results/demo/maps").exists()
    assert run("calibrate", "iterative", "-o", "usual.json") == 0
    assert read_calibration(project / "usual.json").n_clips == N_CLIPS


def test_the_device_of_the_environment_is_taken(project, capsys, monkeypatch):
    monkeypatch.setenv("SOUNDSPOT_DEVICE", "nowhere")
    assert run("calibrate", "runs/demo/iterative/model.pt", "--shards", "data/demo/shards/test") == 1
    assert "device 'nowhere' cannot be used" in capsys.readouterr().err


def test_weights_that_make_infinite_responses_are_unusable(project, capsys):
    """All weights are finite, but the root of a negative variance is not."""
    model = project / "runs/demo/iterative/model.pt"
    content = torch.load(model, weights_only=True)
    content["model.visual.bn1.running_var"].fill_(-1)
    torch.save(content, model)
    assert run("calibrate", "runs/demo/iterative/model.pt", "--shards", "data/demo/shards/test") == 1
    assert re.fullmatch(r"error: \S*model\.pt: .* not finite.*\n", capsys.readouterr().err)
    with pytest.raises(CheckpointError, match=r"model\.pt.* not finite"):
        noise_peaks(model, ShardSet.open(project / "data/demo/shards/test"), device="cpu")


def test_a_model_outside_a_project(project, capsys):
    (project / "runs/demo/iterative/model.pt").rename("model.pt")
    assert run("calibrate", "model.pt") == 2
    error = capsys.readouterr().err
    assert "model.pt" in error
    assert "--shards" in error
    (project / "data/demo/shards/test").rename("data/demo/shards/train")
    assert run("calibrate", "model.pt", "--shards", "data/demo/shards/train") == 0
    assert "trained on these clips" in capsys.readouterr().err
    assert read_calibration(project / "calibration.json").split == "train"


def test_what_cannot_be_calibrated(project, capsys):
    model = "runs/demo/iterative/model.pt"
    write_shards(project / "one", 1)
    assert run("calibrate", model, "--shards", "one") == 1
    assert "at least 2 clips" in capsys.readouterr().err
    shards = write_shards(project / "other", n_fft=512)
    with pytest.raises(EvaluationError, match=r"n_fft 256.* 512"):
        calibration.calibrate(project / model, shards, split="test")
    assert run("calibrate", model, "--shards", "none") == 1
    assert "none: no shards" in capsys.readouterr().err
    shutil.copy(ROOT / "params.yaml", project)
    shutil.rmtree(project / "data")
    assert run("calibrate", model) == 1
    assert "shards/test: no such shards; run `dvc repro extract@demo-test`, or pass --shards" in capsys.readouterr().err


def of_peaks(peaks, foreign=()):
    return Calibration.of(np.asarray(peaks), dict(foreign), model="m", split="test")


def test_the_interval_of_the_miss_rate_covers_95_percent():
    """Against simulated calibrations: uniform maxima, for which the share below a threshold is the threshold."""
    n, rng = 21, np.random.default_rng(0)
    low, high = of_peaks(np.arange(n)).miss_interval(0.05)
    actual = np.quantile(rng.random((20_000, n)), 0.05, axis=1)
    assert [low, high] == pytest.approx(np.quantile(actual, [0.025, 0.975]), abs=0.01)


def test_a_rate_of_few_clips_is_an_interval():
    foreign = {"hum": np.zeros(9)}
    many, few = (of_peaks(np.linspace(1, 2, n), foreign).describe() for n in (FEW_CLIPS, FEW_CLIPS - 1))
    assert re.search(rf"\b{FEW_CLIPS} clips .* for 5% of .*100% with mains hum", many)
    assert re.search(r" 2% to 11% of .*5% intended", few)
    assert "hum" not in few
    assert "1 clip (test)" in of_peaks([1.0]).describe()
