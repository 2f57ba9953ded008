"""How pictures were read belongs to the model: stored with its weights, and used by `sample` and `evaluate`."""

from __future__ import annotations

import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from PIL import Image

import ganzoo
from ganzoo.checkpoint.pretrained import read_checkpoint, save_pretrained
from ganzoo.checkpoint.sealed import CheckpointError, CheckpointIO
from ganzoo.cli import main
from ganzoo.core.pixels import to_float, to_uint8
from ganzoo.core.readings import agreed, saved, stored
from ganzoo.core.training_state import take_from_data
from ganzoo.data import (
    CIFAR10,
    LSUN,
    CelebA,
    Digits,
    ImageFolder,
    PairedFolder,
    Pairs,
    Pictures,
    Reading,
    SemiSupervised,
    Shards,
    StackedMNIST,
    UnpairedFolder,
)
from ganzoo.data.prepare import prepare
from ganzoo.evaluation.assemble import assemble
from ganzoo.testing import fit

BEFORE = Path(__file__).parents[1] / "data" / "gan-before-0.2.pt"
QUICK: dict[str, Any] = {"num_workers": 0, "batch_size": 2, "val_fraction": 0}
FOUND = {"image": Reading([8, 12], 3, "squeeze"), "source": Reading([8, 12], 1, "squeeze")}
OLD = "fit of {} is squeeze in the model, but crop in the data, .* use data that is read with fit squeeze, or train"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GANZOO_TRACEBACK", raising=False)
    for name, sides in {"photos": (0, 2), "drawings": (2, 0)}.items():
        Path(name).mkdir()
        for i in range(4):
            wide = np.full((16, 48, 3), 128, np.uint8)  # its outer thirds in red and blue
            wide[:, :16, sides[0]] = wide[:, 32:, sides[1]] = 255 - i
            Image.fromarray(wide).save(f"{name}/{i}.png")


def paired(how="squeeze"):
    return PairedFolder("photos", source_path="drawings", image_size=[8, 12], source_channels=1, fit=how, **QUICK)


def folder_of(how="squeeze"):
    return ImageFolder("photos", 8, fit=how, **QUICK)


def translator():
    return ganzoo.Pix2Pix([8, 12], 3, 1, width=4)


def small():
    return ganzoo.GAN(8, 3, hidden=4, d_hidden=4)


def run(command, capsys):
    assert main(shlex.split(command)) == 0
    return capsys.readouterr().out


def test_a_translator_reads_sources_as_in_training(capsys):
    """From the data, through a checkpoint and `save_pretrained`, to `info`, `sample` and Python; the outer thirds of
    squeezed pictures are there."""
    model, data = translator(), paired()
    fit(model, data, steps=1).save_checkpoint("a.ckpt")
    save_pretrained(ganzoo.load("a.ckpt"), "weights")
    save_pretrained(ganzoo.load("weights"), "slim", slim=True)
    assert stored(model.readings) == stored(data.readings) == stored(FOUND)
    assert stored(ganzoo.Pix2Pix.load_from_checkpoint("a.ckpt").readings) == stored(FOUND)
    for path in ("a.ckpt", "weights", "slim"):
        assert stored(ganzoo.load(path).readings) == stored(FOUND)
        out = run(f"info {path}", capsys)
        assert "  files read as image     size [8, 12], channels 3, fit squeeze\n" in out
        assert "  files read as source    size [8, 12], channels 1, fit squeeze\n" in out
    sources = data.dataset("train").__getitems__(range(4))["source"]
    assert not torch.equal(sources[:, :, :, 0], sources[:, :, :, 6]), "they show the outer thirds"
    images = model.eval().sample(seeds=range(4), source=to_float(sources), output_type="np")
    run("sample weights --source drawings --format npy", capsys)
    assert np.array_equal(np.load("samples/samples.npy"), images)
    for file in ("drawings/2.png", Path("drawings/2.png")):
        assert torch.equal(model.readings["source"](file), sources[2])


