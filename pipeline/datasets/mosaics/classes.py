"""The class map: which classes Tiny-ImageNet and ESC-50 share, ``data_manifests/mosaic_classes.yaml``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.common.errors import ManifestError
from pipeline.common.project import MANIFESTS_FOLDER
from pipeline.common.reading import read_yaml

CLASS_MAP = f"{MANIFESTS_FOLDER}/mosaic_classes.yaml"
_KEYS = ("tiny_imagenet", "esc50")


@dataclass(frozen=True)
class ClassMap:
    """The class of each Tiny-ImageNet wnid and of each ESC-50 category."""

    tiny_imagenet: Mapping[str, str]
    esc50: Mapping[str, str]


def read_class_map(path: Path) -> ClassMap:
    """Read ``CLASS: {tiny_imagenet: [WNID, ...], esc50: [CATEGORY, ...]}``.

    Raises
    ------
    ManifestError
        The file is missing or malformed, or a wnid or category is in two classes.
    """
    content = read_yaml(path, ManifestError)
    if not isinstance(content, dict) or not all(
        isinstance(entry, dict)
        and set(entry) == set(_KEYS)
        and all(isinstance(names, list) for names in entry.values())
        for entry in content.values()
    ):
        raise ManifestError(f"{path}: expected CLASS: {{tiny_imagenet: [WNID, ...], esc50: [CATEGORY, ...]}}")
    tables: list[dict[str, str]] = []
    for key in _KEYS:
        table: dict[str, str] = {}
        for label, entry in content.items():
            for name in entry[key]:
                if table.setdefault(name, label) != label:
                    raise ManifestError(
                        f"{path}: {key}: {name!r} is in the classes {table[name]!r} and {label!r}; keep one"
                    )
        tables.append(table)
    return ClassMap(*tables)
