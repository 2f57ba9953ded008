"""Several processes: equal to one, equal replicas, no more bytes than the stepping player's."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch import nn
from torch.multiprocessing import ProcessRaisedException
from torch.optim import SGD

import ganzoo
from ganzoo.core.strategy import GANStrategy
from ganzoo.testing import NoiseImages, fit
from tests.variants import small

EVERYTHING = {"n_critic": 2, "microbatches": 2, "clip_norm": 0.1}


class Sent(Callback):
    """Counts the bytes of each all-reduce while training, and compares the replicas at the end."""

    def __init__(self, path):
        self.path = path

    def on_train_start(self, trainer, pl_module):
        self.bytes = []
        self.all_reduce = dist.all_reduce

        def counted(tensor, *args, **kwargs):
            self.bytes.append(tensor.numel() * tensor.element_size())
            return self.all_reduce(tensor, *args, **kwargs)

        dist.all_reduce = counted

    def on_train_end(self, trainer, pl_module):
        dist.all_reduce = self.all_reduce
        mine = torch.cat([p.detach().flatten() for p in pl_module.parameters()])
        theirs = mine.clone()
        dist.broadcast(theirs, 0)
        torch.save(
            {"equal": torch.equal(mine, theirs), "bytes": self.bytes, "state": pl_module.state_dict()},
            f"{self.path}/rank{trainer.global_rank}.pt",
        )


def two(model, path, steps=4, **trainer):
    strategy = GANStrategy(process_group_backend="gloo", start_method="fork")
    fit(model, steps=steps, strategy=strategy, devices=2, callbacks=[Sent(path)], **trainer)
    return [torch.load(f"{path}/rank{rank}.pt") for rank in range(2)]


def without_batch_statistics(model):
    """BatchNorm cannot be equal over processes unless it is synchronised; dropout draws differ by rank."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d | nn.Dropout):
                setattr(module, name, nn.Identity())
    return model


def make(name, **more):
    torch.manual_seed(0)
    sgd = {"optimizer": lambda params: SGD(params, lr=0.05), "ema_half_life": 30.0}
    return without_batch_statistics(getattr(ganzoo, name)(**small(name), **sgd, **more))


@pytest.mark.parametrize(
    "more", [{}, {"n_critic": 2, "microbatches": 2, "clip_norm": 0.1}], ids=["plain", "everything"]
)
@pytest.mark.parametrize("name", ganzoo.list_models())
def test_two_processes_of_half_the_batch_are_one(name, more, tmp_path):
    one = make(name, **more)
    fit(one, steps=4)
    ranks = two(make(name, **more), tmp_path)
    for rank in ranks:
        assert rank["equal"], "the replicas differ"
        for key, value in one.state_dict().items():
            torch.testing.assert_close(
                rank["state"][key], value, rtol=1e-5, atol=1e-6, msg=lambda m, k=key: f"{k}: {m}"
            )


@pytest.mark.parametrize("name", ganzoo.list_models())
def test_only_the_stepping_player_is_sent(name, tmp_path):
    model = make(name)
    size = {p: sum(w.numel() * 4 for w in getattr(model, p).parameters()) for p in ("discriminator", "generator")}
    ranks = two(model, tmp_path, steps=2)
    assert [b for b in ranks[0]["bytes"] if b > 64] == [size["discriminator"], size["generator"]] * 2


def test_batch_norm_statistics_are_averaged_when_saved(tmp_path):
    class Save(Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            trainer.save_checkpoint(tmp_path / "a.ckpt")
            torch.save(pl_module.state_dict(), tmp_path / f"state{trainer.global_rank}.pt")

    torch.manual_seed(0)
    model = ganzoo.DCGAN(**small("DCGAN"))
    strategy = GANStrategy(process_group_backend="gloo", start_method="fork")
    fit(model, steps=1, strategy=strategy, devices=2, callbacks=[Save()])
    saved = torch.load(tmp_path / "a.ckpt", weights_only=True)["state_dict"]
    states = [torch.load(tmp_path / f"state{rank}.pt", weights_only=True) for rank in range(2)]
    for key, value in saved.items():
        for state in states:
            torch.testing.assert_close(state[key], value, msg=key)


def test_plain_ddp_is_refused_and_names_the_cure():
    model = ganzoo.DCGAN(**small("DCGAN"))
    strategy = DDPStrategy(process_group_backend="gloo", start_method="fork")
    with pytest.raises(ProcessRaisedException, match='strategy="gan"'):
        fit(model, steps=1, strategy=strategy, devices=2)


def test_the_strategy_has_a_name():
    trainer = Trainer(accelerator="cpu", strategy="gan", devices=1, logger=False, enable_checkpointing=False)
    assert isinstance(trainer.strategy, GANStrategy)


def test_a_gradient_that_is_none_stays_none(tmp_path):
    class Half(ganzoo.DCGAN):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.generator.unused = nn.Linear(2, 2)

    torch.manual_seed(0)
    model = Half(**small("DCGAN"))
    before = copy.deepcopy(model.generator.unused.state_dict())
    state = two(model, tmp_path, steps=2)[1]["state"]
    for key, value in before.items():
        assert torch.equal(state[f"generator.unused.{key}"], value)


def test_a_batch_that_does_not_divide():
    model = ganzoo.DCGAN(**small("DCGAN"))
    strategy = GANStrategy(process_group_backend="gloo", start_method="fork")
    with pytest.raises(ProcessRaisedException, match="does not divide over 2 processes"):
        fit(model, NoiseImages(model, batch_size=7), steps=1, strategy=strategy, devices=2)
