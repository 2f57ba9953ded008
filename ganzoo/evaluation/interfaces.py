"""The two parts of every score: a feature extractor, and a metric of accumulated statistics."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from ganzoo.evaluation.determinism import ieee_float32

BLOCK = 64  # images generated, read and extracted at once, for any number of processes; scores depend on it

SCHEMA = "1"  # part of every fingerprint; increment if the same weights are used in another way
NOT_FINITE = "the generator's images are not finite: training may have diverged; use an earlier checkpoint"
EXTRACTED = {"features", "logits", "spatial"}  # possible outputs of an extractor
Outputs = dict[str, Tensor]  # of a block, each [N, ...]: those of an extractor, "images" uint8, "labels" int64


class Extractor(ABC):
    """A frozen network that computes the features for scores. It is not an `nn.Module`, so a model's `train`,
    `state_dict` and checkpoints do not include it.

    Attributes:
        name: in scores, such as "inception".
        preprocessing: describes the mapping from uint8 images to the network's input.
        fingerprint: sha256 (hex) of weights and preprocessing; scores with different ones cannot be compared.
        channels: of the images.
        num_features: d.
        num_classes: K of the logits; None without logits.
        spatial: whether the outputs include "spatial", for sFID.
        citation: source of the weights, in one line.
        pinned: whether the fingerprint determines the outputs, since the code belongs to a package; otherwise, outputs
            for fixed images are part of the key of cached statistics.
    """

    name: str
    preprocessing: str
    fingerprint: str
    channels: int
    num_features: int
    num_classes: int | None
    citation: str
    network: nn.Module
    spatial: bool = False
    pinned: bool = False

    @property
    def tag(self) -> str:
        """Name and first digits of the fingerprint: `digits@1a2b`."""
        return f"{self.name}@{self.fingerprint[:4]}"

    def to(self, device: torch.device | str) -> Extractor:
        self.network.to(device)
        return self

    def __call__(self, images: Tensor) -> Outputs:
        """uint8 [N, C, H, W] -> {"features": float32 [N, d], "logits": float32 [N, K], ...}, as far as available.

        Raises:
            ValueError: the images are not uint8 [N, C, H, W], or have another number of channels.
        """
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise ValueError(f"an extractor takes uint8 images [N, C, H, W], not {images.dtype} {list(images.shape)}")
        if images.shape[1] != self.channels:
            raise ValueError(f"{self.name} reads {self.channels} channels, but the images have {images.shape[1]}")
        self.network.eval()
        images = images.clone(memory_format=torch.contiguous_format)  # other strides may change rounding
        with torch.no_grad(), ieee_float32(images.device):
            return self.extract(images)

    @abstractmethod
    def extract(self, images: Tensor) -> Outputs:
        """The outputs of `__call__`, which has checked the images and disabled gradients and reduced precision."""


def fingerprint(network: nn.Module, preprocessing: str) -> str:
    """sha256 (hex) of the preprocessing's description and of each tensor of the state dict: name, dtype, shape and
    bytes."""
    digest = hashlib.sha256(f"{SCHEMA}\n{preprocessing}\n".encode())
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def probe(channels: int, image_size: tuple[int, int]) -> Tensor:
    """Two fixed images, uint8 [2, C, H, W], a gradient and noise, whose outputs identify an extractor."""
    i = torch.arange(channels * image_size[0] * image_size[1])
    images = torch.stack([i * 256 // len(i), (i * 2_654_435_761 >> 16) % 256])
    return images.to(torch.uint8).reshape(2, channels, *image_size)


class Given(NamedTuple):
    """Facts about an evaluation that are known before it runs."""

    sizes: Mapping[str, int]  # numbers of images: "fake", "real", and "val" and "test" if the data has them
    channels: int
    image_size: tuple[int, int]
    extractor: Extractor | None
    num_classes: int | None  # of the images' labels; None without labels
    model: bool  # the fakes come from a model, not from files
    split: str = "train"  # the split that "real" stands for
    truncated: bool = False  # the model's latents are truncated
    partners: bool = False  # whether the fakes translate the reals' sources, in order, and the reals are the truth
    latents: bool = False  # the model's latents are [n, z_dim], and it has no other inputs than labels
    moves: bool = False  # the generator's input can be moved and rotated: the model has a method `moved`
    held_out_alike: bool = True  # val and test are from the distribution of train


Figures = dict[str, tuple[float, float | None]]  # name -> value and its error
States = Mapping[str, Mapping[str, Any]]  # "fake", "real", ... -> name of a state -> its value


@dataclass(frozen=True)
class Metric(ABC):
    """A function of states; its fields are its settings and part of each score's protocol.

    Attributes:
        name: in scores.
        needs: states that it reads, by set: {"fake": ("features.moments",), "real": ...}. "real" is the selected split,
            "val" and "test" are the data's own. `X.rows` are all rows of an extractor's output X (or of "images",
            "labels"), `X.sample` the first 5,000 of them, `X.spread` at most 5,000 evenly spaced ones, `X.moments`
            their mean and covariance, `logits.splits` the Inception score over ten splits, "model" the model itself.
        figures: names and better directions: {"precision": "higher", "recall": "higher"}; "" if it cannot be ranked.
        error: kind of the figures' errors.
        paper: that defines it.
    """

    name: ClassVar[str]
    needs: ClassVar[Mapping[str, tuple[str, ...]]]
    figures: ClassVar[Mapping[str, str]]
    error: ClassVar[str] = ""
    paper: ClassVar[str] = ""

    @property
    def outputs(self) -> set[str]:
        """Outputs that it reads: "features", "images", ..."""
        return {name.partition(".")[0] for names in self.needs.values() for name in names}

    @property
    def extracts(self) -> bool:
        """Whether it needs an extractor."""
        return not self.outputs.isdisjoint(EXTRACTED)

    def count(self, fakes: int) -> int:
        """Number of images, or pairs, behind its figures; part of their names."""
        return fakes

    def check_generator(self, given: Given) -> None:
        """Raises a ValueError unless the fakes come from a model that is sampled as it was trained."""
        if not given.model:
            raise ValueError(f"{self.name} needs a generator, but these are files; evaluate a run or a checkpoint")
        if given.truncated:
            raise ValueError(f"{self.name} is defined without truncation; leave one of them out")

    @abstractmethod
    def check(self, given: Given) -> None:
        """Raises a ValueError, with cause and cure, if it cannot be computed; called before anything runs."""

    @abstractmethod
    def compute(self, states: States) -> Figures:
        """The figures from the states of each set: Gaussian for ".moments", Tensor for ".rows", ..."""
