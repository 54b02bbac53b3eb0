"""The benchmark of the paper's preset, on photographs and recordings that the test makes: a class has one color and one tone."""

from __future__ import annotations

import importlib
import json
import wave
from dataclasses import astuple

import numpy as np
import pytest
import yaml
from PIL import Image

from pipeline.shards.reader import ShardSet
from tests.support.projects import ROOT

COLORS = {
    "cat": (220, 30, 30),
    "cow": (30, 220, 30),
    "dog": (30, 30, 220),
    "frog": (220, 220, 30),
    "pig": (30, 220, 220),
}
HZ = {name: 300 * 2**index for index, name in enumerate(COLORS)}
RATE = 16_000


@pytest.fixture(scope="module")
def benchmark():
    return importlib.import_module("benchmarks.preset_on_mosaics")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return folders of photographs and recordings, four of each class."""
    photos, sounds = tmp_path_factory.mktemp("photos"), tmp_path_factory.mktemp("sounds")
    for name, color in COLORS.items():
        (photos / name).mkdir()
        (sounds / name).mkdir()
        for number in range(4):
            Image.new("RGB", (40, 30), color).save(photos / name / f"{name}{number}.png")
            tone = 0.5 * np.sin(2 * np.pi * HZ[name] * np.arange(5 * RATE) / RATE)
            with wave.open(str(sounds / name / f"{name}{number}.wav"), "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(RATE)
                file.writeframes((32767 * tone).astype("<i2").tobytes())
    return photos, sounds


def test_a_quarter_of_each_class_is_for_test_only(benchmark, folders):
    for folder in folders:
        parts = benchmark.split_files(folder)
        for name in COLORS:
            assert (len(parts["train"][name]), len(parts["test"][name])) == (3, 1)
            assert sorted(parts["train"][name] + parts["test"][name]) == sorted((folder / name).iterdir())


def test_the_box_is_the_quadrant_that_sounds(benchmark, folders, tmp_path):
    photos, sounds = (benchmark.split_files(folder)["train"] for folder in folders)
    shards, boxes = benchmark.write_mosaics(tmp_path / "train", photos, sounds, 24, seed=0)
    frames, log_mels = ShardSet.open(tmp_path / "train").read(range(24))
    assert [box.clip_id for box in boxes] == shards.clip_ids
    mel_hz = benchmark.mel_frequencies(n_mels=64, sample_rate=RATE)
    sounding = set()
    for box, frame, log_mel in zip(boxes, frames, log_mels, strict=True):
        left, top, right, bottom = (round(128 * side) for side in astuple(box)[-4:])
        assert (right - left, bottom - top) == (64, 64)
        color = tuple(np.median(frame[top:bottom, left:right], axis=(0, 1)).astype(int))
        heard = mel_hz[log_mel.mean(axis=1).argmax()]
        assert heard == pytest.approx(HZ[{v: k for k, v in COLORS.items()}[color]], rel=0.1)
        assert len({tuple(frame[row, col]) for row in (32, 96) for col in (32, 96)}) == 4
        sounding.add((left, top))
    assert len(sounding) == 4


def test_it_runs_to_its_end(benchmark, folders, tmp_path, monkeypatch, capsys):
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    encoder = params["training"]["soundnet_flickr"]["encoder"]
    for part in ("visual", "audio"):
        encoder[part] |= {"width": 4, "blocks": [1, 1, 1, 1]}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(benchmark, "PHOTO", 32)
    sizes = ["--train", "8", "--test", "4", "--epochs", "1", "--batch-size", "4", "--output", "result.json"]
    benchmark.main(["--photos", str(folders[0]), "--sounds", str(folders[1]), *sizes])
    result = json.loads((tmp_path / "result.json").read_text())
    table = capsys.readouterr().out
    for name in ("preset", "bare"):
        for stage in ("Eq. 3", "then Eq. 7"):
            values = result[name][stage]
            assert tuple(values) == benchmark.COLUMNS
            assert f"{name}, {stage}" in table
            assert all(0 <= value <= 100 for column, value in values.items() if column != "audio_cosine")
            assert -1 <= values["audio_cosine"] <= 1
    assert result["preset"] != result["bare"]


def test_without_photographs_it_measures_nothing(benchmark, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        benchmark.main([])
    assert end.value.code == 0
    assert not list(tmp_path.iterdir())
