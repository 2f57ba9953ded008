"""Frozen feature networks for discriminators and losses: the emoji classifier for training, torchvision's classifiers.

A weight file is checked against its hash. The emoji classifier's comes with ganzoo, the others are downloaded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from ganzoo.core.limits import Size, sides
from ganzoo.core.text import closest, visible
from ganzoo.evaluation.classifier import PINNED, pinned
from ganzoo.evaluation.downloads import fetch, place, tensors
from ganzoo.functional.resizing import enlarged, enlarged_size

UNIT = (0.5,) * 3, (0.5,) * 3
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Source(NamedTuple):
    """A feature network.

    Attributes:
        channels: of its maps, from fine to coarse.
        strides: pixels of an image per pixel of a map.
        side: pixels to which the shorter side of smaller images is enlarged.
        inputs: mean and standard deviation of its training's images in [0, 1], by which inputs are normalised.
        weights: first digits of the sha256 of the weight file.
        url: of the weight file, if it does not come with ganzoo.
        cuts: the maps are the inputs of these layers of torchvision's `features`.
        make: for a network of your own: its layers up to the first map, from there to the second, ..., with weights.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    side: int
    inputs: tuple[tuple[float, ...], tuple[float, ...]]
    weights: str
    url: str = ""
    cuts: tuple[int, ...] = ()
    make: Callable[[], list[nn.Module]] | None = None


MODELS = "https://download.pytorch.org/models"
SOURCES = {
    "emoji-training": Source((24, 48, 64, 64), (1, 2, 4, 8), 32, UNIT, PINNED["emoji-training"][:8]),
    "efficientnet_b0": Source(
        *((24, 40, 112, 320), (4, 8, 16, 32), 224, IMAGENET, "7f5810bc"),
        *(f"{MODELS}/efficientnet_b0_rwightman-7f5810bc.pth", (3, 4, 6, 8)),
    ),
    "vgg16": Source(  # after ReLU 1_2, 2_2, 3_3, 4_3, 5_3, as in LPIPS
        *((64, 128, 256, 512, 512), (1, 2, 4, 8, 16), 64, IMAGENET, "397923af"),
        *(f"{MODELS}/vgg16-397923af.pth", (4, 9, 16, 23, 30)),
    ),
}


