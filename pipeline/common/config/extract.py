"""params.yaml, block `extract`: how clips become shards, and how shards store them."""

from __future__ import annotations

from typing import Literal

from pipeline.common.config.base import Count, Fraction, Positive, Settings


class ShardEncoding(Settings):
    """How the shards of a split store frames and log-mels. Only the defaults store exactly what was decoded."""

    log_mel: Literal["float32", "float16"] = "float32"
    frame_codec: Literal["raw", "jpeg"] = "raw"


EXACT = ShardEncoding()


class ExtractSettings(ShardEncoding):
    """How clips become shards. Apart from those of `ShardEncoding`, no setting changes the stored data of a usable clip."""

    clips_per_shard: Count = 512
    max_reject_fraction: Fraction = 0.1  # the stage fails if more clips than this are unusable
    clip_time_limit_s: Positive = 30.0

    @property
    def encoding(self) -> ShardEncoding:
        """How shards store clips."""
        return ShardEncoding(log_mel=self.log_mel, frame_codec=self.frame_codec)
