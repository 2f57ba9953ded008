"""Penalties, top-k and FreezeD with every variant."""

from __future__ import annotations

import copy
import functools
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.nn.functional import pad
from torch.optim import SGD, Adam, RMSprop

import ganzoo
from ganzoo.checkpoint.sealed import CheckpointError
from ganzoo.core import penalised
from ganzoo.core.frozen import evaluating, layers_of
from ganzoo.core.options import options_of
from ganzoo.core.pixels import scaled
from ganzoo.core.player import PLAYERS
from ganzoo.layers.equalised import EqualisedLinear
from ganzoo.layers.spectral import normalised
from ganzoo.optim import ExtraAdam, FusedAdam, Lookahead
from ganzoo.optim.adam import for_more_steps
from ganzoo.penalties import BCR, R1, R2, ZCR, GradientPenalty, LeCam, Orthogonal, Penalty
from ganzoo.penalties.base import is_random, mixes_images
from ganzoo.testing import BATCH, NoiseImages, check_resume, check_turns, fit
from tests.variants import small, variants

ALL = (R1, R2, GradientPenalty, BCR, ZCR, LeCam, Orthogonal)
LIGHT = {"BCR": {"real": 0.1, "fake": 0.1}, "ZCR": {"discriminator": 0.1}}  # with CGAN's SGD larger ones diverge
SEVERAL = {"LAPGAN", "CycleGAN"}
MIXING = {"DCGAN", "LSGAN", "WGAN", "ACGAN", "InfoGAN", "LadderEBGAN"}  # by batch norm, at the sizes of `small`
MIXING |= {"ProjectedGAN", "FastGAN"}  # likewise
MIXING |= {"ProGAN", "StyleGAN2", "StyleGAN3"}  # by minibatch standard deviation
REFUSED = {
    **{kind: SEVERAL | MIXING for kind in (R1, R2, GradientPenalty)},
    BCR: SEVERAL | {"Pix2Pix", "FastGAN"},
    ZCR: SEVERAL | {"Pix2Pix", "FastGAN"},
    LeCam: SEVERAL,
    Orthogonal: set(),
}


def make(name, **more):
    torch.manual_seed(0)
    return getattr(ganzoo, name)(**small(name), **more)


def working(name, **more):
    """All penalties that work with a variant."""
    return [kind(**{**LIGHT.get(kind.__name__, {}), **more}) for kind in ALL if name not in REFUSED[kind]]


def drawn(model, player="discriminator", interval=1):
    """The update of a player, and a batch with all its random inputs."""
    batch = scaled(next(iter(NoiseImages(model).train_dataloader())))
    batch |= model.draw(BATCH, torch.Generator().manual_seed(0))
    model.randomness.restart(model.device, 0, rank=0)
    update = penalised.Update(model, player, interval)
    return update, update.drawn(batch)


def terms(model, player="discriminator"):
    """The terms of a player's equation and penalties on a batch, in eval mode, without dropout."""
    with evaluating(model):
        update, batch = drawn(model, player)
        with penalised.listening(model):
            return update.loss(batch), batch


def score(model, x, batch, rows=slice(None)):
    """D's scores [N] by hand; larger for reals."""
    y = batch["source"] if model.source_channels else batch["label"] if model.num_classes else None
    output = model.discriminate(x, None if y is None else y[rows])
    output = output if isinstance(output, torch.Tensor) else output[0]
    sign = -1 if "EBGAN" in type(model).__name__ else 1
    return sign * torch.stack([each.mean() for each in output])


def gradients(model, x, batch):
    """|grad D| of each image [N], one by one."""
    norms = []
    for i, image in enumerate(x.detach()):
        image = image[None].clone().requires_grad_()
        (g,) = torch.autograd.grad(score(model, image, batch, slice(i, i + 1)).sum(), image)
        norms.append(g.norm())
    return torch.stack(norms)


@pytest.mark.parametrize("name", variants())
def test_a_variant_trains_with_the_penalties_that_it_does_not_refuse(name):
    """Both players are updated as the contract demands."""
    lr = {"optimizer": lambda params: SGD(params, lr=1e-3)}
    check_turns(lambda **more: make(name, penalties=working(name), **lr, **more))


@pytest.mark.parametrize("name", ganzoo.list_models())
def test_a_variant_refuses_the_other_penalties_by_name_before_training(name):
    for kind in ALL:
        model = make(name, penalties=kind())
        problem = penalised.refusal(next(iter(model.penalties.values())), model)
        assert (problem is not None) == (name in REFUSED[kind]), (kind, problem)
        if problem is not None:
            with pytest.raises(
                MisconfigurationException,
                match=f"penalties: {kind.__name__} does not work with {name}: .*; (leave|use) ",
            ):
                penalised.check(model)


