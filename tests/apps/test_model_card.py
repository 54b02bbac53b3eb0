"""The model card, for a model inside and outside a project."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from pipeline.apps.export.export import export_model
from pipeline.apps.export.model_card import model_card, read_context
from pipeline.common.errors import ExportError
from pipeline.common.files import file_digest
from pipeline.evaluation.calibration import Calibration, write_calibration
from tests.support.exported_models import save_method_model
from tests.support.projects import ROOT

SCORES = {"split": "test", "protocol": "paper256", "threshold": 0.5, "n_clips": 1234}


def scores(success, auc, prefix=""):
    values = {"success_rate": success, "auc": auc}
    ends = (("", 0), ("_low", -0.01), ("_high", 0.01))
    return {f"{prefix}{key}{end}": value + shift for key, value in values.items() for end, shift in ends}


@pytest.fixture
def project(tmp_path):
    save_method_model(tmp_path / "runs/demo/iterative/model.pt")
    (tmp_path / "data_manifests/demo").mkdir(parents=True)
    shutil.copy(ROOT / "data_manifests/demo/dataset.yaml", tmp_path / "data_manifests/demo")
    results = tmp_path / "results/demo"
    (results / "iterative").mkdir(parents=True)
    metrics = {**SCORES, "seeds": [0], **scores(0.635, 0.533), **scores(0.081, 0.122, "shuffled_")}
    (results / "iterative/scores.json").write_text(json.dumps(metrics))
    rows = {"random": {**SCORES, **scores(0.02, 0.126)}, "all_ones": {**SCORES, "split": "other", **scores(0.99, 0.99)}}
    (results / "baselines.json").write_text(json.dumps(rows))
    return tmp_path


def card_of(model, *, format="torch"):
    output = model.parent / f"out.{'pt' if format == 'torch' else 'onnx'}"
    exported = export_model(model, output, format=format, overwrite=True)
    return model_card(exported, read_context(model))


def calibrate(project, digest):
    path = project / "results/demo/maps/iterative/calibration.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_calibration(path, Calibration(digest, "test", 9, [0.0] * 101, {}))


def test_in_a_project(project):
    model = project / "runs/demo/iterative/model.pt"
    calibrate(project, file_digest(model))
    text = card_of(model)
    for line in (
        "# out.pt",
        "exported as TorchScript. Its method is `iterative` (iterative (Eq. 7))",
        "`intra` on, `inter` on",
        f"`model.pt` with SHA-256 `{file_digest(model)}`",
        "- Dataset: `demo`: Demo: ten kinds of sounding objects",
        "- License: Apache-2.0, like the program that renders it",
        "- Clips: 20, each one frame with 0.5 s of audio around it",
        "- Labels: none used",
        "- Response map: 8 × 8 cells, normalized by min-max; sounding above δ\\_v = 0.7".replace("\\_", "_"),
        "Stage `train`, seed 0, 2 epochs from an initialization by Eq. 3",
        "| `delta_a` | 0.8 |",
        "1,234 clips of the split `test` under the protocol `paper256`, success at cIoU ≥ 0.5",
        "| random map | 2.0 (1.0–3.0) | 12.6 (11.6–13.6) |",
        "| iterative (Eq. 7) | 63.5 (62.5–64.5) | 53.3 (52.3–54.3) |",
        "| iterative (Eq. 7), shuffled audio | 8.1 (7.1–9.1) | 12.2 (11.2–13.2) |",
        "it still succeeds on 8.1% of the clips, compared to 63.5% with their own",
        "rendered, synthetic videos only (Demo: ten kinds of sounding objects)",
    ):
        assert line in text, line
    # A baseline of another split must not be listed.
    assert "all ones" not in text
    assert "by their location only" not in text
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## Training data", "## Settings", "## Training", "## Scores", "## Intended use", "## Limits", "## How to use it",
    ]  # fmt: skip


def test_scores_of_other_weights_are_left_out(project):
    model = project / "runs/demo/iterative/model.pt"
    assert "by their location only" in card_of(model)
    calibrate(project, "0" * 64)
    text = card_of(model)
    assert "belong to other weights" in text
    assert "63.5" not in text
    assert "8.1%" not in text


def test_scores_over_seeds(project):
    path = project / "results/demo/iterative/scores.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"seeds": [0, 1, 2]}))
    assert "Means over the seeds 0, 1, 2" in card_of(project / "runs/demo/iterative/model.pt")


def test_a_bare_model(tmp_path):
    text = card_of(save_method_model(tmp_path / "alone/model.pt", "mssl"), format="onnx")
    assert "exported as ONNX (opset 17). Its method is `mssl` (MSSL)" in text
    assert "- Dataset: unknown" in text
    assert "- Labels: bell, drum, horn" in text
    assert "has no `scores.json`" in text
    assert "has not been measured" in text
    assert "synthetic videos" not in text
    assert 'onnxruntime.InferenceSession("out.onnx")' in text
    # MSSL normalizes its maps differently, and so must the code.
    assert "normalized by relu-max" in text
    assert "heat = np.maximum(response[0], 0) / response[0].max()" in text


def test_the_card_is_deterministic_without_a_date_or_html(project):
    model = project / "runs/demo/iterative/model.pt"
    text = card_of(model)
    assert card_of(model) == text
    assert not re.search(r"<[A-Za-z/!]", text)
    assert not re.search(r"\b20\d\d-\d\d", text)
    assert str(project) not in text


def test_titles_cannot_break_the_card(project):
    card = project / "data_manifests/demo/dataset.yaml"
    lines = card.read_text().splitlines()
    title = 'title: "<script>a</script> | [x](y)\\n## Scores *b*"'
    card.write_text("\n".join(title if line.startswith("title:") else line for line in lines))
    text = card_of(project / "runs/demo/iterative/model.pt")
    assert "\\<script\\>a\\</script\\> \\| \\[x\\](y) \\#\\# Scores \\*b\\*" in text
    assert text.count("\n## Scores") == 1


@pytest.mark.parametrize(("content", "message"), [("{", "cannot be read as JSON"), ("[]", "contains no scores")])
def test_damaged_scores_are_reported(project, content, message):
    (project / "results/demo/iterative/scores.json").write_text(content)
    with pytest.raises(ExportError, match=f"scores.json: {message}.*dvc repro evaluate"):
        read_context(project / "runs/demo/iterative/model.pt")
