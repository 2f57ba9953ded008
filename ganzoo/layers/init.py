"""Weight initialisation."""

from __future__ import annotations

from torch import nn

NORMS = nn.BatchNorm2d | nn.InstanceNorm2d


def normal_(network: nn.Module, std: float) -> None:
    """Weights from N(0, std), gains of batch and instance norms from N(1, std), biases 0; in place.

    As in the authors' code of DCGAN (Theano), Pix2Pix and CycleGAN (Lua).
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear | NORMS):
            nn.init.normal_(module.weight, 1.0 if isinstance(module, NORMS) else 0.0, std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
