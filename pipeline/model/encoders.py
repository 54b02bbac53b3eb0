"""The visual and the audio encoder, which map frames and audio to features in the same space.

Conventions
-----------
Frames are (n, 3, H, W), uint8 or floating, in 0..255; log-mels are (n, mel, time), natural logarithm. Frame features are V (n, d, h,
w), audio embeddings are a (n, d); both are float32 and L2-normalized over d. h = H / stride, the stride of the visual backbone.

Our choices, where the paper is silent: normalization of frames as the backbone expects it, per-clip standardization of log-mels, the
projection, the BatchNorm, and receptive fields centered on their cells (see `pipeline.model.backbones`).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.common.config import EncoderSettings
from pipeline.common.errors import SettingsError
from pipeline.model.backbones.build import build_backbone
from pipeline.model.ranks import gather

SILENCE_STD = 1.0e-5  # a log-mel with a smaller standard deviation counts as constant and becomes zeros


class AudioVisualModel(nn.Module):
    """The visual and the audio encoder. Create it with `build_model`.

    Attributes
    ----------
    visual, audio : Backbone
    heads : nn.ModuleDict
        Layers of the method, trained and stored with the rest of the model; empty if the method needs none.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, settings: EncoderSettings) -> None:
        super().__init__()
        self.visual = build_backbone(settings.visual, channels_in=3, centered=True, setting="encoder.visual")
        self.audio = build_backbone(settings.audio, channels_in=1, centered=False, setting="encoder.audio")
        self.audio_pooling: Literal["mean", "max"] = settings.audio_pooling
        self.visual_projection: nn.Module = nn.Identity()
        self.audio_projection: nn.Module = nn.Identity()
        self.dim = self.visual.dim
        if settings.embedding_dim is not None:
            self.dim = settings.embedding_dim
            self.visual_projection = nn.Conv2d(self.visual.dim, self.dim, 1)
            self.audio_projection = nn.Linear(self.audio.dim, self.dim)
        self.visual_norm = nn.BatchNorm2d(self.dim, affine=False) if settings.batch_norm else nn.Identity()
        self.audio_norm = nn.BatchNorm1d(self.dim, affine=False) if settings.batch_norm else nn.Identity()
        self.heads = nn.ModuleDict()
        self.cell_stride = self.visual.stride
        self.register_buffer("mean", 255 * torch.tensor(self.visual.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(self.visual.std).view(1, 3, 1, 1), persistent=False)

    def visual_features(self, frames: Tensor) -> Tensor:
        """Return raw features of the visual backbone: (n, 3, H, W) in 0..255 → (n, channels, h, w) float32.

        Features of a frozen backbone can be computed once and stored: frames with the backbone's `dim` channels instead of 3 are taken
        for such features, and returned as float32.
        """
        # Shards are channels_last. On a CPU, oneDNN's backward pass then corrupts memory in narrow networks (torch 2.13).
        if frames.shape[1] == self.visual.dim:
            return self._of_whole_batch(frames.float().contiguous())
        pixels = (frames.float() - self.mean) / self.std
        features: Tensor = self.visual(pixels if pixels.is_cuda else pixels.contiguous())
        return self._of_whole_batch(features)

    def audio_features(self, log_mel: Tensor) -> Tensor:
        """Return raw features of the audio backbone, pooled over mel and time: what `audio_maps` takes → (n, channels)."""
        return self.pool_audio(self.audio_maps(log_mel))

    def audio_maps(self, log_mel: Tensor) -> Tensor:
        """Return raw features of the audio backbone before pooling: (n, mel, time) → (n, channels, mel', time') float32.

        Features of a frozen backbone, (n, channels, mel', time'), are returned as float32.
        """
        if log_mel.ndim == 4:
            return self._of_whole_batch(log_mel.float())
        features: Tensor = self.audio(standardize(log_mel).unsqueeze(1))
        return self._of_whole_batch(features)

    def _of_whole_batch(self, features: Tensor) -> Tensor:
        # Several ranks share out the batches of training only.
        return gather(features) if self.training else features

    def pool_audio(self, features: Tensor) -> Tensor:
        """Pool raw audio features over mel and time (mean or max): (n, channels, mel', time') → (n, channels)."""
        return features.mean(dim=(2, 3)) if self.audio_pooling == "mean" else features.amax(dim=(2, 3))

    def project_frames(self, features: Tensor) -> Tensor:
        """Return V before its L2 normalization: raw features (n, channels, h, w) → (n, d, h, w) float32."""
        projected: Tensor = self.visual_norm(self.visual_projection(features))
        return projected.float()

    def project_audio(self, features: Tensor) -> Tensor:
        """Return a before its L2 normalization: raw pooled features (n, channels) → (n, d) float32."""
        projected: Tensor = self.audio_norm(self.audio_projection(features))
        return projected.float()

    def encode_frames(self, frames: Tensor) -> Tensor:
        """Return V of Eq. 1-7, each cell L2-normalized.

        The paper normalizes V in φ (Eq. 3-5), but does not say whether Eq. 1 uses raw or normalized features. We normalize
        everywhere: the response is then the cosine that the losses train, and a cell cannot score high only because its feature is
        long.

        Parameters
        ----------
        frames : Tensor (n, 3, H, W) uint8 or floating, 0..255
            Or stored features, see `visual_features`.

        Returns
        -------
        Tensor (n, d, h, w) float32
        """
        return F.normalize(self.project_frames(self.visual_features(frames)), dim=1)

    def encode_audio(self, log_mel: Tensor) -> Tensor:
        """Return a of Eq. 1-7, L2-normalized: what `audio_maps` takes → (n, d) float32.

        The length of a does not change Eq. 1 after min-max, but Eq. 6 requires the normalization.
        """
        return F.normalize(self.project_audio(self.audio_features(log_mel)), dim=1)


def build_model(settings: EncoderSettings) -> AudioVisualModel:
    """Create the model with random weights from torch's global generator; load pretrained weights where they are set.

    Raises
    ------
    SettingsError, PackageError
        The encoders' features differ in length and there is no projection; or timm is missing, or has no such model.
    CheckpointError
        The weights of a backbone cannot be found, or do not match it.
    """
    model = AudioVisualModel(settings)
    if settings.embedding_dim is None and model.visual.dim != model.audio.dim:
        raise SettingsError(
            f"encoder: features of visual have {model.visual.dim} channels and those of audio {model.audio.dim}; set embedding_dim, "
            "or choose backbones with equally many"
        )
    return model


def standardize(log_mel: Tensor) -> Tensor:
    """Scale each clip's log-mel to mean 0 and standard deviation 1, float32; a constant log-mel becomes zeros."""
    log_mel = log_mel.float()
    std, mean = torch.std_mean(log_mel, dim=(1, 2), keepdim=True, correction=0)
    return (log_mel - mean) * torch.where(std > SILENCE_STD, std.clamp_min(SILENCE_STD).reciprocal(), 0.0)
