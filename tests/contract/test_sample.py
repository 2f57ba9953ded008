"""`sample`: class names, many sources in batches, zips, both directions, and folders with other pictures."""

from __future__ import annotations

import json
import shlex
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from PIL import Image

import ganzoo
from ganzoo.callbacks.diagnostics import Diagnostics
from ganzoo.callbacks.samples import Samples, interpolation
from ganzoo.checkpoint.pretrained import save_pretrained
from ganzoo.checkpoint.sealed import CheckpointError
from ganzoo.cli import main
from ganzoo.core.drawing import above, picture, to_pil
from ganzoo.core.pixels import to_float, to_uint8
from ganzoo.core.random import mix
from ganzoo.data import ImageFolder, Tones
from ganzoo.data.reading import Reading
from ganzoo.evaluation.assemble import assemble
from ganzoo.evaluation.perceptual import Walker
from ganzoo.evaluation.sources import Fakes
from ganzoo.testing import fit

CLASSES = ["2", "10", "caf\u00e9"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GANZOO_TRACEBACK", raising=False)


def pictures(names, size=(20, 16), root="photos"):
    for i, name in enumerate(names):
        file = Path(root, name)
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(file)
    return [Path(root, name) for name in names]


def small(n=3):
    return ganzoo.CGAN(8, 3, num_classes=n, hidden=8, z_hidden=4, y_hidden=4, d_hidden=4, d_y_hidden=4)


def labelled(*names):
    pictures([f"{name}/{i}.png" for name in names for i in range(3)], root="classes")
    return ImageFolder("classes", 8, labels=True, num_workers=0, batch_size=4, val_fraction=0)


@pytest.fixture
def translator():
    model = ganzoo.CycleGAN(8, 3, 1, width=4, blocks=1).eval()
    save_pretrained(model, "weights")
    return model


def run(command, capsys=None):
    assert main(shlex.split(command)) == 0
    return capsys.readouterr().out if capsys else None


def refused(command, capsys, *words):
    assert main(shlex.split(command)) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and all(word in line for word in words), line


def test_class_names_are_kept_with_the_model(capsys):
    """From the data, through a checkpoint and `save_pretrained`, to `info` and `sample`."""
    model = small()
    trainer = fit(model, labelled("cafe\u0301", "10", "2"), steps=1)
    trainer.save_checkpoint("a.ckpt")
    save_pretrained(ganzoo.load("a.ckpt"), "weights")
    assert json.loads(Path("weights/config.json").read_text())["classes"] == CLASSES
    assert ganzoo.CGAN.load_from_checkpoint("a.ckpt").class_names == CLASSES
    for path in ("a.ckpt", "weights"):
        assert ganzoo.load(path).class_names == CLASSES
        assert "classes                 0 2, 1 10, 2 caf\u00e9" in run(f"info {path}", capsys)
    for name, label in {"2": 0, "10": 1, "1": 1, "cafe\u0301": 2}.items():
        out = run(f"sample weights -n 2 --class {name} --format npy", capsys)
        assert f"2 images of CGAN, class {CLASSES[label]} (4 training" in out
        expected = model.eval().sample(seeds=range(2), label=label, output_type="np")
        assert np.array_equal(np.load("samples/samples.npy"), expected)
    refused("sample weights --class cafés", capsys, "CGAN has no class cafés; did you mean 'caf\u00e9'?")
    refused("sample weights --class dog", capsys, "has no class dog; choose one from 0 to 2, or a name that info lists")
    with pytest.raises(MisconfigurationException, match="class 1 is 10 in the model, but 3 in the data"):
        Path("classes/10").rename("classes/3")
        fit(small(), labelled("2", "3", "caf\u00e9"), steps=2, ckpt_path="a.ckpt")


def test_names_are_optional_and_checked(capsys):
    """Older files have none."""
    model = small(3)
    save_pretrained(model, "weights")
    assert "classes" not in json.loads(Path("weights/config.json").read_text())
    assert ganzoo.load("weights").class_names == [] and "  classes " not in run("info weights", capsys)
    refused("sample weights --class dog", capsys, "CGAN has no class dog; choose one from 0 to 2")
    refused("sample weights --class 3", capsys, "CGAN has no class 3; choose one from 0 to 2")
    config = json.loads(Path("weights/config.json").read_text())
    for bad in (3, "abc", ["a", 1], {"a": 0}):
        Path("weights/config.json").write_text(json.dumps({**config, "classes": bad}))
        with pytest.raises(CheckpointError, match="weights is damaged: its class names are not a list of texts"):
            ganzoo.load("weights")


def test_labels_without_training_images_are_left_out(capsys, monkeypatch):
    """Of samples, grids, interpolations, statistics and scores: kept from the data, through all files."""
    data = labelled("a", "b", "c", "d")
    data.dataset("train").pictures.labels[:] = torch.tensor([1, 3]).repeat(6)
    model = small(4)
    fit(model, data, steps=1).save_checkpoint("a.ckpt")
    save_pretrained(ganzoo.load("a.ckpt"), "weights")
    assert data.absent() == [0, 2]
    for path in ("a.ckpt", "weights"):
        model = ganzoo.load(path)
        assert model.absent == [0, 2] and model.trained_labels() == [1, 3]
        assert "without training images 0, 2" in run(f"info {path}", capsys)
    shown, synthesize = [], ganzoo.CGAN.synthesize
    monkeypatch.setattr(
        ganzoo.CGAN, "synthesize", lambda *given: shown.append(given[2]["label"].tolist()) or synthesize(*given)
    )
    model.sample(seeds=range(40))
    assert shown.pop() == [[1, 3][mix(seed, 1) % 2] for seed in range(40)]
    interpolation(model, rows=3, columns=2)
    assert shown.pop() == [1, 1, 3, 3, 1, 1]
    Samples(columns=3)._generated(model, model.seeded(range(6)))
    assert shown.pop() == [1, 3, 1, 1, 3, 1]
    Walker(model, 8, 0)(torch.zeros(4, 100), torch.tensor([0, 1, 0, 1]))
    assert shown.pop() == [1, 3]
    assert Fakes(model, 4).labels.tolist() == [1, 3]
    assert Diagnostics(n=12)._given(None, model).tolist() == [1, 3] * 6
    run("sample weights --outdir out")
    assert shown.pop() == [1, 3] * 32
    assert "class a (which has no training images)" in run("sample weights -n 2 --class a", capsys)


def test_a_label_is_absent_only_if_no_training_had_images_of_it():
    data = labelled("a", "b", "c")
    data.absent = lambda: [0, 1]
    model = small(3)
    fit(model, data, steps=1).save_checkpoint("a.ckpt")
    data.absent = lambda: [1, 2]
    resumed = small(3)
    trainer = fit(resumed, data, steps=2, ckpt_path="a.ckpt")
    assert resumed.absent == [1] and ganzoo.load("a.ckpt").absent == [0, 1]
    other = small(3)
    trainer.validate(other, data, ckpt_path="a.ckpt")
    assert other.absent == [0, 1]


@pytest.mark.parametrize("bad", [3, ["a"], {"a": 3}, {"a": "b" * 1001}, {str(i): "" for i in range(11)}])
def test_damaged_origins(bad):
    save_pretrained(small(3), "weights")
    config = json.loads(Path("weights/config.json").read_text())
    Path("weights/config.json").write_text(json.dumps({**config, "origin": bad}))
    with pytest.raises(CheckpointError, match="weights is damaged: its origin is not a dict of at most 10 texts"):
        ganzoo.load("weights")


@pytest.mark.parametrize("bad", [3, "a", [-1], ["a"], [0, 1, 2], [True]])
def test_damaged_absent_classes(bad):
    save_pretrained(small(3), "weights")
    config = json.loads(Path("weights/config.json").read_text())
    Path("weights/config.json").write_text(json.dumps({**config, "absent": bad}))
    with pytest.raises(CheckpointError, match="weights is damaged: (its absent|all its) classes"):
        ganzoo.load("weights")


def test_held_out_losses_need_the_model_s_classes(capsys):
    """A new training takes those of its data."""
    model = small(2)
    trainer = fit(model, labelled("cat", "dog"), steps=1)
    for file in Path("classes/dog").iterdir():
        file.rename(Path("classes/cat", f"dog{file.name}"))
    Path("classes/dog").rename("classes/cow")
    other = labelled("cow")
    with pytest.raises(MisconfigurationException, match="class 1 is dog in the model, but cow in the data"):
        trainer.validate(model, other)
    fit(model, other, steps=1)
    assert model.class_names == ["cat", "cow"]


def test_scores_need_the_model_s_classes():
    model = small(2)
    model.class_names = ["cat", "dog"]
    data = labelled("cat", "cow")
    with pytest.raises(MisconfigurationException, match="class 1 is dog in the model, but cow in the data"):
        ganzoo.evaluate(model.eval(), data, metrics=["mmd"], n=6)


def test_arrays_are_sources(translator):
    Path("arrays").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8), dtype=np.uint8)
    for i in range(2):
        np.save(f"arrays/{i}.npy", pixels[i])
    run("sample weights --source arrays --format npy --outdir out")
    images = translator.sample(seeds=range(2), source=to_float(torch.from_numpy(pixels)[:, None]))
    expected = to_uint8(images).permute(0, 2, 3, 1).numpy().astype(int)
    assert abs(np.load("out/samples.npy").astype(int) - expected).max() <= 1


