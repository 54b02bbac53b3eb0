"""The relation that is measured is the one that training reads, whichever epoch's ã it is from."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pipeline.common.project import labels_path
from pipeline.pseudo_labels.artifact import PseudoLabels, write_pseudo_labels
from pipeline.report import epoch_quality
from pipeline.report.epoch_quality import measure_run
from pipeline.training.checkpoints import read_checkpoint, write_checkpoint
from tests.support.labeled_runs import CLIPS, make_run

PAIRS = {0: [(0, 1), (2, 3)], 1: [(0, 1), (4, 5)], 2: [(6, 7)]}  # the clips that sound alike, by epoch


def measured(tmp_path, source, monkeypatch):
    """Return the shares of related pairs by epoch, for a run with a `relation_from`."""
    run = make_run(tmp_path / "run", center_audio=False)
    for epoch, pairs in PAIRS.items():
        audio = np.eye(12, dtype=np.float32)
        for first, second in pairs:
            audio[second] = audio[first]
        old = PseudoLabels.open(labels_path(run, epoch))
        attrs = {key: old.attrs[key] for key in old.attrs if key != "format_version"}
        write_pseudo_labels(
            labels_path(run, epoch),
            PseudoLabels.from_responses(CLIPS, np.zeros((12, 4, 4), np.float32), audio, **attrs),
        )
    content = read_checkpoint(run / "model.pt")
    settings = json.loads(content["iteration"]) | ({"relation_from": source} if source else {})
    write_checkpoint(run / "model.pt", content | {"iteration": json.dumps(settings)})
    monkeypatch.setattr(epoch_quality, "_history_by_epoch", lambda path: {})
    rows = measure_run(run, "iterative", 0, CLIPS, range(12), np.ones((12, 12), dtype=bool))
    return [round(row.values["related"] * 12 * 11 / 2) for row in rows]


@pytest.mark.parametrize(
    ("source", "related"),
    [(None, [2, 2, 1]), ("previous", [2, 2, 1]), ("initialization", [2, 2, 2]), ("either", [2, 3, 3])],
)
def test_related_pairs(tmp_path, monkeypatch, source, related):
    assert measured(tmp_path, source, monkeypatch) == related
