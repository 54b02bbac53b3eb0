"""Every command of the documentation and of the help texts exists, with its options and settings."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.support.command_checks import check
from tests.support.documentation import (
    blocks,
    click_commands,
    commands,
    examples,
    mentioned,
    mentioned_in,
    pages,
    parse,
)
from tests.support.documented_commands import NOT_RUN, is_meant
from tests.support.projects import ROOT, environment

PAGES = pages()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page_exist(page):
    """All of them, those in the text between backquotes as well, which need not be complete."""
    for command in commands(page):
        check(command, whole=True)
    for command in mentioned(page):
        check(command, whole=False)


HELPS = click_commands()


@pytest.mark.parametrize("path", HELPS)
def test_the_examples_of_a_help_text_are_taken(path):
    """A line that shows a command shows a whole one, and one of them is the command that is explained."""
    text = HELPS[path].help
    shown = examples(text, f"{path} --help")
    for command in shown:
        check(command, whole=True)
    for command in mentioned_in(text, f"{path} --help"):
        check(command, whole=False)
    own = path.replace("soundspot pseudo-labels", "soundspot pl").split()
    assert any(command.words[: len(own)] == tuple(own) for command in shown), f"{path} --help shows no example of it"


@pytest.mark.parametrize(
    ("shell", "script", "variables", "answer"),
    [
        ("bash", "complete -o nosort -F _soundspot_completion soundspot", {"COMP_CWORD": "2"}, "plain,list"),
        ("zsh", "#compdef soundspot", {"COMP_CWORD": "2"}, "plain\nlist"),
        ("fish", "complete --no-files --command soundspot", {"COMP_CWORD": "li"}, "plain,list"),
    ],
)
def test_completion_of_each_shell(shell, script, variables, answer):
    """The page's command prints a script for the shell; what the script will ask is answered."""
    (block,) = [
        block for block in blocks(ROOT / "docs/terminal.md") if block.language == shell and "_COMPLETE" in block.text
    ]
    (instruction,) = re.findall(r"_SOUNDSPOT_COMPLETE=(\w+) soundspot", block.text)
    assert script in completion(instruction)
    asked = completion(f"{shell}_complete", COMP_WORDS="soundspot pl li", **variables)
    assert asked.startswith(answer)


def completion(instruction: str, **variables: str) -> str:
    program = "import sys; from pipeline.cli.main import soundspot; soundspot.main(prog_name='soundspot')"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment() | variables | {"_SOUNDSPOT_COMPLETE": instruction},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_every_command_that_is_not_run_is_still_documented():
    everything = [command for page in PAGES for command in [*commands(page), *mentioned(page)]]
    for pattern in NOT_RUN:
        assert any(is_meant(pattern, command) for command in everything), f"remove {pattern!r}: no page has it"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("soundspot pl lists iterative", "no command 'lists'"),
        ("soundspot check --batch 1", "no option --batch"),
        ("soundspot --silent check", "no option --silent"),
        ("dvc repro --forse", "dvc does not accept"),
        ("dvc repro trains", "no stage 'trains'"),
        ("dvc repro train@iterative", "no 'train@iterative'"),
        ("dvc repro train@demo-others", "no 'train@demo-others'"),
        ("dvc exp run -S training.demo.iterate.delta=1", r"training\.demo\.iterate\.delta .*params\.yaml"),
        ("make demos", "has no"),
        ("make real PICTURES=a", "has no PICTURES=a"),
        ("python -m stages.train --variants iterative", "has no option --variants"),
        ("soundspot export iterative --format onnx", "Missing option"),
        ("soundspot export iterative --format tflite -o a", "is not one of"),
        ("soundspot pl list iterative 3", "unexpected extra argument"),
        ("python -m stages.train --variant iterative", "Missing option"),
    ],
)
def test_a_command_that_does_not_exist_is_found(line, message):
    (command,) = examples(f"Example: {line}", "a page") if "make" not in line else parse(line, "a page")
    with pytest.raises(AssertionError, match=message):
        check(command, whole=True)


def test_examples_are_found_in_a_help_text():
    text = """Do it; `soundspot doctor` helps.

    \b
    Example, without media:
      soundspot import vggss --annotations vggss.json
        --check-only
      soundspot doctor --json > a.json     to go with a report

    Example: python -m stages.train --out a
    --variant b
    """
    found = [command.text for command in examples(text, "x")]
    assert found == [
        "soundspot import vggss --annotations vggss.json --check-only",
        "soundspot doctor --json '>' a.json",
        "python -m stages.train --out a --variant b",
    ]
    assert [command.text for command in mentioned_in(text, "x")] == ["soundspot doctor"]
