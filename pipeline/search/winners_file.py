"""Write the winners of a search into params.yaml. Comments, layout and all other settings stay as they are."""

from __future__ import annotations

import copy
import io
import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from pipeline.common.errors import SearchError, SettingsError
from pipeline.common.files import write_text
from pipeline.common.packages import load_package
from pipeline.common.project import INITIAL_RUN
from pipeline.common.reading import parse_yaml
from pipeline.search.results import FOLLOWERS, Winner, settings_to_write

_EARLIER = re.compile(r"(^#|;) winner of \d+ trials on validation( of \w+)?, \S+$")
_WIDTH = 10**6  # characters of a line before ruamel.yaml breaks it


def write_winners(params_path: Path, dataset: str, winners: Mapping[str, Winner], *, table: str) -> None:
    """Write the settings of the winners into the blocks `initialize` and `methods` of a dataset.

    A value that a row has already, of its own or from `iterate`, is not written again, so that `iterate` still sets it.

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
    for row, values in settings_to_write(winners).items():
        if row in FOLLOWERS and row not in block["methods"]:
            continue
        leader = FOLLOWERS.get(row, row)
        note = f"winner of {winners[leader].n_trials} trials on validation{f' of {leader}' if leader != row else ''}, {table}"
        plain = wanted["training"][dataset]
        parent, changed = (block, plain) if row == INITIAL_RUN else (block["methods"], plain["methods"])
        own = changed.get(row) or {}
        has = own if row == INITIAL_RUN else {**plain.get("iterate", {}), **own}
        new = {name: value for name, value in values.items() if repr(has.get(name)) != repr(value) or name not in has}
        _set(parent, row, new, note)
        changed[row] = {**own, **new}
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
    """Change the settings of a row, with a note behind them."""
    old = parent.get(row)
    if old and not old.fa.flow_style() and old.anchor.value is None:
        # Over several lines: in place, because comments between the lines belong to it.
        old.update(values)
        _annotate(old, next(iter(values or old)), note)
        return
    # On one line: a new mapping, because the old one may also belong to other rows (an alias).
    fresh = import_module("ruamel.yaml.comments").CommentedMap({**(old or {}), **values})
    fresh.fa.set_flow_style()
    parent[row] = fresh
    _annotate(parent, row, note)


def _annotate(mapping: Any, key: str, note: str) -> None:
    """Put a note behind a key's value, after the comment that is there; an earlier note is replaced."""
    kept = mapping.ca.items.get(key) or [None, None, None, None]
    # Lines after the first belong to what follows.
    behind, _, below = kept[2].value.partition("\n") if kept[2] else ("", "", "")
    behind = _EARLIER.sub("", behind.rstrip())
    text = f"{behind}; {note}" if behind else f"# {note}"
    mark = import_module("ruamel.yaml.error").CommentMark(0)
    token = import_module("ruamel.yaml.tokens").CommentToken(f"  {text}\n{below}", mark, None)
    mapping.ca.items[key] = [kept[0], kept[1], token, kept[3]]


def _round_trip() -> Any:
    ruamel: Any = load_package("ruamel.yaml", purpose="writing params.yaml", extra="search")

    class Representer(ruamel.RoundTripRepresenter):
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
