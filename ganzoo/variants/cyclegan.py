"""CycleGAN: Unpaired Image-to-Image Translation by Cycle-Consistent GANs (Zhu et al. 2017, arXiv:1703.10593)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.nn.functional import l1_loss

from ganzoo.core.limits import Count, CountFrom0, Limits, NonNegative, Size
from ganzoo.core.module import GANModule
from ganzoo.core.pool import ImagePool, refill, shares
from ganzoo.core.types import Batch, Terms, full_precision
from ganzoo.functional.schedules import falling
from ganzoo.networks.patch import PatchDiscriminator
from ganzoo.networks.resnet import ResNetTranslator
from ganzoo.optim.adam import FusedAdam


class CycleGAN(GANModule):
    """L_GAN(G, D_Y) + L_GAN(F, D_X) + 10 L_cyc(G, F) (eq. 3), on unpaired sources x and images y.

    G: x -> y and F: y -> x are both in `generator`, each with a patch discriminator and least-squares losses: G
    minimises E (D_Y(G(x)) - 1)^2, and D_Y minimises half of E (D_Y(y) - 1)^2 + E D_Y(G(x))^2. L_cyc = E |F(G(x)) - x| +
    E |G(F(y)) - y| (eq. 2). G and F are updated first; the discriminators are then trained on fakes of that step, mixed
    with older ones from a pool.

    `sample(source=x)` is G(x), `translate_back(y)` is F(y).

    Arguments for the paper's ablations: cycle alone (`gan=0`), GAN alone (`cycle=0`), GAN and the cycle of one
    direction (`directions="forward"`, `"backward"`).

    Args:
        image_size: pixels, or [height, width]: 8, 12, 16, ... each; of the source as well.
        channels: of the image.
        source_channels: of the source.
        width: feature maps of all networks' first layers.
        blocks: residual blocks of G and F, 0 to 1000; None: the paper's 9, or 6 below 256 pixels.
        receptive_field: of the discriminators' logits, in pixels: 1, 7, 16, 34, 70, 142, 286; None: the paper's 70, or
            the largest that does not exceed the image.
        cycle: weight of L_cyc.
        directions: of L_cyc: "both"; "forward", E |F(G(x)) - x| only; "backward", E |G(F(y)) - y| only.
        gan: weight of the adversarial terms of G and F; with 0, the discriminators are still trained but have no
            effect.
        identity: weight of E |G(y) - y| + E |F(x) - x|, which preserves colours; 5 (half of `cycle`) in the paper for
            generating photographs from paintings.
        pool: size of the pool of fakes of each domain, per process; 0 for none.
        constant_images: images before the learning rates decay; the paper's 100 epochs.
        decay_images: images over which they decay linearly to 0; the paper's other 100 epochs. None: constant.
        optimizer: Adam as in the appendix, "training details".
        **game: see `GANModule`.

    Raises:
        ValueError: `cycle` and `gan` are both 0, the identity term would compare different numbers of channels, two
            schedules are given, `share_fakes` is set, or the networks do not support the image size.
    """

    generator: nn.ModuleDict
    discriminator: nn.ModuleDict
    boundary = None  # of two discriminators
    ema: nn.ModuleDict | None

    def __init__(
        self,
        image_size: Size = 256,
        channels: Count = 3,
        source_channels: Count = 3,
        width: Count = 64,
        blocks: Annotated[int, Limits(0, 1000)] | None = None,
        receptive_field: Count | None = None,
        cycle: NonNegative = 10.0,
        directions: Literal["both", "forward", "backward"] = "both",
        gan: NonNegative = 1.0,
        identity: NonNegative = 0.0,
        pool: CountFrom0 = 50,
        constant_images: CountFrom0 = 0,
        decay_images: Count | None = None,
        optimizer: OptimizerCallable = lambda params: FusedAdam(params, lr=2e-4, beta1=0.5),
        **game: Any,
    ) -> None:
        super().__init__(optimizer=optimizer, **game)
        if cycle == gan == 0:
            raise ValueError("cycle and gan are the weights of G's and F's loss terms: they must not both be 0")
        if identity and channels != source_channels:
            raise ValueError(
                f"identity needs equal numbers of channels, not {channels} and {source_channels}: set it to 0"
            )
        if self.share_fakes:
            raise ValueError("share_fakes: CycleGAN always reuses G's fakes; leave this option out")
        if decay_images is not None and self.lr_scheduler is not None:
            raise ValueError("decay_images and lr_scheduler both set the learning rates: give only one")
        self.source_channels = source_channels
        self.cycle = cycle
        self.directions = directions
        self.gan = gan
        self.identity = identity
        self.constant_images = constant_images
        self.decay_images = decay_images
        self.pools = {"image": ImagePool(pool), "source": ImagePool(pool)}
        self.generator = nn.ModuleDict(
            {
                "to_image": ResNetTranslator(image_size, channels, source_channels, width, blocks),
                "to_source": ResNetTranslator(image_size, source_channels, channels, width, blocks),
            }
        )
        self.discriminator = nn.ModuleDict(
            {
                "image": PatchDiscriminator(image_size, channels, None, width, receptive_field),
                "source": PatchDiscriminator(image_size, source_channels, None, width, receptive_field),
            }
        )

    def discriminator_loss(self, batch: Batch) -> Terms:
        terms = {}
        reals = batch["image"], batch["source"]
        for domain, real, fake in zip(("image", "source"), reals, self.fakes(batch), strict=True):
            terms[f"real_{domain}"] = (self.judge(domain, real) - 1).square().mean() / 2
            terms[f"fake_{domain}"] = self.judge(domain, fake).square().mean() / 2
        return terms

    def generator_loss(self, batch: Batch) -> Terms:
        to_image, to_source = self.generator["to_image"], self.generator["to_source"]
        image, source = batch["image"], batch["source"]
        fake_image, fake_source = self.fakes(batch)
        terms = {}
        if self.gan:
            terms["image"] = self.gan * (self.judge("image", fake_image) - 1).square().mean()
            terms["source"] = self.gan * (self.judge("source", fake_source) - 1).square().mean()
        if self.cycle and self.directions != "backward":
            terms["cycle"] = self.cycle * l1_loss(to_source(fake_image), source)
        if self.cycle and self.directions != "forward":
            terms["cycle"] = terms.get("cycle", 0) + self.cycle * l1_loss(to_image(fake_source), image)
        if self.identity:
            terms["identity"] = self.identity * (l1_loss(to_image(image), image) + l1_loss(to_source(source), source))
        return terms

    def play(self, batch: Batch) -> None:
        """The generators' step, if due; then the discriminators', on fakes from the pools."""
        steps = self.n_generator if self.generator_due() else 0
        once = steps == 1 and self.microbatches == 1 and not self.compile_losses  # reuse the forward pass
        with torch.set_grad_enabled(once):
            image, source = self.make_fakes(batch)
        for _ in range(steps):
            self.generator_step({**batch, "fakes": (image, source)} if once else batch)
        shown = self.pools["image"](image.detach()), self.pools["source"](source.detach())
        self.discriminator_step({**batch, "fakes": shown})

    def schedule(self, images_seen: int) -> None:
        if self.decay_images is not None:
            falling_for = max(images_seen - self.constant_images, 0)
            for optimizer in self.trainer.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = falling(optimizer.defaults["lr"], falling_for, self.decay_images)

    def make_fakes(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The fake image of the batch's source and the fake source of its image."""
        return self.generator["to_image"](batch["source"]), self.generator["to_source"](batch["image"])

    def judge(self, domain: str, x: Tensor) -> Tensor:
        """Logits [N, h, w] of the discriminator of images ("image") or sources ("source")."""
        return full_precision(self.discriminator[domain](self.augment(x)))

    def discriminate(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.judge("image", x)

    def latent(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Empty, [n, 0]: a translation depends only on its source."""
        return torch.empty(n, 0, device=self.device_of(generator))

    def synthesize(self, network: Any, batch: Batch) -> Tensor:
        """G(x) of `batch["source"]`; without a source, F(y) of `batch["image"]`."""
        if "source" in batch:
            return network["to_image"](batch["source"])
        return network["to_source"](batch["image"])

    def translate_back(self, image: Tensor) -> Tensor:
        """F: images [N, C, H, W] -> source images [N, C', H, W], both in [-1, 1]; the result is on the model's
        device."""
        return self.generate(self.latent(len(image)), {"image": image.to(self.device)})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["ganzoo"]["pools"] = shares(self.pools)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        refill(self.pools, checkpoint["ganzoo"]["pools"])
