import math
import re

import pytest

from pipeline.common.errors import ManifestError
from pipeline.datasets.importers.box_checks import BoxFault, box_faults, refuse_other_schema
from pipeline.datasets.importers.lists import bare_id, checked_id, drawn, ranked, read_ids, read_json

IDS = ["10", "21", "32"]


@pytest.mark.parametrize(
    "content",
    [
        b"10\n21\n32\n",
        b"10\r\n21\r\n32\r\n",
        b"\xef\xbb\xbf10\r\n\r\n21\r\n32",
        b"10,202\n21,0\n32,9\n",
        b"clip_id\n10\n21\n32\n",
        b"10.wav\n./Dataset/Data/1/21.jpg\n..\\media\\32.mp4\n",
        b" 10 \n21\t\n 32\n",
    ],
    ids=["lf", "crlf", "bom", "second column", "header", "paths", "spaces"],
)
def test_id_lists_of_every_public_form_give_the_same_ids(tmp_path, content):
    path = tmp_path / "list.txt"
    path.write_bytes(content)
    assert read_ids(path).ids == IDS


def test_repeated_ids_are_used_once_and_named(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("a\nb\na\nc\nb\na\n")
    listed = read_ids(path)
    assert listed.ids == ["a", "b", "c"]
    assert listed.repeated == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("10\nab c\n", r"list.txt:2: .*'ab c'"),
        ("10\nx21\n", r"list.txt:2: .*'x21'"),
        ("video,audio,label\n10,10,silent\n", r"list.txt:2: .*3 columns"),
        ("\n\n", "list.txt: .*no ids"),
    ],
)
def test_a_malformed_list_is_refused_with_its_line(tmp_path, content, message):
    path = tmp_path / "list.txt"
    path.write_text(content)
    with pytest.raises(ManifestError, match=message):
        read_ids(path, pattern=re.compile(r"\d+"))


def test_unreadable_files_are_named(tmp_path):
    (tmp_path / "utf16.txt").write_bytes("10\n".encode("utf-16"))
    (tmp_path / "half.json").write_text('[{"file":\n')
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(ManifestError, match=r"none.txt: no such file"):
        read_ids(tmp_path / "none.txt")
    with pytest.raises(ManifestError, match=f"{tmp_path.name}: .*folder"):
        read_ids(tmp_path)
    with pytest.raises(ManifestError, match=r"utf16.txt: .*UTF-8"):
        read_ids(tmp_path / "utf16.txt")
    with pytest.raises(ManifestError, match=r"half.json:2: .*JSON"):
        read_json(tmp_path / "half.json")
    with pytest.raises(ManifestError, match=r"deep.json: .*nested"):
        read_json(tmp_path / "deep.json")


def test_only_media_suffixes_are_stripped():
    assert bare_id("a/b/clip.v2.JPG") == "clip.v2"
    assert bare_id("clip.v2") == "clip.v2"


@pytest.mark.parametrize("clip_id", ["", ".", "..", "a/b", "ä", "a b", "x" * 129])
def test_an_id_must_be_a_slug(clip_id):
    with pytest.raises(ManifestError, match=f"here:7: .*{re.escape(repr(clip_id))}"):
        checked_id(clip_id, "here:7", pattern=re.compile(".*"))


@pytest.mark.parametrize(
    ("box", "faults"),
    [
        ([0, 0, 1, 1], []),
        ([0.2, 0.3, 0.4, 0.31], []),
        ([0.4, 0.3, 0.2, 0.5], ["width <= 0"]),
        ([0.2, 0.5, 0.4, 0.5], ["height <= 0"]),
        ([0.2, 0.2, 0.2, 0.2], ["width <= 0", "height <= 0"]),
        ([0.2, 0.2, -2.88e16, -2.88e16], ["corrupt coordinate"] * 2 + ["width <= 0", "height <= 0"]),
        ([0.2, 0.2, math.inf, 0.4], ["corrupt coordinate"]),
        ([0.2, math.nan, 0.4, 0.4], ["corrupt coordinate"]),
        ([0.2, 0.2, 10**400, 0.4], ["corrupt coordinate"]),
        ([0.2, 0.2, 0.4, -(10**400)], ["corrupt coordinate", "height <= 0"]),
        ([0.2, 0.2, 1.1, 0.4], ["outside the frame"]),
        ([-0.1, 0.2, 0.3, 0.4], ["outside the frame"]),
        ([0.2, 0.2, 0.4], ["not four numbers"]),
        ([0.2, 0.2, 0.4, "0.4"], ["not four numbers"]),
        ([0, 0, True, 1], ["not four numbers"]),
    ],
)
def test_all_faults_of_a_box_are_listed(box, faults):
    assert box_faults(box, low=0, high=1) == faults


def test_the_range_is_that_of_the_file():
    assert box_faults([1, 1, 256, 256], low=1, high=256) == []
    assert box_faults([0, 1, 256, 256], low=1, high=256) == ["outside the frame"]


def test_sizes_read_as_corners_are_refused_for_the_whole_file(tmp_path):
    sizes = [[0.1 + 0.05 * i, 0.5, 0.2, 0.3] for i in range(12)]
    faults = [
        BoxFault(f"clip{i}", tuple(map(str, box)), tuple(box_faults(box, low=0, high=1))) for i, box in enumerate(sizes)
    ]
    with pytest.raises(ManifestError, match=r"boxes\.json: 12 of 12 .*'height <= 0'.*clip0.*\[x, y, width, height\]"):
        refuse_other_schema(faults, 12, tmp_path / "boxes.json")


def test_pixels_read_as_fractions_are_refused_for_the_whole_file(tmp_path):
    faults = [BoxFault(f"clip{i}", ("10", "20", "30", "40"), ("outside the frame",)) for i in range(5)]
    with pytest.raises(ManifestError, match=r"boxes.json: 5 of 5 .*another unit"):
        refuse_other_schema(faults, 5, tmp_path / "boxes.json")


def test_a_few_faulty_boxes_do_not_reject_the_file(tmp_path):
    faults = [BoxFault(f"clip{i}", ("1", "0", "1", "1"), ("width <= 0",)) for i in range(18)]
    for few, n_boxes in ((faults, 5941), (faults[:4], 4)):
        assert refuse_other_schema(few, n_boxes, tmp_path / "boxes.json") is None


def test_smaller_draws_are_subsets_and_do_not_depend_on_missing_clips():
    ids = [str(i) for i in range(200)]
    small, large = drawn(ids, 20, 7), drawn(ids, 60, 7)
    assert len(small) == 20
    assert set(small) < set(large)
    assert small == sorted(small, key=ids.index)
    assert drawn(ids, 20, 8) != small
    without = [clip_id for clip_id in ids if clip_id != small[0]]
    assert set(small[1:]) < set(drawn(without, 20, 7))
    assert drawn(ids, None, 7) == ids


def test_a_draw_is_about_uniform():
    ids = [str(i) for i in range(1000)]
    first_half = sum(clip_id in set(ids[:500]) for clip_id in ranked(ids, 3)[:300])
    assert 115 < first_half < 185  # 150 ± 4 standard deviations


def test_a_draw_larger_than_the_list_is_an_error():
    with pytest.raises(ManifestError, match=r"4 clips.*only 3"):
        drawn(IDS, 4, 0)
