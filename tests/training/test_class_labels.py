"""Class labels of training clips, from the clip list and from a label file."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from pipeline.common.errors import ManifestError
from pipeline.training.class_labels import read_clip_classes, read_label_sets

HEADER = "split,clip_id,video,frame,audio,centre_s,label\n"


def clip_list(tmp_path, *rows):
    path = tmp_path / "clips.csv"
    path.write_text(HEADER + "".join(f"{split},{clip},{clip}.mp4,,,,{label}\n" for split, clip, label in rows))
    return path


def both_sides(targets):
    """The targets of one classifier, for frame and audio."""
    return np.stack([np.float32(targets)] * 2, axis=1)


def test_the_clip_lists_labels_in_the_requested_order(tmp_path):
    path = clip_list(tmp_path, ("train", "a", "drum"), ("train", "b", "bell + drum"), ("test", "c", "gong"))
    found = read_clip_classes(path, "train", ["b", "a"], label_file=None)
    assert found.names == ("bell", "drum")
    np.testing.assert_array_equal(found.targets, both_sides([[1, 1], [0, 1]]))


def test_a_label_file_of_names(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("\ufeffclip_id,label\r\na,drum\r\nother,flute\r\nb,bell+drum\r\n", encoding="utf-8", newline="")
    found = read_clip_classes(tmp_path / "none.csv", "train", ["a", "b"], label_file=path)
    assert found.names == ("bell", "drum")
    np.testing.assert_array_equal(found.targets, both_sides([[0, 1], [1, 1]]))


def test_a_label_file_of_probabilities(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("clip_id,drum,bell\na,0.25,1\n")
    found = read_clip_classes(tmp_path / "none.csv", "train", ["a"], label_file=path)
    assert found.names == ("bell", "drum")
    np.testing.assert_array_equal(found.targets, both_sides([[1, 0.25]]))


def test_a_label_file_with_two_targets(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("clip_id,heard:drum,seen:drum,seen:bell,heard:bell\na,0.1,0.2,0.3,0.4\nb,,1,0,\n")
    found = read_clip_classes(tmp_path / "none.csv", "train", ["b", "a"], label_file=path)
    assert found.names == ("bell", "drum")
    # The audio of b is unknown.
    expected = np.float32([[[0, 1], [np.nan, np.nan]], [[0.3, 0.2], [0.4, 0.1]]])
    np.testing.assert_array_equal(found.targets, expected)


def test_a_large_label_file_is_never_entirely_in_memory(tmp_path):
    rng = np.random.default_rng(0)
    names = [f"tag {i:02d}" for i in rng.permutation(20)]
    values = rng.integers(0, 1001, size=(20_000, 20)) / 1000
    path = tmp_path / "labels.csv"
    with path.open("w") as file:
        file.write(",".join(["clip_id", *names]) + "\n")
        file.writelines(f"clip-{i}," + ",".join(map(str, row)) + "\n" for i, row in enumerate(values))
    wanted = [19_999, 3, 7_777]
    tracemalloc.start()
    found = read_clip_classes(tmp_path / "none.csv", "train", [f"clip-{i}" for i in wanted], label_file=path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.names == tuple(sorted(names))
    np.testing.assert_array_equal(found.targets, both_sides(values[wanted][:, np.argsort(names)]))
    assert found.targets.dtype == np.float32
    # All cells as Python strings would take 20 MB.
    assert peak < 1e6


def test_clips_without_a_label_are_counted_and_named(tmp_path):
    path = clip_list(tmp_path, ("train", "a", "drum"), ("train", "b", ""), ("train", "c", "+"))
    with pytest.raises(ManifestError, match=r"2 of 3 .*'b'.*`label_file`"):
        read_clip_classes(path, "train", ["a", "b", "c"], label_file=None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", ":1:.*clip_id"),
        ("name,label\na,x\n", ":1:.*clip_id"),
        ("clip_id,x,x\na,1,1\n", ":1:.*clip_id"),
        ("clip_id,label\na\n", ":2: 1 .* 2$"),
        ("clip_id,label\na,x\na,y\n", ":3: .*'a'"),
        ("clip_id,x,y\na,1,1.5\n", ":2: y .*'1.5'"),
        ("clip_id,x,y\na,1,nan\n", ":2: y .*'nan'"),
        ("clip_id,label\nb,x\n", "1 of 1 .*'a'"),
        ("clip_id,x,y\nb,0,0\n", "1 of 1 .*'a'"),
        ("clip_id,x,y\na,,\n", ":2: x .*''"),
        ("clip_id,seen:x,heard:y\na,0,0\n", ":1: 'heard:x' is missing"),
        ("clip_id,seen:x,heard:x,y\na,0,0,0\n", ":1: .*'y'"),
        ("clip_id,seen:x,heard:x\na,,\n", "1 of 1 .*'a'"),
        ("clip_id,seen:x,seen:y,heard:x,heard:y\na,,0.5,1,0\n", ":2: seen:x .*''"),
    ],
)
def test_a_wrong_label_file_is_named(tmp_path, content, message):
    path = tmp_path / "labels.csv"
    path.write_text(content)
    with pytest.raises(ManifestError, match=message) as caught:
        read_clip_classes(tmp_path / "none.csv", "train", ["a"], label_file=path)
    assert str(path) in str(caught.value)


def test_a_missing_label_file(tmp_path):
    with pytest.raises(ManifestError, match=r"labels\.csv.*`label_file`"):
        read_clip_classes(tmp_path / "none.csv", "train", ["a"], label_file=tmp_path / "labels.csv")


def test_the_label_set_of_a_clip_without_a_label_is_empty(tmp_path):
    path = clip_list(
        tmp_path, ("train", "a", "drum"), ("train", "b", ""), ("train", "c", "bell+drum"), ("test", "d", "x")
    )
    found = read_label_sets(path, "train", ["c", "b", "a", "d"])
    assert found == [{"bell", "drum"}, set(), {"drum"}, set()]


def test_a_missing_clip_list_names_the_stage(tmp_path):
    with pytest.raises(ManifestError, match=r"clips\.csv.*`dvc repro prepare`"):
        read_label_sets(tmp_path / "clips.csv", "train", ["a"])
