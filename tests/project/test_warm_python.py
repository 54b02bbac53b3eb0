"""The quick `python` of the tests behaves like Python: arguments, environment, files, exit code, child processes, signals."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import psutil
import pytest

from tests.support.projects import environment

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="only on Linux")]

MODULE = """
import json, multiprocessing, os, sys, time

def square(number):
    return number ** 2, "torch" in sys.modules

if __name__ == "__main__":
    if "--wait" in sys.argv:
        print(os.getpid(), flush=True)
        try:
            time.sleep(100)
        except KeyboardInterrupt:
            sys.exit(130)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        squares = pool.map(square, [3])
    facts = {
        "arguments": sys.argv[1:], "folder": os.getcwd(), "variable": os.environ.get("VARIABLE"), "input": sys.stdin.read(),
        "squares": squares, "warm": "torch" in sys.modules, "of_tests": "tests" in sys.modules,
    }
    print(json.dumps(facts))
    sys.exit("a message")
"""


@pytest.fixture
def start(tmp_path):
    """Return a function that starts ``python -m stages.own`` in a folder with that module."""
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages/__init__.py").touch()
    (tmp_path / "stages/own.py").write_text(MODULE)

    def start(*arguments: str, **variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["python", "-m", "stages.own", *arguments],
            cwd=tmp_path,
            env=environment() | variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def test_it_runs_a_module_like_python(start, tmp_path):
    process = start("--one", "two words", VARIABLE="a value")
    printed, errors = process.communicate("a line\n")
    assert process.returncode == 1
    assert errors.strip() == "a message"
    assert json.loads(printed) == {
        "arguments": ["--one", "two words"],
        "folder": str(tmp_path.resolve()),
        "variable": "a value",
        "input": "a line\n",
        "squares": [[9, True]],
        "warm": True,
        "of_tests": False,
    }


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_the_program(start, number):
    process = start("--wait")
    program = int(process.stdout.readline())
    assert runs(program)
    process.send_signal(number)
    process.communicate()
    assert process.returncode == (130 if number == signal.SIGINT else -number)
    end = time.monotonic() + 60
    while runs(program) and time.monotonic() < end:
        time.sleep(0.05)
    assert not runs(program)


def runs(process: int) -> bool:
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_everything_else_starts_as_usual():
    code = "import sys; print('torch' in sys.modules)"
    done = subprocess.run(["python", "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
