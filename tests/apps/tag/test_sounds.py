"""Taggers of audio: input layouts, windows, outputs, refusals."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

from pipeline.apps.tag.sounds import SoundModel
from pipeline.common.errors import MediaError, PackageError, TaggingError
from tests.support.taggers import write_dense_tflite, write_mean_tflite, write_onnx_tagger

WAVE = np.random.default_rng(0).uniform(-1, 1, 1000).astype(np.float32)


def names(tmp_path, *tags):
    path = tmp_path / "tags.txt"
    path.write_text("\n".join(tags))
    return path


def measured(wave):
    """The closed form of the ONNX tagger."""
    return np.array([np.abs(wave).mean(), np.abs(np.diff(wave)).mean() / 2])


@pytest.fixture
def onnx_model(tmp_path):
    return SoundModel(tmp_path / "tagger.onnx", names(tmp_path, "loud", "sharp"), 16_000)


@pytest.mark.parametrize("shape", [["n"], ["batch", "n"], [1, "n"], ["batch", 1, "n"]])
def test_a_waveform_of_any_length_in_any_layout(onnx_model, shape):
    write_onnx_tagger(onnx_model.path, shape)
    np.testing.assert_allclose(onnx_model.load()(WAVE), measured(WAVE), rtol=1e-5)


def test_a_fixed_length_gives_windows_whose_mean_counts(onnx_model):
    write_onnx_tagger(onnx_model.path, [1, 300])
    windows = [WAVE[:300], WAVE[300:600], WAVE[600:900], WAVE[-300:]]
    expected = np.mean([measured(window) for window in windows], axis=0)
    np.testing.assert_allclose(onnx_model.load()(WAVE), expected, rtol=1e-5)
    short = np.concatenate([WAVE[:100], np.zeros(200)])
    np.testing.assert_allclose(onnx_model.load()(WAVE[:100]), measured(short), rtol=1e-5)


def test_logits_get_a_sigmoid_and_other_values_are_refused(onnx_model):
    write_onnx_tagger(onnx_model.path, [1, "n"], scale=5.0)
    with pytest.raises(TaggingError, match=r"tagger\.onnx.*--sound-logits"):
        onnx_model.load()(WAVE)
    expected = 1 / (1 + np.exp(-5 * measured(WAVE)))
    np.testing.assert_allclose(replace(onnx_model, logits=True).load()(WAVE), expected, rtol=1e-5)


def test_non_finite_values_are_the_clips_fault(onnx_model):
    write_onnx_tagger(onnx_model.path, [1, "n"])
    with pytest.raises(MediaError, match="non-finite"):
        onnx_model.load()(np.full(10, np.inf, np.float32))


def test_the_sample_rate_comes_from_the_metadata_or_is_asked_for(onnx_model):
    model = replace(onnx_model, sample_rate=None)
    write_onnx_tagger(model.path, [1, "n"], metadata={"sample_rate": "32000"})
    assert model.load().sample_rate == 32_000
    write_onnx_tagger(model.path, [1, "n"])
    with pytest.raises(TaggingError, match="--sample-rate"):
        model.load()


@pytest.mark.parametrize(
    ("shape", "message"),
    [([1, 2, "n"], "1 × 2 × any, not a waveform"), ([64, 100], "64 × 100"), ([1, 1, 1, 9], "1 × 9")],
)
def test_other_inputs_are_refused(onnx_model, shape, message):
    write_onnx_tagger(onnx_model.path, shape)
    with pytest.raises(TaggingError, match=message):
        onnx_model.load()


def test_the_number_of_names_must_be_that_of_an_output(onnx_model, tmp_path):
    write_onnx_tagger(onnx_model.path, [1, "n"])
    names(tmp_path, *"abcd")
    with pytest.raises(TaggingError, match=r"4 values.*\(1, 3\), \(1, 2\)"):
        onnx_model.load()


def test_unusable_files_are_one_line(onnx_model, monkeypatch):
    with pytest.raises(TaggingError, match="no such file"):
        onnx_model.load()
    onnx_model.path.write_bytes(b"not a model")
    with pytest.raises(TaggingError, match=r"tagger\.onnx: cannot be opened") as caught:
        onnx_model.load()
    assert "\n" not in str(caught.value)
    with pytest.raises(TaggingError, match=r"tagger\.pt.*\.onnx or \.tflite"):
        replace(onnx_model, path=onnx_model.path.with_suffix(".pt")).load()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(PackageError, match=r"onnxruntime.*\[tag\]"):
        onnx_model.load()


class TestTflite:
    def test_a_dense_layer_on_windows(self, tmp_path):
        rng = np.random.default_rng(1)
        weights, bias = rng.normal(size=(3, 300)).astype(np.float32) / 9, rng.normal(size=3).astype(np.float32)
        path = write_dense_tflite(tmp_path / "tagger.tflite", weights, bias)
        tagger = SoundModel(path, names(tmp_path, *"abc"), 16_000).load()
        windows = [WAVE[:300], WAVE[300:600], WAVE[600:900], WAVE[-300:]]
        expected = np.mean([1 / (1 + np.exp(-(weights @ window + bias))) for window in windows], axis=0)
        np.testing.assert_allclose(tagger(WAVE), expected, rtol=1e-4)

    def test_a_waveform_of_any_length(self, tmp_path):
        tagger = SoundModel(write_mean_tflite(tmp_path / "t.tflite"), names(tmp_path, "loud"), 16_000).load()
        for length in (1000, 17, 400):
            np.testing.assert_allclose(tagger(WAVE[:length]), [np.abs(WAVE[:length]).mean()], rtol=1e-5)

    def test_a_damaged_file_is_one_line(self, tmp_path):
        path = tmp_path / "t.tflite"
        path.write_bytes(b"\x00" * 100)
        with pytest.raises(TaggingError, match=r"t\.tflite: cannot be opened"):
            SoundModel(path, names(tmp_path, "loud"), 16_000).load()