class Features(nn.Module):
    """x [N, 1 or 3, H, W] in [-1, 1] -> maps [N, c, h, w] of a frozen network, from fine to coarse.

    Small images are enlarged bilinearly; the channel of grey ones is repeated. The network is always in eval mode. It
    is no submodule, so parameters, `train` and checkpoints do not include it. A state dict has its name and the hash of
    its weights, which must agree when the state is loaded. It is loaded when training begins, or at the first call.

    Args:
        name: a key of `SOURCES`.
        channels: of the images.
        otherwise: what to do without the weights, for the message.

    Attributes:
        source: its entry in `SOURCES`.
        stages: the layers up to the first map, from there to the second, ...; empty until they are loaded.

    Raises:
        ValueError: the name is unknown, or the images have neither 1 nor 3 channels.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str = "efficientnet_b0",
        channels: int = 3,
        otherwise: str = "choose features that come with ganzoo (emoji-training)",
    ) -> None:
        super().__init__()
        if name not in SOURCES:
            cure = f"it takes {', '.join(SOURCES)}"
            raise ValueError(f"features is {visible(name)}{closest(name, list(SOURCES), cure)}")
        if channels not in (1, 3):
            raise ValueError(f"features: {name} reads grey or RGB images, but they have {channels} channels")
        self.name, self.source, self.otherwise = name, SOURCES[name], otherwise
        self.stages: list[nn.Module] = []  # in a list, so that torch does not see them
        for key, value in zip(("mean", "std"), self.source.inputs, strict=True):
            self.register_buffer(key, torch.tensor(value).view(-1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> list[Tensor]:
        if not self.stages:
            self.load()
        x = (enlarged(x, self.source.side).expand(-1, 3, -1, -1) + 1) / 2
        x = (x - self.mean) / self.std
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps

    def load(self) -> None:
        """Load the network, if it is not loaded yet.

        Raises:
            FileNotFoundError: its weights could not be downloaded; the message says where to put the file.
            ValueError: a weight file has another hash.
        """
        if not self.stages:
            stages = nn.ModuleList(_stages(self.name, self.source, self.otherwise)).eval().requires_grad_(False)
            stages.to(memory_format=torch.channels_last)  # half the time on a CPU
            self.stages = list(stages.to(self.mean.device, self.mean.dtype))

    def are_in(self, network: nn.Module) -> bool:
        """Whether a network contains this one's weights; False if they are not on this machine."""
        if not self.stages and self.source.url and not place(self.source.url).is_file():
            return False
        self.load()
        first = next(self.stages[0].parameters()).cpu()
        return any(p.shape == first.shape and torch.equal(p.cpu(), first) for p in network.parameters())

    def sizes(self, image_size: Size) -> list[tuple[int, int]]:
        """Height and width of the maps, rounded down."""
        height, width = enlarged_size(*sides(image_size), self.source.side)
        return [(height // stride, width // stride) for stride in self.source.strides]

    @property
    def identity(self) -> str:
        """Name and hash of the weights."""
        return f"{self.name} {self.source.weights}"

    def get_extra_state(self) -> Tensor:
        """The identity in ASCII: a tensor, so that any format stores it."""
        return torch.tensor(list(self.identity.encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Any) -> None:
        """
        Raises:
            ValueError: the state belongs to another feature network.
        """
        found = bytes(state.flatten().tolist()).decode("ascii", "replace") if isinstance(state, Tensor) else "missing"
        if found != self.identity:
            raise ValueError(
                f"the weights were trained with the features {visible(found)}, not {self.identity}: set the argument "
                "features to theirs, and use the version of ganzoo that has them"
            )

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        for stage in self.stages:
            stage._apply(fn, recurse)
        return super()._apply(fn, recurse)


def load_features(model: nn.Module) -> None:
    """Load the feature networks in a model, before its training begins."""
    for module in model.modules():
        if isinstance(module, Features):
            module.load()


def perceptual_distance(
    features: Features, x: Tensor, target: Tensor, weights: Sequence[Tensor] | None = None
) -> Tensor:
    """Distances [N] between feature maps of two images [N, C, H, W]; no gradient reaches the target.

    The vectors at each pixel are scaled to length 1; the sum of their squared differences is averaged over the pixels
    of a map, and summed over the maps (LPIPS, Zhang et al. 2018, arXiv:1801.03924, eq. 1).

    Args:
        features: the network.
        x: images.
        target: images.
        weights: of the channels in the sum, [c, 1, 1] for each map: LPIPS' are fitted; None: 1.
    """
    with torch.no_grad():
        targets = [unit(h) for h in features(target)]
    gaps = [(unit(h) - t).square() for h, t in zip(features(x), targets, strict=True)]
    if weights is not None:
        gaps = [w * gap for w, gap in zip(weights, gaps, strict=True)]
    return torch.stack([gap.sum(1).mean((1, 2)) for gap in gaps]).sum(0)


def unit(h: Tensor) -> Tensor:
    """Vectors [N, c, h, w] of length 1, at least float32; the derivative is bounded near 0."""
    h = h if h.dtype == torch.float64 else h.float()
    return h / (h.square().sum(1, keepdim=True) + 1e-8).sqrt()


def _stages(name: str, source: Source, otherwise: str) -> list[nn.Module]:
    """The layers up to the first map, from there to the second, ..."""
    if source.make is not None:
        return source.make()
    if not source.url:
        first, *others = cast(nn.ModuleList, pinned(name).stages)
        return [first, *(nn.Sequential(nn.MaxPool2d(2), stage) for stage in others)]
    from torchvision import models

    what = f"the weights of the features {name}"
    weights = tensors(fetch(what, source.url, source.weights, f", {otherwise}"), source.url)
    with torch.device("meta"):
        network = models.get_model(name)
    network.load_state_dict(weights, assign=True)
    layers = list(network.get_submodule("features").children())
    return [nn.Sequential(*layers[a:b]) for a, b in zip((0, *source.cuts), source.cuts, strict=False)]
