"""What CI runs cannot leave out the tests in a browser unnoticed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.projects import ROOT

BASH = shutil.which("bash") or "bash"


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder of all programs that `.ci/run` finds: root's, an `apt-get` without a network, a `make` that tells."""
    for name in ("dirname", "tail"):
        (tmp_path / name).symlink_to(shutil.which(name) or name)
    for name, line in (("id", "echo 0"), ("apt-get", "echo no network >&2; exit 100"), ("make", "echo made $1")):
        put(tmp_path / name, line)
    return tmp_path


def put(path: Path, line: str) -> None:
    path.write_text(f"#!{BASH}\n{line}\n")
    path.chmod(0o755)


def run(programs: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": str(programs), **variables}
    return subprocess.run([BASH, str(ROOT / ".ci/run")], env=environment, capture_output=True, text=True, check=False)


def test_ci_without_a_browser_fails_before_anything_else(programs):
    done = run(programs, CI="true")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "chromium is not there and could not be installed: no network\n"


def test_elsewhere_it_says_so_and_goes_on(programs):
    done = run(programs)
    assert (done.returncode, done.stdout) == (0, "made test\n")
    assert "could not be installed" in done.stderr


def test_a_browser_that_is_there_or_can_be_installed_will_do(programs):
    put(
        programs / "apt-get",
        f"printf '#!{BASH}\\n' > {programs}/chromium; {shutil.which('chmod')} +x {programs}/chromium",
    )
    for _ in range(2):
        done = run(programs, CI="true")
        assert (done.returncode, done.stdout, done.stderr) == (0, "made test\n", "")


@pytest.mark.slow
@pytest.mark.parametrize(("variables", "outcome"), [({"CI": "true"}, "1 error"), ({}, "1 skipped")])
def test_the_tests_in_a_browser_skip_themselves_outside_of_ci_alone(tmp_path, variables, outcome):
    environment = {name: value for name, value in os.environ.items() if name != "CI"} | {"PATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/report/test_page_browser.py"],
        cwd=ROOT,
        env=environment | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome in done.stdout.splitlines()[-1]
    assert (done.returncode == 0 or done.returncode == 5) == (outcome == "1 skipped")
