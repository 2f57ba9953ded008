"""Metrics of features, logits and pixels: each declares its states, checks that it can be computed, and calls a
function of `ganzoo.functional`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from ganzoo.core.limits import Count, Limits
from ganzoo.evaluation.interfaces import Figures, Given, Metric, States
from ganzoo.functional.entropy import ebgan_score
from ganzoo.functional.frechet import Gaussian, fid_infinity, frechet_distance, frechet_standard_error
from ganzoo.functional.kernels import kid
from ganzoo.functional.modes import gaussian_modes, stacked_modes
from ganzoo.functional.neighbours import authenticity, copying, density_coverage, precision_recall
from ganzoo.functional.pairs import l1_and_psnr
from ganzoo.functional.parzen import parzen

BOTH = ("fake", "real")


def at_least(given: Given, least: int, what: str, sets: tuple[str, ...] = BOTH) -> None:
    """Raises a ValueError unless each of the sets exists and has at least `least` images."""
    for name in sets:
        size = given.sizes.get(name)
        if size is None and name == "real":
            raise ValueError(f"{what} needs real images; give some, or choose other metrics")
        if size is None:
            raise ValueError(f"{what} needs a {name} split, which this data does not have; choose other metrics")
        if size < least:
            raise ValueError(f"{what} needs at least {least} {name} images, but there are {size}; use more")


def against_train(given: Given, what: str) -> None:
    """Raises a ValueError unless the reals are the training split."""
    if given.split != "train":
        raise ValueError(f"{what} needs training images as reals; choose the split train, not {given.split}")


def needs_logits(given: Given, what: str, classes: int | None = None) -> None:
    """Raises a ValueError unless the extractor is a classifier, with this number of classes if given."""
    found = None if given.extractor is None else given.extractor.num_classes
    if found is None:
        raise ValueError(f"{what} needs a classifier; choose an extractor with classes, such as inception or digits")
    if classes is not None and found != classes:
        raise ValueError(
            f"{what} needs a classifier of the data's {classes} classes; this extractor has {found}; choose another"
        )


@dataclass(frozen=True)
class FID(Metric):
    """Frechet inception distance: between Gaussians fitted to the features of fakes and reals."""

    name = "fid"
    figures = {"fid": "lower"}
    needs = {"fake": ("features.moments", "features.spread"), "real": ("features.moments",)}
    error = "standard error over fakes"
    paper = "Heusel et al. 2017, arXiv:1706.08500, eq. 6"

    def check(self, given: Given) -> None:
        at_least(given, 2, self.name)

    def compute(self, states: States) -> Figures:
        real, fake = states["real"]["features.moments"], states["fake"]["features.moments"]
        error = None
        if fake.cov is not None:  # otherwise, with n <= d, it is undefined
            error = frechet_standard_error(real, fake, states["fake"]["features.spread"])
        return {"fid": (frechet_distance(real, fake), error)}


@dataclass(frozen=True)
class SFID(Metric):
    """FID of spatial features, which depend on the layout of images."""

    name = "sfid"
    figures = {"sfid": "lower"}
    needs = {"fake": ("spatial.moments",), "real": ("spatial.moments",)}
    paper = "Nash et al. 2021, arXiv:2103.03841"

    def check(self, given: Given) -> None:
        at_least(given, 2, self.name)
        if given.extractor is None or not given.extractor.spatial:
            raise ValueError("sfid is defined on Inception's mixed_6/conv; use --extractor inception")

    def compute(self, states: States) -> Figures:
        real, fake = states["real"]["spatial.moments"], states["fake"]["spatial.moments"]
        return {"sfid": (frechet_distance(real, fake), None)}


@dataclass(frozen=True)
class FIDInfinity(Metric):
    """FID extrapolated to infinitely many fakes; the number of reals is unchanged."""

    sizes: Annotated[int, Limits(3, math.inf)] = 15
    seed: int = 0

    name = "fid_infinity"
    figures = {"fid_infinity": "lower"}
    needs = {"fake": ("features.rows",), "real": ("features.moments",)}
    error = "error of the regression alone"
    paper = "Chong & Forsyth 2020, arXiv:1911.07023, with subsets of one sample instead of Sobol latents"

    def check(self, given: Given) -> None:
        at_least(given, 1000, self.name, ("fake",))
        if given.extractor is not None:  # FID is not linear in 1/N for subsets smaller than d
            d = given.extractor.num_features
            at_least(given, 10 * (d + 1), f"{self.name} with {d} features", ("fake",))
        at_least(given, 2, self.name, ("real",))

    def compute(self, states: States) -> Figures:
        fake = states["fake"]["features.rows"]
        return {"fid_infinity": fid_infinity(states["real"]["features.moments"], fake, self.sizes, self.seed)}


@dataclass(frozen=True)
class IntraFID(Metric):
    """FID of each class, averaged over the classes."""

    name = "intra_fid"
    figures = {"intra_fid": "lower"}
    needs = {"fake": ("features.rows", "labels.rows"), "real": ("features.rows", "labels.rows")}
    error = "population std over classes"
    paper = "Miyato & Koyama 2018, arXiv:1802.05637"

    def check(self, given: Given) -> None:
        if given.num_classes is None:
            raise ValueError("intra_fid needs fakes and reals with classes: a conditional model and labelled data")
        at_least(given, 2 * given.num_classes, f"{self.name} of {given.num_classes} classes")

    def compute(self, states: States) -> Figures:
        (fake, y_fake), (real, y_real) = ((states[side]["features.rows"], states[side]["labels.rows"]) for side in BOTH)
        distances = []
        for y in y_real.unique().tolist():
            if min((y_real == y).sum(), (y_fake == y).sum()) < 2:
                raise ValueError(f"intra_fid: class {y} has fewer than 2 images; use more fakes or reals")
            distances.append(frechet_distance(Gaussian.of(real[y_real == y]), Gaussian.of(fake[y_fake == y])))
        values = torch.tensor(distances, dtype=torch.float64)
        return {"intra_fid": (values.mean().item(), values.std(correction=0).item())}


@dataclass(frozen=True)
class KID(Metric):
    """Kernel inception distance: unbiased squared MMD with a cubic kernel."""

    subsets: Count = 100
    size: Annotated[int, Limits(2, math.inf)] = 1000
    seed: int = 0

    name = "kid"
    figures = {"kid": "lower"}
    needs = {"fake": ("features.rows",), "real": ("features.rows",)}
    error = "population std over subsets"
    paper = "Binkowski et al. 2018, arXiv:1801.01401, section 4"

    def check(self, given: Given) -> None:
        at_least(given, self.size, f"{self.name} with subsets of {self.size} (kid:size=N changes it)")

    def compute(self, states: States) -> Figures:
        real, fake = (states[side]["features.rows"] for side in ("real", "fake"))
        return {"kid": kid(real, fake, self.subsets, self.size, self.seed)}


@dataclass(frozen=True)
class InceptionScore(Metric):
    """Inception score exp E KL(p(y|x) || p(y)), averaged over random splits."""

    name = "is"
    figures = {"is": "higher"}
    needs = {"fake": ("logits.splits",)}
    error = "population std over 10 splits"
    paper = "Salimans et al. 2016, arXiv:1606.03498, section 4"

    def check(self, given: Given) -> None:
        at_least(given, 10, "is (Inception score) with 10 splits", ("fake",))
        needs_logits(given, self.name)

    def compute(self, states: States) -> Figures:
        return {"is": states["fake"]["logits.splits"]}


@dataclass(frozen=True)
class EBGANScore(Metric):
    """I' = E KL(p(y) || p(y|x)); its authors propose it for their grid search only."""

    name = "ebgan_score"
    figures = {"ebgan_score": "higher"}
    needs = {"fake": ("logits.rows",)}
    paper = "Zhao et al. 2016, arXiv:1609.03126, section 4.1"

    def check(self, given: Given) -> None:
        at_least(given, 2, self.name, ("fake",))
        needs_logits(given, self.name)

    def compute(self, states: States) -> Figures:
        return {"ebgan_score": (ebgan_score(states["fake"]["logits.rows"]), None)}


