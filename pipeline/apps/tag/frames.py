"""Classifiers of frames: any model of timm with a classifier.

A frame is resized to the model's own input size, in whole: the center crop of the usual evaluation would miss what is at the border. It
can also be cut into tiles that are classified one by one, for scenes with several objects: a softmax divides its probability between
them, and the classes of small objects get little of it. Both are ours.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.apps.tag.classes import ClassList, read_class_names
from pipeline.common.config import TIMM
from pipeline.common.errors import TaggingError
from pipeline.model.backbones.torchvision_compat import load_timm
from pipeline.model.backbones.weights import TIMM_WEIGHTS, downloading, matched, read_weights
from pipeline.model.inference import inference

_WEIGHTS_OPTION = "--weights"


@dataclass(frozen=True)
class FrameModel:
    """Which classifier to use.

    Attributes
    ----------
    name : str
        ``timm:NAME``.
    weights : str
        A file, ``pip:PACKAGE``, or ``timm`` for the weights that timm downloads.
    labels : Path or None
        Names of its classes, see `read_class_names`; None for the classes of ImageNet.
    tiles : int >= 1
        The frame is cut into tiles × tiles; a class has the largest of their probabilities.
    device : str
        "cpu", "cuda", …
    """

    name: str
    weights: str = TIMM_WEIGHTS
    labels: Path | None = None
    tiles: int = 1
    device: str = "cpu"

    exclusive = True

    def load(self) -> FrameClassifier:
        """Load the classifier. Raises TaggingError, PackageError or CheckpointError if that is not possible."""
        return FrameClassifier(self)


class FrameClassifier:
    """A loaded classifier; call it with frames.

    Attributes
    ----------
    classes : ClassList
    digest : str
        Of weights and preprocessing.
    """

    def __init__(self, model: FrameModel) -> None:
        self.tiles, self.device = model.tiles, torch.device(model.device)
        self.net = _load(model).eval().to(self.device)
        facts: Any = self.net.pretrained_cfg
        self.size = tuple(facts["input_size"][-2:])
        self.interpolation = "bilinear" if facts["interpolation"] == "bilinear" else "bicubic"
        # n c H W, in 0..255
        self.mean, self.std = (
            255 * torch.tensor(facts[name], device=self.device)[:, None, None] for name in ("mean", "std")
        )
        self.classes = _classes(self.net, model)
        self.digest = _digest(self.net, [self.size, self.interpolation, facts["mean"], facts["std"]])

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """Classify frames.

        Parameters
        ----------
        frames : np.ndarray (n, row, col, 3) uint8

        Returns
        -------
        np.ndarray (n, tiles², class) float32
            Probabilities; each row sums to 1.
        """
        with inference():
            pixels = torch.from_numpy(frames).to(self.device).permute(0, 3, 1, 2).float()
            parts = [
                self._probabilities(part) for row in _cut(pixels, self.tiles, 2) for part in _cut(row, self.tiles, 3)
            ]
            found: np.ndarray = torch.stack(parts, dim=1).cpu().numpy()
            return found

    def _probabilities(self, pixels: Tensor) -> Tensor:
        resized = F.interpolate(pixels, self.size, mode=self.interpolation, antialias=True).clamp(0, 255)
        return torch.softmax(self.net((resized - self.mean) / self.std).float(), dim=1)


def _cut(pixels: Tensor, count: int, axis: int) -> Sequence[Tensor]:
    """Cut along an axis into parts whose sizes differ by at most one pixel."""
    return torch.tensor_split(pixels, count, dim=axis)


def _load(model: FrameModel) -> nn.Module:
    timm, name = load_timm(), model.name.removeprefix(TIMM)
    if not model.name.startswith(TIMM) or not timm.is_model(name):
        close = get_close_matches(name, timm.list_models(), n=3)
        raise TaggingError(
            f"--frames {model.name}: pass timm:NAME with a model of timm {timm.__version__}"
            + (f"; close: {', '.join(TIMM + each for each in close)}" if close else "")
        )
    downloaded = model.weights == TIMM_WEIGHTS
    with downloading(name, setting=_WEIGHTS_OPTION) if downloaded else nullcontext():
        net: nn.Module = timm.create_model(name, pretrained=downloaded)
    if not downloaded:
        # Unlike for a backbone, the classifier counts.
        content, own = read_weights(model.weights, setting=_WEIGHTS_OPTION), net.state_dict()
        tensors = matched(content, own, source=model.weights, setting=_WEIGHTS_OPTION, classifiers=())
        net.load_state_dict(tensors)
    return net


def _classes(net: nn.Module, model: FrameModel) -> ClassList:
    timm_data: Any = load_timm().data
    n_classes = int(getattr(net, "num_classes", 0))
    if not n_classes:
        raise TaggingError(f"--frames {model.name}: the model has no classifier; choose another one")
    if model.labels is not None:
        classes = read_class_names(model.labels)
        if len(classes.names) != n_classes:
            raise TaggingError(
                f"{model.labels}: {len(classes.names)} names, but {model.name} has {n_classes} classes; pass the names of its own classes"
            )
        return classes
    subset = timm_data.infer_imagenet_subset(net)
    if subset is None:
        raise TaggingError(
            f"{model.name} has {n_classes} classes, which are not those of ImageNet; pass their names with --frame-labels"
        )
    return imagenet_classes(subset)


def imagenet_classes(subset: str) -> ClassList:
    """Return the classes of ImageNet, or of a subset that timm knows, such as "imagenet-1k"."""
    info: Any = load_timm().data.ImageNetInfo(subset)
    ids = [info.index_to_label_name(number) for number in range(info.num_classes())]
    synonyms = [[name.strip() for name in info.label_name_to_description(each).split(",")] for each in ids]
    named = ClassList.of([names[0] for names in synonyms], ids)
    return ClassList(named.names, tuple((id_, *names) for id_, names in zip(ids, synonyms, strict=True)))


def _digest(net: nn.Module, preprocessing: Sequence[object]) -> str:
    digest = hashlib.sha256(repr(preprocessing).encode())
    for name, value in net.state_dict().items():
        digest.update(f"{name} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
