"""`ganzoo.evaluate`: models, tensors, folders and arrays in one call."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import ganzoo
from ganzoo.cli import main
from ganzoo.core.pixels import to_float, to_uint8, usual_extractor
from ganzoo.data import ArrayImages, Digits, Gaussians
from ganzoo.data.datasets import Images
from ganzoo.evaluation.assemble import assemble
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


def test_scores_of_a_model(model):
    report = ganzoo.evaluate(model, Digits(), ["fid", "kid:size=100:subsets=3"], n=200)
    fid, kid = report.scores
    assert fid.name == f"fid_{Classifier('digits').tag}_200" and fid.protocol["reals"] == 1397
    assert kid.protocol["settings"] == {"subsets": 3, "size": 100, "seed": 0}
    assert "200 fakes of DCGAN (raw weights, seed 0) against 1,397 train images of Digits" in report.cite(fid)
    assert values(ganzoo.evaluate(model, Digits(), ["fid"], n=200)) == {"fid": fid.value}
    other = ganzoo.evaluate(model, Digits(), ["fid"], n=200, seed=3)
    assert values(other) != {"fid": fid.value} and other.subject["seed"] == 3


def test_tensors_data_sets_folders_and_arrays_have_the_same_score(tmp_path):
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


def test_the_command_line_gives_the_same_scores(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ganzoo.save_pretrained(model, "saved")
    assert main(["evaluate", "saved", "gan/digits", "--metrics", "fid,is", "-n", "200", "--json", "a.json"]) == 0
    from ganzoo.evaluation.record import Report

    assert values(Report.load(tmp_path / "a.json")) == values(ganzoo.evaluate(model, Digits(), ["fid", "is"], n=200))


def test_a_module_as_extractor(model):
    class Mean(torch.nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :5]

    (score,) = ganzoo.evaluate(model, Digits(), ["fid"], n=64, extractor=Mean()).scores
    assert score.name.startswith("fid_Mean@") and score.value > 0


def test_bad_metrics_and_missing_reals_are_refused(model):
    with pytest.raises(ValueError, match="no metric 'fdi'; did you mean 'fid'"):
        ganzoo.evaluate(model, Digits(), ["fdi"])
    with pytest.raises(ValueError, match="kid has no setting 'sizes'; it has subsets, size, seed"):
        ganzoo.evaluate(model, Digits(), ["kid:sizes=3"])
    for setting, problem in {
        "kid:size=many": "kid: size is 'many'; it takes a whole number",
        "kid:size=1": "kid: size is 1; it takes a whole number from 2 up",
        "pr:k=0": "pr: k is 0; it takes a whole number from 1 up",
        "ppl:net=squeeze": "ppl: net is 'squeeze'; it takes one of alex, vgg",
        "ppl:interpolation=slerp": "ppl: interpolation is 'slerp'; it takes one of lerp, slerp_any",
    }.items():
        with pytest.raises(ValueError, match=problem):
            ganzoo.evaluate(model, Digits(), [setting])
    with pytest.raises(ValueError, match="real"):
        ganzoo.evaluate(model, None, ["fid"], n=64, extractor="digits")


# Defaults


@pytest.mark.parametrize(
    ("extractor", "n"),
    [
        (None, 10_000),
        ("inception-grey", 50_000),
        ("digits", 10_000),
        (named("digits"), 10_000),
        (named("inception"), 50_000),
        (named("mnist5k-stacked"), 26_000),
    ],
)
def test_the_default_number_of_fakes_depends_on_the_extractor(model, extractor, n, monkeypatch):
    monkeypatch.setattr("ganzoo.evaluation.measure.make", lambda *_: named("inception-grey"))
    assert len(assemble(model, Digits(image_size=8), ["fid"], extractor=extractor).fakes) == n


def test_the_default_extractor_depends_on_the_data_or_the_channels(model):
    assert [usual_extractor(channels) for channels in (1, 2, 3)] == ["inception-grey", None, "inception"]
    assert assemble(model, Digits(image_size=8), ["fid"], n=64).extractor.name == "digits"
    reals = Digits(image_size=8).dataset("val").images
    for against in (None, reals):
        with pytest.raises(OSError, match="Inception's weights could not be downloaded"):
            assemble(model, against, ["is"], n=64)


def test_resize_gives_fakes_and_reals_one_size(tmp_path):
    for name, size in (("fakes", 8), ("reals", 16)):
        (tmp_path / name).mkdir()
        for i, image in enumerate(Digits(image_size=size).dataset("test").images[:3]):
            Image.fromarray(image[0].numpy()).save(tmp_path / name / f"{i}.png")
    evaluation = assemble(tmp_path / "fakes", tmp_path / "reals", ["fid"], extractor="digits", resize=12)
    assert evaluation.protocols[0]["image"] == "12x12, 1 channel" and evaluation.fakes.subject == {"name": "fakes"}
    assert evaluation.reference.about()["data"] == "reals"


def test_default_metrics_that_cannot_be_computed_are_named(model):
    assert assemble(model, Digits(image_size=8), n=64).missing == ["kid", "accuracy"]
    assert assemble(model, Digits(image_size=8), ["fid"], n=64).missing == []


# Checks of the scored images


class Moments(torch.nn.Module):
    def forward(self, x):
        return torch.cat([x.mean((2, 3)), x.std((2, 3))], 1)


def score(fakes, reals, **settings):
    return values(ganzoo.evaluate(fakes, reals, ["fid"], extractor=Moments(), **settings))["fid"]


@pytest.fixture(scope="module")
def bytes_():
    g = torch.Generator().manual_seed(0)
    reals = torch.randint(256, (150, 3, 8, 8), generator=g, dtype=torch.uint8)
    return reals, (reals.flip(0) * 0.6 + 40).byte()


@pytest.mark.parametrize(
    "change",
    [
        to_float,
        lambda x: x.numpy(),
        lambda x: np.asfortranarray(to_float(x).numpy()),
        lambda x: to_float(x).double().requires_grad_(),
        lambda x: to_float(x).half(),
        lambda x: to_float(x).bfloat16(),
        lambda x: to_float(x) * 1.003,
        lambda x: ArrayImages(to_float(x)),
    ],
)
def test_images_of_any_type_score_like_their_uint8_values(bytes_, change):
    fakes, reals = bytes_
    expected = score(fakes, reals)
    assert expected > 0.1
    assert score(change(fakes), change(reals)) == score(change(fakes), reals) == expected


def spoiled(x, value, i=140):
    x = to_float(x)
    x[i, 1, 2, 3] = value
    return x


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: x / 255, r"never negative, so probably in \[0, 1\].*: use 2 \* x - 1"),
        (lambda x: (x / 255).numpy(), "never negative"),
        (lambda x: ArrayImages(x / 255), "never negative"),
        (lambda x: x / 255 - 0.003, "never negative"),
        (lambda x: x.float(), r"floats from [\d.]+ to [\d.]+, not in \[-1, 1\]: use x / 127.5 - 1"),
        (lambda x: to_float(x) * 3, "floats from .*: undo their normalisation, or clamp them"),
        (lambda x: x.long(), "torch.int64, neither torch.uint8 nor floats"),
        (lambda x: x > 99, "torch.bool"),
        (lambda x: x.permute(0, 2, 3, 1), r"\[N, 8, 8, 3\] with channels last: .*permute\(0, 3, 1, 2\)"),
        (lambda x: to_float(x).permute(0, 2, 3, 1)[..., :1], ".* channels last"),
        (lambda x: x[:, 0], r"\[N, 8, 8\], not \[N, C, H, W\]"),
        (lambda x: spoiled(x, torch.nan), "not finite, for example number 140, counted from 0"),
        (lambda x: spoiled(x, torch.inf), "not finite, for example number 140"),
        (lambda x: x[:0], "missing"),
        (list, "of type list; it takes a .*, a tensor or array"),
        (lambda x: torch.utils.data.DataLoader(x), "of type DataLoader; .* torch.cat"),
        (lambda x: iter(x), "of type .*iterator"),
        (lambda x: np.array(["x"]), "an array of <U1"),
    ],
)
def test_invalid_images_are_refused_as_fakes_and_as_reals(bytes_, change, words):
    fakes, reals = bytes_
    for pair, who in (((change(fakes), reals), "fakes"), ((fakes, change(reals)), "real")):
        with pytest.raises(ValueError, match=f"^(the )?{who}.* (is|are) {words}") as error:
            score(*pair)
        assert "\n" not in str(error.value)


def test_images_with_any_negative_value_are_accepted(bytes_):
    fakes, reals = bytes_
    bright = to_float(fakes).clamp(min=0.01)
    assert score(spoiled(fakes, -0.5).clamp(min=0.01).index_fill(0, torch.tensor([140]), -0.5), reals) > 0
    with pytest.raises(ValueError, match="never negative"):
        score(bright, reals)
    assert score(to_float(to_uint8(bright)), reals) == score(to_uint8(bright), reals), "bytes may be as bright"
    points = torch.rand(200, 2, 1, 1) * 3
    assert values(ganzoo.evaluate(points, Gaussians(n=500), ["modes"]))


def test_lazily_read_images_are_all_checked(bytes_):
    class Lazy(Images):
        def __len__(self):
            return 150

        def __getitems__(self, tickets):
            return {"image": spoiled(bytes_[0], torch.nan)[[t % 150 for t in tickets]]}

    with pytest.raises(ValueError, match="the real images are not finite, for example number 140"):
        score(bytes_[0], Lazy())


def test_fakes_of_a_model_may_lack_negative_values():
    model = ganzoo.DCGAN(image_size=8, channels=1, width=4)
    model.generate = lambda z, given=None: torch.full((len(z), 1, 8, 8), 0.5) + z[:, :1, None, None] * 1e-3
    assert score(model, Digits(), n=70) > 0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"n": 0}, "n is 0; it takes a whole number from 1"),
        ({"n": 2.5}, "n is 2.5; it takes a whole number"),
        ({"n": True}, "n is True; it takes a whole number"),
        ({"seed": 1.5}, "seed is 1.5; it takes a whole number"),
        ({"split": "training"}, "split is 'training'; it takes one of train, val, test"),
    ],
)
def test_settings_out_of_range_are_refused(model, settings, words):
    with pytest.raises(ValueError, match=f"^{words}"):
        ganzoo.evaluate(model, Digits(), ["fid"], **settings)


def test_settings_without_effect_are_refused(bytes_):
    fakes, reals = bytes_
    with pytest.raises(
        ValueError, match="n is 10, but only a model can generate n fakes; given images are all scored: leave n out"
    ):
        score(fakes, reals, n=10)
    with pytest.raises(ValueError, match="split is 'val', but only a data module has splits"):
        score(fakes, reals, split="val")
