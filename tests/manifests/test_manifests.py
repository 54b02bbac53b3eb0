"""Clip lists and boxes: round trip, tolerance on reading, and one clear error for each mistake."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.common.errors import ManifestError
from pipeline.manifests.boxes import Box, read_boxes, write_boxes
from pipeline.manifests.clips import Clip, find_leaks, read_clips, write_clips

CLIP_HEADER = "clip_id,video,frame,audio,centre_s,label"
BOX_HEADER = "clip_id,source,annotator,sounding,x0,y0,x1,y1"
CLIPS = [
    Clip("a", video="v/a b.mp4", centre_s=0.1 + 0.2),
    Clip("b.1-x_", frame="f.png", audio="s.wav", label="bell, big"),
]
BOXES = [Box("a", "bell", "ann", True, 0.1, 0.2, 1 / 3, 1.0), Box("a", "drum", "", False, 0.0, 0.0, 0.5, 0.5)]


def test_lists_come_back_as_written(tmp_path: Path) -> None:
    write_clips(tmp_path / "clips.csv", CLIPS)
    write_boxes(tmp_path / "boxes.csv", BOXES)

    assert read_clips(tmp_path / "clips.csv") == CLIPS
    assert read_boxes(tmp_path / "boxes.csv") == BOXES


@settings(max_examples=50, deadline=None)
@given(center=st.floats(0, 1e9), label=st.text(st.characters(codec="utf-8", exclude_categories=["C"])))
def test_any_center_and_label_come_back(tmp_path_factory: pytest.TempPathFactory, center: float, label: str) -> None:
    path = tmp_path_factory.mktemp("lists") / "clips.csv"
    clip = Clip("a", video="a.mp4", centre_s=center, label=label.strip())

    write_clips(path, [clip])

    assert read_clips(path) == [clip]


def test_bom_crlf_blank_lines_and_column_order_are_tolerated(tmp_path: Path) -> None:
    path = tmp_path / "clips.csv"
    path.write_bytes(b"\xef\xbb\xbflabel,video,frame,audio,centre_s,clip_id\r\nbell, a.mp4 ,,,2.5,a\r\n\r\n")

    assert read_clips(path) == [Clip("a", video="a.mp4", centre_s=2.5, label="bell")]


def test_lists_of_spreadsheet_programs_are_understood(tmp_path: Path) -> None:
    path = tmp_path / "clips.csv"
    path.write_bytes(
        "Clip_ID;video;frame;audio;centre_s;label;\r\na;v\\a b.mp4;;;12,500;bell, big;\r\n;;;;;;\r\n".encode("utf-16")
    )
    assert read_clips(path) == [Clip("a", video="v/a b.mp4", centre_s=12.5, label="bell, big")]

    path.write_text(BOX_HEADER.replace(",", "\t") + "\na\tbell\tann\t1\t0,1\t0,2\t0,5\t1,000\n")
    assert read_boxes(path) == [Box("a", "bell", "ann", True, 0.1, 0.2, 0.5, 1.0)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a/b,a.mp4,,,,", "clip_id 'a/b'"),
        (",a.mp4,,,,", "clip_id ''"),
        ("x" * 129 + ",a.mp4,,,,", "x" * 129),
        ("a,,,,,", "given: none"),
        ("a,a.mp4,a.png,a.wav,,", "given: video, frame, audio"),
        ("a,a.mp4,,a.wav,,", "given: video, audio"),
        ("a,,a.png,,,", "given: frame"),
        ("a,../a.mp4,,,,", "path '../a.mp4' leaves"),
        ("a,,ok/a.png,ok/../../a.wav,,", "path 'ok/../../a.wav' leaves"),
        ("a,/etc/a.mp4,,,,", "'/etc/a.mp4' leaves"),
        ("a,C:/a.mp4,,,,", "'C:/a.mp4' leaves"),
        ("a,C:\\b\\a.mp4,,,,", "'C:/b/a.mp4' leaves"),
        ("a,..\\a.mp4,,,,", "'../a.mp4' leaves"),
        ('a,a.mp4,,,"1,234",', "'1,234', not a number; use a decimal point"),
        ("a,a, b.mp4,,,,", "quote values that contain a comma"),
        ("1.23E+10,a.mp4,,,,", "format the column as text"),
        ("a,a.mp4,,,half,", "centre_s is 'half'"),
        ("a,a.mp4,,,-1,", "centre_s is -1.0"),
        ("a,a.mp4,,,nan,", "centre_s is nan"),
        ("a,a.mp4,,", "4 values"),
        ('a,a.mp4,,,,"bell', "not readable as CSV"),
    ],
)
def test_a_bad_clip_is_named_by_line(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "clips.csv"
    path.write_text(f"{CLIP_HEADER}\ngood,good.mp4,,,,\n{line}\n")

    with pytest.raises(ManifestError) as caught:
        read_clips(path)

    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{path}:3:" if "CSV" not in message else str(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "missing column clip_id, video"),
        (b"clip_id,video,frame,audio,centre_s\n", "missing column label"),
        (CLIP_HEADER.encode() + b",start\n", "unknown column start"),
        (b"clip_id," + CLIP_HEADER.encode() + b"\n", "repeated column clip_id"),
        (CLIP_HEADER.encode() + b"\n", "no clips"),
        (CLIP_HEADER.encode() + b"\na,a.mp4,,,,\xff\n", "not UTF-8"),
    ],
)
def test_a_bad_clip_list_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "clips.csv"
    path.write_bytes(content)

    with pytest.raises(ManifestError, match=message):
        read_clips(path)


def test_a_missing_list_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"clips\.csv: no such file"):
        read_clips(tmp_path / "clips.csv")


def test_a_duplicate_id_names_both_lines(tmp_path: Path) -> None:
    path = tmp_path / "clips.csv"
    path.write_text(f"{CLIP_HEADER}\na,a.mp4,,,,\nb,b.mp4,,,,\na,c.mp4,,,,\n")

    with pytest.raises(ManifestError) as caught:
        read_clips(path)

    assert str(caught.value) == f"{path}:4: clip_id 'a' is already at {path}:2"


@pytest.mark.parametrize(
    ("corners", "message"),
    [
        ("0.1,0.1,nan,0.5", "nan.* not finite"),
        ("10,20,110,120", r"\(10.0, 20.0, 110.0, 120.0\) exceeds"),
        ("-0.1,0.1,0.5,0.5", "-0.1.* exceeds"),
        ("0.5,0.6,0.2,0.3", "xywh"),
        ("0.9,0.9,0.8,0.8", "no area"),
        ("0.7,0.7,0.7,0.9", "no area"),
        ("0.1,0.1,wide,0.5", "x1 is 'wide'"),
    ],
)
def test_a_bad_box_is_named_by_line(tmp_path: Path, corners: str, message: str) -> None:
    path = tmp_path / "boxes.csv"
    path.write_text(f"{BOX_HEADER}\na,bell,me,1,{corners}\n")

    with pytest.raises(ManifestError, match=message) as caught:
        read_boxes(path)

    assert str(caught.value).startswith(f"{path}:2:")


def test_sounding_is_0_or_1(tmp_path: Path) -> None:
    path = tmp_path / "boxes.csv"
    path.write_text(f"{BOX_HEADER}\na,bell,me,yes,0.1,0.1,0.5,0.5\n")

    with pytest.raises(ManifestError, match="sounding is 'yes'"):
        read_boxes(path)


def test_writing_refuses_what_reading_would(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"clip 'a': path '\.\./a\.mp4' leaves"):
        write_clips(tmp_path / "clips.csv", [Clip("a", video="../a.mp4")])
    with pytest.raises(ManifestError, match="already at"):
        write_clips(tmp_path / "clips.csv", [CLIPS[0], CLIPS[0]])
    with pytest.raises(ManifestError, match="clip 'a': box"):
        write_boxes(tmp_path / "boxes.csv", [Box("a", "", "", True, 0.5, 0.5, 0.5, 0.6)])

    assert list(tmp_path.iterdir()) == []


def test_leaks_are_ids_and_files_in_both() -> None:
    train = [Clip("a", video="a.mp4", centre_s=1.0), Clip("b", frame="b.png", audio="b.wav"), Clip("c", video="c.mp4")]
    test = [Clip("c", video="d.mp4"), Clip("e", video="./a.mp4", centre_s=9.0), Clip("f", frame="f.png", audio="b.wav")]

    assert find_leaks(train, test) == [
        "clip_id 'c' is in both",
        "file 'a.mp4' is in both: clip 'a' and clip 'e'",
        "file 'b.wav' is in both: clip 'b' and clip 'f'",
    ]
    assert find_leaks(train, [Clip("g", video="g.mp4"), Clip("a.1", frame="a.png", audio="c.wav")]) == []
