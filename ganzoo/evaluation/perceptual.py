"""Scores of pairs of images, by torchmetrics: LPIPS (Zhang et al. 2018, arXiv:1801.03924) and MS-SSIM.

torchmetrics contains LPIPS' linear layers (v0.1); the weights of torchvision's network below them are downloaded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ganzoo.core.limits import Count, Limits, Positive
from ganzoo.core.pixels import to_float
from ganzoo.core.random import mix
from ganzoo.core.types import Batch
from ganzoo.evaluation.determinism import ieee_float32, seeded
from ganzoo.evaluation.downloads import fetch, tensors
from ganzoo.evaluation.interfaces import BLOCK, NOT_FINITE, Figures, Given, Metric, States
from ganzoo.functional.resizing import enlarged

Net = Literal["alex", "vgg"]


@cache
def network(net: Net) -> nn.Module:
    """LPIPS v0.1, frozen and in eval mode: two images [N, 3, H, W] in [-1, 1] -> distances [N, 1, 1, 1].

    The weight file is checked first: torchvision would unpickle an existing file without comparing its hash.

    Raises:
        FileNotFoundError: the weights could not be downloaded.
        ValueError: the file has another hash, or is not of tensors.
    """
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity
    from torchvision.models import AlexNet_Weights, VGG16_Weights

    url = {"alex": AlexNet_Weights, "vgg": VGG16_Weights}[net].DEFAULT.url
    tensors(fetch("the weights of LPIPS", url, Path(url).stem.rpartition("-")[2]), url)
    return LearnedPerceptualImagePatchSimilarity(net_type=net).net


@dataclass(frozen=True)
class PPL(Metric):
    """Perceptual path length: LPIPS between images a small latent step apart, divided by the squared step. Low for
    smooth generators, but also for a constant one.

    The step leads from the first latent of each pair towards the second, by `epsilon` of the way: path *ends* in Z. The
    paper's "full" paths in Z need normal latents. The largest and smallest 1 % of the distances are left out. Images
    stay floats, since a step of 1e-4 changes them by far less than a grey level. Pairs of a conditional model share a
    class, drawn uniformly.

    Attributes:
        pairs: the paper takes 50,000, of 256 pixels; 10,000 of 64 take 12 minutes on one core, plus generation.
        epsilon: length of a step, as a share of the way between two latents.
        net: backbone of LPIPS.
        interpolation: "lerp", linear, for any latents; "slerp_any", spherical, for normal ones, as the paper's paths in
            Z. The value with "lerp" is smaller, by a factor of up to (pi / 2)^2 for a generator that normalises z.
        resize: height and width in pixels to which images are resized: by averaging if larger, otherwise bilinearly.
        seed: of latents, classes and other random inputs of the generator.
    """

    pairs: Annotated[int, Limits(2, math.inf)] = 10_000
    epsilon: Positive = 1e-4
    net: Net = "vgg"
    interpolation: Literal["lerp", "slerp_any"] = "lerp"
    resize: Count = 64
    seed: int = 0

    name = "ppl"
    figures = {"ppl": "lower"}
    needs = {"fake": ("model",)}
    error = "standard error of the trimmed mean"
    paper = "Karras et al. 2019, arXiv:1812.04948, section 4.1 (path ends in Z; the paper's are slerp_any)"

    def count(self, fakes: int) -> int:
        return self.pairs

    def check(self, given: Given) -> None:
        self.check_generator(given)
        if not given.latents:
            raise ValueError("ppl needs latents [n, z_dim], which this model does not have; leave ppl out")
        _check(self.name, self.net, given)

    def compute(self, states: States) -> Figures:
        from torchmetrics.functional.image import perceptual_path_length

        model = states["fake"]["model"]
        device = torch.device(model.device)
        noise = seeded(mix(self.seed, 1), device)  # and classes; latents use mix(seed)
        with torch.no_grad(), noise, ieee_float32(device):
            mean, _, kept = perceptual_path_length(
                Walker(model, self.resize, self.seed),  # type: ignore[arg-type]  # duck typing
                num_samples=self.pairs,
                conditional=model.num_classes is not None,
                batch_size=BLOCK,
                interpolation_method=self.interpolation,
                epsilon=self.epsilon,
                resize=None,  # `Walker` resizes
                sim_net=network(self.net),
                device=device,
            )
        if not mean.isfinite():
            raise ValueError(NOT_FINITE)
        return {"ppl": (mean.item(), trimmed_error(kept, self.pairs))}


class Walker(nn.Module):
    """Adapts a GAN to torchmetrics: `sample(n)` -> z [n, z_dim]; z [2 n, z_dim], n latents and then the ends of their
    steps -> images [2 n, 3, size, size] in [0, 255]."""

    def __init__(self, model: Any, size: int, seed: int) -> None:
        super().__init__()
        self.model, self.size, self.usual = model, size, model.trained_labels()
        self.num_classes = len(self.usual)
        self.latents = torch.Generator().manual_seed(mix(seed))  # on the CPU: the same for every device

    def sample(self, n: int) -> Tensor:
        return self.model.latent(n, self.latents)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        labels = None if labels is None else torch.tensor(self.usual, device=labels.device)[labels]
        noise = int(torch.randint(2**31, ()))
        halves = []
        for half in range(2):
            given: Batch = {} if labels is None else {"label": labels.chunk(2)[half]}
            with seeded(noise, z.device):  # the same noise of the generator at both ends of a step
                halves.append(self.model.generate(z.chunk(2)[half], given))
        images = torch.cat(halves).float()
        size = (self.size, self.size)
        if min(images.shape[2:]) > self.size:
            images = interpolate(images, size, mode="area")
        else:
            images = interpolate(images, size, mode="bilinear", align_corners=False)
        return (_colour(images) + 1) * 127.5


def trimmed_error(kept: Tensor, n: int) -> float:
    """Standard error of a trimmed mean (Tukey & McLaughlin 1963): `kept` are the n values without the smallest and
    largest; each value left out is replaced by the nearest kept one (winsorised) for the variance."""
    out = n - kept.numel()
    moved = torch.cat([kept.min().repeat(out // 2), kept, kept.max().repeat(out - out // 2)]).double()
    return (moved.std() / (kept.numel() / n) / math.sqrt(n)).item()


@dataclass(frozen=True)
class LPIPSDiversity(Metric):
    """Mean LPIPS between random pairs of fakes: near 0 if all are alike. High for noise, too.

    Attributes:
        pairs: disjoint, hence independent; 2 to 1,250.
        net: backbone of LPIPS.
        smallest: in pixels; images with a shorter side are upscaled bilinearly to it. LPIPS was fitted to patches of 64
            pixels, and AlexNet needs at least 31.
        seed: of the choice of pairs.
    """

    pairs: Annotated[int, Limits(2, 1250)] = 1000  # more than 5,000 images leave at least 2,501 in `Spread`
    net: Net = "alex"
    smallest: Count = 64
    seed: int = 0

    name = "lpips_diversity"
    figures = {"lpips_diversity": "higher"}
    needs = {"fake": ("images.spread",)}
    error = "standard error over pairs"
    paper = "Zhang et al. 2018, arXiv:1801.03924; as diversity: Zhu et al. 2017, arXiv:1711.11586"

    def count(self, fakes: int) -> int:
        return self.pairs

    def check(self, given: Given) -> None:
        if given.sizes["fake"] < 2 * self.pairs:
            raise ValueError(
                f"{self.name} of {self.pairs} pairs needs {2 * self.pairs} fakes, but there are {given.sizes['fake']}"
            )
        _check(self.name, self.net, given)

    def compute(self, states: States) -> Figures:
        images = states["fake"]["images.spread"]
        chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(mix(self.seed)))
        pairs = chosen[: 2 * self.pairs].view(2, self.pairs)
        net = network(self.net).to(images.device)
        with torch.no_grad(), ieee_float32(images.device):
            found = [net(self._ready(images[i]), self._ready(images[j])).flatten() for i, j in pairs.split(BLOCK, 1)]
        distances = torch.cat(found).double()
        return {"lpips_diversity": (distances.mean().item(), (distances.std() / math.sqrt(self.pairs)).item())}

    def _ready(self, images: Tensor) -> Tensor:
        return enlarged(_colour(to_float(images)), self.smallest)


@dataclass(frozen=True)
class ClassSimilarity(Metric):
    """Mean MS-SSIM between fakes of one class, and between reals of one class: 1 if all images of a class are equal.
    Low for noise, too.

    Attributes:
        pairs: random pairs per class.
        smallest: in pixels; images with a shorter side are upscaled bilinearly to it. Five scales with a window of 11
            pixels need at least 176; the paper's images have 128.
        seed: of the choice of pairs.
    """

    pairs: Count = 100
    smallest: Count = 176
    seed: int = 0

    name = "ms_ssim"
    figures = {"ms_ssim": "lower", "ms_ssim_of_reals": ""}
    needs = {"fake": ("images.rows", "labels.rows"), "real": ("images.rows", "labels.rows")}
    error = "population std over classes"
    paper = "Odena et al. 2016, arXiv:1610.09585, section 4.2"

    def check(self, given: Given) -> None:
        if given.num_classes is None:
            raise ValueError(f"{self.name} needs fakes and reals with classes: a conditional model and labelled data")
        if self.smallest < 176:
            raise ValueError(f"{self.name}: smallest is {self.smallest}; its five scales need 176 pixels or more")

    def compute(self, states: States) -> Figures:
        figures: Figures = {}
        for side, figure in zip(("fake", "real"), self.figures, strict=True):
            images, y = states[side]["images.rows"], states[side]["labels.rows"].cpu()
            means = torch.stack([self._similarity(images[y == label], label) for label in y.unique().tolist()])
            figures[figure] = (means.mean().item(), means.std(correction=0).item())
        return figures

    def _similarity(self, images: Tensor, label: int) -> Tensor:
        """Mean over random pairs of different images of one class."""
        from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as ms_ssim

        if (n := len(images)) < 2:
            raise ValueError(f"{self.name}: class {label} has fewer than 2 images; use more fakes or reals")
        draw = torch.Generator().manual_seed(mix(self.seed, label))
        first = torch.randint(n, (self.pairs,), generator=draw)
        second = (first + torch.randint(1, n, (self.pairs,), generator=draw)) % n
        found = []
        for i, j in torch.stack([first, second]).split(BLOCK, 1):
            one, other = (enlarged(images[k].float(), self.smallest) for k in (i, j))
            found.append(ms_ssim(one, other, data_range=255.0, reduction="none"))
        return torch.cat(found).double().mean()


def _check(name: str, net: Net, given: Given) -> None:
    if given.channels not in (1, 3):
        raise ValueError(f"{name} needs grey or colour images, but these have {given.channels} channels; leave it out")
    network(net)


def _colour(images: Tensor) -> Tensor:
    """[N, 1 or 3, H, W] -> [N, 3, H, W]."""
    return images.expand(-1, 3, -1, -1)
