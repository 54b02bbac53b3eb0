"""Names of datasets that follow from a folder, and videos of the folder that its dataset lacks."""

import pytest

from pipeline.common.errors import ManifestError
from pipeline.datasets.importers.folder import import_folder
from pipeline.datasets.importers.own_folder import dataset_name, unlisted_videos
from tests.support.importing import make_project, options, write_files, write_video


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("street", "street"),
        ("my videos (2)", "my_videos_2"),
        ("-x.y", "x_y"),
        ("Größe", "Groe"),
        ("a" * 80, "a" * 64),
        ("a" * 63 + ". b", "a" * 63),
    ],
)
def test_the_name_of_a_folder(tmp_path, monkeypatch, folder, name):
    (tmp_path / folder).mkdir()
    assert dataset_name(tmp_path / folder) == name
    monkeypatch.chdir(tmp_path / folder)
    assert dataset_name(tmp_path / folder / ".") == name


@pytest.mark.parametrize("folder", ["犬", "…"])
def test_a_folder_without_a_name(tmp_path, folder):
    with pytest.raises(ManifestError, match=f"{folder}: .*--name"):
        dataset_name(tmp_path / folder)


def test_videos_that_are_not_in_the_dataset(tmp_path):
    project, media = make_project(tmp_path / "project"), tmp_path / "media"
    for name in ("a.mkv", "b.mkv", "deep/c.mkv", "d.mkv"):
        write_video(media / name)
    write_video(media / "mute.mkv", sound=False)
    import_folder(options(project, "own", media))
    assert unlisted_videos(project, "own", media) == []
    write_video(media / "deep/a.mkv")
    write_video(media / "a.mp4")
    assert unlisted_videos(project, "own", media) == ["a.mp4", "deep/a.mkv"]
    (project / "data_manifests/own/import_report.json").unlink()
    assert {*unlisted_videos(project, "own", media)} == {"a.mp4", "deep/a.mkv", "mute.mkv"}
    write_files(tmp_path / "elsewhere", ["x.mp4"])
    with pytest.raises(ManifestError, match=r"data_manifests/own: .* in .*elsewhere; .*--name"):
        unlisted_videos(project, "own", tmp_path / "elsewhere")
