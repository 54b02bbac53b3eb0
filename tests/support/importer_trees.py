"""Small copies of the public datasets in their exact layouts, with decodable media, and the command that imports them.

Boxes are given in pixels of the grid on which the dataset's own protocol scores. Each coordinate is as in the public file or a multiple
of an eighth of the frame, so that a test can fill the grid without the project's code.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.datasets.music.mosaic import wav_bytes
from pipeline.manifests.boxes import Box, write_boxes
from pipeline.manifests.clips import Clip, write_clips
from tests.datasets.test_music import BOX, published, write_solo_boxes, write_solos
from tests.support.importing import flickr_xml, write_json, write_lines
from tests.support.media_files import impulses, numbered_frame, steady, write_media

Pixels = tuple[int, int, int, int]  # x0, y0, x1, y1; the last column and row are excluded
TEST = 4  # test clips, where the number is free
FPS = 5
EIGHTHS: list[Pixels] = [(1, 2, 4, 7), (0, 0, 8, 8), (3, 1, 6, 2), (5, 4, 8, 8)]


@dataclass(frozen=True)
class Tree:
    """The files of a dataset in a project folder."""

    name: str
    command: list[str]  # after `soundspot import`
    protocol: str
    size: int  # side of the protocol's grid, pixels
    train: int  # number of training clips
    boxes: Callable[[], dict[str, list[Pixels]]]  # of each test clip; available after the import
    per_source: bool = False  # a clip's score is the mean over its boxes
    threshold: float = 0.5
    frame_number: int | None = None  # of `tests.support.media_files.numbered_frame` that every stored frame must show
    arguments: list[object] = field(default_factory=list)


def soundnet_flickr_official(project: Path) -> Tree:
    """``Data/<last digit>/ID.jpg`` and ``.wav``, one ``.mp4``, one XML element per annotator, a list with counts."""
    media = project / "data/soundnet_flickr/media"
    train, test = _flickr_ids()
    for clip_id in [*train[1:], *test]:
        _write_pair(media / f"Data/{clip_id[-1]}/{clip_id}.jpg", media / f"Data/{clip_id[-1]}/{clip_id}.wav")
    write_media(_made(media / f"Data/{train[0][-1]}/{train[0]}.mp4"), **_video(5))
    return _flickr("soundnet_flickr", project, train, test, one_each=True)


def soundnet_flickr_flat(project: Path) -> Tree:
    """``frames/ID.jpg`` and ``audio/ID.wav``, all annotators in one XML element."""
    media = project / "data/flickr_flat/media"
    train, test = _flickr_ids()
    for clip_id in [*train, *test]:
        _write_pair(media / f"frames/{clip_id}.jpg", media / f"audio/{clip_id}.wav")
    return _flickr("flickr_flat", project, train, test, one_each=False)


def _flickr_ids() -> tuple[list[str], list[str]]:
    return [str(4_000_000_000 + 7 * k) for k in range(8)], [str(5_000_000_000 + 13 * k) for k in range(TEST)]


def _flickr(name: str, project: Path, train: list[str], test: list[str], *, one_each: bool) -> Tree:
    boxes: dict[str, list[Pixels]] = {}
    for k, clip_id in enumerate(test):
        # The published numbers are 1 to 256, and describe a slice that ends one before.
        numbers = [min(value + 1, 256) for value in _scaled(EIGHTHS[k], 32)]
        boxes[clip_id] = [tuple(number - 1 for number in numbers)]
        xml = flickr_xml([numbers, numbers], one_each=one_each)  # two annotators who agree, as the consensus requires
        _made(project / f"Annotations/{clip_id}.xml").write_text(xml)
    arguments = ["--train", write_lines(project / "train.txt", train), "--boxes", project / "Annotations"]
    arguments += ["--test", write_lines(project / "test.csv", [f"{clip_id},{k}" for k, clip_id in enumerate(test)])]
    return Tree(name, ["soundnet-flickr", "--name", name], "paper256", 256, 8, lambda: boxes, arguments=arguments)


def vggss(project: Path) -> Tree:
    """``video/YTID_START.mp4`` of ten seconds, the official JSON with one corrupt row, and VGGSound's CSV for training."""
    train, test = ([f"{kind * 10}{k}_{30 + k:06d}" for k in range(n)] for kind, n in (("a", 8), ("-", TEST)))
    for clip_id in [*train, *test]:
        write_media(_made(project / f"data/vggss/media/video/{clip_id}.mp4"), **_video(10))
    eighths = {clip_id: [box] for clip_id, box in zip(test, EIGHTHS, strict=True)}
    eighths[test[3]].append((0, 4, 6, 5))  # a second object, which overlaps the first
    records = [
        {"file": clip_id, "class": "dog", "bbox": [[value / 8 for value in box] for box in boxes]}
        for clip_id, boxes in eighths.items()
    ]
    records[0]["bbox"].append([0.5, 0.5, -2.8823037615171176e16, 0.75])
    rows = [f'{clip_id[:11]},{int(clip_id[12:])},"dog, barking",train' for clip_id in train]
    arguments = ["--annotations", write_json(project / "vggss.json", records)]
    arguments += ["--train", write_lines(project / "vggsound.csv", [*rows, f"{'z' * 11},1,cat,test"])]
    boxes = {clip_id: [_scaled(box, 28) for box in rows] for clip_id, rows in eighths.items()}
    # The boxes were annotated at 5 s into the clip.
    frame = 5 * FPS
    return Tree("vggss", ["vggss"], "vggss224", 224, 8, lambda: boxes, frame_number=frame, arguments=arguments)


