"""How weights begin."""

from __future__ import annotations

from torch import nn


def normal_(network: nn.Module, std: float) -> None:
    """Weights from N(0, std), a batch norm's from N(1, std); biases 0; in place."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear | nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0 if isinstance(module, nn.BatchNorm2d) else 0.0, std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
