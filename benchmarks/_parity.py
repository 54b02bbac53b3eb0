"""What `gpu.py` compares with the CPU: every method's loss, gradient and maps, and runs that are resumed."""

from __future__ import annotations

import warnings
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from training import AUDIO, IMAGE_SIZE, write_shards

from pipeline.common.config import LabeledSettings, TrainingSettings
from pipeline.methods.base import Batch, Method
from pipeline.methods.build import build_method, method_settings
from pipeline.methods.registry import METHODS
from pipeline.methods.trained_model import TrainedModel
from pipeline.model.devices import autocast, float32_as, move
from pipeline.model.encoders import AudioVisualModel, build_model
from pipeline.pseudo_labels.artifact import PseudoLabels, write_pseudo_labels
from pipeline.shards.reader import ShardSet
from pipeline.training.batches import PreviousEpoch, training_batches
from pipeline.training.checkpoints import WEIGHTS, read_checkpoint
from pipeline.training.train import initialize, train

CPU = torch.device("cpu")
SMALL = 24  # clips of the parts that compare; DSOL needs more than its number of clusters
Result = dict[str, Any]


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Return ‖found - expected‖ / ‖expected‖; NaN and infinities are never close."""
    value = np.linalg.norm((found - expected).astype(np.float64)) / max(float(np.linalg.norm(expected)), 1e-30)
    return float(value) if np.isfinite(value) else float("inf")


def labels_of(shards: ShardSet, settings: TrainingSettings, path: Path) -> PseudoLabels:
    """Return pseudo-labels of random encoders."""
    torch.manual_seed(1)
    model = TrainedModel(build_model(settings.encoder), build_method("initial", method_settings(settings, "initial")))
    response, audio = model.predict(shards, batch_size=len(shards), device=CPU)
    attributes = {"epoch": 0, "stage": "train", "objective": "initial", "delta_v": 0.5, "delta_a": 0.9}
    attributes |= {"temperature": 0.3, "fingerprint": "", "shards": shards.fingerprint}
    write_pseudo_labels(path, PseudoLabels.from_responses(shards.clip_ids, response, audio, **attributes))
    return PseudoLabels.open(path)


def parity(settings: TrainingSettings, folder: Path, device: torch.device) -> Result:
    """Compare every method with the CPU."""
    write_shards(folder, SMALL, image_size=IMAGE_SIZE, audio=AUDIO)
    shards = ShardSet.open(folder)
    labels = labels_of(shards, settings, folder / "epoch.h5")
    rows = [(name, 1) for name in METHODS if METHODS[name].trains_as is None]
    rows = [(name, epoch) for name, epoch in rows if name not in ("untouched", "initial_matched")]
    rows.append(("mssl", method_settings(settings, "mssl").epochs))
    found: Result = {}
    for name, epoch in rows:
        key = f"{name}, epoch {epoch}" if name in found else name
        # What fails for one method must not hide the others.
        try:
            found[key] = compare(name, epoch, settings, shards, labels, device)
        except Exception as error:
            found[key] = {"error": f"{type(error).__name__}: {error}"}
    return found


def compare(
    name: str, epoch: int, settings: TrainingSettings, shards: ShardSet, labels: PseudoLabels, device: torch.device
) -> Result:
    """Return the relative differences of one method between the device and the CPU."""
    iteration = method_settings(settings, name)
    method, labeled = build_method(name, iteration), isinstance(iteration, LabeledSettings)
    torch.manual_seed(0)
    model = build_model(settings.encoder)
    method.prepare(model, n_clips=SMALL, classes=("bell", "drum", "gong") if labeled else ())
    method.start_epoch(model.eval(), shards, labels, epoch=epoch, seed=0)
    measured = []
    for where in (CPU, device):
        batch = next(
            training_batches(
                shards,
                batch_size=SMALL,
                augmentation=settings.augmentation,
                cell_stride=model.cell_stride,
                key=("gpu",),
                previous=PreviousEpoch.of(labels, shards, delta_a=0.8, center_audio=True),
                targets=np.eye(3, dtype=np.float32)[np.arange(SMALL) % 3][:, None].repeat(2, axis=1),
                device=where,
            )
        )
        drawn = batch.generator.get_state()
        values = gradient(method, moved_to(model, where), batch)
        values["maps"], _ = TrainedModel(deepcopy(model), method).predict(shards, batch_size=SMALL, device=where)
        measured.append(values)
        batch.generator.set_state(drawn)
    row = {key: difference(measured[1][key], measured[0][key]) for key in measured[0]}
    if device.type == "cuda":
        # The same cells as before, with the batch that is on the device.
        with torch.no_grad(), autocast(device):
            half = method.loss(moved_to(model, device).train(), batch)
        row["half_loss"] = difference(half.cpu().numpy(), measured[0]["loss"])
    return row


def moved_to(model: AudioVisualModel, device: torch.device) -> AudioVisualModel:
    """Return a copy of the model on a device, laid out as in training."""
    copy = deepcopy(model)
    move(copy, device)
    return copy


def gradient(method: Method, model: AudioVisualModel, batch: Batch) -> dict[str, np.ndarray]:
    """Return the loss and its gradient in float32."""
    with float32_as("ieee"):
        loss = method.loss(model.train(), batch)
        loss.backward()
    found = [each.grad.flatten() for each in model.parameters() if each.grad is not None]
    return {"loss": loss.detach().cpu().numpy(), "gradient": torch.cat(found).cpu().numpy()}


class InterruptedRunError(Exception):
    """Raised in the second epoch."""


def resuming(settings: TrainingSettings, folder: Path, device: torch.device) -> Result:
    """Compare resumed runs with an uninterrupted one."""
    write_shards(folder / "shards", 2 * SMALL, image_size=IMAGE_SIZE, audio=AUDIO)
    shards = ShardSet.open(folder / "shards")
    settings = with_epochs(settings, 2).model_copy(update={"batch_size": SMALL})

    def interrupt(epoch: int, model: TrainedModel) -> None:
        if epoch == 2:
            raise InterruptedRunError

    def run(name: str, where: torch.device, **options: Any) -> dict[str, Any]:
        train(
            shards, folder / "initialize", folder / name, method="iterative", settings=settings, seeds=[0], device=str(where),
            **options,
        )  # fmt: skip
        return read_checkpoint(folder / name / "model.pt")

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        initialize(shards, folder / "initialize", settings=settings, seeds=[0], device=str(device))
        whole = weights(run("whole", device))
        for name in ("resumed", "moved"):
            with suppress(InterruptedRunError):
                run(name, device, on_epoch=interrupt)
        resumed, moved = weights(run("resumed", device)), weights(run("moved", CPU))
    return {
        "resumed": difference(resumed, whole),
        "equal_to_the_byte": bool((resumed == whole).all()),
        "resumed_on_cpu": difference(moved, whole),
        "not_deterministic": sorted({str(each.message).split(". ")[0] for each in caught if "determinis" in str(each.message)}),
    }  # fmt: skip


def weights(content: dict[str, Any]) -> np.ndarray:
    """Return all weights of a checkpoint as one vector."""
    values = [value.flatten().double() for name, value in content.items() if name.startswith(WEIGHTS)]
    return torch.cat(values).numpy()


def with_epochs(settings: TrainingSettings, epochs: int) -> TrainingSettings:
    """Return the settings with this number of epochs, and without published weights."""
    phases = {name: getattr(settings, name).model_copy(update={"epochs": epochs}) for name in ("initialize", "iterate")}
    return settings.model_copy(update={**phases, "encoder": settings.encoder.without_weights})
