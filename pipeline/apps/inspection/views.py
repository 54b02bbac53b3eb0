"""Look up the pseudo-labels of a run: epochs, single clips, and a clip's nearest neighbors by audio.

Conventions
-----------
Fractions are in [0, 1]; cells are (row, col) from 0, row 0 at the top. y_ij (Eq. 6) is computed from the ã and δ_a of one
artifact, as in training; `center` subtracts the mean of ã first. Results are dataclasses of plain values, ready for JSON
with `dataclasses.asdict`.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.apps.inspection.measures import SAMPLE, pair_cosines, shared_mask_ious
from pipeline.common.errors import CheckpointError, PseudoLabelError
from pipeline.common.project import LABELS_FOLDER, labels_path
from pipeline.evaluation.retrieval import neighbors
from pipeline.pseudo_labels.artifact import PseudoLabels
from pipeline.training.artifacts import centers_audio, history_by_artifact, labels_by_epoch
from pipeline.training.diagnostics import COLUMNS, collapse


@dataclass(frozen=True)
class Artifacts:
    """The pseudo-labels of one run, or a single file.

    Attributes
    ----------
    run : Path
        The run folder, with ``model.pt``.
    paths : dict of int to Path
        Epoch → file, in order.
    is_whole : bool
        Whether these are all files of the run.
    """

    run: Path
    paths: dict[int, Path]
    is_whole: bool = True

    def epoch(self, word: str | int) -> int:
        """Return the epoch for a number, "first" or "last". Raises PseudoLabelError if it does not exist."""
        epochs = list(self.paths)
        named = {"first": epochs[0], "last": epochs[-1], **{str(epoch): epoch for epoch in epochs}}
        if str(word) not in named:
            whole = len(epochs) > 1 and epochs == list(range(epochs[0], epochs[-1] + 1))
            there = f"{epochs[0]} to {epochs[-1]}, first, last" if whole else ", ".join(map(str, epochs))
            raise PseudoLabelError(f"{self.run}: no pseudo-labels of epoch {str(word)!r}; there are {there}")
        return named[str(word)]

    def open(self, word: str | int = "last") -> PseudoLabels:
        """Open the artifact of an epoch. Raises PseudoLabelError."""
        return PseudoLabels.open(self.paths[self.epoch(word)])


def find_artifacts(path: Path) -> Artifacts:
    """Find the pseudo-labels of a run.

    Parameters
    ----------
    path : Path
        A run folder, its folder ``pseudo_labels``, or one epoch's file.

    Raises
    ------
    PseudoLabelError
        There are none.
    """
    if path.is_file():
        run = path.parent.parent if path.parent.name == LABELS_FOLDER else path.parent
        return Artifacts(run, {int(PseudoLabels.open(path).attrs["epoch"]): path}, is_whole=False)
    run = path.parent if path.name == LABELS_FOLDER else path
    paths = labels_by_epoch(run)
    if not paths:
        raise PseudoLabelError(
            f"{path}: {'no pseudo-labels in it' if path.exists() else 'no such file or folder'}; pass a run folder "
            f"({labels_path(Path('RUN'), 0)} …), one of its files, or the name of a trained variant"
        )
    return Artifacts(run, paths)


def find_clip(labels: PseudoLabels, text: str) -> str:
    """Return the clip id that equals `text` or, if there is exactly one, starts with it.

    Raises
    ------
    PseudoLabelError
        No clip or several clips match; the message lists similar ids.
    """
    if text in labels:
        return text
    starting = [clip_id for clip_id in labels if clip_id.startswith(text)] if text else []
    if len(starting) == 1:
        return starting[0]
    if starting:
        some = ", ".join(starting[:4])
        raise PseudoLabelError(f"{text!r} is the prefix of {len(starting)} clip ids: {some} …; use a longer one")
    near = [clip_id for clip_id in labels if text and text in clip_id][:3]
    near = near or difflib.get_close_matches(text, labels.clip_ids, n=3, cutoff=0.5) or labels.clip_ids[:3]
    raise PseudoLabelError(f"{labels.path}: no clip {text!r} among its {len(labels)} clips; similar: {', '.join(near)}")


def centering(run: Path) -> bool | None:
    """Return whether the run's Eq. 6 subtracts the mean embedding, from ``model.pt``; None if that cannot be read."""
    try:
        return centers_audio(run)
    except CheckpointError:
        return None


