"""The contract of `ganzoo.testing`, for every variant; broken variants fail it."""

from __future__ import annotations

import json
import re

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException

import ganzoo
from ganzoo.core.limits import sides
from ganzoo.testing import CHECKS, NoiseImages, check_files, check_resume, check_variant, fit, sources
from tests.variants import small, variants

PLAIN = ("GAN", "DCGAN", "WGANGP")  # resumed without options, too; all but twins are resumed with all of them, below


def checks():
    """Every check of every variant."""
    for name in ganzoo.list_models():
        for check in CHECKS:
            slow = name not in PLAIN and check is check_resume
            yield pytest.param(name, check, id=f"{name}-{check.__name__}", marks=[pytest.mark.slow] * slow)


@pytest.mark.parametrize(("name", "check"), list(checks()))
def test_contract(name, check):
    def make(**more):
        torch.manual_seed(0)
        return getattr(ganzoo, name)(**small(name), **more)

    check(make)


@pytest.mark.parametrize("name", ganzoo.list_models())
def test_images_need_not_be_squares(name):
    """Training, files and samples; a shape that the networks cannot take is refused, with the nearest that they can."""

    def make(size):
        torch.manual_seed(0)
        return getattr(ganzoo, name)(**{**small(name), "image_size": size})

    try:
        model = make([16, 24])
    except ValueError as error:
        model = make(json.loads(re.fullmatch(r"image_size \[16, 24\]: .*; try (.*)", str(error))[1]))
    size = model.hparams["image_size"]
    check_files(lambda: make(size))
    assert list(model.sample(seeds=[0], source=sources(model, 1)).shape[2:]) == list(sides(size))
    try:
        make([18, 25])
    except ValueError as error:
        assert (match := re.fullmatch(r"image_size \[18, 25\]: .*; try (.*)", str(error))) or "levels" in str(error)
        if match:
            make(json.loads(match[1]))


@pytest.mark.parametrize("name", variants())
def test_a_resumed_run_is_bit_identical_with_all_options(name):
    """EMA, gradient accumulation, clipping, a learning rate schedule and several critic steps."""

    def make():
        torch.manual_seed(0)
        everything = {"n_critic": 2, "microbatches": 2, "clip_norm": 1.0, "ema_half_life": 20.0, "ema_ramp_up": 0.5}
        schedule = {"lr_scheduler": lambda opt: torch.optim.lr_scheduler.ExponentialLR(opt, 0.9)}
        return getattr(ganzoo, name)(**small(name), **everything, **schedule)

    check_resume(make, ((2, 4), (3, 5)))


def test_check_variant_runs_all_checks():
    check_variant(ganzoo.DCGAN, image_size=8, channels=1, width=4)


class Leaky(ganzoo.DCGAN):
    def generator_loss(self, batch):
        with torch.no_grad():
            next(self.discriminator.parameters()).add_(1)
        return super().generator_loss(batch)


class Vector(ganzoo.DCGAN):
    def generator_loss(self, batch):
        return {"fake": self.discriminate(self.generator(batch["z"]))}


class Bare(ganzoo.DCGAN):
    def generator_loss(self, batch):
        return self.discriminate(self.generator(batch["z"])).mean()


class Forgetful(ganzoo.DCGAN):
    def latent(self, n, generator=None):
        return torch.randn(n, self.z_dim)


class Carried(ganzoo.DCGAN):
    steps = 0

    def generator_loss(self, batch):
        self.steps += 1
        return {name: self.steps * term for name, term in super().generator_loss(batch).items()}


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (Leaky, "generator's update changed"),
        (Vector, "is not a scalar"),
        (Bare, "generator_loss returns a Tensor, not a dict of terms"),
        (Forgetful, "latent does not draw"),
        (Carried, "after resuming at"),
    ],
)
def test_check_variant_finds_broken_variants(broken, words):
    with pytest.raises(AssertionError, match=words):
        check_variant(broken, image_size=8, channels=1, width=4)


def test_fit_refuses_terms_that_are_not_scalars():
    model = Vector(8, 1, width=4)
    with pytest.raises(MisconfigurationException, match=r"loss terms must be scalars, but 'fake' has shape \[\d+\]"):
        fit(model, NoiseImages(model), steps=1)
