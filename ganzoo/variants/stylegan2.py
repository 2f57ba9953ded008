"""StyleGAN2: Analyzing and Improving the Image Quality of StyleGAN (Karras et al. 2020, arXiv:1912.04958)."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.utils._pytree import tree_map

from ganzoo.augment.ada import ADA
from ganzoo.core.batch import more_normal
from ganzoo.core.limits import Count, NonNegative, Positive, Share, Size, sides
from ganzoo.core.strategy import gather
from ganzoo.core.types import Batch, Terms
from ganzoo.functional.penalties import path_lengths
from ganzoo.networks.stylegan2 import StyleGAN2Discriminator, StyleGAN2Generator
from ganzoo.optim.adam import FusedAdam
from ganzoo.variants.stylegan import StyleGAN

PATH_DECAY = 0.99  # of the mean of the path lengths, per update


class StyleGAN2(StyleGAN):
    """min_D E f(D(G(z))) + E f(-D(x)) + gamma / 2 E |grad D(x)|^2;
    min_G E f(-D(G(z))) + path_weight E (|J' y| - a)^2, with f(t) = log(1 + e^t).

    G maps z to w, and w to an image: w scales the feature maps of each layer. J is the derivative of the image with
    respect to w, y an image of noise, and a the running mean of the length |J' y|, so that equal steps in w change the
    image equally (section 3.2). Style mixing: in a share `mixing` of the fakes, the last layers have the w of a second
    latent.

    The penalties are lazy (section 3.1): each has a separate update in every 16th (R1) or 4th batch, with its weight
    times this number, and Adam's constants are corrected. G is updated before D. Path lengths are computed for every
    second image of a microbatch. R1 takes the gradient of the sum of D's scores, since the score of an image depends
    on the other images of its group.

    Samples have constant noise in the layers. `model.sample(16, truncation=0.7)` moves w towards its mean.

    Args:
        image_size: pixels: 4, 5, 6 or 7 times a power of two from 2 up, such as 28, 32 or 64; or [height, width].
        channels: of the image.
        num_classes: number of classes, for G's mapping and a projection in D; None: unconditional.
        conditional: whether to use labels, if there are any.
        z_dim: size of the latent, standard normal, and of w.
        maps: a layer whose images have s pixels on the shorter side has `maps` / s feature maps, but at most `width`.
        width: largest number of feature maps.
        mapping_layers: layers of the mapping from z to w.
        mixing: share of fakes with style mixing; the layer where w changes is random for each.
        group: images of a batch whose standard deviation is an input of D's last layers (Karras et al. 2018,
            arXiv:1710.10196, section 3); 1: none.
        residual: D has residual blocks.
        gamma: weight of R1; 0: none.
        r1_interval: batches per update on R1.
        path_weight: weight of the path lengths' penalty; 0: none.
        path_interval: turns of G, each of `n_generator` updates, per update on the path lengths: every
            `path_interval` * `n_critic` batches.
        ema_half_life: in images, of the averaged generator; None: no averaging.
        optimizer: Adam, before the correction for the lazy penalties.
        **game: see `GANModule`.

    Raises:
        ValueError: the networks do not support the image size, or `maps` is below its shorter side.
    """

    generator: StyleGAN2Generator
    path_mean: Tensor

    def __init__(
        self,
        image_size: Size = 1024,
        channels: Count = 3,
        num_classes: Count | None = None,
        conditional: bool = True,
        z_dim: Count = 512,
        maps: Count = 32768,
        width: Count = 512,
        mapping_layers: Count = 8,
        mixing: Share = 0.9,
        group: Count = 4,
        residual: bool = True,
        gamma: NonNegative = 10.0,
        r1_interval: Count = 16,
        path_weight: NonNegative = 2.0,
        path_interval: Count = 4,
        ema_half_life: Positive | None = 10_000.0,
        optimizer: OptimizerCallable = lambda params: FusedAdam(params, lr=2e-3, beta1=0.0, beta2=0.99),
        **game: Any,
    ) -> None:
        classes = num_classes if conditional else None
        super().__init__(z_dim, classes, gamma, r1_interval, optimizer, ema_half_life=ema_half_life, **game)
        self.mixing, self.path_weight, self.path_interval = mixing, path_weight, path_interval
        further = 1 / (path_interval * self.n_generator) if path_weight else 0.0
        self.more_steps = {**self.more_steps, "generator": further}
        self.register_buffer("path_mean", torch.zeros(()))
        self.generator = StyleGAN2Generator(image_size, channels, z_dim, maps, width, mapping_layers, classes)
        self.discriminator = StyleGAN2Discriminator(image_size, channels, maps, width, classes, group, residual)

    def after_generator(self, batch: Batch) -> None:
        """The update on path lengths, if due."""
        if self.path_weight and self.due(self.path_interval * self.n_critic):
            y = more_normal(self, batch, *batch["image"].shape[1:])
            more: Batch = {**batch, "directions": y}
            self.minimize(self.path_loss, more, player="generator", interval=self.path_interval * self.n_generator)
        self.move_w_mean(batch)

    def path_loss(self, batch: Batch) -> Terms:
        """The penalty on path lengths. Each microbatch first updates the running mean a, without a gradient."""
        batch = tree_map(lambda t: t[::2], batch)
        images = partial(self.generator.synthesis, noise=batch["noise"])
        lengths = path_lengths(images, self.styles(batch), batch["directions"])
        self.path_mean.lerp_(gather(lengths.detach()).mean(), 1 - PATH_DECAY)
        return {"path": self.path_weight * (lengths - self.path_mean).square().mean()}

    def synthesize(self, network: Any, batch: Batch) -> Tensor:
        """With noise and mixed styles in training; samples have neither."""
        if "noise" not in batch:
            return super().synthesize(network, batch)
        images: Tensor = network.synthesis(self.styles(batch), batch["noise"])
        return images

    def styles(self, batch: Batch) -> Tensor:
        """w of each layer, [N, L, d]."""
        (other, first), y, g = batch["mixed"], self.labels(batch), self.generator
        w = g.mapping(batch["z"], y)
        return g.synthesis.mixed(w, g.mapping(other, y), first) if self.mixing else g.synthesis.repeated(w)

    @torch.no_grad()
    def mix(self, coarse: Batch, fine: Batch, first: int | None = None) -> Tensor:
        """Samples [N, C, H, W] in [-1, 1] with the styles of one latent, and from a layer on with those of another.

        Args:
            coarse: `z` [N, z_dim], and `label` [N] if there are labels, of the layers below `first`.
            fine: the same of the other layers.
            first: first layer with the styles of `fine`, from 0 (all layers) to L (none). L is 2 k + 2 if 4 to 7 pixels
                are doubled k times, such as 18 at 1024x1024. None: L // 2.
        """
        with self.sampler() as network:
            both = self.inputs(coarse), self.inputs(fine)
            w, other = (network.mapping(batch["z"], self.labels(batch)) for batch in both)
            first = network.synthesis.layers // 2 if first is None else first
            mixed = network.synthesis.mixed(w, other, torch.full((len(w),), first, device=w.device))
            return network.synthesis(mixed).float().clamp(-1, 1)

    def draw(self, n: int, generator: torch.Generator) -> Batch:
        layers, device = self.generator.synthesis.layers, generator.device
        first = torch.randint(1, layers, (n,), device=device, generator=generator)
        mixes = torch.rand(n, device=device, generator=generator) < self.mixing
        mixed = self.latent(n, generator), torch.where(mixes, first, layers)
        noise = [self.normal(generator, n, 1, *size) for size in self.generator.synthesis.sizes]
        return {"z": self.latent(n, generator), "mixed": mixed, "noise": noise}


def stylegan2(**arguments: Any) -> StyleGAN2:
    """The paper's configuration F for FFHQ at 1024x1024: 25 million images, in batches of 32, with flips."""
    return StyleGAN2(**arguments)


