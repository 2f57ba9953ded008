"""Perceptual metrics against closed forms and LPIPS' formula; weights are random, nothing is downloaded."""

from __future__ import annotations

import hashlib
import statistics
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision
from torch import nn
from torch.nn.functional import interpolate
from torchmetrics.functional.image.lpips import _NoTrainLpips
from torchmetrics.image import MultiScaleStructuralSimilarityIndexMeasure

import ganzoo
from ganzoo.core.random import mix
from ganzoo.evaluation import perceptual
from ganzoo.evaluation.interfaces import Given
from ganzoo.evaluation.measure import plain_latents
from ganzoo.evaluation.perceptual import PPL, ClassSimilarity, LPIPSDiversity, trimmed_error
from tests.variants import small

Z = 5


def given(fakes=2000, channels=3, model=True, latents=True):
    return Given({"fake": fakes}, channels, (8, 8), None, False, model, latents=latents)


class Squares(nn.Module):
    """A stub of LPIPS: the sum of squared differences; records its inputs."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, a, b):
        self.seen.append((a, b))
        self.precisions = {torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision}
        return (a - b).square().sum((1, 2, 3), keepdim=True)


@pytest.fixture
def squares(monkeypatch):
    net = Squares()
    monkeypatch.setattr(perceptual, "network", lambda name: net)
    return net


class Linear(nn.Module):
    """G(z) = A z, with normal latents."""

    device, num_classes, source_channels = torch.device("cpu"), None, None

    def __init__(self, channels=3, size=8, scale=0.05):
        super().__init__()
        matrix = torch.randn(channels * size**2, Z, generator=torch.Generator().manual_seed(1)) * scale
        self.A, self.shape = matrix, (channels, size, size)

    def trained_labels(self):
        return list(range(self.num_classes or 0))

    def latent(self, n, generator=None):
        return torch.randn(n, Z, generator=generator)

    def generate(self, z, given=None):
        return (z @ self.A.T).unflatten(1, self.shape)


def ppl(model, **settings):
    metric = PPL(**{"pairs": 300, "resize": 8, **settings})
    return metric.compute({"fake": {"model": model}})["ppl"]


def distances(model, pairs, seed=0):
    """|A (z2 - z1)|^2 of the seed's pairs of latents, float64, ascending."""
    generator = torch.Generator().manual_seed(mix(seed))
    z1, z2 = (model.latent(pairs, generator).double() for _ in range(2))
    return ((z2 - z1) @ model.A.double().T).square().sum(1).sort().values


def test_ppl_of_a_linear_generator_matches_its_closed_form(squares):
    model = Linear()
    kept = distances(model, 300)[2:-3]  # drops 1 % of 299 at each end, rounded as by a "lower" quantile
    value, error = ppl(model)
    assert value == pytest.approx(kept.mean().item(), rel=1e-3)
    assert error == pytest.approx(kept.std().item() / 300**0.5, rel=0.15)


def test_ppl_of_a_linear_generator_does_not_depend_on_epsilon(squares):
    assert ppl(Linear(), epsilon=0.1)[0] == pytest.approx(ppl(Linear())[0], rel=1e-3)
    long, short = ((a - b).norm() for a, b in (squares.seen[0], squares.seen[5]))  # 300 pairs are 5 blocks
    assert long / short == pytest.approx(1000, rel=1e-3)


def test_slerp_keeps_unit_latents_on_the_sphere(squares):
    """G(z) = z on the sphere: the step is an arc of angle eps omega, so PPL is the mean of omega^2."""

    class Sphere(Linear):
        def latent(self, n, generator=None):
            return nn.functional.normalize(super().latent(n, generator))

    model = Sphere(1, 8)
    model.A = torch.eye(64, Z)
    generator = torch.Generator().manual_seed(mix(0))
    z1, z2 = (model.latent(300, generator).double() for _ in range(2))
    omega = (z1 * z2).sum(1).acos().sort().values[2:-3]
    value, _ = ppl(model, interpolation="slerp_any", epsilon=1e-3)
    assert value == pytest.approx(3 * omega.square().mean().item(), rel=1e-3)  # grey is repeated to three channels


