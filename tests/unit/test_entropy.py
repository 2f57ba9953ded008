"""Inception Score and EBGAN's score against closed forms, loops and torch-fidelity."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, rel_entr, softmax
from torch_fidelity.metric_isc import isc_features_to_metric

from ganzoo.functional.entropy import SplitEntropy, ebgan_score


def inception_score(logits, splits=10):
    """Mean and standard deviation over the splits, with all images in one update."""
    state = SplitEntropy(len(logits), splits)
    state.update(logits)
    return state.compute()


def logits(n=103, k=7, seed=0):
    return 3 * torch.randn(n, k, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("sharpness", [1e2, 1e4])  # softmax has exact zeros
def test_confident_balanced_predictions_score_the_number_of_classes(sharpness):
    mean, std = inception_score(torch.eye(7).repeat(20, 1) * sharpness, splits=1)
    assert mean == pytest.approx(7, rel=1e-12) and std == pytest.approx(0, abs=1e-12)


def test_a_class_of_probability_zero_does_not_change_the_score():
    absent = torch.cat([logits(100), torch.full((100, 2), -1e5)], 1)  # p and its mean are 0
    assert inception_score(absent) == pytest.approx(inception_score(logits(100)), rel=1e-12)
    assert math.isfinite(ebgan_score(absent))


def test_identical_predictions_score_one():
    assert inception_score(logits(1).expand(50, 7), splits=5) == pytest.approx((1, 0), abs=1e-12)


@pytest.mark.parametrize(("n", "splits"), [(103, 10), (23, 10), (100, 10), (50, 1), (10, 10)])
def test_inception_score_agrees_with_torch_fidelity(n, splits):
    theirs = isc_features_to_metric(logits(n), splits=splits)
    expected = (theirs["inception_score_mean"], theirs["inception_score_std"])
    assert inception_score(logits(n), splits) == pytest.approx(expected, rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("batch", [1, 3, 10, 64, 103])
def test_the_score_does_not_depend_on_the_batches(batch):
    state = SplitEntropy(103)
    for part in logits().split(batch):
        state.update(part)
    assert state.compute() == pytest.approx(inception_score(logits()), rel=1e-12)


@pytest.mark.parametrize("arrange", [lambda x: x.repeat_interleave(200, 0), lambda x: x.repeat(200, 1)])
def test_images_may_be_sorted_by_class_or_have_each_class_in_turn(arrange):
    """In ten splits in order, or of every tenth image, one of them would score 1."""
    mean, std = inception_score(arrange(1e2 * torch.eye(10)))
    assert 9.5 < mean < 10 and std < 0.2


def test_inception_score_lies_between_one_and_the_number_of_classes():
    for scale in (0.0, 0.1, 1.0, 10.0):
        mean, std = inception_score(logits() * scale)
        assert 1 - 1e-12 <= mean <= 7 and (std > 1e-6) == (mean > 1 + 1e-6) == (scale > 0)


def test_memory_does_not_grow_with_the_number_of_images():
    state = SplitEntropy(10_000)
    state.update(logits(1000))
    before = {name: value.numel() for name, value in vars(state).items() if torch.is_tensor(value)}
    state.update(logits(9000))
    after = {name: value.numel() for name, value in vars(state).items() if torch.is_tensor(value)}
    assert before == after and sum(after.values()) == 10 * 7 + 10 + 10_000


def test_the_ebgan_score_is_the_mean_divergence_from_the_marginal():
    p = softmax(logits().double().numpy(), axis=1)
    expected = np.mean([rel_entr(p.mean(0), row).sum() for row in p])
    assert ebgan_score(logits()) == pytest.approx(expected, rel=1e-10)
    assert ebgan_score(logits(1).expand(9, 7)) == pytest.approx(0, abs=1e-12)


def test_the_ebgan_score_is_finite_where_p_underflows():
    """q = 1/2, log p = (0, -2000) or (-2000, 0): KL(q || p) = -log 2 + 1000."""
    assert ebgan_score(torch.tensor([[0.0, -2000.0], [-2000.0, 0.0]])) == pytest.approx(1000 - math.log(2))


def test_the_ebgan_score_matches_loops_over_log_softmax():
    log_p = log_softmax(logits().double().numpy(), axis=1)
    q = np.exp(log_p).mean(0)
    loops = [sum(q[k] * (math.log(q[k]) - row[k]) for k in range(7)) for row in log_p]
    assert ebgan_score(logits()) == pytest.approx(np.mean(loops), rel=1e-10)


def test_invalid_input_is_refused():
    with pytest.raises(ValueError, match="10 splits needs n >= 10"):
        inception_score(logits(9))
    with pytest.raises(ValueError, match="n >= 1, d"):
        inception_score(logits(9)[:0])
    state = SplitEntropy(100)
    state.update(logits(60))
    with pytest.raises(ValueError, match="only 60"):
        state.compute()
    with pytest.raises(ValueError, match="120 rows"):
        state.update(logits(60))
    for score in (inception_score, ebgan_score):
        with pytest.raises(ValueError, match="non-finite features"):
            score(logits().log())