@dataclass(frozen=True)
class PrecisionRecall(Metric):
    """Precision, the share of fakes near reals, and recall, the share of reals near fakes.

    By the features of the extractor; those of the paper are VGG16's, which give other values.
    """

    k: Count = 3

    name = "pr"
    figures = {"precision": "higher", "recall": "higher"}
    needs = {"fake": ("features.rows",), "real": ("features.rows",)}
    paper = "Kynkaanniemi et al. 2019, arXiv:1904.06991"

    def check(self, given: Given) -> None:
        at_least(given, self.k + 1, f"{self.name} with k = {self.k}")

    def compute(self, states: States) -> Figures:
        real, fake = (states[side]["features.rows"] for side in ("real", "fake"))
        precision, recall = precision_recall(real, fake, self.k)
        return {"precision": (precision, None), "recall": (recall, None)}


@dataclass(frozen=True)
class DensityCoverage(Metric):
    """Density and coverage: precision and recall that are robust to outliers.

    By the features of the extractor; those of the paper are VGG16's, which give other values. With N reals and M fakes,
    an ideal generator has a density of 1, and a coverage of 1 - prod_{i=1..k} (N - i) / (N + M - i): 0.97 with N = M,
    0.08 with 1,000 fakes against 60,000 reals.
    """

    k: Count = 5

    name = "dc"
    figures = {"density": "higher", "coverage": "higher"}
    needs = {"fake": ("features.rows",), "real": ("features.rows",)}
    paper = "Naeem et al. 2020, arXiv:2002.09797"

    def check(self, given: Given) -> None:
        at_least(given, self.k + 1, f"{self.name} with k = {self.k}")

    def compute(self, states: States) -> Figures:
        real, fake = (states[side]["features.rows"] for side in ("real", "fake"))
        density, coverage = density_coverage(real, fake, self.k)
        return {"density": (density, None), "coverage": (coverage, None)}


