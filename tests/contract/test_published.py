"""Configs with a paper's or its authors' settings: all of their numbers, by the terms of the source. Where it states no
length, or a far longer one, the config says that its length is ours."""

from __future__ import annotations

import math
from typing import Any

import pytest
import yaml

from ganzoo.cli.paths import configs

NOT_SETTINGS = {"num_workers", "path", "source_side", "label_seed"}


def adam(lr: float, beta1: float, beta2: float | None = None, of: str = "optimizer", **more: Any) -> dict[str, Any]:
    values = {"lr": lr, "beta1": beta1, "beta2": beta2, **more}
    return {of: "FusedAdam", **{f"{of}.{key}": value for key, value in values.items() if value is not None}}


def falling(steps: int) -> dict[str, Any]:
    """A learning rate that falls linearly to 0."""
    at = {"start_factor": 1.0, "end_factor": 0.0, "total_iters": steps}
    return {"lr_scheduler": "LinearLR", **{f"lr_scheduler.{key}": value for key, value in at.items()}}


def averaged(decay: float, images: int) -> dict[str, Any]:
    """An averaged generator with a decay per update, which takes so many images; the authors' start is delayed."""
    half_life = images * math.log(0.5) / math.log(decay)
    return {"ema_half_life": pytest.approx(half_life, rel=2e-3), "ema_ramp_up": 0.05}


