"""The contract: a variant overrides the smallest thing that its paper changes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral
from typing import Any, Literal, Self, cast

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from ganzoo.core.arguments import variant_name
from ganzoo.core.checkpoint import CheckpointError, build, read
from ganzoo.core.images import to_uint8
from ganzoo.core.pictures import to_pil
from ganzoo.core.random import mix
from ganzoo.core.still import evaluating
from ganzoo.core.turns import Turns
from ganzoo.core.types import Batch, Latent, Terms


class GANModule(Turns):
    """A GAN: two networks, two equations, and the order of the updates.

    A variant sets `self.generator` and `self.discriminator` in its `__init__` and writes the two equations. While one
    is minimised only that player's parameters require gradients, so no `detach` is needed, and the fresh latents are in
    `batch["z"]`, so an equation draws nothing: it is a function of the weights and the batch. What else it keeps (a
    running mean, say) it changes only `if self.training`: validation asks the equations, too.
    """

    num_classes: int | None = None  # of the label that `generate` reads; None: it reads none
    source_channels: int | None = None  # of the picture that `generate` translates; None: it translates none

    # 1. The equations: what most papers change

    @abstractmethod
    def discriminator_loss(self, batch: Batch) -> Terms:
        """The weighted terms whose sum the discriminator minimises."""

    @abstractmethod
    def generator_loss(self, batch: Batch) -> Terms:
        """The weighted terms whose sum the generator minimises."""

    def discriminate(self, x: Tensor, y: Tensor | None = None) -> Any:
        """D as the equations see it: x [N, C, H, W] -> logits [N], or whatever the variant's discriminator returns."""
        return self.discriminator(self.augment(x), y)

    # 2. One player's update

    def discriminator_step(self, batch: Batch) -> None:
        self.minimize(self.discriminator_loss, batch, player="discriminator")

    def generator_step(self, batch: Batch) -> None:
        self.minimize(self.generator_loss, batch, player="generator")

    # 3. The algorithm

    def play(self, batch: Batch) -> None:
        """One batch of the game: a discriminator step, then a generator step after every `n_critic`-th.

        With `consensus` both at once instead.
        """
        if self.consensus is not None:
            return self.minimize_at_once(batch, consensus=self.consensus)
        self.discriminator_step(batch)
        if self.due(self.n_critic):
            self.generator_step(batch)

    def schedule(self, images_seen: int) -> None:
        """Set learning rates, momenta or weights for the coming batch: functions of the images seen before it."""

    # 4. What is drawn, and sampling

    @abstractmethod
    def latent(self, n: int, generator: torch.Generator | None = None) -> Latent:
        """n latents, a pytree of tensors [n, ...], on the random generator's device; on this module's if it is None."""

    def draw(self, n: int, generator: torch.Generator) -> Batch:
        """What one update draws, for all processes together: latents, and whatever else its equation reads."""
        return {"z": self.latent(n, generator)}

    @torch.no_grad()
    def generate(self, z: Latent, given: Batch | None = None) -> Tensor:
        """Images [N, C, H, W] in [-1, 1], in eval mode, from the averaged generator where there is one.

        Args:
            z: latents, as `latent` draws them.
            given: what else the generator reads: `label`, or a translator's `source`.
        """
        with self.sampler() as network:
            return network(z, (given or {}).get("label"))

    @contextmanager
    def sampler(self) -> Iterator[Any]:
        """The network that samples come from, in eval mode: the averaged generator where there is one."""
        network = self.generator if self.ema is None else self.ema
        with evaluating(network):
            yield network

    def uniform(self, generator: torch.Generator | None, *shape: int) -> Tensor:
        """Uniform numbers in (-1, 1), for `latent`."""
        return torch.empty(shape, device=self.device_of(generator)).uniform_(-1, 1, generator=generator)

    def normal(self, generator: torch.Generator | None, *shape: int) -> Tensor:
        """Standard normal numbers, for `latent`."""
        return torch.randn(shape, device=self.device_of(generator), generator=generator)

    def device_of(self, generator: torch.Generator | None) -> torch.device:
        """Where `latent` and `draw` put what they draw."""
        return self.device if generator is None else generator.device

    def seeded(self, seeds: Sequence[int]) -> Latent:
        """One latent a seed, drawn on the CPU (GPUs of other models have other random numbers), on this device."""
        rows = [self.latent(1, torch.Generator().manual_seed(mix(seed))) for seed in seeds]
        return tree_map(lambda *row: torch.cat(row).to(self.device), *rows)

    def sample(
        self,
        n: int | None = None,
        *,
        seeds: Sequence[int] | None = None,
        label: int | Sequence[int] | None = None,
        source: Tensor | None = None,
        output_type: Literal["pt", "np", "pil"] = "pt",
        batch_size: int = 256,
    ) -> Any:
        """New images; the same seeds give the same images on every device and in any batch.

        Args:
            n: how many; may be left out where the seeds, the labels or the sources say it.
            seeds: one an image; None draws new ones.
            label: the class of all images, or of each; None lets each seed choose.
            source: the pictures [n, C', H, W] in [-1, 1] that a translator reads.
            output_type: "pt" a float tensor [n, C, H, W] in [-1, 1] on the CPU; "np" a uint8 array [n, H, W, C];
                "pil" a list of pictures.
            batch_size: how many images are made at once.

        Raises:
            ValueError: the numbers of images, seeds, labels and sources disagree, or the model reads no such thing.
        """
        labels = cast(Sequence[int] | None, [label] if isinstance(label, Integral) else label)
        if n is None:
            n = next((len(given) for given in (seeds, source, labels) if given is not None), 1)
        if n < 1:
            raise ValueError(f"n counts from 1, got {n}")
        seeds = torch.randint(2**31, (n,)).tolist() if seeds is None else [int(seed) for seed in seeds]
        if len(seeds) != n:
            raise ValueError(f"{n} images need {n} seeds, got {len(seeds)}")
        given: dict[str, Tensor] = {}
        if labels is not None or self.num_classes is not None:
            given["label"] = self._labels(labels, seeds)
        if source is not None or self.source_channels is not None:
            given["source"] = self._sources(source, n)
        parts = []
        for start in range(0, n, batch_size):
            part = slice(start, start + batch_size)
            its_given = cast(Batch, {key: value[part].to(self.device) for key, value in given.items()})
            parts.append(self.generate(self.seeded(seeds[part]), its_given).float().cpu())
        images = torch.cat(parts)
        if output_type == "np":
            return to_uint8(images).permute(0, 2, 3, 1).numpy()
        return to_pil(images) if output_type == "pil" else images

    @classmethod
    def load_from_checkpoint(
        cls,
        checkpoint_path: Any,
        map_location: Any = None,
        hparams_file: Any = None,
        strict: bool | None = None,
        weights_only: bool | None = None,
        **kwargs: Any,
    ) -> Self:
        """Lightning's, for a checkpoint of this class in a local file; never runs code of the file's.

        `ganzoo.load` finds the class by itself, and reads more kinds of files.

        Args:
            checkpoint_path: of a checkpoint of this class.
            map_location: the device; None is the CPU.
            hparams_file: None; the arguments are in the checkpoint.
            strict: False allows weights that are missing or too many.
            weights_only: it is True, whatever is given.
            **kwargs: arguments of the constructor, which win over the checkpoint's.

        Raises:
            CheckpointError: it is damaged, unsafe, of another class, or no local file.
            ValueError: there is an hparams_file.
        """
        if hparams_file is not None:
            raise ValueError("the arguments are in the checkpoint; leave hparams_file out")
        saved = read(checkpoint_path, map_location or "cpu")
        if (name := saved["ganzoo"].get("variant")) != variant_name(cls):
            raise CheckpointError(f"{checkpoint_path} is of {name}, not of {variant_name(cls)}; use ganzoo.load")
        arguments = {**saved.get("hyper_parameters", {}), **kwargs}
        model = build(checkpoint_path, cls, arguments, saved["state_dict"])
        model.configure_model()
        model.on_load_checkpoint(saved)
        model.load_state_dict(saved["state_dict"], strict=strict is not False)
        return model.to(map_location or "cpu")

    def _labels(self, labels: Sequence[int] | None, seeds: Sequence[int]) -> Tensor:
        if self.num_classes is None:
            raise ValueError(f"{type(self).__name__} takes no label: it is not conditional")
        if labels is None:
            labels = [mix(seed, 1) % self.num_classes for seed in seeds]
        n = len(seeds)
        labels = [int(label) for label in labels] * (n if len(labels) == 1 else 1)
        if len(labels) != n or not all(0 <= y < self.num_classes for y in labels):
            raise ValueError(f"give one label, or {n}, each from 0 to {self.num_classes - 1}; got {labels}")
        return torch.tensor(labels)

    def _sources(self, source: Tensor | None, n: int) -> Tensor:
        name, channels = type(self).__name__, self.source_channels
        if channels is None:
            raise ValueError(f"{name} takes no source: it makes images from latents")
        if source is None:
            raise ValueError(f"{name} translates pictures: give source=[N, {channels}, H, W] in [-1, 1]")
        if source.ndim != 4 or source.shape[:2] != (n, channels):
            raise ValueError(f"{name} reads {n} sources [{n}, {channels}, H, W], not {list(source.shape)}")
        return source
