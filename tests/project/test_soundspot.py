"""The public API: every name is there, documented, and what the tour in the docstring says works."""

import inspect

import pytest

import soundspot
from tests.support.projects import ROOT


def test_every_name_is_there_and_documented():
    assert soundspot.__all__ == sorted(soundspot.__all__)
    for name in soundspot.__all__:
        value = getattr(soundspot, name)
        assert isinstance(value, dict) or inspect.getdoc(value), name


def test_documents_import_from_soundspot_alone():
    """Except for a new method, which is a module of the library itself."""
    for path in [*ROOT.glob("docs/**/*.md"), ROOT / "README.md"]:
        inside = [
            line for line in path.read_text().splitlines() if line.startswith(("from pipeline", "import pipeline"))
        ]
        assert path.name == "methods.md" or not inside, f"{path}: {inside}"


def tour():
    """Return the lines of code in the module's docstring."""
    lines = [line[4:] for line in soundspot.__doc__.splitlines() if line.startswith("    ")]
    assert len(lines) == 8 + 1
    return "\n".join(lines)


def test_the_tour_imports_what_is_public():
    names = tour().splitlines()[0].removeprefix("from soundspot import ").split(", ")
    assert set(names) <= set(soundspot.__all__)
    for name in names:
        assert tour().count(name) > 1, f"{name} is imported and not used"


@pytest.mark.slow
def test_the_tour_runs(project, monkeypatch):
    monkeypatch.chdir(project)
    epochs = sorted((project / "runs/demo/iterative/pseudo_labels").glob("epoch_*.h5"))
    values = {}
    exec(tour().replace("epoch_003.h5", epochs[-1].name).replace("[0, 1, 2]", "[0, 1]"), values)
    assert len(values["maps"]) == len(values["shards"]) == len(values["scores"].clip_ids)
    assert values["labels"].response.ndim == 3
