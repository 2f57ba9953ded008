"""`ganzoo.evaluate`: models, tensors, folders and arrays in one call."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import ganzoo
from ganzoo.cli import main
from ganzoo.data import Digits
from ganzoo.evaluation.assemble import assemble
from ganzoo.evaluation.choice import usual_extractor
from ganzoo.evaluation.extractors import Classifier
from ganzoo.functional.frechet import Gaussian, frechet_distance


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return ganzoo.DCGAN(image_size=8, channels=1, width=4).eval()


def named(name):
    extractor = Classifier("digits")
    extractor.name = name
    return extractor


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise OSError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "nothing"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)


def values(report):
    return {score.figure: score.value for score in report.scores}


def test_a_model(model):
    report = ganzoo.evaluate(model, Digits(), ["fid", "kid:size=100:subsets=3"], n=200)
    fid, kid = report.scores
    assert fid.name == f"fid_{Classifier('digits').tag}_200" and fid.protocol["reals"] == 1397
    assert kid.protocol["settings"] == {"subsets": 3, "size": 100, "seed": 0}
    assert "200 fakes of DCGAN (raw weights, seed 0) against 1,397 train images of Digits" in report.cite(fid)
    assert values(ganzoo.evaluate(model, Digits(), ["fid"], n=200)) == {"fid": fid.value}
    other = ganzoo.evaluate(model, Digits(), ["fid"], n=200, seed=3)
    assert values(other) != {"fid": fid.value} and other.subject["seed"] == 3


def test_images_of_every_kind_are_the_same_images(tmp_path):
    digits = Digits()
    fakes, reals = (digits.dataset(split).images for split in ("test", "val"))
    extractor = Classifier("digits")
    a, b = (Gaussian.of(extractor(images)["features"]) for images in (reals, fakes))
    (tmp_path / "fakes").mkdir()
    for i, image in enumerate(fakes):
        Image.fromarray(image[0].numpy()).save(tmp_path / "fakes" / f"{i:04d}.png")
    np.save(tmp_path / "fakes.npy", fakes.permute(0, 2, 3, 1).numpy())
    for given in (fakes, digits.dataset("test"), tmp_path / "fakes", str(tmp_path / "fakes.npy")):
        report = ganzoo.evaluate(given, reals, ["fid"], extractor="digits")
        assert values(report)["fid"] == pytest.approx(frechet_distance(a, b), rel=1e-6)


def test_the_command_line_gives_the_same(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ganzoo.save_pretrained(model, "saved")
    assert main(["evaluate", "saved", "gan/digits", "--metrics", "fid,is", "-n", "200", "--json", "a.json"]) == 0
    from ganzoo.evaluation.record import Report

    assert values(Report.load(tmp_path / "a.json")) == values(ganzoo.evaluate(model, Digits(), ["fid", "is"], n=200))


def test_a_network_of_ones_own(model):
    class Mean(torch.nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :5]

    (score,) = ganzoo.evaluate(model, Digits(), ["fid"], n=64, extractor=Mean()).scores
    assert score.name.startswith("fid_Mean@") and score.value > 0


def test_what_cannot_be_is_refused(model):
    with pytest.raises(ValueError, match="no metric 'fdi'; did you mean 'fid'"):
        ganzoo.evaluate(model, Digits(), ["fdi"])
    with pytest.raises(ValueError, match="kid has no setting 'sizes'; it has subsets, size, seed"):
        ganzoo.evaluate(model, Digits(), ["kid:sizes=3"])
    with pytest.raises(ValueError, match="size is 'many'"):
        ganzoo.evaluate(model, Digits(), ["kid:size=many"])
    with pytest.raises(ValueError, match="real"):
        ganzoo.evaluate(model, None, ["fid"], n=64, extractor="digits")


# What is usual


@pytest.mark.parametrize(
    ("extractor", "n"),
    [
        (None, 10_000),
        ("inception-grey", 50_000),
        ("digits", 10_000),
        (named("digits"), 10_000),
        (named("inception"), 50_000),
    ],
)
def test_the_usual_count_is_that_of_the_extractor(model, extractor, n, monkeypatch):
    monkeypatch.setattr("ganzoo.evaluation.measure.make", lambda *_: named("inception-grey"))
    assert len(assemble(model, Digits(image_size=8), ["fid"], extractor=extractor).fakes) == n


def test_the_usual_extractor_is_that_of_the_data_or_of_the_channels(model):
    assert [usual_extractor(channels) for channels in (1, 2, 3)] == ["inception-grey", None, "inception"]
    assert assemble(model, Digits(image_size=8), ["fid"], n=64).extractor.name == "digits"
    reals = Digits(image_size=8).dataset("val").images
    for against in (None, reals):
        with pytest.raises(OSError, match="Inception's weights could not be downloaded"):
            assemble(model, against, ["is"], n=64)


def test_images_are_brought_to_one_size(tmp_path):
    for name, size in (("fakes", 8), ("reals", 16)):
        (tmp_path / name).mkdir()
        for i, image in enumerate(Digits(image_size=size).dataset("test").images[:3]):
            Image.fromarray(image[0].numpy()).save(tmp_path / name / f"{i}.png")
    evaluation = assemble(tmp_path / "fakes", tmp_path / "reals", ["fid"], extractor="digits", resize=12)
    assert evaluation.protocols[0]["image"] == "12x12, 1 channel" and evaluation.fakes.subject == {"name": "fakes"}
    assert evaluation.reference.about()["data"] == "reals"


def test_what_cannot_be_computed_of_the_usual_ones_is_named(model):
    assert assemble(model, Digits(image_size=8), n=64).missing == ["kid", "accuracy"]
    assert assemble(model, Digits(image_size=8), ["fid"], n=64).missing == []
