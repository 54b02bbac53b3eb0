"""The demo dataset: plans, frames, sounds, media files, and the committed lists."""

from __future__ import annotations

import errno
import io
import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from pipeline.common.config import load_card
from pipeline.common.errors import RenderError
from pipeline.common.files import locked
from pipeline.datasets.demo import dataset as demo
from pipeline.datasets.demo.backgrounds import SIDE
from pipeline.datasets.demo.drawing import draw_frames, draw_sprite
from pipeline.datasets.demo.media import encode_audio, encode_image, encode_video
from pipeline.datasets.demo.plan import BACKGROUNDS, MAX_OVERLAP, NOISES, SIZES, plan_scene
from pipeline.datasets.demo.scene import Scene, bounding_box, displacement
from pipeline.datasets.demo.shapes import KINDS
from pipeline.datasets.demo.sounds import RATE, colored_noise, synthesize
from pipeline.manifests.boxes import read_boxes
from pipeline.manifests.clips import Clip, find_leaks, read_clips

COMMITTED = Path(__file__).parents[2] / "data_manifests" / "demo"


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [plan_scene(f"test-{index:05d}", seed=3) for index in range(300)]


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Render without a cluster; the list receives the number of clips of each task."""
    sizes: list[int] = []

    def run_tasks(function: Callable[..., Any], tasks: list[tuple[Any, ...]], **_: Any) -> Iterator[tuple[int, Any]]:
        for index, task in enumerate(tasks):
            sizes.append(len(task[0]))
            yield index, function(*task)

    monkeypatch.setattr(demo, "run_tasks", run_tasks)
    return sizes


def _first(scenes: list[Scene], condition: Callable[[Scene], bool]) -> Scene:
    return next(scene for scene in scenes if condition(scene))


def _clips(count: int = 3) -> list[Clip]:
    clips = [Clip(f"test-{index:05d}", video=f"test/test-{index:05d}.mp4") for index in range(count - 1)]
    return [*clips, Clip("test-00099", frame="test/test-00099.jpg", audio="test/test-00099.flac")]


def _content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# Plans


def test_a_plan_depends_only_on_seed_and_clip_id() -> None:
    assert plan_scene("a", seed=1) == plan_scene("a", seed=1)
    assert plan_scene("a", seed=1) != plan_scene("a", seed=2)
    assert plan_scene("a", seed=1).objects != plan_scene("b", seed=1).objects


def test_objects_are_of_different_kinds_fully_visible_and_hardly_overlap(scenes: list[Scene]) -> None:
    for scene in scenes:
        kinds = [thing.kind for thing in scene.objects]
        assert 2 <= len(kinds) <= 4
        assert len(set(kinds)) == len(kinds)
        assert scene.sound.kind == kinds[scene.sounding]
        boxes = np.array([bounding_box(thing) for thing in scene.objects])
        sides = boxes[:, 2:] - boxes[:, :2]
        assert boxes.min() > 0
        assert boxes.max() < 1
        assert np.all((sides.max(axis=1) >= SIZES[0] - 1e-9) & (sides.max(axis=1) <= SIZES[1] + 1e-9))
        for (a, size_a), (b, size_b) in itertools.combinations(zip(boxes, sides, strict=True), 2):
            common = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None).prod()
            assert common <= MAX_OVERLAP * min(size_a.prod(), size_b.prod()) + 1e-9


def test_the_mean_box_covers_about_a_seventh_and_the_sounding_one_is_like_the_others(scenes: list[Scene]) -> None:
    area: dict[bool, list[float]] = {True: [], False: []}
    for scene in scenes:
        for index, thing in enumerate(scene.objects):
            x0, y0, x1, y1 = bounding_box(thing)
            area[index == scene.sounding].append((x1 - x0) * (y1 - y0))
    assert np.mean(area[True]) == pytest.approx(0.14, abs=0.015)
    assert np.mean(area[True]) == pytest.approx(np.mean(area[False]), abs=0.01)


def test_every_kind_sounds_and_is_silent_and_every_background_and_noise_occurs(scenes: list[Scene]) -> None:
    assert {scene.sound.kind for scene in scenes} == set(KINDS)
    silent = {t.kind for scene in scenes for i, t in enumerate(scene.objects) if i != scene.sounding}
    assert silent == set(KINDS)
    assert {scene.background for scene in scenes} == set(BACKGROUNDS)
    assert {scene.sound.noise for scene in scenes} == set(NOISES)
    assert 0.1 < np.mean([scene.centre_s is not None for scene in scenes]) < 0.3
    assert 0.05 < np.mean([scene.image is not None for scene in scenes]) < 0.15


def test_context_changes_only_the_background_and_ties_it_to_the_kind() -> None:
    background_of: dict[str, str] = {}
    changed = 0
    for index in range(120):
        free, tied = plan_scene(f"c{index}", seed=0), plan_scene(f"c{index}", seed=0, context=1.0)
        assert replace(tied, background=free.background) == free
        assert background_of.setdefault(tied.sound.kind, tied.background) == tied.background
        changed += free.background != tied.background
    assert set(background_of.values()) == set(BACKGROUNDS)
    assert changed / 120 == pytest.approx(5 / 6, abs=0.12)


def test_displacements_are_zero_in_the_central_frame_only(scenes: list[Scene]) -> None:
    for scene in scenes[:50]:
        for thing in (None, *scene.objects):
            assert displacement(scene, thing, scene.central_frame) == (0, 0)
            assert displacement(scene, thing, 0) != (0, 0)


# Frames


@pytest.mark.parametrize("kind", KINDS)
def test_a_sprite_fills_its_box(kind: str, scenes: list[Scene]) -> None:
    thing = next(thing for scene in scenes for thing in scene.objects if thing.kind == kind)

    sprite, x, y = draw_sprite(thing, rng=np.random.default_rng(0))

    opaque = np.argwhere(np.asarray(sprite)[..., 3] >= 128)
    low, high = np.add(opaque.min(axis=0), (y, x)), np.add(opaque.max(axis=0), (y + 1, x + 1))
    x0, y0, x1, y1 = (SIDE * value for value in bounding_box(thing))
    np.testing.assert_allclose([*low, *high], [y0, x0, y1, x1], atol=1.5)


def test_an_object_is_drawn_where_its_box_says(scenes: list[Scene]) -> None:
    scene = scenes[0]
    thing = scene.objects[-1]  # the front one, so nothing covers it
    other = replace(thing, colors=dict.fromkeys(thing.colors, (255, 0, 255)))

    images = [
        np.asarray(next(draw_frames(s, range(s.central_frame, s.central_frame + 1))), dtype=int)
        for s in (scene, replace(scene, objects=(*scene.objects[:-1], other)))
    ]

    changed = np.argwhere(np.abs(images[0] - images[1]).sum(axis=-1) > 60)
    x0, y0, x1, y1 = (SIDE * value for value in bounding_box(thing))
    np.testing.assert_allclose([*changed.min(axis=0), *(changed.max(axis=0) + 1)], [y0, x0, y1, x1], atol=1.5)


# Sounds


@pytest.mark.parametrize("kind", KINDS)
def test_a_sound_lasts_the_whole_shot(kind: str) -> None:
    scene = _first([plan_scene(f"s{i}", seed=0) for i in range(200)], lambda scene: scene.sound.kind == kind)

    waveform = synthesize(replace(scene.sound, snr_db=60.0), 4 * RATE)

    assert waveform.dtype == np.float32
    assert waveform.shape == (4 * RATE,)
    assert np.abs(waveform).max() == pytest.approx(scene.sound.peak, rel=1e-5)
    seconds = np.sqrt((waveform.reshape(4, RATE) ** 2).mean(axis=1))
    assert seconds.min() > 0.1 * seconds.max()


def test_noise_has_the_requested_level(scenes: list[Scene]) -> None:
    quiet, noisy = (synthesize(replace(scenes[0].sound, snr_db=snr), 2 * RATE) for snr in (150.0, 12.0))
    gain = np.dot(quiet, noisy) / np.dot(quiet, quiet)  # level of the signal within the noisy waveform
    rest = noisy - gain * quiet
    assert 10 * np.log10(np.mean((gain * quiet) ** 2) / np.mean(rest**2)) == pytest.approx(12, abs=0.3)


@pytest.mark.parametrize(("kind", "decibels_per_decade"), [("white", 0), ("pink", -10), ("brown", -20)])
def test_noise_has_the_slope_of_its_color(kind: str, decibels_per_decade: float) -> None:
    noise = colored_noise(kind, 2**17, np.random.default_rng(0))
    power = np.abs(np.fft.rfft(noise)) ** 2
    hertz = np.arange(len(power)) * RATE / 2**17
    edges = np.geomspace(100, 6000, 12)
    bands = [power[(hertz >= low) & (hertz < high)].mean() for low, high in itertools.pairwise(edges)]
    slope = np.polyfit(np.log10(np.sqrt(edges[:-1] * edges[1:])), 10 * np.log10(bands), 1)[0]
    assert slope == pytest.approx(decibels_per_decade, abs=0.7)


def test_timbres_are_separable_but_not_by_loudness(scenes: list[Scene]) -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    kinds, features, loudness = [], [], []
    edges = np.geomspace(2, 320, 41).astype(int) + np.arange(41)
    for scene in scenes:
        waveform = synthesize(scene.sound, 2 * RATE)
        waveform /= np.abs(waveform).max()
        power = np.abs(np.fft.rfft(waveform.reshape(-1, 640) * np.hanning(640))) ** 2
        bands = np.log(np.add.reduceat(power, np.minimum(edges, 319), axis=1)[:, :40] + 1e-8)
        kinds.append(scene.sound.kind)
        features.append(np.concatenate([bands.mean(axis=0), bands.std(axis=0)]))
        loudness.append([np.log(np.mean(waveform**2))])

    def accuracy(x: Any) -> float:
        x = (np.array(x) - np.mean(x, axis=0)) / np.std(x, axis=0)
        model = linear.LogisticRegression(max_iter=1000).fit(x[:200], kinds[:200])
        return float(model.score(x[200:], kinds[200:]))

    assert accuracy(features) > 0.85
    assert accuracy(loudness) < 0.65


# Media files


@pytest.mark.parametrize("explicit", [False, True])
def test_the_frame_at_a_videos_center_is_the_planned_one(explicit: bool, scenes: list[Scene]) -> None:
    scene = _first(scenes, lambda scene: (scene.centre_s is not None) == explicit)
    planned = next(draw_frames(scene, range(scene.central_frame, scene.central_frame + 1)))

    with av.open(io.BytesIO(encode_video(scene))) as container:
        assert [stream.codec_context.name for stream in container.streams] == ["h264", "aac"]
        assert container.duration is not None
        centre_s = scene.centre_s if scene.centre_s is not None else container.duration / 2e6
        assert container.duration / 1e6 == pytest.approx(scene.duration_s, abs=1e-3)
        frames = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]

    assert len(frames) == scene.n_frames
    at = max(index for index, (time, _) in enumerate(frames) if time is not None and time <= centre_s)
    differences = [np.abs(frame.astype(int) - np.asarray(planned)).mean() for _, frame in frames]
    assert at == scene.central_frame
    assert int(np.argmin(differences)) == at
    assert differences[at] < 10
    assert differences[0] > 1.3 * differences[at]


def test_the_sound_of_a_video_is_the_planned_one(scenes: list[Scene]) -> None:
    scene = _first(scenes, lambda scene: scene.sound.kind == "guitar")

    with av.open(io.BytesIO(encode_video(scene))) as container:
        decoded = np.concatenate([f.to_ndarray()[0] for f in container.decode(audio=0) if (f.time or 0) >= 0])

    n_samples = int(scene.duration_s * RATE) // 1024 * 1024
    planned = synthesize(scene.sound, n_samples)
    assert n_samples / RATE > scene.duration_s - 0.064
    assert np.corrcoef(decoded[:n_samples], planned)[0, 1] > 0.9


def test_frame_and_audio_files_hold_the_central_frame_and_the_sound(scenes: list[Scene]) -> None:
    scene = scenes[0]
    planned = next(draw_frames(scene, range(scene.central_frame, scene.central_frame + 1)))
    png, jpg = (np.asarray(Image.open(io.BytesIO(encode_image(scene, e))), dtype=int) for e in ("png", "jpg"))
    np.testing.assert_array_equal(png, np.asarray(planned))
    assert np.abs(png - jpg).mean() < 8

    waveforms = []
    for ending in ("wav", "flac"):
        with av.open(io.BytesIO(encode_audio(scene, ending))) as container:
            assert container.streams.audio[0].rate == RATE
            waveforms.append(np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)]))
    np.testing.assert_array_equal(waveforms[0], waveforms[1])
    planned_sound = synthesize(scene.sound, len(waveforms[0]))
    np.testing.assert_allclose(waveforms[0] / 32767, planned_sound, atol=1 / 32767)


# Rendering


@pytest.mark.slow
def test_the_number_of_workers_does_not_change_the_bytes(tmp_path: Path) -> None:
    clips = _clips(20)
    demo.render_clips(clips, str(tmp_path / "here"), 5, 0.3)
    demo.render_media(clips, media_root=tmp_path / "two", seed=5, context=0.3, workers=2)

    here, two = _content(tmp_path / "here"), _content(tmp_path / "two")
    assert two.pop(demo.STAMP)
    assert len(here) == 21
    assert here == two


def test_rendering_resumes_where_it_stopped(tmp_path: Path, in_this_process: list[int]) -> None:
    clips = _clips()
    first = demo.render_media(clips, media_root=tmp_path, seed=1, context=0.0)
    whole = _content(tmp_path)
    (tmp_path / "test/test-00001.mp4").unlink()
    (tmp_path / "test/test-00099.flac").unlink()

    assert demo.render_media(clips, media_root=tmp_path, seed=1, context=0.0) == first

    assert in_this_process == [3, 2]
    assert _content(tmp_path) == whole


def test_media_that_were_not_rendered_are_never_replaced(tmp_path: Path, in_this_process: list[int]) -> None:
    """A user may have copied the demo's card with its block `render`."""
    own = tmp_path / "test/test-00001.mp4"
    own.parent.mkdir()
    own.write_bytes(b"a video of the user")
    with pytest.raises(RenderError, match=r"test-00001\.mp4: exists, but was not rendered .* remove `render`"):
        demo.render_media(_clips(), media_root=tmp_path, seed=1, context=0.0)
    assert _content(tmp_path / "test") == {"test-00001.mp4": b"a video of the user"}
    assert in_this_process == []


