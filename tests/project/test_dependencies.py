"""dvc.yaml names every module that a stage runs, and imports run one way."""

import re
import subprocess

import yaml

from tests.support.closure import ROOT, closure, imported_names, module_path, stage_module

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


def test_each_stage_depends_on_every_module_that_it_imports():
    for name, stage in STAGES.items():
        listed = {dep for dep in stage["deps"] if dep.endswith(".py")}
        assert listed == closure(stage_module(stage)), f"{name}: run `python tests/support/closure.py` to mend dvc.yaml"


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
    commands = {path.stem for path in (ROOT / "stages").glob("*.py")} - {"__init__", "options"}
    assert {stage_module(stage).stem for stage in STAGES.values()} == commands


def test_the_library_imports_no_stage_and_only_its_command_imports_dvc():
    for path in (ROOT / "pipeline").rglob("*.py"):
        roots = {name.split(".")[0] for name in imported_names(path.relative_to(ROOT))}
        forbidden = {"stages", "dvclive"} if path.parent.name == "cli" else {"stages", "dvc", "dvclive"}
        assert not roots & forbidden, path


def test_imports_have_no_circles():
    files = [path.relative_to(ROOT) for package in ("pipeline", "stages") for path in (ROOT / package).rglob("*.py")]
    graph = {file: {t for n in imported_names(file) if (t := module_path(n)) and t != file} for file in files}
    done: set = set()

    def visit(file, above):
        assert file not in above, " → ".join(map(str, [*above, file]))
        if file not in done:
            for target in graph[file]:
                if target.name != "__init__.py" or target.parent not in file.parents:
                    visit(target, [*above, file])
            done.add(file)

    for file in files:
        visit(file, [])
