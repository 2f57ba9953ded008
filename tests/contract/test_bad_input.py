"""Invalid settings and data fail before the first update with one line naming cause and cure: on the command line
and in Python.
"""

from __future__ import annotations

import shlex
from itertools import product
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from PIL import Image

import ganzoo
from ganzoo.checkpoint.pretrained import load
from ganzoo.cli import main
from ganzoo.data import Digits, Gaussians, ImageFolder, PairedFolder, Pairs, SemiSupervised, UnpairedFolder
from tests.variants import small

COLOURS = {"L": 90, "RGB": (90, 30, 60)}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for mode, colour in COLOURS.items():
        (folder / mode).mkdir()
        for i in range(20):
            Image.new(mode, (16, 16), colour).save(folder / f"{mode}/{i}.png")
    return folder


@pytest.fixture(autouse=True)
def folder(images, tmp_path, monkeypatch):
    """Run every test in a folder with a few images."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GANZOO_TRACEBACK", raising=False)
    for mode in COLOURS:
        Path(mode).symlink_to(images / mode)


UNPAIRED = "--data UnpairedFolder --data.path RGB --data.source_path L --data.image_size 16"
# Arguments of `fit` and the expected error message
TYPED = {
    "labels missing": (
        "--model CGAN --data ImageFolder --data.path RGB --data.labels false",
        "CGAN needs labels, but the data has none: use labelled data, or ImageFolder with --data.labels true",
    ),
    "other classes": (
        "--model ACGAN --model.num_classes 11 --data Digits --data.image_size 16",
        "model.num_classes is taken from the data; leave it out",
    ),
    "too deep": (
        "--model LAPGAN --model.levels 5 --data Digits --data.image_size 16",
        "model.levels 5: image_size 16 can be halved 4 times, so use 0 to 4",
    ),
    "other channels": (
        f"--model CycleGAN {UNPAIRED}",
        "all pictures in L are grey, but those in RGB are not, and channels and source_channels are both 3: "
        "set data.source_channels to 1",
    ),
    "no probability": (
        "--model DCGAN --model.augment APA --model.augment.p 1.5 --data Digits",
        "model.augment.p is 1.5; it takes a number from 0 to 1",
    ),
    "no reachable target": (
        "--model DCGAN --model.augment ADA --model.augment.target 1 --data Digits",
        "model.augment.target is 1.0; it takes a number in (-1, 1)",
    ),
    "no signs": (
        "--model WGANGP --model.augment ADA --data Digits",
        "augment: p follows the signs of D's logits of reals, but WGANGP has no such logits: set p, for example to 0.2",
    ),
    "no augmentation": (
        "--model DCGAN --model.augment DifAugment --data Digits",
        "model.augment: Expected a dot import path string: DifAugment; did you mean 'DiffAugment'?",
    ),
    "no critic": (
        "--model WGAN --model.n_critic 0 --data Digits",
        "model.n_critic is 0; it takes a whole number from 1 up",
    ),
    "negative margin": (
        "--model EBGAN --model.margin -1 --data Digits",
        "model.margin is -1.0; it takes a number from 0 up",
    ),
    # related mistakes
    "no identity": (
        f"--model CycleGAN --model.identity 5 --model.width 2 {UNPAIRED} --data.source_channels 1",
        "model.identity needs equal numbers of channels, not 3 and 1: set it to 0",
    ),
    "no sources": (
        "--model Pix2Pix --data Digits",
        "Pix2Pix translates images, but the data has no sources: use PairedFolder, UnpairedFolder or Pairs",
    ),
    "no pairs": (
        f"--model Pix2Pix --model.width 4 {UNPAIRED} --data.source_channels 1 --data.batch_size 4",
        "Pix2Pix needs pairs, but the data is unpaired: use PairedFolder, Pairs with data.paired true, or the "
        "model CycleGAN",
    ),
    "no labelled subset": (
        "--model LadderEBGAN --model.hidden 8 --data Digits",
        "LadderEBGAN needs some labelled images: use SemiSupervised, which wraps other data",
    ),
    "too many labels": (
        "--model LadderEBGAN --model.hidden 8 --data SemiSupervised --data.data Digits --data.labels_per_class 999",
        "data.labels_per_class is 999, but class 8 of Digits has 134 training images: lower it to 134 or less",
    ),
    "nested size": (
        "--model Pix2Pix --data Pairs --data.data Digits --data.data.image_size 7",
        "data.data.image_size 7: a U-Net halves down to one pixel, so it takes 4, 8, 16, ...; try 8",
    ),
    "no width": (
        "--model CGAN --model.hidden -3 --data Digits",
        "model.hidden is -3; it takes a whole number from 1 up",
    ),
    "points": (
        "--model ACGAN --data Gaussians",
        "image_size 1: DCGAN's layers need images of 8, 16, 32, 64, ... pixels, not points; use other data, or "
        "fully connected networks (GAN, MLPGAN, or architecture mlp)",
    ),
    "larger than the memory": (
        "--model DCGAN --model.width 1000000000 --data Digits",
        "model.width 1000000000 makes the model larger than this machine's memory; lower it, or another large argument",
    ),
    "frozen": (
        "--model DCGAN --model.optimizer SGD --model.optimizer.lr 0 --data Digits",
        "model.optimizer of the discriminator: lr is 0.0; it takes a number in (0, 100]",
    ),
    "torch's own ranges": (
        "--model DCGAN --model.optimizer Adam --model.optimizer.betas [0.5,2] --data Digits",
        "model.optimizer of the discriminator: Invalid beta parameter at index 1: 2.0",
    ),
    "unknown features": (
        "--model ProjectedGAN --model.features efficientnet-b0 --data Digits",
        "model.features is efficientnet-b0; did you mean 'efficientnet_b0'?",
    ),
    "features of other images": (
        "--model ProjectedGAN --data ImageFolder --data.path RGB --data.image_size 16 --data.channels 4",
        "model.features: efficientnet_b0 reads grey or RGB images, but they have 4 channels",
    ),
    "dropout of 1": (
        "--model CGAN --model.d_dropout 1 --data Digits",
        "model.d_dropout is 1.0; it takes a number in [0, 1)",
    ),
}


@pytest.mark.parametrize("case", TYPED)
def test_fit_refuses_bad_arguments_in_one_line(case, capfd):
    command, message = TYPED[case]
    assert main(["fit", *shlex.split(command), "--trainer.max_steps", "1"]) == 2
    output = capfd.readouterr()
    assert (output.out, output.err) == ("", f"ganzoo: error: {message}\n")
    assert not Path("runs").exists()


def test_features_without_weights_and_network_are_refused_before_training(capfd, monkeypatch, tmp_path):
    def offline(*_, **__):
        raise OSError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    small = shlex.split("--model.width 1 --model.d_width 1 --data Digits --trainer.max_steps 1")
    assert main(["fit", "--model", "ProjectedGAN", *small]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    place = tmp_path / "hub" / "checkpoints" / "efficientnet_b0_rwightman-7f5810bc.pth"
    assert line.startswith("ganzoo: error: the weights of the features efficientnet_b0 could not be downloaded (no net")
    assert f"save https://download.pytorch.org/models/{place.name} as {place}, choose features that come with" in line
    assert not Path("runs").exists()


def fit(model, data):
    """Call `Trainer.fit`, which must raise before the first update."""
    model.manual_backward = lambda *_: pytest.fail("training has begun")
    source = {"datamodule": data} if hasattr(data, "prepare_data") else {"train_dataloaders": data}
    quiet_trainer(max_steps=1).fit(model, **source)


def quiet_trainer(**settings):
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(accelerator="cpu", logger=False, **quiet, **settings)


def make(name, **arguments):
    return getattr(ganzoo, name)(**{**small(name), **arguments})


def loader(**tensors):
    return torch.utils.data.DataLoader([tensors] * 4, batch_size=2)


BYTES = torch.randint(256, (4, 1, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
IMAGES = BYTES / 127.5 - 1


class Own:
    """A custom loader of one batch."""

    def __init__(self, image=IMAGES, **others):
        self.batch = {"image": image, **others}

    def __len__(self):
        return 1

    def __iter__(self):
        yield dict(self.batch)


def one_bad(value):
    images = IMAGES.clone()
    images[3, 0, 2, 1] = value
    return images


# Bad batches of a custom loader: variant, loader, and the error message of fit, validate and test
BATCHES = {
    "tuples": (
        "DCGAN",
        torch.utils.data.DataLoader([(x, 0) for x in IMAGES], 2),
        "a batch must be a dict .* not a list: let",
    ),
    "no image": ("DCGAN", loader(img=IMAGES[0]), r"DCGAN needs batch\['image'\], but the batches have only img"),
    "0 to 1": (
        "DCGAN",
        Own(BYTES / 255),
        r"batch\['image'\] are never negative, so probably in \[0, 1\].*2 \* x - 1",
    ),
    "0 to 255": ("DCGAN", Own(BYTES.float()), r"floats from 0 to 255, not in \[-1, 1\]: use x / 127.5 - 1"),
    "bytes": ("GAN", Own(BYTES), r"torch.uint8, but the model needs torch.float32 in \[-1, 1\]: use x / 127.5 - 1"),
    "whole numbers": ("DCGAN", Own(BYTES.long()), "torch.int64, neither torch.uint8 nor floats"),
    "double": ("DCGAN", Own(IMAGES.double()), r"torch.float64, .*: use x.float\(\)"),
    "half": ("DCGAN", Own(IMAGES.half()), r"torch.float16, .*: use x.float\(\)"),
    "NaN": ("DCGAN", Own(one_bad(torch.nan)), "not finite, for example number 3, counted from 0"),
    "beyond": ("DCGAN", Own(one_bad(1.006)), "floats from -1 to 1.01"),
    "channels": ("DCGAN", Own(IMAGES.expand(-1, 3, -1, -1)), r"\[N, 3, 16, 16\], but the model needs \[N, 1, 16, 16\]"),
    "size": ("DCGAN", Own(IMAGES[..., :8, :8]), r"\[N, 1, 8, 8\], but the model needs \[N, 1, 16, 16\]"),
    "channels last": (
        "DCGAN",
        Own(IMAGES.permute(0, 2, 3, 1)),
        r"channels last: put them first with permute\(0, 3, 1, 2\)",
    ),
    "channels last, grey with alpha": (
        "DCGAN",
        Own(IMAGES.expand(-1, 2, -1, -1).permute(0, 2, 3, 1)),
        r"channels last: put them first with permute\(0, 3, 1, 2\)",
    ),
    "empty": ("DCGAN", Own(IMAGES[:0]), r"empty: \[0, 1, 16, 16\]"),
    "no tensor": ("DCGAN", Own([1, 2]), r"batch\['image'\] is a list, not a tensor"),
    "label missing": ("CGAN", Own(), r"CGAN needs batch\['label'\], but the batches have only image"),
    "label beyond": (
        "CGAN",
        Own(label=torch.tensor([0, 1, 2, 3])),
        "labels from 0 to 3; the model's classes are 0 to 2",
    ),
    "label below": (
        "ACGAN",
        Own(label=torch.tensor([0, 1, 2, -1])),
        "labels from -1 to 2; the model's classes are 0 to 2",
    ),
    "label of floats": ("CGAN", Own(label=torch.ones(4)), r"torch.float32 \[4\]; labels must be torch.int64 \[4\]"),
    "one-hot": (
        "CGAN",
        Own(label=torch.eye(3).long()[[0, 1, 2, 0]]),
        r"torch.int64 \[4, 3\]; labels must be torch.int64 \[4\]",
    ),
    "fewer labels": ("CGAN", Own(label=torch.tensor([0, 1, 2])), r"torch.int64 \[3\]; labels must be torch.int64"),
    "source of bytes": ("Pix2Pix", Own(source=BYTES.expand(-1, 2, -1, -1)), r"batch\['source'\] are torch.uint8"),
    "source's channels": ("Pix2Pix", Own(source=IMAGES), r"\[N, 1, 16, 16\], but the model needs \[N, 2, 16, 16\]"),
    "labelled": (
        "LadderEBGAN",
        Own(labelled=(BYTES / 255, torch.tensor([0, 1, 2, 0]))),
        r"\['labelled'\]\[0\] are never negative",
    ),
    "labelled's labels": ("LadderEBGAN", Own(labelled=(IMAGES, torch.tensor([0, 1, 2, 3]))), "labels from 0 to 3"),
}


@pytest.mark.parametrize(
    ("case", "what"),
    [*product(BATCHES, ["fit"]), *product(["tuples", "size", "label beyond"], ["validate", "test"])],
)
def test_bad_batches_of_a_custom_loader_are_refused(case, what):
    variant, batches, message = BATCHES[case]
    trainer = quiet_trainer(max_steps=1)
    with pytest.raises(MisconfigurationException, match=message) as caught:
        getattr(trainer, what)(make(variant), batches)
    assert "\n" not in str(caught.value) and trainer.global_step == 0


@pytest.mark.parametrize(
    "image",
    [
        IMAGES * 1.003,
        (IMAGES + 1).clamp(max=0.1) - 1,  # dark like MNIST
        torch.full_like(IMAGES, -1),
        torch.zeros_like(IMAGES),
        (BYTES // 2 + 128) / 127.5 - 1,  # bytes of the upper half
    ],
    ids=["rounding", "dark", "black", "constant", "bright"],
)
def test_unusual_but_valid_batches_are_accepted(image):
    trainer = quiet_trainer(max_steps=1)
    trainer.fit(make("DCGAN"), Own(image))
    assert trainer.global_step == 1


def test_only_the_first_batch_of_each_fit_is_checked(monkeypatch):
    """Because the check synchronises with the device."""
    looked = []
    monkeypatch.setattr("ganzoo.core.batch._check_values", lambda *_: looked.append(1))
    for _ in range(2):
        quiet_trainer(max_epochs=3).fit(make("DCGAN"), Own())
    assert len(looked) == 2


# Python calls that fail, and their error messages
CALLED = {
    "labels missing": (
        lambda: fit(make("CGAN", channels=3), ImageFolder("RGB", image_size=16, batch_size=4, labels=False)),
        "CGAN needs labels, but the data has none",
    ),
    "labels missing, own loader": (
        lambda: fit(make("CGAN"), loader(image=torch.zeros(1, 16, 16))),
        r"CGAN needs batch\['label'\], but the batches have only image",
    ),
    "other classes": (
        lambda: fit(make("ACGAN", num_classes=9), Digits(image_size=16)),
        "num_classes is 9, but 10 in the data: make them equal",
    ),
    "too deep": (lambda: make("LAPGAN", levels=5), "levels 5: image_size 16 can be halved 4 times, so use 0 to 4"),
    "other channels": (lambda: UnpairedFolder("RGB", "L", image_size=16), "set data.source_channels to 1"),
    "other channels than the model's": (
        lambda: fit(
            make("CycleGAN", channels=3, source_channels=3),
            UnpairedFolder("RGB", "L", image_size=16, source_channels=1, batch_size=4, num_workers=0),
        ),
        "source_channels is 3, but 1 in the data: make them equal",
    ),
    "no critic": (lambda: make("WGAN", n_critic=0), "n_critic is 0; it takes a whole number from 1"),
    "negative margin": (lambda: make("EBGAN", margin=-1.0), "margin is -1.0; it takes a number from 0"),
    # related mistakes
    "no pairs": (
        lambda: fit(make("Pix2Pix", source_channels=1), Pairs(Digits(image_size=16), paired=False)),
        "Pix2Pix needs pairs",
    ),
    "no labelled subset": (
        lambda: fit(make("LadderEBGAN", num_classes=10), Digits(image_size=16)),
        "LadderEBGAN needs some labelled images",
    ),
    "few labels, own loader": (
        lambda: fit(make("LadderEBGAN"), loader(image=torch.zeros(1, 16, 16))),
        "LadderEBGAN needs some labelled images",
    ),
    "sources missing, own loader": (
        lambda: fit(make("Pix2Pix"), loader(image=torch.zeros(1, 16, 16))),
        r"Pix2Pix needs batch\['source'\]",
    ),
    "other side": (lambda: PairedFolder("RGB", source_side="top"), "source_side is 'top'; it takes one of left, right"),
    "other fit": (lambda: PairedFolder("RGB", fit="stretch"), "fit is 'stretch'; it takes one of crop, squeeze"),
    "unknown value of corrupt": (
        lambda: UnpairedFolder("RGB", "L", source_channels=1, corrupt="ignore"),
        "corrupt is 'ignore'; it takes one of refuse, skip",
    ),
    "text instead of a number": (lambda: make("DCGAN", width="4"), "width is '4'; it takes a whole number"),
    "null": (lambda: Digits(batch_size=None), "batch_size is null; it takes a whole number"),
    "not finite": (lambda: make("EBGAN", margin=float("nan")), "margin is nan; it takes a finite number"),
    "more points than memory": (lambda: Gaussians(n=10**15), "n is 1000000000000000, which takes 64,000,000 GB"),
    "more pixels than memory": (lambda: Digits(image_size=16384).dataset("train"), "image_size is 16384, which takes"),
    "negative noise": (lambda: make("LadderEBGAN", noise=-0.1), "noise is -0.1; it takes a number from 0"),
    "negative lambda": (lambda: make("InfoGAN", codes_weight=-1.0), "codes_weight is -1.0; it takes a number from 0"),
    "another output": (
        lambda: make("GAN").sample(output_type="jpg"),
        "output_type is 'jpg'; it takes one of pt, np, pil",
    ),
    "fractional label": (lambda: make("CGAN").sample(2, label=1.7), "label is 1.7; it takes a whole number"),
    "fractional labels": (lambda: make("CGAN").sample(label=torch.tensor([1, 1.5])), "label is 1.0; it takes a whole"),
    "a label as text": (lambda: make("CGAN").sample(label="1"), "label is '1'; it takes a whole number"),
    "fractional seed": (lambda: make("GAN").sample(seeds=[0, 0.5]), "seeds is 0.5; it takes a whole number"),
    "parts of images": (lambda: make("GAN").sample(2.5), "n is 2.5; it takes a whole number"),
    "no images": (lambda: make("GAN").sample(0), "n is 0; it takes a whole number from 1 up"),
    "no images at once": (
        lambda: make("GAN").sample(2, batch_size=0),
        "batch_size is 0; it takes a whole number from 1",
    ),
    "sources of bytes": (
        lambda: make("Pix2Pix").sample(source=BYTES.expand(-1, 2, -1, -1)),
        r"the sources are torch.uint8, not floats in \[-1, 1\]: use x / 127.5 - 1",
    ),
    "sources 0 to 255": (
        lambda: make("Pix2Pix").sample(source=BYTES.float().expand(-1, 2, -1, -1)),
        "the sources are floats from 0 to 255",
    ),
    "numpy sources": (lambda: make("Pix2Pix").sample(source=BYTES.numpy()), "the sources are of type ndarray"),
    "8 pixels": (lambda: make("ImprovedGAN", architecture="conv", image_size=8), "it takes 16, 24, 32"),
}


@pytest.mark.parametrize("case", CALLED)
def test_python_calls_refuse_bad_arguments_in_one_line(case):
    call, message = CALLED[case]
    with pytest.raises((ValueError, MisconfigurationException), match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert {path.name for path in Path().iterdir()} == {"L", "RGB"}


@pytest.mark.parametrize("name", [name for name in ganzoo.VARIANTS if name != "LadderEBGAN"])
@pytest.mark.parametrize("value", [0, -3])
def test_network_sizes_below_1_are_refused(name, value):
    sizes = {"z_dim", "width", "hidden", "d_hidden"} & set(small(name))
    assert sizes
    for size in sizes:
        with pytest.raises(ValueError, match=f"^{size} is {value}; it takes a whole number from [14] up$"):
            make(name, **{size: value})


def test_the_printed_sample_command_of_a_translator_works(capfd):
    """Its placeholder for the source images, FOLDER, replaced by a folder."""
    fit = "fit --model Pix2Pix --model.width 2 --data Pairs --data.data Digits --trainer.max_steps 1"
    assert main(shlex.split(f"{fit} --scores.final_n 0 --samples.video_fps 0")) == 0
    hint = next(line for line in capfd.readouterr().err.splitlines() if "ganzoo sample" in line)
    assert hint.split("ganzoo ")[1] == "sample runs/001-pix2pix-digits-edges --source FOLDER"
    assert main(shlex.split(hint.split("ganzoo ")[1].replace("FOLDER", "L"))) == 0


def test_the_nearest_pretrained_name_is_suggested(monkeypatch):
    monkeypatch.setattr(ganzoo, "list_pretrained", lambda: ["cgan-mnist5k", "dcgan-digits"])
    with pytest.raises(FileNotFoundError, match="did you mean 'dcgan-digits'?"):
        load("dcgan-digit")
    with pytest.raises(FileNotFoundError, match="give a run's .ckpt"):
        load("nothing")


def test_semi_supervised_points_are_scored_by_modes():
    """The default metrics are those of the underlying data set."""
    from ganzoo.evaluation.choice import choose
    from ganzoo.evaluation.sources import Reference

    data = SemiSupervised(Gaussians())
    assert [metric.name for metric in choose(None, Reference.of(data))] == ["modes"]
