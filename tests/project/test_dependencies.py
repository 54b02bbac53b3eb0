"""dvc.yaml names the folders of code that a stage uses, Git keeps what DVC does not, and imports run one way."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import yaml

from pipeline.common.code import import_closure
from pipeline.methods.registry import METHODS
from tests.support.projects import ROOT

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
METHOD_MODULES = {spec.module for spec in METHODS.values()}
MAX_MODULES = 15  # in one folder
MAX_LINES = 300


def stage_module(stage):
    """Return NAME of the `python -m stages.NAME` that a stage of dvc.yaml runs."""
    words = stage["cmd"].split()
    return words[words.index("-m") + 1]


def code_deps(stage):
    return {dep for dep in stage["deps"] if dep.startswith(("pipeline", "stages"))}


def used_files(stage):
    """Return the files of the stage's import closure, with the methods that it loads by name."""
    roots = {stage_module(stage)}
    if "pipeline/methods" in stage["deps"]:
        roots |= METHOD_MODULES
    elif "pipeline/training" in stage["deps"]:
        roots.add(METHODS["initial"].module)
    return {path.relative_to(ROOT).as_posix() for path in import_closure(roots).values() if has_code(path)}


def has_code(path):
    """Whether a file has more than a docstring. pipeline/__init__.py does not count: it has the version, which changes no result."""
    return path != ROOT / "pipeline/__init__.py" and len(ast.parse(path.read_text()).body) > 1


def covers(dep, file):
    return file == dep or file.startswith(f"{dep}/")


def test_each_stage_depends_on_what_it_imports_and_on_nothing_else():
    for name, stage in STAGES.items():
        deps, used = code_deps(stage), used_files(stage)
        missing = [file for file in sorted(used) if not any(covers(dep, file) for dep in deps)]
        assert not missing, f"{name} imports {missing}: add their folders to its deps in dvc.yaml"
        exists = {dep for dep in deps if (ROOT / dep).exists()}
        assert deps == exists, f"{name}: no such files"
        unused = [
            dep for dep in deps if not dep.endswith("__init__.py") and not any(covers(dep, file) for file in used)
        ]
        assert not unused, f"{name} does not use {unused}: remove them from its deps in dvc.yaml"


def test_neither_the_initialization_nor_the_baselines_depend_on_other_methods():
    others = METHOD_MODULES - {METHODS["initial"].module}
    for name in ("initialize", "baselines", "baselines_cross"):
        assert not others & import_closure([stage_module(STAGES[name])]).keys()
        assert "pipeline/methods" not in STAGES[name]["deps"]


def test_git_keeps_what_dvc_does_not_and_nothing_else():
    kept, cached = set(), set()
    for stage in STAGES.values():
        for output in [*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])]:
            path, options = next(iter(output.items())) if isinstance(output, dict) else (output, {})
            (cached if options.get("cache", True) else kept).add(re.sub(r"\$\{[^}]*\}", "name", path))
    assert len(kept) > 4
    command = ["git", "check-ignore", "--no-index", *sorted(kept | cached)]
    ignored = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.split()
    assert set(ignored) == cached


def test_every_stage_module_is_in_dvc_yaml():
    commands = {path.stem for path in (ROOT / "stages").glob("*.py")} - {"__init__", "options", "training_options"}
    assert {stage_module(stage).removeprefix("stages.") for stage in STAGES.values()} == commands


def test_imports_run_one_way():
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_folders_and_modules_stay_small():
    assert len([*ROOT.glob("pipeline/*.py")]) <= 2
    for folder in {path.parent for path in ROOT.glob("pipeline/**/*.py")}:
        modules = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
        assert len(modules) <= MAX_MODULES, folder
        long = [path for path in modules if len(path.read_text().splitlines()) > MAX_LINES]
        assert not long, f"more than {MAX_LINES} lines: {long}"
    assert len((ROOT / "dvc.yaml").read_text().splitlines()) <= 400
    assert len((ROOT / "pipeline/training/loop.py").read_text().splitlines()) <= 120


def test_every_package_names_its_modules_and_folders():
    for path in ROOT.glob("pipeline/**/__init__.py"):
        text = ast.get_docstring(ast.parse(path.read_text())) or ""
        modules = {each.stem.rstrip("_") for each in path.parent.glob("*.py") if each != path}
        folders = {each.parent.name for each in path.parent.glob("*/*.*")} - {"__pycache__"}
        unnamed = sorted(name for name in modules | folders if not re.search(rf"\b{name}\b", text))
        assert not unnamed, f"{path}: add {unnamed} to the docstring"
