"""What this machine offers the pipeline: versions, codecs, devices, workers, DVC, disk. Each finding with what to do.

Conventions
-----------
A finding is "good", "note" (works, but worth knowing) or "bad" (a stage or command will fail). Nothing is written outside
a temporary folder, nothing is downloaded, and a probe that breaks is a finding, not an error of this module.
"""

from __future__ import annotations

import importlib.metadata
import io
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.common.project import PARAMS_FILE, manifest_folder

PACKAGES = ("torch", "torchaudio", "av", "librosa", "h5py", "numpy", "pillow", "dask", "dvc", "click")
DISK_NEEDED = 4 * 2**30  # bytes: the demo's media, shards, runs, and DVC's copies of them
DVC_WAITS = "another DVC command runs in this folder: wait for it, or end it"
DVC_SECONDS = 120  # for `dvc status`, which waits for as long as another command holds its lock
INSTALL = "install again: pip install -e '.[test]'"
# What to do where a probe itself breaks, and another installation would not help.
BROKEN = {
    "device": "see whether nvidia-smi finds the GPU and its driver; SOUNDSPOT_DEVICE=cpu does without",
    "workers": "see whether this machine may start processes and open local ports; SOUNDSPOT_WORKERS=1 starts one alone",
    "project": "mend params.yaml and the dataset's card",
    "dvc": "run `dvc doctor`",
    "disk": "see whether this folder and TMPDIR are there, and yours to write to",
    "environment": "mend or unset the project's variables",
}
State = Literal["good", "note", "bad"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    topic : str
    state : {"good", "note", "bad"}
    text : str
        What was found, one line.
    hint : str
        What to do about it; empty where there is nothing to do.
    """

    topic: str
    state: State
    text: str
    hint: str = ""


def examine(project: Path) -> Iterator[Finding]:
    """Look at everything, and yield the findings as they come.

    Parameters
    ----------
    project : Path
        The folder in which the pipeline is to run.
    """
    probes: dict[str, Callable[[], Iterator[Finding]]] = {
        "python": _python,
        "environment": _environment,  # before the workers, whose start sets a variable
        "packages": _packages,
        "spectrograms": _torchaudio,
        "media": _codecs,
        "device": _device,
        "workers": _workers,
        "project": lambda: _project(project),
        "dvc": lambda: _dvc(project),
        "disk": lambda: _disk(project),
    }
    for topic, probe in probes.items():
        try:
            yield from probe()
        except Exception as error:  # whatever breaks in a probe is what the user wants to hear of
            text = f"{type(error).__name__}: {' '.join(str(error).split())}"
            yield Finding(topic, "bad", text, BROKEN.get(topic, INSTALL))


def _python() -> Iterator[Finding]:
    version = platform.python_version()
    usable = sys.version_info >= (3, 10)
    text = f"Python {version}, {platform.system()} {platform.machine()}"
    yield Finding("python", "good" if usable else "bad", text, "" if usable else "use Python 3.10 or later")


def _packages() -> Iterator[Finding]:
    from packaging.requirements import Requirement

    wanted = {}
    for line in importlib.metadata.requires("soundspot") or ():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            wanted[requirement.name.lower()] = requirement.specifier
    found = []
    for name, allowed in wanted.items():
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding("packages", "bad", f"{name} is not installed", "pip install -e '.[test]'")
            continue
        if not allowed.contains(version, prereleases=True):
            text = f"{name} {version} is not in the tested range {allowed}"
            yield Finding("packages", "note", text, f"pip install '{name}{allowed}'")
        if name in PACKAGES:
            found.append(f"{name} {version}")
    yield Finding("packages", "good", ", ".join(found))


def _torchaudio() -> Iterator[Finding]:
    from pipeline.media.torchaudio_compat import load_torchaudio

    torchaudio = load_torchaudio()
    # The stand-in for the extension is not a file.
    whole = getattr(sys.modules.get("torchaudio._extension"), "__file__", None) is not None
    text = f"torchaudio {torchaudio.__version__} " + ("with" if whole else "without") + " its compiled extension"
    yield Finding("spectrograms", "good", text + ("" if whole else ", which log-mel does not need"))


def _codecs() -> Iterator[Finding]:
    import av

    needed = {"h264": "rb", "hevc": "r", "vp9": "r", "aac": "rb", "mp3": "r", "opus": "r"}  # r: read, b: both
    lacking = []
    for name, modes in needed.items():
        for mode in ("r", "w") if "b" in modes else ("r",):
            try:
                av.Codec("libx264" if (name, mode) == ("h264", "w") else name, mode)
            except Exception:
                lacking.append(f"{name} ({'reading' if mode == 'r' else 'writing'})")
    libraries = ", ".join(f"{name[3:]} {version[0]}" for name, version in sorted(av.library_versions.items())[:3])
    if lacking:
        text = f"PyAV {av.__version__} lacks {', '.join(lacking)}"
        yield Finding("media", "bad", text, "install PyAV's wheel from PyPI: pip install --only-binary av av")
    else:
        yield Finding("media", "good", f"PyAV {av.__version__} reads and writes H.264 and AAC ({libraries})")


def _device() -> Iterator[Finding]:
    import torch

    if not torch.cuda.is_available():
        built = f"torch built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch's CPU build"
        yield Finding("device", "note", f"no CUDA device ({built}): {torch.get_num_threads()} threads of the CPU")
        return
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        name, half = torch.cuda.get_device_name(number), torch.cuda.is_bf16_supported(including_emulation=False)
        text = f"cuda:{number} {name}, {free / 2**30:.0f} of {total / 2**30:.0f} GiB free, bfloat16 {'yes' if half else 'no'}"
        yield Finding("device", "good", text)


def _workers() -> Iterator[Finding]:
    from pipeline.common.cluster import run_tasks
    from pipeline.common.errors import ClusterError

    if address := os.environ.get("DASK_SCHEDULER_ADDRESS"):
        text = f"Dask scheduler {address} (from DASK_SCHEDULER_ADDRESS)"
    else:
        text = "a local Dask cluster"
    try:
        with redirect_stderr(io.StringIO()):  # the bar of a single task
            logging.getLogger("distributed").setLevel(logging.CRITICAL)  # some library has asked for all that is logged
            ((_, answer),) = run_tasks(platform.python_version, [()], scheduler=None, workers=1, label="workers")
    except ClusterError as error:
        hint = "start the scheduler and its workers, or unset DASK_SCHEDULER_ADDRESS" if address else BROKEN["workers"]
        yield Finding("workers", "bad", " ".join(str(error).split()), hint)
        return
    if answer == platform.python_version():
        yield Finding("workers", "good", f"{text} answers")
    else:
        hint = "use one Python on all machines"
        yield Finding("workers", "bad", f"{text} runs Python {answer}, this is {platform.python_version()}", hint)


def _project(project: Path) -> Iterator[Finding]:
    from pipeline.common.config import load_card, load_params
    from pipeline.common.errors import SoundspotError

    if not (project / "dvc.yaml").is_file():
        yield Finding("project", "note", f"{project} has no dvc.yaml", "the pipeline runs in a clone of the project")
        return
    try:
        params = load_params(project / PARAMS_FILE)
        card = load_card(manifest_folder(project, params.dataset))
    except SoundspotError as error:
        yield Finding("project", "bad", str(error), "mend the file that it names")
        return
    yield Finding("project", "good", f"dataset {params.dataset} ({card.title}), variants {', '.join(params.variants)}")


def _dvc(project: Path) -> Iterator[Finding]:
    program = shutil.which("dvc")
    if program is None:
        # Then `python`, which the stages run, is not the one with the project's packages either.
        hint = "activate the virtual environment: . .venv/bin/activate"
        yield Finding("dvc", "note", "the command dvc is not on PATH", hint)
        program = shutil.which("dvc", path=str(Path(sys.executable).parent))
    if program is None:
        yield Finding("dvc", "bad", "the command dvc is not installed", "pip install -e '.[test]'")
        return
    if not (project / ".dvc").is_dir():
        yield Finding("dvc", "note", f"{project} is not under DVC", "run in a clone of the project")
        return
    try:
        done = subprocess.run(
            [program, "status", "--quiet"],
            cwd=project,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=DVC_SECONDS,
        )
    except subprocess.TimeoutExpired:
        yield Finding("dvc", "bad", f"`dvc status` does not end within {DVC_SECONDS:g} s", DVC_WAITS)
        return
    errors = [line for line in done.stderr.strip().splitlines() if "ERROR" in line]
    if errors:
        locked = any(words in errors[-1] for words in ("Unable to acquire lock", "is busy"))
        hint = DVC_WAITS if locked else "mend dvc.yaml or params.yaml, or run `dvc doctor`"
        yield Finding("dvc", "bad", errors[-1], hint)
    else:
        version = f"dvc {importlib.metadata.version('dvc')}"
        if done.returncode == 0:
            yield Finding("dvc", "good", f"{version}: everything is up to date")
        else:
            hint = "`dvc repro` runs it, `dvc status` says what it is"
            yield Finding(
                "dvc", "note", f"{version}: not everything has been run with the present files and settings", hint
            )


def _disk(project: Path) -> Iterator[Finding]:
    free = shutil.disk_usage(project).free
    text = f"{free / 2**30:.1f} GiB free in {project}"
    enough = free >= DISK_NEEDED
    yield Finding(
        "disk", "good" if enough else "note", text, "" if enough else "the demo takes 4 GiB with its packages"
    )
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "probe").write_bytes(io.DEFAULT_BUFFER_SIZE * b"\0")
    if not os.access(project, os.W_OK):
        yield Finding("disk", "bad", f"{project} is not writable", "run in a folder of your own")


def _environment() -> Iterator[Finding]:
    # Each dataset may have its own.
    roots = sorted(name for name in os.environ if name.startswith("SOUNDSPOT_MEDIA_ROOT"))
    names = (
        *roots,
        "SOUNDSPOT_WORKERS",
        "SOUNDSPOT_DEVICE",
        "SOUNDSPOT_SEEDS_AT_ONCE",
        "DASK_SCHEDULER_ADDRESS",
        "OMP_NUM_THREADS",
    )
    given = [f"{name}={os.environ[name]}" for name in names if name in os.environ]
    yield Finding("environment", "good", ", ".join(given) or "no variable of the project is set")
    for name in roots:
        root = os.environ[name]
        if root and not Path(root).expanduser().is_dir():
            yield Finding("environment", "bad", f"{name} names no folder: {root}", f"mend or unset {name}")
