"""EQ-T, EQ-T_frac and EQ-R as metrics: protocol of the draws, errors, refusals, and the command."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import ganzoo
from ganzoo.__main__ import main
from ganzoo.checkpoint.pretrained import save_pretrained
from ganzoo.core.random import mix
from ganzoo.evaluation import equivariance
from ganzoo.evaluation.equivariance import EQR, EQTFrac, EQTInt
from ganzoo.evaluation.interfaces import Given
from tests.variants import small

ALL = (EQTInt, EQTFrac, EQR)
SIDE = 32


class Wave:
    """Images [N, 1, 32, 32] of a wave with a phase z, moved by a share of what is asked."""

    device, num_classes, follows = torch.device("cpu"), None, 1.0

    def __init__(self):
        self.seen, self.labels = [], []

    def trained_labels(self):
        return [0, 2] if self.num_classes else []

    def latent(self, n, generator=None):
        return torch.rand(n, 1, generator=generator)

    def moved(self, z, given, transforms):
        self.seen.append(transforms)
        self.labels.append(given.get("label"))
        transforms = torch.lerp(torch.eye(3), transforms, self.follows).double()
        at = (torch.arange(SIDE) + 0.5).double() / SIDE - 0.5
        y, x = torch.meshgrid(at, at, indexing="ij")
        points = torch.stack([x, y, torch.ones_like(x)]).flatten(1)
        x, y, _ = (transforms @ points).unflatten(2, (SIDE, SIDE)).unbind(1)
        return torch.cos(2 * math.pi * (4 * x + 2 * y + z[:, :, None].double()))[:, None]


def score(metric, model=None, **settings):
    ((value, error),) = metric(**{"latents": 70, **settings}).compute({"fake": {"model": model or Wave()}}).values()
    return value, error


def still():
    model = Wave()
    model.follows = 0.0
    return model


@pytest.mark.parametrize(("metric", "best"), [(EQTInt, 110), (EQTFrac, 50), (EQR, 50)])
def test_a_generator_that_follows_its_input_scores_high_and_another_low(metric, best):
    assert score(metric, latents=10)[0] > best and score(metric, still(), latents=10)[0] < 10


def test_moves_are_the_papers(monkeypatch):
    """Uniform up to an eighth of the image to each side, rounded for `eqt_int`; angles over the whole circle."""
    for name in ("translation_squares", "rotation_squares"):
        monkeypatch.setattr(equivariance, name, lambda still, moved, **_: torch.ones(1, 1))
    moves = {}
    for metric in ALL:
        model = Wave()
        score(metric, model, latents=500)
        assert torch.equal(model.seen[0], torch.eye(3).expand(64, 3, 3))
        moves[metric] = torch.cat(model.seen[1::2])
    whole, parts = (-SIDE * moves[metric][:, :2, 2] for metric in (EQTInt, EQTFrac))
    assert torch.equal(whole, parts.round()) and not torch.equal(whole, parts)
    for axis in (0, 1):
        assert whole[:, axis].unique().tolist() == list(range(-4, 5))
        assert parts[:, axis].abs().max() < 4 and parts[:, axis].std() == pytest.approx(8 / 12**0.5, rel=0.05)
    assert parts.T.corrcoef()[0, 1].abs() < 0.1
    turns = torch.atan2(moves[EQR][:, 0, 1], moves[EQR][:, 0, 0]) / (2 * math.pi) % 1
    assert turns.histc(10, 0, 1).min() > 30  # 50 expected


def test_the_figure_and_its_error_are_those_of_the_mean_square_over_all_valid_pixels():
    """A still wave: the error of a shift is that of a wave against the moved one. The deviation of the mean of squares,
    of which latents have different numbers, is that of a ratio of sums."""
    metric, model = EQTInt(latents=70, moves=2), still()
    value, error = score(EQTInt, model, moves=2)
    draw = torch.Generator().manual_seed(mix(0))
    image = still().moved(model.latent(70, draw), {}, torch.eye(3).expand(70, 3, 3))
    draws = torch.rand(70, 2, 2, generator=draw, dtype=torch.float64)
    squares = []
    for one, pairs in zip(image[:, 0], draws, strict=True):
        of_latent = []
        for dx, dy in ((pairs * 2 - 1) * SIDE / 8).round().int().tolist():
            a = one[max(0, dy) : SIDE + min(0, dy), max(0, dx) : SIDE + min(0, dx)]
            b = one[max(0, -dy) : SIDE - max(0, dy), max(0, -dx) : SIDE - max(0, dx)]
            of_latent.append((a - b).square().flatten())
        squares.append(torch.cat(of_latent))
    mean = torch.cat(squares).mean()
    assert value == pytest.approx(10 * math.log10(4 / mean))
    sums, counts = torch.stack([s.sum() for s in squares]), torch.tensor([len(s) for s in squares])
    assert len(counts.unique()) > 10
    left_out = [(sums.sum() - s) / (counts.sum() - n) for s, n in zip(sums, counts, strict=True)]  # jackknife
    deviation = (69 / 70 * (torch.stack(left_out) - mean).square().sum()).sqrt()
    ends = [10 * math.log10(4 / (mean + k * deviation)) for k in (-0.01, 0.01)]
    assert error == pytest.approx((ends[0] - ends[1]) / 0.02, rel=0.02)
    assert metric.count(12) == 70


@pytest.mark.parametrize("metric", ALL)
def test_the_score_depends_on_the_seed_but_on_no_batch_size(metric, monkeypatch):
    torch.manual_seed(7)
    before, first = torch.get_rng_state(), score(metric, still(), latents=9)
    assert torch.equal(torch.get_rng_state(), before)
    monkeypatch.setattr(equivariance, "BLOCK", 4)
    assert score(metric, still(), latents=9) == pytest.approx(first)
    assert score(metric, still(), latents=9, seed=1) != pytest.approx(first)


def test_classes_are_drawn_uniformly_from_those_with_images():
    model = Wave()
    model.num_classes = 3
    score(EQTInt, model, latents=200)
    still_, moved = torch.cat(model.labels[::2]), torch.cat(model.labels[1::2])
    assert torch.equal(still_, moved)
    assert still_.unique().tolist() == [0, 2] and 70 < (still_ == 2).sum() < 130


def test_a_constant_and_a_single_latent_have_no_error(monkeypatch):
    monkeypatch.setattr(Wave, "moved", lambda self, z, given, transforms: torch.zeros(len(z), 1, SIDE, SIDE))
    assert score(EQTInt) == (math.inf, None)
    monkeypatch.undo()
    assert score(EQR, still(), latents=1)[1] is None


def test_a_diverged_generator_is_refused(monkeypatch):
    monkeypatch.setattr(Wave, "moved", lambda self, z, *_: torch.full((len(z), 1, SIDE, SIDE), math.nan))
    with pytest.raises(ValueError, match="images are not finite"):
        score(EQTFrac)


@pytest.mark.parametrize("metric", ALL)
def test_what_has_no_equivariance_is_refused_by_check(metric):
    facts = {"sizes": {}, "channels": 1, "image_size": (16, 16), "extractor": None, "num_classes": None}
    metric().check(Given(**facts, model=True, moves=True))
    assert metric() == metric(latents=1000, moves=1, seed=0) and metric().count(5) == 1000
    for wrong, words in {
        "model": "needs a generator, but these are files",
        "moves": f"{metric.name} moves the generator's input, which no other variant than StyleGAN3 allows; evaluate a",
    }.items():
        with pytest.raises(ValueError, match=words):
            metric().check(Given(**facts, **{"model": True, "moves": True, wrong: False}))
    with pytest.raises(ValueError, match="without truncation"):
        metric().check(Given(**facts, model=True, moves=True, truncated=True))
    if metric is EQR:
        with pytest.raises(ValueError, match="squares of 16 pixels or more, but these images are 16x32"):
            metric().check(Given(**{**facts, "image_size": (16, 32)}, model=True, moves=True))


def test_stylegan3_on_the_command_line_and_its_record(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    gan, other = ganzoo.StyleGAN3(**small("StyleGAN3")), ganzoo.StyleGAN2(**small("StyleGAN2"))
    for model, name in ((gan, "three"), (other, "two")):
        model.configure_model()
        save_pretrained(model, Path(name))
    np.save("reals.npy", np.zeros((64, 16, 16, 1), np.uint8))
    np.save("small.npy", np.zeros((64, 8, 8, 1), np.uint8))
    settings = "latents=8:moves=2:seed=1"
    names = ",".join(f"{name}:{settings}" for name in ("eqt_int", "eqt_frac", "eqr"))
    assert main(f"evaluate three reals.npy --metrics {names} -n 64 --json a.json".split()) == 0
    found = {found["figure"]: found for found in json.loads(Path("a.json").read_text())["scores"]}
    for metric in ALL:
        of = found[metric.name]
        expected = metric(latents=8, moves=2, seed=1).compute({"fake": {"model": gan.eval()}})[metric.name]
        assert (of["value"], of["error"]) == pytest.approx(expected, rel=1e-4)
        assert of["name"] == f"{metric.name}_8" and of["better"] == "higher"
        assert of["protocol"]["settings"] == {"latents": 8, "moves": 2, "seed": 1} and of["protocol"]["fakes"] == 8
        assert "data" not in of["protocol"]
    assert "eqr_8" in capsys.readouterr().out
    monkeypatch.setattr(ganzoo.StyleGAN2, "generate", lambda self, z, given=None: torch.zeros(len(z), 1, 8, 8))
    assert main(["evaluate", "two", "small.npy", "--metrics", "fid,eqr", "--extractor", "digits"]) == 2
    refusal = "eqr moves the generator's input, which no other variant than StyleGAN3 allows; evaluate a StyleGAN3, or"
    error = capsys.readouterr().err
    assert refusal in error and error.count("\n") == 1
