"""GAN: Generative Adversarial Nets (Goodfellow et al. 2014, arXiv:1406.2661)."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.optim import SGD

from ganzoo.core.limits import Count, Size
from ganzoo.core.module import GANModule
from ganzoo.core.pixels import scaled
from ganzoo.core.types import Batch, Terms
from ganzoo.functional.divergences import F_DIVERGENCES
from ganzoo.networks.mlp import MaxoutDiscriminator, MLPGenerator
from ganzoo.optim.schedule import anneal_sgd

Objective = Literal["non-saturating", "minimax", "maximum-likelihood"]
Divergence = Literal["gan", "kl", "reverse-kl", "pearson", "hellinger", "jensen-shannon"]


class GAN(GANModule):
    """min_G max_D V(D, G) = E log D(x) + E log(1 - D(G(z))) (eq. 1), with multilayer perceptrons.

    D is trained with dropout, which stays active in G's updates. The paper's k discriminator steps per generator step
    are `n_critic`; it used 1. Losses and alternation follow the text (eq. 1, algorithm 1); the authors' code (pylearn2,
    github.com/goodfeli/adversarial, mnist.yaml) halves D's loss and updates both players on the same samples. Where the
    text is silent, the code is followed: latents are uniform in (-sqrt 3, sqrt 3), of variance 1, and G's last biases
    are initialised to the logits of the training images' mean pixels, if ganzoo's data module provides them, else to 0.

    With another `divergence` it is an f-GAN (Nowozin et al. 2016, arXiv:1606.00709): D's output V is not a logit, and D
    maximises E g_f(V(x)) - E f*(g_f(V(G(z)))) (eq. 6; `F_DIVERGENCES`), which equals eq. 1 for "gan". At the optimal V
    this is the divergence between data and fakes; minus `D/loss` is a lower bound of it. With r = log(p_data / p_g) the
    optimal V is r for "gan", "jensen-shannon" (equal to "gan" up to a constant) and "reverse-kl", 1 + r for "kl", r / 2
    for "hellinger", and 2 (e^r - 1) for "pearson" (the integral of (p_data - p_g)^2 / p_g).

    Args:
        image_size: pixels, or [height, width].
        channels: of the image.
        z_dim: size of the latent.
        hidden: units of each of G's two hidden layers.
        d_hidden: units of each of D's two maxout layers.
        pieces: linear pieces of a maxout unit.
        objective: G minimises -E log D(G(z)) ("non-saturating", recommended by the paper), E log(1 - D(G(z)))
            ("minimax", eq. 1), or -E exp(logit D(G(z))) ("maximum-likelihood", Goodfellow 2016, arXiv:1701.00160,
            eq. 14). For other divergences, "non-saturating" is -E g_f(V(G(z))) (Nowozin's section 3.2), "minimax"
            -E f*(g_f(V(G(z)))).
        divergence: the divergence that D estimates. Losses with exponentials or squares (all but "gan" and
            "jensen-shannon") diverge under the paper's SGD: use another optimizer, as configs/gan/digits-kl.yaml does.
        optimizer: the paper's SGD; `schedule` sets its learning rate and momentum.
        **game: see `GANModule`.

    Raises:
        ValueError: `objective` is "maximum-likelihood", which needs a logit, and `divergence` is not "gan".
    """

    prior = "uniform"

    def __init__(
        self,
        image_size: Size = 28,
        channels: Count = 1,
        z_dim: Count = 100,
        hidden: Count = 1200,
        d_hidden: Count = 240,
        pieces: Count = 5,
        objective: Objective = "non-saturating",
        divergence: Divergence = "gan",
        optimizer: OptimizerCallable = lambda params: SGD(params, lr=0.1, momentum=0.5),
        **game: Any,
    ) -> None:
        super().__init__(optimizer=optimizer, **game)
        if objective == "maximum-likelihood" and divergence != "gan":
            raise ValueError(f"maximum-likelihood needs a logit: use divergence 'gan', not {divergence!r}")
        self.z_dim = z_dim
        self.objective, self.divergence = objective, divergence
        self.boundary = F_DIVERGENCES[divergence].optimal(torch.zeros((), device="cpu")).item()
        self.generator = MLPGenerator(image_size, channels, z_dim, hidden)
        self.discriminator = MaxoutDiscriminator(image_size, channels, d_hidden, pieces)
        self.z_bound = math.sqrt(3)  # of the prior; saved with the weights, which depend on it
        self.register_state_dict_post_hook(_save_bound)
        self.register_load_state_dict_pre_hook(_load_bound)

    def uniform(self, generator: torch.Generator | None, *shape: int) -> Tensor:
        """Uniform numbers in (-z_bound, z_bound)."""
        return super().uniform(generator, *shape) * self.z_bound

    def on_fit_start(self) -> None:
        super().on_fit_start()
        dataset = getattr(getattr(self.trainer, "datamodule", None), "dataset", None)
        networks = [network for network in (self.generator, self.ema) if isinstance(network, MLPGenerator)]
        if networks and self.images_seen == 0 and callable(dataset):
            mean = mean_pixels(dataset("train"))
            for network in networks:
                network.start_at(mean)

    def discriminator_loss(self, batch: Batch) -> Terms:
        real = self.discriminate(batch["image"])
        fake = self.discriminate(self.fakes(batch))
        return {"real": -self.log_real(real), "fake": -self.log_fake(fake)}

    def generator_loss(self, batch: Batch) -> Terms:
        fake = self.discriminate(self.fakes(batch))
        if self.objective == "minimax":
            return {"fake": self.log_fake(fake)}
        if self.objective == "maximum-likelihood":
            return {"fake": -fake.exp().mean()}
        return {"fake": -self.log_real(fake)}

    def log_real(self, output: Tensor) -> Tensor:
        """E log D, a scalar, of D's logits [N]; for other divergences E g_f(V)."""
        return F_DIVERGENCES[self.divergence].activation(output).mean()

    def log_fake(self, output: Tensor) -> Tensor:
        """E log(1 - D); for other divergences -E f*(g_f(V))."""
        return -F_DIVERGENCES[self.divergence].fake(output).mean()

    def schedule(self, images_seen: int) -> None:
        if self.lr_scheduler is None:
            anneal_sgd(self.trainer.optimizers, images_seen, decay=1.000004)


def mean_pixels(images: Any, at_most: int = 50_000) -> Tensor:
    """Mean image, float64 [C, H, W] in [-1, 1], of a data set, from at most `at_most` evenly spaced images."""
    numbers = range(0, len(images), -(-len(images) // at_most))
    total: Any = 0
    for start in range(0, len(numbers), 1000):
        total = total + scaled(images.__getitems__(numbers[start : start + 1000])["image"]).double().sum(0)
    return total / len(numbers)


def _save_bound(model: GAN, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Hook of `state_dict`. The bound is not a buffer, since reading one from a GPU would synchronise at every step."""
    state[f"{prefix}z_bound"] = torch.tensor(model.z_bound)


def _load_bound(model: GAN, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Hook of `load_state_dict`; older weights, without a bound, were trained on latents in (-1, 1)."""
    model.z_bound = float(state.pop(f"{prefix}z_bound", 1.0))
