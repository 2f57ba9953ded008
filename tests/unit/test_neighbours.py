"""Nearest-neighbour scores against brute force, closed forms and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu
from sklearn.neighbors import NearestNeighbors

from ganzoo.functional import neighbours
from ganzoo.functional.neighbours import authenticity, copying, density_coverage, precision_recall


def features(n, d=4, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def grid(n, seed=0):
    """Points with integer coordinates, many of them repeated: distances are exact, with ties."""
    return torch.randint(0, 6, (n, 2), generator=torch.Generator().manual_seed(seed)).double()


class Loops:
    """The definitions as loops over points, in Python floats."""

    def __init__(self, real, fake, k):
        self.real, self.fake, self.k = real.tolist(), fake.tolist(), k

    def squared(self, a, b):
        return sum((p - q) ** 2 for p, q in zip(a, b, strict=True))

    def radius(self, points, i, k):
        return sorted(self.squared(points[i], p) for j, p in enumerate(points) if j != i)[k - 1]

    def share_inside(self, points, centres):
        radii = [self.radius(centres, i, self.k) for i in range(len(centres))]
        inside = [any(self.squared(p, c) <= r for c, r in zip(centres, radii, strict=True)) for p in points]
        return sum(inside) / len(points)

    def precision_recall(self):
        return self.share_inside(self.fake, self.real), self.share_inside(self.real, self.fake)

    def density_coverage(self):
        radii = [self.radius(self.real, i, self.k) for i in range(len(self.real))]
        balls = [[self.squared(c, f) < r for f in self.fake] for c, r in zip(self.real, radii, strict=True)]
        density = sum(map(sum, balls)) / (self.k * len(self.fake))
        return density, sum(map(any, balls)) / len(self.real)

    def authenticity(self):
        """Ties for the nearest training point go to the one whose own neighbour is nearest, or else farthest."""
        shares = []
        for choose in (min, max):
            count = 0
            for f in self.fake:
                nearest = min(self.squared(f, t) for t in self.real)
                which = [i for i, t in enumerate(self.real) if self.squared(f, t) == nearest]
                count += nearest > choose(self.radius(self.real, i, 1) for i in which)
            shares.append(count / len(self.fake))
        return shares


@pytest.mark.parametrize("block", [7, 256])
@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("points", [features, grid])
def test_scores_match_their_definitions(points, k, block, monkeypatch):
    monkeypatch.setattr(neighbours, "BLOCK", block)
    real, fake = points(40), points(31, seed=1) * 1.5
    loops = Loops(real, fake, k)
    for offset in (0, 0.1):  # 0.1 is not exact in binary; ties must remain ties
        assert precision_recall(real + offset, fake + offset, k) == pytest.approx(loops.precision_recall())
        assert density_coverage(real + offset, fake + offset, k) == pytest.approx(loops.density_coverage())
        most, least = loops.authenticity()
        assert least <= authenticity(real + offset, fake + offset) <= most


@pytest.mark.parametrize("n", [30, 600])
def test_a_set_against_itself_has_perfect_scores(n):
    x = features(n, 16)
    for y in (x, x.flip(0)):
        assert precision_recall(x, y) == (1, 1)
        assert density_coverage(x, y) == (1, 1)
        assert authenticity(x, y) == 0


def test_collapsed_fakes_have_precision_1_and_recall_near_0():
    real = features(200)
    fake = real[:1].expand(100, 4)
    assert precision_recall(real, fake) == (1, 1 / 200)  # only the real that all fakes copy
    fake = fake + 1e-3
    assert precision_recall(real, fake) == (1, 0)
    assert density_coverage(real, fake)[1] < 0.1


def test_distant_sets_do_not_overlap():
    x = features(100)
    assert precision_recall(x, x + 100) == (0, 0)
    assert density_coverage(x, x + 100) == (0, 0)
    assert authenticity(x, x + 100) == 1


def test_open_balls_of_radius_0_are_empty():
    """With k + 1 copies of each point, radii are 0: closed balls contain the copies, open balls nothing."""
    x = features(20).repeat(4, 1) + 1e3
    assert precision_recall(x, x, k=3) == (1, 1)
    assert density_coverage(x, x, k=3) == (0, 0)


def test_coverage_of_equal_distributions_matches_its_closed_form():
    """1 - prod_{i=1..k} (n - i) / (n + m - i); the product is the probability that a ball contains no fake."""
    n, m, k = 60, 90, 5
    expected = 1 - math.prod((n - i) / (n + m - i) for i in range(1, k + 1))
    values = [density_coverage(features(n, 2, seed), features(m, 2, 1000 + seed), k) for seed in range(200)]
    density, coverage = np.mean(values, axis=0)
    assert coverage == pytest.approx(expected, abs=4 * np.std(values, axis=0)[1] / math.sqrt(200))
    assert density == pytest.approx(1, abs=4 * np.std(values, axis=0)[0] / math.sqrt(200))


def test_copies_are_not_authentic():
    train = features(100)
    fake = torch.cat([train[:30], train[30:60] + 1e-9, features(40) + 50])
    assert authenticity(train, fake) == 0.4
    line = torch.tensor([[0.0], [1.0], [4.0]]).double() + 0.1
    fake = torch.tensor([[-1.0], [-1.1], [6.9], [7.2]]).double() + 0.1  # the first is at the distance of 0's neighbour
    assert authenticity(line, fake) == 0.5


@pytest.mark.parametrize("offset", [0, 1e4])
@pytest.mark.parametrize("points", [features, grid])
def test_copying_matches_scipys_mann_whitney_test(points, offset):
    train, held_out, fake = points(50), points(33, seed=1), points(41, seed=2)
    to_train = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(train.numpy())
    held_distance, fake_distance = (to_train.kneighbors(x.numpy())[0].ravel().round(9) for x in (held_out, fake))
    expected = mannwhitneyu(
        held_distance, fake_distance, alternative="greater", method="asymptotic", use_continuity=False
    )
    probability, z = copying(train + offset, held_out + offset, fake + offset)
    assert probability == pytest.approx(expected.statistic / (33 * 41))
    assert math.erfc(z / math.sqrt(2)) / 2 == pytest.approx(expected.pvalue)


def test_copying_is_1_for_copies_and_one_half_for_new_samples():
    train, held_out = features(200), features(200, seed=1)
    assert copying(train, held_out, train)[0] == 1
    assert copying(train, held_out, train)[1] > 15
    assert copying(train, held_out, held_out) == pytest.approx((0.5, 0))
    assert copying(train, held_out, held_out + 100)[0] == 0
    assert copying(train, held_out, held_out + 100)[1] < -15
    probability, z = copying(train, held_out, features(200, seed=2))
    assert abs(probability - 0.5) < 0.1 and abs(z) < 3
    assert copying(train, train, train) == (0.5, 0)  # all distances are 0


def test_scores_of_float32_far_from_zero_equal_those_of_float64():
    """At mean 1e4, float32 has steps of 1/1024; the same values in float64 give the same scores."""
    x, y = ((features(80, 16, s) + 1e4).float() for s in (0, 1))
    near_x, near_y = (v.double() - 1e4 for v in (x, y))
    assert precision_recall(x, y) == precision_recall(near_x, near_y)
    assert density_coverage(x, y) == density_coverage(near_x, near_y)
    assert authenticity(x, y) == authenticity(near_x, near_y)


def test_distances_are_accurate_far_from_zero():
    x, y = features(50, 16) + 1e6, features(60, 16, seed=1) + 1e6
    a, b = neighbours._centred(x, y)
    ours = torch.cat([distances for _, distances in neighbours._blocks(a, b)])
    torch.testing.assert_close(ours.double(), (x[:, None] - y).square().sum(2), rtol=1e-6, atol=0)


def test_impossible_input_is_refused_in_one_line():
    x = features(10)
    for score in (precision_recall, density_coverage):
        with pytest.raises(ValueError, match="k = 10 neighbours need more than 10 rows of features, not 10"):
            score(x, x, k=10)
    with pytest.raises(ValueError, match="k = 1 neighbours need"):
        authenticity(x[:1], x)
    with pytest.raises(ValueError, match="non-finite features"):
        precision_recall(x, x.log())
    with pytest.raises(ValueError, match="same number of features"):
        precision_recall(x, x[:, :3])
    with pytest.raises(ValueError, match="n >= 1"):
        copying(x, x, x[:0])
