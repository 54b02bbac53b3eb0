"""Nothing from a file name, a title or a library controls the terminal."""

import logging
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from pipeline.common.console import echo, note, report, run_command
from pipeline.common.errors import ManifestError
from pipeline.common.text_table import Table, printable, printable_lines
from pipeline.report.report import markdown_page

ROOT = Path(__file__).parents[2]
# Red text, a cleared screen, a window title, a carriage return, a C1 sequence, and a name that is shown backwards.
HOSTILE = "a\x1b[31m\x1b[2J\x1b]0;t\x07\r\x9b1m\u202egpj.exe\u2066\x00\x7f\u2028b"
CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("Ünï \u65e5\u672c", "Ünï \u65e5\u672c"),
        ("3.14\u202fPM\xa0x", "3.14\u202fPM\xa0x"),
        ("\u0645\u06cc\u200c\u062e", "\u0645\u06cc\u200c\u062e"),
        ("\x1b[31m", r"\x1b[31m"),
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("\u202egpj", r"\u202egpj"),
        ("\udce9", r"\udce9"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_only_characters_without_a_form_of_their_own_are_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable_lines(f"{text}\nx".replace("a\nb", "ab")).splitlines()[-1] == "x"


@pytest.mark.parametrize("show", [echo, note, report, lambda text: echo(text, err=True)])
def test_every_way_to_print(capsys: pytest.CaptureFixture[str], show) -> None:
    show(HOSTILE)
    shown = "".join(capsys.readouterr())
    assert r"\x1b[31m" in shown
    assert r"\u202egpj" in shown
    assert not CONTROLS.search(shown)


def _fail(error: Exception):
    def action() -> None:
        raise error

    return action


@pytest.mark.parametrize(
    "error",
    [ManifestError(HOSTILE), click.UsageError(HOSTILE), OSError(28, "No space left on device", HOSTILE)],
    ids=lambda error: type(error).__name__,
)
def test_every_error(capsys: pytest.CaptureFixture[str], error: Exception) -> None:
    with pytest.raises(SystemExit):
        run_command(click.Command("x", callback=_fail(error)), [])
    shown = capsys.readouterr().err
    assert r"\u202egpj" in shown
    assert not CONTROLS.search(shown)


def test_a_long_error_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run_command(click.Command("x", callback=_fail(ManifestError("x" * 10_000_000))), [])
    assert len(capsys.readouterr().err) < 5000


def test_bugs_and_the_log() -> None:
    script = (
        "import logging, click\n"
        "from pipeline.common.console import configure_output, run_command\n"
        f"text = {HOSTILE!r}\n"
        "@click.command()\n"
        "@click.pass_context\n"
        "def x(ctx):\n"
        "    configure_output(ctx, quiet=False, verbose=False)\n"
        "    logging.getLogger('a').warning('%s', text)\n"
        "    raise ZeroDivisionError(text)\n"
        "run_command(x, [])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 1
    assert done.stderr.count(r"\x1b[31m") == 2
    assert "Traceback" in done.stderr
    assert not CONTROLS.search(done.stderr)
    assert logging.getLogger("a").handlers == []


def test_cells_of_tables() -> None:
    table = Table(("name", "x"), ((HOSTILE, "1"), ("a|b\nc", "2")))
    assert not CONTROLS.search(table.text() + table.markdown())
    assert len(table.text().splitlines()) == len(table.markdown().splitlines()) == 4
    rows = [re.split(r"(?<!\\)\|", line) for line in table.markdown().splitlines()]
    assert {len(row) for row in rows} == {4}
    assert rows[3][1].strip() == r"a\|b\nc"


def test_the_title_of_a_report_is_one_heading() -> None:
    lines = markdown_page(f"a|b\n# {HOSTILE}", "lead", []).splitlines()
    assert lines[0].startswith(r"# a|b\n# a\x1b")
    assert lines[2] == "lead"


def test_printing_goes_through_one_module() -> None:
    """A name that is printed elsewhere reaches the terminal as it is."""
    allowed = {
        "pipeline/common/console.py": 1,
        "pipeline/cli/pseudo_labels/commands.py": 1,
        "pipeline/cli/doctor.py": 1,
    }
    found: dict[str, int] = {}
    for path in sorted([*ROOT.glob("pipeline/**/*.py"), *ROOT.glob("stages/*.py")]):
        text = path.read_text(encoding="utf-8")
        calls = re.findall(r"click\.s?echo\(|(?<![\w.])print\(|traceback\.print_|sys\.std(?:out|err)\.write", text)
        if calls:
            found[path.relative_to(ROOT).as_posix()] = len(calls)
    # In order: the function itself, an image for the terminal, and a colored mark.
    assert found == allowed | {"pipeline/common/console.py": found["pipeline/common/console.py"]}
    assert found["pipeline/common/console.py"] <= 2
