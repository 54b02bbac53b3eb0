"""Models for tests of localization: one with a known response, and a small real one on disk."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from pipeline.apps.localize.localizer import Localizer
from pipeline.common.config import AudioSettings
from pipeline.methods.build import build_method
from pipeline.methods.trained_model import TrainedModel
from pipeline.model.encoders import build_model
from pipeline.training.checkpoints import model_content, write_checkpoint
from tests.support.synthetic import ENCODER, make_settings

IMAGE_SIZE = 64
AUDIO = AudioSettings(sample_rate=8000, clip_seconds=1.0, n_fft=256, hop_length=200, n_mels=16)


class Red(nn.Module):
    """Responds with how red a cell is, from 0 to 1, whatever the audio."""

    CELL = 8

    def encode_frames(self, frames):
        red = ((frames[:, 0].float() - frames[:, 1:].float().amax(dim=1)) / 255).clamp_min(0)
        return F.avg_pool2d(red[:, None], self.CELL)

    def encode_audio(self, log_mel):
        return torch.ones(len(log_mel), 1)


def make_localizer(**settings) -> Localizer:
    """Return a Localizer that finds what is red."""
    model = TrainedModel(Red(), build_method("initial", make_settings().iterate))
    return Localizer(model, audio=AUDIO, image_size=IMAGE_SIZE, delta_v=0.6, device="cpu", name="red", **settings)


def save_model(path, *, seed=0):
    """Write a small model with random weights."""
    torch.manual_seed(seed)
    model = build_model(ENCODER)
    # A random network responds almost equally to every cell; running statistics spread its responses.
    with torch.no_grad():
        model.train()
        for _ in range(3):
            model.encode_frames(torch.randint(0, 256, (8, 3, IMAGE_SIZE, IMAGE_SIZE)).float())
            model.encode_audio(torch.randn(8, 16, 41))
    iteration = make_settings().iterate
    description = {
        "method": "iterative",
        "stage": "iterative",
        "seed": seed,
        "epoch": 2,
        "fingerprint": "0" * 32,
        "image_size": IMAGE_SIZE,
        "delta_v": iteration.delta_v,
        "encoder": ENCODER.model_dump_json(),
        "iteration": iteration.model_dump_json(),
        "audio": AUDIO.model_dump_json(),
        "n_clips": 8,
        "classes": "[]",
    }
    write_checkpoint(path, model_content(model, description))
    return path
