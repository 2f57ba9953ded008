"""The table and the picture of style mixing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

import ganzoo
from ganzoo.checkpoint.pretrained import save_pretrained
from tests.campaigns.mixing import PLACES, main, mixes, shares
from tests.variants import small


def model(name="StyleGAN2", **more):
    torch.manual_seed(0)
    return getattr(ganzoo, name)(**{**small(name), "image_size": 16, **more}).eval()


def test_mixes_go_from_the_fine_image_to_the_coarse_one():
    gan = model(num_classes=None, ema_half_life=None)
    mixed = mixes(gan, 2)
    single = gan.generate(gan.seeded(range(4)))
    assert mixed.shape == (7, 2, 1, 16, 16)
    torch.testing.assert_close(mixed[0], single[1::2])
    torch.testing.assert_close(mixed[-1], single[0::2])
    assert all(not torch.equal(a, b) for a, b in zip(mixed[:-2], mixed[1:-1], strict=True))


@pytest.mark.parametrize("moved", PLACES)
def test_shares_are_those_of_the_fine_image_in_each_place(moved):
    fine, coarse = torch.rand(2, 5, 3, 64, 64)
    between = coarse.clone()
    top, bottom, left, right = PLACES[moved]
    between[..., top:bottom, left:right] += 0.3 * (fine - coarse)[..., top:bottom, left:right]
    found = shares(torch.stack([fine, between, coarse]))
    for place, values in found.items():
        assert values == pytest.approx([1, 0.3 if place == moved else 0, 0], abs=1e-6), place


def test_places_are_the_same_share_of_smaller_images():
    images = torch.rand(3, 5, 3, 32, 32)
    large = images.repeat_interleave(2, 3).repeat_interleave(2, 4)
    for place, values in shares(images).items():
        assert values == pytest.approx(shares(large)[place])


def test_the_command_prints_a_table_and_draws_the_mixes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save_pretrained(model(channels=3), Path("two"))
    assert main(["two", "--pairs", "3", "--rows", "2", "--out", "new/mixing.png"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| fine from layer | at pixels | hair | face | clothes |"
    layers = [line.split(" | ")[:2] for line in lines[2:]]
    assert layers == [["| 1", "8"], ["| 2", "8"], ["| 3", "16"], ["| 4", "16"], ["| 5", "16"]], "the last: the image's"
    assert Image.open("new/mixing.png").size == (7 * 64 + 8 * 2, 2 * 64 + 3 * 2)


def test_other_variants_are_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save_pretrained(model("DCGAN"), Path("other"))
    with pytest.raises(SystemExit):
        main(["other", "--out", "mixing.png"])
    assert "DCGAN given where StyleGAN2 is expected" in capsys.readouterr().err
