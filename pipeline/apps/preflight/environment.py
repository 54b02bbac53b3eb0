"""Whether this machine has what the pipeline needs: packages, codecs, device, Dask workers, settings, DVC, disk.

A finding is "good", "note" (works, but worth knowing) or "bad" (a stage or command will fail). Probes write to a
temporary folder only and download nothing. A probe that raises becomes a finding.
"""

from __future__ import annotations

import importlib.metadata
import io
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipeline.apps.preflight.dvc_locks import left_locks

if TYPE_CHECKING:
    from pipeline.common.config import EncoderSettings

PACKAGES = ("torch", "torchaudio", "av", "librosa", "h5py", "numpy", "pillow", "dask", "dvc", "click")
CODECS = {"h264": "r", "hevc": "r", "vp9": "r", "aac": "rw", "mp3": "r", "opus": "r", "libx264": "w"}
DISK_NEEDED = 4 * 2**30  # bytes: the demo's media, shards, runs, and DVC's copies of them
DVC_SECONDS = 120  # `dvc status` waits while another command holds DVC's lock
INSTALL = "reinstall: pip install -e '.[test]'"
DASK_HINT = "check that this machine may start processes and open local ports; SOUNDSPOT_WORKERS=1 starts only one"


@dataclass(frozen=True)
class Finding:
    """One result of a probe: a line of text, and a hint what to do (empty if there is nothing to do)."""

    topic: str
    state: Literal["good", "note", "bad"]
    text: str
    hint: str = ""


def examine(project: Path, *, fix: bool = False) -> Iterator[Finding]:
    """Run all probes for the folder in which the pipeline is to run. Yield each finding as soon as it is there.

    With `fix`, locks left behind by killed DVC commands are removed.
    """
    probes: tuple[tuple[str, Callable[[], Iterator[Finding]], str], ...] = (
        (
            "environment",
            _environment,
            "fix or unset the project's variables",
        ),  # first: starting workers sets a variable
        ("packages", _packages, INSTALL),
        ("spectrograms", _torchaudio, INSTALL),
        ("media", _codecs, INSTALL),
        ("device", _device, "check that nvidia-smi finds the GPU and its driver; SOUNDSPOT_DEVICE=cpu works without"),
        ("workers", _workers, DASK_HINT),
        ("project", lambda: _project(project), "fix params.yaml and the dataset's card"),
        ("dvc", lambda: _dvc(project, fix), "run `dvc doctor`"),
        ("disk", lambda: _disk(project), "check that this folder and TMPDIR exist and are writable"),
    )
    for topic, probe, hint in probes:
        try:
            yield from probe()
        except Exception as error:  # whatever breaks in a probe is what the user needs to know
            yield Finding(topic, "bad", f"{type(error).__name__}: {' '.join(str(error).split())}", hint)


def _environment() -> Iterator[Finding]:
    roots = sorted(name for name in os.environ if name.startswith("SOUNDSPOT_MEDIA_ROOT"))  # one per dataset
    own = ("SOUNDSPOT_WORKERS", "SOUNDSPOT_DEVICE", "SOUNDSPOT_SEEDS_AT_ONCE")
    names = (*roots, *own, "DASK_SCHEDULER_ADDRESS", "OMP_NUM_THREADS")
    given = [f"{name}={os.environ[name]}" for name in names if name in os.environ]
    yield Finding("environment", "good", ", ".join(given) or "no variable of the project is set")
    for name in roots:
        root = os.environ[name]
        if root and "://" not in root and not Path(root).expanduser().is_dir():
            yield Finding("environment", "bad", f"{name}: no such folder: {root}", f"fix or unset {name}")


