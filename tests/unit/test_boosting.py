"""Self-supervised boosting: the RBM's algebra by enumeration, and digits against a logistic adversary."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from ganzoo.games.boosting import RBM, boost, classify

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


def test_log_density_is_the_joint_density_summed_over_hidden_units():
    rbm = field(3)
    units = torch.tensor(list(itertools.product([0.0, 1.0], repeat=3)), dtype=torch.float64)
    joint = STATES @ rbm.visible[:, None] + STATES @ rbm.weight.T @ units.T + units @ rbm.hidden
    torch.testing.assert_close(rbm.log_density(STATES), joint.logsumexp(1))


def test_gibbs_samples_follow_the_density():
    rbm = field(3)
    assert (frequencies(rbm.draw(100_000, 20, seeded())) - probabilities(rbm)).abs().max() < 0.006


def test_adding_the_optimal_logit_recovers_the_data_distribution():
    """p_data has two hidden units more than the model; a classifier with two units learns the log density ratio."""
    model, extra = field(1), field(2, seed=1)
    target = probabilities(model.plus(extra))
    data, fantasies = drawn(target, 20_000, seeded()), drawn(probabilities(model), 20_000, seeded(1))
    d = classify(data, fantasies, 2, decay=1e-5, generator=seeded(2))
    before = (probabilities(model) - target).abs().sum()
    assert (probabilities(model.plus(d.feature)) - target).abs().sum() < 0.03 < 0.3 < before
    after = drawn(probabilities(model.plus(d.feature)), 20_000, seeded(3))
    again = classify(data, after, 2, decay=1e-5, generator=seeded(2))
    assert again.loss(data, after).item() == pytest.approx(math.log(2), abs=1e-3)


def digits():
    """scikit-learn's digits with binary pixels: 1,400 for training and 397 held out."""
    from sklearn.datasets import load_digits

    x = torch.from_numpy(load_digits().images > 7).double().flatten(1)
    x = x[torch.randperm(len(x), generator=seeded())]
    return x[:1400], x[1400:]


def adversary(rbm, data, held_out):
    """Held-out loss of a new logistic classifier with 20 units, data against new fantasies."""
    fantasies = rbm.draw(len(data) + len(held_out), 500, seeded(9))
    d = classify(data, fantasies[: len(data)], 20, generator=seeded(9))
    return d.loss(held_out, fantasies[len(data) :]).item()


def test_the_adversarys_loss_rises_toward_log_2_as_features_are_added():
    data, held_out = digits()
    losses = [loss for _, loss in itertools.islice(boost(data[:1000], held_out, steps=50, generator=seeded()), 4)]
    assert losses[0] < 0.5 and losses[-1] > losses[0] + 0.1 and losses[-1] < math.log(2)


@pytest.mark.slow
def test_boosting_brings_the_adversary_to_chance_level():
    """The weak adversary used for boosting ends at chance level; a stronger one stays above it."""
    data, held_out = digits()
    rounds = list(itertools.islice(boost(data, held_out, steps=200, generator=seeded()), 30))
    rbm, losses = rounds[-1][0], [loss for _, loss in rounds]
    start, end = (adversary(one, data, held_out) for one in (RBM.of_pixels(data), rbm))
    assert sum(losses[-5:]) / 5 == pytest.approx(math.log(2), abs=0.02)
    assert start < 0.3 and start + 0.2 < end < math.log(2)


def test_independent_pixels_have_smoothed_means():
    rbm = RBM.of_pixels(torch.tensor([[0.0, 1.0], [0.0, 1.0], [0.0, 0.0]]))
    assert rbm.visible.sigmoid().tolist() == pytest.approx([1 / 5, 3 / 5])
