"""Clip ids from paths: readable, distinct, and the same whatever other files there are; and names that lists changed."""

import random
import unicodedata

import pytest

from pipeline.manifests.naming import ID_LENGTH, Names, distinct_ids, slug

NFD = unicodedata.normalize("NFD", "Café.mp4")


@pytest.mark.parametrize(
    ("path", "clip_id"),
    [
        ("a.mp4", "a"),
        ("x/y z/a.b.mp4", "x--y_z--a.b"),
        ("Café.mp4", "Cafe"),
        (NFD, "Cafe"),
        ("(1).mp4", "_1_"),
        ("a", "a"),
    ],
)
def test_slugs(path, clip_id):
    assert slug(path) == clip_id


def test_lost_letters_and_long_paths_keep_distinct_ids():
    assert slug("猫.mp4") != slug("犬.mp4")
    long = [slug(f"{'x' * 200}{i}.mp4") for i in range(2)]
    assert len({*long, slug(f"y{'x' * 200}0.mp4")}) == 3
    assert all(len(clip_id) <= ID_LENGTH for clip_id in long)


def test_one_file_in_two_unicode_forms_has_one_id_on_every_system():
    for name in ("é猫.mp4", "カ゛.mp4"):
        assert slug(unicodedata.normalize("NFC", name)) == slug(unicodedata.normalize("NFD", name))


def test_files_of_one_name_get_their_suffix():
    ids = distinct_ids(["x.mp4", "x.webm", "a/x.mp4", "b/x.mp4", "y.mp4"])
    assert ids == {"x.mp4": "x.mp4", "x.webm": "x.webm", "a/x.mp4": "a--x", "b/x.mp4": "b--x", "y.mp4": "y"}


@pytest.mark.parametrize(
    "twins",
    [
        ["a b.mp4", "a_b.mp4"],
        ["A.mp4", "a.mp4"],
        ["a.MP4", "a.mp4"],
        ["Café.mp4", NFD, "Cafe.mp4"],
        ["a/b.mp4", "a--b.mp4"],
        ["猫.mp4", "猫.webm"],
        ["x.mp4", "x.webm", "x.mp4.avi"],
        ["x.mp4", "x.webm", "x.mp4.avi", "x.mp4.mov"],
        ["x" * 300 + ".mp4", "x" * 300 + ".webm"],
    ],
)
def test_twins_get_distinct_ids_that_do_not_depend_on_order_or_other_files(twins):
    alone = distinct_ids(twins)
    assert len({clip_id.casefold() for clip_id in alone.values()}) == len(twins)
    assert all(0 < len(clip_id) <= ID_LENGTH for clip_id in alone.values())
    others = [*twins, "more.mp4", "zoo/more.mp4", "and one more.mp4"]
    random.Random(0).shuffle(others)
    ids = distinct_ids(others)
    assert {path: ids[path] for path in twins} == alone
    assert list(ids) == others


def test_a_third_twin_changes_no_id():
    two = distinct_ids(["x.mp4", "x.webm"])
    three = distinct_ids(["x.mkv", "x.mp4", "x.webm"])
    assert three == {**two, "x.mkv": "x.mkv"}


def test_ids_of_an_earlier_import_are_kept_but_none_is_made_up():
    assert distinct_ids(["x.mp4", "x.webm"], {"x.mp4": "x"}) == {"x.mp4": "x", "x.webm": "x.webm"}
    assert distinct_ids(["x.mp4"], {"x.mp4": "something", "gone.mp4": "gone"}) == {"x.mp4": "x"}
    earlier = distinct_ids(["A.mp4", "a.mp4"])
    assert distinct_ids(["a.mp4", "b.mp4"], earlier) == {"a.mp4": earlier["a.mp4"], "b.mp4": "b"}


def test_many_files_take_seconds():
    paths = [f"day {i // 2}.{'mp4' if i % 2 else 'webm'}" for i in range(20_000)]
    ids = distinct_ids(paths)
    assert len(set(ids.values())) == len(paths)
    assert Names((path, path) for path in paths).find("DAY 9999.MP4") == ["day 9999.mp4"]


NAMES = Names(
    [("007.mp4", "7"), ("trip/Café.MKV", "cafe"), ("x.mp4", "x1"), ("x.webm", "x2"), ("08", "8"), ("008", "8b")]
)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("007.mp4", ["7"]),
        ("007", ["7"]),
        ("7", ["7"]),
        ("trip\\cafe\u0301.mkv", ["cafe"]),
        (" ./trip/Café ", ["cafe"]),
        ("x.mp4", ["x1"]),
        ("X.WEBM", ["x2"]),
        ("x", ["x1", "x2"]),
        ("8", ["8", "8b"]),
        ("08", ["8"]),
        ("zebra", []),
        ("", []),
    ],
)
def test_what_a_name_means(name, meant):
    assert NAMES.find(name) == meant


def test_a_dot_in_a_name_is_no_suffix():
    names = Names([("walk_1.5.mp4", "walk"), ("walk_1.5", "walk"), ("008.mp4", "8"), ("john.smith.mp4", "john")])
    assert names.find("walk_1.5") == names.find("WALK_1.5.MP4") == ["walk"]
    for unknown in ("walk_1.75", "walk_1", "8.25", "john.doe", "john"):
        assert names.find(unknown) == [], unknown


def test_a_path_must_agree_in_its_suffix():
    assert NAMES.find_path("TRIP\\café.mkv") == ["cafe"]
    assert NAMES.find_path("x.mp4") == ["x1"]
    assert NAMES.find_path("x") == NAMES.find_path("7") == []
