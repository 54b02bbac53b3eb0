"""MUSIC-Synthetic: mosaics built from small generated solo videos, and the published layout."""

import csv
import json
import pickle
import shutil
import wave
from collections import Counter, defaultdict
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from pipeline.common.cluster import SCHEDULER_VARIABLE
from pipeline.common.config import load_card
from pipeline.common.errors import ManifestError
from pipeline.datasets.importers.report import ImportReport
from pipeline.datasets.importers.write import ImportOptions
from pipeline.datasets.music import segments as music_segments
from pipeline.datasets.music.boxes import corners_of_xywh, read_solo_boxes
from pipeline.datasets.music.build import BuildSettings, build_music_synthetic
from pipeline.datasets.music.mosaic import arrange, box_in_mosaic, mix, wav_bytes
from pipeline.datasets.music.published import MUSIC_AUDIO, import_music_synthetic
from pipeline.datasets.music.schedule import GAIN_RANGE, Segment, draw_mosaics
from pipeline.datasets.music.segments import CutSettings, audible_seconds, cut_solo
from pipeline.datasets.music.solos import Solo, find_solos, split_videos
from pipeline.datasets.music.spectrograms import invert_spectrogram
from pipeline.datasets.prepare import prepare_dataset
from pipeline.manifests.boxes import read_boxes
from pipeline.manifests.clips import read_clips
from pipeline.media.clip import decode_clip, read_audio
from pipeline.scoring.protocols import get_protocol
from tests.support.importing import tree

SECONDS, FPS, RATE = 4, 10, 16000
SILENT_SECOND = 2
# instrument → pitch in Hz, red of its frames, category of its published boxes
KINDS = {
    "cello": (150, 40, 1),
    "flute": (900, 90, 12),
    "trumpet": (500, 140, 10),
    "tuba": (80, 190, None),  # nobody annotated one
    "violin": (700, 240, 11),
}
BOX = [0.25, 0.5, 0.5, 0.25]  # x, y, width, height
ANNOTATED = "a"  # of each instrument's videos a, b, c the annotated one


def write_solo(path: Path, instrument: str, number: int) -> None:
    """Plain frames (red encodes the instrument, green the video, blue the tenth of a second), and a sine with a pause."""
    pitch, red, _ = KINDS[instrument]
    path.parent.mkdir(parents=True, exist_ok=True)
    t = np.arange(SECONDS * RATE) / RATE
    sound = 0.5 * np.sin(2 * np.pi * (pitch + 7 * number) * t) * (1 + 0.5 * np.sin(2 * np.pi * 1.3 * t))
    sound[round((SILENT_SECOND - 0.1) * RATE) : round((SILENT_SECOND + 1.1) * RATE)] = 0  # the codec blurs edges
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=FPS)
        video.width, video.height, video.pix_fmt, video.bit_rate = 64, 48, "yuv420p", 4_000_000
        audio = container.add_stream("aac", rate=RATE, layout="mono")
        for k in range(SECONDS * FPS):
            pixels = np.full((48, 64, 3), (red, 60 * number, 6 * k), np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        frame = av.AudioFrame.from_ndarray(sound[None].astype(np.float32), format="fltp", layout="mono")
        frame.sample_rate = RATE
        container.mux(audio.encode(frame))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))


def write_solos(folder: Path) -> None:
    """Three videos of each instrument."""
    for instrument in KINDS:
        for number, letter in enumerate("abc"):
            write_solo(folder / instrument / f"{instrument}_{letter}.mp4", instrument, number)


def write_solo_boxes(path: Path) -> None:
    """Boxes for one frame per second, 0.7 s after its start; the frame of second 3 has none."""
    content = {}
    for instrument, (_, _, category) in KINDS.items():
        for second in range(SECONDS) if category else ():
            entry = {"bbox": [{"normbox": BOX, "category_id": category}] if second < 3 else []}
            content[f"{instrument}_{ANNOTATED}_0_1000/frame_{second:03d}/{30 * second + 21:05d}.jpg"] = entry
    path.write_text(json.dumps(content))


def options(project: Path, media: Path, **rest: object) -> ImportOptions:
    return ImportOptions("music", media, project, **rest)


pytestmark = pytest.mark.usefixtures("one_worker")


@pytest.fixture(scope="module")
def solos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("solos")
    write_solos(root / "videos")
    (root / "videos" / "flute" / "broken.mp4").write_bytes(b"this is no video")
    write_solo_boxes(root / "boxes.json")
    return root


