"""Evaluation in one pass: scores match their definitions, for any number of processes."""

from __future__ import annotations

import json
import math
import random
from datetime import timedelta
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.linalg
import torch
import torch.distributed as dist
from scipy.spatial.distance import cdist
from torch import nn
from torch.multiprocessing import start_processes
from torch.nn.functional import dropout
from torch_fidelity import metric_fid, metric_isc, metric_prc

import ganzoo
from ganzoo.core.pixels import to_uint8
from ganzoo.data import CIFAR10, Digits, Emoji, Gaussians, Pairs
from ganzoo.data.base import GANDataModule
from ganzoo.data.datasets import ArrayImages
from ganzoo.evaluation import choice, measure, metrics, perceptual
from ganzoo.evaluation.assemble import assemble
from ganzoo.evaluation.choice import METRICS
from ganzoo.evaluation.determinism import ieee_float32
from ganzoo.evaluation.interfaces import BLOCK, EXTRACTED, Extractor
from ganzoo.evaluation.measure import Evaluation
from ganzoo.evaluation.sources import Fakes, Reals, Reference
from ganzoo.evaluation.states import STATES, Moments, Sample, Spread
from ganzoo.functional.frechet import Gaussian, fid_infinity, frechet_distance, frechet_standard_error
from ganzoo.functional.kernels import kid
from ganzoo.functional.neighbours import density_coverage, precision_recall
from ganzoo.functional.parzen import parzen
from tests.variants import small

ALL = ["fid", "is", "kid", "pr", "dc", "authenticity", "copying"]


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("GANZOO_CACHE", str(tmp_path / "cache"))


class Random(Extractor):
    """A random convolution; records its input images."""

    name, preprocessing, citation, channels, num_features, num_classes = "inception", "x / 255", "", 1, 18, 10
    spatial = pinned = True

    def __init__(self, seed=0):
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            self.network = nn.Sequential(nn.Conv2d(1, 2, 3, stride=2), nn.BatchNorm2d(2), nn.Tanh(), nn.Flatten())
            self.head = torch.randn(18, 10)
        self.fingerprint, self.seen = f"{seed:064x}", []

    def extract(self, images):
        self.seen.append(images)
        features = self.network(images / 255)
        return {"features": features, "logits": features @ self.head.to(features), "spatial": features[:, :7]}


class Toy(nn.Module):
    """A generator of images [N, channels, 8, 8]: tanh of a linear map of latents [N, 6]."""

    device, num_classes, source_channels, ema, images_seen = torch.device("cpu"), None, None, None, 0

    def __init__(self, channels=1):
        super().__init__()
        self.shape = channels, 8, 8
        self.A = torch.randn(6, 64 * channels, generator=torch.Generator().manual_seed(3))

    def latent(self, n, generator=None):
        return torch.randn(n, 6, generator=generator)

    def generate(self, z, given=None):
        y = given["label"].float() / 10 if given else torch.zeros(len(z))
        return (z @ self.A + y[:, None]).tanh().unflatten(1, self.shape)


class Conditional(Toy):
    num_classes = 10

    def trained_labels(self):
        return list(range(10))


class Still(GANDataModule):
    """A data module with the given images in every split, except those in `empty`."""

    extractor, image_size, num_classes = None, 8, None

    def __init__(self, images, empty=(), labels=None):
        super().__init__()
        self.images, self.empty, self.labels, self.channels = images, empty, labels, images.shape[1]

    def make_dataset(self, split):
        return ArrayImages(self.images[:0], None) if split in self.empty else ArrayImages(self.images, self.labels)


def labelled(labels):
    """Blank reals with the given labels."""
    return None if labels is None else ArrayImages(torch.zeros(len(labels), 1, 8, 8, dtype=torch.uint8), labels)


def evaluation(names, n=1000, data=None, model=None, labels=None, extractor=None, split="train"):
    reference = Reference.of(data or Digits(), split)
    model = model or (Toy() if labels is None else Conditional())
    return Evaluation(Fakes(model, n, 0, labelled(labels)), reference, names, extractor=extractor or Random())


def values(report):
    return {score.figure: score.value for score in report.scores}


def features(images, extractor=None):
    extractor = extractor or Random()
    outputs = [extractor(images[i : i + BLOCK]) for i in range(0, len(images), BLOCK)]
    return tuple(torch.cat([out[key] for out in outputs]).double().numpy() for key in ("features", "logits"))


