"""Every command of the documentation: run in a small project, or, where that cannot be, checked to be one that exists.

The project is the real one with a demo of 48 + 4 + 8 clips and narrow encoders; its commands are those of the pages,
word for word, but that of a sweep's values the first two are run. What is only checked stands in CHECKED, with the reason.
"""

from __future__ import annotations

import csv
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import wave
from pathlib import Path

import click
import numpy as np
import pytest
import yaml
from PIL import Image

from pipeline.cli.main import soundspot
from pipeline.common.console import run_command
from pipeline.datasets.demo.dataset import write_manifest
from pipeline.manifests.boxes import read_boxes, write_boxes
from pipeline.manifests.clips import read_clips
from pipeline.methods.registry import METHODS
from tests.support.documentation import (
    Command,
    blocks,
    click_commands,
    commands,
    examples,
    mentioned,
    mentioned_in,
    pages,
    parse,
)
from tests.support.projects import DVC, ROOT, copy_project, environment, read_params, shrunk, write_params

NETWORK = "needs the network"
INSTALLS = "installs packages, or runs everything there is"
SERVER = "does not end by itself; tests/common/test_cluster.py has a scheduler"
CHECKED = {
    r"git clone .*": NETWORK,
    r"cd soundspot": "follows git clone",
    r"pip install .*": INSTALLS,
    r"python3 -m venv .*": INSTALLS,
    r"\. \.venv/bin/activate": "the tests run in an environment",
    r"pre-commit install": "changes the Git hooks of the machine",
    r"pytest": "this is it",
    r"make .*": INSTALLS,
    r"(mkdocs serve|dask (scheduler|worker) .*)": SERVER,
    r"dvc import-url https:.*": NETWORK,
    r"export DASK_SCHEDULER_ADDRESS=.*": "there is no scheduler",
    r"export SOUNDSPOT_MEDIA_ROOT_STREET=.*": "for videos outside the project, and those of the tests are inside",
    r"SOUNDSPOT_DEVICE=cuda.*": "needs a GPU",
    r"dvc exp run -S training.demo.iterate.delta_v=0.9": "tests/project/test_repro.py reruns after a changed threshold",
    r"dvc exp run .*dataset=.*": "needs another dataset's media; tests/datasets/test_importers_end_to_end.py has some",
    r"dvc exp run .*seeds=.*": "takes long; tests/training/test_training.py has two seeds",
    r"dvc exp run -S 'variants=\[initial,iterative\]'": "tests/project/test_repro.py trains these two",
    r"README.md: dvc exp run -S score_split=validation": "the sweep of experiments.md begins with it",
    r"README.md: soundspot sensitivity delta_v": "after the sweep of experiments.md",
    r"dvc exp run --queue .*(delta_a=|=0\.05,|=0\.7,).*": "one sweep is enough, that of delta_v",
    r"soundspot sensitivity (?!delta_v$).*": "likewise; tests/apps/test_sensitivity.py has more of them",
    r"soundspot calibrate iterative": "for data without boxes, and these have some; tests/evaluation/test_calibration.py has none",
    r"dvc queue (start|logs).*": "works on in the background",
    r"dvc exp (apply|remove) NAME": "NAME is that of one's own experiment",
}
PAGES = pages()


def slow(test):
    """Mark a test: the first page waits for the whole pipeline, and on a busy machine for long."""
    return pytest.mark.slow(pytest.mark.timeout(1800)(test))


SPOKEN = {"NAME", "VARIANT", "COMMIT"}  # stand for a name of one's own


def reason_not_to_run(command: Command) -> str | None:
    return next((reason for pattern, reason in CHECKED.items() if is_meant(pattern, command)), None)


def is_meant(pattern: str, command: Command) -> bool:
    """Whether a pattern of CHECKED fits a command on any page, or on the one that the pattern begins with."""
    return any(re.fullmatch(pattern, text) for text in (command.text, f"{command.page}: {command.text}"))


# --- the project ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The small project, with Git and DVC, before anything has run; beside it somebody's media."""
    folder = tmp_path_factory.mktemp("docs") / "soundspot"
    folder.mkdir()
    copy_project(folder)
    shutil.copytree(ROOT / ".dvc/plots", folder / ".dvc/plots", dirs_exist_ok=True)
    params = read_params(ROOT)
    training = {
        "demo": shrunk(params["training"]["demo"], batch_size=8, epochs=4),
        "soundnet_flickr": shrunk(params["training"]["soundnet_flickr"], batch_size=4, epochs=2),
    }
    write_params(folder, params | {"variants": ["iterative"], "training": training})
    write_manifest(folder / "data_manifests" / "demo", seed=3, train=48, validation=4, test=8)
    for command in (["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "start"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


@pytest.fixture
def place(project, monkeypatch, tmp_path_factory):
    """Stand in the project, with its own code first, as a user does after `. .venv/bin/activate`."""
    monkeypatch.chdir(project)
    for name, value in (environment() | {"SOUNDSPOT_WORKERS": "2"}).items():
        monkeypatch.setenv(name, value)
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "a")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "a@b")
    return project