@pytest.fixture(scope="module")
def built(solos: Path, tmp_path_factory: pytest.TempPathFactory, one_worker: None) -> list[Path]:
    """The same dataset built twice: by the shared worker, and by two new ones from a copy of the solos elsewhere."""
    one, two = (tmp_path_factory.mktemp(f"built{workers}") for workers in (1, 2))
    build(one, solos)
    copy = tmp_path_factory.mktemp("copy") / "solos of mine"
    shutil.copytree(solos / "videos", copy)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(SCHEDULER_VARIABLE)
        build(two, solos, videos=copy, workers=2)
    return [one, two]


def build(
    project: Path, solos: Path, *, videos: Path | None = None, workers: int = 1, force: bool = False, **settings: object
) -> None:
    build_music_synthetic(
        options(project, project / "media", force=force),
        solos=videos or solos / "videos",
        boxes=solos / "boxes.json",
        settings=BuildSettings(**{"train": 20, "test": 12, "seed": 3, **settings}),
        workers=workers,
    )


def provenance(project: Path) -> dict[str, list[dict[str, str]]]:
    with open(project / "media" / "mosaics.csv", newline="") as file:
        clips = defaultdict(list)
        for row in csv.DictReader(file):
            clips[row["clip_id"]].append(row)
    return clips


def source_of(solos: Path, row: dict[str, str]) -> Path:
    return solos / "videos" / row["instrument"] / f"{row['video']}.mp4"


def read_wav(path: Path) -> np.ndarray:
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (RATE, 1, 2)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32767


def test_a_solo_that_crashes_a_decoder_is_left_out(solos: Path, tmp_path: Path, monkeypatch) -> None:
    def trip(*_: object, **__: object) -> None:
        raise IndexError("in the depths\nof a library " + 500 * "x")

    path, settings = solos / "videos" / "cello" / "cello_a.mp4", CutSettings(16, RATE, -40.0, 30.0)
    monkeypatch.setattr(music_segments, "read_frame", trip)
    cut = cut_solo(path, tmp_path, "cello_a", {}, settings)
    assert not cut.seconds
    assert cut.reason.startswith(f"{path}: ")
    assert "IndexError: in the depths of a library xxx" in cut.reason
    assert len(cut.reason) < len(str(path)) + 350
    monkeypatch.setattr(music_segments, "read_frame", lambda *_, **__: (_ for _ in ()).throw(MemoryError))
    with pytest.raises(MemoryError):
        cut_solo(path, tmp_path, "cello_a", {}, settings)


def test_built_set_has_the_papers_composition(built: list[Path]) -> None:
    clips = provenance(built[0])
    assert Counter(clip_id.split("-")[0] for clip_id in clips) == {"train": 20, "test": 12}
    for rows in clips.values():
        assert [row["quadrant"] for row in rows] == ["0", "1", "2", "3"]
        assert len({row["instrument"] for row in rows}) == len({row["video"] for row in rows}) == 4
        assert sum(row["sounding"] == "1" for row in rows) == 2
        assert all(int(row["second"]) != SILENT_SECOND for row in rows)
    listed = {
        clip.clip_id: clip for split in ("train", "test") for clip in read_clips(_manifest(built[0]) / f"{split}.csv")
    }
    assert listed.keys() == clips.keys()
    for clip_id, rows in clips.items():
        assert listed[clip_id].label == "+".join(sorted(r["instrument"] for r in rows if r["sounding"] == "1"))


def _manifest(project: Path) -> Path:
    return project / "data_manifests" / "music"


def test_no_video_is_in_both_splits_and_annotated_ones_are_tested(built: list[Path]) -> None:
    videos: dict[str, set[str]] = defaultdict(set)
    for clip_id, rows in provenance(built[0]).items():
        videos[clip_id.split("-")[0]].update(row["video"] for row in rows)
    assert not videos["train"] & videos["test"]
    annotated = {f"{kind}_{ANNOTATED}" for kind, (_, _, category) in KINDS.items() if category}
    assert {video for video in videos["test"] if not video.startswith("tuba")} == annotated
    assert len({video for video in videos["test"] if video.startswith("tuba")}) == 1  # the held-out share


def test_instruments_sound_equally_often(built: list[Path]) -> None:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for clip_id, rows in provenance(built[0]).items():
        counts[clip_id.split("-")[0]].update(row["instrument"] for row in rows if row["sounding"] == "1")
    assert dict(counts["train"]) == dict.fromkeys(KINDS, 8)  # 2 · 20 / 5
    assert dict(counts["test"]) == dict.fromkeys(KINDS.keys() - {"tuba"}, 6)  # 2 · 12 / 4


