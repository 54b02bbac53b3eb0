"""Every benchmark can be started; what they measure is run by hand (`make bench`)."""

from __future__ import annotations

import importlib
import sys

import pytest

from tests.projects import ROOT

NAMES = sorted(path.stem for path in (ROOT / "benchmarks").glob("[a-z]*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_says_what_it_takes(name, monkeypatch, capsys):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")  # as for a script, which may take from those beside it
    main = importlib.import_module(f"benchmarks.{name}").main
    monkeypatch.setattr(sys, "argv", [f"benchmarks/{name}.py", "--help"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    assert "--output" in capsys.readouterr().out
