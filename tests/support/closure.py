"""The first-party modules that a stage imports, directly or not, read from the source without running it.

`python tests/support/closure.py` writes them into dvc.yaml, so that a change of any of them reruns the stages that use it.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("pipeline", "stages")


def module_path(name: str) -> Path | None:
    """Return the file of a first-party module, relative to the root; None if `name` is not one."""
    if name.split(".")[0] not in PACKAGES:
        return None
    stem = Path(*name.split("."))
    for candidate in (stem.with_suffix(".py"), stem / "__init__.py"):
        if (ROOT / candidate).is_file():
            return candidate
    return None


def imported_names(path: Path) -> set[str]:
    """Return every dotted name that a file may import, those inside functions included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}"} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def closure(path: Path) -> set[str]:
    """Return the files that `path` imports, directly or not, itself and the packages' __init__ files included."""
    found: set[Path] = set()
    todo = [path]
    while todo:
        current = todo.pop()
        if current in found:
            continue
        found.add(current)
        todo += [init for parent in current.parents if (init := parent / "__init__.py") and (ROOT / init).is_file()]
        todo += [target for name in imported_names(current) if (target := module_path(name))]
    return {file.as_posix() for file in found}


def stage_module(stage: dict) -> Path:
    """Return the file of the `python -m stages.NAME` that a stage of dvc.yaml runs."""
    words = stage["cmd"].split()
    path = module_path(words[words.index("-m") + 1])
    assert path is not None, stage["cmd"]
    return path


def write() -> None:
    """Put the closure of each stage at the end of its deps in dvc.yaml."""
    yaml = YAML()
    yaml.width = 200
    yaml.indent(mapping=2, sequence=4, offset=2)
    document = yaml.load(ROOT / "dvc.yaml")
    for stage in document["stages"].values():
        kept = [dep for dep in stage.get("deps", []) if not dep.endswith(".py")]
        stage["deps"] = kept + sorted(closure(stage_module(stage)))
    yaml.dump(document, ROOT / "dvc.yaml")


if __name__ == "__main__":
    sys.exit(write())
