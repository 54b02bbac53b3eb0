"""Check, without running them, that the documentation's commands are valid: programs, subcommands, options, settings."""

from __future__ import annotations

import importlib
import logging
import re

import click
import yaml

from pipeline.cli.main import soundspot
from pipeline.methods.registry import METHODS
from tests.support.documentation import Command
from tests.support.projects import ROOT, read_params

PLACEHOLDERS = {"NAME", "VARIANT", "COMMIT"}  # to be replaced by the reader


def check_soundspot(words: list[str], *, whole: bool = False) -> None:
    """Check that the subcommands and options exist; if the command is `whole`, that click accepts it (files may be missing)."""
    command, context = soundspot, click.Context(soundspot, info_name="soundspot", resilient_parsing=True)
    words = words[1:]
    while isinstance(command, click.Group) and words and words[0] not in ("-h", "--help", "--version"):
        if words[0] in PLACEHOLDERS:
            return
        if words[0].startswith("-"):
            assert any(words[0] in parameter.opts for parameter in command.params), f"no option {words[0]}"
            words = words[1:]
            continue
        below = command.get_command(context, words[0])
        assert below is not None, f"no command {words[0]!r} in {context.command_path!r}"
        command, context, words = below, click.Context(below, info_name=words[0], parent=context), words[1:]
    check_click(command, context, words, whole=whole)


def check_click(command: click.Command, context: click.Context, words: list[str], *, whole: bool) -> None:
    words = words[: words.index(">")] if ">" in words else words
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    for option in (word.split("=")[0] for word in words if word.startswith("-")):
        assert option in known | {"--help", "-h"}, f"{context.command_path} has no option {option}"
    if whole and not {"--help", "-h", "--version"} & set(words):
        try:
            command.make_context(context.command_path, list(words))
        except click.UsageError as error:
            raise AssertionError(f"{context.command_path}: {error.format_message()}") from None


def check_dvc(words: list[str]) -> None:
    from dvc.cli import DvcParserError
    from dvc.cli.parser import get_main_parser

    if words == ["dvc", "exp"]:
        return  # the text mentions the group, not a command
    # DVC logs what it rejects to the output stream of the test that loaded it first, which may be closed by now.
    logging.disable(logging.CRITICAL)
    try:
        arguments = get_main_parser().parse_args(words[1:])
    except (DvcParserError, SystemExit):
        raise AssertionError(f"dvc does not accept {' '.join(words[1:])!r}") from None
    finally:
        logging.disable(logging.NOTSET)
    for setting in getattr(arguments, "set_param", None) or []:
        check_setting(setting)
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    for target in getattr(arguments, "targets", None) or []:
        stage, _, member = str(target).partition("@")
        if words[1] == "repro":
            assert stage in stages, f"no stage {stage!r}"
            names = member.split("-")  # one for each axis of the stage, the dataset first
            assert not member or len(names) == len(stages[stage]["matrix"]), f"no {target!r}"
            assert {*names[1:]} <= {*METHODS, *PLACEHOLDERS, "train", "validation", "test"}, f"no {target!r}"


def check_setting(setting: str) -> None:
    key, value = setting.split("=", 1)
    block = read_params(ROOT)
    for name in key.split("."):
        assert name in block, f"{key} is not a key of params.yaml"
        block = block[name]
    if key == "variants":
        assert set(yaml.safe_load(value)) <= METHODS.keys()


def check_make(words: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert targets is not None
    for word in words[1:]:
        name, is_variable, _ = word.partition("=")
        known = f"$({name})" in makefile if is_variable else name in targets[1].split()
        assert known, f"the Makefile has no {word}"


def check_dask(words: list[str]) -> None:
    command = importlib.import_module(f"distributed.cli.dask_{words[1]}").main
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word.split("=")[0] for word in words if word.startswith("--")} <= known


def check_python(words: list[str], *, whole: bool = False) -> None:
    if words[1] == "-m" and words[2].startswith("stages."):
        stage = importlib.import_module(words[2]).main
        check_click(stage, click.Context(stage, info_name=words[2]), words[3:], whole=whole)
    elif words[1] != "-m":
        text = (ROOT / words[1]).read_text()
        assert all(f'"{word}"' in text for word in words if word.startswith("--"))


def check_torchrun(words: list[str], *, whole: bool = False) -> None:
    check_python(["python", *words[words.index("-m") :]], whole=whole)


def check_pip(words: list[str]) -> None:
    extra = re.fullmatch(r"\.\[(\w+)\]", words[-1])
    assert extra is None or f"\n{extra[1]} =\n" in (ROOT / "setup.cfg").read_text()


CHECKS = {
    "soundspot": check_soundspot,
    "dvc": check_dvc,
    "make": check_make,
    "dask": check_dask,
    "python": check_python,
    "torchrun": check_torchrun,
    "pip": check_pip,
}
OTHERS = {
    "git",
    "cd",
    ".",
    "export",
    "pytest",
    "python3",
    "pre-commit",
    "mkdir",
    "sed",
    "eval",
    "mkdocs",
    "tensorboard",
}


def check(command: Command, *, whole: bool) -> None:
    assert command.words, f"{command.page}: {command.text!r} is not a command"
    program, words = command.words[0], list(command.words)
    assert program in CHECKS.keys() | OTHERS, f"{command.page}: {command.text!r}: unknown program"
    try:
        if program in ("soundspot", "python", "torchrun"):
            CHECKS[program](words, whole=whole)
        else:
            CHECKS.get(program, list)(words)
    except AssertionError as error:
        raise AssertionError(f"{command.page}: `{command.text}`: {error}") from None
