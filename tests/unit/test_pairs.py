"""Translations beside the true images of their sources."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import ganzoo
from ganzoo.data import Digits, GANDataModule, Pairs, Tones
from ganzoo.data.base import Split
from ganzoo.evaluation.metrics import TruePartners
from ganzoo.evaluation.states import Sample
from ganzoo.functional.pairs import l1_and_psnr


def test_l1_and_psnr_by_definition() -> None:
    truth = torch.zeros(2, 1, 2, 2, dtype=torch.uint8)
    truth[1] = 255
    images = truth[[0, 1, 0]].clone()
    images[0, 0, 0, 0], images[1] = 51, 204
    l1, psnr = l1_and_psnr(images, truth)
    assert l1.tolist() == pytest.approx([0.05, 0.2, 0])
    mse = [0.04 / 4, 0.04, 1 / 255**2 / 4]
    assert psnr.tolist() == pytest.approx([-10 * math.log10(x) for x in mse])


class Inverse(ganzoo.Pix2Pix):
    """Generates the negative of its source."""

    def generate(self, z: Tensor, batch: dict[str, Tensor]) -> Tensor:  # type: ignore[override]
        return -batch["source"]


def test_translations_are_compared_with_the_truth_of_their_sources() -> None:
    data = Pairs(Digits(image_size=16), "low-resolution", factor=2)
    model = Inverse(image_size=16, channels=1, source_channels=1, width=4)
    report = ganzoo.evaluate(model, data, ["pairs"], n=300)  # but there are 200 sources
    val = data.dataset("val").__getitems__(range(200))
    l1, psnr = l1_and_psnr(255 - val["source"], val["image"])
    scores = {score.figure: score for score in report.scores}
    assert scores["l1"].value == pytest.approx(l1.mean().item())
    assert scores["psnr"].value == pytest.approx(psnr.mean().item())
    assert scores["psnr"].error == pytest.approx((psnr.std() / 200**0.5).item())
    assert scores["l1"].name == "l1_200_val"


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("make", [lambda **how: Pairs(Digits(), "edges", **how), Tones])
def test_splits_with_known_partners(make: type[GANDataModule], paired: bool) -> None:
    splits: tuple[Split, ...] = ("train", "val", "test")
    assert [make(paired=paired).partners(split) for split in splits] == [paired, True, True]
    assert not Digits().partners("val")


def test_pairs_need_known_partners() -> None:
    data = Pairs(Digits(image_size=16), "low-resolution", factor=2, paired=False)
    model = Inverse(image_size=16, channels=1, source_channels=1, width=4)
    with pytest.raises(ValueError, match="pairs needs a translator, and data whose images are the true translations"):
        ganzoo.evaluate(model, data, ["pairs"], n=20, split="train")
    dcgan = ganzoo.DCGAN(image_size=16, channels=1, width=4)
    with pytest.raises(ValueError, match="pairs needs a translator"):
        ganzoo.evaluate(dcgan, Digits(image_size=16), ["pairs"], n=20)


def test_the_name_counts_the_pairs_that_are_compared() -> None:
    assert TruePartners().count(10_000) == Sample(10_000).room == 5000
    assert TruePartners().count(200) == 200
