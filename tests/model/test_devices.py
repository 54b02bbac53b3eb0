"""Which precision, layout and algorithms a device gets. What only a GPU can do is replaced."""

import numpy as np
import pytest
import torch

from pipeline.common.errors import TrainingError
from pipeline.model import devices, inference
from pipeline.model.devices import select_device
from pipeline.model.transfer import fetch

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 1)


@pytest.mark.parametrize(
    ("capability", "expected"),
    [
        ((9, 0), torch.bfloat16),
        ((8, 0), torch.bfloat16),
        ((7, 5), torch.float16),
        ((7, 0), torch.float16),
        ((6, 1), None),
    ],
)
def test_the_gpu_that_trains_is_asked_for_its_precision(monkeypatch, capability, expected):
    asked = []
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (asked.append(device), capability)[1])
    assert devices.half_precision(CUDA) is expected
    assert asked == [CUDA]
    monkeypatch.setattr(torch, "autocast", lambda kind, dtype, enabled: (dtype, enabled))
    assert devices.autocast(CUDA) == (expected or torch.bfloat16, expected is not None)
    scaler = []
    monkeypatch.setattr(torch.amp, "GradScaler", lambda kind, enabled: scaler.append((kind, enabled)))
    devices.loss_scaler(CUDA)
    assert scaler == [("cuda", expected is torch.float16)]


def test_a_cpu_trains_in_float32():
    assert devices.half_precision(CPU) is None
    assert not devices.loss_scaler(CPU).is_enabled()
    with devices.autocast(CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_precision_of_float32_is_set_and_restored():
    backends = (torch.backends.cudnn.conv, torch.backends.cuda.matmul)

    def now():
        return [each.fp32_precision for each in backends]

    before = now()
    with devices.float32_as("tf32"):
        assert now() == ["tf32", "tf32"]
        with devices.float32_as("ieee"):
            assert now() == ["ieee", "ieee"]
        assert now() == ["tf32", "tf32"]
    with pytest.raises(KeyError), devices.float32_as("ieee"):
        raise KeyError
    assert now() == before
    assert isinstance(torch.backends.cudnn.allow_tf32, bool)  # torch refuses to tell while both kinds of flags disagree


@pytest.mark.parametrize(("device", "wanted"), [(CPU, True), (CPU, False), (CUDA, True)])
def test_algorithms_are_deterministic(device, wanted):
    with devices.algorithms(device, deterministic=wanted):
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
        assert not torch.backends.cudnn.benchmark
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_fastest_algorithms_are_chosen_on_cuda_only():
    with devices.algorithms(CUDA, deterministic=False):
        assert not torch.are_deterministic_algorithms_enabled()
        assert torch.backends.cudnn.benchmark
    assert not torch.backends.cudnn.benchmark


def test_memory_format():
    net, asked = torch.nn.Conv2d(3, 4, 3), []
    net.to(memory_format=torch.channels_last)
    devices.move(net, CPU)
    assert net.weight.is_contiguous()

    class Recorder(torch.nn.Module):
        def to(self, *arguments, **options):
            asked.append((*arguments, options["memory_format"]))

    devices.move(Recorder(), CUDA)
    assert asked == [(CUDA, torch.channels_last)]


def test_results_arrive_in_order_one_behind():
    made, taken = [], []

    def results():
        for number in range(4):
            made.append(number)
            yield fetch([torch.full((2,), number, dtype=torch.float16)])

    for wait in inference._one_behind(results()):
        (values,) = wait()
        assert values.dtype == np.float32
        taken.append((int(values[0]), len(made)))
    assert taken == [(0, 2), (1, 3), (2, 4), (3, 4)]
    assert list(inference._one_behind(())) == []


def test_a_device_that_cannot_compute_is_one_error(monkeypatch):
    def no_kernel(*_, **__):
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nmore")

    monkeypatch.setattr(torch, "ones", no_kernel)
    with pytest.raises(TrainingError, match="device 'cpu' is not supported by this build of torch; install another"):
        select_device("auto")