@pytest.mark.parametrize("change", [{"seed": 2}, {"context": 1.0}])
def test_another_setting_renders_everything_again(
    tmp_path: Path, in_this_process: list[int], change: dict[str, Any]
) -> None:
    settings: dict[str, Any] = {"seed": 1, "context": 0.0}
    first = demo.render_media(_clips(), media_root=tmp_path, **settings)
    before = _content(tmp_path)
    (tmp_path / "test" / "notes.txt").write_text("kept")

    second = demo.render_media(_clips(2), media_root=tmp_path, **(settings | change))

    after = _content(tmp_path)
    assert first != second
    # A clip that is no longer listed is removed, so that a later call cannot mistake it for one of the new version.
    assert sorted(after) == sorted({*before, "test/notes.txt"} - {"test/test-00001.mp4"})
    assert after["test/test-00000.mp4"] != before["test/test-00000.mp4"]


def test_a_full_disk_is_a_clear_error(
    tmp_path: Path, in_this_process: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(demo, "write_bytes", full)
    with pytest.raises(RenderError, match=r"test-00000\.mp4: .*No space left on device"):
        demo.render_media(_clips(), media_root=tmp_path, seed=0, context=0.0)


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RenderError, match=r"file/media: cannot write .*media_root"):
        demo.render_media(_clips(), media_root=tmp_path / "file" / "media", seed=0, context=0.0)


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    with (
        locked(tmp_path / "media", RenderError),
        pytest.raises(RenderError, match=r"media: another process"),
    ):
        demo.render_media(_clips(), media_root=tmp_path / "media", seed=0, context=0.0)
    assert not (tmp_path / "media").exists()


