import os
import re
import time

import pytest

from pipeline.common.config import load_card
from pipeline.common.errors import ManifestError
from pipeline.datasets.importers import folder as importer
from pipeline.datasets.importers.folder import found_videos, import_folder
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


def test_files_with_the_same_name_get_distinct_ids_and_one_note(project, media):
    write_video(media / "a.avi")
    write_video(media / "My dog (1).mkv")
    write_video(media / "My_dog [1].mkv")
    report = run(project, media)
    found = ids(project, "train") | ids(project, "test")
    assert {"a.avi", "a.mkv", "b", "trip--My_dog__1_"} <= found
    assert len(found) == len(IDS) + 3
    (note,) = [note for note in report.notes if "same name" in note]
    assert note.startswith("4 files ")
    assert "'a.avi'" in note or "My" in note


def test_a_second_import_keeps_the_values_of_the_card(project, media):
    run(project, media, image_size=384)
    path = project / "data_manifests/own/dataset.yaml"
    path.write_text(path.read_text().replace("clip_seconds: 5.0", "clip_seconds: 1.5").replace("Own videos", "Mine"))
    edited = load_card(path.parent)
    assert (edited.image_size, edited.audio.clip_seconds, edited.title) == (384, 1.5, "Mine")
    run(project, media, test_share=0.6, changes={"force": True})
    assert load_card(path.parent) == edited
    path.write_text("title: [")
    run(project, media, changes={"force": True})
    assert load_card(path.parent).image_size == 256


def test_a_second_import_keeps_the_ids_that_boxes_and_results_refer_to(project, media):
    run(project, media)
    write_video(media / "a.avi")
    run(project, media, changes={"force": True})
    assert ids(project, "train") | ids(project, "test") == IDS | {"a.avi"}
    (project / "data_manifests/own/train.csv").write_bytes(b"\xff damaged")
    run(project, media, changes={"force": True})


def test_names_that_no_list_can_hold_are_left_out(project, media):
    for name in ("back\\slash.mkv", "space.mkv ", "5: test.mkv"):
        (media / name).write_bytes((media / "a.mkv").read_bytes())
    report = run(project, media)
    assert set(report.left_out["folder"].values()) == {
        "its name has a backslash, a space at its start or end, or starts like a drive (5:); rename it"
    }
    assert ids(project, "train") | ids(project, "test") == IDS


def test_names_that_programs_and_systems_have_changed_are_understood(project, media, tmp_path):
    write_video(media / "007.mkv")
    write_video(media / "été" / "Bär, 2.MKV")
    rows = ["clip_id;source;annotator;sounding;x0;y0;x1;y1", "7;dog;me;1;0,25;0,400;0,55;1,000"]
    rows += ["e\u0301te\u0301\\ba\u0308r, 2.mkv;dog;me;1;0;0;1;1", "trip/c.mkv ;dog;me;0;0,1;0,1;0,5;0,5", ";;;;;;;"]
    (tmp_path / "boxes.csv").write_bytes("\r\n".join(rows).encode("utf-16"))
    report = run(project, media, boxes=tmp_path / "boxes.csv")
    assert ids(project, "test") == {"007", "ete--Bar__2", "trip--c"}
    found = read_boxes(project / "data_manifests/own/test_boxes.csv")
    assert found[0] == Box("007", "dog", "me", True, 0.25, 0.4, 0.55, 1.0)
    (note,) = [note for note in report.notes if "written differently" in note]
    assert note == "boxes.csv: 2 names written differently, such as '7' for '007.mkv'"

    listed = write_lines(tmp_path / "test.txt", ["File", "été/Bär, 2.MKV", "7"])
    run(project, media, test_list=listed, name="listed")
    assert ids(project, "test", "listed") == {"007", "ete--Bar__2"}


def test_an_ambiguous_or_spoiled_name_is_named_with_its_line(project, media, tmp_path):
    write_video(media / "a.avi")
    write_video(media / "07.mkv")
    write_video(media / "007.mkv")
    for name, hint in (("a", "'a.avi' or 'a.mkv'"), ("7", "'007.mkv' or '07.mkv'"), ("1,23E+10", "format the column")):
        listed = write_lines(tmp_path / "test.txt", [f'"{name}"'])
        with pytest.raises(ManifestError, match=rf"test\.txt:1: '{re.escape(name)}'.*{re.escape(hint)}"):
            run(project, media, test_list=listed)


def test_paths_of_a_clip_list_may_differ_in_case_form_and_slashes(project, media, tmp_path):
    clips = [Clip("one", video="TRIP/C.MKV"), Clip("two", video="a.mkv")]
    write_clips(tmp_path / "clips.csv", clips)
    text = (tmp_path / "clips.csv").read_text().replace("TRIP/C", "TRIP\\C")
    (tmp_path / "clips.csv").write_text(text)
    report = run(project, media, clip_list=tmp_path / "clips.csv", test_share=0.0)
    assert {c.video for c in read_clips(project / "data_manifests/own/train.csv")} == {"trip/c.mkv", "a.mkv"}
    assert any("'TRIP/C.MKV' for 'trip/c.mkv'" in note for note in report.notes)


@pytest.mark.slow
def test_a_large_folder_takes_seconds(project, tmp_path, monkeypatch):
    names = [f"{i // 500}/clip {i:06d}.mp4" for i in range(100_000)]
    folder = tmp_path / "large"
    folder.mkdir()
    monkeypatch.setattr(importer, "_files", lambda place: (place / name for name in names))
    monkeypatch.setattr(importer, "unusable", lambda clip, place: "")
    monkeypatch.setattr(importer, "_stream_problem", lambda path: "")
    started = time.process_time()
    run(project, folder)
    assert len(ids(project, "train")) == 80_000
    assert time.process_time() - started < 75  # about 7 s; a quadratic step over the clips adds 4 minutes


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
    with pytest.raises(ManifestError, match=r"boxes.csv: .*1 clip .* zebra"):
        run(project, media, boxes=tmp_path / "boxes.csv")
    write_boxes(tmp_path / "boxes.csv", [box("a"), box("b")])
    with pytest.raises(ManifestError, match=r"boxes.csv: .*1 clip .* b$"):
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
    with pytest.raises(ManifestError, match=r"1 training clip .* y\."):
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