def test_mix_equals_its_parts(built: list[Path], solos: Path) -> None:
    """Naive reference: add the two recordings sample by sample, as described in mosaics.csv."""
    for clip_id, rows in list(provenance(built[0]).items())[::5]:
        expected = np.zeros(RATE)
        loudness = {}
        for row in rows:
            scale, shift = float(row["scale"]), int(row["shift_samples"])
            assert abs(shift) <= 800
            if row["sounding"] == "0":
                assert (scale, shift, float(row["gain"])) == (0, 0, 0)
                continue
            track = read_audio(source_of(solos, row), centre_s=SECONDS / 2, clip_seconds=SECONDS, sample_rate=RATE)
            part = np.zeros(RATE)
            for n in range(RATE):
                source = int(row["second"]) * RATE + n - shift
                if 0 <= source < len(track):
                    part[n] = track[source]
            expected += scale * part
            loudness[float(row["gain"])] = scale * np.sqrt(np.mean(part**2))
            assert GAIN_RANGE[0] <= float(row["gain"]) <= GAIN_RANGE[1]
        sound = read_wav(built[0] / "media" / "audio" / f"{clip_id}.wav")
        np.testing.assert_allclose(sound, expected, atol=1 / 32767)
        assert np.abs(sound).max() == 1
        (gain_a, loud_a), (gain_b, loud_b) = loudness.items()
        assert loud_a / loud_b == pytest.approx(gain_a / gain_b, rel=1e-4)  # only the gains make one louder