def paper256(**arguments: Any) -> StyleGAN2:
    """FFHQ and LSUN at 256x256 (Karras et al. 2020, StyleGAN2-ADA, arXiv:2006.06676); batches of 64."""
    return _ada(
        arguments, image_size=256, maps=16384, group=8, optimizer=_adam(2.5e-3), gamma=1.0, ema_half_life=20_000.0
    )


def paper512(**arguments: Any) -> StyleGAN2:
    """StyleGAN2-ADA (Karras et al. 2020, arXiv:2006.06676) for pictures of 512x512; batches of 64."""
    return _ada(arguments, image_size=512, group=8, optimizer=_adam(2.5e-3), gamma=0.5, ema_half_life=20_000.0)


def paper1024(**arguments: Any) -> StyleGAN2:
    """StyleGAN2-ADA (Karras et al. 2020, arXiv:2006.06676) for pictures of 1024x1024; batches of 32."""
    return _ada(arguments, gamma=2.0)


def cifar(**arguments: Any) -> StyleGAN2:
    """StyleGAN2-ADA (Karras et al. 2020, arXiv:2006.06676) for CIFAR-10: 100 million images in batches of 64, without
    flips; labels with `num_classes` 10. The authors correct G's Adam for the updates on path lengths, although there
    are none."""
    plain = {"mixing": 0.0, "residual": False, "path_weight": 0.0, "mapping_layers": 2, "group": 32}
    averaging = {"ema_half_life": 500_000.0, "ema_ramp_up": 0.05}
    of_g = _adam(2.5e-3) if arguments.get("path_weight") else _adam(2e-3, 0.99**0.8)  # corrected already
    adams = {"optimizer": of_g, "discriminator_optimizer": _adam(2.5e-3)}
    return _ada(arguments, image_size=32, gamma=0.01, **plain, **averaging, **adams)


def auto(image_size: Size, batch_size: int, **arguments: Any) -> StyleGAN2:
    """StyleGAN2-ADA (Karras et al. 2020, arXiv:2006.06676) for other data.

    Args:
        image_size: pixels, or [height, width]; the shorter side determines feature maps, gamma and learning rate.
        batch_size: images per batch, which determines gamma and the half-life of the averaged generator.
        **arguments: of `StyleGAN2`, instead of these.
    """
    side, averaging = min(sides(image_size)), {"ema_half_life": batch_size * 10_000 / 32, "ema_ramp_up": 0.05}
    sized = {"maps": 16384 if side < 512 else 32768, "gamma": 0.0002 * side**2 / batch_size}
    lr = 2.5e-3 if side < 1024 else 2e-3
    return _ada(arguments, image_size=image_size, mapping_layers=2, optimizer=_adam(lr), **sized, **averaging)


def _ada(arguments: dict[str, Any], **authors: Any) -> StyleGAN2:
    return StyleGAN2(**{"augment": ADA(), **authors, **arguments})


def _adam(lr: float, beta2: float = 0.99) -> OptimizerCallable:
    return partial(FusedAdam, lr=lr, beta1=0.0, beta2=beta2)
