"""An easy dataset in memory: one colored object on a plain background, and a sound whose frequency band depends on its color.

Every method of the tables must localize here, far above the content-free baselines.
"""

from dataclasses import replace

import numpy as np
import torch

from pipeline.common.files import write_csv
from pipeline.manifests.boxes import Box
from pipeline.manifests.clips import CLIP_COLUMNS
from pipeline.methods.base import Batch
from pipeline.scoring.baselines import all_ones, centered_gaussian
from pipeline.scoring.protocols import get_protocol
from pipeline.scoring.score import score
from pipeline.training.checkpoints import load_model
from pipeline.training.train import initialize, train
from tests.support.synthetic import COLORS, ENCODER, SMALL, MemoryShards

SIDE = 24  # of the object, pixels
BACKGROUND = 128
# With a receptive field of 11 pixels, a map can end where the object ends; if it extends further, that is due to the method.
SHARP = ENCODER.model_copy(update={"visual": SMALL.model_copy(update={"kernel_sizes": (1, 1, 1, 1)})})


def make_easy_world(n, seed, *, size=64):
    """Return shards of n clips, the box of each object (Box, fractions), and the class of each clip, int (n,)."""
    rng = np.random.default_rng(seed)
    frames = np.full((n, size, size, 3), BACKGROUND, dtype=np.uint8)
    log_mel = rng.normal(-6, 0.5, (n, 16, 32)).astype(np.float32)
    labels = rng.permutation(np.arange(n) % len(COLORS))
    boxes = []
    for i, kind in enumerate(labels):
        row, col = rng.integers(0, size - SIDE + 1, 2)
        frames[i, row : row + SIDE, col : col + SIDE] = COLORS[kind] + rng.integers(-10, 11, (SIDE, SIDE, 3))
        log_mel[i, 4 * kind : 4 * kind + 4] += 4
        corners = (value / size for value in (col, row, col + SIDE, row + SIDE))
        boxes.append(Box(f"clip-{i:04d}", f"kind{kind}", "test", True, *corners))
    return MemoryShards(frames, log_mel), boxes, labels


def targets_of(labels):
    """Return class labels as `Batch.targets`, float32 (n, side, class): the same for frame and audio."""
    return np.eye(len(COLORS), dtype=np.float32)[labels][:, None].repeat(2, axis=1)


def write_easy_clips(path, labels):
    """Write the ``clips.csv`` of an easy world, for methods that learn from class labels."""
    rows = [["train", f"clip-{i:04d}", "x.mp4", "", "", "", f"kind{kind}"] for i, kind in enumerate(labels)]
    write_csv(path, ["split", *CLIP_COLUMNS], rows)
    return path


def localization_score(maps, boxes, *, protocol="paper256"):
    """Return the mean cIoU of response maps (clip, row, col), or of one map for all clips; `protocol` may be a name."""
    rule = get_protocol(protocol) if isinstance(protocol, str) else protocol
    return float(score(np.asarray(maps), [box.clip_id for box in boxes], boxes, rule).ciou.mean())


def content_free_scores(boxes, *, protocol="paper256"):
    """Return the mean cIoU of the content-free baselines."""
    return {
        "all_ones": localization_score(all_ones(), boxes, protocol=protocol),
        "centered_gaussian": localization_score(centered_gaussian(), boxes, protocol=protocol),
    }


def whole_batch(world, *, previous_response=None, relation=None, labels=None):
    """Return all clips as one un-augmented `Batch`."""
    frames, log_mel = world.read(range(len(world)))
    return Batch(
        frames=torch.from_numpy(frames).permute(0, 3, 1, 2),
        log_mel=torch.from_numpy(log_mel),
        rows=np.arange(len(world)),
        previous_response=previous_response,
        relation=relation,
        targets=None if labels is None else torch.from_numpy(targets_of(labels)),
        generator=torch.Generator().manual_seed(0),
    )


def overfit(method, model, batch, *, steps, learning_rate):
    """Overfit one batch, and return the loss before each step."""
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=learning_rate)
    losses = []
    for _ in range(steps):
        loss = method.loss(model, batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def train_easily(folder, name, world, settings, *, clips=None, seed=0):
    """Train a method on an easy world in ``folder/NAME``, starting from ``folder/initialize``; return its model."""
    initial = folder / "initialize"
    if not (initial / "model.pt").exists():
        initialize(world, initial, settings=settings, seeds=[seed], device="cpu")
    train(world, initial, folder / name, method=name, settings=settings, seeds=[seed], clips=clips, device="cpu")
    return load_model(folder / name / "model.pt")


def easy_scores(model, world, boxes):
    """Return the mean cIoU of a model with each clip's own audio, with another clip's audio, and of the best content-free baseline.

    All three use the paper's protocol, with the method's own normalization if it has one.
    """
    rule = get_protocol("paper256")
    if model.normalization:
        rule = replace(rule, normalization=model.normalization)
    own, shuffled = (
        localization_score(
            model.response_maps(world, batch_size=32, device="cpu", audio_order=order), boxes, protocol=rule
        )
        for order in (None, np.roll(np.arange(len(world)), 1))
    )
    return own, shuffled, max(content_free_scores(boxes, protocol=rule).values())