@pytest.mark.parametrize("kind", [R1, LeCam])
def test_a_refused_penalty_stops_fit(kind):
    with pytest.raises(MisconfigurationException, match="LAPGAN: it has several discriminators; leave the penalty out"):
        fit(make("LAPGAN", penalties=kind()), steps=1)


def test_defaults_are_those_of_the_papers():
    assert [penalty.weight for penalty in (R1(), R2(), GradientPenalty())] == [10, 10, 10]
    assert not GradientPenalty().one_sided and GradientPenalty().norm == 0
    assert (LeCam().weight, LeCam().decay) == (0.3, 0.99)
    assert (BCR().real, BCR().fake) == (10, 10)
    assert (BCR().shift, BCR().flip) == (0.125, True)
    assert (ZCR().discriminator, ZCR().generator, ZCR().noise) == (20, 0.5, 0.05)
    assert (Orthogonal().weight, Orthogonal().player) == (1e-4, "generator")


def test_all_penalties_are_tested():
    assert set(ALL) == set(options_of(Penalty).values()) == set(REFUSED)


@pytest.mark.parametrize("name", ganzoo.list_models())
def test_an_image_s_score_depends_on_others_where_it_is_said_to(name):
    """Also whether D is random. In training mode, with equal noise, all other images are replaced."""
    model = make(name)
    if penalised.several(model):
        return
    for p in model.discriminator.parameters():  # initially, a ladder's energy does not depend on its norms
        p.data += 0.1 * torch.randn_like(p)
    for layer in [m for m in model.discriminator.modules() if hasattr(m, "u")]:  # until their norms are constant
        for _ in range(200):
            normalised(layer)
    _, batch = drawn(model)
    others = torch.cat([batch["image"][:1], torch.rand_like(batch["image"][1:])])
    found = []
    for x, seed in ((batch["image"], 0), (others, 0), (batch["image"], 1)):
        torch.manual_seed(seed)
        found.append(score(model, x, batch)[0])
    assert (not torch.isclose(found[0], found[1], rtol=1e-4)) == (mixes_images(model.discriminator) is not None)
    if name != "LadderEBGAN":  # it is refused anyway
        assert (not torch.isclose(found[0], found[2], rtol=1e-4)) == (is_random(model.discriminator) is not None)


class Twice(Penalty):
    """Evaluates D again on the images of the equation."""

    def discriminator_terms(self, view):
        return {
            "real": (view.real_score() - view.score(view.real)).abs().max(),
            "fake": (view.fake_score() - view.score(view.fake)).abs().max(),
            "size": torch.tensor(float(len(view.real_score()))),
        }


@pytest.mark.parametrize("name", sorted(set(ganzoo.list_models()) - SEVERAL))
def test_penalties_evaluate_d_as_the_equation_does(name):
    """With the same labels or sources; in eval mode, without dropout."""
    with pytest.warns(UserWarning, match="not plain"):
        model = make(name, penalties=Twice())
    found, _ = terms(model)
    assert found["real"] == found["fake"] == 0 and found["size"] == BATCH


@pytest.mark.parametrize("name", ["GAN", "CGAN", "WGANGP", "EBGAN", "Pix2Pix"])
def test_terms_of_gradients_match_those_image_by_image(name):
    model = make(name, penalties=[R1(3.0), R2(5.0), GradientPenalty(7.0)])
    found, batch = terms(model.eval())
    fakes, u = model.fakes(batch), batch["drawn"]["gradient_penalty"]["u"].view(-1, 1, 1, 1)
    expected = {
        "r1": 3 / 2 * gradients(model, batch["image"], batch).square().mean(),
        "r2": 5 / 2 * gradients(model, fakes, batch).square().mean(),
        "gradient_penalty": 7 * gradients(model, u * batch["image"] + (1 - u) * fakes, batch).square().mean(),
    }
    for key, value in expected.items():
        torch.testing.assert_close(found.pop(key), value, rtol=1e-4, atol=1e-7)
    for key, value in model.discriminator_loss({**batch, "fakes": fakes}).items():
        torch.testing.assert_close(found[key], value)


