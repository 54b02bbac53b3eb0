"""From the settings of a backbone to the net."""

from __future__ import annotations

import hashlib

import torch

from pipeline.common.config import BackboneSettings, ResNetSettings
from pipeline.model.backbones.interface import Backbone
from pipeline.model.backbones.resnet import ResNet, resnet_stride
from pipeline.model.backbones.timm_backbone import TimmBackbone
from pipeline.model.backbones.weights import TIMM_WEIGHTS, file_weights_digest, load_weights


def build_backbone(settings: BackboneSettings, *, channels_in: int, centered: bool, setting: str) -> Backbone:
    """Create a backbone with random weights from torch's global generator, or with the weights that are set.

    Parameters
    ----------
    settings : BackboneSettings
    channels_in : int
        3 for frames, 1 for spectrograms.
    centered : bool
        Center the receptive field of each cell on its patch; unnecessary if the map is pooled.
    setting : str
        "encoder.visual" or "encoder.audio", for messages.

    Raises
    ------
    PackageError, SettingsError
        timm is missing, or does not have the model or its stride.
    CheckpointError
        The weights cannot be found, or do not match.
    """
    backbone: Backbone
    if isinstance(settings, ResNetSettings):
        backbone = ResNet(settings, channels_in=channels_in, centered=centered)
        if settings.weights is not None:
            load_weights(backbone, settings.weights, setting=setting)
    else:
        backbone = TimmBackbone(settings, channels_in=channels_in, centered=centered, setting=setting)
    backbone.freeze(settings.trainable)
    return backbone


def backbone_stride(settings: BackboneSettings) -> int:
    """Return the number of pixels from one cell of the map to the next, without building the net."""
    return resnet_stride(settings) if isinstance(settings, ResNetSettings) else settings.stride


def weights_digest(settings: BackboneSettings, *, channels_in: int, setting: str) -> str:
    """Return a digest of the weights that a backbone starts from: their content counts, not their path. Empty for random weights.

    Raises
    ------
    CheckpointError, PackageError, SettingsError
        The weights cannot be found.
    """
    if settings.weights is None:
        return ""
    if settings.weights != TIMM_WEIGHTS:
        return file_weights_digest(settings.weights, setting=setting)
    with torch.random.fork_rng(devices=[]):
        net = build_backbone(settings, channels_in=channels_in, centered=False, setting=setting)
    digest = hashlib.sha256()
    for name, value in net.state_dict().items():
        digest.update(name.encode() + value.contiguous().numpy().tobytes())
    return digest.hexdigest()