def test_ppl_of_a_constant_generator_is_zero(squares):
    assert ppl(Linear(scale=0)) == (0, 0)


@pytest.mark.parametrize("size", [4, 8, 16])
def test_images_are_resized_and_repeated_to_three_channels(squares, size):
    model = Linear(channels=1, size=size)
    ppl(model, pairs=3)
    a, _ = squares.seen[0]
    z = model.latent(3, torch.Generator().manual_seed(mix(0)))
    want = model.generate(z)
    if size == 16:
        want = want.unflatten(3, (8, 2)).unflatten(2, (8, 2)).mean((3, 5))
    elif size == 4:
        want = interpolate(want, (8, 8), mode="bilinear")
    torch.testing.assert_close(a, want.repeat(1, 3, 1, 1), atol=1e-6, rtol=0)


def test_both_images_of_a_step_share_their_noise(squares):
    class Noisy(Linear):
        def generate(self, z, given=None):
            return super().generate(z) + torch.randn(len(z), *self.shape) * 0.1

    assert ppl(Noisy())[0] == pytest.approx(ppl(Linear())[0], rel=1e-3)
    (a, _), (b, _) = squares.seen[:2]
    clean = Linear().generate(Linear().latent(128, torch.Generator().manual_seed(mix(0))))
    assert not torch.allclose(a - clean[:64], b - clean[64:], atol=1e-3)  # noise differs between pairs


def test_both_images_of_a_pair_share_a_class_and_all_classes_occur(squares):
    class Classes(Linear):
        num_classes = 10
        labels = []

        def generate(self, z, given=None):
            self.labels.append(given["label"])
            return super().generate(z) + given["label"].view(-1, 1, 1, 1) / 10

    assert ppl(Classes())[0] == pytest.approx(ppl(Linear())[0], rel=1e-3)
    first, Classes.labels = torch.cat(Classes.labels), []
    assert first.bincount(minlength=10).min() > 30  # 60 expected
    torch.rand(1)
    ppl(Classes())
    assert torch.equal(torch.cat(Classes.labels), first)


def test_ppl_is_reproducible_and_preserves_the_global_rng_state(squares):
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first = ppl(Linear())
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(1)
    assert ppl(Linear()) == first
    assert ppl(Linear(), seed=1)[0] == pytest.approx(distances(Linear(), 300, seed=1)[2:-3].mean().item(), rel=1e-3)
    assert ppl(Linear(), seed=1) != first


@pytest.fixture
def tf32():
    backends = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = True
    yield lambda: tuple(backend.allow_tf32 for backend in backends)
    for backend, value in zip(backends, before, strict=True):
        backend.allow_tf32 = value


def test_ppl_is_computed_in_ieee_float32_despite_autocast_and_tf32(squares, tf32):
    plain = ppl(Linear())
    assert squares.precisions == {"ieee"}
    with torch.autocast("cpu", torch.bfloat16):
        assert ppl(Linear()) == plain
    assert tf32() == (True, True)


def test_trimmed_error_is_the_standard_deviation_of_trimmed_means():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(2000, 500, generator=generator, dtype=torch.float64).exp().sort().values[:, 4:-5]
    errors = [trimmed_error(row, 500) for row in values]
    assert statistics.mean(errors) == pytest.approx(values.mean(1).std().item(), rel=0.06)
    plain = values.std(1).mean() / values.shape[1] ** 0.5  # the naive estimate
    assert plain < 0.92 * values.mean(1).std()


