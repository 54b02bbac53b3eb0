import os

import pytest

from pipeline.common.config import load_card
from pipeline.common.errors import ManifestError
from pipeline.datasets.importers.folder import found_videos, import_folder, slug
from pipeline.datasets.importers.report import ImportReport
from pipeline.manifests.boxes import Box, read_boxes, write_boxes
from pipeline.manifests.clips import Clip, read_clips, write_clips
from tests.support.importing import make_project, options, write_files, write_lines, write_video


@pytest.fixture
def project(tmp_path):
    return make_project(tmp_path / "project")


@pytest.fixture
def media(tmp_path):
    folder = tmp_path / "my videos"
    for name in ("a.mkv", "b.mkv", "trip/My dog (1).mkv", "trip/c.mkv", "d.mkv"):
        write_video(folder / name)
    return folder


IDS = {"a", "b", "d", "trip--My_dog__1_", "trip--c"}


def run(project, media, *, name="own", changes=None, **rest):
    return import_folder(options(project, name, media, **(changes or {})), **rest)


def ids(project, split, name="own"):
    path = project / "data_manifests" / name / f"{split}.csv"
    return {clip.clip_id for clip in read_clips(path)} if path.exists() else set()


def box(clip_id):
    return Box(clip_id, "dog", "1", True, 0.1, 0.1, 0.5, 0.5)


def test_all_videos_are_found_and_split_once(project, media):
    report = run(project, media, test_share=0.4)
    assert load_card(project / "data_manifests/own").evaluation.protocol == "paper256"
    assert ids(project, "train") | ids(project, "test") == IDS
    assert not ids(project, "train") & ids(project, "test")
    assert len(ids(project, "test")) == 2
    assert any("no boxes" in note for note in report.notes)


def test_the_split_is_seeded_and_stable_when_a_video_is_removed(project, media):
    run(project, media, test_share=0.4, seed=3)
    test = ids(project, "test")
    run(project, media, test_share=0.4, seed=3, changes={"force": True})
    assert ids(project, "test") == test
    gone = sorted(ids(project, "train"))[0]
    (media / next(c.video for c in found_videos(media, ImportReport("x")) if c.clip_id == gone)).unlink()
    run(project, media, test_share=0.5, seed=3, changes={"force": True})
    assert ids(project, "test") == test
    splits = set()
    for seed in range(6):
        run(project, media, test_share=0.5, seed=seed, changes={"force": True})
        splits.add(frozenset(ids(project, "test")))
    assert len(splits) > 1


def test_unusable_videos_are_reported(project, media):
    write_video(media / "mute.mkv", sound=False)
    write_video(media / "dark.mkv", frames=False)
    write_files(media, ["noise.mp4"], b"this is no video" * 20)
    write_files(media, ["empty.mp4"], b"")
    write_files(media, ["notes.txt", "cover.jpg", ".hidden/x.mp4", "._a.mkv"])
    report = run(project, media)
    assert report.left_out == {
        "folder": {
            "mute": "has no audio stream",
            "dark": "has no video stream",
            "noise": "cannot be opened as a media file",
            "empty": "empty file",
        }
    }
    assert report.listed == {"folder": 9}
    assert ids(project, "train") | ids(project, "test") == IDS
    assert any(note.startswith("2 files") for note in report.notes)


def test_a_name_that_is_not_utf8_is_left_out(project, media):
    (media / "a.mkv").rename(os.path.join(os.fsencode(media), b"caf\xe9.mkv").decode("utf-8", "surrogateescape"))
    (media / "d.mkv").rename(media / "café.mkv")
    report = run(project, media)
    (reason,) = report.left_out["folder"].values()
    assert "UTF-8" in reason
    assert ids(project, "train") | ids(project, "test") == IDS - {"a", "d"} | {"cafe"}


def test_a_video_is_also_recognized_by_its_content(project, media):
    (media / "a.mkv").rename(media / "a.bin")
    run(project, media)
    assert "a" in ids(project, "train") | ids(project, "test")


def test_two_files_with_the_same_id_are_refused(project, media):
    write_video(media / "a.avi")
    with pytest.raises(ManifestError, match=r"'a.avi' and 'a.mkv'.* 'a';"):
        run(project, media)
    assert not (project / "data_manifests").exists()


@pytest.mark.parametrize(
    ("path", "clip_id"),
    [
        ("a.mp4", "a"),
        ("x/y z/a.b.mp4", "x--y_z--a.b"),
        ("Café.mp4", "Cafe"),
        ("(1).mp4", "_1_"),
    ],
)
def test_slugs(path, clip_id):
    assert slug(path) == clip_id


