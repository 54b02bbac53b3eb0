"""Add a block of training settings for a new dataset to params.yaml, and change single values of the file.

Text is inserted or replaced where the parser locates it, so every other byte of the file stays as it is: comments, layout,
line ends. The result is parsed again and compared with the intended settings.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pipeline.common.errors import SettingsError
from pipeline.common.reading import parse_yaml, read_yaml

PRESET = "soundnet_flickr"  # the block with the paper's settings
# ours: the epochs of the preset `real` were chosen on this many clips; fewer clips get more epochs, so that about as many steps are made
_CLIPS_OF_EPOCHS = 3000
_MOST_EPOCHS = 5  # ours; times those of the preset. More only learns the same few clips by heart


def check_preset(path: Path, preset: str) -> None:
    """Raise SettingsError if params.yaml has no block `training.PRESET`, which the user has asked for."""
    before = read_yaml(path, SettingsError) if path.is_file() else {}
    blocks = before.get("training") if isinstance(before, dict) else None
    names = sorted(map(str, blocks)) if isinstance(blocks, dict) else []
    if preset not in names:
        known = f"it has {', '.join(names)}" if names else "it has none; run from the project's root"
        raise SettingsError(f"--preset {preset}: no such block of `training` in {path.name}; {known}")


def fitted(block: Mapping[str, Any], n_train: int) -> dict[str, Any]:
    """Return a block of `training` whose batch size, and with frozen backbones the epochs, fit the number of clips.

    The batch is the largest power of two that is at most the block's and at most half the clips, so that an epoch has two
    steps. Epochs of trained backbones stay, because their steps are slow.

    Parameters
    ----------
    block : mapping
        With `batch_size`, and optionally `encoder`, `initialize` and `iterate`, as in params.yaml.
    n_train : int
        Number of training clips.
    """
    new = copy.deepcopy(dict(block))
    half = max(2, n_train // 2)
    new["batch_size"] = min(block["batch_size"], 1 << (half.bit_length() - 1))
    backbones = [value for value in block.get("encoder", {}).values() if isinstance(value, Mapping)]
    if backbones and all(backbone.get("trainable") == "none" for backbone in backbones):
        times = min(_MOST_EPOCHS, max(1, round(_CLIPS_OF_EPOCHS / max(1, n_train))))
        for part in ("initialize", "iterate"):
            new[part]["epochs"] = times * block[part]["epochs"]
    return new


def params_with_block(path: Path, name: str, *, preset: str = PRESET, n_train: int | None = None) -> tuple[str, str]:
    """Return the text of params.yaml with a new block `training.NAME`, a copy of another block.

    The copy is written out without anchors and aliases. Otherwise a change of the other dataset's block would change this
    one too, and `dvc exp run -S` on one would change both. With `n_train`, the number of training clips, it is `fitted`.

    Returns
    -------
    text : str
        The new content of the file; empty if the file needs no change or cannot be changed.
    hint : str
        What was done, or what the user has to do.

    Raises
    ------
    SettingsError
        The file is not YAML.
    """
    if not path.is_file():
        return "", f"no {path.name} here: run from the project's root, and add a block training.{name}"
    before = read_yaml(path, SettingsError)
    text = path.read_bytes().decode("utf-8")
    blocks = before.get("training") if isinstance(before, dict) else None
    if isinstance(blocks, dict) and name in blocks:
        return "", f"params.yaml already has a block training.{name}, which is kept; train with: dataset: {name}"
    by_hand = f"params.yaml: copy a block of `training` to training.{name} and adapt it"
    if not isinstance(blocks, dict) or preset not in blocks:
        return "", by_hand
    block = blocks[preset] if n_train is None else fitted(blocks[preset], n_train)
    changed = _insert(text, name, block)
    try:
        after = parse_yaml(changed, str(path), SettingsError)
    except SettingsError:
        return "", by_hand
    if after != {**before, "training": {**blocks, name: block}}:
        return "", by_hand  # for example an alias as the value of `training`
    fit = "" if block == blocks[preset] else f", with batch_size and epochs for {n_train} clips"
    return (
        changed,
        f"params.yaml: added training.{name} with the settings of {preset}{fit}; use it with: dataset: {name}",
    )


def params_with_values(text: str, values: Mapping[tuple[str, ...], Any], *, where: str) -> str:
    """Return the text of a settings file with other values for existing keys.

    Parameters
    ----------
    text : str
    values : mapping
        Path of keys → value, such as ``("training", "demo", "batch_size")``. A value is a scalar or a list.
    where : str
        Name of the file, for error messages.

    Raises
    ------
    SettingsError
        The file is not YAML, has no such key, or shares the value with another place by an anchor.
    """
    for keys, value in values.items():
        text = _with_value(text, keys, value, where)
    return text


def _with_value(text: str, keys: tuple[str, ...], value: Any, where: str) -> str:
    # Through JSON, so that no two places share an object: a value behind an alias must not change in both.
    wanted = json.loads(json.dumps(parse_yaml(text, where, SettingsError)))
    node: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    block = wanted
    for i, key in enumerate(keys):
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        node = next((value for name, value in pairs if name.value == key), None)
        if node is None:
            raise SettingsError(f"{where}: has no {'.'.join(keys)}; add it by hand")
        block = block[key] if i + 1 < len(keys) else block
    if block[keys[-1]] == value:
        return text
    block[keys[-1]] = value
    start, end = node.start_mark.index, node.end_mark.index
    if isinstance(node, yaml.CollectionNode) and not node.flow_style:
        end = _end_of_content(text, start, end)
    changed = f"{text[:start]}{_dump(value, flow=True).removesuffix('...').rstrip()}{text[end:]}"
    try:
        if parse_yaml(changed, where, SettingsError) == wanted:
            return changed
    except SettingsError:
        pass
    raise SettingsError(f"{where}: {'.'.join(keys)} cannot be replaced as it is written; set it to {value} by hand")


def _insert(text: str, name: str, block: Any) -> str:
    """Insert a block at the end of `training`, in its style: indented like its other blocks, or inside its braces."""
    root: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    training = next(value for key, value in root.value if key.value == "training")
    indent = training.value[0][0].start_mark.column
    if training.flow_style:
        end = len(text[: training.end_mark.index - 1].rstrip())
        return f"{text[:end]}, {_dump({name: block}, flow=True)[1:-1]}{text[end:]}"
    end = _end_of_line(text, _end_of_content(text, training.start_mark.index, training.end_mark.index))
    eol = "\r\n" if "\r\n" in text else "\n"
    lines = "".join(f"{' ' * indent}{line}{eol}" for line in _dump({name: block}, flow=None).splitlines())
    return text[:end] + ("" if text[:end].endswith("\n") else eol) + lines + text[end:]


def _end_of_content(text: str, start: int, stop: int) -> int:
    """Return the index after the last value of the block mapping from `start` to `stop`.

    A block mapping stops at the next token, after comments that belong to what follows.
    """
    last = start
    events: Any = yaml.parse(text, Loader=yaml.SafeLoader)
    for event in events:
        first, end = event.start_mark.index, event.end_mark.index
        # Closing a block collection takes no characters, closing a flow collection takes its bracket.
        is_content = isinstance(event, yaml.ScalarEvent | yaml.AliasEvent | yaml.CollectionEndEvent) and end > first
        if is_content and start <= first < stop:
            last = end
    return last


def _end_of_line(text: str, index: int) -> int:
    """Return the start of the next line, so that a comment behind the last value stays with it."""
    if text[:index].endswith("\n"):
        return index  # a block scalar ends after its line end
    newline = text.find("\n", index)
    return len(text) if newline < 0 else newline + 1


def _dump(value: Any, *, flow: bool | None) -> str:
    text: str = yaml.dump(
        value, Dumper=_NoAliases, sort_keys=False, default_flow_style=flow, width=10**6, allow_unicode=True
    )
    return text.strip()


class _NoAliases(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True
