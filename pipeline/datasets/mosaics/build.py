"""`soundspot import mosaic`: find files → split → decode → draw → compose → clip lists and boxes.

The same files, settings and seed give the same bytes, independent of the number of workers and of where the folders are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pipeline.common.cluster import run_tasks
from pipeline.common.config import AudioSettings
from pipeline.common.errors import ManifestError
from pipeline.common.files import DAY_S, remove_leftovers, temporary_folder
from pipeline.datasets.importers.lists import shortened
from pipeline.datasets.importers.report import ImportReport
from pipeline.datasets.importers.write import CardText, Dataset, ImportOptions, write_dataset
from pipeline.datasets.mosaics.boxes import Corners, PixelBoxes, fractions, mosaic_boxes, read_pixel_boxes
from pipeline.datasets.mosaics.classes import CLASS_MAP, ClassMap, read_class_map
from pipeline.datasets.mosaics.compose import OWN_FILE, ComposeSettings, clip_files, compose_media
from pipeline.datasets.mosaics.files import (
    PHOTOGRAPHS,
    RECORDINGS,
    Found,
    class_name,
    find_photographs,
    find_recordings,
)
from pipeline.datasets.mosaics.reading import Run, read_photographs, read_recordings
from pipeline.datasets.mosaics.schedule import Mosaic, draw_mosaics
from pipeline.datasets.mosaics.split import SPLITS, Side, split_sources
from pipeline.datasets.music.media import claimed
from pipeline.manifests.clips import TRAIN_SPLIT, Clip

AUDIO = AudioSettings(
    sample_rate=16000, clip_seconds=2.0, n_fft=640, hop_length=320, n_mels=64, power=2.0, log_floor=1.0e-10
)
# Small objects need many pixels: EfficientNet-Lite0 finds 10 points more sounding quadrants than at 256.
IMAGE_SIZE = 384


@dataclass(frozen=True)
class MosaicSettings:
    """Size and rules of the dataset; all ours."""

    train: int = 3000
    validation: int = 800
    test: int = 800
    grid: int = 2  # cells along a side
    sounding: int = 1  # cells that sound
    shares: tuple[float, float, float] = (0.6, 0.2, 0.2)  # of the files, for train, validation and test
    seed: int = 0

    @property
    def counts(self) -> dict[str, int]:
        """Number of clips of each split."""
        return dict(zip(SPLITS, (self.train, self.validation, self.test), strict=True))


def import_mosaics(
    options: ImportOptions,
    *,
    photos: Path,
    sounds: Path,
    test_photos: Path | None = None,
    test_sounds: Path | None = None,
    classes: Sequence[str] = (),
    settings: MosaicSettings,
    scheduler: str | None = None,
    workers: int | None = None,
) -> ImportReport:
    """Write the media of the mosaics below the media root, and ``data_manifests/NAME/``.

    Parameters
    ----------
    options : ImportOptions
        `check_only` finds and splits the files, but decodes none.
    photos, sounds : Path
        Folders of photographs and of recordings; see `pipeline.datasets.mosaics.files`.
    test_photos, test_sounds : Path, optional
        The files of the test split. The other folder is then split into train and validation only.
    classes : sequence of str
        Use only these. Empty: all classes of generic folders; of official ones, all of the class map that both have files of.
    settings : MosaicSettings
    scheduler, workers
        As in `pipeline.common.cluster.run_tasks`.

    Raises
    ------
    ManifestError
        A folder has no files in a known layout, a class lacks photographs or recordings in a split, there are fewer classes than
        cells, or the settings contradict each other.
    """
    report = options.start()
    _check(settings)
    path = options.project / CLASS_MAP
    class_map = read_class_map(path) if path.is_file() else ClassMap({}, {})
    seen = [find_photographs(photos, class_map)]
    heard = [find_recordings(sounds, class_map, report)]
    labels = _labels(seen[0], heard[0], classes, settings.grid, report)
    seen += [find_photographs(test_photos, class_map).as_test()] if test_photos else []
    heard += [find_recordings(test_sounds, class_map, report).as_test()] if test_sounds else []
    sides = (
        _split(PHOTOGRAPHS, seen, labels, settings, report),
        _split(RECORDINGS, heard, labels, settings, report),
    )
    _check_counts(sides, labels, report)
    if options.check_only:
        return report
    boxes = [read_pixel_boxes(found, report) for found in seen]
    media = options.media.absolute()
    remove_leftovers(media, min_age_s=DAY_S)
    with claimed(media, options.name, OWN_FILE), temporary_folder(media / "composing") as folder:
        run = partial(run_tasks, scheduler=scheduler, workers=workers)
        sides, objects = _decode(sides, boxes, folder, settings, report, run)
        _check_counts(sides, labels, report)
        mosaics = _draw(sides, settings)
        compose = ComposeSettings(IMAGE_SIZE, AUDIO, settings.grid, settings.seed)
        every = [mosaic for drawn in mosaics.values() for mosaic in drawn]
        digest = compose_media(every, sides, folder, media, settings=compose, keep=options.media_to_keep(), run=run)
    for side in sides:
        _describe(report, side)
    clips = {split: [_clip(mosaic) for mosaic in drawn] for split, drawn in mosaics.items()}
    names = [source.name for source in sides[0].sources]
    truth = {
        split: [box for mosaic in drawn for box in mosaic_boxes(mosaic, names, objects, grid=settings.grid)]
        for split, drawn in mosaics.items()
        if split != TRAIN_SPLIT
    }
    card = replace(_card(labels, settings), media_fingerprint=digest)
    write_dataset(Dataset.of(options, card, report, clips, truth), options.project, force=options.force)
    return report


def _check(settings: MosaicSettings) -> None:
    cells = settings.grid**2
    if settings.grid < 2 or not 1 <= settings.sounding < cells:
        raise ManifestError(
            f"grid {settings.grid}, sounding {settings.sounding}: the grid must be at least 2, and at least one cell must sound "
            "and one be silent"
        )
    if min(settings.counts.values()) < 0 or not any(settings.counts.values()):
        raise ManifestError(f"{settings.counts}: the numbers of clips must not be negative, and one must be positive")
    if min(settings.shares) < 0 or settings.shares[0] == 0:
        raise ManifestError(
            f"shares {settings.shares}: must not be negative, and the first, for train, must be positive"
        )


def _labels(seen: Found, heard: Found, chosen: Sequence[str], grid: int, report: ImportReport) -> list[str]:
    """Choose the classes. A class of a generic folder is required to have files on the other side, one of the class map is not."""
    required = set[str]().union(*(found.labels for found in (seen, heard) if not found.mapped))
    labels = sorted({class_name(name) for name in chosen} or required or seen.labels & heard.labels)
    if len(labels) < grid**2:
        raise ManifestError(
            f"a mosaic of {grid}×{grid} cells needs {grid**2} different classes, but there are {len(labels)} "
            f"({', '.join(labels) or 'none'}); add classes, or use a smaller --grid"
        )
    if unused := sorted((seen.labels | heard.labels) - set(labels)):
        report.notes.append(f"classes that are not used: {shortened(unused)}")
    return labels


def _split(
    what: str, found: Sequence[Found], labels: Sequence[str], settings: MosaicSettings, report: ImportReport
) -> Side:
    used = [[source for source in each.sources if source.label in labels] for each in found]
    report.listed[what] = sum(map(len, used))
    shares = dict(zip(SPLITS, settings.shares, strict=True))
    test = used[1] if len(used) > 1 else None
    parts = split_sources(used[0], test, shares=shares, seed=settings.seed, what=what, report=report)
    return Side(what, {split: parts[split] for split in SPLITS if settings.counts[split]})


def _check_counts(sides: tuple[Side, Side], labels: Sequence[str], report: ImportReport) -> None:
    """Raise ManifestError if a class has no photograph or no recording in a split."""
    lacking = []
    for split in sides[0].parts:
        for label in labels:
            photographs, recordings = (len(side.numbers(split).get(label, ())) for side in sides)
            if not (photographs and recordings):
                lacking.append(f"{label} has {photographs} {PHOTOGRAPHS} and {recordings} {RECORDINGS} for {split}")
    if lacking:
        n_left_out = sum(map(len, report.left_out.values()))
        why = f" ({n_left_out} files were left out; --report FILE lists the reasons)" if n_left_out else ""
        raise ManifestError(
            f"{shortened(lacking, 4)}{why}; every class needs both in every split: add files, change --shares, or choose classes "
            "with --classes"
        )


def _decode(
    sides: tuple[Side, Side],
    boxes: Sequence[PixelBoxes],
    folder: Path,
    settings: MosaicSettings,
    report: ImportReport,
    run: Run,
) -> tuple[tuple[Side, Side], dict[str, list[Corners]]]:
    """Decode all files. Returns the usable ones, and the boxes of each photograph that has any, in fractions."""
    photographs, recordings = sides
    # Rounded up: if the grid does not divide the image's side, the mosaic is scaled down.
    seen = read_photographs(photographs.sources, folder, side=-(-IMAGE_SIZE // settings.grid), run=run)
    heard = read_recordings(recordings.sources, folder, sample_rate=AUDIO.sample_rate, run=run)
    objects: dict[str, list[Corners]] = {}
    for each in boxes:
        objects |= fractions(each, seen.sizes, report)
    faults = seen.faults | {name: "none of its boxes is valid" for name, found in objects.items() if not found}
    for what, reasons in ((PHOTOGRAPHS, faults), (RECORDINGS, heard.faults)):
        for name, reason in reasons.items():
            report.leave_out(what, name, reason)
    return (photographs.without(faults), recordings.without(heard.faults)), objects


def _draw(sides: tuple[Side, Side], settings: MosaicSettings) -> dict[str, list[Mosaic]]:
    photographs, recordings = sides
    return {
        split: draw_mosaics(
            photographs.numbers(split),
            recordings.numbers(split),
            split=split,
            count=settings.counts[split],
            seed=settings.seed,
            grid=settings.grid,
            sounding=settings.sounding,
        )
        for split in photographs.parts
    }


def _describe(report: ImportReport, side: Side) -> None:
    for split in side.parts:
        counts = {label: len(numbers) for label, numbers in side.numbers(split).items()}
        each = ", ".join(f"{label} {count}" for label, count in sorted(counts.items()))
        report.notes.append(f"{split}: {sum(counts.values())} {side.what}: {each}")


def _clip(mosaic: Mosaic) -> Clip:
    image, audio = clip_files(mosaic)
    return Clip(mosaic.clip_id, frame=image, audio=audio, label=mosaic.label)


def _card(labels: Sequence[str], settings: MosaicSettings) -> CardText:
    return CardText(
        title=f"Mosaics of photographs of {len(labels)} classes",
        source="Made by `soundspot import mosaic` from photographs and recordings",
        license="To be filled in by the owner of the photographs and recordings",
        image_size=IMAGE_SIZE,
        protocol="paper256",
        grid=settings.grid,
        audio=AUDIO,
        preset="real",
        comments=(
            f"{settings.grid}×{settings.grid} photographs of different classes; {settings.sounding} of them sound. Seed {settings.seed}.",
            f"Classes: {', '.join(labels)}.",
            "Boxes: those of the photographs, or the whole cell (annotator `cell`); `source` is the class; silent cells have sounding 0.",
        ),
    )
