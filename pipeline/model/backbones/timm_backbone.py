"""A model of timm as a backbone: the feature map with the wanted stride, centered.

Models that fix the size of their input take any size if timm can resize their position embedding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.common.config import TIMM, TimmSettings
from pipeline.common.errors import CheckpointError, SettingsError
from pipeline.model.backbones.centering import Extension, receptive_field_offset
from pipeline.model.backbones.interface import Backbone
from pipeline.model.backbones.torchvision_compat import load_timm
from pipeline.model.backbones.weights import TIMM_WEIGHTS, downloading, matched, read_weights

_PROBE_CELLS = 8  # side of the map on which the structure is measured


@dataclass(frozen=True)
class Level:
    """One feature map of a model: its number, and that of the level before; its channels."""

    index: int
    before: int | None
    dim: int


class TimmBackbone(Backbone):
    """The feature map with stride `settings.stride` of a model of timm, see `Backbone`.

    Parameters
    ----------
    settings : TimmSettings
    channels_in : int
        1 for spectrograms; pretrained weights of the first layer are then added up over the colors, as timm does.
    centered : bool
    setting : str
        "encoder.visual" or "encoder.audio", for messages.

    Raises
    ------
    PackageError, SettingsError
        timm is missing, does not have the model, or the model has no map with this stride.
    CheckpointError
        Weights cannot be found, or do not match.
    """

    def __init__(self, settings: TimmSettings, *, channels_in: int, centered: bool, setting: str) -> None:
        super().__init__()
        self.name = settings.backbone.removeprefix(TIMM)
        self.level = find_level(self.name, settings.stride, setting=setting)
        self.dim, self.stride = self.level.dim, settings.stride
        facts = _facts(self.name)
        self.mean, self.std = ((0.0,), (1.0,)) if channels_in == 1 else (tuple(facts.mean), tuple(facts.std))
        downloaded = settings.weights == TIMM_WEIGHTS
        with downloading(self.name, setting=setting) if downloaded else nullcontext():
            self.net = _features(self.name, self.level.index, in_chans=channels_in, pretrained=downloaded)
        self.fixed_size = None if _resizes(self.net) else tuple(facts.input_size[-2:])
        # A frame of fixed size cannot be extended.
        movable = centered and self.fixed_size is None
        self.extension = Extension(self.stride, _offset(self.name, self.level, self.stride) if movable else 0.0)
        if settings.weights is not None and not downloaded:
            _load(self.net, self.name, settings.weights, setting=setting)

    def forward(self, x: Tensor) -> Tensor:
        size = (int(x.shape[-2]), int(x.shape[-1]))
        if self.fixed_size is not None and size != self.fixed_size:
            raise SettingsError(
                f"{TIMM}{self.name}: takes images of {self.fixed_size[0]} × {self.fixed_size[1]} pixels only, got {size[0]} × {size[1]}; "
                "choose another backbone, or that `image_size`"
            )
        features = _as_nchw(self.net, self.net(self.extension.images(x))[-1])
        if tuple(map(int, features.shape[-2:])) != tuple(map(self.extension.cells, size)):
            raise SettingsError(
                f"{TIMM}{self.name}: its maps do not cover the whole image, because it does not pad; choose another backbone"
            )
        return self.extension.maps(features, size)

    def fix_size(self, height: int, width: int) -> None:
        # Resizes the position embedding now, and not with each image, for which ONNX has no operator.
        inner: Any = getattr(self.net, "model", self.net)
        if getattr(inner, "dynamic_img_size", False) and hasattr(inner, "set_input_size"):
            inner.set_input_size(img_size=tuple(self.stride * self.extension.cells(side) for side in (height, width)))

    def last_stage(self) -> Iterator[nn.Parameter]:
        earlier = _names_before(self.name, self.level)
        return (parameter for name, parameter in self.net.named_parameters() if name not in earlier)


def find_level(name: str, stride: int, *, setting: str) -> Level:
    """Return the last feature map of a model that has this stride. Raises SettingsError, which names the strides that exist."""
    timm = load_timm()
    if not timm.is_model(name):
        close = get_close_matches(name, timm.list_models(), n=3) or ["timm.list_models() lists them all"]
        raise SettingsError(
            f"{setting}.backbone: timm {timm.__version__} has no model {name!r}; close: {', '.join(close)}"
        )
    try:
        levels = _levels(name)
    except (RuntimeError, AttributeError, AssertionError) as error:
        raise SettingsError(
            f"{setting}.backbone: {name!r} gives no feature maps ({' '.join(str(error).split())[:200]})"
        ) from None
    found = [index for index, (reduction, _) in enumerate(levels) if reduction == stride]
    if not found:
        strides = ", ".join(map(str, dict.fromkeys(reduction for reduction, _ in levels)))
        raise SettingsError(f"{setting}.stride: {name!r} has no feature map with stride {stride}, only {strides}")
    return Level(found[-1], found[-1] - 1 if found[-1] else None, levels[found[-1]][1])


def _features(name: str, index: int | None, **options: Any) -> nn.Module:
    """Return a model that returns a list with one feature map; all of its default maps if `index` is None."""
    timm = load_timm()
    if index is not None:
        options["out_indices"] = (index,)
    # Without a limit on the size of the input. Some models do not have this option.
    dynamic = {"dynamic_img_size": True} if _facts(name).fixed_input_size else {}
    try:
        net = timm.create_model(name, features_only=True, **dynamic, **options)
    except TypeError:
        if not dynamic:
            raise
        net = timm.create_model(name, features_only=True, **options)
    assert isinstance(net, nn.Module)
    return net


def _spare(name: str, index: int | None, **options: Any) -> nn.Module:
    """Return such a model to look at; the global random generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        return _features(name, index, **options)


