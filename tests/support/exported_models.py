"""Small models of every method on disk, whose maps differ between cells."""

from __future__ import annotations

import json

import numpy as np
import torch

from pipeline.apps.export.export import random_clips
from pipeline.common.config import AudioSettings, EncoderSettings, ResNetSettings
from pipeline.methods.build import build_method, method_settings
from pipeline.model.encoders import build_model
from pipeline.training.checkpoints import model_content, write_checkpoint
from tests.support.synthetic import make_settings

IMAGE_SIZE = 32
AUDIO = AudioSettings(sample_rate=4000, clip_seconds=0.5, n_fft=128, hop_length=100, n_mels=16)
SMALL = ResNetSettings(blocks=(1, 1, 1, 1), width=4, strides=(1, 1, 1, 1), kernel_sizes=(3, 1, 1, 1))
ENCODER = EncoderSettings(visual=SMALL, audio=SMALL, embedding_dim=8, batch_norm=True)
CLASSES = ["bell", "drum", "horn"]


def save_method_model(path, name="iterative", *, second_stage=True, **changes):
    """Write a model of a method with random weights, in its second stage if it has one; `changes` are to `SMALL`, for frames."""
    visual = SMALL.model_copy(update=changes)
    encoder = ENCODER.model_copy(update={"visual": visual})
    torch.manual_seed(0)
    settings = method_settings(make_settings(methods={name: {}}), name)
    method, model = build_method(name, settings), build_model(encoder)
    method.prepare(model, n_clips=20, classes=CLASSES)
    frames, log_mel = map(torch.from_numpy, random_clips(image_size=IMAGE_SIZE, audio=AUDIO, n=16, seed=1))
    with torch.no_grad():
        # With running statistics in the BatchNorms, a random network's outputs are spread out.
        model.train()
        for _ in range(20):
            model.encode_frames(frames)
            model.encode_audio(log_mel)
        for head in model.heads.values():
            if hasattr(head, "dictionary"):
                head.dictionary.normal_()
                head.stage.fill_(2 if second_stage else 0)
            if hasattr(head, "audio_projection"):
                head.stage_two.fill_(second_stage)
    description = {
        "method": name,
        "stage": "train",
        "seed": 0,
        "epoch": 2,
        "fingerprint": "0123456789abcdef" * 2,
        "image_size": IMAGE_SIZE,
        "delta_v": settings.delta_v,
        "encoder": encoder.model_dump_json(),
        "iteration": settings.model_dump_json(),
        "audio": AUDIO.model_dump_json(),
        "n_clips": 20,
        "classes": json.dumps(CLASSES if name.startswith("mssl") else []),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_checkpoint(path, model_content(model, description))
    return path


def random_inputs(n, *, seed=7):
    """Return plain noise, unlike the inputs that an export is traced with."""
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (n, 3, IMAGE_SIZE, IMAGE_SIZE), dtype=np.uint8)
    return frames, rng.normal(-5, 2, (n, AUDIO.n_mels, AUDIO.n_frames)).astype(np.float32)