def made(source):
    blocks = [source.block(i) for i in range(-(-len(source) // BLOCK))]
    return {key: torch.cat([block[key] for block in blocks])[: len(source)] for key in blocks[0]}


# Extraction


def test_images_are_extracted_once_for_all_metrics_and_reals_are_cached(monkeypatch):
    extractor = Random()
    monkeypatch.setattr(choice, "METRICS", {**METRICS, **FASTER})
    it = evaluation(ALL, extractor=extractor)
    assert not extractor.seen, "nothing is extracted before it is asked to run"
    it.run()
    train, test = (Digits().dataset(split).images for split in ("train", "test"))
    fakes = made(Fakes(Toy(), 1024))["images"]
    whole = [BLOCK * -(-len(images) // BLOCK) for images in (train, test, fakes)]
    seen = torch.cat(extractor.seen)
    assert len(seen) == sum(whole), "each block of each set once"
    for images in (train, test, fakes):
        assert sum(torch.equal(seen[i : i + len(images)], images) for i in range(0, len(seen), BLOCK)) == 1
    extractor.seen.clear()
    it.run()
    assert torch.equal(torch.cat(extractor.seen), fakes), "the second time only fakes"
    extractor.seen.clear()
    evaluation(ALL, extractor=extractor).run()
    assert torch.equal(torch.cat(extractor.seen), fakes), "in another run, too"


def test_metrics_without_an_extractor_extract_nothing():
    extractor = Random()
    evaluation(["parzen"], extractor=extractor).run()
    assert not extractor.seen


# Fakes


def test_fakes_and_labels_are_a_prefix_of_those_of_a_larger_count():
    labels = Digits().dataset("train").labels()
    few, many, again = (made(Fakes(Conditional(), n, 7, labelled(labels))) for n in (100, 1000, 1000))
    for key in ("images", "labels"):
        assert torch.equal(many[key], again[key])
        assert torch.equal(few[key], many[key][:100])
    assert not torch.equal(many["images"][:64], many["images"][64:128])
    assert not torch.equal(many["images"], made(Fakes(Conditional(), 1000, 8, labelled(labels)))["images"])
    shares = many["labels"].bincount(minlength=10) / 1000
    assert (shares - labels.bincount() / len(labels)).abs().max() < 0.05, "classes are as frequent as in the data"


@pytest.mark.parametrize("ema", [None, 100.0], ids=["raw", "averaged"])
def test_sampling_leaves_the_model_unchanged_and_depends_only_on_the_seed(ema):
    class Noisy(ganzoo.DCGAN):
        def generate(self, z, given=None):
            return dropout(super().generate(z, given).sign() * 0.4, 0.5)  # dropout stays active, as in pix2pix

    torch.manual_seed(0)
    model = Noisy(**small("DCGAN"), ema_half_life=ema).train()
    model.configure_model()
    for parameter in [] if ema is None else model.ema.parameters():
        parameter.mul_(0.9)
    before, state = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    first = made(Fakes(model, 100))["images"]
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in model.generator.modules())
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    torch.rand(5)
    assert torch.equal(made(Fakes(model, 100))["images"], first)
    dropped = first == 128
    assert 0.4 < dropped.float().mean() < 0.6
    assert (dropped[:36] == dropped[64:]).float().mean() < 0.6, "each block has its own noise"


def test_the_generators_noise_is_independent_of_the_latents():
    class Noise(Toy):
        def generate(self, z, given=None):
            self.both = z, torch.randn_like(z)
            return super().generate(z)

    model = Noise()
    Fakes(model, 10).block(0)
    z, noise = model.both
    assert abs(np.corrcoef(z.flatten(), noise.flatten())[0, 1]) < 0.2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_images_are_rounded_to_bytes_and_points_remain_floats(dtype):
    class Ramp(Toy):
        def generate(self, z, given=None):
            return torch.linspace(-1.1, 1.1, 64).view(1, 1, 8, 8).expand(len(z), -1, -1, -1).to(dtype)

    image = made(Fakes(Ramp(), 1))["images"].flatten().double()
    exact = (torch.linspace(-1.1, 1.1, 64).to(dtype).double().clamp(-1, 1) + 1) * 127.5
    assert (image - exact).abs().max() <= 0.5 + 1e-4
    points = Toy(channels=2)
    points.shape, points.A = (2, 1, 1), points.A[:, :2]
    points = made(Fakes(points, 3))["images"]
    assert points.dtype == torch.float32 and points.abs().max() <= 1


def test_reals_are_in_dataset_order_for_bytes_and_floats():
    data = Digits().dataset("val")
    found = made(Reals(data))
    assert torch.equal(found["images"], data.images) and torch.equal(found["labels"], data.labels())
    floats = ArrayImages(data.images / 127.5 - 1)
    assert torch.equal(made(Reals(floats))["images"], data.images)


# Values


def test_scores_match_their_definitions():
    found = values(evaluation(ALL, n=1100).run())
    fake, logits = features(made(Fakes(Toy(), 1100))["images"])
    real, test = (features(Digits().dataset(split).images)[0] for split in ("train", "test"))
    s1, s2 = np.cov(real.T), np.cov(fake.T)
    delta = real.mean(0) - fake.mean(0)
    fid = delta @ delta + np.trace(s1 + s2 - 2 * scipy.linalg.sqrtm(s1 @ s2).real)
    assert found["fid"] == pytest.approx(fid, rel=1e-8)

    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    p = p[np.random.RandomState(2020).permutation(1100)]  # as torch-fidelity
    parts = [p[1100 * i // 10 : 1100 * (i + 1) // 10] for i in range(10)]
    assert found["is"] == pytest.approx(
        np.mean([np.exp((q * np.log(q / q.mean(0))).sum(1).mean()) for q in parts]), rel=1e-9
    )

    def kernel(x, y):
        return (x @ y.T / 18 + 1) ** 3

    m, n = len(real), len(fake)
    within = [(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (kernel(real, real), kernel(fake, fake))]
    mmd = sum(within) - 2 * kernel(real, fake).mean()
    mean, std = kid(torch.from_numpy(real), torch.from_numpy(fake))
    assert found["kid"] == pytest.approx(mean, rel=1e-12)
    assert abs(found["kid"] - mmd) < std

    between, r, f = cdist(real, fake), np.sort(cdist(real, real)), np.sort(cdist(fake, fake))
    assert found["precision"] == pytest.approx((between <= r[:, [3]]).any(0).mean(), abs=1e-12)
    assert found["recall"] == pytest.approx((between <= f[:, 3]).any(1).mean(), abs=1e-12)
    inside = between < r[:, [5]]
    assert found["density"] == pytest.approx(inside.sum() / (5 * n), abs=1e-12)
    assert found["coverage"] == pytest.approx(inside.any(1).sum() / m, abs=1e-12)

    nearest = between.argmin(0)
    assert found["authenticity"] == pytest.approx((between.min(0) > r[nearest, 1]).mean(), abs=1e-12)
    half, other = np.array_split(real[torch.randperm(m, generator=torch.Generator().manual_seed(0)).numpy()], 2)
    within, apart = np.sort(cdist(half, half))[:, 1], cdist(half, other)
    of_reals = (apart.min(0) > within[apart.argmin(0)]).mean()
    assert found["authenticity_of_reals"] == pytest.approx(of_reals, abs=1e-12) and 0.3 < of_reals < 0.9
    held_out = cdist(test, real).min(1)
    assert found["copying"] == pytest.approx((held_out[:, None] > between.min(0)).mean(), abs=1e-3)


def test_scores_agree_with_torch_fidelity():
    """On the same features."""
    report = evaluation(["fid", "is", "pr"], n=1003).run()
    found = values(report)
    (fake, logits), (real, _) = features(made(Fakes(Toy(), 1003))["images"]), features(Digits().dataset("train").images)
    fake, logits, real = map(torch.from_numpy, (fake, logits, real))
    stats = [metric_fid.fid_features_to_statistics(x) for x in (real, fake)]
    theirs = metric_fid.fid_statistics_to_metric(*stats, verbose=False)
    theirs |= metric_isc.isc_features_to_metric(logits)
    precision, recall = metric_prc.calculate_precision_recall_full(fake, real)
    assert found["fid"] == pytest.approx(theirs["frechet_inception_distance"], rel=1e-8)
    assert found["is"] == pytest.approx(theirs["inception_score_mean"], rel=1e-9)
    assert {s.figure: s.error for s in report.scores}["is"] == pytest.approx(theirs["inception_score_std"], rel=1e-9)
    assert (found["precision"], found["recall"]) == pytest.approx((precision, recall), abs=1e-6)


def test_reals_against_themselves_have_perfect_scores():
    real = Digits().dataset("train")
    asked = ["fid", "pr", "dc", "authenticity", "copying"]
    it = Evaluation(Reals(real), Reference.of(Digits()), asked, extractor=Random())
    found = values(it.run())
    assert abs(found["fid"]) < 1e-10
    assert found["precision"] == found["recall"] == found["coverage"] == 1
    assert found["authenticity"] == 0 and found["copying"] == 1


def test_the_protocol_names_held_out_images_that_a_score_depends_on():
    one, two = Digits(), Digits()
    other = two.dataset("test")
    other.images[0] = 255 - other.images[0]
    reports = [evaluation(["fid", "copying"], data=data).run() for data in (one, two)]
    how = [{score.figure: score.protocol for score in report.scores} for report in reports]
    assert how[0]["fid"] == how[1]["fid"] and "test_images" not in how[0]["fid"]
    assert how[0]["copying"]["test_images"] == len(other) == how[1]["copying"]["test_images"]
    assert how[0]["copying"] != how[1]["copying"]


@pytest.mark.parametrize("wrap", [lambda data: data, Pairs])
def test_held_out_images_of_other_classes_do_not_show_copying(wrap):
    """Portraits for tests have other roles than those of the training, so ideal fakes would seem to be copies."""
    data = wrap(Emoji("portraits"))
    fakes = Reals(data.dataset("train"))
    assert {"authenticity", "copying"} & {m.name for m in Evaluation(fakes, Reference.of(data)).metrics} == {
        "authenticity"
    }
    with pytest.raises(ValueError, match="copying needs test images like the training images, .* choose authenticity"):
        Evaluation(fakes, Reference.of(data), ["copying"])


def test_a_metric_that_fails_loses_no_other_score():
    """One class has a single real image."""
    images = Digits().dataset("train").images
    data = Still(images, labels=torch.tensor([0] * (len(images) - 1) + [1]))
    with pytest.warns(UserWarning, match="not computed: intra_fid: class 1 has fewer than 2 images"):
        report = evaluation(["intra_fid", "fid"], data=data, labels=torch.tensor([0, 1])).run()
    assert math.isnan(values(report)["intra_fid"]) and values(report)["fid"] > 0
    assert report.scores[0].error is None
    with pytest.raises(ValueError, match="intra_fid: class 1 has fewer than 2 images"):
        evaluation(["intra_fid"], data=data, labels=torch.tensor([0, 1])).run()


def test_a_metric_without_memory_loses_no_other_score(monkeypatch):
    def compute(self, states):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(metrics.KID, "compute", compute)
    with pytest.warns(UserWarning, match="not computed: out of memory"):
        found = values(evaluation(["kid", "fid"]).run())
    assert math.isnan(found["kid"]) and found["fid"] > 0


def test_scores_of_constant_fakes_match_closed_forms():
    class Constant(Toy):
        def generate(self, z, given=None):
            return torch.zeros(len(z), 1, 8, 8)

    found = values(evaluation(["fid", "is", "pr", "dc"], model=Constant()).run())
    real = features(Digits().dataset("train").images)[0]
    fake = features(torch.full((1, 1, 8, 8), 128, dtype=torch.uint8))[0]
    distances = ((real - fake) ** 2).sum(1)
    assert found["fid"] == pytest.approx(
        ((real.mean(0) - fake) ** 2).sum() + np.trace(np.cov(real.T)), rel=1e-6
    )  # |mu1 - mu2|^2 + tr S1
    assert found["is"] == pytest.approx(1, abs=1e-9)
    assert found["recall"] == 0, "no real lies at the distance 0 that all fakes have from one another"
    radii = np.sort(cdist(real, real))
    within = distances[:, None] ** 0.5 <= radii[:, [3]]
    assert found["precision"] == within.any() and found["coverage"] == (distances**0.5 < radii[:, 5]).mean()


def test_intra_fid_of_a_single_class_equals_fid():
    images = Digits().dataset("train").images[:100]
    labels = torch.zeros(100, dtype=torch.long)
    data = Still(images)
    data.dataset("train")._labels = labels
    found = values(evaluation(["fid", "intra_fid"], data=data, labels=labels).run())
    assert found["intra_fid"] == pytest.approx(found["fid"], rel=1e-9)


def test_intra_fid_is_the_mean_of_the_classes():
    seeded = torch.Generator().manual_seed(0)
    states = {
        side: {"features.rows": torch.randn(200, 3, generator=seeded).double(), "labels.rows": torch.arange(200) % 2}
        for side in ("fake", "real")
    }
    states["fake"]["features.rows"][::2] *= 2
    expected = [
        frechet_distance(*(Gaussian.of(states[side]["features.rows"][c::2]) for side in ("real", "fake")))
        for c in (0, 1)
    ]
    assert expected[0] > 2 * expected[1]
    found = metrics.IntraFID().compute(states)["intra_fid"]
    assert found == (pytest.approx(np.mean(expected)), pytest.approx(np.std(expected)))


def test_sfid_is_the_fid_of_spatial_features():
    fake, real = (features(x)[0][:, :7] for x in (made(Fakes(Toy(), 1000))["images"], Digits().dataset("train").images))
    expected = frechet_distance(*(Gaussian.of(torch.from_numpy(x)) for x in (real, fake)))
    assert values(evaluation(["sfid"]).run())["sfid"] == pytest.approx(expected, rel=1e-8)


def test_errors_of_fid_and_accuracy():
    report = evaluation(["fid"], n=1100).run()
    fake, real = (features(x)[0] for x in (made(Fakes(Toy(), 1100))["images"], Digits().dataset("train").images))
    fake = torch.from_numpy(fake)
    expected = frechet_standard_error(Gaussian.of(torch.from_numpy(real)), Gaussian.of(fake), fake)
    assert report.scores[0].error == pytest.approx(expected, rel=0.05), "from a sample of the features"
    logits, labels = torch.eye(4).repeat(5, 1), torch.tensor([0, 1, 2, 0] * 5)
    found = metrics.Accuracy().compute({"fake": {"logits.rows": logits, "labels.rows": labels}})["accuracy"]
    assert found == (0.75, pytest.approx((0.75 * 0.25 / 20) ** 0.5))


def test_the_default_number_of_fakes_depends_on_the_extractor_that_is_used():
    class Mine(torch.nn.Flatten):
        pass

    data = Digits()
    data.extractor = "inception-grey"
    sizes = {"image_size": 8, "channels": 1, "hidden": 8, "d_hidden": 4}
    assert len(assemble(ganzoo.GAN(**sizes), data, ["fid"], extractor=Mine()).fakes) == 10_000


def test_fakes_are_moved_to_the_device_of_the_extractor():
    """Another one than the model's; meta stands for it."""
    block = Fakes(
        ganzoo.CGAN(image_size=8, channels=1, hidden=8, d_hidden=4), 20, 0, Digits().dataset("val"), device="meta"
    )
    assert {value.device.type for value in block.block(0).values()} == {"meta"}
    assert {value.device.type for value in Fakes(Toy(), 20).block(0).values()} == {"cpu"}


def test_protocols_name_the_reals_that_fakes_depend_on():
    """By the labels from which classes are drawn."""
    sizes = {"image_size": 8, "channels": 1, "hidden": 8, "d_hidden": 4}
    cgan, gan, data = ganzoo.CGAN(**sizes, num_classes=10), ganzoo.GAN(**sizes), Digits()

    def how(model, reals, **more):
        return ganzoo.evaluate(model, reals, ["is"], n=20, extractor="digits", **more).scores[0].protocol

    train, val = how(cgan, data), how(cgan, data, split="val")
    assert (train["split"], val["split"]) == ("train", "val")
    assert train["data_fingerprint"] == data.dataset("train").fingerprint() != val["data_fingerprint"]
    uniform = how(cgan, data.dataset("train").images)
    assert uniform["classes"] == "uniform" and "classes" not in train
    assert "data" not in {**uniform, **how(gan, data)} and "classes" not in how(gan, data)


def test_parzen_scores_test_images_with_a_width_chosen_on_validation_images():
    found = values(evaluation(["parzen"], n=300).run())
    pixels = {split: Digits().dataset(split).images for split in ("train", "val", "test")}
    pixels["fake"] = made(Fakes(Toy(), 300))["images"]
    fake, train, val, test = (pixels[key].flatten(1).double() / 255 for key in ("fake", "train", "val", "test"))
    mixed = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:300]  # of all classes
    expected, of_reals = parzen(fake, val, test), parzen(train[mixed], val, test)
    assert (found["parzen"], found["parzen_sigma"]) == pytest.approx((expected.mean, expected.sigma))
    assert found["parzen_of_reals"] == pytest.approx(of_reals.mean)


# States


@pytest.mark.parametrize("n", [2, 39, 40, 41, 42, 512, 513, 514, 5000])
@pytest.mark.parametrize("offset", [0, 1e4])
def test_moments_match_numpy_for_any_batching(n, offset):
    x = torch.randn(n, 40, generator=torch.Generator().manual_seed(n), dtype=torch.float64) + offset
    draw = random.Random(n)
    for _ in range(3):
        state, start = Moments(n), 0
        while start < n:
            size = draw.choice([1, 2, 7, 64, 300, 2000])
            state.update(x[start : start + size])
            start += size
            assert sum(map(len, state.rows)) <= 512, "few rows are kept"
        found = state.value()
        assert (found.n, found.cov is None) == (n, n <= 40)
        cov = found.cov if found.rows is None else found.rows.T @ found.rows
        np.testing.assert_allclose(found.mean, x.mean(0), atol=1e-14 * (1 + offset))
        np.testing.assert_allclose(cov, np.cov(x.numpy().T), atol=1e-12 if offset == 0 else 1e-10)


def test_moments_do_not_depend_on_the_order_of_batches():
    x = torch.randn(3000, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 100
    a, b = Moments(3000), Moments(3000)
    for part in x.split(64):
        a.update(part)
    for part in reversed(x.split(111)):
        b.update(part)
    a, b = a.value(), b.value()
    np.testing.assert_allclose(a.mean, b.mean, rtol=1e-13)
    np.testing.assert_allclose(a.cov, b.cov, atol=1e-12)
    assert abs(frechet_distance(a, b)) < 1e-10


def test_a_sample_holds_the_first_5000_rows():
    state, x = Sample(9999), torch.arange(9999.0)[:, None]
    for part in x.split(64):
        state.update(part)
    assert torch.equal(state.value(), x[:5000])


@pytest.mark.parametrize(("n", "step"), [(10, 1), (5000, 1), (5001, 2), (10_000, 2), (10_001, 3)])
def test_spread_rows_are_at_equal_distances(n, step):
    state, x = Spread(n), torch.arange(float(n))[:, None]
    for part in x.split(37):
        state.update(part)
    assert torch.equal(state.value(), x[::step]) and len(state.value()) <= 5000


def test_the_error_of_fid_is_that_of_all_fakes_though_they_are_sorted():
    """Two clusters, one after the other."""
    x = torch.randn(10_000, 4, generator=torch.Generator().manual_seed(0)).double()
    x[5000:] += 20
    metric, errors = metrics.FID(), []
    for rows in (x, x[torch.randperm(10_000, generator=torch.Generator().manual_seed(1))]):
        states = {"features.moments": Moments(10_000), "features.spread": Spread(10_000)}
        for state in states.values():
            state.update(rows)
        sides = {"fake": {name: state.value() for name, state in states.items()}}
        sides["real"] = {"features.moments": Gaussian.of(torch.randn(500, 4).double())}
        errors.append(metric.compute(sides)["fid"][1])
    assert errors[0] == pytest.approx(errors[1], rel=0.1)


# Float32 precision


def places():
    backends, cpu = torch.backends, (torch.backends.mkldnn.matmul, torch.backends.mkldnn.conv)
    return [x.fp32_precision for x in (backends.cuda.matmul, backends.cudnn.conv, *cpu)]


@pytest.mark.parametrize("how", ["untouched", "medium", "allow_tf32", "new"])
def test_extraction_runs_in_ieee_float32_and_restores_the_users_precision(how):
    before = torch.get_float32_matmul_precision()
    try:
        if how == "medium":
            torch.set_float32_matmul_precision("medium")
        elif how == "allow_tf32":
            torch.backends.cuda.matmul.allow_tf32 = True
        elif how == "new":
            torch.backends.fp32_precision = "tf32"
        was = places()
        with ieee_float32(torch.device("cpu")):
            assert set(places()) == {"ieee"}
        assert places() == was
        if how == "medium":
            assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.backends.fp32_precision = "none"
        torch.backends.cudnn.conv.fp32_precision = "tf32"
        torch.backends.mkldnn.conv.fp32_precision = "none"
        torch.set_float32_matmul_precision(before)


# Several processes


def results(world, work, path):
    """Return values of `work(rank)` in `world` processes, by rank."""

    def child(rank):
        torch.set_num_threads(1)
        store = dist.FileStore(str(path / f"store{world}"), world)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=timedelta(seconds=30))
        torch.save(work(rank), path / f"{world}-{rank}.pt")
        dist.destroy_process_group()

    start_processes(partial(_call, child), nprocs=world, start_method="fork")
    return [torch.load(path / f"{world}-{rank}.pt") for rank in range(world)]


def _call(child, rank):
    child(rank)


def test_scores_do_not_depend_on_the_number_of_processes(tmp_path, monkeypatch):
    monkeypatch.setattr(choice, "METRICS", {**METRICS, **FASTER})
    labels = Digits().dataset("train").labels()
    names = [*ALL, "accuracy", "intra_fid"]

    def work(_):
        world = dist.get_world_size() if dist.is_initialized() else 1
        monkeypatch.setenv("GANZOO_CACHE", str(tmp_path / f"cache{world}"))
        cold = evaluation(names, n=1037, labels=labels).run()
        warm = evaluation(names, n=1037, labels=labels).run()
        return [json.dumps(report.as_dict()["scores"]) for report in (cold, warm)]

    one = work(0)
    assert one[0] == one[1], "from a cold and from a warm cache"
    assert "NaN" not in one[0] and len(json.loads(one[0])) == 13
    for world in (2, 3):
        assert results(world, work, tmp_path) == [one] * world


def error(do):
    try:
        do()
    except Exception as raised:
        return f"{type(raised).__name__}: {raised}"
    return None


def test_an_error_in_one_process_is_raised_in_all(tmp_path, monkeypatch):
    class Diverged(Toy):
        def generate(self, z, given=None):
            return super().generate(z) * float("nan")

    class Broken(Fakes):
        def block(self, index):
            if index == 3:  # a block of the second process
                raise OSError("a broken file")
            return super().block(index)

    class Blind(Random):
        def extract(self, images):
            return {key: value * float("nan") for key, value in super().extract(images).items()}

    def fail(what):
        def failing(*_, **__):
            if not dist.is_initialized() or dist.get_rank() == 0:
                raise KeyError(what)

        return failing

    def work(rank):
        found = {}
        found["fakes"] = error(lambda: evaluation(["fid"], model=Diverged()).run())
        broken = Evaluation(Broken(Toy(), 500), Reference.of(Digits()), ["fid"], extractor=Random())
        found["file"] = error(lambda: broken.run())
        found["features"] = error(lambda: evaluation(["fid", "is"], extractor=Blind(seed=1)).run())
        with monkeypatch.context() as patch:
            patch.setattr(metrics.FID, "compute", fail("compute"))
            found["compute"] = error(lambda: evaluation(["fid"]).run())
        with monkeypatch.context() as patch:
            patch.setattr(measure, "make", fail("download"))
            found["download"] = error(lambda: evaluation(["fid"]))
        with monkeypatch.context() as patch:
            patch.setattr(Reference, "about", fail("about"))
            found["about"] = error(lambda: evaluation(["fid"]))
        found["after all"] = error(lambda: evaluation(["fid"]).run())
        return found

    first, second = results(2, work, tmp_path)
    assert first["fakes"] == second["fakes"] and "not finite" in first["fakes"]
    assert first["file"] == second["file"] == "OSError: a broken file"
    assert first["features"] == second["features"] == "ValueError: non-finite features"
    for what in ("compute", "download", "about"):
        assert first[what] == f"KeyError: '{what}'" and what in second[what]
    assert first["after all"] is second["after all"] is None, "they still agree"


@pytest.mark.gpu
def test_gpu_scores_match_the_cpus_and_preserve_the_rng_state():
    torch.manual_seed(0)
    model, names = ganzoo.DCGAN(image_size=8, channels=1, width=8), ["fid", "is", "pr", "dc", "authenticity", "copying"]
    state = torch.cuda.get_rng_state()
    fakes = Fakes(model.to("cuda"), 1000)
    on_gpu = Evaluation(fakes, Reference.of(Digits()), names, extractor=Random(), device="cuda").run()
    assert torch.equal(torch.cuda.get_rng_state(), state)
    on_cpu = evaluation(names, model=model.to("cpu")).run()
    assert values(on_gpu) == pytest.approx(values(on_cpu), rel=1e-2, abs=1e-2)  # bytes may round differently


# Bad input


NARROW = Still(to_uint8(torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))), empty=("test",))
BAD = {
    "fewer fakes than k": (["pr"], {"n": 3}, "4 fake images"),
    "fewer fakes than a subset": (["kid"], {"n": 999}, "1000 fake images"),
    "fewer reals than a subset": (["kid"], {"data": NARROW}, "1000 real images"),
    "fewer fakes than splits": (["is"], {"n": 9}, "10 fake images"),
    "one fake": (["fid"], {"n": 1}, "2 fake images"),
    "few fakes for an extrapolation": (["fid_infinity"], {"n": 999}, "1000 fake images"),
    "fewer than two fakes per class": (["intra_fid"], {"labels": torch.arange(10), "n": 19}, "20 fake images"),
    "no test split": (["copying"], {"data": NARROW}, "test split"),
    "held against the test split": (["copying"], {"split": "test"}, "split train, not test"),
    "authentic against the test split": (["authenticity"], {"split": "test"}, "split train, not test"),
    "parzen against the test split": (["parzen"], {"split": "test"}, "split train, not test"),
    "an unknown name": (["fidd"], {}, "did you mean 'fid'"),
    "nothing like a name": (["zzzzzz"], {}, "choose from fid, is"),
    "no modes": (["modes"], {}, "modes can be counted for"),
    "no classes": (["accuracy"], {}, "conditional"),
    "no classes of their own": (["intra_fid"], {}, "conditional"),
    "no classes to look into": (["ms_ssim"], {}, "conditional"),
    "too small for five scales": (["ms_ssim:smallest=64"], {"labels": torch.arange(10)}, "need 176 pixels or more"),
    "other labels": (["fid"], {"labels": torch.arange(12)}, "labels are 0 to 11"),
    "not Inception": (["sfid"], {}, "Inception's mixed_6"),
    "other channels": (["fid"], {"model": Toy(channels=3)}, "the fakes are 3 x 8 x 8"),
    "other sizes": (["fid"], {"data": Digits(image_size=16)}, "the reals 1 x 16 x 16"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_raises_a_one_line_error_before_extraction(case):
    names, settings, words = BAD[case]
    extractor = Random()
    extractor.name, extractor.spatial = "torchvision-inception_v3", False
    with pytest.raises(ValueError) as caught:
        evaluation(names, extractor=extractor, **settings)
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert not extractor.seen


def test_fid_infinity_needs_subsets_larger_than_the_number_of_features():
    extractor = Random()
    extractor.num_features = 200
    with pytest.raises(
        ValueError, match="fid_infinity with 200 features needs at least 2010 fake images, but there are 2000"
    ):
        evaluation(["fid_infinity"], n=2000, extractor=extractor)
    evaluation(["fid_infinity"], n=2010, extractor=extractor)


def test_an_extractor_with_wrong_classes_or_channels_is_refused():
    labels = Digits().dataset("train").labels()
    extractor = Random()
    extractor.num_classes = 1008
    with pytest.raises(ValueError, match="classifier of the data's 10 classes; this extractor has 1008"):
        evaluation(["accuracy"], labels=labels, extractor=extractor)
    extractor.num_classes = None
    for name in ("is", "accuracy", "ebgan_score"):
        with pytest.raises(ValueError, match="needs a classifier"):
            evaluation([name], labels=labels, extractor=extractor)
    extractor.channels = 3
    with pytest.raises(ValueError, match="reads 3 channels, but the images have 1"):
        evaluation(["fid"], extractor=extractor)
    assert not extractor.seen


def test_default_metrics_are_those_that_can_be_computed():
    labels = Digits().dataset("train").labels()
    assert [m.name for m in evaluation(None).metrics] == ALL
    assert [m.name for m in evaluation(None, labels=labels).metrics] == [*ALL, "accuracy"]
    assert [m.name for m in evaluation(None, n=5, data=NARROW).metrics] == ["fid", "pr", "authenticity"]
    assert [m.name for m in evaluation(None, split="test").metrics] == ["fid", "is", "pr", "dc"]
    points = Evaluation(Fakes(Gauss(), 2500), Reference.of(Gaussians(n=100)))
    assert [m.name for m in points.metrics] == ["modes"]


def test_fids_inception_alone_has_50000_fakes_by_default():
    counts = {name: choice.usual_count(name) for name in ("inception", "other-inception-clean", "inception-grey")}
    assert set(counts.values()) == {50_000}
    assert choice.usual_count("torchvision-inception_v3") == choice.usual_count("digits") == 10_000


def test_data_with_an_own_classifier_have_default_scores_during_training():
    assert choice.cheap(Digits()) == choice.cheap(Emoji("portraits", label="gender")) == ["fid"]
    assert choice.cheap(CIFAR10()) == []
    assert choice.cheap(Gaussians()) == ["modes"]


# Every metric


class Gauss(Toy):
    """Draws from the true distribution of the ring of Gaussians."""

    def latent(self, n, generator=None):
        return torch.randint(8, (n, 1), generator=generator), torch.randn(n, 2, generator=generator)

    def generate(self, z, given=None):
        data = Gaussians()
        return ((data.centers[z[0][:, 0]] + data.sigma * z[1]) / data.scale)[:, :, None, None]


class Squares(nn.Module):
    """A stub of LPIPS: the mean squared difference."""

    def forward(self, a, b):
        return (a - b).square().mean((1, 2, 3), keepdim=True)


FASTER = {
    "kid": partial(metrics.KID, subsets=3, size=100),
    "ppl": partial(perceptual.PPL, pairs=50),
    "lpips_diversity": partial(perceptual.LPIPSDiversity, pairs=50),
    "ms_ssim": partial(perceptual.ClassSimilarity, pairs=2),
    **{name: partial(METRICS[name], latents=3) for name in ("eqt_int", "eqt_frac", "eqr")},
}


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_matches_its_declarations(name, monkeypatch):
    metric = METRICS[name]
    assert metric.name == name and metric.__doc__ and metric.figures
    assert set(metric.figures.values()) <= {"lower", "higher", ""}
    assert set(metric.needs) <= {"fake", "real", "val", "test"} and "fake" in metric.needs
    for need in (need for needs in metric.needs.values() for need in needs):
        output, _, state = need.partition(".")
        assert need == "model" or (output in {*EXTRACTED, "images", "labels"} and state in STATES)
    if name not in ("accuracy", "pairs"):
        assert "20" in metric.paper, "author, year and section"

    monkeypatch.setattr(perceptual, "network", lambda net: Squares())
    monkeypatch.setattr(choice, "METRICS", {**METRICS, **FASTER})
    if name == "modes":
        it = Evaluation(Fakes(Gauss(), 2500), Reference.of(Gaussians(n=100)), [name])
    elif name == "pairs":
        reference = Reference.of(Pairs(Digits(image_size=16), "edges"), "val")
        model = ganzoo.Pix2Pix(source_channels=1, channels=1, image_size=16, width=4)
        it = Evaluation(Fakes(model, 100, reals=reference.sets["real"]), reference, [name])
    elif name.startswith("eq"):
        model = ganzoo.StyleGAN3(**{**small("StyleGAN3"), "num_classes": None})
        it = Evaluation(Fakes(model, 100), Reference.of(Digits(image_size=16)), [name])
    else:
        it = evaluation([name], labels=Digits().dataset("train").labels())
    report = it.run()
    assert [score.figure for score in report.scores] == list(metric.figures)
    for score in report.scores:
        assert np.isfinite(score.value) and score.better == metric.figures[score.figure]
        assert score.error is None or (score.error >= 0 and score.error_kind == metric.error != "")
        assert score.name == it.names[score.figure] and score.protocol["metric"] == name
    assert metric.error == "" or any(score.error is not None for score in report.scores)
    json.dumps(report.as_dict(), allow_nan=False)
    failed = it.failed()
    assert [score.name for score in failed.scores] == [score.name for score in report.scores]
    assert all(np.isnan(score.value) for score in failed.scores)


def test_parzen_of_points_is_refused():
    with pytest.raises(ValueError, match="parzen needs pixels, but these are points"):
        Evaluation(Fakes(Gauss(), 2500), Reference.of(Gaussians(n=100)), ["parzen"])


def test_the_true_distribution_has_all_modes_and_its_expected_quality():
    report = Evaluation(Fakes(Gauss(), 2500), Reference.of(Gaussians(n=100)), ["modes"]).run()
    found = values(report)
    assert found["modes"] == 8
    assert found["high_quality"] == pytest.approx(0.989, abs=0.01)
    assert found["kl"] < 0.01
    assert report.scores[0].name == "modes_2500"


def test_progress_counts_images():
    seen = []
    evaluation(["fid"], n=130).run(lambda *state: seen.append(state))
    assert seen[-3:] == [("fakes", 64, 130), ("fakes", 128, 130), ("fakes", 130, 130)]
    assert ("real images", 1397, 1397) in seen


def test_byte_images_survive_a_round_trip_through_floats():
    model = Toy()
    block = Fakes(model, 64).block(0)["images"]
    assert block.dtype == torch.uint8 and torch.equal(block, to_uint8(block / 127.5 - 1))


SET = {
    "pr": (metrics.PrecisionRecall(k=1), lambda real, fake: precision_recall(real, fake, 1)),
    "dc": (metrics.DensityCoverage(k=1), lambda real, fake: density_coverage(real, fake, 1)),
    "kid": (metrics.KID(2, 20, 1), lambda real, fake: [kid(real, fake, 2, 20, 1)]),
    "kid, other subsets": (metrics.KID(3, 20, 1), lambda real, fake: [kid(real, fake, 3, 20, 1)]),
    "fid_infinity": (metrics.FIDInfinity(4, 1), lambda real, fake: [fid_infinity(Gaussian.of(real), fake, 4, 1)]),
}


@pytest.mark.parametrize("name", SET)
def test_settings_of_a_metric_change_the_score(name):
    seeded = torch.Generator().manual_seed(0)
    real, fake = (torch.randn(60, 3, generator=seeded).double() for _ in range(2))
    sides = {"real": real, "fake": fake}
    states = {side: {"features.rows": x, "features.moments": Gaussian.of(x)} for side, x in sides.items()}
    metric, expected = SET[name]
    values = list(expected(real, fake))
    pairs = values if "kid" in name or "fid" in name else [(value, None) for value in values]
    assert list(metric.compute(states).values()) == pairs
    assert metrics.FIDInfinity().sizes == 15, "as in the paper"


def test_parzens_width_is_chosen_on_images_of_all_the_validation_set(monkeypatch):
    seen, found = [], SimpleNamespace(mean=0.0, standard_error=0.0, sigma=0.1)
    monkeypatch.setattr(metrics, "parzen", lambda samples, valid, test: seen.append(valid) or found)
    rows = {"images.rows": torch.arange(1200)[:, None]}
    metrics.Parzen().compute(dict.fromkeys(("fake", "real", "val", "test"), rows))
    assert len(seen) == 2 and all((valid[:1000] * 255 > 1100).any() for valid in seen)
