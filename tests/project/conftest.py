"""Projects on which the pipeline has run, one for each test."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.documented_commands import put_media
from tests.support.prepared_project import made_once, make_project
from tests.support.projects import environment


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project that all tests copy, not to be changed."""
    return made_once(tmp_path_factory.getbasetemp(), "prepared", make_project)


@pytest.fixture
def project(prepared: Path, tmp_path: Path) -> Path:
    """A copy of the prepared project."""
    return shutil.copytree(prepared, tmp_path / "soundspot", symlinks=True)


@pytest.fixture
def reader(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of a reader who follows the documentation: the project, with media and a name for Git."""
    put_media(project)
    monkeypatch.chdir(project)
    for name, value in (environment() | {"SOUNDSPOT_WORKERS": "2"}).items():
        monkeypatch.setenv(name, value)
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "a")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "a@b")
    return project
