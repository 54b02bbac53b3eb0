"""Imports MUSIC-Synthetic as published: mosaics of four instruments, two of which sound. Media are not copied.

Conventions: the media root contains ``train/{audio,video}`` and ``test1/{audio,video,box}``, possibly nested once more
(``train/train/…``), as the archives unpack. ``video/ID.jpg`` is a clip's frame, ``audio/ID.*`` is its one second of
audio, and ``box/ID.npy`` holds the boxes of the sounding instruments: rows ``[x, y, width, height, category]`` in
fractions of the frame. Files are matched by name. (Public readers sort three directory listings and assume that they
line up.)

The published audio is not a waveform but a pickled spectrogram (201 frames × 64 mel bands, dB). The pipeline computes
its log-mel spectrogram from waveforms, for training and testing, so each clip needs one: either your own file next to
the pickle, or one rebuilt from the pickle (see `pipeline.datasets.music.spectrograms` for its accuracy).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.common.config import AudioSettings
from pipeline.common.errors import ManifestError
from pipeline.common.reading import read_array
from pipeline.datasets.importers.layouts import Layout, MediaFinder, by_stem, unusable
from pipeline.datasets.importers.lists import SLUG
from pipeline.datasets.importers.report import ImportReport
from pipeline.datasets.importers.write import CardText, Dataset, ImportOptions, write_dataset
from pipeline.datasets.music.boxes import corners_of_xywh, instrument_of_category
from pipeline.datasets.music.media import media_fingerprint
from pipeline.datasets.music.spectrograms import rebuild_audio
from pipeline.manifests.boxes import Box
from pipeline.manifests.clips import Clip
from pipeline.manifests.naming import AUDIO_SUFFIXES, FRAME_SUFFIXES

# The published setting. A 10 ms window at 16 kHz has only 81 frequency bins, so two of the 64 mel bands are empty and
# stay at the floor.
MUSIC_AUDIO = AudioSettings(
    sample_rate=16000, clip_seconds=1.0, n_fft=160, hop_length=80, n_mels=64, power=1.0, log_floor=1.0e-10
)
PROTOCOL, THRESHOLD = "music-synthetic-a", 0.3
SPLITS = {"train": "train", "test": "test1"}  # our split → the published folder
REBUILT = "audio_rebuilt"  # folder next to audio/ for waveforms rebuilt from spectrograms
SPECTROGRAM_SUFFIXES = (".pkl", ".npy")


def music_card(source: str, comments: tuple[str, ...] = ()) -> CardText:
    """Return the card of a MUSIC-Synthetic dataset: 224 pixels, 1 s at 16 kHz, 64 mel bands of the magnitude."""
    return CardText(
        title="MUSIC-Synthetic",
        source=source,
        license="The videos belong to their uploaders on YouTube; the MUSIC lists are for research. Download your own copy.",
        image_size=224,
        protocol=PROTOCOL,
        threshold=THRESHOLD,
        audio=MUSIC_AUDIO,
        preset="music_synthetic",
        comments=(
            *comments,
            "audio: magnitude (power 1), window 10 ms, hop 5 ms, as in the paper that introduced the dataset.",
        ),
    )


def import_music_synthetic(
    options: ImportOptions,
    *,
    rebuild_sound: bool = False,
    scheduler: str | None = None,
    workers: int | None = None,
) -> ImportReport:
    """Write ``data_manifests/NAME/`` for the published dataset.

    Clip ids are ``train-ID`` and ``test-ID``. The label of a test clip is its sounding instruments joined by ``+``; the
    published training clips have no labels. Clips without usable files and test clips without boxes are reported.

    Parameters
    ----------
    options : ImportOptions
        Its media root contains ``train/``, ``test1/``, or both. With `check_only`, a clip with a spectrogram counts as
        usable, because its audio can be rebuilt.
    rebuild_sound : bool
        Rebuild a waveform from each spectrogram without an audio file, in ``audio_rebuilt/`` next to ``audio/``.
    scheduler, workers
        For rebuilding; as in `pipeline.common.cluster.run_tasks`.

    Raises
    ------
    ManifestError
        Neither folder exists, there are only spectrograms but `rebuild_sound` is False, or a box file is malformed.
    """
    report = options.start()
    clips: dict[str, list[Clip]] = {}
    boxes: dict[str, list[Box]] = {}
    for split, folder in _split_folders(options.media).items():
        spectrograms = _without_audio(options.media / folder)
        failed: dict[str, str] = {}
        if spectrograms and options.check_only:
            report.notes.append(
                f"{split}: {len(spectrograms)} clips have only a spectrogram, not audio; they count as usable here, but "
                "importing them requires --rebuild-sound"
            )
        elif spectrograms and not rebuild_sound:
            raise ManifestError(_spectrograms_only(options.media / folder / "audio", len(spectrograms)))
        elif spectrograms:
            rebuilt = options.media / folder / REBUILT
            failed = rebuild_audio(spectrograms, rebuilt, audio=MUSIC_AUDIO, scheduler=scheduler, workers=workers)
            report.notes.append(
                f"{split}: the audio of {len(spectrograms) - len(failed)} clips was rebuilt from spectrograms; its phase "
                "is estimated"
            )
        rebuilt_ids = {path.stem for path in spectrograms}
        clips[split] = _read_split(
            options.media, split, folder, report, rebuilt_ids, failed, check_only=options.check_only
        )
        if split == "test":
            boxes[split] = _read_boxes(options.media / folder / "box", clips[split], report)
            clips[split] = _with_boxes(clips[split], boxes[split], report)
    if not options.check_only:
        comments = ("Boxes: sounding instruments only, from the published .npy files; `source` is the instrument.",)
        card = music_card("https://zenodo.org/records/4079386", comments)
        card = replace(card, media_fingerprint=_rebuilt_fingerprint(options.media, clips))
        write_dataset(Dataset.of(options, card, report, clips, boxes), options.project, force=options.force)
    return report


def _rebuilt_fingerprint(media: Path, clips: Mapping[str, Sequence[Clip]]) -> str:
    """Fingerprint the rebuilt audio, if any: a later version may rebuild it differently from the same spectrograms."""
    names = [clip.audio for part in clips.values() for clip in part if Path(clip.audio).parent.name == REBUILT]
    return media_fingerprint(media, names) if names else ""


def _split_folders(media: Path) -> dict[str, str]:
    """Return the folder of each split, relative to the media root."""
    found: dict[str, str] = {}
    for split, published in SPLITS.items():
        for folder in (f"{published}/{published}", published):  # as the archives unpack, or flat
            if (media / folder / "video").is_dir():
                found.setdefault(split, folder)
    if not found:
        raise ManifestError(
            f"{media}: contains neither train/video nor test1/video; set --media to the folder in which you unpacked the "
            "published archives"
        )
    return found


def _without_audio(folder: Path) -> list[Path]:
    """Return the spectrograms of the clips that have no audio file."""
    audio = by_stem(folder / "audio")
    spectrograms = []
    for stem in by_stem(folder / "video"):
        paths = [folder / "audio" / name for name in audio.get(stem, ())]
        if not any(path.suffix.lower() in AUDIO_SUFFIXES for path in paths):
            # At most one per clip, even if there is a .pkl and a .npy file.
            spectrograms += [path for path in paths if path.suffix.lower() in SPECTROGRAM_SUFFIXES][:1]
    return spectrograms


def _spectrograms_only(folder: Path, count: int) -> str:
    return (
        f"{folder}: {count} clips have only a precomputed spectrogram, but the pipeline needs waveforms. Either put 1 s "
        "of audio at 16 kHz next to each as ID.wav (or .flac), or rebuild the audio from the spectrograms with "
        "--rebuild-sound, or build the dataset from solo videos with `soundspot import music-synthetic-build`"
    )


def _read_split(
    media: Path,
    split: str,
    folder: str,
    report: ImportReport,
    rebuilt: set[str],
    failed: dict[str, str],
    *,
    check_only: bool,
) -> list[Clip]:
    """Find the clips of a split. The audio of the ids in `rebuilt` was rebuilt or, with `check_only`, could be."""
    stems = by_stem(media / folder / "video")
    finders = {
        audio: MediaFinder(media, Layout("published", frames=f"{folder}/video", audio=f"{folder}/{audio}"))
        for audio in ("audio", REBUILT)
    }
    report.listed[split] = len(stems)
    clips = []
    for stem, names in stems.items():
        clip_id = f"{split}-{stem}"
        if stem in rebuilt and check_only:
            found = _clip_once_rebuilt(media, folder, stem, names)
        else:
            found = failed.get(stem) or finders[REBUILT if stem in rebuilt else "audio"].find(stem)
        if not SLUG.fullmatch(clip_id):
            found = "the file name cannot be used as an id; rename it, using only A-Z a-z 0-9 . _ -"
        if isinstance(found, str):
            report.leave_out(split, stem, found)
        else:
            clips.append(replace(found, clip_id=clip_id))
    return clips


def _clip_once_rebuilt(media: Path, folder: str, stem: str, names: Sequence[str]) -> Clip | str:
    """Return the clip that an import would write after rebuilding its audio, or the reason why it is unusable."""
    frames = [f"{folder}/video/{name}" for name in names if Path(name).suffix.lower() in FRAME_SUFFIXES]
    if len(frames) != 1:
        return "several frames with this id" if frames else "audio without a frame"
    # The audio does not exist yet, so the frame stands in for it in the check.
    problem = unusable(Clip(stem, frame=frames[0], audio=frames[0]), media)
    return problem or Clip(stem, frame=frames[0], audio=f"{folder}/{REBUILT}/{stem}.wav")


def _read_boxes(folder: Path, clips: Sequence[Clip], report: ImportReport) -> list[Box]:
    rows: list[tuple[str, list[float]]] = []
    instruments: list[str] = []
    for clip in clips:
        path = folder / f"{Path(clip.frame).stem}.npy"
        for row in _load_rows(path) if path.is_file() else ():
            instruments.append(instrument_of_category(row[4], str(path)))
            rows.append((clip.clip_id, row[:4]))
    corners = corners_of_xywh(rows, report, str(folder))
    return [
        Box(clip_id, instrument, "published", True, *box)
        for (clip_id, _), instrument, box in zip(rows, instruments, corners, strict=True)
        if box
    ]


def _load_rows(path: Path) -> list[list[float]]:
    rows = read_array(path, ManifestError)
    if rows.dtype.kind not in "fiu" or rows.ndim != 2 or rows.shape[1] != 5:
        raise ManifestError(
            f"{path}: expected rows of [x, y, width, height, category], got {rows.shape} of {rows.dtype}"
        )
    return rows.astype("float64").tolist()


def _with_boxes(clips: Sequence[Clip], boxes: Sequence[Box], report: ImportReport) -> list[Clip]:
    """Drop the clips without a box, and label the others with their sounding instruments."""
    sounding: dict[str, set[str]] = {}
    for box in boxes:
        sounding.setdefault(box.clip_id, set()).add(box.source)
    for clip in clips:
        if clip.clip_id not in sounding:
            report.leave_out("test", Path(clip.frame).stem, "no usable box")
    return [replace(clip, label="+".join(sorted(sounding[clip.clip_id]))) for clip in clips if clip.clip_id in sounding]
