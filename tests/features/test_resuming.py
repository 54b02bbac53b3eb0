"""An interrupted run that learns from stored features resumes to the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.training import loop
from pipeline.training.train import initialize, train
from tests.support.feature_world import frozen_settings, stored, write_shards, write_weights


def test_an_interrupted_run_resumes_from_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_shards(tmp_path / "shards" / "train", counts=(16,))
    settings = frozen_settings(write_weights(tmp_path / "weights.pth"))
    clips = stored(tmp_path, settings)

    def run(name: str) -> None:
        keywords: dict[str, Any] = {"settings": settings, "seeds": [0], "device": "cpu"}
        initialize(clips, tmp_path / name, **keywords)
        train(clips, tmp_path / name, tmp_path / f"{name}-itr", method="itr", **keywords)

    run("whole")
    saved, stopped = loop.save, set()

    def interrupted(run: Any, state: Any) -> None:
        saved(run, state)
        if state.epoch == 1 and run.folder.path not in stopped:
            stopped.add(run.folder.path)
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "save", interrupted)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run("part")
    run("part")
    assert capsys.readouterr().err.count("resuming after epoch 1") == 2
    for name in ("", "-itr"):
        assert (tmp_path / f"part{name}/model.pt").read_bytes() == (tmp_path / f"whole{name}/model.pt").read_bytes()