def test_names_that_are_not_slugs_get_distinct_ids():
    assert slug("猫.mp4") != slug("犬.mp4")
    long = [slug(f"{'x' * 200}{i}.mp4") for i in range(2)]
    assert len({*long, slug(f"{'y' * 1}{'x' * 200}0.mp4")}) == 3
    assert all(len(clip_id) <= 128 for clip_id in long)


def test_a_test_list_of_ids_or_paths(project, media, tmp_path):
    listed = write_lines(tmp_path / "test.txt", ["clip_id", "trip/c.mkv", "a"])
    run(project, media, test_list=listed)
    assert ids(project, "test") == {"trip--c", "a"}
    with pytest.raises(ManifestError, match=r"test.txt:1: 'zebra'"):
        run(project, media, test_list=write_lines(listed, ["zebra"]), name="other")


def test_boxes_choose_the_test_clips(project, media, tmp_path):
    write_boxes(tmp_path / "boxes.csv", [box("a"), box("b"), box("b")])
    run(project, media, boxes=tmp_path / "boxes.csv")
    assert ids(project, "test") == {"a", "b"}
    assert len(read_boxes(project / "data_manifests/own/test_boxes.csv")) == 3


def test_boxes_of_unknown_or_training_clips_are_refused(project, media, tmp_path):
    write_boxes(tmp_path / "boxes.csv", [box("zebra")])
    with pytest.raises(ManifestError, match=r"boxes.csv: .*1 clips.* zebra"):
        run(project, media, boxes=tmp_path / "boxes.csv")
    write_boxes(tmp_path / "boxes.csv", [box("a"), box("b")])
    with pytest.raises(ManifestError, match=r"boxes.csv: .*1 clips.* b$"):
        run(project, media, boxes=tmp_path / "boxes.csv", test_list=write_lines(tmp_path / "t.txt", ["a"]))


def test_boxes_of_unusable_videos_are_ignored(project, media, tmp_path):
    (media / "b.mkv").write_bytes(b"")
    write_boxes(tmp_path / "boxes.csv", [box("a"), box("b")])
    run(project, media, boxes=tmp_path / "boxes.csv")
    assert ids(project, "test") == {"a"}


def test_clips_cut_from_one_video_are_in_the_same_split(project, media, tmp_path):
    clips = [Clip(f"{n}-{i}", video=f"{n}.mkv", centre_s=0.01 * i) for n in "abd" for i in range(4)]
    write_clips(tmp_path / "clips.csv", clips)
    for seed in range(4):
        run(project, media, clip_list=tmp_path / "clips.csv", test_share=0.34, seed=seed, changes={"force": True})
        assert len(ids(project, "test")) == 4
        assert len({clip_id[0] for clip_id in ids(project, "test")}) == 1


def test_a_clip_list_whose_test_clips_share_a_video_with_train_leaks(project, media, tmp_path):
    write_clips(tmp_path / "clips.csv", [Clip("x", video="a.mkv"), Clip("y", video="a.mkv"), Clip("z", video="b.mkv")])
    listed = write_lines(tmp_path / "t.txt", ["x"])
    with pytest.raises(ManifestError, match=r"1 training clips .* y\."):
        run(project, media, clip_list=tmp_path / "clips.csv", test_list=listed)
    run(project, media, clip_list=tmp_path / "clips.csv", test_list=listed, changes={"leaks": "drop"})
    assert (ids(project, "train"), ids(project, "test")) == ({"z"}, {"x"})


def test_frame_and_audio_files_of_a_clip_list(project, media, tmp_path):
    write_files(media, ["f/1.png", "s/1.wav", "f/2.png"])
    clips = [Clip("one", frame="f/1.png", audio="s/1.wav"), Clip("two", frame="f/2.png", audio="s/2.wav")]
    write_clips(tmp_path / "clips.csv", clips)
    report = run(project, media, clip_list=tmp_path / "clips.csv", test_share=0.0)
    assert read_clips(project / "data_manifests/own/train.csv") == clips[:1]
    assert report.left_out == {"folder": {"two": "no media"}}
    assert any("no test clips" in note for note in report.notes)


def test_a_folder_without_videos_is_an_error(project, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ManifestError, match=r"no usable clip in .*empty"):
        run(project, tmp_path / "empty")
    with pytest.raises(ManifestError, match="none: no such folder"):
        run(project, tmp_path / "none")