def is3(project: Path) -> Tree:
    """``visual_frames/`` and ``audio_wav/``, two clips per pair; training clips are in separate folders."""
    media = project / "data/is3/media"
    test = [f"{pair}_{kind}" for pair in ("dog_cat_1", "fox_hen_2") for kind in pair.split("_")[:2]]
    for name in test:
        _write_pair(media / f"visual_frames/{name}.jpg", media / f"audio_wav/{name}.wav")
    train = [Clip(f"t{k}", frame=f"own/{k}.jpg", audio=f"own/{k}.wav") for k in range(8)]
    for clip in train:
        _write_pair(media / clip.frame, media / clip.audio)
    write_clips(project / "own.csv", train)
    boxes = {name: [_scaled(EIGHTHS[k], 28)] for k, name in enumerate(test)}
    boxes[test[2]] = [(47, 99, 154, 185)]  # whole pixels, not multiples of an eighth
    root = "/home/someone/is3"
    records = [
        {"image": f"{root}/visual_frames/{n}.jpg", "audio": f"{root}/audio_wav/{n}.wav", "gt_box": list(map(float, b))}
        for n, (b,) in boxes.items()
    ]
    arguments = ["--annotations", write_json(project / "is3.json", records), "--train", project / "own.csv"]
    return Tree("is3", ["is3"], "iiou224", 224, 8, lambda: boxes, arguments=arguments)


def folder(project: Path) -> Tree:
    """Videos in folders and subfolders, and boxes in the project's own format."""
    media = project / "my videos"
    for k in range(8 + TEST):
        write_media(_made(media / (f"day {k % 2}" if k % 3 else ".") / f"clip {k}.mkv"), **_video(5))
    ids = ["clip_0", "day_1--clip_1", "day_0--clip_2", "clip_3"]
    boxes = {clip_id: [_scaled(EIGHTHS[k], 32)] for k, clip_id in enumerate(ids)}
    write_boxes(
        project / "my_boxes.csv",
        [Box(i, "dog", "me", True, *(v / 256 for v in box)) for i, rows in boxes.items() for box in rows],
    )
    arguments = ["--media", media, "--boxes", project / "my_boxes.csv"]
    return Tree("street", ["folder", "--name", "street"], "paper256", 256, 8, lambda: boxes, arguments=arguments)


def music_synthetic(project: Path) -> Tree:
    """The published folders, with audio files next to the frames."""
    published(project / "data/music_synthetic/media")
    boxes = {"test-a": [(0, 0, 112, 112), (112, 56, 168, 168)], "test-b": [(22, 134, 22 + 44, 134 + 67)]}
    return Tree(
        "music_synthetic",
        ["music-synthetic"],
        "music-synthetic-a",
        224,
        3,
        lambda: boxes,
        per_source=True,
        threshold=0.3,
    )


def music_synthetic_build(project: Path) -> Tree:
    """Solo videos of five instruments, with boxes for four of them."""
    write_solos(project / "solos")
    write_solo_boxes(project / "solos.json")
    media = project / "data/music_built/media"
    arguments = ["--solos", project / "solos", "--boxes", project / "solos.json", "--train", 8, "--test", TEST]
    return Tree(
        "music_built",
        ["music-synthetic-build", "--name", "music_built"],
        "music-synthetic-a",
        224,
        8,
        lambda: _boxes_of_mosaics(media / "mosaics.csv"),
        per_source=True,
        threshold=0.3,
        arguments=arguments,
    )


TREES = (soundnet_flickr_official, soundnet_flickr_flat, vggss, is3, folder, music_synthetic, music_synthetic_build)


def _boxes_of_mosaics(path: Path) -> dict[str, list[Pixels]]:
    x, y, width, height = (round(112 * value) for value in BOX)
    boxes: dict[str, list[Pixels]] = {}
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            if row["clip_id"].startswith("test") and row["sounding"] == "1":
                left, top = 112 * (int(row["quadrant"]) % 2) + x, 112 * (int(row["quadrant"]) // 2) + y
                boxes.setdefault(row["clip_id"], []).append((left, top, left + width, top + height))
    return boxes


def _scaled(eighths: Pixels, side: int) -> Pixels:
    x0, y0, x1, y1 = (side * value for value in eighths)
    return x0, y0, x1, y1


def _write_pair(frame: Path, audio: Path) -> None:
    """Write a frame of colored noise and five seconds of audio noise, different for every file."""
    rng = np.random.default_rng(list(frame.stem.encode()))
    Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize((128, 96)).save(_made(frame))
    _made(audio).write_bytes(wav_bytes(rng.uniform(-0.5, 0.5, 5 * 22050), 22050))


def _video(seconds: int) -> dict[str, object]:
    """Return arguments of `write_media`: numbered frames and a click every half second."""
    return {
        "times": steady(seconds, FPS),
        "frames": [numbered_frame(number) for number in range(seconds * FPS)],
        "sound": impulses(seconds, 16000, np.arange(0.25, seconds, 0.5).tolist()),
    }


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
