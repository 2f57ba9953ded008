"""Weight initialisation."""

from __future__ import annotations

from torch import nn

NORMS = nn.BatchNorm2d | nn.InstanceNorm2d


def normal_(network: nn.Module, std: float) -> None:
    """Weights from N(0, std), gains of batch and instance norms of images from N(1, std), biases 0; in place.

    As in the authors' code of DCGAN (Theano), Pix2Pix and CycleGAN (Lua).
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear | NORMS):
            nn.init.normal_(module.weight, 1.0 if isinstance(module, NORMS) else 0.0, std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def xavier_(network: nn.Module) -> None:
    """Glorot & Bengio's uniform weights, with a gain of sqrt 2 in 3x3 convolutions that other layers follow; biases 0.

    As in the authors' code of WGAN-GP's and SNGAN's residual networks; in place.

    Args:
        network: an output layer named `out` has gain 1.
    """
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            hidden = isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1) and name != "out"
            nn.init.xavier_uniform_(module.weight, 2**0.5 if hidden else 1.0)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def orthogonal_(network: nn.Module) -> None:
    """Orthogonal weights (Saxe et al. 2013, arXiv:1312.6120) of convolutions, linear layers and tables; biases 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.Embedding):
            nn.init.orthogonal_(module.weight)
            if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