def put_media(project: Path) -> None:
    """What a user brings along: videos, a picture with its sound, boxes. Of the demo's videos, under other names."""
    (project / "videos").mkdir()
    clips = [clip for clip in read_clips(project / "data_manifests/demo/train.csv") if clip.video][:12]
    for number, clip in enumerate(clips):
        shutil.copy(project / "data/demo/media" / clip.video, project / f"videos/walk-{number:02d}.mp4")
    shutil.copy(project / "videos/walk-00.mp4", project / "holiday.mp4")
    shutil.copy(project / "videos/walk-01.mp4", project / "videos/holiday.mp4")
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)).save(project / "bird.jpg")
    with wave.open(str(project / "bird.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(rng.integers(-9000, 9000, 48000, dtype=np.int16).tobytes())
    known = [box for box in read_boxes(project / "data_manifests/demo/test_boxes.csv") if box.sounding][:3]
    write_boxes(
        project / "boxes.csv",
        [type(box)(**{**vars(box), "clip_id": f"walk-{number:02d}"}) for number, box in enumerate(known)],
    )


# --- running ---------------------------------------------------------------------------------------------------------


def run(command: Command, project: Path) -> None:
    """Run a command where it stands, and fail with what it printed unless it ends well."""
    words = [word.replace("/srv/", f"{project.parent}/srv/") for word in command.words]
    saved = {name: os.environ.get(name) for name in (v.split("=")[0] for v in command.variables)}
    os.environ.update(variable.split("=", 1) for variable in command.variables)
    try:
        code = RUNNERS.get(words[0], run_outside)(words)
    finally:
        for name, value in saved.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    assert code == 0, f"{command.page}: `{command.text}` ended with {code}"


def run_soundspot(words: list[str]) -> int:
    with pytest.raises(SystemExit) as end:
        run_command(soundspot, words[1:])
    return int(end.value.code or 0)


def run_dvc(words: list[str]) -> int:
    from dvc.cli import main

    code = main([shortened(word) if "--queue" in words else word for word in words[1:]])
    if "--run-all" in words:
        wait_for_workers()
    return code


def shortened(word: str) -> str:
    """Leave two values of a sweep: `a.b=1,2,3` becomes `a.b=1,2`."""
    return ",".join(word.split(",")[:2]) if "=" in word else word


def wait_for_workers() -> None:
    """DVC's worker stays for some seconds after its last experiment, and would take what the next page queues."""
    for _ in range(30):
        done = subprocess.run([*DVC, "queue", "status"], capture_output=True, text=True, check=True)
        if "Worker status: 0 active, 0 idle" in done.stdout:
            return
        time.sleep(2)
    raise AssertionError(f"DVC's workers do not end: {done.stdout}")


def run_export(words: list[str]) -> int:
    os.environ.update([words[1].split("=", 1)])
    return 0


def run_eval(words: list[str]) -> int:
    """What completion scripts need: bash takes them, and then completes."""
    ask = 'COMP_WORDS=(soundspot pl li); COMP_CWORD=2; _soundspot_completion soundspot; test "${COMPREPLY[0]}" = list'
    return run_outside(["bash", "-c", f'eval "{words[1]}"; complete -p soundspot && {ask}'])


def run_outside(words: list[str]) -> int:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr)
    return done.returncode


RUNNERS = {"soundspot": run_soundspot, "dvc": run_dvc, "export": run_export, "eval": run_eval}
HAS_RUN: set[str] = set()


@slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page_run(page, place, monkeypatch):
    """Page after page in one project; what an earlier page has run is not run again, but by the tutorial."""
    settings = place / "params.yaml"
    before = settings.read_text()
    if page.name == "tutorial.md":
        assert "dvc repro" in HAS_RUN, "the tutorial needs the pages before it: run the whole module"
        HAS_RUN.clear()
        shutil.rmtree(place / "localized")  # of another page's model
    try:
        for command in commands(page):
            again = command.words[0] == "git" or command.text not in HAS_RUN  # there is something else to commit
            if again and reason_not_to_run(command) is None:
                run(command, place)
                HAS_RUN.add(command.text)
                if not (place / "videos").exists():
                    put_media(place)  # once the demo has been rendered
    finally:
        settings.write_text(before)
    if page.name == "experiments.md":
        with (place / "results/demo/sensitivity/delta_v.csv").open() as file:
            assert {float(row["value"]) for row in csv.DictReader(file)} == {0.5, 0.6}
        assert json.loads((place / "results/demo/iterative/metrics.json").read_text())["split"] == "validation"
    if page.name == "tutorial.md":
        assert (place / "localized" / "holiday.mp4").stat().st_size > 1000
        assert (place / "results" / "street" / "report" / "index.md").is_file()


@slow
@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(b.language == "python" for b in blocks(page))], ids=lambda p: p.name
)
def test_the_python_of_a_page_runs(page, place):
    assert (place / "results/demo").is_dir(), "the commands of the pages have not run: run the whole module"
    for block in blocks(page):
        if block.language == "python":
            exec(compile(block.text, page.name, "exec"), {"__name__": "example"})