def test_sources_that_are_no_tensors_are_refused(translator):
    with pytest.raises(ValueError, match="source"):
        translator.sample(source=Image.new("L", (8, 8)))


@pytest.mark.parametrize("kind", ["png", "npy", "grid"])
def test_sources_are_translated_in_batches(translator, monkeypatch, kind):
    """With the results of a single batch."""
    files = pictures([f"{i}.png" for i in range(7)])
    sources = torch.stack([to_float(Reading(8, 1)(file)) for file in files])
    images = translator.sample(seeds=range(7), source=sources)
    monkeypatch.setattr("ganzoo.core.limits.AT_ONCE", 3 * 8 * 8)
    sizes, sample = [], ganzoo.CycleGAN.sample
    monkeypatch.setattr(
        "ganzoo.CycleGAN.sample", lambda model, **how: sizes.append(len(how["source"])) or sample(model, **how)
    )
    run(f"sample weights --source photos --format {kind} --outdir out")
    assert sizes == [3, 3, 1]
    if kind == "png":
        for file, image in zip(files, to_pil(images), strict=True):
            difference = np.asarray(Image.open(Path("out", file.name))).astype(int) - np.asarray(image)
            assert abs(difference).max() <= 1
    elif kind == "npy":
        array = np.load("out/samples.npy")
        assert array.dtype == np.uint8 and array.flags.c_contiguous
        assert (array.astype(int) - to_uint8(images).permute(0, 2, 3, 1).numpy()).__abs__().max() <= 1
    else:
        expected = np.asarray(picture(above(sources, images, 3), 3)).astype(int)
        assert abs(np.asarray(Image.open("out/grid.png")) - expected).max() <= 1


