"""The digest of a stage's code: its import closure, without comments and docstrings."""

import subprocess
import sys

import pytest

from pipeline.common import code
from pipeline.common.code import code_digest, import_closure
from tests.support.projects import ROOT

MODULES = {
    "pipeline/__init__.py": "",
    "pipeline/a.py": '"""A."""\nfrom pipeline.sub import b\n\n\ndef f(x):\n    """Add."""\n    return x + b.ONE\n',
    "pipeline/sub/__init__.py": "",
    "pipeline/sub/b.py": "import os\n\nONE = 1\n\n\ndef g():\n    import pipeline.late\n",
    "pipeline/late.py": "from pipeline.registry import NAMES\n",
    "pipeline/registry.py": "import pipeline.other\n\nNAMES = []\n",
    "pipeline/other.py": "X = 1\n",
    "pipeline/unused.py": "Y = 1\n",
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Return a function that changes one file and returns the digest of pipeline.a."""
    for name, text in MODULES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(code, "ROOT", tmp_path)

    def digest(name=None, old="", new="", **options):
        for cached in (code._digest, code._tree):
            cached.cache_clear()
        if name:
            path = tmp_path / name
            assert old in path.read_text()
            path.write_text(path.read_text().replace(old, new))
        return code_digest("pipeline.a", **options)

    yield digest
    for cached in (code._digest, code._tree):
        cached.cache_clear()


def test_the_closure_has_every_module_that_python_loads():
    module = "pipeline.training.train"
    script = f"import sys, {module}; print(*(name for name in sys.modules if name.split('.')[0] == 'pipeline'))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert len(loaded) > 30
    assert loaded <= import_closure([module]).keys()


def test_lazy_imports_and_packages_count_and_functions_do_not(package):
    assert import_closure(["pipeline.a"]).keys() == {
        "pipeline", "pipeline.a", "pipeline.sub", "pipeline.sub.b", "pipeline.late", "pipeline.registry", "pipeline.other",
    }  # fmt: skip
    left = import_closure(["pipeline.a"], without=["pipeline.registry"])
    assert not {"pipeline.registry", "pipeline.other"} & left.keys()


def test_comments_docstrings_and_layout_do_not_count(package):
    before = package()
    assert package("pipeline/a.py", '"""A."""', '# why\n"""Other words."""') == before
    assert package("pipeline/a.py", '    """Add."""\n', "\n") == before
    assert package("pipeline/unused.py", "Y = 1", "Y = 2") == before


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [("pipeline/a.py", "x + b", "x - b"), ("pipeline/sub/b.py", "ONE = 1", "ONE = 2"), ("pipeline/other.py", "1", "2")],
)
def test_code_counts(package, name, old, new):
    before = package()
    assert package(name, old, new) != before


def test_a_module_that_is_left_out_does_not_count(package):
    before = package(without=["pipeline.registry"])
    assert package("pipeline/registry.py", "[]", "['new']", without=["pipeline.registry"]) == before
    assert package("pipeline/other.py", "1", "2", without=["pipeline.registry"]) == before
