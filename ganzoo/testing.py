"""Contract tests for your own variants: `check_variant(MyGAN, image_size=32)`."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ganzoo.checkpoint.pretrained import load, save_pretrained
from ganzoo.core.limits import Size, normal_size, sides
from ganzoo.core.module import GANModule
from ganzoo.core.pixels import scaled
from ganzoo.core.player import PLAYERS
from ganzoo.core.types import Batch
from ganzoo.data.base import GANDataModule, Split
from ganzoo.data.datasets import ArrayImages, Images

Make = Callable[..., GANModule]


def check_variant(variant: type[GANModule], **arguments: Any) -> None:
    """Train a variant for a few steps in several ways, and check the contract of `GANModule`.

    Args:
        variant: the class.
        arguments: of its constructor; with small networks the checks take seconds.

    Raises:
        AssertionError: the variant violates the contract; the message says how.
    """

    def make(**more: Any) -> GANModule:
        torch.manual_seed(0)
        return variant(**{**arguments, **more})

    for check in CHECKS:
        check(make)
    print(f"{variant.__name__} fulfils the contract: {len(CHECKS)} checks passed")


def check_constructor(make: Make) -> None:
    """Arguments are plain values, which checkpoints can store; both players, and nothing else, have trainable
    parameters."""
    model = make()
    assert not model.not_saved, f"arguments that a checkpoint cannot store: {model.not_saved}"
    players = {id(p) for player in PLAYERS for p in getattr(model, player).parameters()}
    for player in PLAYERS:
        assert list(getattr(model, player).parameters()), f"{player} has no parameters"
    idle = [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in players]
    assert not idle, f"parameters of neither player: {idle}"


def check_latent(make: Make) -> None:
    """Latents depend only on the random generator; their first size is n."""
    model = make()
    first, again = (tree_leaves(model.latent(3, torch.Generator().manual_seed(1))) for _ in range(2))
    for a, b in zip(first, again, strict=True):
        assert len(a) == 3, f"latent(3) has first size {len(a)}"
        assert torch.equal(a, b), "latent does not draw from its random generator alone"


def check_samples(make: Make) -> None:
    """Images are finite, in [-1, 1], and each is determined by its seed; sampling does not change the model."""
    model = make().train()
    before = _state(model)
    source = sources(model, 3)
    images = model.sample(seeds=[3, 1, 2], source=source)
    in_range = images.ndim == 4 and images.isfinite().all() and images.abs().max() <= 1
    assert in_range, "samples are not finite images [N, C, H, W] in [-1, 1]"
    alone = model.sample(seeds=[1], source=None if source is None else source[1:2])
    assert torch.allclose(images[1:2], alone, atol=1e-5), "a seed's image depends on the other seeds"
    assert all(m.training for m in model.modules()), "sampling left a module in eval mode"
    _assert_equal(before, _state(model), "sampling changed")


def check_clamped(make: Make) -> None:
    """Samples are clamped; fakes in the equations are not."""
    model = make().eval()
    batch, synthesize = _drawn(model), model.synthesize
    fakes = tree_leaves(model.fakes(batch))
    model.synthesize = lambda network, batch: 10 * synthesize(network, batch)  # type: ignore[method-assign]
    images = model.sample(seeds=[0, 1, 2], source=sources(model, 3))
    assert images.abs().max() <= 1, "samples are not clamped to [-1, 1]"
    if type(model).make_fakes is GANModule.make_fakes:
        for before, after in zip(fakes, tree_leaves(model.fakes(batch)), strict=True):
            assert torch.allclose(after, 10 * before), "the losses use clamped fakes"


def check_terms(make: Make) -> None:
    """Every term of both equations is a finite scalar."""

    class Watch(Callback):
        def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
            for name in ("discriminator_loss", "generator_loss"):
                equation = getattr(pl_module, name)

                def watched(batch: Batch, equation: Any = equation, name: str = name) -> Any:
                    terms = equation(batch)
                    assert isinstance(terms, dict), f"{name} returns a {type(terms).__name__}, not a dict of terms"
                    assert terms, f"{name} has no terms"
                    for key, term in terms.items():
                        assert isinstance(term, Tensor) and term.shape == (), f"{name}: {key} is not a scalar"
                        assert term.isfinite(), f"{name}: {key} is {term}"
                    return terms

                setattr(pl_module, name, watched)

    model = make()
    fit(model, steps=model.n_critic + 1, callbacks=[Watch()])


def check_turns(make: Make) -> None:
    """Each update changes only its own player; no gradient of its loss reaches the other one, and D's update builds
    no autograd graph of G."""
    model = make()
    moved: dict[str, bool] = dict.fromkeys(PLAYERS, False)
    playing: list[str] = []
    minimize, at_once = model.minimize, model.minimize_at_once

    def watched(loss: Any, batch: Batch, *, player: Any, **more: Any) -> None:
        own, other = (getattr(model, name) for name in (player, *(p for p in PLAYERS if p != player)))
        before, still = _state(own), _state(other)
        for p in other.parameters():
            p.grad = None
        playing[:] = [player]
        minimize(loss, batch, player=player, **more)
        playing.clear()
        reached = any(p.grad is not None for p in other.parameters())
        assert not reached, f"a gradient of the {player}'s loss reaches the other player"
        _assert_equal(still, _state(other), f"the {player}'s update changed")
        moved[player] |= any(not torch.equal(before[key], value) for key, value in _state(own).items())

    def together(batch: Batch, **more: Any) -> None:
        before = {player: _state(getattr(model, player)) for player in PLAYERS}
        at_once(batch, **more)
        for player, state in before.items():
            moved[player] |= any(not torch.equal(state[k], v) for k, v in _state(getattr(model, player)).items())

    def no_graph(module: Any, inputs: Any, output: Any) -> None:
        graph = any(isinstance(t, Tensor) and t.requires_grad for t in tree_leaves(output))
        assert playing != ["discriminator"] or not graph, "the discriminator's update builds G's autograd graph"

    model.minimize, model.minimize_at_once = watched, together  # type: ignore[method-assign]
    for module in model.generator.modules():
        if not list(module.children()):
            module.register_forward_hook(no_graph)
    fit(model, steps=2 * model.n_critic)
    assert all(moved.values()), f"a player was not updated: {moved}"
    trained = all(p.requires_grad for name in PLAYERS for p in getattr(model, name).parameters())
    assert trained, "a parameter is still frozen after training"


def check_shared_fakes(make: Make) -> None:
    """With `share_fakes` the equations use the given fakes, and `check_turns` passes."""
    try:
        make(share_fakes=True, n_critic=1)
    except (TypeError, ValueError):  # the variant does not support it
        return
    passes = []
    for share in (False, True):
        model, calls = make(share_fakes=share, n_critic=1), [0]
        data = NoiseImages(model)
        first = next(module for module in model.generator.modules() if not list(module.children()))
        first.register_forward_hook(lambda *_, calls=calls: calls.__setitem__(0, calls[0] + 1))
        fit(model, data, steps=2)
        passes.append(calls[0])
    saves = passes[1] < passes[0] or type(model).play is not GANModule.play  # an overridden play may not share
    assert saves, "share_fakes saves no forward pass: take fakes from self.fakes(batch) in the losses"
    check_turns(lambda: make(share_fakes=True, n_critic=1))


def check_counting(make: Make) -> None:
    """One batch is one global step, whatever the number of optimizer steps; `images_seen` counts images."""
    for game in ({"n_critic": 1}, {"n_critic": 3}, {"n_critic": 1, "n_generator": 2}):
        try:
            model = make(**game)
        except TypeError:  # the variant fixes it
            model = make()
        trainer = fit(model, steps=4)
        assert trainer.global_step == 4, f"4 batches gave global_step {trainer.global_step}"
        assert int(model.images_seen) == 4 * BATCH, f"4 batches of {BATCH} gave images_seen {model.images_seen}"


def check_files(make: Make) -> None:
    """Models from a checkpoint and from a `save_pretrained` folder have the same samples."""
    model = make()
    source = sources(model, 2)
    with tempfile.TemporaryDirectory() as folder:
        trainer = fit(model, steps=2)
        trainer.save_checkpoint(Path(folder, "a.ckpt"))
        save_pretrained(model, Path(folder, "b"))
        for name in ("a.ckpt", "b"):
            loaded = load(Path(folder, name), variant=type(model))
            expected, images = (m.sample(seeds=[0, 1], source=source) for m in (model, loaded))
            assert torch.equal(images, expected), f"the model loaded from {name} has different samples"


def check_resume(make: Make, resumes: Iterable[tuple[int, int]] = ((2, 4), (4, 6), (3, 5), (5, 6))) -> None:
    """A run resumed from a checkpoint, within or at the end of an epoch, is bit-identical to an uninterrupted one.

    Args:
        make: makes the model.
        resumes: steps at which a run is resumed, and at which it saves a checkpoint for a later one; the uninterrupted
            run saves at steps 2 and 3, the end of an epoch.
    """
    with tempfile.TemporaryDirectory() as folder:
        whole = make()
        trainer = fit(whole, steps=7, callbacks=[_SaveAt(folder, (2, 3))])
        for step, saves in resumes:  # with validation, which must not change anything
            again = make()
            path, save = Path(folder, f"{step}.ckpt"), _SaveAt(folder, (saves,))
            resumed = fit(again, steps=7, ckpt_path=str(path), callbacks=[save], limit_val_batches=1)
            _assert_equal(_state(whole), _state(again), f"different after resuming at step {step}:")
            for a, b in zip(trainer.optimizers, resumed.optimizers, strict=True):
                same = zip(tree_leaves(a.state_dict()), tree_leaves(b.state_dict()), strict=True)
                equal = all(torch.equal(x, y) if isinstance(x, Tensor) else x == y for x, y in same)
                assert equal, f"the optimizer's state differs after resuming at step {step}"


def check_validation(make: Make) -> None:
    """`validate` on a checkpoint finds what validation at this step of the training has found."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "3.ckpt"))
        model = make()
        trainer = fit(model, steps=3, limit_val_batches=1)
        found = {name: value.item() for name, value in trainer.callback_metrics.items() if name.startswith("val/")}

        trainer.save_checkpoint(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            again = Trainer(accelerator="cpu", limit_val_batches=1, logger=False, enable_progress_bar=False)
            (alone,) = again.validate(make(), NoiseImages(model), ckpt_path=path, verbose=False)
    assert {"val/D/loss", "val/G/loss"} <= found.keys(), f"validation in training shows {[*found]}, not both losses"
    alone = {name: alone[name] for name in found}  # in training, loggers alone get the other values
    assert alone == found, f"validate finds {alone}, but validation in training {found}"


def check_bfloat16(make: Make) -> None:
    """Training works under bf16-mixed, with terms in float32 and gradients in about the direction of those in
    float32."""
    model = make().eval()  # dropout and noise would differ
    batch = _drawn(model)
    for player in PLAYERS:
        own = [p for p in getattr(model, player).parameters() if p.requires_grad]
        found = []
        for half in (False, True):
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                terms = getattr(model, f"{player}_loss")(batch)
            for name, term in terms.items():
                assert term.dtype == torch.float32, f"the {player}'s term {name!r} is {term.dtype}, not float32"
            gradients = torch.autograd.grad(sum(terms.values()), own, allow_unused=True)
            found.append(torch.cat([g.flatten().double() for g in gradients if g is not None]))
        cosine = torch.cosine_similarity(found[0], found[1], dim=0)
        dead = not any(gradient.any() for gradient in found)  # in a small network all ReLUs may be inactive
        assert dead or cosine > 0.9, f"the {player}'s gradient in bfloat16 has cosine {cosine:.2f} to that in float32"
    model = make()
    fit(model, steps=model.n_critic, precision="bf16-mixed")
    intact = all(p.isfinite().all() and p.dtype == torch.float32 for p in model.parameters())
    assert intact, "training in bf16-mixed leaves a parameter that is not finite, or not float32"


CHECKS = (
    check_constructor,
    check_latent,
    check_samples,
    check_clamped,
    check_terms,
    check_turns,
    check_shared_fakes,
    check_counting,
    check_files,
    check_resume,
    check_validation,
    check_bfloat16,
)
BATCH = 8


class NoiseImages(GANDataModule):
    """25 images of random bytes in the shape of the model's images, with labels, sources and labelled images; an
    epoch has three batches of 8."""

    def __init__(self, model: GANModule, batch_size: int = BATCH) -> None:
        super().__init__(batch_size=batch_size)
        _, self.channels, *size = model.sample(seeds=[0], source=sources(model, 1)).shape
        self.image_size = normal_size(size)
        self.num_classes = model.hparams.get("num_classes") or 2
        self.source_channels = model.source_channels
        self.labelled = True

    def make_dataset(self, split: Split) -> Images:
        return _Noise(self.channels, self.source_channels or 1, self.image_size, self.num_classes or 2)


class _Noise(ArrayImages):
    def __init__(self, channels: int, source_channels: int, size: Size, classes: int) -> None:
        n, generator = 3 * BATCH + 1, torch.Generator().manual_seed(0)
        shape = (n, channels + source_channels, *sides(size))
        noise = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
        super().__init__(noise[:, :channels], torch.arange(n) % classes)
        self.sources = noise[:, channels:]

    def __getitems__(self, tickets: Sequence[int]) -> Batch:
        batch = super().__getitems__(tickets)
        batch["source"] = self.sources[torch.tensor(tickets) % len(self)]
        batch["labelled"] = (batch["image"].flip(0), batch["label"].flip(0))
        return batch


def _drawn(model: GANModule) -> Batch:
    """A training batch of `NoiseImages`, with the random inputs of one update."""
    batch = scaled(next(iter(NoiseImages(model).train_dataloader())))
    return {**batch, **model.draw(BATCH, torch.Generator().manual_seed(0))}


def sources(model: GANModule, n: int) -> Tensor | None:
    """n source images for a translator, in its constructor's `image_size`, or 32; None for other models."""
    if model.source_channels is None:
        return None
    size = model.hparams.get("image_size", 32)
    shape = (n, model.source_channels, *sides(size))
    return 2 * torch.rand(shape, generator=torch.Generator().manual_seed(0)) - 1


def fit(
    model: GANModule,
    data: Any = None,
    *,
    steps: int,
    ckpt_path: str | None = None,
    callbacks: Iterable[Callback] = (),
    **trainer: Any,
) -> Trainer:
    """Train quietly on a CPU, on `NoiseImages` unless `data` is given; returns the trainer."""
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    settings = {"accelerator": "cpu", "max_epochs": -1, "logger": False, "limit_val_batches": 0, **quiet, **trainer}
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        it = Trainer(max_steps=steps, callbacks=list(callbacks), **settings)
        it.fit(model, data or NoiseImages(model), ckpt_path=ckpt_path)
    return it


class _SaveAt(Callback):
    def __init__(self, folder: str, steps: tuple[int, ...]) -> None:
        self.folder = folder
        self.steps = steps

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step in self.steps:
            trainer.save_checkpoint(Path(self.folder, f"{trainer.global_step}.ckpt"))


def _state(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def _assert_equal(a: dict[str, Tensor], b: dict[str, Tensor], what: str) -> None:
    different = [key for key in a if not torch.equal(a[key], b[key])]
    assert not different, f"{what} {different}"