@pytest.mark.parametrize("one_sided", [False, True])
def test_a_gradient_penalty_of_a_norm(one_sided):
    model = make("CGAN", penalties=GradientPenalty(2.0, norm=0.01, one_sided=one_sided))
    found, batch = terms(model)
    u = batch["drawn"]["gradient_penalty"]["u"].view(-1, 1, 1, 1)
    excess = gradients(model.eval(), u * batch["image"] + (1 - u) * model.fakes(batch), batch) - 0.01
    excess = excess.clamp(min=0) if one_sided else excess
    torch.testing.assert_close(found["gradient_penalty"], 2 * excess.square().mean(), rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("name", ["WGANGP", "EBGAN", "Pix2Pix"])
def test_differences_are_those_of_the_scores(name):
    step = 0.1
    model = make(name, penalties=[R1(3.0, difference=step), R2(5.0, difference=step)])
    found, batch = terms(model)
    for key, x, weight in (("r1", batch["image"], 3.0), ("r2", model.eval().fakes(batch), 5.0)):
        after = score(model, x + step * batch["drawn"][key]["noise"], batch)
        expected = weight / 2 * ((after - score(model, x, batch)) / step).square().mean()
        torch.testing.assert_close(found[key], expected, rtol=1e-4, atol=1e-7)
        assert batch["drawn"][key]["noise"].std() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("name", ["DCGAN", "CGAN", "EBGAN", "ACGAN", "InfoGAN"])
def test_consistency_matches_independent_sums(name):
    model = make(name, penalties=[BCR(2.0, 3.0, shift=0.2), ZCR(5.0, 7.0, noise=0.3)])
    found, batch = terms(model)
    model.eval()
    for side, x, weight in (("real", batch["image"], 2.0), ("fake", model.fakes(batch), 3.0)):
        transform, changed = batch["drawn"]["bcr"][side], []
        for image, flip, (down, right) in zip(x, transform["flip"], transform["shift"].tolist(), strict=True):
            assert max(abs(down), abs(right)) <= 3
            whole = pad((image.flip(-1) if flip else image)[None], (3, 3, 3, 3), mode="reflect")
            changed.append(whole[0, :, 3 - down : 19 - down, 3 - right : 19 - right])
        gaps = score(model, x, batch) - score(model, torch.stack(changed), batch)
        torch.testing.assert_close(found[f"bcr_{side}"], weight * (gaps**2).sum() / BATCH, rtol=1e-4, atol=1e-9)
    gaps = score(model, model.fakes(batch), batch) - score(model, neighbours(model, batch), batch)
    torch.testing.assert_close(found["zcr"], 5 * (gaps**2).sum() / BATCH, rtol=1e-4, atol=1e-9)
    found, batch = terms(model, "generator")
    gaps = model.eval().fakes(batch) - neighbours(model, batch)
    torch.testing.assert_close(found["zcr"], -7 * gaps.square().sum() / (BATCH * 256), rtol=1e-4, atol=1e-9)


def test_transforms_of_bcr_are_uniform():
    """Within four standard errors of 10,000 draws; up to an eighth of 16 and 24 pixels."""
    n, shape = 10_000, torch.Size([1, 16, 24])
    for flip in (True, False):
        drawn = BCR(flip=flip).transforms(n, shape, torch.Generator().manual_seed(0))
        assert drawn["flip"].float().mean().item() == pytest.approx(flip / 2, abs=0.02)
        for column, most in enumerate((2, 3)):
            values, counts = drawn["shift"][:, column].unique(return_counts=True)
            assert values.tolist() == list(range(-most, most + 1))
            assert (counts / n - 1 / len(values)).abs().max() < 4 * (0.2 / n) ** 0.5


def neighbours(model, batch):
    """G(z + 0.3 n), with the categories of InfoGAN unchanged."""
    z, n = batch["z"], batch["drawn"]["zcr"]["noise"]
    near = {k: z[k] + 0.3 * n[k] for k in z} | {"category": z["category"]} if isinstance(z, dict) else z + 0.3 * n
    return model.make_fakes({**batch, "z": near})


def test_orthogonal_sums_over_the_layers_of_the_chosen_players():
    for chosen in ("generator", "discriminator", "both"):
        model = make("ACGAN", penalties=Orthogonal(2.0, player=chosen))
        for player in PLAYERS:
            rows = [p.flatten(1) for p in getattr(model, player).parameters() if p.ndim > 1]
            if player == "generator":  # transposed convolutions have their outputs second
                rows = [
                    p.transpose(0, 1).flatten(1) if p.ndim > 2 else p
                    for p in model.generator.parameters()
                    if p.ndim > 1
                ]
            expected = 2 * sum(((w @ w.T) * (1 - torch.eye(len(w)))).square().sum() for w in rows)
            found, _ = terms(model, player)
            assert ("orthogonal" in found) == (chosen in (player, "both"))
            if "orthogonal" in found:
                torch.testing.assert_close(found["orthogonal"], expected)


def test_lecam_s_averages_match_a_loop():
    """The averages of five batches of two microbatches; the term sees the mean of its own microbatch."""
    penalty, decay = LeCam(2.0, decay=0.9), 0.9
    real, fake = torch.randn(2, 5, 2, 4, generator=torch.Generator().manual_seed(0)) + 1
    sums, weights = [0.0, 0.0], 0.0
    for t in range(5):
        weights = decay * weights + 1 - decay
        for part in range(2):
            scores = real[t, part], fake[t, part]
            view = penalised.View(*[None] * 12)
            view.training, view.mean = True, lambda t: t
            view.real_score, view.fake_score = (lambda s=s: s for s in scores)
            found = penalty.discriminator_terms(view)["lecam"]
            a = [(decay * sums[i] + (1 - decay) * scores[i].mean().item()) / weights for i in range(2)]
            over = (
                [max(0, s - a[1]) ** 2 for s in scores[0].tolist()],
                [max(0, a[0] - s) ** 2 for s in scores[1].tolist()],
            )
            assert found.item() == pytest.approx(2 * (sum(over[0]) + sum(over[1])) / 4, rel=1e-5)
        sums = [decay * old + (1 - decay) * now[t].mean().item() for old, now in zip(sums, (real, fake), strict=True)]
        penalty.stepped("discriminator")
        penalty.stepped("generator")
        assert penalty.means.tolist() == pytest.approx([s / weights for s in sums], rel=1e-5)
    view.training = False
    before = copy.deepcopy(penalty.state_dict())
    penalty.discriminator_terms(view)
    assert all(torch.equal(value, before[key]) for key, value in penalty.state_dict().items())


def test_lecam_knows_that_energies_are_low_for_reals():
    """A D that separates reals and fakes, by any sign, has the same term."""
    for name, more in (("EBGAN", {}), ("LSGAN", {}), ("LSGAN", {"a": 1.0, "b": 0.0})):
        model = make(name, penalties=LeCam(1.0), **more)
        _, batch = drawn(model)
        batch |= {"fakes": torch.zeros_like(batch["image"])}
        high = 1.0 if name == "LSGAN" and not more else -1.0

        def separate(x, y=None, high=high, name=name):
            output = high * x.flatten(1).abs().mean(1).sign()
            return (output, output) if name == "EBGAN" else output

        model.discriminate = separate
        with penalised.listening(model):
            found = penalised.Update(model, "discriminator").loss(batch)["lecam"]
        assert found.item() == pytest.approx(1 + 1), name
        assert model.penalties["lecam"].pending.tolist() == [1.0, 0.0, 1.0], name


def test_scores_of_the_equation_are_not_evaluated_again():
    """D is applied to reals and fakes once, LeCam included; differences add one application each."""
    for penalties, calls in (([LeCam()], 2), ([R1(difference=0.01), R2(difference=0.01), LeCam()], 4)):
        model, seen = make("MLPGAN", penalties=penalties), []
        model.discriminator.register_forward_hook(lambda *_, seen=seen: seen.append(1))
        update, batch = drawn(model)
        with penalised.listening(model):
            update.loss(batch)
        assert len(seen) == calls


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.discriminator.parameters()])


