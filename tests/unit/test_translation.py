"""The video of moving inputs: StyleGAN3 beside StyleGAN2."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import ganzoo
from ganzoo.checkpoint.pretrained import save_pretrained
from ganzoo.functional.equivariance import translation, translation_db
from tests.campaigns.translation import circle, main, of_stylegan2, of_stylegan3
from tests.variants import small


def model(name, **more):
    torch.manual_seed(0)
    made = getattr(ganzoo, name)(**{**small(name), "image_size": 16, "ema_half_life": None, **more})
    made.generator.requires_grad_(False)
    return made.eval()


def test_stylegan3_moves_its_waves():
    images = of_stylegan3(model("StyleGAN3"), [0, 5])
    assert images(torch.eye(3)).shape == (2, 1, 16, 16)
    assert translation_db(images, [(2, -1)]) > 60


def test_stylegan2_moves_its_constant_without_noise():
    gan = model("StyleGAN2")
    before, const = {key: value.clone() for key, value in gan.state_dict().items()}, gan.generator.synthesis.const
    for conv in gan.generator.synthesis.convs:
        conv.strength.fill_(0.0)
    z, y = gan.seeded([0, 5]), {"label": torch.tensor([0, 1])}
    still, moved = gan.generate(z, y), of_stylegan2(gan, [0, 5])
    torch.testing.assert_close(moved(torch.eye(3)).clamp(-1, 1), still)
    there = moved(translation(0.25, -0.5))
    for conv in gan.generator.synthesis.convs:
        conv.strength.fill_(7.0)
    torch.testing.assert_close(moved(translation(0.25, -0.5)), there)
    torch.testing.assert_close(of_stylegan2(gan, [0, 5])(torch.eye(3)).clamp(-1, 1), still)
    gan.load_state_dict(before)
    const.copy_(const.roll((-2, 1), (1, 2)))  # of 4 pixels
    torch.testing.assert_close(of_stylegan2(gan, [0, 5])(torch.eye(3)), there)
    assert not torch.allclose(there.clamp(-1, 1), still)


def test_the_path_is_a_circle_from_the_origin():
    path = torch.tensor(circle(3.0, 40))
    assert path[0].tolist() == [0, 0] and path[20].tolist() == pytest.approx([0, 6], abs=1e-5)
    torch.testing.assert_close((path - torch.tensor([0.0, 3.0])).norm(dim=1), torch.full((40,), 3.0))


def test_the_video_has_both_models_side_by_side(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    three, two = model("StyleGAN3"), model("StyleGAN2")
    save_pretrained(three, Path("three"))
    save_pretrained(two, Path("two"))
    out = "pictures/video.webp"
    assert main(["three", "two", "--out", out, "--frames", "5", "--radius", "1.5", "--seeds", "0", "1"]) == 0
    said = capsys.readouterr().out
    assert "StyleGAN3: " in said and "StyleGAN2: " in said and "5 frames" in said
    with Image.open(out) as video:
        assert video.n_frames == 5 and video.info["loop"] == 0
        assert video.size == (2 * 128 + 3 * 2, 2 * 128 + 3 * 2)
        first = torch.from_numpy(np.array(video.convert("L"))) / 127.5 - 1
        video.seek(2)
        later = torch.from_numpy(np.array(video.convert("L"))) / 127.5 - 1
    expected = three.generate(three.seeded([0, 1]), {"label": torch.tensor([0, 1])})
    assert (first[6:130:8, 6:130:8] - expected[0, 0]).abs().mean() < 0.05  # pixels are enlarged 8 times
    assert not torch.equal(first[:, :131], later[:, :131]) and not torch.equal(first[:, 131:], later[:, 131:])
    for command in (["two", "two"], ["three", "three"]):
        with pytest.raises(SystemExit):
            main([*command, "--out", out])
    assert "StyleGAN3 given where StyleGAN2 is expected" in capsys.readouterr().err
