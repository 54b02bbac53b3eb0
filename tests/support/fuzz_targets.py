"""What the fuzz script feeds to the project: intact files of each kind, and for each kind the function that reads it.

A target's `read` either returns a result, which `check` compares with that of the intact file where damage must be detected, or
raises `SoundspotError`. Anything else is a bug.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from click.testing import CliRunner
from PIL import Image

from pipeline.cli.main import soundspot
from pipeline.common.config import EXACT, ShardEncoding, load_card, load_params
from pipeline.common.hdf5 import write_arrays
from pipeline.common.project import labels_path
from pipeline.datasets.importers.flickr_boxes import fractional_boxes, read_raw_boxes
from pipeline.datasets.importers.is3 import read_entries
from pipeline.datasets.importers.legacy_pickle import load_plain_pickle
from pipeline.datasets.importers.lists import read_ids
from pipeline.datasets.importers.report import ImportReport
from pipeline.datasets.importers.vggss import read_annotations, read_train_list
from pipeline.datasets.music.mosaic import wav_bytes
from pipeline.evaluation.calibration import Calibration, read_calibration, write_calibration
from pipeline.manifests.boxes import read_boxes
from pipeline.manifests.clips import read_clips
from pipeline.media.clip import decode_clip, read_audio, read_frame
from pipeline.model.backbones.weights import load_weights
from pipeline.model.encoders import build_model
from pipeline.pseudo_labels.artifact import PseudoLabels
from pipeline.scoring.map_file import ResponseMaps, read_maps, write_maps
from pipeline.shards.listing import SHARDS_FILE
from pipeline.shards.reader import ShardSet, verify_shard
from pipeline.training.checkpoints import load_model
from pipeline.training.class_labels import classes_of_clips
from pipeline.training.history import HISTORY, TIMINGS, read_history, write_history
from tests.support.heif_files import write_grid
from tests.support.importing import flickr_xml
from tests.support.labeled_runs import CLIPS, FINGERPRINT, make_run, make_train_shards
from tests.support.localizing import save_model
from tests.support.media_files import impulses, steady, write_media
from tests.support.mutations import mutate_hdf5, mutate_weights
from tests.support.synthetic import ENCODER

ROOT = Path(__file__).parents[2]
RATE, SECONDS, SIZE = 8000, 0.5, 32
COMPACT = ShardEncoding(log_mel="float16", frame_codec="jpeg")
# The smallest real files of each container and codec that PyAV can write.
MEDIA = [
    ("mp4", "libx264", "aac", None),
    ("mov", "mpeg4", "pcm_s16le", None),
    ("mkv", "libx264", "flac", None),
    ("webm", "libvpx", "libopus", None),
    ("avi", "mpeg4", "mp3", None),
    ("ts", "mpeg2video", "mp2", None),
    ("flv", "flv1", "aac", None),
    ("mpg", "mpeg2video", "mp2", "mpeg"),
]


@dataclass(frozen=True)
class Target:
    """One intact file and its reader."""

    name: str
    content: bytes
    file: str  # its name, which may have folders
    read: Callable[[Path], Any]
    check: bool = False  # a result must equal that of the intact file: the format has checksums
    others: tuple[tuple[str, bytes], ...] = ()  # intact files next to it
    rewrite: Callable[[bytes, np.random.Generator], bytes] | None = None  # changes the content through its own library


def make_targets(folder: Path) -> list[Target]:
    """Write the intact files into a folder and return all targets."""
    return [*_media(folder), *hdf5_targets(folder), *weight_targets(folder), *_lists(folder)]


def _media(folder: Path) -> Iterator[Target]:
    for suffix, video, audio, container in MEDIA:
        path = write_media(
            folder / f"clip.{suffix}",
            times=steady(1, 25),
            sound=impulses(1, 44_100 if suffix == "flv" else 48_000, np.arange(0.05, 1, 0.1).tolist()),
            rate=44_100 if suffix == "flv" else 48_000,
            video_codec=video,
            audio_codec=audio,
            container_format=container,
        )
        yield Target(f"{suffix} video", path.read_bytes(), path.name, _read_video)
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, RATE)
    yield Target("wav", wav_bytes(noise, RATE), "clip.wav", _read_audio)
    for suffix, codec in (("ogg", "libopus"), ("mp3", "mp3")):
        path = write_media(folder / f"a.{suffix}", sound=impulses(1, 48_000, [0.5]), rate=48_000, audio_codec=codec)
        yield Target(suffix, path.read_bytes(), path.name, _read_audio)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8))
    for suffix in ("jpg", "png", "webp", "gif", "bmp", "tiff"):
        image.save(folder / f"frame.{suffix}")
        yield Target(f"{suffix} image", (folder / f"frame.{suffix}").read_bytes(), f"frame.{suffix}", _read_image)
    for kind in ("HEIF", "AVIF"):
        path = write_grid(folder / f"grid.{kind.lower()}", np.asarray(image.resize((96, 80))), kind=kind)
        yield Target(f"tiled {kind} image", path.read_bytes(), path.name, _read_image)


def _read_video(path: Path) -> Any:
    clip = decode_clip(
        video=path, frame=None, audio=None, centre_s=None, image_size=SIZE, sample_rate=RATE, clip_seconds=SECONDS,
        time_limit_s=10.0,
    )  # fmt: skip
    _check_frame(clip.frame)
    _check_audio(clip.waveform)


def _read_audio(path: Path) -> Any:
    _check_audio(read_audio(path, clip_seconds=SECONDS, sample_rate=RATE, time_limit_s=10.0))


def _check_audio(waveform: np.ndarray) -> None:
    assert (waveform.shape, waveform.dtype) == ((round(RATE * SECONDS),), np.float32)
    assert np.abs(waveform).max() == 1  # false for NaN, too


def _read_image(path: Path) -> Any:
    _check_frame(read_frame(path, image_size=SIZE, time_limit_s=10.0))


def _check_frame(frame: np.ndarray) -> None:
    assert (frame.shape, frame.dtype) == ((SIZE, SIZE, 3), np.uint8)


def hdf5_targets(folder: Path) -> Iterator[Target]:
    """Yield shards, pseudo-labels and maps, and the files that `pl verify` reads."""
    for name, encoding in {"shard": EXACT, "compact shard": COMPACT}.items():
        shards = make_train_shards(folder / name, encoding=encoding)
        listed = (SHARDS_FILE, (shards / SHARDS_FILE).read_bytes())
        content = (shards / "shard-00000.h5").read_bytes()
        yield Target(name, content, "shard-00000.h5", _read_shards, True, (listed,), mutate_hdf5)
    run = make_run(folder / "run")
    content = labels_path(run, 1).read_bytes()
    yield Target("pseudo-labels", content, "epoch_001.h5", _read_labels, True, (), mutate_hdf5)
    arrays = {"clip_id": (("clip",), np.array(CLIPS, "S8")), "classes": (("clip",), np.arange(12, dtype=np.int64))}
    write_arrays(folder / "start_001.h5", arrays, {"epoch": 1, "method": "iterative", "fingerprint": FINGERPRINT})
    others = tuple((str(file.relative_to(run)), file.read_bytes()) for file in sorted(run.rglob("*")) if file.is_file())
    for name in ("epoch_001.h5", "start_001.h5"):
        content = (folder / name if name.startswith("start") else labels_path(run, 1)).read_bytes()
        yield Target(f"pl verify, {name}", content, f"pseudo_labels/{name}", _verify, False, others, mutate_hdf5)
    noise = np.random.default_rng(0).normal(size=(len(CLIPS), 4, 4)).astype(np.float32)
    maps = ResponseMaps(CLIPS, noise, -noise, CLIPS[::-1], "test", 0, "c" * 32)
    write_maps(folder / "maps.h5", maps)
    yield Target("maps", (folder / "maps.h5").read_bytes(), "maps.h5", _read_maps, True, (), mutate_hdf5)


def _read_shards(path: Path) -> Any:
    verify_shard(path)
    shards = ShardSet.open(path.parent)
    arrays = shards.read(range(len(shards)))
    shards.close()
    return [shards.clip_ids, shards.settings, shards.source_time_s.tobytes(), *(array.tobytes() for array in arrays)]


def _read_labels(path: Path) -> Any:
    labels = PseudoLabels.open(path)
    return [list(labels.clip_ids), labels.response.tobytes(), labels.audio_embedding.tobytes(), dict(labels.attrs)]


def _read_maps(path: Path) -> Any:
    maps = read_maps(path)
    ids = [maps.clip_ids, maps.shuffled_clip_ids, maps.split, maps.seed, maps.shards, maps.normalization]
    return [*ids, maps.response.tobytes(), maps.shuffled_response.tobytes()]


def _verify(path: Path) -> Any:
    """Run `soundspot pl verify`, and raise what it raises."""
    result = CliRunner().invoke(soundspot, ["pl", "verify", str(path.parents[1])])
    assert "epoch_002.h5" in result.output or result.exception is None, "did not go on with the other files"
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception


def weight_targets(folder: Path) -> Iterator[Target]:
    """Yield a model, and pretrained weights in both formats of torch."""
    model = save_model(folder / "model.pt")
    yield Target("model", model.read_bytes(), "model.pt", _read_model, True, (), mutate_weights)
    visual = build_model(ENCODER).visual.state_dict()
    for name, zipped in (("zip", True), ("legacy", False)):
        torch.save(visual, folder / f"{name}.pth", _use_new_zipfile_serialization=zipped)
        content = (folder / f"{name}.pth").read_bytes()
        # The old format has no checksums, so that other values cannot be told from damage.
        yield Target(
            f"pretrained weights, {name}", content, "weights.pth", _read_pretrained, zipped, (), mutate_weights
        )


def _read_model(path: Path) -> Any:
    trained = load_model(path)
    return [dict(trained.description), _state(trained.encoders)]


def _read_pretrained(path: Path) -> Any:
    encoder = build_model(ENCODER).visual
    load_weights(encoder, str(path), setting="encoder.visual")
    return _state(encoder)


def _state(module: torch.nn.Module) -> dict[str, bytes]:
    state = module.state_dict()
    assert all(value.isfinite().all() for value in state.values())
    return {name: value.numpy().tobytes() for name, value in state.items()}


def _lists(folder: Path) -> Iterator[Target]:
    clips = b"clip_id,video,frame,audio,centre_s,label\na,x/a.mp4,,,1.5,dog\nb,,b.jpg,b.wav,,cat\n"
    boxes = b"clip_id,source,annotator,sounding,x0,y0,x1,y1\na,dog,me,1,0.1,0.2,0.5,0.75\n"
    records = [{"file": "abcdefghijk_000030", "class": "dog", "bbox": [[0.1, 0.2, 0.5, 0.75]]}]
    flickr = [[10, 20, 128, 256], [12, 20, 130, 250]]
    pickled = pickle.dumps({"a": [1, 2.5, "x"], "b": np.arange(6.0).reshape(2, 3)}, protocol=2)
    card = (ROOT / "data_manifests/demo/dataset.yaml").read_bytes()
    peaks = np.linspace(0, 1, 50)
    write_calibration(folder / "calibration.json", Calibration.of(peaks, {"hiss": peaks}, model="a", split="test"))
    yield Target("clip list", clips, "train.csv", read_clips)
    labels = b"clip_id,dog,cat\na,0.25,0.75\nb,1,0\n"
    yield Target(
        "label file", labels, "labels.csv", lambda path: classes_of_clips([], "ab", where=path, label_file=path)
    )
    is3 = [{"image": "visual_frames/a_1.jpg", "audio": "audio_wav/a_1.wav", "gt_box": [1, 2, 100, 223]}]
    yield Target("IS3", json.dumps(is3).encode(), "is3.json", lambda path: read_entries(path, ImportReport("is3")))
    write_history(
        folder / "history.csv",
        folder / "timings.csv",
        [dict.fromkeys((*HISTORY, *TIMINGS), epoch) for epoch in (0.0, 1.0)],
    )
    yield Target("history", (folder / "history.csv").read_bytes(), "history.csv", read_history)
    yield Target("boxes", boxes, "test_boxes.csv", read_boxes)
    yield Target("id list", b"clip_id,n\n4000000001,1\n4000000002,2\n", "ids.csv", read_ids)
    yield Target("card", card, "dataset.yaml", lambda path: load_card(path.parent))
    yield Target("settings", yaml.safe_dump(_settings()).encode(), "params.yaml", load_params)
    yield Target("VGG-SS", json.dumps(records).encode(), "vggss.json", _read_vggss)
    rows = b'abcdefghijk,30,"dog, barking",train\nbbcdefghijk,40,cat,train\n'
    yield Target("VGGSound", rows, "vggsound.csv", lambda path: read_train_list(path, ImportReport("x")))
    xml = flickr_xml(flickr, one_each=True).encode()
    yield Target("Flickr XML", xml, "Annotations/4000000001.xml", lambda path: _read_flickr(path.parent))
    yield Target("pickle", pickled, "boxes.pkl", load_plain_pickle)
    yield Target("calibration", (folder / "calibration.json").read_bytes(), "calibration.json", read_calibration)


def _settings() -> Any:
    settings = yaml.safe_load((ROOT / "params.yaml").read_text())
    return settings | {"training": {"demo": settings["training"]["demo"]}}


def _read_vggss(path: Path) -> Any:
    read_annotations(path, ImportReport("vggss"))


def _read_flickr(path: Path) -> Any:
    fractional_boxes(read_raw_boxes(path), ImportReport("flickr"), path)
