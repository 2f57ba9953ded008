"""R3GAN: The GAN is dead; long live the GAN! A Modern GAN Baseline (Huang et al. 2025, arXiv:2501.05441)."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.utils._pytree import tree_map

from ganzoo.augment import ADA
from ganzoo.core import penalised
from ganzoo.core.batch import size
from ganzoo.core.limits import Count, NonNegative, Positive, PositiveShare, Probability, Size, sides
from ganzoo.core.module import GANModule
from ganzoo.core.player import PLAYERS
from ganzoo.core.types import Batch, Terms
from ganzoo.functional.losses import log_fake, log_real, relativistic
from ganzoo.functional.penalties import scores_and_squared_gradients, squared_differences
from ganzoo.functional.schedules import cosine
from ganzoo.networks.r3gan import R3GANDiscriminator, R3GANGenerator, stage_widths
from ganzoo.optim.adam import FusedAdam
from ganzoo.penalties.gradients import Step


class R3GAN(GANModule):
    """min_D E f(D(G(z)) - D(x)) + gamma / 2 (E |grad D(x)|^2 + E |grad D(G(z))|^2);  min_G E f(D(x) - D(G(z))).

    Here f(t) = log(1 + e^t) (section 2). D compares each fake with a real, of the same class if there are labels. The
    penalties, R1 and R2, are part of every update of D. The networks have no norms, no z or noise in deeper
    layers, no minibatch statistics and no equalised learning rates (section 3).

    The players have different reals: D the first, third, ... image of a batch, and G the others. So a batch of 2 N is
    what the paper calls a batch of N. All numbers of images count both halves, so they are twice the paper's.

    Burn-in (section 4): over the first `burn_in` images, the learning rate and gamma fall, and Adam's beta2 and the
    half-life of the averaged generator rise, along a cosine. `ADA` with `p` and `p_end` changes its probability
    likewise.

    Args:
        image_size: pixels: 4, 5, 6 or 7 times a power of two from 2 to 128, such as 28, 32 or 64; or [height, width].
        channels: of the image.
        num_classes: number of classes, for an embedding in G and a projection in D; None: unconditional.
        conditional: whether to use labels, if there are any.
        z_dim: size of the latent, standard normal.
        embedding: size of G's embedding of a label; None: z_dim.
        width: feature maps of a stage; blocks have twice as many within. A list: of each stage, from the smallest size.
        wide_to: shorter side, in pixels, up to which stages have `width` feature maps; each larger one has half as many
            as the one before it. Ignored if `width` is a list.
        blocks: residual blocks of a stage.
        group_size: feature maps of a group of the 3x3 convolutions; None: no groups.
        gamma: weight of the penalties.
        relativistic: False: the non-saturating loss of Goodfellow et al. (2014), for comparison.
        r2: False: R1 alone, for comparison.
        difference: eps, 1e-4 to 1, for example 0.01: R1 and R2 are estimated by ((D(x + eps n) - D(x)) / eps)^2 with
            n ~ N(0, 1), which needs no second derivatives, but has more variance. None: exact gradients.
        burn_in: images of the burn-in; None: learning rate, gamma, beta2 and half-life are constant.
        lr_share: learning rate after the burn-in, as a share of the first one.
        gamma_share: gamma after the burn-in, as a share of `gamma`.
        final_beta2: Adam's beta2 after the burn-in.
        ema_half_life: of the averaged generator, in images; rises from 0 to this during the burn-in.
        optimizer: Adam, as at the start of the burn-in.
        **game: see `GANModule`.

    Raises:
        ValueError: the networks do not support the image size, `width` does not divide into groups or halves, or
            `share_fakes` is set.
        MisconfigurationException: in training: a process has an odd number of images in a batch.
    """

    gamma: Tensor  # current value
    batch_parts = 2

    def __init__(
        self,
        image_size: Size = 32,
        channels: Count = 3,
        num_classes: Count | None = None,
        conditional: bool = True,
        z_dim: Count = 64,
        embedding: Count | None = None,
        width: Count | list[int] = 768,
        wide_to: Count = 32,
        blocks: Count = 2,
        group_size: Count | None = 16,
        gamma: NonNegative = 0.05,
        relativistic: bool = True,
        r2: bool = True,
        difference: Step | None = None,
        burn_in: Positive | None = 4e7,
        lr_share: PositiveShare = 0.25,
        gamma_share: PositiveShare = 0.1,
        final_beta2: Probability = 0.99,
        ema_half_life: Positive | None = 1e7,
        optimizer: OptimizerCallable = lambda params: FusedAdam(params, lr=2e-4, beta1=0.0, beta2=0.9),
        **game: Any,
    ) -> None:
        super().__init__(optimizer=optimizer, ema_half_life=ema_half_life, **game)
        if self.share_fakes:
            raise ValueError("share_fakes: R3GAN trains the players on different halves of a batch; leave it out")
        self.num_classes = num_classes if conditional else None
        self.z_dim = z_dim
        self.relativistic, self.r2, self.difference = relativistic, r2, difference
        self.boundary = None if relativistic else 0.0  # differences of scores have no sign for reals alone
        self.burn_in, self.lr_share, self.final_beta2 = burn_in, lr_share, final_beta2
        self.gammas, self.final_half_life = (gamma, gamma_share * gamma), self.ema_half_life
        self.shape = channels, *sides(image_size)
        self.register_buffer("gamma", torch.tensor(float(gamma)), persistent=False)
        widths = stage_widths(image_size, width, wide_to, group_size)
        self.generator = R3GANGenerator(
            image_size, channels, z_dim, widths, blocks, group_size, self.num_classes, embedding or z_dim
        )
        self.discriminator = R3GANDiscriminator(
            image_size, channels, widths[::-1], blocks, group_size, self.num_classes
        )

    def play(self, batch: Batch) -> None:
        """An update of D and, if due, of G, each on half of the batch; alternate images, so that processes agree."""
        if size(batch) % 2:
            raise MisconfigurationException(
                f"R3GAN trains each player on half of a batch, but a process has {size(batch)} images: make its "
                "number of images even"
            )
        for_d, for_g = (tree_map(lambda t, i=i: t[i::2], batch) for i in range(2))
        self.discriminator_step(for_d)
        if self.generator_due():
            for _ in range(self.n_generator):
                self.generator_step(for_g)

    def discriminator_loss(self, batch: Batch) -> Terms:
        y = self.labels(batch)
        real, r1 = self.judge(batch["image"], y, batch, 0)
        fakes = self.fakes(batch)
        fake, r2 = self.judge(fakes, y, batch, 1) if self.r2 else (self.discriminate(fakes, y), None)
        pairs, single = {"relativistic": relativistic(real, fake)}, {"real": -log_real(real), "fake": -log_fake(fake)}
        terms = pairs if self.relativistic else single
        penalties = {"r1": r1} if r2 is None else {"r1": r1, "r2": r2}
        return terms | {name: self.gamma / 2 * squares.mean() for name, squares in penalties.items()}

    def generator_loss(self, batch: Batch) -> Terms:
        y = self.labels(batch)
        fake = self.discriminate(self.fakes(batch), y)
        if not self.relativistic:
            return {"fake": -log_real(fake)}
        return {"relativistic": relativistic(fake, self.discriminate(batch["image"], y))}

    def judge(self, x: Tensor, y: Tensor | None, batch: Batch, which: int) -> tuple[Tensor, Tensor]:
        """D's scores [N] of images, and the squared norms of their gradients [N], or estimates; both in float32."""
        score = partial(self.discriminate, y=y)
        if self.difference is None:
            scores, squares = scores_and_squared_gradients(score, x)
            return self.augment.heard(x, scores), squares
        with torch.autocast(x.device.type, enabled=False):  # too coarse for differences
            scores = score(x.float())
            with self.augment.again(self.augment.calls - 1):
                near = score(x.float() + self.difference * batch["perturbation"][:, which])
            return scores, squared_differences(scores, near, self.difference)

    def draw(self, n: int, generator: torch.Generator) -> Batch:
        drawn: Batch = {"z": self.latent(n, generator)}
        if self.difference is not None:
            drawn["perturbation"] = self.normal(generator, n, 2, *self.shape)
        return drawn

    def schedule(self, images_seen: int) -> None:
        """The burn-in; a given `lr_scheduler` keeps its learning rates."""
        if self.burn_in is None:
            return
        at = partial(cosine, images_seen=images_seen, images=self.burn_in)
        self.gamma.fill_(at(*self.gammas))
        if self.final_half_life is not None:
            self.ema_half_life = max(1.0, at(0.0, self.final_half_life))
        for player, optimizer in zip(PLAYERS, self.trainer.optimizers, strict=False):  # none in `validate`
            first = optimizer.defaults
            last = self.final_beta2 ** (1 / penalised.steps(self, player))  # as `for_more_steps` corrects the first
            for group in optimizer.param_groups:
                if self.lr_scheduler is None:
                    group["lr"] = at(first["lr"], self.lr_share * first["lr"])
                if "betas" in group:
                    group["betas"] = first["betas"][0], at(first["betas"][1], last)