def test_quadrants_show_the_frames_that_the_table_names(built: list[Path]) -> None:
    for clip_id, rows in provenance(built[0]).items():
        with Image.open(built[0] / "media" / "frames" / f"{clip_id}.jpg") as image:
            pixels = np.asarray(image).astype(float)
        assert pixels.shape == (224, 224, 3)
        for row in rows:
            top, left = 112 * (int(row["quadrant"]) // 2), 112 * (int(row["quadrant"]) % 2)
            shown = pixels[top : top + 112, left : left + 112].reshape(-1, 3)
            color = (
                KINDS[row["instrument"]][1],
                60 * "abc".index(row["video"][-1]),
                6 * int(float(row["frame_s"]) * FPS),
            )
            np.testing.assert_allclose(shown.mean(axis=0), color, atol=6)  # codecs; the next frame's blue is 6 away
            assert shown.std(axis=0).max() < 4  # nothing of the neighbors


def test_boxes_lie_in_their_quadrant_and_belong_to_the_annotated_frame(built: list[Path]) -> None:
    clips = provenance(built[0])
    boxes = read_boxes(_manifest(built[0]) / "test_boxes.csv")
    x, y, width, height = BOX
    for box in boxes:
        (row,) = [row for row in clips[box.clip_id] if row["instrument"] == box.source]
        left, top = 0.5 * (int(row["quadrant"]) % 2), 0.5 * (int(row["quadrant"]) // 2)
        expected = (left + x / 2, top + y / 2, left + (x + width) / 2, top + (y + height) / 2)
        assert (box.x0, box.y0, box.x1, box.y1) == pytest.approx(expected)
        assert box.sounding == (row["sounding"] == "1")
        assert float(row["frame_s"]) == pytest.approx(int(row["second"]) + 21.5 / 30, abs=1e-5)
    sounding = {(box.clip_id, box.source) for box in boxes if box.sounding}
    table = {(c, row["instrument"]) for c, rows in clips.items() for row in rows if row["sounding"] == "1"}
    assert sounding == {pair for pair in table if pair[0].startswith("test")}
    assert any(not box.sounding for box in boxes)


def test_same_seed_gives_the_same_bytes_for_any_number_of_workers_and_any_folder(built: list[Path]) -> None:
    first, second = ({p.relative_to(root): p for p in root.rglob("*") if p.is_file()} for root in built)
    assert first.keys() == second.keys()
    assert len(first) > 2 * 32
    different = [name for name, path in first.items() if path.read_bytes() != second[name].read_bytes()]
    assert not different


def test_built_clips_are_media_the_pipeline_reads(built: list[Path]) -> None:
    card = load_card(_manifest(built[0]))
    assert (card.image_size, card.audio, card.evaluation.threshold) == (224, MUSIC_AUDIO, 0.3)
    assert get_protocol(card.evaluation.protocol).consensus == "per-source"
    clip = read_clips(_manifest(built[0]) / "test.csv")[0]
    decoded = decode_clip(
        video=None,
        frame=built[0] / card.media_root / clip.frame,
        audio=built[0] / card.media_root / clip.audio,
        centre_s=None,
        image_size=224,
        sample_rate=RATE,
        clip_seconds=1.0,
        time_limit_s=10.0,
    )
    np.testing.assert_allclose(decoded.waveform, read_wav(built[0] / "media" / clip.audio), atol=1e-4)


def test_broken_video_is_listed_and_skipped(built: list[Path]) -> None:
    with open(built[0] / "media" / "rejects.csv", newline="") as file:
        rejects = list(csv.DictReader(file))
    assert [(row["video"], row["instrument"]) for row in rejects] == [("broken", "flute")]
    assert rejects[0]["reason"].startswith("flute/broken.mp4: ")


def test_changed_media_under_the_same_names_change_the_fingerprint(
    built: list[Path], solos: Path, tmp_path: Path
) -> None:
    """The lists do not change, so only the fingerprint can trigger a new extraction."""
    project = tmp_path / "again"
    shutil.copytree(built[0], project)
    before = _prepared(project, tmp_path / "before")
    sounds = {path.name: path.read_bytes() for path in (project / "media" / "audio").iterdir()}

    build(project, solos, force=True, max_shift_s=0.03)

    assert any(path.read_bytes() != sounds[path.name] for path in (project / "media" / "audio").iterdir())
    for name in ("train.csv", "test.csv", "test_boxes.csv"):
        assert (_manifest(project) / name).read_bytes() == (_manifest(built[0]) / name).read_bytes()
    after = _prepared(project, tmp_path / "after")
    assert after["clips.csv"] == before["clips.csv"]
    assert after["fingerprints.json"] != before["fingerprints.json"]

    build(project, solos, force=True)
    assert _prepared(project, tmp_path / "back") == before


def _prepared(project: Path, output: Path) -> dict[str, bytes]:
    prepare_dataset(_manifest(project), output, media_root=project / "media", scheduler=None, workers=1)
    return tree(output)


def test_a_smaller_set_leaves_no_media_of_the_larger_one(built: list[Path], solos: Path, tmp_path: Path) -> None:
    project = tmp_path / "smaller"
    shutil.copytree(built[0], project)
    (project / "media" / "frames" / "mine.jpg").write_bytes(b"not of the set")

    build(project, solos, force=True, train=5, test=3)

    names = set(provenance(project))
    assert len(names) == 8
    assert {path.stem for path in (project / "media" / "audio").iterdir()} == names
    assert {path.stem for path in (project / "media" / "frames").iterdir()} == names | {"mine"}


def test_a_failed_build_keeps_the_previous_dataset(built: list[Path], solos: Path, tmp_path: Path) -> None:
    project = tmp_path / "failing"
    shutil.copytree(built[0], project)
    before = {name: content for name, content in tree(project).items() if "segments" not in name}
    last = provenance(project)["train-000019"][0]["video"]
    # Taken for whole, since it was cut before.
    (project / "media" / "segments" / f"{last}.frames.npy").write_bytes(b"damaged")

    with pytest.raises(ValueError, match="pickle"):
        build(project, solos, force=True, train=40, max_shift_s=0.0)

    assert {name: content for name, content in tree(project).items() if "segments" not in name} == before


def test_a_second_build_needs_no_force_unless_it_changes_something(
    built: list[Path], solos: Path, tmp_path: Path
) -> None:
    project = tmp_path / "second"
    shutil.copytree(built[0], project)
    before = tree(project)
    build(project, solos)
    assert tree(project) == before
    with pytest.raises(ManifestError, match=r"media: .*--force"):
        build(project, solos, max_shift_s=0.03)
    assert tree(project) == before


def test_too_few_instruments_are_an_error_before_anything_is_cut(solos: Path, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    for instrument in ("cello", "flute", "violin"):
        (videos / instrument).mkdir(parents=True)
        for letter in "ab":
            (videos / instrument / f"{instrument}_{letter}.mp4").write_bytes(b"not looked at")
    with pytest.raises(ManifestError, match=r"train: .*4 different instruments.* 3 \(cello, flute, violin\)"):
        build_music_synthetic(
            options(tmp_path, tmp_path / "media"), solos=videos, quadrant_boxes=True, settings=BuildSettings()
        )
    assert not (tmp_path / "media").exists()


@pytest.mark.parametrize("given", [{}, {"boxes": Path("boxes.json"), "quadrant_boxes": True}])
def test_missing_or_contradictory_box_options_are_an_error(given: dict, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"--boxes FILE .*--quadrant-boxes"):
        build_music_synthetic(options(tmp_path, tmp_path), solos=tmp_path, settings=BuildSettings(), **given)


def test_check_only_reports_the_split_and_writes_nothing(solos: Path, tmp_path: Path) -> None:
    report = build_music_synthetic(
        options(tmp_path, tmp_path / "media", check_only=True),
        solos=solos / "videos",
        boxes=solos / "boxes.json",
        settings=BuildSettings(),
    )
    assert "test: 5 solo videos: cello 1, flute 1, trumpet 1, tuba 1, violin 1" in report.notes
    assert report.n_boxes == 12
    assert not list(tmp_path.iterdir())


def segments(n_videos: int, n_seconds: int, boxed: bool = False) -> list[Segment]:
    return [
        Segment(f"{kind}{v}", kind, s, s, s + 0.5, ((0.0, 0.0, 1.0, 1.0),) if boxed and kind < "d" else ())
        for kind in "abcdefg"
        for v in range(n_videos)
        for s in range(n_seconds)
    ]


def test_draw_is_balanced_seeded_and_a_prefix_of_a_longer_one() -> None:
    arguments = {"split": "train", "max_shift": 800, "needs_boxes": False}
    long = draw_mosaics(segments(3, 5), count=210, seed=1, **arguments)
    assert draw_mosaics(segments(3, 5)[::-1], count=30, seed=1, **arguments) == long[:30]
    assert draw_mosaics(segments(3, 5), count=30, seed=2, **arguments) != long[:30]
    roles = Counter((item.segment.instrument, item.sounding) for mosaic in long for item in mosaic.items)
    assert all(roles[kind, True] == 60 for kind in "abcdefg")
    assert all(abs(roles[kind, False] - 60) <= 2 for kind in "abcdefg")
    quadrants = Counter(k for mosaic in long for k, item in enumerate(mosaic.items) if item.sounding)
    assert all(70 < quadrants[k] < 140 for k in range(4))  # 105 expected, σ about 7


def test_draw_for_test_lets_only_annotated_instruments_sound() -> None:
    drawn = draw_mosaics(segments(1, 2, boxed=True), split="test", count=40, seed=0, max_shift=0, needs_boxes=True)
    assert {item.segment.instrument for m in drawn for item in m.items if item.sounding} == set("abc")
    assert {item.segment.instrument for m in drawn for item in m.items if not item.sounding} == set("abcdefg")
    with pytest.raises(ManifestError, match=r"test: .*with boxes of only 0 \(none\)"):
        draw_mosaics(segments(1, 2), split="test", count=1, seed=0, max_shift=0, needs_boxes=True)


def test_arrange_against_four_assignments() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (4, 3, 5, 3), dtype=np.uint8)
    mosaic = arrange(frames)
    for k, (top, left) in enumerate([(0, 0), (0, 5), (3, 0), (3, 5)]):
        np.testing.assert_array_equal(mosaic[top : top + 3, left : left + 5], frames[k])


def test_mix_of_equally_loud_sounds() -> None:
    a, b = np.zeros(8), np.zeros(8)
    a[0], b[4] = 0.01, -0.9  # 39 dB apart
    mixture, scales = mix(np.stack([a, b]), np.array([1.0, 0.8]))
    np.testing.assert_allclose(mixture[[0, 4]], [1.0, -0.8])
    np.testing.assert_allclose(scales, [100.0, 0.8 / 0.9])
    silent, _ = mix(np.zeros((2, 8)), np.ones(2))
    assert not silent.any()


def test_box_of_a_full_frame_is_its_quadrant() -> None:
    assert [box_in_mosaic((0, 0, 1, 1), k) for k in range(4)] == [
        (0, 0, 0.5, 0.5),
        (0.5, 0, 1, 0.5),
        (0, 0.5, 0.5, 1),
        (0.5, 0.5, 1, 1),
    ]


def test_audible_seconds_by_level() -> None:
    sound = np.repeat([0.5, 0.009, 0.011, 0.0], 100)
    assert audible_seconds(np.append(sound, np.ones(99)), sample_rate=100, silence_db=-40) == [0, 2]


def test_cut_is_reused_until_settings_change(solos: Path, tmp_path: Path) -> None:
    path, settings = solos / "videos" / "cello" / "cello_a.mp4", CutSettings(16, RATE, -40.0, 30.0)
    first = cut_solo(path, tmp_path, "cello_a", {0: 0.1}, settings)
    assert (first.seconds, first.frame_s) == ((0, 1, 3), (0.1, 1.5, 3.5))
    (tmp_path / "cello_a.frames.npy").write_bytes(b"untouched")
    assert cut_solo(path, tmp_path, "cello_a", {0: 0.1}, settings) == first
    assert (tmp_path / "cello_a.frames.npy").read_bytes() == b"untouched"
    assert cut_solo(path, tmp_path, "cello_a", {0: 0.2}, settings).frame_s[0] == 0.2
    assert np.load(tmp_path / "cello_a.frames.npy").shape == (3, 16, 16, 3)


def test_a_cut_that_was_killed_half_way_is_made_again(solos: Path, tmp_path: Path, monkeypatch) -> None:
    path, settings = solos / "videos" / "cello" / "cello_a.mp4", CutSettings(16, RATE, -40.0, 30.0)
    first = cut_solo(path, tmp_path, "cello_a", {0: 0.1}, settings)
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.datasets.music.segments.write_json", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            cut_solo(path, tmp_path, "cello_a", {0: 0.2}, settings)
    (tmp_path / "cello_a.frames.npy").write_bytes(b"of the other settings")
    assert cut_solo(path, tmp_path, "cello_a", {0: 0.1}, settings) == first
    assert np.load(tmp_path / "cello_a.frames.npy").shape == (3, 16, 16, 3)


def test_solos_from_a_list_and_a_flat_folder(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text(json.dumps({"videos": {"acoustic guitar": ["-x_1", "gone"], "tuba": ["y"]}}))
    for video in ("-x_1", "y", "unlisted"):
        (tmp_path / f"{video}.webm").write_bytes(b"video")
    found, missing = find_solos(tmp_path, tmp_path / "list.json")
    assert [(solo.video, solo.instrument) for solo in found] == [("-x_1", "acoustic_guitar"), ("y", "tuba")]
    assert missing == [("gone", "acoustic_guitar")]
    (tmp_path / "list.json").write_text(json.dumps({"videos": {"cello": ["y"], "tuba": ["y"]}}))
    with pytest.raises(ManifestError, match=r"'y' .*'cello' and 'tuba'"):
        find_solos(tmp_path, tmp_path / "list.json")
    with pytest.raises(ManifestError, match=r"no solo videos.*INSTRUMENT"):
        find_solos(tmp_path)


def test_split_by_given_test_videos() -> None:
    solos = [Solo(f"{kind}{k}", kind, Path("x")) for kind in "ab" for k in range(20)]
    rule = {"annotated": frozenset({"a3"}), "hold_out": 0.1, "seed": 0}
    train, test = split_videos(solos, test_videos=frozenset({"b1", "a7"}), **rule)
    assert {solo.video for solo in test} == {"b1", "a7"}
    assert len(train) == 38
    _, test = split_videos(solos, test_videos=None, **rule)
    assert [solo.video for solo in test if solo.instrument == "a"] == ["a3"]
    assert len(test) == 3  # and a tenth of b
    with pytest.raises(ManifestError, match="test videos: zz"):
        split_videos(solos, test_videos=frozenset({"zz"}), **rule)


def solo_json(path: Path, entries: dict[str, list]) -> Path:
    content = {key: {"bbox": [{"normbox": b, "category_id": 1} for b in boxes]} for key, boxes in entries.items()}
    path.write_text(json.dumps(content))
    return path


def test_solo_boxes_keep_the_boxed_frame_nearest_the_middle(tmp_path: Path) -> None:
    key = "id_x_0_1000/frame_002/{:05d}.jpg"
    path = solo_json(
        tmp_path / "boxes.json",
        {key.format(60): [BOX], key.format(67): [BOX, [0, 0, 1, 1]], key.format(74): [], key.format(88): [BOX]},
    )
    report = ImportReport("music")
    boxed = read_solo_boxes(path, {"id_x": "cello", "other": "flute"}, report)
    assert boxed["id_x"][2].time_s == pytest.approx(67.5 / 30)
    assert boxed["id_x"][2].boxes == ((0.25, 0.5, 0.75, 0.75), (0.0, 0.0, 1.0, 1.0))
    assert report.n_boxes == 4


@pytest.mark.parametrize(
    ("key", "instrument", "message"),
    [
        ("id_0_1000/frame_003/00060.jpg", "cello", "frame 60 .*second 2.*--box-frame-rate"),
        ("id/00060.jpg", "cello", "'id/00060.jpg': .*ID_0_1000/frame_013/00411.jpg"),
        ("id_0_1000/frame_002/00060.jpg", "violin", "id_0_1000/frame_002/00060.jpg: .*'cello'.*'violin'"),
    ],
)
def test_solo_boxes_refuse(key: str, instrument: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=message):
        read_solo_boxes(solo_json(tmp_path / "b.json", {key: [BOX]}), {"id": instrument}, ImportReport("music"))


def test_sizes_become_corners_and_faults_are_reported() -> None:
    report = ImportReport("music")
    rows = [("a", [0.1, 0.2, 0.3, 0.8 + 1e-9]), *[("b", BOX)] * 20, ("c", [0.9, 0, 0.2, 0.1]), ("d", [0, 0, 0, 1])]
    corners = corners_of_xywh(rows, report, "boxes")
    assert corners[0] == (0.1, 0.2, pytest.approx(0.4), 1.0)
    assert corners[-2:] == [None, None]
    assert [(fault.clip_id, fault.faults) for fault in report.box_faults] == [
        ("c", ("outside the frame",)),
        ("d", ("width <= 0",)),
    ]


def test_corners_in_place_of_sizes_are_refused() -> None:
    rng = np.random.default_rng(0)
    low, high = rng.uniform(0, 0.5, (50, 2)), rng.uniform(0.6, 1, (50, 2))
    rows = [(str(k), row) for k, row in enumerate(np.hstack([low, high]).tolist())]
    with pytest.raises(ManifestError, match=r"boxes: .* of 50 .*\[x, y, width, height\].*corners"):
        corners_of_xywh(rows, ImportReport("music"), "boxes")


def decibels_of(sound: np.ndarray) -> np.ndarray:
    """The published spectrogram of a sound: mel of the magnitude in dB, (frame, band), 80 dB deep."""
    import librosa

    magnitude = np.abs(librosa.stft(sound, n_fft=160, hop_length=80))
    with pytest.warns(UserWarning, match="Empty filters"):
        mel = librosa.feature.melspectrogram(S=magnitude, sr=RATE, n_mels=64)
    return librosa.power_to_db(mel, ref=1.0).T.astype(np.float32)


def published(root: Path) -> Path:
    """Three training and two test clips in the published layout, with sound files."""
    for split, ids in (("train/train", "abc"), ("test1", "ab")):
        for folder in ("audio", "video", "box"):
            (root / split / folder).mkdir(parents=True)
        for k, name in enumerate(ids):
            Image.new("RGB", (224, 224), (80 * k, 0, 0)).save(root / split / "video" / f"{name}.jpg")
            with wave.open(str(root / split / "audio" / f"{name}.wav"), "wb") as file:
                file.setparams((1, 2, RATE, 0, "NONE", "not compressed"))
                file.writeframes((tone(200 + 50 * k) * 32767).astype("<i2").tobytes())
    for name, rows in (("a", [[0, 0, 0.5, 0.5, 13], [0.5, 0.25, 0.25, 0.5, 3]]), ("b", [[0.1, 0.6, 0.2, 0.3, 8]])):
        np.save(root / "test1" / "box" / f"{name}.npy", np.array(rows))
    return root


def tone(pitch: float) -> np.ndarray:
    """A plucked note, four times a second, peak 1."""
    t = np.arange(RATE) / RATE
    sound = sum(np.sin(2 * np.pi * pitch * h * t) / h for h in range(1, 20)) * np.exp(-3 * (t % 0.25))
    return sound / np.abs(sound).max()


def test_published_layout_with_sound_files(tmp_path: Path) -> None:
    published(tmp_path / "music")
    (tmp_path / "music" / "train" / "train" / "audio" / "c.wav").unlink()
    report = import_music_synthetic(options(tmp_path, tmp_path / "music"))
    manifest = tmp_path / "data_manifests" / "music"
    train, test = read_clips(manifest / "train.csv"), read_clips(manifest / "test.csv")
    assert [clip.clip_id for clip in train] == ["train-a", "train-b"]
    assert report.left_out == {"train": {"c": "frame without audio"}}
    assert [(clip.frame, clip.audio) for clip in test] == [
        ("test1/video/a.jpg", "test1/audio/a.wav"),
        ("test1/video/b.jpg", "test1/audio/b.wav"),
    ]
    assert [clip.label for clip in test] == ["accordion+acoustic_guitar", "saxophone"]
    boxes = read_boxes(manifest / "test_boxes.csv")
    assert [(b.clip_id, b.source, b.sounding, b.x0, b.y0, b.x1, b.y1) for b in boxes] == [
        ("test-a", "accordion", True, 0, 0, 0.5, 0.5),
        ("test-a", "acoustic_guitar", True, 0.5, 0.25, 0.75, 0.75),
        ("test-b", "saxophone", True, 0.1, 0.6, pytest.approx(0.3), pytest.approx(0.9)),
    ]
    card = load_card(manifest)
    assert (card.evaluation.protocol, card.evaluation.threshold, card.media_root) == ("music-synthetic-a", 0.3, "music")


@pytest.mark.slow  # a worker imports librosa
def test_published_spectrograms_are_refused_or_rebuilt(tmp_path: Path) -> None:
    audio = published(tmp_path / "music") / "test1" / "audio"
    for name, spectrogram in (("a", decibels_of(tone(220))), ("b", np.zeros((5, 64)))):
        (audio / f"{name}.wav").unlink()
        (audio / f"{name}.pkl").write_bytes(pickle.dumps(spectrogram))
    with pytest.raises(ManifestError, match=r"test1/audio: 2 clips .*spectrogram.*--rebuild-sound"):
        import_music_synthetic(options(tmp_path, tmp_path / "music"))
    assert not (tmp_path / "data_manifests").exists()
    report = import_music_synthetic(options(tmp_path, tmp_path / "music"), rebuild_sound=True, workers=1)
    assert report.left_out.keys() == {"test"}
    assert report.left_out["test"].keys() == {"b"}
    assert report.left_out["test"]["b"].startswith("b.pkl: ")
    assert all(shape in report.left_out["test"]["b"] for shape in ("(201, 64)", "(5, 64)"))
    (clip,) = read_clips(tmp_path / "data_manifests" / "music" / "test.csv")
    assert clip.audio == "test1/audio_rebuilt/a.wav"
    assert np.abs(read_wav(tmp_path / "music" / clip.audio)).max() == 1
    card = load_card(tmp_path / "data_manifests" / "music")
    (tmp_path / "music" / clip.audio).write_bytes(wav_bytes(tone(330), RATE))  # as another version would rebuild it
    import_music_synthetic(options(tmp_path, tmp_path / "music", force=True), rebuild_sound=True, workers=1)
    again = load_card(tmp_path / "data_manifests" / "music")
    assert "" not in (card.media_fingerprint, again.media_fingerprint)
    assert card.media_fingerprint != again.media_fingerprint


@pytest.mark.parametrize("rebuild", [False, True])
def test_check_only_rebuilds_nothing(rebuild: bool, tmp_path: Path) -> None:
    root = published(tmp_path / "music")
    for name in "ab":
        (root / "test1" / "audio" / f"{name}.wav").unlink()
        (root / "test1" / "audio" / f"{name}.pkl").write_bytes(b"not read")
    (root / "test1" / "video" / "b.jpg").write_bytes(b"")
    before = tree(tmp_path)

    report = import_music_synthetic(options(tmp_path, root, check_only=True), rebuild_sound=rebuild)

    assert report.listed == {"train": 3, "test": 2}
    assert report.left_out == {"test": {"b": "empty file"}}
    assert report.n_boxes == 2  # of clip a; so its boxes were read, and b's frame is none
    assert any(note.startswith("test: 2 clips have only a spectrogram") for note in report.notes)
    assert tree(tmp_path) == before

    np.save(root / "test1" / "box" / "a.npy", np.array([[0, 0, 0.5, 0.5, 7.0]]))
    with pytest.raises(ManifestError, match=r"a.npy: .*category 7.0"):
        import_music_synthetic(options(tmp_path, root, check_only=True), rebuild_sound=rebuild)


def test_rebuilt_audio_has_the_published_spectrogram() -> None:
    """Up to a constant gain, wherever the spectrogram is within 40 dB of its maximum."""
    wanted = decibels_of(tone(220))
    difference = decibels_of(invert_spectrogram(wanted, audio=MUSIC_AUDIO)) - wanted
    strong = difference[wanted > wanted.max() - 40]
    assert np.abs(strong - np.median(strong)).mean() < 0.5
    assert not invert_spectrogram(np.full((201, 64), -np.inf), audio=MUSIC_AUDIO).any()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.zeros((2, 4)), r"expected rows of \[x, y, width, height, category\], got \(2, 4\)"),
        (np.array([[0, 0, 0.5, 0.5, 7.0]]), "a.npy: .*category 7.0.* 1 cello, 3 acoustic_guitar"),
        (np.array([[0, 0, 1, 1, 13]], dtype=object), "a.npy: .*NumPy array"),
    ],
)
def test_published_boxes_refuse(rows: np.ndarray, message: str, tmp_path: Path) -> None:
    published(tmp_path / "music")
    np.save(tmp_path / "music" / "test1" / "box" / "a.npy", rows, allow_pickle=True)
    with pytest.raises(ManifestError, match=message):
        import_music_synthetic(options(tmp_path, tmp_path / "music"))


def test_a_folder_without_the_published_layout_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"train/video .*test1/video"):
        import_music_synthetic(options(tmp_path, tmp_path))
