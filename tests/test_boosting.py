"""Self-supervised boosting: the field's algebra by enumeration, and digits against a logistic adversary."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from ganzoo.games.boosting import RBM, boost, classify, contrastive_divergence

STATES = torch.tensor(list(itertools.product([0.0, 1.0], repeat=4)), dtype=torch.float64)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def field(units, seed=0):
    weights = torch.randn(4 * units + units + 4, generator=seeded(seed), dtype=torch.float64)
    weight, hidden, visible = weights.split([4 * units, units, 4])
    return RBM(weight.view(units, 4), hidden, visible)


def probabilities(rbm):
    return rbm.log_density(STATES).softmax(0)


def drawn(p, n, generator):
    return STATES[torch.multinomial(p, n, replacement=True, generator=generator)]


def frequencies(x):
    index = (x @ torch.tensor([8.0, 4.0, 2.0, 1.0], dtype=torch.float64)).long()
    return torch.bincount(index, minlength=16) / len(x)


def test_the_density_is_the_joint_ones_with_its_units_summed_out():
    rbm = field(3)
    units = torch.tensor(list(itertools.product([0.0, 1.0], repeat=3)), dtype=torch.float64)
    joint = STATES @ rbm.visible[:, None] + STATES @ rbm.weight.T @ units.T + units @ rbm.hidden
    torch.testing.assert_close(rbm.log_density(STATES), joint.logsumexp(1))


def test_gibbs_sampling_draws_from_the_field():
    rbm = field(3)
    assert (frequencies(rbm.draw(100_000, 20, seeded())) - probabilities(rbm)).abs().max() < 0.006


def test_adding_the_optimal_logit_gives_the_data():
    """p_data has two units more than the field: the classifier with two units finds their log ratio."""
    model, extra = field(1), field(2, seed=1)
    target = probabilities(model.plus(extra))
    data, fantasies = drawn(target, 20_000, seeded()), drawn(probabilities(model), 20_000, seeded(1))
    d = classify(data, fantasies, 2, decay=1e-5, generator=seeded(2))
    before = (probabilities(model) - target).abs().sum()
    assert (probabilities(model.plus(d.feature)) - target).abs().sum() < 0.03 < 0.3 < before
    after = drawn(probabilities(model.plus(d.feature)), 20_000, seeded(3))
    again = classify(data, after, 2, decay=1e-5, generator=seeded(2))
    assert again.loss(data, after).item() == pytest.approx(math.log(2), abs=1e-3)


def test_contrastive_divergence_with_long_chains_is_the_likelihoods_gradient():
    rbm, target = field(2), probabilities(field(2, seed=1))
    weights = RBM(*(w.clone().requires_grad_() for w in rbm))
    likelihood = (target * weights.log_density(STATES).log_softmax(0)).sum()
    exact = torch.autograd.grad(likelihood, list(weights))
    data = drawn(target, 200_000, seeded())
    moved, _ = contrastive_divergence(rbm, data, rbm.draw(200_000, 10, seeded(1)), lr=1.0, steps=10)
    for before, after, slope in zip(rbm, moved, exact, strict=True):
        assert (after - before - slope).abs().max() < 0.01


def digits():
    """1,400 and 397 digits of scikit-learn's, each pixel black or white."""
    from sklearn.datasets import load_digits

    x = torch.from_numpy(load_digits().images > 7).double().flatten(1)
    x = x[torch.randperm(len(x), generator=seeded())]
    return x[:1400], x[1400:]


def adversary(rbm, data, held_out):
    """Held-out loss of a new logistic classifier with 20 units against new fantasies."""
    fantasies = rbm.draw(len(data) + len(held_out), 500, seeded(9))
    d = classify(data, fantasies[: len(data)], 20, generator=seeded(9))
    return d.loss(held_out, fantasies[len(data) :]).item()


def test_the_adversarys_loss_rises_toward_log_2_as_features_are_added():
    data, held_out = digits()
    losses = [loss for _, loss in itertools.islice(boost(data[:1000], held_out, steps=50, generator=seeded()), 4)]
    assert losses[0] < 0.5 and losses[-1] > losses[0] + 0.1 and losses[-1] < math.log(2)


@pytest.mark.slow
def test_boosting_leaves_the_adversary_nothing_to_tell():
    """Of a weak adversary, the one that boosts, nothing is left; a stronger one still tells some."""
    data, held_out = digits()
    rounds = list(itertools.islice(boost(data, held_out, steps=200, generator=seeded()), 30))
    rbm, losses = rounds[-1][0], [loss for _, loss in rounds]
    start, end = (adversary(one, data, held_out) for one in (RBM.of_pixels(data), rbm))
    assert sum(losses[-5:]) / 5 == pytest.approx(math.log(2), abs=0.02)
    assert start < 0.3 and start + 0.2 < end < math.log(2)


@pytest.mark.slow
def test_the_adversarys_loss_rises_as_an_rbm_learns_by_contrastive_divergence():
    data, held_out = digits()
    generator = seeded()
    rbm = RBM.of_pixels(data, 64, generator)
    chains, losses = rbm.draw(100, 0, generator), [adversary(rbm, data, held_out)]
    for epochs, lr in [(30, 0.05), (30, 0.05), (60, 0.01)]:
        for _ in range(epochs):
            for batch in data[torch.randperm(len(data), generator=generator)].split(100):
                rbm, chains = contrastive_divergence(rbm, batch, chains, lr, generator=generator)
        losses.append(adversary(rbm, data, held_out))
    assert losses[0] < 0.3 and losses[-1] > losses[0] + 0.1 and max(losses) < math.log(2)
