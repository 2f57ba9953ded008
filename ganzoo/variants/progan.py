"""ProGAN: Progressive Growing of GANs for Improved Quality, Stability, and Variation (Karras et al. 2018,
arXiv:1710.10196)."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from ganzoo.core.limits import Count, NonNegative, Positive, Size
from ganzoo.core.module import GANModule
from ganzoo.core.types import Batch, Terms, full_precision
from ganzoo.functional.penalties import gradient_penalty
from ganzoo.functional.schedules import growth
from ganzoo.networks.progan import ProGANDiscriminator, ProGANGenerator, blended, layout, repeated, shrunk
from ganzoo.optim.adam import FusedAdam


class ProGAN(GANModule):
    """min_G max_D E D(x) - E D(G(z)) - penalty / norm^2 E (|grad D(x_u)| - norm)^2 - drift E D(x)^2, x_u between a real
    and a fake (appendix A).

    Both networks grow: they begin with images of 4 to 7 pixels, for `stable` images. Then, for each doubling of the
    size, layers for the new size are faded in over `fade` images, during which reals, fakes and D's features are
    mixtures of two sizes (figure 2), and the networks are trained for `stable` images. The stage is a function of the
    images seen, and samples are of the current one.

    All layers exist from the start, and are trained once they are part of a stage. Images have the final size in all
    stages: G repeats pixels, D averages them, and the penalty is that of the image in the current size. The authors'
    code takes the gradient at the repeated pixels, which is shorter: until the last stage it allows D steeper slopes.
    The gradient is that of the sum of D's scores, each of which depends on the other images of the batch.

    The paper's batches have 16 images up to 128x128, then 14, 6 and 3 at 256, 512 and 1024; here all are equal.

    Args:
        image_size: pixels: 4, 5, 6 or 7 times a power of two from 2 up, such as 28, 32 or 64; or [height, width].
        channels: of the image.
        z_dim: size of the latent, standard normal, which G scales to a sphere.
        maps, width: a layer whose images have s pixels on the shorter side has maps / s feature maps, at most `width`.
        group: images of a batch whose standard deviation is an input of D's last layers (section 3); None: all, as in
            the paper; 1: none.
        stable: images of each stage, without the fade.
        fade: images in which a stage is faded in.
        penalty: weight of the gradient penalty, lambda.
        norm: gradient norm at which the penalty is 0, gamma in section 6.5.
        drift: weight of the squared score of reals.
        ema_half_life: in images, of the averaged generator: the paper's decay of 0.999 per batch of 16; None: no
            averaging.
        optimizer: Adam.
        **game: see `GANModule`.

    Raises:
        ValueError: the networks do not support the image size, or `maps` is below its shorter side.
    """

    boundary = None  # a critic's scores have no sign
    alpha: Tensor  # weight of the newest layers, in training

    def __init__(
        self,
        image_size: Size = 1024,
        channels: Count = 3,
        z_dim: Count = 512,
        maps: Count = 16384,
        width: Count = 512,
        group: Count | None = None,
        stable: NonNegative = 800_000.0,
        fade: NonNegative = 800_000.0,
        penalty: Positive = 10.0,
        norm: Positive = 1.0,
        drift: NonNegative = 1e-3,
        ema_half_life: Positive | None = 11_085.0,
        optimizer: OptimizerCallable = lambda params: FusedAdam(params, lr=1e-3, beta1=0.0, beta2=0.99),
        **game: Any,
    ) -> None:
        super().__init__(optimizer=optimizer, ema_half_life=ema_half_life, **game)
        self.z_dim, self.doublings = z_dim, layout(image_size)[0]
        self.stable, self.fade = stable, fade
        self.penalty, self.norm, self.drift = penalty, norm, drift
        self.register_buffer("alpha", torch.ones(()), persistent=False)
        self.stage, self.fading = 0, False  # in training
        self.generator = ProGANGenerator(image_size, channels, z_dim, maps, width)
        self.discriminator = ProGANDiscriminator(image_size, channels, maps, width, group)

    def on_train_start(self) -> None:
        """Warns if the training ends before the last stage."""
        super().on_train_start()
        steps = self.trainer.max_steps - self.trainer.global_step
        batch = getattr(getattr(self.trainer, "datamodule", None), "batch_size", None)
        if steps <= 0 or not isinstance(batch, int):
            return
        stage, alpha = growth(self.images_seen + (steps - 1) * batch, self.doublings, self.stable, self.fade)
        if (stage, alpha) != (self.doublings, 1.0):
            last = f"{'the fade of ' if alpha < 1 else ''}stage {stage + 1} of {self.doublings + 1}"
            rank_zero_warn(
                f"the run ends in {last}, before the last stage is complete: lower model.stable and model.fade, or "
                "raise trainer.max_steps"
            )

    def schedule(self, images_seen: int) -> None:
        """The stage of the next batch."""
        before = self.stage, self.fading
        self.stage, alpha = growth(images_seen, self.doublings, self.stable, self.fade)
        self.fading = alpha < 1
        self.alpha.fill_(alpha)
        if self.compile_losses and before != (self.stage, self.fading):
            torch.compiler.reset()  # torch compiles a function 8 times, then no more

    def grown(self, network: nn.Module) -> tuple[int, Tensor | float | None]:
        """Stage, and alpha in a fade: those of the batch in training, and else those of the images seen."""
        if network.training:
            return self.stage, self.alpha if self.fading else None
        stage, alpha = growth(self.images_seen, self.doublings, self.stable, self.fade)
        return stage, alpha if alpha < 1 else None

    def reals(self, batch: Batch) -> Tensor:
        """Reals in the current size, and in a fade their mixture with the size before, enlarged as fakes are."""
        stage, alpha = self.grown(self.discriminator)
        k = 2 ** (self.doublings - stage)
        x = repeated(shrunk(batch["image"], k), k)
        return x if alpha is None else blended(repeated(shrunk(x, 2 * k), 2 * k), x, alpha)

    def discriminator_loss(self, batch: Batch) -> Terms:
        x, fakes = self.reals(batch), self.fakes(batch)
        real, fake = self.discriminate(x), self.discriminate(fakes)
        # a gradient at an image in its own size is longer: each of its pixels is k x k of those here
        k = 2 ** (self.doublings - self.grown(self.discriminator)[0])
        penalty = gradient_penalty(lambda x: k / self.norm * self.discriminate(x), x, fakes, batch["u"])
        self.observe("wasserstein", real.mean() - fake.mean())
        terms = {"real": -real.mean(), "fake": fake.mean(), "penalty": self.penalty * penalty}
        return {**terms, "drift": self.drift * real.square().mean()}

    def generator_loss(self, batch: Batch) -> Terms:
        return {"fake": -self.discriminate(self.fakes(batch)).mean()}

    def discriminate(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        scores = self.discriminator(self.augment(x), *self.grown(self.discriminator))
        found: Tensor = self.augment.heard(x, full_precision(scores))
        return found

    def synthesize(self, network: Any, batch: Batch) -> Tensor:
        images: Tensor = network(batch["z"], *self.grown(network))
        return images

    def draw(self, n: int, generator: torch.Generator) -> Batch:
        return {"z": self.latent(n, generator), "u": torch.rand(n, device=generator.device, generator=generator)}


def celebahq(**arguments: Any) -> ProGAN:
    """The paper's model for CelebA-HQ at 1024x1024 (table 2); the authors train it with flips."""
    return ProGAN(**arguments)


def cifar10(**arguments: Any) -> ProGAN:
    """The paper's model for CIFAR-10, without labels (section 6.5).

    Sizes and phases are those of the authors' code; by the paper's text they are CelebA-HQ's.
    """
    sizes = {"image_size": 32, "z_dim": 128, "maps": 8192, "width": 128}
    return ProGAN(**{**sizes, "norm": 750.0, "stable": 400_000.0, "fade": 400_000.0, **arguments})
