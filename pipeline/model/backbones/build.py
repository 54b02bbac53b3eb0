"""From the settings of a backbone to the net."""

from __future__ import annotations

from pipeline.common.config import BackboneSettings, ResNetSettings
from pipeline.common.errors import SettingsError
from pipeline.model.backbones.interface import Backbone
from pipeline.model.backbones.resnet import ResNet, resnet_stride


def build_backbone(settings: BackboneSettings, *, channels_in: int, centered: bool) -> Backbone:
    """Create a backbone with random weights from torch's global generator.

    Parameters
    ----------
    settings : BackboneSettings
    channels_in : int
        3 for frames, 1 for spectrograms.
    centered : bool
        Center the receptive field of each cell on its patch; unnecessary if the map is pooled.
    """
    if not isinstance(settings, ResNetSettings):
        raise SettingsError(f"backbone {settings.backbone!r} is not supported")
    backbone = ResNet(settings, channels_in=channels_in, centered=centered)
    backbone.freeze(settings.trainable)
    return backbone


def backbone_stride(settings: BackboneSettings) -> int:
    """Return the number of pixels from one cell of the map to the next, without building the net."""
    return resnet_stride(settings) if isinstance(settings, ResNetSettings) else settings.stride