def test_pictures_translated_back_are_read_as_images(capsys):
    data = UnpairedFolder("photos", source_path="drawings", image_size=8, source_channels=1, fit="squeeze", **QUICK)
    model = ganzoo.CycleGAN(8, 3, 1, width=4, blocks=1).eval()
    model.readings = {**data.readings, "source": replace(data.readings["source"], fit="crop")}
    save_pretrained(model, "weights")
    run("sample weights --source photos --direction back --format npy", capsys)
    images = to_float(data.dataset("train").__getitems__(range(4))["image"])
    expected = to_uint8(model.translate_back(images)).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(np.load("samples/samples.npy"), expected)


def test_other_readings_are_refused_except_in_a_new_training():
    """In resuming, in held-out losses and in scores."""
    model = small()
    trainer = fit(model, folder_of(), steps=1)
    trainer.save_checkpoint("a.ckpt")
    for attempt in (
        lambda: fit(small(), folder_of("crop"), steps=2, ckpt_path="a.ckpt"),
        lambda: trainer.validate(ganzoo.load("a.ckpt"), folder_of("crop")),
        lambda: ganzoo.evaluate(ganzoo.load("a.ckpt"), folder_of("crop"), ["kid"], n=4),
    ):
        with pytest.raises(MisconfigurationException, match=OLD.format("image")):
            attempt()
    fit(resumed := small(), folder_of(), steps=2, ckpt_path="a.ckpt")
    assert resumed.images_seen == 4
    fit(model, folder_of("pad"), steps=1)
    assert model.readings == {"image": Reading(8, 3, "pad")}
    take_from_data(model, None, "fit")
    assert model.readings == {"image": Reading(8, 3, "pad")}, "a loader of tensors does not say"
    take_from_data(model, Digits(), "fit")
    assert model.readings == {}, "not from files"
    sizes = {"image": Reading(8, 3)}, {"image": Reading(16, 1), "source": Reading(16)}
    assert agreed(*sizes) == {**sizes[1], **sizes[0]}, "sizes and channels are compared elsewhere"


def test_backgrounds_and_ranges_are_compared_but_not_the_depth():
    plain = {"image": Reading(8, 3)}
    assert agreed(plain, {"image": Reading(8, 3, background="white", deep=True)}) == plain
    for other, problem in {
        Reading(8, 3, background="red"): "background of image is white in the model, but red in the data",
        Reading(8, 3, range=(0, 4095)): r"range of image is type in the model, but \[0, 4095\] in the data",
    }.items():
        with pytest.raises(MisconfigurationException, match=problem):
            agreed(plain, {"image": other})


def test_a_model_of_12_bits_scales_files_as_in_training(capsys):
    """After a checkpoint; `sample --source` and scores read the range of the training, not that of the type."""
    values = np.random.default_rng(0).integers(0, 4096, (4, 8, 8), dtype=np.uint16)
    for i, value in enumerate(values):
        Path("deep").mkdir(exist_ok=True)
        Image.fromarray(value).save(f"deep/{i}.png")
    how: dict[str, Any] = {"range": [0, 4095], "source_range": [0, 4095], "channels": 1, "source_channels": 1}
    shutil.copytree("deep", "same")
    data = PairedFolder("deep", source_path="same", image_size=8, **how, **QUICK)
    fit(ganzoo.Pix2Pix(8, 1, 1, width=4), data, steps=1).save_checkpoint("a.ckpt")
    assert "channels 1, fit crop, range [0.0, 4095.0], deep True\n" in run("info a.ckpt", capsys)
    model = ganzoo.load("a.ckpt")
    source = model.readings["source"]("deep/1.png")
    assert torch.allclose(source[0], torch.from_numpy(values[1].astype(np.float32)) / 2047.5 - 1, atol=1e-6)
    run("sample a.ckpt --source deep --format npy", capsys)
    sources = torch.stack([model.readings["source"](f"deep/{i}.png") for i in range(4)])
    expected = model.sample(seeds=range(4), source=sources, output_type="np")
    assert np.array_equal(np.load("samples/samples.npy"), expected)
    grey = ganzoo.GAN(8, 1, hidden=4, d_hidden=4)
    grey.readings = {"image": model.readings["image"]}
    reals = assemble(grey, "deep", ["fid"], n=4, extractor="digits").reference.sets["real"]
    assert torch.equal(reals[1]["image"], to_uint8(source))