def _packages() -> Iterator[Finding]:
    from packaging.requirements import Requirement

    found = [f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"]
    for requirement in map(Requirement, importlib.metadata.requires("soundspot") or ()):
        name, allowed = requirement.name.lower(), requirement.specifier
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding("packages", "bad", f"{name} is not installed", INSTALL)
            continue
        if not allowed.contains(version, prereleases=True):
            text = f"{name} {version} is outside the tested range {allowed}"
            yield Finding("packages", "note", text, f"pip install '{name}{allowed}'")
        if name in PACKAGES:
            found.append(f"{name} {version}")
    yield Finding("packages", "good", ", ".join(found))


def _torchaudio() -> Iterator[Finding]:
    from pipeline.media.torchaudio_compat import load_torchaudio

    yield Finding("spectrograms", "good", f"torchaudio {load_torchaudio().__version__} loads")


def _codecs() -> Iterator[Finding]:
    import av

    missing = []
    for name, modes in CODECS.items():
        for mode in modes:
            try:
                av.Codec(name, "w" if mode == "w" else "r")
            except Exception:
                missing.append(f"{name} ({'encoder' if mode == 'w' else 'decoder'})")
    if missing:
        text, hint = f"PyAV {av.__version__} lacks {', '.join(missing)}", "pip install --only-binary av av"
        yield Finding("media", "bad", text, f"install PyAV's wheel from PyPI: {hint}")
    else:
        yield Finding("media", "good", f"PyAV {av.__version__} reads and writes H.264 and AAC")


def _device() -> Iterator[Finding]:
    import torch

    from pipeline.common.errors import TrainingError
    from pipeline.model.devices import half_precision, select_device

    if not torch.cuda.is_available():
        build = f"torch built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch's CPU build"
        yield Finding("device", "note", f"no CUDA device ({build}); using {torch.get_num_threads()} CPU threads")
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        try:
            select_device(f"cuda:{number}")
        except TrainingError as error:
            yield Finding(
                "device", "bad", str(error), "install the build of torch for this GPU, or set SOUNDSPOT_DEVICE=cpu"
            )
            continue
        free, total = (size / 2**30 for size in torch.cuda.mem_get_info(number))
        trained_in = str(half_precision(torch.device("cuda", number)) or torch.float32).removeprefix("torch.")
        name = torch.cuda.get_device_name(number)
        yield Finding(
            "device", "good", f"cuda:{number} {name}, {free:.0f} of {total:.0f} GiB free, trains in {trained_in}"
        )


def _workers() -> Iterator[Finding]:
    from pipeline.common.cluster import run_tasks
    from pipeline.common.errors import ClusterError

    address = os.environ.get("DASK_SCHEDULER_ADDRESS")
    text = f"Dask scheduler {address} (from DASK_SCHEDULER_ADDRESS)" if address else "a local Dask cluster"
    try:
        with redirect_stderr(io.StringIO()):  # hides the progress bar of the single task
            ((_, version),) = run_tasks(platform.python_version, [()], scheduler=None, workers=1, label="workers")
    except ClusterError as error:
        hint = "start the scheduler and its workers, or unset DASK_SCHEDULER_ADDRESS" if address else DASK_HINT
        yield Finding("workers", "bad", " ".join(str(error).split()), hint)
        return
    own = platform.python_version()
    if version == own:
        yield Finding("workers", "good", f"{text} answers")
    else:
        hint = "use the same Python version on all machines"
        yield Finding("workers", "bad", f"{text} runs Python {version}, this machine {own}", hint)


def _project(project: Path) -> Iterator[Finding]:
    from pipeline.common.config import load_card, load_params
    from pipeline.common.errors import SoundspotError
    from pipeline.common.project import PARAMS_FILE, manifest_folder

    if not (project / "dvc.yaml").is_file():
        yield Finding("project", "note", f"{project} has no dvc.yaml", "run the pipeline in a clone of the project")
        return
    try:
        params = load_params(project / PARAMS_FILE)
        card = load_card(manifest_folder(project, params.dataset))
    except SoundspotError as error:
        yield Finding("project", "bad", str(error), "fix the file that the message names")
        return
    yield Finding("project", "good", f"dataset {params.dataset} ({card.title}), variants {', '.join(params.variants)}")
    yield from _backbones(params.training[params.dataset].encoder)


def _backbones(encoder: EncoderSettings) -> Iterator[Finding]:
    from pipeline.common.config import ResNetSettings
    from pipeline.common.errors import PackageError
    from pipeline.model.backbones.torchvision_compat import load_timm

    names = [each.backbone for each in (encoder.visual, encoder.audio) if not isinstance(each, ResNetSettings)]
    if not names:
        return
    try:
        yield Finding("backbones", "good", f"timm {load_timm().__version__} loads, for {', '.join(names)}")
    except PackageError as error:
        yield Finding("backbones", "bad", str(error), "pip install -e '.[backbones]'")


def _dvc(project: Path, fix: bool) -> Iterator[Finding]:
    program = shutil.which("dvc")
    if program is None:
        # `python`, which the stages run, then lacks the project's packages as well.
        hint = "activate the virtual environment: . .venv/bin/activate"
        yield Finding("dvc", "note", "the command dvc is not on PATH", hint)
        program = shutil.which("dvc", path=str(Path(sys.executable).parent))
    if program is None:
        yield Finding("dvc", "bad", "the command dvc is not installed", INSTALL)
        return
    if not (project / ".dvc").is_dir():
        yield Finding("dvc", "note", f"{project} is not a DVC project", "run the pipeline in a clone of the project")
        return
    for path, reason in left_locks(project):
        name = path.relative_to(project).as_posix()
        if not fix:
            yield Finding("dvc", "bad", f"{name} {reason}", "run `soundspot doctor --fix`, which removes it")
            return
        path.unlink()
        yield Finding("dvc", "note", f"removed {name}, which {reason}")
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
        hint = "wait for the other DVC command that runs in this folder, or end it"
        yield Finding("dvc", "bad", f"`dvc status` takes longer than {DVC_SECONDS:g} s", hint)
        return
    lines = done.stderr.strip().splitlines()
    errors = [line for line in lines if "ERROR" in line] or (lines if done.returncode > 1 else [])
    version = f"dvc {importlib.metadata.version('dvc')}"
    if errors:
        hint = "wait if another DVC command runs in this folder; otherwise fix dvc.yaml or params.yaml, or run `dvc doctor`"
        yield Finding("dvc", "bad", errors[-1], hint)
    elif done.returncode == 0:
        yield Finding("dvc", "good", f"{version}: everything is up to date")
    else:
        hint = "`dvc status` lists the changes, `dvc repro` runs the stages"
        yield Finding("dvc", "note", f"{version}: some stages are not up to date", hint)


def _disk(project: Path) -> Iterator[Finding]:
    from pipeline.common.processes import scratch_folder

    free = shutil.disk_usage(project).free
    text = f"{free / 2**30:.1f} GiB free in {project}"
    if free >= DISK_NEEDED:
        yield Finding("disk", "good", text)
    else:
        yield Finding("disk", "note", text, "the demo takes 4 GiB including its packages")
    with scratch_folder() as folder:
        (folder / "probe").write_bytes(bytes(io.DEFAULT_BUFFER_SIZE))
    if not os.access(project, os.W_OK):
        yield Finding("disk", "bad", f"{project} is not writable", "run in a folder that you own")
