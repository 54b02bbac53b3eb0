"""Write the winners of a search into params.yaml. Comments, layout and all other settings stay as they are."""

from __future__ import annotations

import copy
import io
import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from pipeline.common.errors import PackageError, SearchError, SettingsError
from pipeline.common.files import write_text
from pipeline.common.project import INITIAL_RUN
from pipeline.common.reading import parse_yaml
from pipeline.search.results import Winner

_EARLIER = re.compile(r"(^#|;) winner of \d+ trials on validation, \S+$")
_WIDTH = 10**6  # characters of a line before ruamel.yaml breaks it


def write_winners(params_path: Path, dataset: str, winners: Mapping[str, Winner], *, table: str) -> None:
    """Write the settings of the winners into the blocks `initialize` and `methods` of a dataset.

    Parameters
    ----------
    params_path : Path
    dataset : str
    winners : mapping of str to Winner
        By row.
    table : str
        Path of the table, for the comment behind each row.

    Raises
    ------
    SearchError
        A setting cannot be written without changing others, because its block is an alias of another dataset's.
    SettingsError
        The file is not YAML, or has no such dataset.
    PackageError
        ruamel.yaml is not installed.
    """
    text = params_path.read_bytes().decode("utf-8")
    wanted = parse_yaml(text, str(params_path), SettingsError)
    if dataset not in wanted.get("training", {}):
        raise SettingsError(f"{params_path}: no block training.{dataset}")
    wanted = copy.deepcopy(wanted)  # without the aliases
    yaml = _round_trip()
    content = yaml.load(text)
    block = content["training"][dataset]
    for row, winner in winners.items():
        values = dict(winner.trial.settings)
        note = f"winner of {winner.n_trials} trials on validation, {table}"
        parent = block if row == INITIAL_RUN else block["methods"]
        _set(parent, row, values, note)
        changed = wanted["training"][dataset] if row == INITIAL_RUN else wanted["training"][dataset]["methods"]
        changed[row] = {**(changed.get(row) or {}), **values}
    buffer = io.StringIO()
    yaml.dump(content, buffer)
    written = buffer.getvalue()
    if parse_yaml(written, str(params_path), SettingsError) != wanted:
        raise SearchError(
            f"{params_path}: the winners cannot be written without changing other settings: training.{dataset} is an alias of another "
            "block, or the other way round; write it out"
        )
    write_text(params_path, written)


def _set(parent: Any, row: str, values: Mapping[str, Any], note: str) -> None:
    """Replace the settings of a row by a new mapping on one line, because the old one may also belong to other rows (an alias)."""
    maps = import_module("ruamel.yaml.comments")
    fresh = maps.CommentedMap({**(parent.get(row) or {}), **values})
    fresh.fa.set_flow_style()
    kept = parent.ca.items.get(row)
    behind, below = "", ""
    if kept and kept[2]:
        # The comment behind the row; further lines belong to what follows.
        behind, _, below = kept[2].value.partition("\n")
    behind = _EARLIER.sub("", behind.rstrip())
    parent[row] = fresh
    tokens = import_module("ruamel.yaml.tokens")
    marks = import_module("ruamel.yaml.error")
    text = f"{behind}; {note}" if behind else f"# {note}"
    token = tokens.CommentToken(f"  {text}\n{below}", marks.CommentMark(0), None)
    parent.ca.items[row] = [kept[0] if kept else None, kept[1] if kept else None, token, None]


def _round_trip() -> Any:
    try:
        ruamel = import_module("ruamel.yaml")
    except ImportError as error:
        reason = " ".join(str(error).split())[:200]
        raise PackageError(f"writing params.yaml requires ruamel.yaml ({reason}); pip install -e '.[search]'") from None

    class Representer(ruamel.RoundTripRepresenter):  # type: ignore[name-defined]
        """Writes 1e-05 as 1.0e-05: without the point, other YAML readers take it for text."""

    def number(representer: Any, value: float) -> Any:
        text = repr(value)
        return representer.represent_scalar(
            "tag:yaml.org,2002:float", text if "." in text else text.replace("e", ".0e")
        )

    Representer.add_representer(float, number)
    yaml = ruamel.YAML()
    yaml.Representer = Representer
    yaml.preserve_quotes, yaml.width = True, _WIDTH
    return yaml