@dataclass(frozen=True)
class Authenticity(Metric):
    """Share of fakes farther from their nearest training image than that image is from its nearest other one.

    Copies have 0; new images have less than 1, since some happen to be close. `authenticity_of_reals`, of one random
    half of the training images against the other, is what an ideal generator has.
    """

    name = "authenticity"
    figures = {"authenticity": "", "authenticity_of_reals": ""}
    needs = {"fake": ("features.rows",), "real": ("features.rows",)}
    paper = "Alaa et al. 2022, arXiv:2102.08921, section 3.3"

    def check(self, given: Given) -> None:
        at_least(given, 1, self.name, ("fake",))
        at_least(given, 4, self.name, ("real",))  # two in each half
        against_train(given, self.name)

    def compute(self, states: States) -> Figures:
        train, fake = (states[side]["features.rows"] for side in ("real", "fake"))
        half, other = _mixed(train).chunk(2)
        return {
            "authenticity": (authenticity(train, fake), None),
            "authenticity_of_reals": (authenticity(half, other), None),
        }


@dataclass(frozen=True)
class Copying(Metric):
    """Whether fakes are closer to the training images than held-out images are.

    `copying`: probability that a fake is closer to the training set than a held-out real, 0.5 for new images of the
    same distribution, 1 for copies. `copying_z`: its z score, positive for copies, which grows with the numbers of
    images.
    """

    name = "copying"
    figures = {"copying": "", "copying_z": ""}
    needs = {"fake": ("features.rows",), "real": ("features.rows",), "test": ("features.rows",)}
    paper = "Meehan et al. 2020, arXiv:2004.05675 (global, without cells)"

    def check(self, given: Given) -> None:
        if not given.held_out_alike:
            raise ValueError(
                f"{self.name} needs test images like the training images, but in this data they show other subjects; "
                "choose authenticity"
            )
        at_least(given, 2, self.name, ("fake", "real", "test"))
        against_train(given, self.name)

    def compute(self, states: States) -> Figures:
        train, test, fake = (states[side]["features.rows"] for side in ("real", "test", "fake"))
        probability, z = copying(train, test, fake)
        return {"copying": (probability, None), "copying_z": (z, None)}


@dataclass(frozen=True)
class Accuracy(Metric):
    """Share of a conditional model's fakes that the classifier assigns to the requested class."""

    name = "accuracy"
    figures = {"accuracy": "higher"}
    needs = {"fake": ("logits.rows", "labels.rows")}
    error = "binomial standard error"

    def check(self, given: Given) -> None:
        if given.num_classes is None:
            raise ValueError("accuracy needs a conditional model and labelled reals; leave accuracy out")
        needs_logits(given, self.name, given.num_classes)

    def compute(self, states: States) -> Figures:
        logits, y = states["fake"]["logits.rows"], states["fake"]["labels.rows"]
        p = (logits.argmax(1) == y).double().mean().item()
        return {"accuracy": (p, (p * (1 - p) / len(y)) ** 0.5)}


