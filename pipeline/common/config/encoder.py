"""The encoders: their backbones, where weights come from, and what of them is trained."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from pipeline.common.config.base import VARIANT, Count, FourCounts, OddCount, Settings

Padding = Literal["zeros", "replicate"]
Trainable = Literal["all", "last_stage", "none"]
Side = Literal["visual", "audio"]
TIMM = "timm:"  # prefix of a backbone that is a model of timm
_RESNET_TAG, _TIMM_TAG = f"{VARIANT}resnet", f"{VARIANT}timm"


class _CommonSettings(Settings):
    weights: str | None = None  # a file, pip:PACKAGE, or timm for timm's own; None starts from random weights
    trainable: Trainable = "all"  # a frozen part keeps its BatchNorm statistics too

    @property
    def is_fixed(self) -> bool:
        """Whether the net is the same in all epochs and for all seeds."""
        return self.trainable == "none" and self.weights is not None


def _resnet(name: Any) -> Any:
    if name != "resnet":
        raise ValueError(f"unknown backbone {name!r}; set resnet, or timm:NAME for a model of timm")
    return name


class ResNetSettings(_CommonSettings):
    """Architecture of a ResNet with basic blocks. ResNet-18 has blocks 2 2 2 2, width 64, strides 1 2 2 2, kernels 3 3 3 3."""

    backbone: Annotated[Literal["resnet"], BeforeValidator(_resnet)] = "resnet"
    blocks: FourCounts = (2, 2, 2, 2)
    width: Count = 64  # channels of the first stage; doubled by each later stage
    strides: FourCounts = (1, 2, 2, 1)
    kernel_sizes: tuple[OddCount, OddCount, OddCount, OddCount] = (3, 3, 3, 3)
    padding: Padding = "zeros"  # what convolutions see beyond the border


class TimmSettings(_CommonSettings):
    """A model of timm: the feature map with this stride, in pixels per cell."""

    backbone: Annotated[str, Field(pattern=rf"^{TIMM}[A-Za-z0-9_.]+$")]
    stride: Literal[8, 16, 32] = 32


def _kind(settings: Any) -> str:
    backbone = settings.get("backbone") if isinstance(settings, dict) else getattr(settings, "backbone", None)
    return _TIMM_TAG if isinstance(backbone, str) and backbone.startswith(TIMM) else _RESNET_TAG


BackboneSettings = ResNetSettings | TimmSettings
_Backbone = Annotated[
    Annotated[ResNetSettings, Tag(_RESNET_TAG)] | Annotated[TimmSettings, Tag(_TIMM_TAG)], Discriminator(_kind)
]


class EncoderSettings(Settings):
    """The visual and the audio backbone, and the projection to a common embedding space."""

    visual: _Backbone = ResNetSettings()
    audio: _Backbone = ResNetSettings()  # its input is the spectrogram, as an image with one channel
    embedding_dim: Count | None = None  # None: the features of the last stage, without a projection
    batch_norm: bool = False  # BatchNorm without affine parameters before the L2 normalization
    audio_pooling: Literal["mean", "max"] = "mean"

    @property
    def without_weights(self) -> EncoderSettings:
        """The same encoders, built without the files of published weights: a checkpoint has all weights."""
        return self.model_copy(
            update={name: getattr(self, name).model_copy(update={"weights": None}) for name in ("visual", "audio")}
        )
