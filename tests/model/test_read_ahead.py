"""Reading ahead in threads: in order, not further than allowed, errors when they are due, and the same batches as one thread."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from pipeline.common.config import AugmentationSettings
from pipeline.model.inference import MOST_READERS, READ_AHEAD, read_ahead
from pipeline.training.batches import training_batches
from tests.support.synthetic import CELL, make_world


@pytest.mark.parametrize("n_threads", [1, 2, 5])
def test_results_are_in_order_although_later_items_are_read_first(n_threads):
    def read(item):
        time.sleep(0.02 if item % n_threads == 0 else 0)
        return item**2

    assert list(read_ahead(read, range(30), n_threads=n_threads)) == [item**2 for item in range(30)]


@pytest.mark.parametrize("n_threads", [1, 4])
def test_threads_read_at_once_and_not_far_ahead(n_threads):
    together, lock = threading.Barrier(n_threads, timeout=30), threading.Lock()
    begun: list[int] = []

    def read(item):
        with lock:
            begun.append(item)
        if item < n_threads:
            together.wait()  # breaks unless so many threads read at once
        return item

    results = read_ahead(read, range(100), n_threads=n_threads)
    assert next(results) == 0
    time.sleep(0.05)
    assert len(begun) <= 1 + max(READ_AHEAD, n_threads + 1)
    results.close()


def test_an_error_is_raised_when_it_is_due():
    results = read_ahead(lambda item: 60 // (5 - item), range(9), n_threads=3)
    assert [next(results) for _ in range(5)] == [60 // (5 - item) for item in range(5)]
    with pytest.raises(ZeroDivisionError):
        next(results)


@pytest.mark.parametrize(("threads", "readers"), [(1, 1), (2, 2), (64, MOST_READERS)])
def test_as_many_threads_as_torch_computes_with(monkeypatch, threads, readers):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    names = set()

    def read(item):
        time.sleep(0.01)
        names.add(threading.current_thread().name)

    list(read_ahead(read, range(40)))
    assert len(names) == readers


def test_batches_do_not_depend_on_the_number_of_threads(monkeypatch):
    world = make_world(40, size=32)[0]
    augmentation = AugmentationSettings(flip=True, shift_cells=1, color_jitter=0.2, roll_audio=True)
    found = []
    for threads in (1, 6):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        found.append(
            list(
                training_batches(
                    world, batch_size=4, augmentation=augmentation, cell_stride=CELL, key=(1,), previous=None,
                    device=torch.device("cpu"),
                )
            )
        )  # fmt: skip
    for one, other in zip(*found, strict=True):
        assert one.rows.tolist() == other.rows.tolist()
        assert torch.equal(one.frames, other.frames)
        assert torch.equal(one.log_mel, other.log_mel)