@dataclass(frozen=True)
class TruePartners(Metric):
    """L1 and PSNR of translations against the true images of their sources, for at most the first 5,000 fakes.

    `l1`: mean absolute difference, of the range 0 to 1. `psnr`: peak signal-to-noise ratio in dB, averaged over images.
    """

    name = "pairs"
    figures = {"l1": "lower", "psnr": "higher"}
    needs = {"fake": ("images.sample",), "real": ("images.sample",)}
    error = "standard error over pairs"

    def count(self, fakes: int) -> int:
        return min(fakes, 5000)

    def check(self, given: Given) -> None:
        if not given.partners:
            raise ValueError("pairs needs a translator, and data whose images are the true translations of its sources")

    def compute(self, states: States) -> Figures:
        fake, real = (states[side]["images.sample"] for side in BOTH)
        return {name: _mean(x) for name, x in zip(self.figures, l1_and_psnr(fake, real), strict=True)}


def _mean(x: Tensor) -> tuple[float, float | None]:
    """Mean and its standard error."""
    return x.mean().item(), (x.std() / len(x) ** 0.5).item() if len(x) > 1 else None


@dataclass(frozen=True)
class GaussianModes(Metric):
    """Modes of a mixture in the plane by PacGAN's protocol; real data has a high_quality of 0.989."""

    centers: tuple[tuple[float, float], ...]
    sigma: float
    scale: float  # from generated points to true units

    name = "modes"
    figures = {"modes": "higher", "high_quality": "higher", "kl": "lower"}
    needs = {"fake": ("images.rows",)}
    paper = "Lin et al. 2018, arXiv:1712.04086, section 4.1"

    def check(self, given: Given) -> None:
        at_least(given, 1, self.name, ("fake",))

    def compute(self, states: States) -> Figures:
        points = states["fake"]["images.rows"].flatten(1).double() * self.scale
        found = gaussian_modes(points, torch.tensor(self.centers, dtype=torch.float64), self.sigma)
        return {key: (float(value), None) for key, value in found._asdict().items()}


@dataclass(frozen=True)
class StackedModes(Metric):
    """Modes of Stacked MNIST with at least one fake, and KL to the uniform distribution in nats."""

    protocol: str  # whose networks; scores of different protocols cannot be compared

    name = "modes"
    figures = {"modes": "higher", "kl": "lower"}
    needs = {"fake": ("logits.rows",)}
    paper = "Lin et al. 2018, arXiv:1712.04086, section 4.2"

    def check(self, given: Given) -> None:
        at_least(given, 1, self.name, ("fake",))
        needs_logits(given, self.name, 1000)

    def compute(self, states: States) -> Figures:
        found = stacked_modes(states["fake"]["logits.rows"].argmax(1))
        return {key: (float(value), None) for key, value in found._asdict().items()}


@dataclass(frozen=True)
class Parzen(Metric):
    """Log-likelihood of test images under Gaussian kernels on the fakes, and on as many training images, in nats.

    Memorised or averaged images score higher than real ones, so compare `parzen` with `parzen_of_reals`.
    """

    name = "parzen"
    figures = {"parzen": "", "parzen_of_reals": "", "parzen_sigma": "", "parzen_of_reals_sigma": ""}
    needs = {side: ("images.rows",) for side in ("fake", "real", "val", "test")}
    error = "standard error over test images"
    paper = "Goodfellow et al. 2014, arXiv:1406.2661, section 5"

    def check(self, given: Given) -> None:
        at_least(given, 2, self.name, ("fake", "real", "val", "test"))
        against_train(given, self.name)
        if given.image_size == (1, 1):
            raise ValueError("parzen needs pixels, but these are points; leave parzen out")

    def compute(self, states: States) -> Figures:
        fake, real, val, test = (_pixels(states[side]["images.rows"]) for side in ("fake", "real", "val", "test"))
        figures: Figures = {}
        for name, samples in (("parzen", fake), ("parzen_of_reals", _mixed(real)[: len(fake)])):
            found = parzen(samples, _mixed(val), test)
            figures |= {name: (found.mean, found.standard_error), f"{name}_sigma": (found.sigma, None)}
        return figures


def _mixed(rows: Tensor) -> Tensor:
    """In a random order, the same each time, since files may be sorted by class."""
    return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]


def _pixels(images: Tensor) -> Tensor:
    return images.flatten(1).double() / 255
