"""StyleGAN3: Alias-Free Generative Adversarial Networks (Karras et al. 2021, arXiv:2106.12423)."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from ganzoo.augment.ada import ADA
from ganzoo.core.batch import size
from ganzoo.core.limits import Count, Layers, NonNegative, Positive, Size
from ganzoo.core.strategy import gather
from ganzoo.core.types import Batch, full_precision
from ganzoo.functional.equivariance import resample
from ganzoo.functional.schedules import falling
from ganzoo.networks.stylegan2 import StyleGAN2Discriminator
from ganzoo.networks.stylegan3 import StyleGAN3Generator
from ganzoo.optim.adam import FusedAdam
from ganzoo.variants.stylegan import StyleGAN

SQUARE_INTERVAL = 4  # batches from one of their updates to the next, times `n_critic`
REACH = 3  # of the blur, in its sigmas


class StyleGAN3(StyleGAN):
    """min_D E f(D(G(z))) + E f(-D(x)) + gamma / 2 E |grad D(x)|^2;  min_G E f(-D(G(z))), with f(t) = log(1 + e^t).

    G's feature maps are samples of continuous signals, below half the sampling rate: details move with the shapes
    that they belong to, not with the pixels. The input consists of Fourier features, moved and rotated by w; each leaky
    ReLU is applied at a higher sampling rate, between filters; there is no noise. Configuration T is equivariant to
    translations, R also to rotations, by 1x1 convolutions and radially symmetric filters. Each layer is divided by the
    root of its input's running mean square, which is part of G's state.

    D, the mapping and lazy R1 are StyleGAN2's, without path lengths and mixing of styles. G is updated first. Images
    that R's D sees are blurred at the start of training, with a sigma that falls to 0, so that D does not concentrate
    on high frequencies early (section 3.2). R1 takes the gradient of the sum of D's scores, since the score of an image
    depends on the other images of its group.

    `model.sample(16, truncation=0.7)` moves w towards its mean.

    Args:
        image_size: pixels: 16, 32, 64, ...
        channels: of the image.
        num_classes: number of classes, for G's mapping and a projection in D; None: unconditional.
        conditional: whether to use labels, if there are any.
        rotation: configuration R; False: T.
        z_dim: size of the latent, standard normal, and of w.
        maps: a layer of G with the cutoff frequency f, in cycles per image side, has maps / (2 f) feature maps, with
            `rotation` twice as many; a layer of D whose images have s pixels on a side has maps / s.
        width: maximum number of feature maps of a layer, in G twice as many with `rotation`.
        mapping_layers: layers of the mapping from z to w.
        layers: G's, besides the last, which makes the image; 3 or more.
        group: images of a batch whose standard deviation is an input of D's last layers (Karras et al. 2018,
            arXiv:1710.10196, section 3); 1: none.
        gamma: weight of R1; 0: none.
        r1_interval: batches per update on R1.
        blur: with `rotation`, the blur's initial sigma, in pixels; 0: none. The filter is 2^-(t / sigma)^2.
        blur_images: images seen until it is 0; it falls linearly.
        square_half_life: in images, of the running mean squares. With the authors' 20,000 they lag behind in
            runs of a few tens of thousands of images.
        ema_half_life: in images, of the averaged generator; None: no averaging.
        ema_ramp_up: the half-life is at most this share of the images seen, so that the average forgets the initial
            weights early; None: it is constant.
        optimizer: G's Adam.
        discriminator_optimizer: D's, before the correction for R1.
        **game: see `GANModule`.

    Raises:
        ValueError: image_size is not 16, 32, 64, ..., `layers` is below 3, or `maps` is too small.
    """

    generator: StyleGAN3Generator
    sigma: Tensor

    def __init__(
        self,
        image_size: Size = 1024,
        channels: Count = 3,
        num_classes: Count | None = None,
        conditional: bool = True,
        rotation: bool = False,
        z_dim: Count = 512,
        maps: Count = 32768,
        width: Count = 512,
        mapping_layers: Count = 2,
        layers: Layers = 14,
        group: Count = 4,
        gamma: NonNegative = 32.8,
        r1_interval: Count = 16,
        blur: NonNegative = 10.0,
        blur_images: Positive = 200_000.0,
        square_half_life: Positive = 20_000.0,
        ema_half_life: Positive | None = 10_000.0,
        ema_ramp_up: Positive | None = 0.05,
        optimizer: OptimizerCallable = lambda params: FusedAdam(params, lr=2.5e-3, beta1=0.0, beta2=0.99),
        discriminator_optimizer: OptimizerCallable = lambda params: FusedAdam(params, lr=2e-3, beta1=0.0, beta2=0.99),
        **game: Any,
    ) -> None:
        classes = num_classes if conditional else None
        game = {**game, "ema_half_life": ema_half_life, "ema_ramp_up": ema_ramp_up}
        super().__init__(
            z_dim, classes, gamma, r1_interval, optimizer, discriminator_optimizer=discriminator_optimizer, **game
        )
        self.blur, self.blur_images = blur if rotation else 0.0, blur_images
        self.square_half_life = square_half_life
        self.blurs = False  # in this batch
        self.register_buffer("sigma", torch.zeros(()), persistent=False)
        self.generator = StyleGAN3Generator(
            image_size, channels, z_dim, maps, width, mapping_layers, classes, layers, rotation
        )
        self.discriminator = StyleGAN2Discriminator(image_size, channels, maps, width, classes, group)

    def after_generator(self, batch: Batch) -> None:
        """The running means: of w and, if due, of the inputs of layers, by a forward pass for the same latents."""
        w, synthesis, interval = self.move_w_mean(batch), self.generator.synthesis, SQUARE_INTERVAL * self.n_critic
        if self.due(interval):
            with torch.no_grad():
                squares = gather(synthesis.squares(synthesis.repeated(w))[None]).mean(0)
            images = interval * size(batch) * self.trainer.world_size
            synthesis.move_squares(squares, 1 - 0.5 ** (images / self.square_half_life))

    def schedule(self, images_seen: int) -> None:
        sigma = falling(self.blur, images_seen, self.blur_images)
        self.blurs = sigma > 0
        self.sigma.fill_(sigma)

    def discriminate(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        seen = self.augment.pair(self.blurred(x) if self.blurs else x, y)
        return self.augment.heard(x, full_precision(self.discriminator(*seen)))

    @torch.no_grad()
    def moved(self, z: Tensor, given: Batch, transforms: Tensor) -> Tensor:
        """Images [N, C, H, W], as of `generate`, but not clamped, and with the input's points transformed.

        Args:
            z: latents [N, z_dim].
            given: `label` int64 [N], if the model takes labels; else {}.
            transforms: [3, 3] or [N, 3, 3], of points in units of the image's side: see `translation` and `rotation` in
                `ganzoo.functional.equivariance`.
        """
        batch = self.inputs({"z": z, **given})
        with self.sampler() as network:
            w = network.mapping(batch["z"], self.labels(batch))
            return network.synthesis(network.synthesis.repeated(w), transforms).float()

    def blurred(self, x: Tensor) -> Tensor:
        """Images, blurred with the current sigma; zeros are beyond the border."""
        reach = int(REACH * self.blur)  # a constant, so that equations compile once
        at = torch.arange(-reach, reach + 1, device=x.device)
        taps = torch.exp2(-(at / self.sigma).square()) * (at.abs() <= (REACH * self.sigma).floor())
        return resample(x, taps / taps.sum(), padding="constant")


def ffhq(rotation: bool = False, **arguments: Any) -> StyleGAN3:
    """The paper's T, or R, for FFHQ and FFHQ-U at 1024x1024: 25 million images, in batches of 32, with flips."""
    return StyleGAN3(rotation=rotation, **arguments)