def test_structured_latents_are_refused_before_anything_runs():
    model = ganzoo.InfoGAN(**small("InfoGAN")).eval()
    with pytest.raises(ValueError, match=r"ppl needs latents \[n, z_dim\], which this model does not have"):
        PPL().check(given(latents=plain_latents(model)))
    assert plain_latents(ganzoo.DCGAN(8, 1, width=4))
    assert not any(map(plain_latents, (ganzoo.Pix2Pix(**small("Pix2Pix")), None)))


@pytest.mark.filterwarnings("ignore:std")  # std of no values, in torchmetrics
def test_a_diverged_generator_is_refused(squares):
    with pytest.raises(ValueError, match="not finite"):
        ppl(Linear(scale=float("nan")))


# Diversity


def diversity(images, **settings):
    return LPIPSDiversity(**settings).compute({"fake": {"images.spread": images}})["lpips_diversity"]


def test_diversity_pairs_are_disjoint(squares):
    images = torch.arange(201, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 64, 64)
    value, error = diversity(images, pairs=100)
    levels = [[((image[:, 0, 0, 0] + 1) * 127.5).round().int() for image in pair] for pair in squares.seen]
    first, second = (torch.cat(side) for side in zip(*levels, strict=True))
    assert len({*first.tolist(), *second.tolist()}) == 200
    assert (second - first).abs().float().mean() == pytest.approx(67, abs=15)  # neighbours would give 1
    want = [3 * 64 * 64 * ((a - b) / 127.5) ** 2 for a, b in zip(first.tolist(), second.tolist(), strict=True)]
    assert value == pytest.approx(statistics.mean(want), rel=1e-5)
    assert error == pytest.approx(statistics.stdev(want) / 10, rel=1e-5)


def test_the_name_of_a_diversity_states_its_pairs():
    assert LPIPSDiversity(pairs=50).count(50_000) == 50 and LPIPSDiversity().count(50_000) == 1000


@pytest.mark.parametrize(("shape", "seen"), [((8, 8), (64, 64)), ((32, 48), (64, 96)), ((70, 68), (70, 68))])
def test_small_images_are_enlarged_to_64_pixels_for_lpips(squares, shape, seen):
    images = torch.randint(256, (4, 1, *shape), dtype=torch.uint8)
    diversity(images, pairs=2)
    a = squares.seen[0][0]
    assert a.shape == (2, 3, *seen)
    assert a.min() >= -1 - 1e-6 and a.max() <= 1 + 1e-6


def test_diversity_is_reproducible_and_preserves_the_global_rng_state(squares):
    images = torch.randint(256, (50, 3, 8, 8), dtype=torch.uint8)
    before = torch.get_rng_state()
    first = diversity(images, pairs=10)
    assert torch.equal(torch.get_rng_state(), before)
    assert diversity(images, pairs=10) == first != diversity(images, pairs=10, seed=1)


# Similarity within a class


def similarity(fake, labels, real=None, **settings):
    states = {side: {"images.rows": x, "labels.rows": labels} for side, x in (("fake", fake), ("real", real))}
    states["real"]["images.rows"] = fake if real is None else real
    return ClassSimilarity(**settings).compute(states)


