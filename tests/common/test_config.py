"""Settings: errors name the file, the key and the value, before anything runs."""

from pathlib import Path

import pytest
import yaml

from pipeline.common.config import IterationSettings, load_card, load_params
from pipeline.common.errors import SettingsError
from tests.support.projects import ROOT


def edited(tmp_path: Path, change) -> Path:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    change(params)
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(params))
    return path


def put(key: str, value: object):
    def change(params: dict) -> None:
        *parents, last = key.split(".")
        for parent in parents:
            params = params[parent]
        params[last] = value

    return change


def test_the_projects_own_files_are_valid():
    params = load_params(ROOT / "params.yaml")
    assert params.dataset == "demo"
    assert load_card(ROOT / "data_manifests/demo").audio.n_frames == 101


def test_a_method_overrides_the_common_settings(tmp_path):
    path = edited(tmp_path, put("training.demo.methods.itr", {"delta_v": 0.25}))
    training = load_params(path).training["demo"]
    assert training.method("itr", IterationSettings).delta_v == 0.25
    assert training.method("iterative", IterationSettings) == training.iterate


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("training.demo.iterate.delta_v", 1.5, ["training.demo.iterate.delta_v", "1.5"]),
        ("training.demo.iterate.learning_rate", "1e-4", ["learning_rate", "'1e-4'", "1.0e-4"]),
        ("training.demo.iterate.delta_x", 0.5, ["unknown setting", "training.demo.iterate.delta_x"]),
        ("training.demo.encoder.visual.kernel_sizes", [3, 3, 2, 3], ["kernel_sizes", "2", "even"]),
        (
            "training.demo.encoder.visual.backbone",
            "vgg",
            ["training.demo.encoder.visual.backbone", "'vgg'", "timm:NAME"],
        ),
        (
            "training.demo.encoder.audio",
            {"backbone": "timm:resnet18", "width": 8},
            ["unknown setting 'training.demo.encoder.audio.width'"],
        ),
        (
            "training.demo.encoder",
            {"visual": {}},
            ["training.demo.encoder", "no audio, audio_pooling, batch_norm"],
        ),
        ("training.demo.batch_size", 1, ["batch_size", "1"]),
        ("training.demo.batch_size", 64.5, ["batch_size", "64.5"]),
        ("extract.clips_per_shard", 0, ["extract.clips_per_shard", "0"]),
        ("seeds", [0, 0], ["seeds", "[0, 0]"]),
        ("seeds", [], ["seeds"]),
        ("variants", ["itr", "itr"], ["variants", "['itr', 'itr']"]),
        ("variants", ["iterativ"], ["variants", "iterativ", "itr_inter"]),
        ("score_split", "train", ["score_split", "'train'"]),
        ("cross_datasets", ["demo"], ["cross_datasets", "'demo'", "active"]),
        ("cross_datasets", ["a/b"], ["cross_datasets.0", "'a/b'"]),
        ("cross_datasets", ["is3", "is3"], ["cross_datasets", "['is3', 'is3']"]),
        ("dataset", "demo2", ["'demo2'", "training"]),
        ("dataset", "../x", ["dataset", "'../x'"]),
    ],
)
def test_a_wrong_setting_is_named(tmp_path, key, value, words):
    path = edited(tmp_path, put(key, value))
    with pytest.raises(SettingsError) as caught:
        load_params(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    for word in words:
        assert word in message


def test_a_missing_setting_is_named(tmp_path):
    path = edited(tmp_path, lambda params: params["training"]["demo"].pop("batch_size"))
    with pytest.raises(SettingsError, match=r"'training\.demo\.batch_size' is missing"):
        load_params(path)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("audio.n_fft", 401, ["audio.n_fft", "401"]),
        ("audio.clip_seconds", 0.00001, ["audio", "clip_seconds 1e-05"]),
        ("evaluation.grid", 1, ["evaluation.grid", "1"]),
        ("evaluation.grid", 2.5, ["evaluation.grid", "2.5"]),
    ],
)
def test_a_wrong_setting_of_a_card_is_named(tmp_path, key, value, words):
    card = yaml.safe_load((ROOT / "data_manifests/demo/dataset.yaml").read_text())
    put(key, value)(card)
    (tmp_path / "dataset.yaml").write_text(yaml.safe_dump(card))
    with pytest.raises(SettingsError) as caught:
        load_card(tmp_path)
    for word in words:
        assert word in str(caught.value)


def test_files_that_are_not_there_or_not_yaml(tmp_path):
    with pytest.raises(SettingsError, match=r"params\.yaml: no such file"):
        load_params(tmp_path / "params.yaml")
    (tmp_path / "dataset.yaml").write_text("a: [")
    with pytest.raises(SettingsError, match=r"dataset\.yaml: not readable as YAML"):
        load_card(tmp_path)
    (tmp_path / "dataset.yaml").write_text("just words")
    with pytest.raises(SettingsError, match=r"dataset\.yaml: .*mapping.*str"):
        load_card(tmp_path)
