"""Reads the boxes of SoundNet-Flickr, in the three formats in which they circulate.

Boxes are ``xmin, ymin, xmax, ymax``: 1-based integers in a frame of 256×256 pixels. Public code fills the pixels
``[ymin - 1 : ymax - 1, xmin - 1 : xmax - 1]`` of a 256×256 grid. A number x is therefore stored as the fraction
(x - 1) / 256, which is exact in binary, and ``round(256 * fraction)`` recovers the slice bound. The public rule for a
224×224 grid, ``floor(224 * x / 256)``, uses the number in the file:
``floor(224 * (round(256 * fraction) + 1) / 256)``. The formats are

- a folder with the official XML files, ``<id>.xml``: root > child > ``bbox`` elements, each with one element to skip,
  followed by the four numbers. If several children have a ``bbox``, each child is one annotator. If only one has, each
  of its boxes is from another annotator;
- JSON ``{"boxes": {id: [[xmin, ymin, xmax, ymax], …]}}``;
- a pickle of records with ``visual`` (a path that ends in the id) and ``anno`` (an array with rows of four numbers).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from pipeline.common.errors import ManifestError
from pipeline.common.files import listed
from pipeline.common.reading import read_json, read_xml
from pipeline.datasets.importers.box_checks import BoxFault, box_faults, refuse_other_schema
from pipeline.datasets.importers.legacy_pickle import load_plain_pickle
from pipeline.datasets.importers.lists import bare_id, checked_id
from pipeline.datasets.importers.report import ImportReport
from pipeline.manifests.boxes import Box

FLICKR_ID = re.compile(r"\d{1,20}")
SIDE = 256  # width and height in pixels of the annotated frames
# Id → (annotator, the file's four values), unchecked.
RawBoxes = dict[str, list[tuple[str, list[Any]]]]


def read_raw_boxes(path: Path) -> RawBoxes:
    """Read a folder of XML files, a JSON file or a pickle, without checking the boxes. Raises ManifestError."""
    if path.is_dir():
        files = [file for file in listed(path) if file.suffix.lower() == ".xml"]
        pairs = [(checked_id(file.stem, str(file), pattern=FLICKR_ID), file) for file in files]
        raw = {clip_id: read_xml_boxes(file) for clip_id, file in pairs}
    elif path.suffix.lower() == ".json":
        raw = dict(_from_json(read_json(path, ManifestError), path))
    elif path.suffix.lower() in (".pkl", ".pickle"):
        raw = dict(_from_records(load_plain_pickle(path), path))
    else:
        raise ManifestError(f"{path}: boxes must be a folder of XML files, a .json file or a .pkl file")
    if not raw:
        raise ManifestError(f"{path}: contains no boxes")
    return raw


def read_xml_boxes(path: Path) -> list[tuple[str, list[Any]]]:
    """Read one official annotation file: the annotator and the four values of each ``bbox``. Raises ManifestError."""
    root = read_xml(path, ManifestError)
    groups = [[element for element in child if element.tag == "bbox"] for child in root]
    groups = [group for group in groups if group]  # drops children such as <filename>
    if len(groups) > 1:
        return [(str(i), _xml_values(bbox)) for i, group in enumerate(groups, 1) for bbox in group]
    return [(str(i), _xml_values(bbox)) for group in groups for i, bbox in enumerate(group, 1)]


def fractional_boxes(
    raw: Mapping[str, Sequence[tuple[str, list[Any]]]], report: ImportReport, path: Path
) -> dict[str, list[Box]]:
    """Check boxes in 1-based pixels and convert them to fractions. Faulty boxes are reported and skipped.

    Raises
    ------
    ManifestError
        So many boxes are faulty that the file must have another format.
    """
    checked: dict[str, list[Box]] = {}
    for clip_id, rows in raw.items():
        checked[clip_id] = []
        for annotator, values in rows:
            report.n_boxes += 1
            faults = box_faults(values, low=1, high=SIDE)
            # Fractional pixels would not survive the exact round trip that the module's docstring promises.
            if not faults and any(value != int(value) for value in values):
                faults = ["not whole pixels"]
            if faults:
                report.box_faults.append(BoxFault(clip_id, tuple(map(str, values)), tuple(faults)))
                continue
            corners = [(value - 1) / SIDE for value in values]
            checked[clip_id].append(Box(clip_id, "annotators", annotator, True, *corners))
    refuse_other_schema(report.box_faults, report.n_boxes, path)
    return checked


def _xml_values(bbox: ElementTree.Element) -> list[Any]:
    # By position; the first child is not a coordinate.
    return [_number((element.text or "").strip()) for element in list(bbox)[1:]]


def _number(text: str) -> Any:
    """Return the text as an integer or, if it is none, unchanged; the check of the box then reports it."""
    return int(text) if re.fullmatch(r"[+-]?\d{1,18}", text) else text


def _from_json(content: Any, path: Path) -> Iterator[tuple[str, list[tuple[str, list[Any]]]]]:
    boxes = content.get("boxes") if isinstance(content, dict) else None
    if not isinstance(boxes, dict):
        raise ManifestError(f'{path}: expected {{"boxes": {{id: [[xmin, ymin, xmax, ymax], …]}}}}')
    for clip_id, rows in boxes.items():
        checked_id(clip_id, str(path), pattern=FLICKR_ID)
        if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
            raise ManifestError(f"{path}: id {clip_id}: expected a list of boxes, each a list of four numbers")
        yield clip_id, [(str(i), row) for i, row in enumerate(rows, 1)]


def _from_records(content: Any, path: Path) -> Iterator[tuple[str, list[tuple[str, list[Any]]]]]:
    if not isinstance(content, dict):
        raise ManifestError(f"{path}: expected a dict of records, got {type(content).__name__}")
    seen: set[str] = set()
    for key, record in content.items():
        where = f"{path}: record {key!r}"
        if not isinstance(record, dict) or not isinstance(record.get("visual"), str) or "anno" not in record:
            raise ManifestError(f"{where}: expected keys 'visual' (a path) and 'anno' (rows of four numbers)")
        clip_id = checked_id(bare_id(record["visual"]), where, pattern=FLICKR_ID)
        if clip_id in seen:
            raise ManifestError(f"{where}: duplicate record for id {clip_id}")
        seen.add(clip_id)
        # Published pickles store the numbers as strings.
        rows = _rows(record["anno"], where)
        yield clip_id, [(str(i), [_number(str(value)) for value in row]) for i, row in enumerate(rows, 1)]


def _rows(anno: Any, where: str) -> list[list[Any]]:
    if isinstance(anno, np.ndarray):
        anno = anno.tolist()
    if not isinstance(anno, list) or not all(isinstance(row, list) for row in anno):
        raise ManifestError(f"{where}: 'anno' is not a list of rows of four numbers")
    return anno