def test_ms_ssim_compares_only_images_within_a_class():
    """Images of class 0 are equal, those of class 1 differ, and no two of different classes are alike."""
    noise = torch.randint(256, (20, 1, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(20) % 2
    images = torch.where(labels.view(-1, 1, 1, 1) == 0, noise[:1], noise)
    alike, _ = similarity(images[labels == 0], labels[labels == 0], pairs=8)["ms_ssim"]
    others, _ = similarity(images[labels == 1], labels[labels == 1], pairs=8)["ms_ssim"]
    both, error = similarity(images, labels, pairs=8)["ms_ssim"]
    assert alike == pytest.approx(1) and others < 0.3
    assert both == pytest.approx((1 + others) / 2) and error == pytest.approx((1 - others) / 2)


def test_ms_ssim_matches_torchmetrics_on_enlarged_images():
    """Two images form one pair; the similarity of the reals is reported, too."""
    noise = torch.Generator().manual_seed(0)
    real = torch.randint(256, (2, 3, 24, 16), dtype=torch.uint8, generator=noise)
    fake = torch.stack([real[0], (real[0] * 0.7).byte()])
    found = similarity(fake, torch.zeros(2, dtype=torch.long), real, pairs=3)
    for (value, error), images in zip(found.values(), (fake, real), strict=True):
        one, other = interpolate(images.float(), (264, 176), mode="bilinear").split(1)
        metric = MultiScaleStructuralSimilarityIndexMeasure(data_range=255.0)
        assert value == pytest.approx(metric(one, other).item(), abs=1e-4) and error == 0
    assert found["ms_ssim"][0] > found["ms_ssim_of_reals"][0]


def test_ms_ssim_pairs_are_distinct_images_drawn_from_the_seed(monkeypatch):
    seen = []

    def distance(one, other, data_range, reduction):
        seen.append((one[:, 0, 0, 0], other[:, 0, 0, 0]))
        return (one[:, 0, 0, 0] - other[:, 0, 0, 0]).abs()

    module = "torchmetrics.functional.image.multiscale_structural_similarity_index_measure"
    monkeypatch.setattr(module, distance)
    images = torch.arange(5, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 200, 200)
    labels = torch.zeros(5, dtype=torch.long)
    first, again, other = (similarity(images, labels, seed=seed)["ms_ssim"] for seed in (0, 0, 1))
    assert first == again != other
    one, two = (torch.cat(side) for side in zip(*seen[:2], strict=True))
    assert len(one) == 100 and (one != two).all()
    assert {*one.tolist()} == {*two.tolist()} == {0, 1, 2, 3, 4}


def test_a_class_of_one_image_is_refused():
    with pytest.raises(ValueError, match="ms_ssim: class 3 has fewer than 2 images"):
        similarity(torch.zeros(1, 1, 8, 8, dtype=torch.uint8), torch.tensor([3]))


# Networks


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """An empty folder of weights, offline; `hub(content)` saves the file that torchvision's AlexNet loads."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    perceptual.network.cache_clear()

    def offline(*args, **kwargs):
        raise URLError("Name or service not known")

    def put(content, digest=None):
        folder = tmp_path / "hub/checkpoints"
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(content, folder / "new")
        digest = digest or hashlib.sha256((folder / "new").read_bytes()).hexdigest()[:8]
        file = (folder / "new").rename(folder / f"alexnet-{digest}.pth")
        weights = torchvision.models.AlexNet_Weights.DEFAULT.value
        monkeypatch.setattr(weights, "url", f"https://example.invalid/{file.name}")
        return file

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    yield put
    perceptual.network.cache_clear()


def random_alexnet():
    """A state_dict with random features; the classifier, unused by LPIPS, is expanded zeros, which take no space."""
    with torch.device("meta"):
        shapes = torchvision.models.alexnet().state_dict()
    generator = torch.Generator().manual_seed(0)
    return {
        key: torch.randn(value.shape, generator=generator) * (value[0].numel() ** -0.5 if value.ndim > 1 else 0.1)
        if key.startswith("features")
        else torch.zeros(()).expand(value.shape)
        for key, value in shapes.items()
    }


def test_diversity_matches_the_formula_of_lpips(hub, monkeypatch):
    """Zhang et al. 2018, eq. 1, from torchvision's layers, ImageNet's statistics and the fitted weights."""
    state = random_alexnet()
    monkeypatch.setattr(perceptual, "tensors", lambda path, url: None)  # it refuses expanded zeros
    hub(state)
    LPIPSDiversity(pairs=4).check(given())
    net = perceptual.network("alex")
    assert not net.training and not any(parameter.requires_grad for parameter in net.parameters())

    images = torch.randint(256, (8, 3, 64, 64), dtype=torch.uint8)
    value, _ = diversity(images, pairs=4)
    features = torchvision.models.alexnet().features
    features.load_state_dict({key.removeprefix("features."): t for key, t in state.items() if "features" in key})
    mean, std = (torch.tensor(t).view(3, 1, 1) for t in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    order = torch.randperm(8, generator=torch.Generator().manual_seed(mix(0)))
    x, want = (images[order] / 255 - mean) / std, 0
    with torch.no_grad():
        for i, layer in enumerate(features):
            x = layer(x)
            if i in (1, 4, 7, 9, 11):
                unit = x / x.norm(dim=1, keepdim=True)
                w = net.lins[(1, 4, 7, 9, 11).index(i)].model[-1].weight.view(-1, 1, 1)
                want = want + (w * (unit[:4] - unit[4:]) ** 2).sum(1).mean((1, 2))
    assert value == pytest.approx(want.mean().item(), rel=1e-4)
    assert diversity(images[:1].expand(8, -1, -1, -1), pairs=4) == (0, 0)
    grey = images[:, :1]
    assert diversity(grey, pairs=4) == diversity(grey.repeat(1, 3, 1, 1), pairs=4)


def test_ppl_of_a_gan_with_lpips(monkeypatch):
    torch.manual_seed(0)
    net = _NoTrainLpips(net="alex", pnet_rand=True)
    monkeypatch.setattr(perceptual, "network", lambda name: net)
    model = ganzoo.DCGAN(image_size=8, channels=1, width=8)
    training = [module.training for module in model.modules()]
    value, error = ppl(model, pairs=70, resize=64)
    assert value > error > 0
    assert [module.training for module in model.modules()] == training
    nn.init.zeros_(model.generator.project.weight)  # the image does not depend on the latent
    assert ppl(model, pairs=70, resize=64) == (0, 0)


@pytest.mark.parametrize(
    ("metric", "name"), [(PPL(), "vgg16-397923af.pth"), (LPIPSDiversity(), "alexnet-owt-7be5be79.pth")]
)
def test_missing_weights_raise_a_one_line_error_before_computing(hub, tmp_path, metric, name):
    with pytest.raises(FileNotFoundError) as caught:
        metric.check(given())
    message = str(caught.value)
    assert "\n" not in message and "Name or service not known" in message
    assert str(tmp_path / "hub/checkpoints" / name) in message
    assert f"save https://download.pytorch.org/models/{name} as " in message


class Payload:
    """Creates a file when unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def test_code_in_a_weights_file_is_not_executed(hub, tmp_path):
    hub({"features.0.weight": Payload(tmp_path / "ran")})
    with pytest.raises(ValueError, match="is not a file of tensors"):
        perceptual.network("alex")
    assert not (tmp_path / "ran").exists()


def test_weights_with_a_wrong_hash_are_refused(hub):
    file = hub({"features.0.weight": torch.zeros(1)}, digest="7be5be79")
    for content in (file.read_bytes(), file.read_bytes()[:100]):  # as after an interrupted download
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"is damaged or a different file: its sha256 is \w+..., not 7be5be79"):
            perceptual.network("alex")


@pytest.mark.parametrize(
    ("metric", "facts", "message"),
    [
        (PPL(), given(model=False), "ppl needs a generator, but these are files"),
        (PPL(), given(channels=2), "these have 2 channels"),
        (LPIPSDiversity(), given(channels=2), "these have 2 channels"),
        (LPIPSDiversity(), given(fakes=1999), "of 1000 pairs needs 2000 fakes, but there are 1999"),
    ],
)
def test_unsupported_input_is_refused_by_check(squares, metric, facts, message):
    with pytest.raises(ValueError, match=message):
        metric.check(facts)


def test_the_default_protocol_of_path_lengths():
    assert PPL() == PPL(pairs=10_000, epsilon=1e-4, net="vgg", interpolation="lerp", resize=64, seed=0)
