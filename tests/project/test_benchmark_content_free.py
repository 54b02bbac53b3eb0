"""The script behind the table of how much the protocol alone changes a score."""

from __future__ import annotations

import importlib
import json


def test_closed_forms(tmp_path, capsys):
    # A box of the left half, and one of the right half that is not a test frame, in 1-based pixels of a 256 × 256 frame.
    boxes, test, output = tmp_path / "boxes.json", tmp_path / "test.csv", tmp_path / "table.md"
    boxes.write_text(json.dumps({"boxes": {"1": [[1, 1, 129, 256]], "2": [[129, 1, 256, 256]]}}))
    test.write_text("1,7\n3,8\n")

    importlib.import_module("benchmarks.content_free").main(
        ["--boxes", str(boxes), "--test", str(test), "--output", str(output)]
    )

    assert "test frames: 1; others: 1" in capsys.readouterr().out
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in output.read_text().splitlines()]
    header, rows = lines[0], {line[0]: line[1:] for line in lines[2:]}
    assert header[1] == "`paper256`"
    # The whole frame has half of its pixels in the box (but for the last row, which 1-based boxes cannot reach): cIoU just below 0.5.
    success, auc = map(float, rows["all ones"][0].split(" / "))
    assert (success, auc) == (0.0, 47.5)
    # The boxes of other frames are on the right: their mean has nothing of this one.
    assert rows["mean of other splits' boxes"][0] == "0.0 / 2.5"
