"""The two parts of every score: an extractor of features, and a metric of what is kept of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from ganzoo.evaluation.determinism import ieee_float32

BLOCK = 64  # images that are generated, read and extracted together, whatever the number of processes: part of a score

EXTRACTED = {"features", "logits", "spatial"}  # what an extractor may yield
Outputs = dict[str, Tensor]  # of a block, each [N, ...]: those, "images" uint8, "labels" int64


class Extractor(ABC):
    """A frozen network whose features scores are computed from. It is no `nn.Module`, so no model's `train`,
    `state_dict` or checkpoint reaches it.

    Attributes:
        name: what scores call it, such as "inception".
        preprocessing: from uint8 images to the network's input, in words.
        fingerprint: sha256 (hex) of weights and preprocessing; another one voids comparisons.
        channels: that images must have.
        num_features: d.
        num_classes: K of the logits; None where there are none.
        citation: the weights' source, in one line.
        pinned: whether the fingerprint says all that it computes, as its code is a package's; of any other, statistics
            are cached under what it makes of a probe, too.
    """

    name: str
    preprocessing: str
    fingerprint: str
    channels: int
    num_features: int
    num_classes: int | None
    citation: str
    network: nn.Module
    pinned: bool = False

    @property
    def tag(self) -> str:
        """Short and unmistakable: `digits@1a2b`."""
        return f"{self.name}@{self.fingerprint[:4]}"

    def to(self, device: torch.device | str) -> Extractor:
        self.network.to(device)
        return self

    def __call__(self, images: Tensor) -> Outputs:
        """uint8 [N, C, H, W] -> {"features": float32 [N, d], "logits": float32 [N, K]} and whatever else it offers.

        Raises:
            ValueError: the images are not uint8, or of another number of channels.
        """
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise ValueError(f"an extractor takes uint8 images [N, C, H, W], not {images.dtype} {list(images.shape)}")
        if images.shape[1] != self.channels:
            raise ValueError(f"{self.name} reads {self.channels} channels, the images have {images.shape[1]}")
        self.network.eval()
        images = images.clone(memory_format=torch.contiguous_format)  # other strides, other sums in the last bit
        with torch.no_grad(), ieee_float32(images.device):
            return self.extract(images)

    @abstractmethod
    def extract(self, images: Tensor) -> Outputs:
        """What `__call__` returns; it has checked the images and made the network's surroundings."""


def probe(channels: int, image_size: tuple[int, int]) -> Tensor:
    """Two fixed images, uint8 [2, C, H, W], that show what an extractor computes: a gradient, and noise."""
    i = torch.arange(channels * image_size[0] * image_size[1])
    images = torch.stack([i * 256 // len(i), (i * 2_654_435_761 >> 16) % 256])
    return images.to(torch.uint8).reshape(2, channels, *image_size)


class Given(NamedTuple):
    """What is known before anything is computed."""

    sizes: Mapping[str, int]  # images of "fake", "real" and, where the data has them, "val" and "test"
    channels: int
    image_size: tuple[int, int]
    extractor: Extractor | None
    num_classes: int | None  # that fakes and reals come with; None if they have none
    model: bool  # the fakes come from a generator, rather than from files
    split: str = "train"  # which of the data's is "real"


Figures = dict[str, tuple[float, float | None]]  # name -> value and its error
States = Mapping[str, Mapping[str, Any]]  # "fake", "real", ... -> name of a state -> its value


@dataclass(frozen=True)
class Metric(ABC):
    """A function of states; its fields are its settings and part of each score's protocol.

    Attributes:
        name: what scores call it.
        needs: the states that it reads, of which images: {"fake": ("features.moments",), "real": ...}. "real" is the
            split that is asked for, "val" and "test" are the data's own. `X.rows` are the rows of an extractor's output
            X (or of "images", "labels"), `X.sample` the first of them, `X.moments` their mean and covariance,
            `logits.splits` the Inception score of ten splits, "model" the generator itself.
        figures: what it yields: {"precision": "higher", "recall": "higher"}; "" for what is not to be ranked by.
        error: what the errors of its figures are.
        paper: where it is defined.
    """

    name: ClassVar[str]
    needs: ClassVar[Mapping[str, tuple[str, ...]]]
    figures: ClassVar[Mapping[str, str]]
    error: ClassVar[str] = ""
    paper: ClassVar[str] = ""

    @property
    def outputs(self) -> set[str]:
        """What it reads of each image: "features", "images", ..."""
        return {name.partition(".")[0] for names in self.needs.values() for name in names}

    @property
    def extracts(self) -> bool:
        """Whether it needs an extractor."""
        return not self.outputs.isdisjoint(EXTRACTED)

    def count(self, fakes: int) -> int:
        """How many images, or pairs, its figures are of: part of their names."""
        return fakes

    @abstractmethod
    def check(self, given: Given) -> None:
        """Raise a ValueError, cause and cure in one line, where this cannot be computed; nothing has run yet."""

    @abstractmethod
    def compute(self, states: States) -> Figures:
        """The figures from the states of each set: Gaussian for ".moments", Tensor for ".rows", ..."""