def moved(steps=8, **more):
    """The displacement of D by SGD, of a small rate."""
    model = make(
        "CGAN", optimizer=lambda params: SGD(params, lr=1e-4), d_dropout=0.0, dropout=0.0, lr_scheduler=constant, **more
    )
    before = weights(model)
    fit(model, NoiseImages(model, batch_size=25), steps=steps)
    return weights(model) - before


def constant(optimizer):
    """A schedule in place of the variant's own."""
    return torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)


def test_lazy_and_every_step_r1_move_d_equally_in_expectation():
    """On the same 25 images in every batch; without the lazy weight of 4 the displacement would be a quarter."""
    without = moved()
    every, lazy = (moved(penalties=R1(20.0, interval=k)) - without for k in (1, 4))
    assert every.norm() > 100 * (every - lazy).norm() / 2
    assert every.norm() > 1e-5


@pytest.mark.parametrize(("k", "lr", "beta2"), [(16, 0.0018824, 0.990585), (4, 0.0016, 0.991992)])
def test_adam_is_corrected_as_in_stylegan2(k, lr, beta2):
    """The numbers of StyleGAN2's lr 0.002 and beta2 0.99, for D's interval 16 and G's 4; a scheduler and `schedule` see
    them."""
    optimizer = FusedAdam([nn.Parameter(torch.zeros(1))], lr=0.002, beta1=0.5, beta2=0.99)
    for_more_steps(optimizer, 1 + 1 / k)
    for group in (optimizer.defaults, optimizer.param_groups[0]):
        assert group["lr"] == pytest.approx(lr, rel=1e-4)
        assert group["betas"] == pytest.approx((0.5 ** (k / (k + 1)), beta2), rel=1e-6)


def test_only_optimizers_with_averages_are_corrected():
    p = [nn.Parameter(torch.zeros(1))]
    sgd, rms, look = (
        SGD(p, lr=1.0, momentum=0.5),
        RMSprop(p, lr=1.0, alpha=0.9),
        Lookahead(p, lambda p: Adam(p, lr=1.0)),
    )
    for optimizer in (sgd, rms, look):
        for_more_steps(optimizer, 2.0)
    assert (sgd.defaults["lr"], sgd.defaults["momentum"]) == (1.0, 0.5)
    assert rms.param_groups[0]["lr"] == 0.5 and rms.param_groups[0]["alpha"] == pytest.approx(0.9**0.5)
    assert look.inner.param_groups[0]["lr"] == 0.5 and look.param_groups[0]["betas"][0] == pytest.approx(0.9**0.5)