def _facts(name: str) -> Any:
    """Return what timm knows about a model: normalization, input size, name of the classifier."""
    return load_timm().models.get_pretrained_cfg(name, allow_unregistered=True) or load_timm().models.PretrainedCfg()


def _resizes(net: nn.Module) -> bool:
    """Return whether a model takes images of any size."""
    settings: Any = net.pretrained_cfg
    inner = getattr(net, "model", net)
    return not settings.get("fixed_input_size") or bool(getattr(inner, "dynamic_img_size", False))


def _as_nchw(net: nn.Module, features: Tensor) -> Tensor:
    return features.permute(0, 3, 1, 2) if getattr(net, "output_fmt", "NCHW") == "NHWC" else features


@cache
def _levels(name: str) -> tuple[tuple[int, int], ...]:
    """Return stride and channels of each feature map of a model."""
    info: Any = _spare(name, None).feature_info
    return tuple((level["reduction"], level["num_chs"]) for level in info.info)


@cache
def _offset(name: str, level: Level, stride: int) -> float:
    return receptive_field_offset(_Map(_spare(name, level.index)), size=_PROBE_CELLS * stride, channels_in=3)


class _Map(nn.Module):
    """Returns the one map instead of a list."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return _as_nchw(self.net, self.net(x)[-1])


@cache
@torch.enable_grad()
def _names_before(name: str, level: Level) -> frozenset[str]:
    """Return the names of the parameters that the level before depends on."""
    if level.before is None:
        return frozenset()
    net = _spare(name, level.before).eval()
    size = math.ceil(_facts(name).input_size[-1])
    net(torch.zeros(1, 3, size, size))[-1].sum().backward()
    return frozenset(key for key, parameter in net.named_parameters() if parameter.grad is not None)


def _load(net: nn.Module, name: str, source: str, *, setting: str) -> None:
    """Load the weights of a whole model, as they are published, into its part that ends at a feature map."""
    timm = load_timm()
    facts = _facts(name)
    with torch.random.fork_rng(devices=[]):
        whole = timm.create_model(name).state_dict()
    classifiers = (facts.classifier,) if isinstance(facts.classifier, str) else tuple(facts.classifier or ())
    content = read_weights(source, setting=setting)
    tensors = {
        _key(key): value
        for key, value in matched(content, whole, source=source, setting=setting, classifiers=classifiers).items()
    }
    own = net.state_dict()
    for key, target in own.items():
        value = tensors.get(_key(key))
        if value is not None and value.ndim == 4 and value.shape[1] != target.shape[1]:
            value = timm.models.adapt_input_conv(target.shape[1], value)
        if value is None or value.shape != target.shape:
            raise CheckpointError(
                f"{source}: cannot be loaded into the feature maps of {name!r}: {key!r} is missing or of another shape"
            )
        own[key] = value
    net.load_state_dict(own)


def _key(name: str) -> str:
    """Return a name that a layer has in the whole model and in its part: timm renames `stages.0` to `stages_0`, and adds `model.`."""
    return name.removeprefix("model.").removeprefix("body.").replace(".", "_")
