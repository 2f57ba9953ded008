"""A linear classifier on a discriminator's features (Radford et al. 2015, arXiv:1511.06434, section 5.1)."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from sklearn.svm import LinearSVC
from torch import Tensor, nn
from torch.nn.functional import adaptive_max_pool2d

GRID = 4  # height and width to which each layer's maps are pooled

Labelled = tuple[Tensor, Tensor]  # images [N, C, H, W] in [-1, 1], labels [N]


@torch.no_grad()
def grid_features(network: nn.Module, images: Tensor, batch_size: int = 256) -> Tensor:
    """Feature maps after all ReLU and leaky ReLU layers, max-pooled to 4x4: float32 [N, d] on the CPU.

    Runs a copy of the network in eval mode.

    Args:
        network: a discriminator that reads images [N, C, H, W] only.
        images: in [-1, 1], on the network's device.
        batch_size: images per forward pass.

    Raises:
        ValueError: the network has no such feature maps.
    """
    network, maps = copy.deepcopy(network).eval(), []
    for module in network.modules():
        if isinstance(module, nn.ReLU | nn.LeakyReLU):
            module.register_forward_hook(lambda _, inputs, output: maps.append(output))
    rows = []
    for part in images.split(batch_size):
        maps.clear()
        network(part)
        pooled = [adaptive_max_pool2d(m.float(), GRID).flatten(1).cpu() for m in maps if m.ndim == 4]
        if not pooled:
            raise ValueError(
                f"{type(network).__name__} has no convolutional layers followed by a ReLU; choose another network"
            )
        rows.append(torch.cat(pooled, 1))
    return torch.cat(rows)


def linear_accuracy(network: nn.Module, train: Labelled, tests: Iterable[Labelled], C: float = 1.0) -> list[float]:
    """Accuracies of a linear L2-SVM on `grid_features` (Radford et al. 2015, arXiv:1511.06434, section 5.1).

    Args:
        network: a discriminator that reads images [N, C, H, W] only.
        train: training set of the SVM: images [N, C, H, W] in [-1, 1] on the network's device, and labels [N].
        tests: held-out sets, likewise.
        C: inverse regularisation strength of the SVM, above 0. The paper does not give it; choose it on held-out
            images.

    Returns:
        One accuracy in [0, 1] per held-out set.

    Raises:
        ValueError: the network has no convolution followed by a ReLU or leaky ReLU.
    """
    images, labels = train
    svm = LinearSVC(C=C, loss="squared_hinge", max_iter=10_000, random_state=0)
    svm.fit(grid_features(network, images).numpy(), labels.numpy())
    return [float(svm.score(grid_features(network, x).numpy(), y.numpy())) for x, y in tests]
