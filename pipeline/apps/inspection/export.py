"""Export pseudo-labels for other programs: NumPy npz, one PNG per clip, COCO annotations.

Conventions
-----------
npz: the fields of `PseudoLabels` with the dtypes of the HDF5 file (`clip_id` as text), and `attributes` as JSON.
PNG: ``CLIP.png``, the frame with R̃ as heat map and the outline of the sounding region.
COCO: the sounding region R̃ > δ_v at frame resolution (nearest neighbor), one annotation per 4-connected part. Run lengths
are column-major and begin with zeros; boxes are x, y, width, height; `score` is the mean of R̃ over the part.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.apps.inspection.figures import Frames, overlay_labels, pixels_of
from pipeline.common.errors import PseudoLabelError
from pipeline.common.files import replacing
from pipeline.pseudo_labels.artifact import ClipLabels, PseudoLabels
from pipeline.pseudo_labels.hdf5_file import TYPES

FORMATS = ("npz", "png", "coco")
_FILE_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")


def check_free(paths: Sequence[Path], *, overwrite: bool) -> None:
    """Raise PseudoLabelError if a file exists, unless it may be overwritten."""
    there = None if overwrite else next((path for path in paths if path.exists()), None)
    if there is not None:
        raise PseudoLabelError(f"{there}: exists; choose another name, or pass --overwrite")


def image_path(folder: Path, clip_id: str) -> Path:
    """Return the path of a clip's image."""
    return folder / f"{clip_id}.png"


def export_npz(path: Path, labels: PseudoLabels) -> None:
    """Write all fields atomically as a compressed ``.npz`` that can be read without pickle."""
    fields = {name: getattr(labels, name).astype(dtype) for name, dtype in TYPES.items()}
    attributes = np.array(json.dumps(labels.attrs))
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, clip_id=np.array(labels.clip_ids, dtype=np.str_), **fields, attributes=attributes)


def export_png(folder: Path, labels: PseudoLabels, frames: Frames) -> Iterator[Path]:
    """Write ``CLIP.png`` for each clip, and yield its path.

    Raises
    ------
    PseudoLabelError
        A clip id is not a valid file name.
    """
    for clip in clips_of(labels):
        if not _FILE_NAME.fullmatch(clip.clip_id):
            raise PseudoLabelError(f"{labels.path}: clip id {clip.clip_id!r} is not a valid file name")
        path = image_path(folder, clip.clip_id)
        with replacing(path) as temporary:
            overlay_labels(frames.of(clip.clip_id), clip).save(temporary, format="png")
        yield path


def export_coco(path: Path, labels: PseudoLabels, *, side: int) -> int:
    """Write the sounding regions atomically as COCO JSON.

    Parameters
    ----------
    path : Path
    labels : PseudoLabels
    side : int
        Rows and columns of a frame, pixels.

    Returns
    -------
    int
        Number of regions written. A clip without a sounding cell has none.
    """
    count = 0
    info = {"description": "sounding regions of pseudo-labels", **labels.attrs}
    category = [{"id": 1, "name": "sounding region", "supercategory": ""}]
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        # Written piece by piece, because the annotations of a large training set need not fit in memory.
        file.write(f'{{"info": {json.dumps(info)},\n"categories": {json.dumps(category)},\n"images": [\n')
        for number, clip_id in enumerate(labels.clip_ids, start=1):
            image = {"id": number, "file_name": f"{clip_id}.png", "clip_id": clip_id, "width": side, "height": side}
            file.write((",\n" if number > 1 else "") + json.dumps(image))
        file.write('\n],\n"annotations": [\n')
        for number, clip in enumerate(clips_of(labels), start=1):
            for region in regions_of(clip, side=side):
                count += 1
                annotation = {"id": count, "image_id": number, "category_id": 1, "iscrowd": 0, **region}
                file.write((",\n" if count > 1 else "") + json.dumps(annotation))
        file.write("\n]}\n")
    return count


def clips_of(labels: PseudoLabels) -> Iterator[ClipLabels]:
    """Yield the clips one by one, read in blocks."""
    for block in labels.blocks():
        arrays = {name: getattr(block, name) for name in TYPES}
        for i, clip_id in enumerate(block):
            row: dict[str, Any] = {name: values[i] for name, values in arrays.items()}
            yield ClipLabels(clip_id=clip_id, delta_v=labels.attrs["delta_v"], **row)


def regions_of(clip: ClipLabels, *, side: int) -> list[dict[str, Any]]:
    """Return segmentation, bbox, area and score of each part of a clip's sounding region, in reading order."""
    from scipy import ndimage

    parts, n_parts = ndimage.label(clip.mask)
    regions = []
    for part in range(1, n_parts + 1):
        cells = parts == part
        mask = pixels_of(cells, side, side)
        (top, bottom), (left, right) = (np.flatnonzero(mask.any(axis=axis))[[0, -1]].tolist() for axis in (1, 0))
        regions.append(
            {
                "segmentation": {"size": [side, side], "counts": run_lengths(mask)},
                "bbox": [left, top, right - left + 1, bottom - top + 1],
                "area": int(mask.sum()),
                "score": round(float(clip.response[cells].mean()), 4),
            }
        )
    return regions


def run_lengths(mask: np.ndarray) -> list[int]:
    """Return COCO's run lengths of a mask: alternating zeros and ones in column-major order, zeros first."""
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(np.diff(flat, prepend=False))
    lengths: list[int] = np.diff(changes, prepend=0, append=len(flat)).tolist()
    return lengths
