"""The tutorials lead from a folder of videos to a report and a localized video: by one command, and by DVC's commands."""

from __future__ import annotations

import pytest

from tests.support.documented_commands import run_page
from tests.support.projects import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # it may wait for the prepared project


def test_the_commands_of_the_tutorial_run(reader):
    run_page(ROOT / "docs/tutorial.md", reader, again=True)

    assert (reader / "localized" / "holiday.mp4").stat().st_size > 1000
    assert (reader / "results" / "videos" / "report" / "index.md").is_file()


def test_the_commands_step_by_step_run(reader):
    run_page(ROOT / "docs/tutorial-dvc.md", reader, again=True)

    assert (reader / "localized" / "street" / "holiday.mp4").stat().st_size > 1000
    assert (reader / "results" / "street" / "report" / "index.md").is_file()
