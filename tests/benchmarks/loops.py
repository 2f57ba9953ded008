"""Benchmarks: the training loops and networks that are compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule
    from torch import Tensor, nn

    from ganzoo.data import GANDataModule

Loop = Callable[["Tensor"], None]  # one step of a plain loop, on real images


def plain_loop(generator: nn.Module, discriminator: nn.Module, z_dim: int, device: str) -> Loop:
    """The step of the DCGAN tutorials, with one backward pass for D's losses on reals and fakes."""
    import torch

    d, g = discriminator.to(device), generator.to(device)
    d_optimizer, g_optimizer = (
        torch.optim.Adam(net.parameters(), lr=2e-4, betas=(0.5, 0.999), fused=True) for net in (d, g)
    )
    criterion = torch.nn.BCEWithLogitsLoss()

    def play(real: Tensor) -> None:
        ones, zeros = torch.ones(len(real), device=device), torch.zeros(len(real), device=device)
        fake = g(torch.rand(len(real), z_dim, device=device) * 2 - 1)
        d_optimizer.zero_grad()
        (criterion(d(real), ones) + criterion(d(fake.detach()), zeros)).backward()
        d_optimizer.step()
        g_optimizer.zero_grad()
        criterion(d(fake), ones).backward()
        g_optimizer.step()

    return play


def hinge_loop(
    generator: nn.Module,
    discriminator: nn.Module,
    z_dim: int,
    classes: int | None,
    class_loss: Any,
    share_fakes: bool,
    device: str,
) -> Loop:
    """The same with the hinge loss, random labels, and D's forward passes of reals and fakes apart, as in public code.

    Args:
        generator: of images, from latents and labels.
        discriminator: images, labels -> scores, or scores, embeddings and proxies.
        z_dim: size of the latent.
        classes: number of labels; None if the networks take none.
        class_loss: of embeddings, proxies and labels; None if D returns scores only.
        share_fakes: whether both players use the same fakes, or each has new ones.
        device: of the networks.
    """
    import torch
    from torch.nn.functional import relu

    d, g = discriminator.to(device), generator.to(device)
    d_optimizer, g_optimizer = (
        torch.optim.Adam(net.parameters(), lr=2e-4, betas=(0.5, 0.999), fused=True) for net in (d, g)
    )

    def judged(x: Tensor, *y: Tensor) -> tuple[Tensor, ...]:
        out = d(x, *y)
        return (out,) if class_loss is None else out

    def of_class(*embedded: Tensor) -> Any:
        return 0 if class_loss is None else class_loss(*embedded)

    def play(real: Tensor) -> None:
        y = [] if classes is None else [torch.randint(classes, (len(real),), device=device)]
        with torch.set_grad_enabled(share_fakes):
            fake = g(torch.randn(len(real), z_dim, device=device), *y)
        d_optimizer.zero_grad()
        (real_score, *embedded), (fake_score, *_) = judged(real, *y), judged(fake.detach(), *y)
        (relu(1 - real_score).mean() + relu(1 + fake_score).mean() + of_class(*embedded, *y)).backward()
        d_optimizer.step()
        g_optimizer.zero_grad()
        fake = fake if share_fakes else g(torch.randn(len(real), z_dim, device=device), *y)
        score, *embedded = judged(fake, *y)
        (of_class(*embedded, *y) - score.mean()).backward()
        g_optimizer.step()

    return play


def tiny_networks() -> tuple[nn.Module, nn.Module]:
    """A generator and a discriminator of images [N, 2, 1, 1], with negligible computation."""
    from torch import nn

    class Network(nn.Sequential):
        def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:  # type: ignore[override]
            return super().forward(x)

    return Network(nn.Linear(2, 2), nn.Unflatten(1, (2, 1, 1))), Network(nn.Flatten(), nn.Linear(2, 1), nn.Flatten(0))


def tiny() -> LightningModule:
    """DCGAN's equations on tiny networks."""
    from ganzoo.variants.dcgan import DCGAN

    model = DCGAN(image_size=8, channels=2, z_dim=2, width=1)
    model.generator, model.discriminator = tiny_networks()
    model.hparams.update(image_size=1)
    return model


def naive() -> LightningModule:
    """The same GAN as a LightningModule in the style of published examples."""
    import torch
    from lightning.pytorch import LightningModule

    class Naive(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False
            self.generator, self.discriminator = tiny_networks()
            self.criterion = torch.nn.BCEWithLogitsLoss()

        def training_step(self, batch: Any, batch_idx: int) -> None:
            real = batch["image"]
            ones, zeros = torch.ones(len(real), device=self.device), torch.zeros(len(real), device=self.device)
            d_optimizer, g_optimizer = self.optimizers()  # type: ignore[misc,attr-defined]
            fake = self.generator(torch.rand(len(real), 2, device=self.device) * 2 - 1)

            self.toggle_optimizer(d_optimizer)
            d_loss = self.criterion(self.discriminator(real), ones)
            d_loss = d_loss + self.criterion(self.discriminator(fake.detach()), zeros)
            self.log("d_loss", d_loss, prog_bar=True)
            d_optimizer.zero_grad()
            self.manual_backward(d_loss)
            d_optimizer.step()
            self.untoggle_optimizer(d_optimizer)

            self.toggle_optimizer(g_optimizer)
            fake = self.generator(torch.rand(len(real), 2, device=self.device) * 2 - 1)
            g_loss = self.criterion(self.discriminator(fake), ones)
            self.log("g_loss", g_loss, prog_bar=True)
            g_optimizer.zero_grad()
            self.manual_backward(g_loss)
            g_optimizer.step()
            self.untoggle_optimizer(g_optimizer)

        def configure_optimizers(self) -> Any:
            return [
                torch.optim.Adam(net.parameters(), lr=2e-4, betas=(0.5, 0.999), fused=True)
                for net in (self.discriminator, self.generator)
            ]

    return Naive()


def noise(image_size: int, channels: int, batch_size: int) -> GANDataModule:
    """Random bytes as images with labels, in memory."""
    import torch

    from ganzoo.data import ArrayImages, GANDataModule

    class Noise(GANDataModule):
        def __init__(self) -> None:
            super().__init__(batch_size=batch_size)
            self.image_size, self.channels, self.num_classes = image_size, channels, 10
            self.extractor = "inception"  # not used by training unless requested

        def make_dataset(self, split: Any) -> ArrayImages:
            images = torch.randint(256, (10_000, channels, image_size, image_size), dtype=torch.uint8)
            return ArrayImages(images, torch.randint(10, (len(images),)))

    return Noise()