def ffhq256(rotation: bool = False, **arguments: Any) -> StyleGAN3:
    """The paper's for FFHQ-U at 256x256: batches of 64, with flips."""
    adam = partial(FusedAdam, lr=2.5e-3, beta1=0.0, beta2=0.99)
    authors = {"image_size": 256, "maps": 16384, "gamma": 1.0, "discriminator_optimizer": adam, **_batch(64)}
    return StyleGAN3(rotation=rotation, **{**authors, **arguments})


def afhqv2(rotation: bool = False, **arguments: Any) -> StyleGAN3:
    """The paper's for AFHQv2 at 512x512, with ADA: batches of 32, with flips."""
    authors = {"image_size": 512, "gamma": 16.4 if rotation else 8.2, "augment": ADA()}
    return StyleGAN3(rotation=rotation, **{**authors, **arguments})


def other(image_size: int, rotation: bool = False, **arguments: Any) -> StyleGAN3:
    """What the authors recommend for other data of 128, 256, 512 or 1024 pixels, with ADA: batches of 32."""
    authors = {"gamma": 0.5 * (image_size / 128) ** 2, "augment": ADA()}
    return StyleGAN3(image_size=image_size, rotation=rotation, **{**authors, **arguments})


def _batch(images: int) -> dict[str, float]:
    """Numbers of images that are proportional to a batch."""
    return {"ema_half_life": images * 10_000 / 32, "blur_images": images * 200_000 / 32}
