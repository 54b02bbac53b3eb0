"""The sweep that experiments.md describes runs, and its table shows the values that were swept."""

from __future__ import annotations

import csv
import json

import pytest

from tests.support.documented_commands import run_page
from tests.support.projects import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # it may wait for the prepared project


def test_the_commands_of_experiments_run(reader):
    run_page(ROOT / "docs/experiments.md", reader)

    with (reader / "results/demo/sensitivity/delta_v.csv").open() as file:
        assert {float(row["value"]) for row in csv.DictReader(file)} == {0.5, 0.6}
    assert json.loads((reader / "results/demo/iterative/scores.json").read_text())["split"] == "validation"