def test_a_resume_on_the_command_line_names_the_setting(capsys):
    fit(translator(), paired(), steps=1).save_checkpoint("a.ckpt")
    line = "fit --model Pix2Pix --model.width 4 --data PairedFolder --data.path photos --data.source_path drawings"
    line += " --data.image_size [8,12] --data.source_channels 1 --data.batch_size 2 --data.num_workers 0"
    assert main(shlex.split(f"{line} --trainer.max_steps 2 --ckpt_path a.ckpt")) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "fit of image is squeeze in the model, but crop in the data" in error and not Path("runs").exists()


def test_scores_read_folders_as_the_model_s_training():
    """Other sizes and greys, too; arrays are as they are. A folder of fakes is read like the data with --resize."""
    model, squeezed, cropped = small(), Reading(8, 3, "squeeze"), Reading(8, 3)
    model.readings = {"image": squeezed}

    def first(reals, model=model, resize=None):
        evaluation = assemble(model, reals, ["fid"], n=4, resize=resize, extractor="emoji-tone")
        return evaluation.reference.sets["real"][0]["image"], evaluation.protocols[0]["data_fingerprint"]

    image, mark = first("photos")
    assert torch.equal(image, squeezed("photos/0.png")) and not torch.equal(image, cropped("photos/0.png"))
    assert first("photos", resize=8)[1] == mark != first("photos", small(), resize=8)[1]
    assert torch.equal(first("photos", small(), resize=8)[0], cropped("photos/0.png")), "unknown: as before"
    Image.open("photos/0.png").convert("L").save("photos/0.png")
    assert torch.equal(first("photos")[0], squeezed("photos/0.png"))
    np.save("reals.npy", np.zeros((4, 16, 16, 3), np.uint8))
    with pytest.raises(ValueError, match="the fakes are 3 x 8 x 8 .* but the reals 3 x 16 x 16"):
        first("reals.npy")
    fakes = assemble("drawings", folder_of(), ["fid"], resize=8, extractor="emoji-tone").fakes
    assert torch.equal(fakes.block(0)["images"][0], squeezed("drawings/0.png"))


def test_pictures_are_read_like_others():
    """The fingerprint says so, and is the same as before for crops."""
    plain = Pictures("photos", image_size=8)
    assert Pictures("photos", image_size=8, like=Reading(None)).fingerprint() == plain.fingerprint()
    padded = Pictures("photos", image_size=8, like=Reading(99, 1, "pad"))
    assert torch.equal(padded[0]["image"], Reading(8, 3, "pad")("photos/0.png"))
    assert padded.fingerprint() != plain.fingerprint()


def test_data_modules_know_how_they_read():
    """Squares that come as arrays are the same with every fit; other shapes squeeze them."""
    prepare("photos", "out", image_size=8, fit="pad")
    assert Shards("out", 0, 0).readings == {"image": Reading(8, 3, "pad")}
    assert folder_of().readings == {"image": Reading(8, 3, "squeeze")}
    assert CelebA([8, 6]).readings == LSUN(image_size=[8, 6]).readings == {"image": Reading([8, 6])}
    assert Digits().readings == CIFAR10().readings == StackedMNIST().readings == Pairs(Digits()).readings == {}
    wide = {"image": Reading([8, 12], 1, "squeeze")}
    assert Digits([8, 12]).readings == SemiSupervised(Digits([8, 12])).readings == wide
    assert CIFAR10([8, 12]).readings == StackedMNIST(image_size=[8, 12]).readings == {"image": FOUND["image"]}
    assert Pairs(CIFAR10([8, 12])).readings == FOUND
    image, grid = Digits([8, 12]).dataset("val")[0]["image"], Digits().dataset("val")[0]["image"]
    Image.fromarray(grid[0].numpy()).save("digit.png")
    assert (wide["image"]("digit.png").int() - image.int()).abs().max() < 80, "the same digit, with another filter"
    assert (Reading([8, 12], 1)("digit.png").int() - image.int()).abs().max() > 200


