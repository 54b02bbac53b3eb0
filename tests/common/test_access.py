"""A file that cannot be opened right now is not a damaged file, whichever reader meets it."""

import errno
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.common.access import access_errno, may_pass, raise_if_access_error
from pipeline.common.errors import AccessError, MediaError
from pipeline.common.hdf5 import open_file
from pipeline.common.record import read_record, write_record
from pipeline.media.clip import read_frame, read_still
from pipeline.media.readable import raise_if_unreadable
from pipeline.model.pretrained import load_tensors
from pipeline.pseudo_labels.artifact import PseudoLabels, write_pseudo_labels
from pipeline.scoring.map_file import ResponseMaps, read_maps, write_maps
from tests.support.media_files import numbered_frame, steady, write_media
from tests.support.open_files import limited_files


def write_labels(path: Path) -> None:
    attrs = {"epoch": 0, "stage": "train", "objective": "iterative", "delta_v": 0.5, "delta_a": 0.9}
    attrs |= {"temperature": 0.3, "fingerprint": "", "shards": ""}
    response = np.arange(32, dtype=np.float32).reshape(2, 4, 4)
    write_pseudo_labels(path, PseudoLabels.from_responses(["a", "b"], response, np.eye(2, dtype=np.float32), **attrs))


def write_response_maps(path: Path) -> None:
    maps = np.zeros((2, 4, 4), dtype=np.float32)
    write_maps(path, ResponseMaps(["a", "b"], maps, maps, ["b", "a"], split="test", seed=0, shards=""))


def write_image(path: Path) -> None:
    Image.fromarray(numbered_frame(5)).save(path)


def write_video(path: Path) -> None:
    write_media(path, times=steady(1, 10), frames=[numbered_frame(i) for i in range(10)])


READERS: dict[str, tuple[Callable[[Path], object], Callable[[Path], object]]] = {
    "labels.h5": (write_labels, PseudoLabels.open),
    "maps.h5": (write_response_maps, read_maps),
    "model.pt": (lambda path: torch.save({"a": torch.zeros(2)}, path), lambda path: load_tensors(path, advice="")),
    "image.png": (write_image, read_still),
    "video.mp4": (write_video, lambda path: read_frame(path, centre_s=0.5, image_size=64, time_limit_s=60)),
}


@pytest.mark.parametrize("name", READERS)
def test_no_reader_calls_a_file_damaged_at_the_limit_of_open_files(tmp_path: Path, name: str) -> None:
    write, read = READERS[name]
    write(tmp_path / name)
    read(tmp_path / name)  # imports what it needs
    with limited_files(0), pytest.raises(AccessError, match=rf"{name}: cannot be read \(Too many open files\)"):
        read(tmp_path / name)
    read(tmp_path / name)


def test_a_record_that_cannot_be_opened_is_not_a_missing_one(tmp_path: Path) -> None:
    write_record(tmp_path, code="1")
    with limited_files(0), pytest.raises(AccessError):
        read_record(tmp_path)
    assert read_record(tmp_path)["code"] == "1"
    assert read_record(tmp_path / "none") == {}


@pytest.mark.parametrize(
    "number", [errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EIO, errno.ESTALE, errno.ENETUNREACH]
)
def test_error_numbers_of_the_system_and_in_the_text_of_hdf5(number: int) -> None:
    in_text = RuntimeError(
        f"Can't synchronously read data (file read failed: time = Sat, errno = {number}, error message = 'x')"
    )
    assert access_errno(OSError(number, "x")) == access_errno(in_text) == number
    with pytest.raises(AccessError, match=r"a\.h5"):
        raise_if_access_error(Path("a.h5"), in_text)


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOENT, "x"), OSError("truncated file"), KeyError("frame"), OSError(errno.ENOSPC, "x")]
)
def test_other_errors_are_left_to_the_reader(error: Exception) -> None:
    assert access_errno(error) is None
    raise_if_access_error(Path("a.h5"), error)


def test_what_may_pass_is_an_error_of_access() -> None:
    """A file that is retried is never called missing or damaged."""
    numbers = [number for number in errno.errorcode if may_pass(OSError(number, "x"))]
    assert errno.ECONNRESET in numbers
    assert [access_errno(OSError(number, "x")) for number in numbers] == numbers


def test_a_truncated_hdf5_file_is_damage(tmp_path: Path) -> None:
    write_labels(tmp_path / "a.h5")
    (tmp_path / "a.h5").write_bytes((tmp_path / "a.h5").read_bytes()[:1000])
    with pytest.raises(OSError) as caught:
        open_file(tmp_path / "a.h5")
    assert access_errno(caught.value) is None


def test_media_without_permission_are_left_out_for_the_true_reason(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="Permission denied") as caught:
        raise_if_unreadable(tmp_path / "a.mp4", PermissionError(errno.EACCES, "x"))
    assert "damaged" not in str(caught.value)


def test_an_input_output_error_for_content_that_can_be_read_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"truncated")
    raise_if_unreadable(path, OSError(errno.EIO, "x"))
    path.unlink()
    with pytest.raises(MediaError, match="Input/output error"):
        raise_if_unreadable(path, OSError(errno.EIO, "x"))