def test_only_d_s_optimizer_is_corrected_and_its_steps_are_counted():
    class Look(Callback):
        def on_train_end(self, trainer, pl_module):
            for optimizer in trainer.optimizers:
                state = optimizer.state_dict()["state"][0]
                found.append((optimizer.param_groups[0]["lr"], int(state["step"])))

    found = []
    penalties = [R1(interval=2), R2(interval=2), GradientPenalty(interval=3)]
    fit(make("MLPGAN", penalties=penalties, optimizer=lambda p: FusedAdam(p, lr=0.01)), steps=6, callbacks=[Look()])
    assert found == [(pytest.approx(0.01 / (1 + 1 / 2 + 1 / 3)), 6 + 3 + 2), (0.01, 6)]


def test_lazy_penalties_are_logged_apart_and_unscaled():
    """`D/loss` is the loss of every batch, `D/r1` the mean over the batches where it is due, without the interval."""

    class Keep(Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            means.append(pl_module.loss_log.training.read())

    for interval in (1, 2):
        means = []
        model = make("WGANGP", penalties=R1(1e3, interval=interval), optimizer=lambda p: SGD(p, lr=0.0))
        fit(model, steps=2, callbacks=[Keep()], log_every_n_steps=100)
        first, second = means
        total = sum(second[f"D/{key}"] for key in ("real", "fake", "penalty"))
        assert ("D/r1" in first) == (interval == 1)
        assert second["D/loss"] == pytest.approx(total + (second["D/r1"] if interval == 1 else 0), rel=1e-5)
        values = second["D/r1"] if interval == 2 else 2 * second["D/r1"] - first["D/r1"]
        assert values == pytest.approx(model_r1(model), rel=1e-3)


def model_r1(model):
    """R1 of the second batch, by hand; the weights do not move."""
    loader = iter(NoiseImages(model).train_dataloader())
    _, batch = next(loader), scaled(next(loader))
    return 1e3 / 2 * gradients(model, batch["image"], batch).square().mean().item()


def state(model):
    return {key: value for key, value in model.state_dict().items() if not key.startswith("penalties")}


def test_penalties_of_weight_0_change_nothing():
    """The random numbers of everything else are the same."""
    none = [R1(0.0), R2(0.0, difference=0.1), BCR(0.0, 1e-30), LeCam(0.0), GradientPenalty(0.0)]
    plain, more = make("WGANGP", n_critic=2), make("WGANGP", n_critic=2, penalties=none)
    for model in (plain, more):
        fit(model, steps=5, limit_val_batches=1)
    torch.testing.assert_close(state(more), state(plain), rtol=1e-5, atol=1e-7)


def everything(kind="WGANGP"):
    lazy = [R1(interval=2), R2(difference=0.1), GradientPenalty(norm=1.0, interval=3)]
    rest = [BCR(0.1, 0.1), ZCR(0.1), LeCam(), Orthogonal(player="both")]
    return {"penalties": [*lazy, *rest], "top_k": 0.5, "top_k_half_life": 20.0}


@pytest.mark.parametrize("share_fakes", [False, True])
def test_a_resumed_run_is_bit_identical(share_fakes):
    more = (
        {"n_critic": 1, "share_fakes": True}
        if share_fakes
        else {"n_critic": 2, "microbatches": 2, "ema_half_life": 9.0}
    )
    check_resume(lambda: make("WGANGP", **everything(), **more))


def test_a_checkpoint_stores_penalties_and_their_state(tmp_path):
    model = make("WGANGP", **everything())
    fit(model, steps=3).save_checkpoint(tmp_path / "a.ckpt")
    loaded = ganzoo.load(tmp_path / "a.ckpt")
    assert str(loaded.penalties) == str(model.penalties) and loaded.hparams == model.hparams and not model.not_saved
    assert loaded.penalties["lecam"].updates == 3 and torch.equal(
        loaded.penalties["lecam"].means, model.penalties["lecam"].means
    )
    assert loaded.penalties["lecam"].means.any()
    again = torch.load(tmp_path / "a.ckpt", weights_only=True)
    for bad in ("os.system", "Penalty", "_OfGradients", 3, ["R1"]):
        again["hyper_parameters"]["penalties"] = [{"class_path": bad, "init_args": {}}]
        torch.save(again, tmp_path / "b.ckpt")
        again["ganzoo"].pop("sealed", None)
        torch.save(again, tmp_path / "b.ckpt")
        with pytest.raises(CheckpointError, match="penalties is "):
            ganzoo.load(tmp_path / "b.ckpt")


class Drift(Penalty):
    """A penalty of a user's own."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def discriminator_terms(self, view):
        return {"drift": self.weight * view.real_score().square().mean()}


def test_a_user_s_own_penalty_is_used_but_not_stored():
    with pytest.warns(UserWarning, match="penalties: not plain values, so checkpoints cannot store them"):
        model = make("WGANGP", penalties=Drift(3.0))
    found, batch = terms(model)
    torch.testing.assert_close(found["drift"], 3 * score(model.eval(), batch["image"], batch).square().mean())
    assert model.not_saved == ["penalties"] and "penalties" not in model.hparams
    fit(model, steps=1)


def test_models_do_not_share_a_penalty_s_state():
    penalty = LeCam()
    model = make("WGANGP", penalties=penalty)
    fit(model, steps=1)
    assert model.penalties["lecam"].updates == 1 and penalty.updates == 0


def test_a_training_may_continue_with_other_penalties(tmp_path):
    """LeCam starts anew if the checkpoint does not have it; otherwise its state is found in any order."""
    paths = [str(tmp_path / name) for name in ("with.ckpt", "without.ckpt")]
    for path, penalties in zip(paths, ([R1(), LeCam()], None), strict=True):
        fit(make("WGANGP", penalties=penalties), steps=2).save_checkpoint(path)
    for path, penalties, updates in (
        (paths[0], [LeCam(), R1()], 3),
        (paths[0], None, None),
        (paths[1], [BCR(), LeCam()], 1),
    ):
        model = make("WGANGP", penalties=penalties)
        fit(model, steps=3, ckpt_path=path)
        assert updates is None or model.penalties["lecam"].updates == updates


def test_penalties_may_be_given_by_name():
    model = make("MLPGAN", penalties=["R1", {"class_path": "LeCam", "init_args": {"weight": 2.0}}])
    assert [type(p) for p in model.penalties.values()] == [R1, LeCam] and model.penalties["lecam"].weight == 2.0


@pytest.mark.parametrize(
    ("error", "given", "words"),
    [
        (ValueError, lambda: R1(-1.0), "weight is -1.0; it takes a number from 0 up"),
        (ValueError, lambda: R1(interval=0), "interval is 0; it takes a whole number from 1 up"),
        (ValueError, lambda: R2(difference=0.0), "difference is 0.0; it takes a number from 0.0001 to 1"),
        (ValueError, lambda: BCR(fake=-1.0), "fake is -1.0"),
        (ValueError, lambda: BCR(shift=0.6), "shift is 0.6; it takes a number from 0 to 0.5"),
        (ValueError, lambda: LeCam(decay=1.0), r"decay is 1.0; it takes a number in \[0, 1\)"),
        (ValueError, lambda: Orthogonal(player="g"), "player is 'g'; it takes one of generator, discriminator, both"),
        (
            ValueError,
            lambda: make("GAN", penalties="R3"),
            "penalties is R3; did you mean 'R1'|penalties is R3; it takes",
        ),
        (
            ValueError,
            lambda: make("GAN", penalties={"class_path": "R1", "init_args": {"wait": 1}}),
            "penalties: .*wait",
        ),
        (
            ValueError,
            lambda: make("GAN", penalties={"class_path": "R1", "init_args": 3}),
            "penalties: init_args of R1 is 3; it takes a dict of arguments",
        ),
        (
            ValueError,
            lambda: make("GAN", ema_half_life=1e13),
            r"ema_half_life is 10000000000000.0; it takes 1e\+12 or less",
        ),
        (ValueError, lambda: make("GAN", penalties=R1(), consensus=1.0), "consensus cannot be combined with penalties"),
        (ValueError, lambda: make("GAN", top_k=0.5, consensus=1.0), "consensus cannot be combined with top_k"),
        (ValueError, lambda: make("GAN", top_k=0.0), r"top_k is 0.0; it takes a number in \(0, 1\]"),
        (ValueError, lambda: make("GAN", top_k_half_life=9.0), "top_k_half_life has no effect with top_k 1"),
        (ValueError, lambda: fit(make("GAN", freeze_d=3), steps=1), "freeze_d is 3, but D has 3 layers; use 0 to 2"),
        (ValueError, lambda: make("GAN", penalties=[R1(), R1()]), "R1 is given twice"),
        (
            MisconfigurationException,
            lambda: fit(make("CycleGAN", top_k=0.5), steps=1),
            "top_k does not work with CycleGAN",
        ),
        (
            MisconfigurationException,
            lambda: fit(make("Pix2Pix", top_k=0.5), steps=1),
            "top_k does not work with Pix2Pix",
        ),
        (
            MisconfigurationException,
            lambda: fit(make("LAPGAN", freeze_d=1), steps=1),
            "freeze_d does not work with LAPGAN",
        ),
        (
            MisconfigurationException,
            lambda: fit(make("GAN", penalties=R1(difference=0.1)), steps=1),
            "R1 does not work with GAN: D has dropout, .*; leave difference out",
        ),
        (
            MisconfigurationException,
            lambda: fit(make("ImprovedGAN", penalties=R1(), kernels=2), steps=1),
            "R1 does not work with ImprovedGAN: D has minibatch discrimination",
        ),
        (
            MisconfigurationException,
            lambda: fit(make("GAN", penalties=R1(interval=2), optimizer=lambda p: ExtraAdam(p)), steps=1),
            "ExtraAdam needs two steps per update; set interval 1",
        ),
        (
            MisconfigurationException,
            lambda: fit(ganzoo.MLPGAN(image_size=[4, 1], channels=2, penalties=BCR(shift=0.2)), steps=1),
            "BCR does not work with MLPGAN: at 4x1 pixels T changes nothing",
        ),
        (
            MisconfigurationException,
            lambda: fit(make("MLPGAN", penalties=BCR(shift=0.0, flip=False)), steps=1),
            "T changes nothing",
        ),
    ],
)
def test_bad_input_is_refused_before_training(error, given, words):
    with pytest.raises(error, match=words):
        given()


def test_top_k_trains_g_on_the_fakes_that_d_scores_highest():
    for name in ("MLPGAN", "ACGAN", "EBGAN"):
        model, whole = make(name, top_k=0.5), make(name)
        for m in (model, whole):
            m.discriminator.eval()
        update, batch = drawn(model, "generator")
        with penalised.listening(model):
            found = update.loss(batch)
        fakes = whole.fakes(batch)
        best = score(whole, fakes, batch).argsort(descending=True)[:4]
        part = {key: value[best] for key, value in batch.items() if key in ("image", "label", "z")}
        expected = whole.generator_loss({**part, "fakes": fakes[best]})
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, msg=name)


def test_top_k_s_share_halves_with_the_images():
    model = make("GAN", top_k=0.3, top_k_half_life=100.0)
    for images, share in ((0, 1.0), (50, 0.5**0.5), (100, 0.5), (150, 0.5**1.5), (1000, 0.3)):
        model.images_seen = images
        assert penalised.top_share(model) == pytest.approx(share)
    assert penalised.top_share(make("GAN", top_k=0.3)) == 0.3


def test_validation_has_the_penalties_of_every_batch_and_all_fakes():
    """The weights do not move; the orthogonal term is the same for all images."""

    def losses(**more):
        model = make("WGANGP", optimizer=lambda p: SGD(p, lr=0.0), **more)
        metrics = fit(model, steps=3, limit_val_batches=1).callback_metrics
        return [float(metrics[f"val/{player}/loss"]) for player in "DG"], model

    plain, model = losses()
    assert losses(top_k=0.1)[0] == plain
    more, _ = losses(penalties=[Orthogonal(1.0, player="both"), R1(1e9, interval=2)])
    for player, before, after in zip(PLAYERS, plain, more, strict=True):
        term = Orthogonal(1.0).of(getattr(model, player))["orthogonal"].item()
        assert after - before == pytest.approx(term, rel=1e-3)


def test_random_inputs_of_penalties_depend_on_seed_and_step_alone():
    model = make("WGANGP", penalties=R1(difference=0.1))
    noise = []
    for counters in ((0,), (1,), (0,)):
        update, batch = drawn(model)
        model.randomness.restart(model.device, *counters, rank=0)
        noise.append(update.drawn(batch)["drawn"]["r1"]["noise"])
    assert torch.equal(noise[0], noise[2]) and not torch.equal(noise[0], noise[1])
    shared = torch.randn(noise[0].shape, generator=model.randomness.shared)
    assert not torch.equal(noise[0], shared)


@pytest.mark.parametrize("name", ["DCGAN", "ImprovedGAN", "EBGAN"])
def test_freeze_d_keeps_the_layers_nearest_the_image(name):
    model = make(name, freeze_d=1)
    fit(model, steps=2)
    start = make(name)
    frozen = {id(p) for p in layers_of(model.discriminator)[0]}
    assert frozen
    for p, before in zip(model.discriminator.parameters(), start.discriminator.parameters(), strict=True):
        if id(p) in frozen:
            assert torch.equal(p, before) and not p.requires_grad
        elif before.ndim > 1:
            assert not torch.equal(p, before)


@pytest.mark.slow
def test_compiled_penalties_have_the_gradients_of_eager_ones(monkeypatch):
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    models = [make("WGANGP", compile_losses=flag, n_critic=2, **everything()) for flag in (False, True)]
    for model in models:
        fit(model, steps=6)
    torch.testing.assert_close(models[1].state_dict(), models[0].state_dict(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("difference", [None, 0.1])
def test_r1_is_computed_in_float32_under_autocast(difference):
    model = make("WGANGP", penalties=R1(difference=difference))
    exact, _ = terms(model)
    with torch.autocast("cpu", torch.bfloat16):
        half, _ = terms(model)
    assert half["r1"].dtype == torch.float32
    torch.testing.assert_close(half["r1"], exact["r1"], rtol=1e-5, atol=0)
    assert half["real"] != exact["real"]
    fit(make("WGANGP", penalties=R1(difference=difference)), steps=1, precision="bf16-mixed")


def test_the_gradient_of_r1_is_that_of_float32_under_autocast():
    """Lightning calls `training_step`, with its backward passes, under autocast."""

    class PenaltyAlone(ganzoo.MLPGAN):
        def discriminator_loss(self, batch):
            return {"none": 0 * self.discriminate(batch["image"]).float().mean()}

        def generator_step(self, batch):
            pass

    found = []
    for precision in ("32-true", "bf16-mixed"):
        torch.manual_seed(0)
        sizes = {**small("MLPGAN"), "batch_norm": False, "penalties": R1(100.0)}
        model = PenaltyAlone(**sizes, optimizer=lambda params: SGD(params, lr=1.0))
        before = {key: p.detach().clone() for key, p in model.discriminator.named_parameters()}
        fit(model, steps=1, precision=precision)
        found.append({key: p.detach() - before[key] for key, p in model.discriminator.named_parameters()})
    assert max(step.abs().max() for step in found[0].values()) > 0
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("name", ganzoo.list_models())
def test_orthogonality_concerns_each_linear_layer_and_convolution(name):
    """Of G: their weights have a gradient."""
    model = make(name)
    Orthogonal().of(model.generator)["orthogonal"].backward()
    weights = {key for key, p in model.generator.named_parameters() if key.endswith("weight") and p.ndim > 2}
    linear = (nn.Linear, EqualisedLinear)
    weights |= {f"{key}.weight" for key, m in model.generator.named_modules() if isinstance(m, linear)}
    found = [p.grad is not None for key, p in model.generator.named_parameters() if key in weights]
    assert found and all(found)


def test_norms_and_constant_weights_are_not_made_orthogonal():
    frozen = nn.Conv2d(2, 3, 3).requires_grad_(False)
    network = nn.Sequential(nn.LayerNorm([2, 4, 4]), frozen, nn.Conv2d(3, 2, 1))
    weight = network[2].weight.flatten(1)
    found = Orthogonal(weight=1.0).of(network)["orthogonal"]
    torch.testing.assert_close(found, 2 * (weight[0] @ weight[1]).square())


class LazyForG(Drift):
    interval = 4

    def generator_terms(self, view):
        return {"drift": view.fake_score().mean()}


def test_a_lazy_penalty_of_g_is_refused():
    with pytest.warns(UserWarning, match="not plain"):
        model = make("WGANGP", penalties=LazyForG())
    with pytest.raises(
        MisconfigurationException, match="LazyForG has interval 4, but only terms of D .* set interval 1"
    ):
        penalised.check(model)


def test_the_cause_of_steps_that_extra_adam_cannot_take_is_named():
    style = {"group": 1, "path_weight": 0.0, "discriminator_optimizer": lambda p: ExtraAdam(p)}
    for gamma, cause in ((0.0, "penalties: an interval above 1 .* set interval 1"), (1.0, "lazy regularization")):
        with pytest.raises(MisconfigurationException, match=cause):
            penalised.check(make("StyleGAN2", gamma=gamma, penalties=R1(interval=4), **style))


def test_a_gradient_penalty_of_a_norm_has_a_derivative_where_d_is_flat():
    slope, view = torch.zeros((), requires_grad=True), penalised.View(*[None] * 12)
    view.real = view.fake = torch.zeros(2, 1, 1, 1)
    view.drawn, view.score = {"u": torch.zeros(2)}, lambda x: slope * x.sum((1, 2, 3))
    term = GradientPenalty(1.0, norm=1.0).discriminator_terms(view)["gradient_penalty"]
    assert torch.autograd.grad(term, slope)[0].isfinite()


@pytest.mark.parametrize(("n", "share", "kept"), [(8, 0.3, 3), (100, 0.07, 7)])
def test_top_k_rounds_the_number_of_fakes_up(n, share, kept):
    """100 * 0.07 is 7.000000000000001."""
    model = SimpleNamespace(top_k=share, top_k_half_life=None, real_scores_higher=True, source_channels=None)
    model.labels, model.discriminate = lambda batch: None, lambda x, y: x.flatten(1).sum(1)
    batch = {"image": torch.zeros(n, 1, 1, 1), "fakes": torch.randn(n, 1, 1, 1)}
    assert len(penalised.best(model, batch)["fakes"]) == kept


def test_lecam_without_memory_uses_the_last_batch_alone():
    assert LeCam(decay=0.0).share() == 1
