"""Boxes of the objects in photographs: read in pixels, placed in the cells of a mosaic.

Conventions: boxes are corners ``(x0, y0, x1, y1)``, origin top left. Files give pixels of the upright photograph; all functions
return fractions. Generic folders have a table ``boxes.csv`` with the columns ``image, x0, y0, x1, y1`` and any others, beside the
folders of the classes or one level above, and paths relative to itself. Tiny-ImageNet has one ``WNID_boxes.txt`` for each class.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.common.errors import ManifestError
from pipeline.common.tables import parse_decimal, read_records, read_table
from pipeline.datasets.importers.box_checks import BoxFault, box_faults, refuse_other_schema
from pipeline.datasets.importers.report import ImportReport
from pipeline.datasets.mosaics.files import Found, Source
from pipeline.datasets.mosaics.schedule import Mosaic
from pipeline.manifests.boxes import Box

BOXES_FILE = "boxes.csv"
Corners = tuple[float, float, float, float]
WHOLE: Corners = (0.0, 0.0, 1.0, 1.0)  # the box of a photograph without boxes


@dataclass(frozen=True)
class PixelBoxes:
    """The boxes of photographs in one folder.

    Attributes
    ----------
    path : Path
        The table, or the folder of the tables, for messages.
    of : dict of str to list of tuple
        Unchecked corners in pixels, by the name of the photograph.
    """

    path: Path
    of: dict[str, list[tuple[float | str, ...]]]


def read_pixel_boxes(found: Found, report: ImportReport) -> PixelBoxes:
    """Read the boxes of the photographs found in a folder; there may be none.

    Raises
    ------
    ManifestError
        The table is malformed, has fractions, or names none of the photographs.
    """
    folder = found.folder
    tables = [path for path in (folder / BOXES_FILE, folder.parent / BOXES_FILE) if path.is_file()]
    if found.mapped:
        path, rows = folder, list(_official(found.sources))
    elif tables:
        path, rows = tables[0], list(_generic(tables[0]))
    else:
        return PixelBoxes(folder, {})
    known = {os.path.normpath(source.path): source.name for source in found.sources}
    boxes: dict[str, list[tuple[float | str, ...]]] = defaultdict(list)
    for image, box in rows:
        if image in known:
            boxes[known[image]].append(box)
    if rows and not boxes:
        raise ManifestError(
            f"{path}: has boxes for none of the photographs in {folder}; check the paths in its column image"
        )
    coordinates = [value for several in boxes.values() for box in several for value in box if isinstance(value, float)]
    if coordinates and max(coordinates) <= 1:
        raise ManifestError(f"{path}: no coordinate is above 1, so the boxes look like fractions; use pixels")
    report.n_boxes += sum(map(len, boxes.values()))
    return PixelBoxes(path, dict(boxes))


def _official(sources: Sequence[Source]) -> Iterator[tuple[str, tuple[float | str, ...]]]:
    for images in sorted({source.path.parent for source in sources}):
        table = images.parent / f"{images.parent.name}_boxes.txt"
        for line, cells in read_table(table) if table.is_file() else ():
            if len(cells) != 5:
                raise ManifestError(f"{table}:{line}: {len(cells)} cells; expected a file name, x0, y0, x1 and y1")
            yield os.path.normpath(images / cells[0]), tuple(map(_number, cells[1:]))


def _generic(table: Path) -> Iterator[tuple[str, tuple[float | str, ...]]]:
    for row in read_records(table, ManifestError):
        missing = {"image", "x0", "y0", "x1", "y1"} - row.keys()
        if missing:
            raise ManifestError(
                f"{table}: the columns {', '.join(sorted(missing))} are missing; expected image, x0, y0, x1, y1"
            )
        yield (
            os.path.normpath(table.parent / row["image"]),
            tuple(_number(row[name]) for name in ("x0", "y0", "x1", "y1")),
        )


def _number(text: str) -> float | str:
    with suppress(ValueError):
        return parse_decimal(text)
    return text


def fractions(
    boxes: PixelBoxes, sizes: Mapping[str, tuple[int, int]], report: ImportReport
) -> dict[str, list[Corners]]:
    """Convert boxes to fractions of their photograph.

    Parameters
    ----------
    boxes : PixelBoxes
    sizes : mapping of str to (int, int)
        Width and height in pixels of each photograph that can be read.
    report : ImportReport
        Receives the faulty boxes.

    Returns
    -------
    dict of str to list of tuple
        Boxes of each photograph that has any. The list is empty if all of them are faulty.

    Raises
    ------
    ManifestError
        So many boxes are faulty that the numbers must mean something else.
    """
    result: dict[str, list[Corners]] = {}
    faults = []
    for name, several in boxes.of.items():
        if name not in sizes:
            continue
        width, height = sizes[name]
        for box in several:
            scaled = [
                value / side if isinstance(value, float) else value
                for value, side in zip(box, (width, height, width, height), strict=True)
            ]
            wrong = box_faults(scaled, low=0.0, high=1.0)
            if wrong:
                faults.append(BoxFault(name, tuple(map(str, box)), tuple(wrong)))
            else:
                result.setdefault(name, []).append((scaled[0], scaled[1], scaled[2], scaled[3]))  # type: ignore[arg-type]
        result.setdefault(name, [])
    refuse_other_schema(faults, sum(map(len, boxes.of.values())), boxes.path)
    report.box_faults += faults
    return result


def mosaic_boxes(
    mosaic: Mosaic, names: Sequence[str], objects: Mapping[str, Sequence[Corners]], *, grid: int
) -> list[Box]:
    """Return the boxes of all cells; those of silent cells are marked as not sounding.

    Parameters
    ----------
    mosaic : Mosaic
    names : sequence of str
        Names of the photographs, by their numbers.
    objects : mapping of str to sequence of tuple
        Boxes of the photographs that have any, in fractions. For the others, the box is the whole cell.
    grid : int
        Cells along a side.
    """
    boxes = []
    for place, cell in enumerate(mosaic.cells):
        found = objects.get(names[cell.photograph])
        for corners in found or (WHOLE,):
            placed = box_in_cell(corners, place, grid=grid)
            boxes.append(
                Box(mosaic.clip_id, cell.label, "given" if found else "cell", cell.recording is not None, *placed)
            )
    return boxes


def box_in_cell(box: Corners, cell: int, *, grid: int) -> Corners:
    """Map a box of a photograph to its cell of a mosaic."""
    x0, y0, x1, y1 = box
    column, row = cell % grid, cell // grid
    corners = (column + x0, row + y0, column + x1, row + y1)
    left, top, right, bottom = (round(value / grid, 6) for value in corners)
    return left, top, right, bottom
