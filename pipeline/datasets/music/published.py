"""MUSIC-Synthetic as it was published: mosaics of four instruments of which two sound, read where they lie.

Conventions: below the media root stand ``train/{audio,video}`` and ``test1/{audio,video,box}``, or each of them once
more inside itself (``train/train/…``) as the archives unpack. ``video/ID.jpg`` is a clip's frame, ``audio/ID.*`` its
second of sound, ``box/ID.npy`` its boxes: rows ``[x, y, width, height, category]`` in fractions of the frame, of the
sounding instruments alone. Files belong together by their names; public readers sort three listings and trust that
they line up.

The published sound is not a waveform but a pickled spectrogram (201 frames × 64 mel bands, dB). The pipeline computes
its log-mel from waveforms, in training and in test alike, so each clip needs one: the user's own beside the pickle, or
one that is rebuilt from it on demand (see `pipeline.datasets.music.spectrograms` for how true it is).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipeline.common.config import AudioSettings
from pipeline.common.errors import ManifestError
from pipeline.datasets.importers.layouts import AUDIO_SUFFIXES, FRAME_SUFFIXES, Layout, MediaFinder, by_stem, unusable
from pipeline.datasets.importers.lists import SLUG
from pipeline.datasets.importers.report import ImportReport
from pipeline.datasets.importers.write import CardText, Dataset, ImportOptions, write_dataset
from pipeline.datasets.music.boxes import corners_of_xywh, instrument_of_category
from pipeline.datasets.music.media import media_fingerprint
from pipeline.datasets.music.spectrograms import rebuild_sounds
from pipeline.manifests.boxes import Box
from pipeline.manifests.clips import Clip

# A 10 ms window of 16 kHz has 81 frequencies: two of the 64 mel bands are empty and stay at the floor. That is the set's own setting.
MUSIC_AUDIO = AudioSettings(
    sample_rate=16000, clip_seconds=1.0, n_fft=160, hop_length=80, n_mels=64, power=1.0, log_floor=1.0e-10
)
PROTOCOL, THRESHOLD = "music-synthetic-a", 0.3
SPLITS = {"train": "train", "test": "test1"}  # ours → the published folder
REBUILT = "audio_rebuilt"  # folder beside audio/ for sounds made from spectrograms
SPECTROGRAM_SUFFIXES = (".pkl", ".npy")


def music_card(source: str, comments: tuple[str, ...] = ()) -> CardText:
    """Return the card of a MUSIC-Synthetic set: 224 pixels, 1 s at 16 kHz, 64 mel bands of the magnitude."""
    return CardText(
        title="MUSIC-Synthetic",
        source=source,
        license="The videos belong to those who put them on YouTube; the MUSIC lists are for research. Fetch your own copy.",
        image_size=224,
        protocol=PROTOCOL,
        threshold=THRESHOLD,
        audio=MUSIC_AUDIO,
        preset="music_synthetic",
        comments=(
            *comments,
            "audio: the magnitude (power 1), window 10 ms, hop 5 ms, as the set's first system has it.",
        ),
    )


def import_music_synthetic(
    options: ImportOptions,
    *,
    rebuild_sound: bool = False,
    scheduler: str | None = None,
    workers: int | None = None,
) -> ImportReport:
    """Write ``data_manifests/NAME/`` for the published set.

    Clips are called ``train-ID`` and ``test-ID``. A test clip's label is its sounding instruments joined by ``+``; the
    published training clips have none. Clips without a usable file, and test clips without boxes, are reported.

    Parameters
    ----------
    options : ImportOptions
        Its media root holds ``train/`` and ``test1/``; one of the two is enough. With `check_only` a clip that has a
        spectrogram counts as usable, for its sound can be rebuilt.
    rebuild_sound : bool
        Make a sound from each spectrogram that has no sound file, under ``audio_rebuilt/`` beside ``audio/``.
    scheduler, workers
        For rebuilding; as in `pipeline.common.cluster.run_tasks`.

    Raises
    ------
    ManifestError
        Neither folder is there, sound is only there as spectrograms and is not to be rebuilt, or a box file is not as
        described.
    """
    report = options.start()
    clips: dict[str, list[Clip]] = {}
    boxes: dict[str, list[Box]] = {}
    for split, folder in _split_folders(options.media).items():
        silent = _without_sound(options.media / folder)
        failed: dict[str, str] = {}
        if silent and options.check_only:
            report.notes.append(
                f"{split}: {len(silent)} clips have their sound only as a spectrogram; they are counted as usable, though "
                "none is rebuilt to check, which takes --rebuild-sound"
            )
        elif silent and not rebuild_sound:
            raise ManifestError(_spectrograms_only(options.media / folder / "audio", len(silent)))
        elif silent:
            rebuilt = options.media / folder / REBUILT
            failed = rebuild_sounds(silent, rebuilt, audio=MUSIC_AUDIO, scheduler=scheduler, workers=workers)
            made = len(silent) - len(failed)
            report.notes.append(
                f"{split}: the sound of {made} clips is rebuilt from spectrograms, its phase an estimate"
            )
        rebuilt_ids = {path.stem for path in silent}
        clips[split] = _read_split(
            options.media, split, folder, report, rebuilt_ids, failed, still_to_be=options.check_only
        )
        if split == "test":
            boxes[split] = _read_boxes(options.media / folder / "box", clips[split], report)
            clips[split] = _with_boxes(clips[split], boxes[split], report)
    if not options.check_only:
        comments = ("Boxes: of the sounding instruments, from the published .npy rows; `source` is the instrument.",)
        card = music_card("https://zenodo.org/records/4079386", comments)
        card = replace(card, media_fingerprint=_rebuilt_fingerprint(options.media, clips))
        write_dataset(Dataset.of(options, card, report, clips, boxes), options.project, force=options.force)
    return report


def _rebuilt_fingerprint(media: Path, clips: Mapping[str, Sequence[Clip]]) -> str:
    """Identify the sounds that were rebuilt, if any: a later version may make others of the same spectrograms."""
    names = [clip.audio for part in clips.values() for clip in part if Path(clip.audio).parent.name == REBUILT]
    return media_fingerprint(media, names) if names else ""


def _split_folders(media: Path) -> dict[str, str]:
    """Find where each split lies below the media root."""
    found: dict[str, str] = {}
    for split, published in SPLITS.items():
        for folder in (f"{published}/{published}", published):
            if (media / folder / "video").is_dir():
                found.setdefault(split, folder)
    if not found:
        raise ManifestError(
            f"{media}: holds neither train/video nor test1/video; give the folder that the published archives were "
            "unpacked in with --media"
        )
    return found


def _without_sound(folder: Path) -> list[Path]:
    """List the spectrograms of frames that have no sound file."""
    audio = by_stem(folder / "audio")
    spectrograms = []
    for stem in by_stem(folder / "video"):
        paths = [folder / "audio" / name for name in audio.get(stem, ())]
        if not any(path.suffix.lower() in AUDIO_SUFFIXES for path in paths):
            spectrograms += [path for path in paths if path.suffix.lower() in SPECTROGRAM_SUFFIXES][:1]
    return spectrograms


def _spectrograms_only(folder: Path, count: int) -> str:
    return (
        f"{folder}: {count} clips have their sound only as a precomputed spectrogram, and the pipeline starts from "
        "waveforms. Put 1 s at 16 kHz beside each as ID.wav (or .flac); or make a sound from each spectrogram with "
        "--rebuild-sound; or build the set from solo videos with `soundspot import music-synthetic-build`"
    )


def _read_split(
    media: Path,
    split: str,
    folder: str,
    report: ImportReport,
    rebuilt: set[str],
    failed: dict[str, str],
    *,
    still_to_be: bool,
) -> list[Clip]:
    """Find the clips of a split, of which some have a sound that is rebuilt, or still to be."""
    stems = by_stem(media / folder / "video")
    finders = {
        sounds: MediaFinder(media, Layout("published", frames=f"{folder}/video", sounds=f"{folder}/{sounds}"))
        for sounds in ("audio", REBUILT)
    }
    report.listed[split] = len(stems)
    clips = []
    for stem, names in stems.items():
        clip_id = f"{split}-{stem}"
        if stem in rebuilt and still_to_be:
            found = _without_sound_yet(media, folder, stem, names)
        else:
            found = failed.get(stem) or finders[REBUILT if stem in rebuilt else "audio"].find(stem)
        if not SLUG.fullmatch(clip_id):
            found = "the file's name is no id: A-Z a-z 0-9 . _ - only; rename it"
        if isinstance(found, str):
            report.leave_out(split, stem, found)
        else:
            clips.append(replace(found, clip_id=clip_id))
    return clips


def _without_sound_yet(media: Path, folder: str, stem: str, names: Sequence[str]) -> Clip | str:
    """Return the clip as it will be once its sound is rebuilt, or why its frame cannot be used."""
    frames = [f"{folder}/video/{name}" for name in names if Path(name).suffix.lower() in FRAME_SUFFIXES]
    if len(frames) != 1:
        return "several frames with this id" if frames else "no frame beside the sound"
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
    try:
        rows = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ManifestError(f"{path}: not a plain NumPy array: {error}") from None
    if not isinstance(rows, np.ndarray) or rows.dtype.kind not in "fiu" or rows.ndim != 2 or rows.shape[1] != 5:
        shape = getattr(rows, "shape", "an archive")
        raise ManifestError(f"{path}: expected rows of [x, y, width, height, category], got {shape}")
    return rows.astype(np.float64).tolist()


def _with_boxes(clips: Sequence[Clip], boxes: Sequence[Box], report: ImportReport) -> list[Clip]:
    """Leave out the clips without a box, and label the others by what sounds in them."""
    sounding: dict[str, set[str]] = {}
    for box in boxes:
        sounding.setdefault(box.clip_id, set()).add(box.source)
    for clip in clips:
        if clip.clip_id not in sounding:
            report.leave_out("test", Path(clip.frame).stem, "no usable box")
    return [replace(clip, label="+".join(sorted(sounding[clip.clip_id]))) for clip in clips if clip.clip_id in sounding]