# --- checking -----------------------------------------------------------------------------------------------------


def check_soundspot(words: list[str], *, whole: bool = False) -> None:
    """Every command and option is known; where a command is `whole`, click takes it, files need not be there."""
    command, context = soundspot, click.Context(soundspot, info_name="soundspot", resilient_parsing=True)
    words = words[1:]
    while isinstance(command, click.Group) and words and words[0] not in ("-h", "--help", "--version"):
        if words[0] in SPOKEN:
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
        return  # the group's name, as one speaks of it
    try:
        arguments = get_main_parser().parse_args(words[1:])
    except (DvcParserError, SystemExit):
        raise AssertionError(f"dvc does not take {' '.join(words[1:])!r}") from None
    for setting in getattr(arguments, "set_param", None) or []:
        check_setting(setting)
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    for target in getattr(arguments, "targets", None) or []:
        stage, _, member = str(target).partition("@")
        if words[1] == "repro":
            assert stage in stages, f"no stage {stage!r}"
            assert not member or member in {*METHODS, *SPOKEN, "train", "validation", "test"}, f"no {target!r}"


def check_setting(setting: str) -> None:
    key, value = setting.split("=", 1)
    block = read_params(ROOT)
    for name in key.split("."):
        assert name in block, f"{key} is no key of params.yaml"
        block = block[name]
    if key == "variants":
        assert set(yaml.safe_load(value)) <= METHODS.keys()


def check_make(words: list[str]) -> None:
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert targets is not None
    assert set(words[1:]) <= set(targets[1].split()), f"the Makefile has no {words[1:]}"


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


def check_pip(words: list[str]) -> None:
    extra = re.fullmatch(r"\.\[(\w+)\]", words[-1])
    assert extra is None or f"\n{extra[1]} =\n" in (ROOT / "setup.cfg").read_text()


CHECKS = {
    "soundspot": check_soundspot,
    "dvc": check_dvc,
    "make": check_make,
    "dask": check_dask,
    "python": check_python,
    "pip": check_pip,
}
OTHERS = {"git", "cd", ".", "export", "pytest", "python3", "pre-commit", "mkdir", "sed", "eval", "mkdocs"}


def check(command: Command, *, whole: bool) -> None:
    assert command.words, f"{command.page}: {command.text!r} is no command"
    program, words = command.words[0], list(command.words)
    assert program in CHECKS.keys() | OTHERS, f"{command.page}: {command.text!r}: unknown program"
    try:
        if program in ("soundspot", "python"):
            CHECKS[program](words, whole=whole)
        else:
            CHECKS.get(program, list)(words)
    except AssertionError as error:
        raise AssertionError(f"{command.page}: `{command.text}`: {error}") from None


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


def test_what_is_only_checked_still_stands_in_the_documentation():
    everything = [command for page in PAGES for command in [*commands(page), *mentioned(page)]]
    for pattern in CHECKED:
        assert any(is_meant(pattern, command) for command in everything), (
            f"no page has {pattern!r}: take it out of CHECKED"
        )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("soundspot pl lists iterative", "no command 'lists'"),
        ("soundspot check --batch 1", "no option --batch"),
        ("soundspot --silent check", "no option --silent"),
        ("dvc repro --forse", "does not take"),
        ("dvc repro trains", "no stage 'trains'"),
        ("dvc exp run -S training.demo.iterate.delta=1", "no key of params.yaml"),
        ("make demos", "has no"),
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