def test_a_broken_source_is_refused_before_anything_is_written(translator, capsys):
    *_, last = pictures([f"{i}.png" for i in range(3)])
    last.write_bytes(b"junk")
    refused("sample weights --source photos --format png --outdir out", capsys, "2.png cannot be read as a picture")
    assert not Path("out").exists()


def test_direction_back(translator, capsys):
    """From images (3 channels) to sources (1)."""
    files = pictures(["a.png", "b.png"])
    images = torch.stack([to_float(Reading(8, 3)(file)) for file in files])
    assert "2 images of CycleGAN" in run("sample weights --source photos --direction back --format npy", capsys)
    expected = to_uint8(translator.translate_back(images)).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(np.load("samples/samples.npy"), expected) and expected.shape == (2, 8, 8, 1)
    run("sample weights --source photos --direction back")
    assert np.array_equal(
        np.asarray(Image.open("samples/grid.png")),
        np.asarray(picture(above(images, translator.translate_back(images), 1), 1)),
    )
    save_pretrained(ganzoo.Pix2Pix(8, 1, 3, 4), "one-way")
    refused("sample weights --source photos --direction back --truncation 0.5", capsys, "leave --truncation out")
    refused("sample one-way --source photos --direction back", capsys, "Pix2Pix does not translate back")
    save_pretrained(small(), "none")
    refused("sample none --direction back", capsys, "CGAN does not translate back; leave --direction out")


def test_sources_in_a_zip(translator, capsys):
    """The files are named after the members; none leads out of the output folder."""
    files = pictures(["a.png", "deep/b.png", "new\nline.png"])
    with zipfile.ZipFile("photos.zip", "w") as archive:
        for file in files:
            archive.write(file)
    run("sample weights --source photos --format png --outdir plain")
    run("sample weights --source photos.zip --format png --outdir zipped")
    for name in ("a.png", "deep/b.png", "new\nline.png"):
        assert Path("plain", name).read_bytes() == Path("zipped", name).read_bytes()
    with zipfile.ZipFile("bad.zip", "w") as archive:
        archive.write(files[0], "../../evil.png")
    refused("sample weights --source bad.zip --format png", capsys, "bad.zip", "the path of ../../evil.png leads out")


def test_a_folder_with_other_pictures_is_reported(capsys):
    save_pretrained(small(), "weights")
    assert run("sample weights --seeds 0-4 --format png", capsys).endswith(": samples/seed*.png\n")
    out = run("sample weights --seeds 3-6 --format png", capsys)
    assert out.endswith(": samples/seed*.png, replaced; samples had 3 other pictures before\n")
    assert run("sample weights -n 1", capsys).endswith(": samples/grid.png; samples had 7 other pictures before\n")
    run("sample weights -n 1 --outdir other", capsys)
    assert run("sample weights -n 1 --outdir other", capsys).endswith(": other/grid.png, replaced\n")


def test_a_grid_does_not_replace_its_source(translator, capsys):
    pictures(["grid.png"], root="samples")
    before = Path("samples/grid.png").read_bytes()
    refused("sample weights --source samples/grid.png", capsys, "--outdir samples would replace pictures of --source")
    assert Path("samples/grid.png").read_bytes() == before


def test_weights_may_be_in_the_home_folder(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    save_pretrained(small(), "~/mine")
    assert (tmp_path / "mine" / "model.safetensors").exists() and not Path("~").exists()
    assert type(ganzoo.load("~/mine")) is ganzoo.CGAN
    assert "CGAN" in run("info '~/mine'", capsys)


def test_labels_of_translations_are_the_data_s():
    """The held-out images may lack the last ones."""
    data = Tones("dark", "light", image_size=32)
    model = ganzoo.Pix2Pix(source_channels=3, channels=3, image_size=32, width=4)
    assert assemble(model, data, ["fid"], n=10, split="val", extractor="emoji-tone").fakes.num_classes == 6
