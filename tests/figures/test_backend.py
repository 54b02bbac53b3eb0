"""Figures need no matplotlib backend, and the user's choice of one is left alone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

DRAW = """
from pathlib import Path
import numpy as np
from pipeline.figures.curves import Curve, success_curves
from pipeline.figures.heatmap import heatmap_colors
from pipeline.figures.style import save
save(success_curves(np.arange(3) / 2, [Curve("a", np.ones(3))]), Path("figure.png"))
assert heatmap_colors().shape == (256, 3)
import os, sys
assert "matplotlib.pyplot" not in sys.modules
import matplotlib
print(os.environ.get("MPLBACKEND"), matplotlib.rcParams._get_backend_or_none())
"""


@pytest.mark.parametrize(("backend", "kept"), [
    ("module://matplotlib_inline.backend_inline", None), ("nonsense", "None None\n"), ("svg", "svg svg\n"),
])  # fmt: skip
def test_figures_are_drawn_whatever_backend_is_set(tmp_path, backend, kept):
    environment = {**os.environ, "MPLBACKEND": backend, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", DRAW], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert kept in (None, done.stdout)
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_only_figures_import_matplotlib_and_nothing_imports_pyplot():
    """Other modules would import it before `pipeline.figures` can ignore a backend that is not installed."""
    for path in [*ROOT.glob("pipeline/**/*.py"), *ROOT.glob("stages/*.py"), ROOT / "soundspot.py"]:
        text = path.read_text()
        assert "pyplot" not in text.replace("without pyplot", ""), path
        if path.parent.name != "figures" or path.parent.parent.name != "pipeline":
            assert not re.search(r"^(from|import) matplotlib", text, re.MULTILINE), path
