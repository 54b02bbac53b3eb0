"""Identify the code that a stage runs, so that a finished run is redone only if that code changed.

The code of a stage is its import closure: the modules that it imports, directly or not, read from the source without running
it. Comments, docstrings and blank lines do not count.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable
from functools import cache
from pathlib import Path

from pipeline.common.files import fingerprint

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("pipeline", "stages")


def code_digest(*modules: str, without: Collection[str] = ()) -> str:
    """Return 32 hexadecimal digits that identify the code of an import closure.

    Parameters
    ----------
    *modules : str
        Where the closure starts, such as "pipeline.training.train".
    without : collection of str
        Modules that are left out, with what only they import. For registries, whose entries do not matter to each other.
    """
    # The root package has the version, which changes no result.
    return _digest(tuple(sorted(modules)), tuple(sorted({"pipeline", *without})))


def import_closure(modules: Iterable[str], *, without: Collection[str] = ()) -> dict[str, Path]:
    """Return the first-party modules that `modules` import, directly or not, themselves and parent packages included.

    Imports inside functions count, imports by string do not.
    """
    closure: dict[str, Path] = {}
    pending = list(modules)
    while pending:
        name = pending.pop()
        path = module_path(name)
        if name in closure or name in without or path is None:
            continue
        closure[name] = path
        pending += [*_imported_names(path), name.rpartition(".")[0]]
    return closure


def module_path(name: str) -> Path | None:
    """Return the file of a first-party module, or None if `name` is not one (it may name a function, for example)."""
    if name.partition(".")[0] not in PACKAGES:
        return None
    stem = ROOT.joinpath(*name.split("."))
    return next((path for path in (stem.with_suffix(".py"), stem / "__init__.py") if path.is_file()), None)


@cache
def _digest(modules: tuple[str, ...], without: tuple[str, ...]) -> str:
    closure = import_closure(modules, without=without)
    return fingerprint({name: ast.dump(_tree(path)) for name, path in closure.items()})


@cache
def _tree(path: Path) -> ast.Module:
    """Parse a module without its docstrings; comments and layout are not in a tree."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(
            node
        ):
            node.body = node.body[1:]
    return tree


def _imported_names(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"{path}:{node.lineno}: relative import; write the full name of the package")
            # `from package import name`: the name may be a module, too.
            names |= {f"{node.module}", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names
