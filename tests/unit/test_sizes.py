"""Images that need not be squares: sizes, networks, data and commands."""

from __future__ import annotations

import argparse
import json
import re
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from PIL import Image

import ganzoo
from ganzoo.cli import main
from ganzoo.cli.errors import number
from ganzoo.core.arguments import check_agreement
from ganzoo.core.limits import Count, Size, area, normal_size, refusal, sides
from ganzoo.data import Digits, ImageFolder, PairedFolder, Pairs, Pictures, Shards, UnpairedFolder, scan
from ganzoo.data.datasets import ArrayImages, Jittered
from ganzoo.data.decoding import fitted, resize
from ganzoo.data.prepare import prepare
from ganzoo.data.reading import Reading
from ganzoo.networks import autoencoder, dcgan, unet
from ganzoo.networks.base import gated_layout, residual_layout
from ganzoo.testing import fit, sources
from tests.variants import small


def noise(height: int, width: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def tensor(picture: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten pictures, 20 pixels wide and 10 high."""
    (tmp_path / "wide").mkdir()
    for i in range(10):
        noise(10, 20, i).save(tmp_path / "wide" / f"{i}.png")
    return tmp_path / "wide"


def test_a_size_is_a_side_or_height_and_width() -> None:
    assert sides(8) == (8, 8) and sides([8, 12]) == (8, 12) and sides((8, 12)) == (8, 12)
    assert area(8) == 64 and area([8, 12]) == 96
    assert [normal_size(size) for size in (8, [8, 8], (8, 12), None, "8")] == [8, 8, [8, 12], None, "8"]
    assert all(refusal(size, Size) is None for size in (1, 16384, [1, 16384], (8, np.int64(12))))
    assert refusal(None, Size | None) is None


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "is 0; it takes a whole number from 1 to 16384"),
        ([0, 96], "is [0, 96]: a side is 0; it takes a whole number from 1 to 16384"),
        ([64, 96.0], "is [64, 96.0]: a side is 96.0; it takes a whole number"),
        ([64], "is [64]; it takes a whole number or [height, width]"),
        ([64, 96, 3], "is [64, 96, 3]; it takes a whole number or [height, width]"),
        ("64", "is '64'; it takes a whole number or [height, width]"),
        (True, "is True; it takes a whole number or [height, width]"),
        (None, "is null; it takes a whole number or [height, width]"),
    ],
)
def test_other_sizes_are_refused(size: Any, words: str) -> None:
    assert refusal(size, Size) == words
    with pytest.raises(ValueError, match=re.escape(f"image_size {words}")):
        ganzoo.GAN(image_size=size)
    with pytest.raises(ValueError, match=re.escape(f"image_size {words}")):
        Digits(image_size=size)


def test_options_take_a_size() -> None:
    parse = number(Size)
    assert [parse(text) for text in ("8", "[8, 12]", "[8,12]")] == [8, [8, 12], [8, 12]]
    for text in ("8x12", "8,12", "[8, 12", "[8, 0]", "[8,12,3]"):
        with pytest.raises(argparse.ArgumentTypeError):
            parse(text)
    with pytest.raises(argparse.ArgumentTypeError):
        number(Count)("[8, 12]")


# Networks


@pytest.mark.parametrize(
    ("size", "layers"),
    [(8, (1, 4, 4)), (64, (4, 4, 4)), ([64, 64], (4, 4, 4)), ([64, 96], (4, 4, 6)), ([48, 64], (3, 6, 8))]
    + [([56, 64], (3, 7, 8)), ([8, 10], (1, 4, 5)), ([96, 32], (3, 12, 4))],
)
def test_dcgan_begins_with_four_to_seven_pixels_on_the_shorter_side(size: Any, layers: tuple[int, int, int]) -> None:
    assert dcgan.layout(size) == layers
    generator = dcgan.DCGANGenerator(size, channels=2, z_dim=3, width=1)
    images = generator(torch.randn(2, 3))
    assert images.shape == (2, 2, *sides(size)) and generator.project.out_features % (layers[1] * layers[2]) == 0
    assert dcgan.DCGANDiscriminator(size, channels=2, width=1)(images).shape == (2,)


@pytest.mark.parametrize(
    ("size", "coarsest"), [([64, 96], (4, 6)), ([4, 8], (2, 4)), ([16, 8], (4, 2)), ([40, 64], (10, 16)), (32, (2, 2))]
)
def test_a_u_net_halves_both_sides_as_often_as_it_can(size: Any, coarsest: tuple[int, int]) -> None:
    net = unet.UNet(size, channels=1, source_channels=2, width=1)
    masks = [torch.ones(1, *shape) for shape in net.noise]
    assert net(masks, torch.randn(1, 2, *sides(size))).shape == (1, 1, *sides(size))
    assert net.noise[0][1:] == coarsest


@pytest.mark.parametrize(
    ("make", "size", "best"),
    [
        (lambda size: residual_layout(size), 16_000, 896),  # 7 pixels, doubled 7 times
        (lambda size: gated_layout(size), [6000, 5000], [5888, 1792]),
        (lambda size: autoencoder.ConvAutoEncoder(size, 1, 1), 512, 128),
    ],
)
def test_images_that_are_far_too_large_get_a_size_that_fits(make: Any, size: Any, best: Any) -> None:
    with pytest.raises(ValueError, match=r"^image_size .*; try (.+)$") as caught:
        make(size)
    found = json.loads(str(caught.value).rpartition("; try ")[2])
    assert sides(found) == sides(best)


@pytest.mark.parametrize("net", [dcgan, autoencoder, unet])
def test_the_nearest_shape_is_named(net: Any) -> None:
    """For all shapes up to 40 pixels, the same as by brute force."""
    make = {dcgan: dcgan.layout, autoencoder: autoencoder.ConvAutoEncoder, unet: unet.UNet}[net]
    known = [(h, w) for h, w in product(range(1, 81), repeat=2) if net._fits(h, w)]
    for size in [*product(range(3, 41, 5), repeat=2), (1, 40), (2, 2), (40, 25)]:
        if net._fits(*size):
            continue
        with pytest.raises(ValueError, match=r"^image_size .*; try (.+)$") as caught:
            make(list(size))
        best = sides(json.loads(str(caught.value).rpartition("; try ")[2]))
        others = [shape for shape in known if shape[0] == shape[1] or size[0] != size[1]]
        assert best in others
        distances = [abs(h - size[0]) + abs(w - size[1]) for h, w in (best, *others)]
        assert distances[0] == min(distances), (size, best)


@pytest.mark.parametrize(
    ("name", "more"),
    [("EBGAN", {"architecture": "dcgan"}), ("ImprovedGAN", {"architecture": "conv"})]
    + [(name, {"architecture": "mlp", "image_size": [5, 7]}) for name in ("WGAN", "WGANGP", "LSGAN")]
    + [("LAPGAN", {"image_size": [6, 10], "levels": 1}), ("Pix2Pix", {"skips": False, "receptive_field": 1})]
    + [("CycleGAN", {"image_size": [8, 20]}), ("WGANGP", {"norm": "none"})],
    ids=str,
)
def test_other_networks_take_height_and_width(name: str, more: dict[str, Any]) -> None:
    model = getattr(ganzoo, name)(**{**small(name), "image_size": [16, 24], **more})
    fit(model, steps=model.n_critic)
    assert model.sample(seeds=[0], source=sources(model, 1)).shape[2:] == sides(
        {"image_size": [16, 24], **more}["image_size"]
    )


@pytest.mark.parametrize(
    ("name", "size", "words"),
    [
        ("DCGAN", [50, 66], r"image_size \[50, 66\]: DCGAN's layers .* 4 to 7 pixels up; try \[48, 64\]"),
        ("DCGAN", [30, 31], r"image_size \[30, 31\]: .*; try 32"),
        ("CycleGAN", [10, 17], r"image_size \[10, 17\]: two halvings .*; try \[12, 16\]"),
        ("Pix2Pix", [36, 64], r"image_size \[36, 64\]: a U-Net .* less than 8 pixels; try \[40, 64\]"),
        ("LAPGAN", [16, 22], r"levels 2: image_size \[16, 22\] can be halved 1 times, so use 0 to 1"),
    ],
)
def test_shapes_that_a_network_cannot_take_are_refused(name: str, size: list[int], words: str) -> None:
    with pytest.raises(ValueError, match=f"^{words}$"):
        getattr(ganzoo, name)(**{**small(name), "image_size": size})


def test_the_model_and_the_data_agree_on_a_size() -> None:
    for mine, theirs in ((16, [16, 16]), ((16, 24), [16, 24]), ([16, 16], 16)):
        check_agreement("GAN", {"image_size": mine}, SimpleNamespace(image_size=theirs))
    with pytest.raises(MisconfigurationException, match=r"image_size is \[16, 24\], but \[24, 16\] in the data"):
        check_agreement("GAN", {"image_size": [16, 24]}, SimpleNamespace(image_size=[24, 16]))
    model = ganzoo.GAN([4, 6], 1, hidden=2, d_hidden=2)
    with pytest.raises(MisconfigurationException, match=r"\[N, 1, 6, 4\], but the model needs \[N, 1, 4, 6\]"):
        fit(model, torch.utils.data.DataLoader([{"image": torch.randn(1, 6, 4).clamp(-1, 1)}] * 4), steps=1)


# Data


def test_pictures_are_cropped_squeezed_or_padded() -> None:
    wide, tall = noise(6, 9), noise(9, 6)
    assert torch.equal(fitted(wide, [6, 4]), tensor(wide)[:, :, 2:6])
    assert torch.equal(fitted(wide, [2, 9]), tensor(wide)[:, 2:4])
    assert torch.equal(fitted(tall, [4, 6]), tensor(tall)[:, 2:6])
    squeezed = wide.resize((4, 8), Image.Resampling.LANCZOS)
    assert torch.equal(fitted(wide, [8, 4], "squeeze"), tensor(squeezed))
    padded = fitted(wide, [10, 9], "pad")
    assert torch.equal(padded[:, 2:8], tensor(wide))
    assert (padded[:, :2] == 255).all() and (padded[:, 8:] == 255).all()
    small_one = fitted(wide.convert("L"), [8, 3], "pad")
    assert small_one.shape == (1, 8, 3) and (small_one[:, [0, 1, 2, 5, 6, 7]] == 255).all()
    assert torch.equal(small_one[0, 3:5], torch.from_numpy(np.array(wide.convert("L").resize((3, 2), 1))))
    assert torch.equal(fitted(wide, [6, 9], "pad"), tensor(wide))
    assert fitted(noise(1, 300), [8, 4], "pad").shape == fitted(noise(300, 1), [8, 4]).shape == (3, 8, 4)


def test_arrays_are_resampled_to_height_and_width() -> None:
    images = torch.full((2, 1, 8, 8), 200, dtype=torch.uint8)
    images[:, :, :, 4:] = 0
    assert resize(images, [4, 16]).shape == (2, 1, 4, 16)
    assert resize(images, [4, 16])[0, 0, 0, [0, -1]].tolist() == [200, 0]
    digits = Digits(image_size=[16, 24])
    assert digits.dataset("val")[0]["image"].shape == (1, 16, 24)
    with pytest.raises(ValueError, match=r"factor is 3; .* divide image_size \[16, 24\]: choose one of 2, 4$"):
        Pairs(digits, "low-resolution", factor=3)
    pair = Pairs(digits, "low-resolution", factor=4).dataset("val")[0]
    assert pair["source"].shape == (1, 16, 24)
    assert Pairs(digits).dataset("val")[0]["source"].shape == (1, 16, 24)


def test_random_crops_move_along_both_sides() -> None:
    places = torch.arange(9 * 13, dtype=torch.uint8).reshape(1, 1, 9, 13)
    crops = Jittered(ArrayImages(places), (6, 12), 0).__getitems__(range(60))["image"]
    assert crops.shape == (60, 1, 6, 12)
    corners = {divmod(int(crop[0, 0, 0]), 13) for crop in crops}
    assert corners == set(product(range(4), range(2)))


def test_a_folder_of_pictures_in_a_shape(folder: Path) -> None:
    options: dict[str, Any] = {"image_size": [8, 12], "batch_size": 2, "num_workers": 0, "val_fraction": 0.0}
    prints = set()
    for how in ("crop", "squeeze", "pad"):
        data = ImageFolder(str(folder), fit=how, **options)
        first = data.dataset("train")[0]["image"]
        assert torch.equal(first, fitted(noise(10, 20), [8, 12], how)) and data.image_size == [8, 12]
        prints.add(data.dataset("train").fingerprint())
    assert len(prints) == 3
    assert next(iter(ImageFolder(str(folder), **options).train_dataloader()))["image"].shape == (2, 3, 8, 12)


def test_translations_of_pictures_in_a_shape(folder: Path) -> None:
    options: dict[str, Any] = {"image_size": [8, 12], "batch_size": 2, "num_workers": 0, "jitter": 3}
    (folder.parent / "other").mkdir()
    for file in folder.iterdir():
        noise(10, 20, 99).save(folder.parent / "other" / file.name)
    other = str(folder.parent / "other")
    for data in (
        PairedFolder(str(folder), fit="pad", **options),
        PairedFolder(str(folder), other, **options),
        UnpairedFolder(str(folder), other, **options),
    ):
        batch = next(iter(data.train_dataloader()))
        assert batch["image"].shape == batch["source"].shape == (2, 3, 8, 12)
        assert data.dataset("train")[0]["source"].shape == (3, 8, 12)
    halves = PairedFolder(str(folder), fit="pad", **options).dataset("train")
    where = halves.members[0]  # the source is the left half, 10 x 10, centred on white
    assert torch.equal(halves[0]["source"], fitted(noise(10, 20, where).crop((0, 0, 10, 10)), [8, 12], "pad"))
    assert (halves[0]["source"][:, :, :2] == 255).all()


def test_shards_of_pictures_in_a_shape(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pyarrow")
    out = tmp_path / "out"
    arguments = ["data", "prepare", str(folder), str(out), "--image_size", "[8, 12]", "--fit", "pad", "--jobs", "1"]
    assert main(arguments) == 0 and "10 colour pictures of 12x8" in capsys.readouterr().out
    options: dict[str, Any] = {"val_fraction": 0.0, "num_workers": 0}
    data, same = Shards(str(out), **options), ImageFolder(str(folder), [8, 12], fit="pad", **options)
    assert data.image_size == [8, 12]
    assert torch.equal(data.dataset("train")[3]["image"], same.dataset("train")[3]["image"])
    before = (out / "index.json").read_bytes()
    assert main(arguments) == 0 and (out / "index.json").read_bytes() == before
    assert prepare(str(folder), str(tmp_path / "own")).image_size == [10, 20]
    assert prepare(str(folder), str(tmp_path / "square"), image_size=(8, 8)).image_size == 8


def test_pictures_for_scores_in_a_shape(folder: Path) -> None:
    found = Pictures(folder, image_size=[8, 12])
    assert found.image_size == (8, 12) and torch.equal(found[0]["image"], Reading([8, 12])(folder / "0.png"))
    assert not scan(str(folder), [10, 20]).notes and len(scan(str(folder), [11, 20]).notes) == 10
    assert scan(str(folder), [10, 21]).notes["0.png"] == "20x10, below [10, 21] pixels"


# Commands


def test_commands_train_on_and_sample_height_and_width(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    fit = "fit --model DCGAN --model.width 2 --data Digits --data.image_size [8,12] --data.batch_size 100"
    fit += " --trainer.max_steps 2 --samples.rows 2 --samples.columns 3 --samples.video_fps 2 --scores.final_n 20"
    assert main(fit.split()) == 0
    (run,) = Path("runs").iterdir()
    assert ganzoo.load(run).hparams["image_size"] == [8, 12]
    assert Image.open(run / "reals.png").size == (3 * (72 + 2) + 2, 2 * (48 + 2) + 2)
    assert main(["sample", str(run), "--seeds", "0,1", "--format", "png"]) == 0
    assert Image.open("samples/seed000000.png").size == (12, 8)
    assert (
        main(["evaluate", "samples", "samples", "--metrics", "fid", "--extractor", "digits", "--resize", "[9, 7]"]) == 0
    )
    capsys.readouterr()
    assert main(fit.replace("[8,12]", "[9,12]").split()) == 2
    assert "data.image_size [9, 12]: DCGAN's layers" in (error := capsys.readouterr().err) and "try [10, 12]" in error
    assert main(fit.replace("[8,12]", "[8,0]").split()) == 2
    assert "data.image_size is [8, 0]: a side is 0" in capsys.readouterr().err
    assert main(fit.replace("[8,12]", "eight").split()) == 2
    assert "data.image_size: Expected a whole number or a list. Got value: eight" in capsys.readouterr().err


def test_sources_are_read_in_the_shape_of_the_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    model = ganzoo.Pix2Pix([8, 12], channels=1, source_channels=3, width=1)
    ganzoo.save_pretrained(model, "weights")
    assert main(["sample", "weights", "--source", "wide", "--format", "npy"]) == 0
    assert np.load("samples/samples.npy").shape == (10, 8, 12, 1)
    with pytest.raises(ValueError, match="translates 8x12 pixels, not 12x8"):
        model.sample(source=torch.zeros(1, 3, 12, 8))


def test_a_variant_for_squares_refuses_other_data() -> None:
    class Squares(ganzoo.GAN):
        def __init__(self, image_size: int = 8, channels: int = 1) -> None:
            super().__init__(image_size, channels, hidden=2, d_hidden=2)

    assert Squares(8).generator.shape == (1, 8, 8)
    with pytest.raises(ValueError, match=r"^image_size is \[8, 12\]; it takes a whole number$"):
        Squares([8, 12])  # type: ignore[arg-type]
