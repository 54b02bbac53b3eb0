"""Run the documentation's commands in a project, unchanged, except that sweeps have two values and train one variant.

`NOT_RUN` lists the commands that are not run, with the reason; `tests.support.command_checks` checks that these are valid.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.cli.main import soundspot
from pipeline.common.console import run_command
from pipeline.manifests.boxes import read_boxes, write_boxes
from pipeline.manifests.clips import read_clips
from tests.support.documentation import Command, blocks, commands, pages
from tests.support.projects import DVC

NETWORK = "needs the network"
INSTALLS = "installs packages, or runs everything"
SERVER = "does not terminate; tests/common/test_cluster.py starts a scheduler"
NOT_RUN = {
    r"git clone .*": NETWORK,
    r"cd soundspot": "follows git clone",
    r"pip install .*": INSTALLS,
    r"python3 -m venv .*": INSTALLS,
    r"\. \.venv/bin/activate": "the tests already run in an environment",
    r"pre-commit install": "changes the Git hooks of the checkout",
    r"pytest": "would run itself",
    r"make .*": INSTALLS,
    r"soundspot serve": "does not terminate; tests/apps/test_serve_browser.py opens the page",
    r"(mkdocs serve|tensorboard .*|dask (scheduler|worker) .*)": SERVER,
    r"python benchmarks/preset_on_mosaics.py .*": "test_benchmark_preset.py runs it",
    r"soundspot browse.*": "does not terminate; tests/report/test_browse.py starts one",
    r"python benchmarks/parts.py .*": "test_benchmark_parts.py runs it",
    r"python benchmarks/gpu.py": "for a GPU; test_benchmarks.py runs it on a CPU",
    r"python benchmarks/scale.py": "test_benchmarks.py runs it",
    r"python benchmarks/reading.py .*": "test_benchmarks.py runs it",
    r"dvc import-url https:.*": NETWORK,
    r"export DASK_SCHEDULER_ADDRESS=.*": "there is no scheduler",
    r"export SOUNDSPOT_MEDIA_ROOT_STREET=.*": "for videos outside the project; the tests' videos are inside",
    r"soundspot import mosaic (?!--help).*": "needs photographs and recordings; tests/datasets/test_mosaics.py makes some",
    r"soundspot tag .*": "needs an imported dataset; tests/apps/tag/test_run.py has one",
    r"SOUNDSPOT_DEVICE=cuda.*": "needs a GPU",
    r"SOUNDSPOT_LIVE=tensorboard dvc repro": "tests/training/test_live.py writes event files",
    r"(SOUNDSPOT_PROCESSES=8 dvc repro|torchrun .*)": "for eight GPUs; tests/training/test_ranks_runs.py has two processes",
    r"dvc exp run -S training.demo.iterate.delta_v=0.9": "test_repro_changes.py reruns after a changed threshold",
    r"dvc exp run .*dataset=.*": "needs another dataset's media; tests/datasets/test_importers_end_to_end.py has some",
    r"dvc exp run .*seeds=.*": "cluster.md runs three seeds",
    r"dvc exp run -S 'variants=\[initial,iterative\]'": "test_repro_changes.py trains another variant",
    r"README.md: soundspot (train|localize) videos.*": "tutorial.md has videos, and runs them",
    r"dvc exp run --queue .*(delta_a=|=0\.05,|=0\.7,).*": "the sweep of delta_v is enough",
    r"soundspot sensitivity (?!delta_v$).*": "as above; tests/apps/test_sensitivity.py tests more",
    r"soundspot evidence demo real": "needs two datasets; tests/report/test_evidence.py makes some",
    r"soundspot calibrate iterative": "for data without boxes; tests/evaluation/test_calibration.py has none",
    r"dvc queue (start|logs).*": "continues in the background",
    r"soundspot search.*": "trains hundreds of models; tests/search runs some",
    r"dvc exp (apply|remove) NAME": "NAME is the name of an experiment",
}


def reason_not_to_run(command: Command) -> str | None:
    return next((reason for pattern, reason in NOT_RUN.items() if is_meant(pattern, command)), None)


def is_meant(pattern: str, command: Command) -> bool:
    """Return whether a pattern of NOT_RUN matches a command, on any page or on the page that the pattern starts with."""
    return any(re.fullmatch(pattern, text) for text in (command.text, f"{command.page}: {command.text}"))


def commands_to_run(page: Path, *, again: bool = False) -> list[Command]:
    """Return the page's commands to run: all of them if `again`, otherwise once each, without those of earlier pages.

    Git commands run on every page, because there is always something to commit.
    """
    if again:
        return _can_run(page)
    earlier = pages()[: pages().index(page)]
    known = {command.text for other in earlier for command in _can_run(other)}
    found = {}
    for command in _can_run(page):
        if command.words[0] == "git" or command.text not in known:
            found.setdefault(command.text, command)
    return list(found.values())


def _can_run(page: Path) -> list[Command]:
    return [command for command in commands(page) if reason_not_to_run(command) is None]


def run_page(page: Path, project: Path, *, again: bool = False) -> None:
    for command in commands_to_run(page, again=again):
        run(command, project)


def run_python(page: Path) -> None:
    for block in blocks(page):
        if block.language == "python":
            exec(compile(block.text, page.name, "exec"), {"__name__": "example"})


def run(command: Command, project: Path) -> None:
    """Run a command in the working directory; fail unless it succeeds."""
    words = [word.replace("/srv/", f"{project.parent}/srv/") for word in command.words]
    saved = {name: os.environ.get(name) for name in (v.split("=")[0] for v in command.variables)}
    os.environ.update(variable.split("=", 1) for variable in command.variables)
    try:
        code = RUNNERS.get(words[0], run_process)(words)
    finally:
        for name, value in saved.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    assert code == 0, f"{command.page}: `{command.text}` exited with code {code}"


def run_soundspot(words: list[str]) -> int:
    with pytest.raises(SystemExit) as end:
        run_command(soundspot, words[1:])
    return int(end.value.code or 0)


def run_dvc(words: list[str]) -> int:
    # In a process of its own: DVC keeps writing to the output stream of the test that imported it.
    queued = "--queue" in words
    code = run_process([*DVC, *(shortened(word, queued=queued) for word in words[1:])])
    if "--run-all" in words:
        stop_workers()
    return code


def shortened(word: str, *, queued: bool) -> str:
    """Keep two values of a sweep, `a.b=1,2,3` becomes `a.b=1,2`; of several variants, keep the last one."""
    if queued and "=" in word:
        return ",".join(word.split(",")[:2])
    return re.sub(r"^variants=\[.*,(\w+)\]$", r"variants=[\1]", word)


def stop_workers() -> None:
    """Stop DVC's worker: it stays for some seconds after its last experiment, and would run what is queued next."""
    assert run_process([*DVC, "queue", "stop"]) == 0
    for _ in range(30):
        done = subprocess.run([*DVC, "queue", "status"], capture_output=True, text=True, check=True)
        if "Worker status: 0 active, 0 idle" in done.stdout:
            return
        time.sleep(2)
    raise AssertionError(f"DVC's workers do not terminate: {done.stdout}")


def run_export(words: list[str]) -> int:
    os.environ.update([words[1].split("=", 1)])
    return 0


def run_eval(words: list[str]) -> int:
    """Load the completion script in bash and complete a command."""
    ask = 'COMP_WORDS=(soundspot pl li); COMP_CWORD=2; _soundspot_completion soundspot; test "${COMPREPLY[0]}" = list'
    return run_process(["bash", "-c", f'eval "{words[1]}"; complete -p soundspot && {ask}'])


def run_process(words: list[str]) -> int:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr)
    return done.returncode


RUNNERS: dict[str, Callable[[list[str]], int]] = {
    "soundspot": run_soundspot,
    "dvc": run_dvc,
    "export": run_export,
    "eval": run_eval,
}


def put_media(project: Path) -> None:
    """Add a user's files: videos, an image with audio, and boxes, made from the demo's under other names."""
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
