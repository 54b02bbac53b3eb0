"""Layers that a method adds on top of the shared encoders, and that start as the identity.

Training then starts from what the initialization has learned. A head with random weights maps all inputs to nearly the same output, and
a margin loss is lowered fastest if the encoders follow it there.
"""

from __future__ import annotations

from torch import Tensor, nn


def identity_layer(dim: int) -> nn.Linear:
    """Return one fully connected layer that starts as the identity."""
    layer = nn.Linear(dim, dim)
    nn.init.eye_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class ResidualLayers(nn.Module):
    """x + MLP(x), (n, dim) → (n, dim), with two fully connected layers and a ReLU in between; the last one starts at zero."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        last = nn.Linear(dim, dim)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), last)

    def forward(self, x: Tensor) -> Tensor:
        """Return x + MLP(x)."""
        added: Tensor = self.layers(x)
        return x + added