def cifar10(**arguments: Any) -> R3GAN:
    """The paper's model for CIFAR-10 with labels, trained with flips in batches of 512 for each player."""
    return _published(arguments, gamma=0.05, p=0.55, ema_half_life=1e7, num_classes=10)


def ffhq64(**arguments: Any) -> R3GAN:
    """The paper's model for FFHQ at 64x64; flips, batches of 256."""
    return _published(arguments, image_size=64, gamma=2.0, p=0.3)


def ffhq256(**arguments: Any) -> R3GAN:
    """The paper's model for FFHQ at 256x256; flips, batches of 256."""
    return _published(arguments, image_size=256, gamma=150.0, p=0.3)


def imagenet32(**arguments: Any) -> R3GAN:
    """The paper's model for ImageNet at 32x32; flips, batches of 4096."""
    return _imagenet(arguments, gamma=0.5, p=0.5)


def imagenet64(**arguments: Any) -> R3GAN:
    """The paper's model for ImageNet at 64x64; flips, batches of 4096."""
    return _imagenet(arguments, image_size=64, gamma=1.0, p=0.4)


def _imagenet(arguments: dict[str, Any], **paper: Any) -> R3GAN:
    large = {"num_classes": 1000, "width": 1536, "wide_to": 64, "group_size": 32, "burn_in": 4e8, "ema_half_life": 1e8}
    return _published(arguments, **large, **paper)


def _published(arguments: dict[str, Any], p: float, **paper: Any) -> R3GAN:
    """p rises with the burn-in; without one it is constant."""
    settings = {"burn_in": 4e7, "ema_half_life": 1e6, **paper, **arguments}
    images = settings["burn_in"]
    rising = {"p": p} if images is None else {"p": 0.0, "p_end": p, "ramp": images}
    return R3GAN(**{"augment": ADA(**rising, color=0.5, cutout=1.0), **settings})