WHOLE = {"val_fraction": 0}
FLIPPED = {"flip": True}
OF_BOTH = [adam(2e-4, 0.5, 0.999, of, eps=1e-6) for of in ("optimizer", "discriminator_optimizer")]
STUDIOGAN = {"n_critic": 5, **OF_BOTH[0], **OF_BOTH[1]}
SEMI_SUPERVISED = {  # 1,200 epochs of 500 batches, the last 400 with a falling rate
    **{"architecture": "conv", "hidden": 128, "d_hidden": 96},
    **{"optimizer": "EpsInRootAdam", "optimizer.lr": 3e-4, "optimizer.beta1": 0.5},
    **{"lr_scheduler": "LinearTail", "lr_scheduler.total_iters": 1200 * 500, "lr_scheduler.falling_iters": 400 * 500},
    **{"data": "CIFAR10", "data.val_fraction": 0, "labels_per_class": 400, "batch_size": 100, "max_epochs": 1200},
}
PULLED = {"architecture": "dcgan", "hidden": 128, "d_hidden": 64, "pull_away_weight": 0.1, **adam(2e-4, 0.5)}
PUBLISHED: dict[str, dict[str, Any]] = {
    "r3gan/cifar10": {
        **{"augment": "ADA", "augment.p": 0.0, "augment.p_end": 0.55, "augment.ramp": 4e7, "augment.color": 0.5},
        **{"augment.cutout": 1.0, "ema_half_life": 1e7},
        **{**WHOLE, **FLIPPED, "batch_size": 2 * 512, "max_steps": math.ceil(250e6 / 512)},
    },
    "stylegan2/cifar10": {
        **{"mapping_layers": 2, "mixing": 0.0, "group": 32, "residual": False, "gamma": 0.01, "path_weight": 0.0},
        **adam(0.0025 * 4 / 5, 0.0, pytest.approx(0.99 ** (4 / 5), abs=5e-7)),
        **adam(0.0025, 0.0, 0.99, "discriminator_optimizer"),
        **{"augment": "ADA", "ema_half_life": 500e3, "ema_ramp_up": 0.05},
        **{**WHOLE, "batch_size": 64, "max_steps": 100e6 / 64},
    },
    "stylegan3/cifar10": {  # none are published: the recipe for other data, by the number of pixels
        **{"gamma": 0.5 * 32**2 / 128**2, "augment": "ADA", **WHOLE, **FLIPPED},
        **{"batch_size": 32, "max_steps": 25e6 / 32},
    },
    "fastgan/few": {"image_size": 256, "batch_size": 8, **FLIPPED, "max_steps": 50_000},
    "projectedgan/few": {  # the length is ours
        **{"features": "efficientnet_b0", "ema_ramp_up": 0.05, "conditional": False},
        **{"image_size": 256, "batch_size": 64, **FLIPPED, "max_steps": 50_000},
    },
    "progan/cifar10": {
        **{"z_dim": 128, "maps": 8192, "width": 128, "norm": 750.0, "stable": 400e3, "fade": 400e3},
        **{**WHOLE, "batch_size": 16, "max_steps": 20e6 / 16},
    },
    "wgangp/cifar10": {
        **{"architecture": "resnet", "width": 128, **adam(2e-4, 0.0, 0.9), **falling(5 * 100_000)},
        **{**WHOLE, "batch_size": 64, "max_steps": 5 * 100_000},
    },
    "sngan/cifar10": {
        **{**adam(2e-4, 0.0, 0.9), **falling(5 * 50_000), **WHOLE, "batch_size": 64, "max_steps": 5 * 50_000},
    },
    "projectiongan/cifar10": {
        **{**adam(2e-4, 0.0, 0.9), **falling(5 * 50_000), **WHOLE, "batch_size": 64, "max_steps": 5 * 50_000},
    },
    "biggan/cifar10": {
        **{"z_dim": 80, **STUDIOGAN, **averaged(0.9999, 5 * 64)},
        **{**WHOLE, **FLIPPED, "batch_size": 64, "max_steps": 5 * 100_000},
    },
    "sagan/cifar10": {**STUDIOGAN, **WHOLE, **FLIPPED, "batch_size": 64, "max_steps": 5 * 100_000},
    "contragan/cifar10": {
        **{**averaged(0.9999, 5 * 64), **WHOLE, **FLIPPED, "batch_size": 64, "max_steps": 5 * 100_000},
    },
    "reacgan/cifar10": {
        **{**averaged(0.9999, 5 * 128), **WHOLE, **FLIPPED, "batch_size": 128, "max_steps": 5 * 100_000},
    },
    "improvedgan/cifar10": SEMI_SUPERVISED,
    "improvedgan/cifar10-minibatch": {
        **{**SEMI_SUPERVISED, "objective": "non-saturating", "kernels": 100, "n_generator": 3},
    },
    "improvedgan/mnist": {
        **{"data": "MNIST", "data.val_fraction": 0, "labels_per_class": 10, "batch_size": 100, "max_epochs": 300},
    },
    "ladderebgan/mnist": {  # 150 epochs of 600 batches, the last 50 with a falling rate
        **{"lr_scheduler": "LinearTail", "lr_scheduler.total_iters": 90_000, "lr_scheduler.falling_iters": 30_000},
        **{"data": "MNIST", "data.val_fraction": 0, "labels_per_class": 10, "batch_size": 100, "max_steps": 90_000},
    },
    "cgan/mnist": {"batch_size": 100, "max_epochs": 250},
    "mlpgan/mnist": {"batch_size": 100, "max_steps": 125_000},
    "acgan/cifar10": {**WHOLE, "batch_size": 100, "max_steps": 50_000},
    "lapgan/cifar10": {**WHOLE, "batch_size": 128, "max_epochs": 500},
    "lapgan/lsun": {"levels": 4, "image_size": 64, "batch_size": 128, "max_epochs": 10},
    "wgan/lsun": {"burst": 100, "image_size": 64, "batch_size": 64, "max_epochs": 5},
    "lsgan/lsun": {"image_size": 64, "batch_size": 64, "max_epochs": 1},
    "dcgan/lsun": {"image_size": 64, "batch_size": 128, "max_epochs": 1},
    "ebgan/celeba": {**PULLED, "margin": 20, "image_size": 64, "batch_size": 128, **FLIPPED, "max_epochs": 25},
    "ebgan/lsun": {**PULLED, "margin": 80, "image_size": 64, "batch_size": 128, "max_epochs": 1},
    "cyclegan/horse2zebra": {
        **{"constant_images": 100 * 1334, "decay_images": 100 * 1334},
        **{"image_size": 256, "batch_size": 1, "jitter": 30, **FLIPPED, "max_epochs": 200},
    },
    "pix2pix/facades": {"image_size": 256, "batch_size": 1, "jitter": 30, **FLIPPED, "max_epochs": 200},
}


def leaves(section: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings of a model or data: classes by the name of their argument, and values by its name and their own."""
    found: dict[str, Any] = {}
    for key, value in section.get("init_args", {}).items():
        if isinstance(value, dict):
            found[prefix + key] = value["class_path"].rpartition(".")[2]
            found |= leaves(value, f"{prefix}{key}.")
        elif key not in NOT_SETTINGS:
            found[prefix + key] = value
    return found


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_config_has_the_published_numbers(name):
    config = yaml.safe_load(configs()[name].read_text())
    assert leaves(config["model"]) | leaves(config["data"]) | config["trainer"] == PUBLISHED[name]