def test_a_suffix_that_cannot_be_rendered_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(RenderError, match=r"test/a\.avi: .*'avi'.*mp4"):
        demo.render_media([Clip("a", video="test/a.avi")], media_root=tmp_path, seed=0, context=0.0)
    assert not list(tmp_path.iterdir())


# Lists


def test_the_committed_lists_match_the_seed(tmp_path: Path) -> None:
    demo.write_manifest(tmp_path, seed=0, train=80, validation=40, test=80)

    assert (tmp_path / "dataset.yaml").read_text() == (COMMITTED / "dataset.yaml").read_text()
    for path in tmp_path.glob("*.csv"):
        written, committed = path.read_text().splitlines(), (COMMITTED / path.name).read_text().splitlines()
        assert len(written) > 40
        assert written == committed[: len(written)]
    for split, count in (("train", 3000), ("validation", 500), ("test", 1000)):
        assert len(read_clips(COMMITTED / f"{split}.csv")) == count


def test_lists_and_card_can_be_read_back(tmp_path: Path) -> None:
    demo.write_manifest(tmp_path, seed=4, train=40, validation=0, test=40, context=0.3, title='A "small": one')

    card = load_card(tmp_path)
    train, test = read_clips(tmp_path / "train.csv"), read_clips(tmp_path / "test.csv")
    boxes = read_boxes(tmp_path / "test_boxes.csv")

    assert card.title == 'A "small": one'
    assert card.render is not None
    assert (card.render.seed, card.render.context) == (4, 0.3)
    assert (card.audio.n_mels, card.audio.n_frames) == (64, 101)
    assert not (tmp_path / "validation.csv").exists()
    assert not find_leaks(train, test)
    for clip in test:
        own = [box for box in boxes if box.clip_id == clip.clip_id]
        assert [box.source for box in own if box.sounding] == [clip.label]
        assert all(box.source != clip.label for box in own if not box.sounding)
        assert len(own) >= 2
