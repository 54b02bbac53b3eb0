import re

import pytest

from pipeline.common.errors import ManifestError
from pipeline.common.reading import read_json
from pipeline.datasets.importers.lists import bare_id, checked_id, drawn, ranked, read_ids

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
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    (tmp_path / "half.json").write_text('[{"file":\n')
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(ManifestError, match=r"none.txt: no such file"):
        read_ids(tmp_path / "none.txt")
    with pytest.raises(ManifestError, match=f"{tmp_path.name}: .*folder"):
        read_ids(tmp_path)
    with pytest.raises(ManifestError, match=r"latin.txt: .*UTF-8"):
        read_ids(tmp_path / "latin.txt")
    with pytest.raises(ManifestError, match=r"half.json:2: .*JSON"):
        read_json(tmp_path / "half.json", ManifestError)
    with pytest.raises(ManifestError, match=r"deep.json: .*nested"):
        read_json(tmp_path / "deep.json", ManifestError)


def test_only_media_suffixes_are_stripped():
    assert bare_id("a/b/clip.v2.JPG") == "clip.v2"
    assert bare_id("clip.v2") == "clip.v2"


@pytest.mark.parametrize("clip_id", ["", ".", "..", "a/b", "ä", "a b", "x" * 129])
def test_an_id_must_be_a_slug(clip_id):
    with pytest.raises(ManifestError, match=f"here:7: .*{re.escape(repr(clip_id))}"):
        checked_id(clip_id, "here:7", pattern=re.compile(".*"))


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
