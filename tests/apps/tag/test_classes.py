"""Names of a classifier's classes, and groups of them."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.apps.tag.classes import ClassList, Groups, read_class_names, read_groups
from pipeline.apps.tag.frames import imagenet_classes
from pipeline.common.errors import TaggingError
from tests.support.projects import ROOT

ANIMALS = ClassList.of(["Cat", "crane", "Dog", "crane"], ["n1", "n2", "n3", "n4"])
SOUNDS = ClassList.of(["Bark", "Purr", "Engine"])


def groups_file(tmp_path, *rows):
    path = tmp_path / "groups.csv"
    path.write_text("side,class,group\n" + "".join(f"{row}\n" for row in rows))
    return path


class TestNames:
    def test_repeated_names_are_told_apart(self):
        assert ANIMALS.names == ("Cat", "crane (n2)", "Dog", "crane (n4)")
        assert ClassList.of(["a", "a"]).names == ("a (0)", "a (1)")

    def test_one_name_per_line(self, tmp_path):
        path = tmp_path / "labels.txt"
        path.write_text("Bark\n\nChirp, tweet\n")
        assert read_class_names(path).names == ("Bark", "Chirp, tweet")

    def test_the_list_of_audioset(self, tmp_path):
        path = tmp_path / "class_labels_indices.csv"
        path.write_text('index,mid,display_name\n0,/m/09x0r,"Speech"\n1,/m/05zppz,"Male speech, man speaking"\n')
        found = read_class_names(path)
        assert found.names == ("Speech", "Male speech, man speaking")
        assert found.aliases[1] == ("Male speech, man speaking", "/m/05zppz")

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("a.csv", "index,mid\n0,x\n", "display_name"),
            ("a.csv", "name\n", "no rows"),
            ("a.csv", "index,name\n1,x\n", "'1'"),
            ("a.csv", "index,name\n0,\n", "row 0"),
            ("a.txt", "\n", "no names"),
        ],
    )
    def test_an_unusable_list_is_named(self, tmp_path, name, content, message):
        (tmp_path / name).write_text(content)
        with pytest.raises(TaggingError, match=message) as caught:
            read_class_names(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)


class TestGroups:
    def test_numbers_ranges_and_names(self, tmp_path):
        path = groups_file(tmp_path, "seen,0-1,small", "seen,DOG,big", "seen,n4,big", "heard,Purr,small", "heard,0,big")
        found = read_groups(path, {"seen": ANIMALS, "heard": SOUNDS})
        assert found == {
            "seen": Groups(("big", "small"), ((2, 3), (0, 1))),
            "heard": Groups(("big", "small"), ((0,), (1,))),
        }

    def test_rows_of_a_side_without_a_classifier_are_ignored(self, tmp_path):
        path = groups_file(tmp_path, "seen,Dog,big", "heard,whatever,other")
        assert read_groups(path, {"seen": ANIMALS}) == {"seen": Groups(("big",), ((2,),))}

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            (["smelt,Dog,big"], "row 2.*'smelt'"),
            (["seen,Dogg,big"], "row 2.*'Dogg'.*dog"),
            (["seen,crane,big"], "several classes: 1, 3"),
            (["seen,3-4,big"], "'3-4'.*0 to 3"),
            (["seen,2-1,big"], "'2-1'"),
            (["seen,Dog,"], "row 2.*''"),
            (["seen,Dog,a:b"], "'a:b'"),
            (["seen,Dog,big", "seen,2,small"], r"class 2 \(Dog\).*big and small"),
            (["heard,Bark,big"], "side seen: no rows"),
            (["seen,Dog,big", "heard,Bark,loud"], "'big'.*one side"),
        ],
    )
    def test_an_unusable_file_is_named(self, tmp_path, rows, message):
        path = groups_file(tmp_path, *rows)
        with pytest.raises(TaggingError, match=message) as caught:
            read_groups(path, {"seen": ANIMALS, "heard": SOUNDS})
        assert str(path) in str(caught.value)

    def test_columns_are_checked(self, tmp_path):
        path = tmp_path / "groups.csv"
        path.write_text("class,group\nDog,big\n")
        with pytest.raises(TaggingError, match="side, class, group"):
            read_groups(path, {"seen": ANIMALS})

    def test_exclusive_classes_are_summed_and_of_tags_the_largest_counts(self):
        groups = Groups(("a", "b"), ((0, 2), (1,)))
        values = np.float32([[0.5, 0.1, 0.4], [0.0, 1.0, 0.0]])
        np.testing.assert_allclose(groups.collect(values, exclusive=True), [[0.9, 0.1], [0, 1]], rtol=1e-6)
        np.testing.assert_allclose(groups.collect(values, exclusive=False), [[0.5, 0.1], [0, 1]], rtol=1e-6)

    def test_each_class_is_its_own_group_in_alphabetical_order(self):
        groups = Groups.each_class(SOUNDS)
        assert groups.names == ("Bark", "Engine", "Purr")
        np.testing.assert_array_equal(groups.collect(np.arange(3) / 4, exclusive=False), [0, 0.5, 0.25])


def test_the_committed_groups_fit_imagenet_and_the_class_map_of_mosaics():
    """Every WordNet id that a mosaic's photographs have is in the group of its class."""
    import yaml

    classes = imagenet_classes("imagenet-1k")
    groups = read_groups(ROOT / "data_manifests/mosaic_groups.csv", {"seen": classes})["seen"]
    group_of = {
        classes.aliases[number][0]: name for name, of in zip(*vars(groups).values(), strict=True) for number in of
    }
    mosaics = yaml.safe_load((ROOT / "data_manifests/mosaic_classes.yaml").read_text())
    known = {aliases[0] for aliases in classes.aliases}
    wanted = {wnid: name for name, entry in mosaics.items() for wnid in entry["tiny_imagenet"] if wnid in known}
    assert len(wanted) > 20
    assert {wnid: group_of.get(wnid) for wnid in wanted} == wanted
    assert set(groups.names) == set(mosaics)
