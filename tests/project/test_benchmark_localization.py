"""The localization benchmark: what it measures, and its exit code."""

from __future__ import annotations

import json

import pytest

from benchmarks import localization
from tests.support.projects import ROOT

SECONDS = ("decode_and_encode_seconds", "model_seconds", "whole_seconds")


@pytest.mark.slow
def test_a_short_video_is_measured(tmp_path, capsys):
    output = tmp_path / "localization.json"
    assert localization.main(
        ["--seconds", "1", "--repeats", "1", "--params", str(ROOT / "params.yaml"), "--output", str(output)]
    ) in (0, 1)
    measured = json.loads(output.read_text())
    assert f"{measured['ratio']:.4g}" in capsys.readouterr().out
    assert all(measured[name] > 0 for name in SECONDS)
    decode_and_encode, model, whole = (measured[name] for name in SECONDS)
    assert measured["ratio"] == pytest.approx((whole - model) / decode_and_encode, abs=0.02)


@pytest.mark.parametrize(("ratio", "code"), [(1.5, 0), (1.51, 1), (0.9, 0)])
def test_the_exit_code_reports_whether_the_target_is_met(tmp_path, monkeypatch, capsys, ratio, code):
    result = {**dict.fromkeys(SECONDS, 1.0), "ratio": ratio, "target_ratio": localization.TARGET}
    monkeypatch.setattr(localization, "measure", lambda *_: result)
    output = tmp_path / "localization.json"
    assert localization.main(["--output", str(output)]) == code
    assert ("above its target" in capsys.readouterr().err) is bool(code)
    written = json.loads(output.read_text())
    assert (written["ratio"], written["target_ratio"]) == (ratio, 1.5)
