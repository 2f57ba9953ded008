"""WGAN-GP: Improved Training of Wasserstein GANs (Gulrajani et al. 2017, arXiv:1704.00028)."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.nn.functional import cross_entropy

from ganzoo.core.limits import Count, Positive, Size
from ganzoo.core.module import GANModule
from ganzoo.core.types import Batch, Terms
from ganzoo.functional.penalties import gradient_penalty
from ganzoo.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from ganzoo.networks.mlp import ReLUDiscriminator, ReLUGenerator
from ganzoo.networks.residual import ResidualDiscriminator, ResidualGenerator
from ganzoo.optim.adam import FusedAdam


class WGANGP(GANModule):
    """min_G max_f E f(x) - E f(G(z)) - penalty * E (|grad f(x_u)| - 1)^2, x_u between a real and a fake (eq. 3).

    With `conditional`, it is the supervised form of section 5, which is ACGAN's: G takes the label, and the critic has
    outputs that classify. As in the authors' code, the critic also minimises the cross-entropy of reals, and G a tenth
    of that of its fakes.

    Initial weights of "dcgan" are DCGAN's (the authors': uniform with the same deviation, gains of 1), those of "mlp"
    torch's (the authors': He's, and a linear output). The critic has no batch norm, since its score of an image must
    not depend on the batch (section 4). The paper's scores on CIFAR-10 are those of its residual networks
    (`architecture`); the authors' code gives G batches of 128.

    Args:
        image_size: pixels: 8, 16, 32, 64, ...; or [height, width], such as [64, 96]; any for "mlp"; see `SNGAN` for
            "resnet".
        channels: of the image.
        z_dim: size of the latent, standard normal.
        width: feature maps of DCGAN's convolutions at half the image's size, of all residual blocks, or hidden units of
            the MLP.
        architecture: "dcgan"; "resnet", the residual networks for CIFAR-10 (appendix F), whose critic has no norm; or
            "mlp" with four linear layers. For "resnet" the paper has a width of 128 and a rate of 2e-4 that falls
            linearly to 0, as configs/wgangp/cifar10.yaml.
        norm: of DCGAN's critic: "layer", which the paper recommends instead of batch norm, or "none".
        resize: G of "dcgan" doubles sizes by repeating pixels before 3x3 convolutions, instead of fractionally-strided
            ones, which leave speckles (Odena et al. 2016, https://doi.org/10.23915/distill.00003).
        penalty: weight of the gradient penalty, the paper's lambda.
        num_classes: number of classes, used if `conditional`.
        conditional: the supervised form, not for "mlp".
        n_critic: critic updates per generator update, each on a new batch.
        optimizer: Adam as in algorithm 1.
        **game: see `GANModule`.

    Raises:
        ValueError: `conditional` without labels, or with the MLP; `resize` with other networks than "dcgan"; or the
            networks do not support the image size.
    """

    boundary = None  # a critic's scores have no sign

    def __init__(
        self,
        image_size: Size = 64,
        channels: Count = 3,
        z_dim: Count = 128,
        width: Count = 64,
        architecture: Literal["dcgan", "resnet", "mlp"] = "dcgan",
        norm: Literal["layer", "none"] = "layer",
        resize: bool = False,
        penalty: Positive = 10.0,
        num_classes: Count | None = None,
        conditional: bool = False,
        n_critic: Count = 5,
        optimizer: OptimizerCallable = lambda params: FusedAdam(params, lr=1e-4, beta1=0.0, beta2=0.9),
        **game: Any,
    ) -> None:
        super().__init__(optimizer=optimizer, n_critic=n_critic, **game)
        if conditional and (num_classes is None or architecture == "mlp"):
            lacking = "labelled data" if num_classes is None else "architecture dcgan or resnet: the MLP has no labels"
            raise ValueError(f"conditional needs {lacking}")
        if resize and architecture != "dcgan":
            raise ValueError(f"resize is for architecture dcgan, not {architecture}; leave it out")
        self.num_classes = classes = num_classes if conditional else None
        self.z_dim = z_dim
        self.penalty = penalty
        outputs = 1 + (classes or 0)
        networks: dict[str, tuple[Any, Any]] = {
            "dcgan": (
                partial(DCGANGenerator, num_classes=classes, resize=resize),
                partial(DCGANDiscriminator, norm=norm, outputs=outputs),
            ),
            "resnet": (
                partial(ResidualGenerator, num_classes=classes, flat=True),
                partial(ResidualDiscriminator, spectral=False, flat=True, mean=True, outputs=outputs),
            ),
            "mlp": (ReLUGenerator, ReLUDiscriminator),
        }
        G, D = networks[architecture]
        self.generator, self.discriminator = G(image_size, channels, z_dim, width), D(image_size, channels, width)

    def discriminate(self, x: Tensor, y: Tensor | None = None) -> Any:
        """Scores [N]; if conditional, these and the classes' logits [N, K]."""
        found = super().discriminate(x)
        return found if self.num_classes is None else (found[:, 0], found[:, 1:])

    def judge(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Scores, and logits of the classes, if there are any."""
        found = self.discriminate(x)
        return (found, None) if self.num_classes is None else found

    def discriminator_loss(self, batch: Batch) -> Terms:
        x, fakes = batch["image"], self.fakes(batch)
        (real, logits), (fake, _) = self.judge(x), self.judge(fakes)
        penalty = gradient_penalty(lambda x: self.judge(x)[0], x, fakes, batch["u"])
        self.observe("wasserstein", real.mean() - fake.mean())
        terms = {"real": -real.mean(), "fake": fake.mean(), "penalty": self.penalty * penalty}
        return terms if logits is None else {**terms, "class": cross_entropy(logits, batch["label"])}

    def generator_loss(self, batch: Batch) -> Terms:
        fake, logits = self.judge(self.fakes(batch))
        terms = {"fake": -fake.mean()}
        return terms if logits is None else {**terms, "class": 0.1 * cross_entropy(logits, batch["label"])}

    def draw(self, n: int, generator: torch.Generator) -> Batch:
        return {"z": self.latent(n, generator), "u": torch.rand(n, device=generator.device, generator=generator)}
