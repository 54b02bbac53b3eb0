"""The notebook runs from top to bottom on the results of a project, as a hosted notebook would run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.support.projects import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # the first test may wait for the prepared project
NOTEBOOK = ROOT / "docs/notebooks/quickstart.ipynb"
CODE = [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
# Runs the cells on stdin as IPython does, without it: the value of a last expression is a cell's result.
DRIVER = """
import ast, json, sys
names = {"__name__": "__main__"}
for number, source in enumerate(json.load(sys.stdin)):
    body = ast.parse(source).body
    last = ast.Expression(body.pop().value) if isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), f"cell {number}", "exec"), names)
    value = eval(compile(last, f"cell {number}", "eval"), names) if last else None
    if value is not None:
        print(number, type(value).__name__, getattr(value, "size", ""))
"""


@pytest.fixture
def printed(project):
    """What the notebook prints when it starts in its own folder of the project."""
    folder = project / "docs/notebooks"
    folder.mkdir(parents=True)
    # Colab's backend, which only its own environment can import.
    colab = {"MPLBACKEND": "module://matplotlib_inline.backend_inline", "PYTHONPATH": str(ROOT)}
    sources = json.dumps(["".join(cell["source"]) for cell in CODE])
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=sources,
        cwd=folder,
        env=os.environ | colab,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_notebook_runs(printed):
    lines = printed.splitlines()
    assert lines[0].startswith("48 clips, maps of ")
    assert [line.split()[0] for line in lines if line.startswith("epoch_")] == [f"epoch_{i:03d}" for i in range(1, 5)]
    (image,) = (line for line in lines if " Image " in line)
    width, height = map(int, image[image.index("(") :].strip("()").split(","))
    assert width == 4 * height
    scores = {line.split()[0]: float(line.split()[2]) for line in lines if " success " in line}
    assert scores.keys() == {"iterative", "random", "all_ones", "centered_gaussian"}
    assert all(0 <= score <= 1 for score in scores.values())
    assert lines[-1].split()[0] in ("sounding", "not")


def test_the_notebook_is_stored_without_results():
    assert CODE
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in CODE)
