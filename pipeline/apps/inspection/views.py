"""What a run's pseudo-labels say: epochs listed, clips looked up by name and by sound.

Conventions
-----------
Fractions are in [0, 1]; cells are (row, col) from 0, row 0 at the top; y_ij (Eq. 6) is taken from one artifact's own ã and
δ_a, with the mean subtracted if `center` is set, as training takes it. Results are dataclasses of plain values, which
`dataclasses.asdict` turns into JSON.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.apps.inspection.measures import SAMPLE, pair_cosines, shared_mask_ious
from pipeline.common.errors import CheckpointError, PseudoLabelError
from pipeline.common.project import LABELS_FOLDER, labels_path
from pipeline.evaluation.retrieval import neighbors
from pipeline.pseudo_labels.artifact import PseudoLabels
from pipeline.training.artifacts import centers_audio, labels_by_epoch


@dataclass(frozen=True)
class Artifacts:
    """The pseudo-labels of one run, or one file of them.

    Attributes
    ----------
    run : Path
        The run's folder, which holds ``model.pt``.
    paths : dict of int to Path
        Epoch → file, in order.
    is_whole : bool
        Whether these are all that the run's folder holds.
    """

    run: Path
    paths: dict[int, Path]
    is_whole: bool = True

    def epoch(self, word: str | int) -> int:
        """Return the epoch that a number, "first" or "last" means. Raises PseudoLabelError where there is none such."""
        epochs = list(self.paths)
        named = {"first": epochs[0], "last": epochs[-1], **{str(epoch): epoch for epoch in epochs}}
        if str(word) not in named:
            there = str(epochs[0]) if len(epochs) == 1 else f"{epochs[0]} to {epochs[-1]}, first, last"
            raise PseudoLabelError(f"{self.run}: no pseudo-labels of epoch {str(word)!r}; there are {there}")
        return named[str(word)]

    def open(self, word: str | int = "last") -> PseudoLabels:
        """Open the artifact of an epoch. Raises PseudoLabelError."""
        return PseudoLabels.open(self.paths[self.epoch(word)])


def find_artifacts(path: Path) -> Artifacts:
    """Find the artifacts of a run's folder, or take one file.

    Parameters
    ----------
    path : Path
        The folder of a run, the folder ``pseudo_labels`` in it, or one epoch's file.

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
            f"{path}: {'no pseudo-labels in it' if path.exists() else 'no such file or folder'}; give the folder of a run "
            f"({labels_path(Path('RUN'), 0)} …), one of its files, or the name of a variant that has been trained"
        )
    return Artifacts(run, paths)


def find_clip(labels: PseudoLabels, text: str) -> str:
    """Return the clip that an id, or the start of exactly one id, means.

    Raises
    ------
    PseudoLabelError
        There is none, or more than one; the message names the nearest ids.
    """
    if text in labels:
        return text
    starting = [clip_id for clip_id in labels if clip_id.startswith(text)] if text else []
    if len(starting) == 1:
        return starting[0]
    if starting:
        some = ", ".join(starting[:4])
        raise PseudoLabelError(f"{text!r} begins the ids of {len(starting)} clips: {some} …; give more of it")
    near = [clip_id for clip_id in labels if text and text in clip_id][:3]
    near = near or difflib.get_close_matches(text, labels.clip_ids, n=3, cutoff=0.5) or labels.clip_ids[:3]
    raise PseudoLabelError(f"no clip {text!r} among the {len(labels)} of {labels.path}; near it: {', '.join(near)}")


def centering(run: Path) -> bool | None:
    """Tell from a run's ``model.pt`` whether Eq. 6 subtracts the mean embedding; None if no readable model says."""
    try:
        return centers_audio(run)
    except CheckpointError:
        return None


@dataclass(frozen=True)
class EpochSummary:
    """One line of `list_epochs`.

    `change` is 1 - mean mask IoU with the epoch before, None for the first; `positives_per_clip` is the mean number of
    other clips of the whole training set that Eq. 6 relates to a clip, from a sample of clips unless `positives_exact`.
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
    bytes: int
    path: str


def list_epochs(artifacts: Artifacts, *, center: bool) -> Iterator[EpochSummary]:
    """Yield what each epoch's artifact holds, in order. Raises PseudoLabelError where one is damaged."""
    previous = None
    for path in artifacts.paths.values():
        labels = PseudoLabels.open(path)
        pairs = [
            (len(cosines), int((cosines >= labels.attrs["delta_a"]).sum()))
            for cosines in pair_cosines(labels, center=center)
        ]
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
            bytes=path.stat().st_size,
            path=str(path),
        )
        previous = PseudoLabels.open(path)


@dataclass(frozen=True)
class Neighbor:
    """A clip by its sound; `related` is y_ij."""

    clip_id: str
    similarity: float
    related: bool


@dataclass(frozen=True)
class Neighborhood:
    """The clips whose sound is most like one clip's; `n_related` counts all other clips with y_ij = 1."""

    clip_id: str
    epoch: int
    delta_a: float
    centered: bool
    n_related: int
    neighbors: list[Neighbor]


def clip_neighbors(labels: PseudoLabels, clip_id: str, *, k: int, center: bool) -> Neighborhood:
    """Find the `k` clips most like one by ã, and whether Eq. 6 relates them to it at the artifact's δ_a."""
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
    """One clip's labels in numbers; `peak` is the cell of the strongest response, `peak_xy` its middle in the frame."""

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
    """Look at one clip: its R̃, the range of R, its peak, and its neighbors by sound."""
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
