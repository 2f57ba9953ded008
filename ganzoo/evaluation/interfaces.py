"""What every score is made of: an extractor's outputs, the states that they are added up in, and the metric."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from ganzoo.functional.entropy import SplitEntropy
from ganzoo.functional.frechet import Gaussian

BLOCK = 64  # images that are generated, read and extracted together, whatever the number of processes: part of a score

EXTRACTED = {"features", "logits", "spatial"}  # what an extractor may yield
Outputs = dict[str, Tensor]  # of a block, each [N, ...]: those, "images" uint8, "labels" int64


class Extractor(ABC):
    """A frozen network that scores look through. It is no `nn.Module`, so no model's `train`, `state_dict` or
    checkpoint reaches it.

    Attributes:
        name: what scores call it, such as "inception".
        preprocessing: from uint8 images to the network's input, in words.
        fingerprint: sha256 (hex) of weights and preprocessing; another one voids comparisons.
        channels: that images must have.
        num_features: d.
        num_classes: K of the logits; None where there are none.
        citation: the weights' source, in one line.
    """

    name: str
    preprocessing: str
    fingerprint: str
    channels: int
    num_features: int
    num_classes: int | None
    citation: str
    network: nn.Module

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
        with torch.no_grad(), full_precision(images.device):
            return self.extract(images)

    @abstractmethod
    def extract(self, images: Tensor) -> Outputs:
        """What `__call__` returns; it has checked the images and made the network's surroundings."""


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """No autocast, and products in float32 rather than TF32 or bfloat16: 10 bits are not enough for a distance.

    Set for each backend: `allow_tf32` and `set_float32_matmul_precision` fail, or are not restored to what they were,
    where a user has set the precision in another way.
    """
    backends: Any = torch.backends
    places = (backends.cuda.matmul, backends.cudnn.conv, backends.mkldnn.matmul, backends.mkldnn.conv)
    before = [place.fp32_precision for place in places]
    try:
        for place in places:
            place.fp32_precision = "ieee"
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        for place, precision in zip(places, before, strict=True):
            place.fp32_precision = precision


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """A generator's own noise follows from the seed; the global random numbers go on as if nothing had been drawn."""
    forked: list[torch.device] = [] if device.type == "cpu" else [device]  # the CPU's are always kept
    with torch.random.fork_rng(forked, device_type="cuda" if device.type == "cpu" else device.type):
        torch.default_generator.manual_seed(seed)  # `torch.manual_seed` would change those of all devices
        if forked:
            with torch.accelerator.device_index(device.index):
                torch.get_device_module(device).manual_seed(seed)
        yield


# States: what is kept of the rows that pass by


class Moments:
    """Mean and covariance in float64, flat in the number of rows.

    Rows are collected until they are more than the columns, and then merged (Chan et al. 1979): few rows stay rows,
    from which the distance is more exact, and many cost one product of large matrices now and then.
    """

    def __init__(self, n: int) -> None:
        self.n = 0  # merged
        self.mean = self.scatter = torch.zeros(())
        self.rows: list[Tensor] = []
        self.waiting = 0

    def update(self, rows: Tensor) -> None:
        self.rows.append(rows.detach().flatten(1).cpu().double())
        self.waiting += len(rows)
        if self.waiting > max(512, self.rows[0].shape[1]):
            self._merge()

    def _merge(self) -> None:
        rows = torch.cat(self.rows)
        mean = rows.mean(0)
        centred = rows - mean
        n, delta = self.n + len(rows), mean - self.mean
        self.scatter = self.scatter + centred.T @ centred + torch.outer(delta, delta) * (self.n * len(rows) / n)
        self.mean = self.mean + delta * (len(rows) / n)
        self.n, self.rows, self.waiting = n, [], 0

    def value(self) -> Gaussian:
        if not self.n:
            return Gaussian.of(torch.cat(self.rows))
        if self.rows:
            self._merge()
        return Gaussian(self.n, self.mean, self.scatter / (self.n - 1))


class Rows:
    """All rows, in order."""

    def __init__(self, n: int) -> None:
        self.parts: list[Tensor] = []

    def update(self, rows: Tensor) -> None:
        self.parts.append(rows.detach().cpu())

    def value(self) -> Tensor:
        return torch.cat(self.parts)


class Sample(Rows):
    """The first 5,000 rows: enough for a standard error, and flat in the number of rows."""

    def __init__(self, n: int) -> None:
        super().__init__(n)
        self.room = 5000

    def update(self, rows: Tensor) -> None:
        if self.room > 0:
            super().update(rows[: self.room])
            self.room -= len(rows)


class Splits:
    """Entropies of the classifier's answers in 10 splits, in order; flat in the number of rows."""

    def __init__(self, n: int) -> None:
        self.entropy = SplitEntropy(n, splits=10)

    def update(self, rows: Tensor) -> None:
        self.entropy.update(rows.detach().cpu())

    def value(self) -> tuple[float, float]:
        return self.entropy.compute()


STATES: dict[str, type[Any]] = {"moments": Moments, "rows": Rows, "sample": Sample, "splits": Splits}


def new_state(name: str, n: int) -> Any:
    """An empty state for n rows; `features.moments` is fed with the output "features". See `Metric`."""
    return STATES[name.partition(".")[2]](n)


# What is asked


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

    def count(self, fakes: int) -> int:
        """How many images, or pairs, its figures are of: part of their names."""
        return fakes

    @abstractmethod
    def check(self, given: Given) -> None:
        """Raise a ValueError, cause and cure in one line, where this cannot be computed; nothing has run yet."""

    @abstractmethod
    def compute(self, states: Mapping[str, Mapping[str, Any]]) -> Figures:
        """The figures from the states of each set: Gaussian for ".moments", Tensor for ".rows", ..."""