@dataclass(frozen=True)
class EpochSummary:
    """One line of `list_epochs`.

    `change` is 1 - mean mask IoU with the previous line's epoch, None for the first. `positives_per_clip` is the mean number of
    other clips of the whole training set that Eq. 6 relates to a clip, estimated from a sample unless `positives_exact`.
    `diagnostics` are those of `pipeline.training.diagnostics`, None where there is no value; `collapse` is its finding.
    """

    epoch: int
    stage: str
    objective: str
    clips: int
    sounding_fraction: float
    change: float | None
    positives_per_clip: float
    positives_exact: bool
    delta_v: float
    delta_a: float
    diagnostics: dict[str, float | None]
    collapse: str
    bytes: int
    path: str


def list_epochs(artifacts: Artifacts, *, center: bool) -> Iterator[EpochSummary]:
    """Yield a summary of each epoch, in order. Raises PseudoLabelError or TrainingError if a file is damaged."""
    previous = None
    history = history_by_artifact(artifacts.run)
    for path in artifacts.paths.values():
        labels = PseudoLabels.open(path)
        pairs = [
            (len(cosines), int((cosines >= labels.attrs["delta_a"]).sum()))
            for cosines in pair_cosines(labels, center=center)
        ]
        row = history.get(int(labels.attrs["epoch"]))
        n_pairs, n_related = (sum(column) for column in zip(*pairs, strict=True)) if pairs else (0, 0)
        yield EpochSummary(
            epoch=labels.attrs["epoch"],
            stage=labels.attrs["stage"],
            objective=labels.attrs["objective"],
            clips=len(labels),
            sounding_fraction=float(labels.sounding_fraction.mean()) if len(labels) else 0.0,
            change=None if previous is None else 1 - float(shared_mask_ious(labels, previous)[1].mean()),
            positives_per_clip=n_related / max(n_pairs, 1) * (len(labels) - 1),
            positives_exact=len(labels) <= SAMPLE,
            delta_v=labels.attrs["delta_v"],
            delta_a=labels.attrs["delta_a"],
            diagnostics={name: _known(row[name]) if row else None for name in COLUMNS},
            collapse=collapse(row) if row else "",
            bytes=path.stat().st_size,
            path=str(path),
        )
        previous = PseudoLabels.open(path)


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


@dataclass(frozen=True)
class Neighbor:
    """A clip with similar audio; `similarity` is the cosine of ã, `related` is y_ij."""

    clip_id: str
    similarity: float
    related: bool


@dataclass(frozen=True)
class Neighborhood:
    """The nearest clips by audio; `n_related` counts all other clips with y_ij = 1."""

    clip_id: str
    epoch: int
    delta_a: float
    centered: bool
    n_related: int
    neighbors: list[Neighbor]


def clip_neighbors(labels: PseudoLabels, clip_id: str, *, k: int, center: bool) -> Neighborhood:
    """Find the `k` clips whose ã is most similar, and whether Eq. 6 relates them at the artifact's δ_a."""
    query = labels.rows([clip_id])
    (indices,), (similarity,) = neighbors(labels.audio_embedding, query, k=max(len(labels) - 1, 1), center=center)
    related = similarity >= labels.attrs["delta_a"]
    nearest = zip(indices[:k], similarity[:k], related[:k], strict=True)
    return Neighborhood(
        clip_id=clip_id,
        epoch=labels.attrs["epoch"],
        delta_a=labels.attrs["delta_a"],
        centered=center,
        n_related=int(related.sum()),
        neighbors=[Neighbor(labels.clip_ids[i], float(cosine), bool(y)) for i, cosine, y in nearest],
    )


@dataclass(frozen=True)
class ClipView:
    """One clip's pseudo-labels; `peak` is the cell with the largest response, `peak_xy` its center as fractions of the frame."""

    clip_id: str
    epoch: int
    objective: str
    delta_v: float
    response_min: float
    response_max: float
    sounding_fraction: float
    peak: tuple[int, int]
    peak_xy: tuple[float, float]
    response: list[list[float]]
    neighborhood: Neighborhood


def view_clip(labels: PseudoLabels, clip_id: str, *, k: int, center: bool) -> ClipView:
    """Return one clip's R̃, the range of R, the peak, and the nearest clips by audio."""
    clip = labels[clip_id]
    height, width = clip.response.shape
    row, col = (int(i) for i in np.unravel_index(int(clip.response.argmax()), clip.response.shape))
    return ClipView(
        clip_id=clip_id,
        epoch=labels.attrs["epoch"],
        objective=labels.attrs["objective"],
        delta_v=clip.delta_v,
        response_min=clip.response_min,
        response_max=clip.response_max,
        sounding_fraction=clip.sounding_fraction,
        peak=(row, col),
        peak_xy=((col + 0.5) / width, (row + 0.5) / height),
        response=[[round(float(value), 4) for value in line] for line in clip.response],
        neighborhood=clip_neighbors(labels, clip_id, k=k, center=center),
    )
