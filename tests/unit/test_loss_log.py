"""Logged means of losses and terms, over batches, processes and resumes."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from ganzoo.core.loss_log import Loss, LossLog, Means


def test_a_loss_is_the_sum_of_its_terms():
    terms = {"real": torch.tensor(1.0, requires_grad=True), "fake": torch.tensor(2.5)}
    loss = Loss.of(terms, "discriminator")
    assert loss.total.item() == 3.5 and loss.total.requires_grad
    assert loss.names == ["real", "fake"] and loss.values.tolist() == [1.0, 2.5] and not loss.values.requires_grad
    alone = Loss.of({"fake": torch.tensor(2.0)}, "generator")
    assert alone.total.item() == 2.0 and alone.values.tolist() == [2.0]


def test_a_term_that_is_not_a_scalar_is_refused():
    with pytest.raises(MisconfigurationException, match=r"loss terms must be scalars, but 'b' has shape \[2\]"):
        Loss.of({"a": torch.tensor(1.0), "b": torch.ones(2)}, "generator")


def test_losses_and_terms_are_averaged_over_batches():
    log = LossLog()
    for a, b in ((1.0, 2.0), (3.0, 5.0)):
        log.observe("seen", torch.tensor(a), training=True)
        log.add("discriminator", Loss.of({"real": torch.tensor(a), "fake": torch.tensor(b)}, "discriminator"))
    log.add("generator", Loss.of({"fake": torch.tensor(4.0)}, "generator"))
    assert log.training.pop() == {"seen": 2.0, "D/loss": 5.5, "D/real": 2.0, "D/fake": 3.5, "G/loss": 4.0}
    assert log.training.pop() == {}


def test_terms_are_averaged_over_the_batches_that_have_them():
    log = LossLog()
    log.add("discriminator", Loss.of({"real": torch.tensor(1.0), "fake": torch.tensor(2.0)}, "discriminator"))
    three = {"real": torch.tensor(3.0), "fake": torch.tensor(2.0), "penalty": torch.tensor(10.0)}
    log.add("discriminator", Loss.of(three, "discriminator"))
    assert log.training.pop() == {"D/loss": 9.0, "D/real": 2.0, "D/fake": 2.0, "D/penalty": 10.0}


def test_means_are_weighted():
    means = Means()
    means.add(("a", "b"), torch.tensor([1.0, 2.0]), weight=3)
    means.add(("a", "b"), torch.tensor([5.0, 4.0]), weight=5)
    assert means.pop() == {"a": 3.5, "b": 3.25}


def test_means_resume_from_saved_shares():
    means, again = Means(), Means()
    means.add(("a", "b"), torch.tensor([1.0, 2.0]), weight=3)
    again.take(means.shares())
    again.add(("a", "b"), torch.tensor([5.0, 4.0]))
    assert again.pop() == {"a": 2.0, "b": 2.5}


def test_one_process_resumes_from_the_shares_of_two():
    shares = []
    for value in (1.0, 3.0):
        means = Means()
        means.add(("a",), torch.tensor([value]), weight=2)
        shares += means.shares()
    again = Means()
    again.take(shares)
    assert again.pop() == {"a": 2.0}


@pytest.mark.parametrize("rank", [0, 1])
def test_with_two_processes_rank_0_takes_the_share_of_one(rank, monkeypatch):
    means, again = Means(), Means()
    means.add(("a",), torch.tensor([2.0]), weight=2)
    shares = means.shares()
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_rank", lambda: rank)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    again.take(shares)
    sent = []
    monkeypatch.setattr(dist, "all_reduce", lambda table: sent.append(table.clone()) or table.add_(1))
    again.pop()
    assert sent[0].tolist() == ([[4.0], [2.0]] if rank == 0 else [[0.0], [0.0]])


def test_shares_in_the_old_format_are_accepted():
    old = [{"sums": {"D/loss": torch.tensor(4.0), "D/real": torch.tensor(2.0)}, "weights": {"D/loss": 2, "D/real": 2}}]
    means = Means()
    means.take(old)
    means.add(("D/loss", "D/real"), torch.tensor([8.0, 5.0]))
    assert means.pop() == {"D/loss": 4.0, "D/real": pytest.approx(7 / 3)}


def test_means_move_to_another_device():
    means = Means()
    means.add(("a",), torch.tensor([1.0]))
    means.to(torch.device("meta"))
    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
        means.pop()


def test_held_out_values_are_logged_in_validation_only():
    log = LossLog()
    log.observe("a", torch.tensor(1.0), training=False)
    log.collect(log.training)
    assert log.training.pop() == {}
    log.held_out_images = 3
    log.observe("a", torch.tensor(1.0), training=False)
    log.collect(log.held_out)
    assert log.held_out.pop() == {"a": 1.0} and log.training.pop() == {}
