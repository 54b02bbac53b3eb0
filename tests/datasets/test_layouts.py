import pytest

from pipeline.common.errors import ManifestError
from pipeline.datasets.importers.layouts import FLAT, Layout, MediaFinder, detect_layout, find_clips, usable_clips
from pipeline.datasets.importers.report import ImportReport
from pipeline.manifests.clips import Clip
from tests.support.importing import write_files

BY_DIGIT = Layout("official", frames="Data/{last}", audio="Data/{last}", videos="Data/{last}")
VIDEO = Layout("video", videos="video")


def test_the_layout_is_detected_from_its_folders(tmp_path):
    write_files(tmp_path, ["Data/0/10.jpg"])
    assert detect_layout(tmp_path, [BY_DIGIT, FLAT]) == BY_DIGIT
    write_files(tmp_path, ["frames/10.jpg"])
    assert detect_layout(tmp_path, [BY_DIGIT, FLAT]) == BY_DIGIT  # flat needs audio/ as well
    write_files(tmp_path, ["audio/10.wav"])
    with pytest.raises(ManifestError, match="2 layouts"):
        detect_layout(tmp_path, [BY_DIGIT, FLAT])
    assert detect_layout(tmp_path, [BY_DIGIT, FLAT], "flat") == FLAT
    with pytest.raises(ManifestError, match=r"'round'.*video/<id>.mp4.*flat"):
        detect_layout(tmp_path, [VIDEO, FLAT], "round")


def test_a_frame_with_audio_is_preferred_to_a_video(tmp_path):
    write_files(tmp_path, ["Data/0/10.jpg", "Data/0/10.WAV", "Data/0/10.mp4", "Data/1/21.mp4", "Data/1/21.jpg"])
    finder = MediaFinder(tmp_path, BY_DIGIT)
    assert finder.find("10") == Clip("10", frame="Data/0/10.jpg", audio="Data/0/10.WAV")
    assert finder.find("21", centre_s=5.0, label="dog") == Clip("21", video="Data/1/21.mp4", centre_s=5.0, label="dog")


def test_ids_are_matched_whole_and_dots_belong_to_them(tmp_path):
    write_files(tmp_path, ["video/a.b.mp4", "video/ab.mp4", "video/a.b.txt"])
    finder = MediaFinder(tmp_path, VIDEO)
    assert finder.find("a.b") == Clip("a.b", video="video/a.b.mp4")
    assert finder.find("a") == "no media"


def test_why_clips_are_left_out(tmp_path):
    write_files(
        tmp_path, ["frames/1.jpg", "audio/2.wav", "frames/3.jpg", "frames/3.png", "audio/3.wav", "frames/5.jpg"]
    )
    write_files(tmp_path, ["audio/4.wav", "frames/4.jpg", "audio/6.wav"])
    write_files(tmp_path, ["audio/5.wav"], b"")
    (tmp_path / "frames/6.jpg").mkdir()
    report = ImportReport("x")
    found = find_clips(MediaFinder(tmp_path, FLAT), ["0", "1", "2", "3", "4", "5", "6"], "train", report)
    assert [clip.clip_id for clip in found] == ["4"]
    assert report.left_out["train"] == {
        "0": "no media",
        "1": "frame without audio",
        "2": "audio without a frame",
        "3": "several frames with this id",
        "5": "empty file",
        "6": "not a regular file",
    }


def test_clips_that_name_their_files(tmp_path):
    write_files(tmp_path, ["a.mp4"])
    report = ImportReport("x")
    clips = [Clip("a", video="a.mp4"), Clip("b", video="b.mp4"), Clip("c", frame="a.mp4", audio="c.wav")]
    assert usable_clips(clips, "test", tmp_path, report) == clips[:1]
    assert report.left_out == {"test": {"b": "no media", "c": "no media"}}