def test_models_without_readings_are_as_before(capsys):
    """Older files, and data that is not read from files."""
    shutil.copy(BEFORE, "old.ckpt")
    assert ganzoo.load("old.ckpt").readings == {} and "files read" not in run("info old.ckpt", capsys)
    model = translator().eval()
    save_pretrained(model, "weights")
    assert "readings" not in json.loads(Path("weights/config.json").read_text())
    run("sample weights --source drawings --format npy", capsys)
    sources = torch.stack([to_float(Reading([8, 12], 1)(f"drawings/{i}.png")) for i in range(4)])
    expected = model.sample(seeds=range(4), source=sources, output_type="np")
    assert np.array_equal(np.load("samples/samples.npy"), expected)


HOSTILE: dict[str, tuple[Any, str]] = {
    "list": ([1], "its readings are not those of image and source"),
    "kind": ({"label": {}}, "its readings are not those of image and source"),
    "no settings": ({"image": 3}, "its reading of image is not a short dict of plain values"),
    "nested": ({"image": {"size": 8, "fit": "x" * 2000}}, "its reading of image is not a short dict"),
    "nested deeply": (
        {"image": {"size": 8, "fit": json.loads("[" * 900 + "]" * 900)}},
        "its reading of image is not a short dict",
    ),
    "unknown": ({"image": {"size": 8, "code\n": 1}}, r"has the unknown setting code\\n, perhaps of a newer ganzoo"),
    "no size": ({"image": {}}, "its reading of image: size is null"),
    "size": ({"image": {"size": 1 << 20}}, "its reading of image: size is 1048576; it takes"),
    "fit": ({"source": {"size": 8, "fit": "zoom"}}, "its reading of source: fit is 'zoom'; it takes one of crop, squ"),
    "range": ({"image": {"size": 8, "range": [3, 3]}}, r"its reading of image: range is \[3, 3\]; it takes"),
    "no range": ({"image": {"size": 8, "range": "data"}}, "its reading of image: range is 'data'; it takes"),
    "background": (
        {"image": {"size": 8, "background": "zzz"}},
        "its reading of image: background is 'zzz', which",
    ),
    "deep": ({"image": {"size": 8, "deep": 1}}, "its reading of image: deep is 1; it takes"),
    "channels": ({"source": {"size": 8, "channels": "3"}}, "its reading of source: channels is '3'; it takes"),
}


@pytest.mark.parametrize("bad", HOSTILE)
def test_readings_of_strangers_are_checked(bad):
    found, problem = HOSTILE[bad]
    with pytest.raises(ValueError, match=problem):
        saved(found, {})


def test_damaged_readings_are_refused_by_every_loader():
    fit(small(), folder_of(), steps=1).save_checkpoint("a.ckpt")
    checkpoint = torch.load("a.ckpt", weights_only=True)
    assert checkpoint["ganzoo"]["readings"] == {"image": Reading(8, 3, "squeeze").settings}
    checkpoint["ganzoo"]["readings"]["image"]["fit"] = torch.tensor([1])
    CheckpointIO().save_checkpoint(checkpoint, "b.ckpt")
    save_pretrained(ganzoo.load("a.ckpt"), "weights")
    config = json.loads(Path("weights/config.json").read_text())
    Path("weights/config.json").write_text(json.dumps({**config, "readings": {"image": {"size": -8}}}))
    for path, read in (("b.ckpt", ganzoo.load), ("weights", ganzoo.load), ("b.ckpt", read_checkpoint)):
        with pytest.raises(CheckpointError, match=f"{path} is damaged: its reading of image"):
            read(Path(path))
    for attempt in (
        lambda: ganzoo.GAN.load_from_checkpoint("b.ckpt"),
        lambda: fit(small(), folder_of(), steps=2, ckpt_path="b.ckpt"),
    ):
        with pytest.raises(MisconfigurationException, match="the checkpoint is damaged: its reading of image"):
            attempt()


def test_sizes_and_channels_are_the_model_s():
    """A stored size cannot make `sample` decode larger pictures than the model takes."""
    found = {"image": {"size": 9999, "channels": 2}, "source": {"size": [8, 8], "fit": "pad"}}
    arguments = {"image_size": [8, 12], "channels": 1, "source_channels": 3}
    assert saved(found, arguments) == {"image": Reading([8, 12], 1), "source": Reading([8, 12], 3, "pad")}
    assert saved(found, {"image_size": "8", "channels": None})["image"] == Reading(9999, 2)
