"""The feature table of the documentation, measured for every variant.

`python -m tests.contract.test_features` writes it.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.utilities.exceptions import MisconfigurationException

import ganzoo
from ganzoo.augment import ADA, APA, DiffAugment
from ganzoo.core import penalised
from ganzoo.core.batch import microbatches
from ganzoo.core.frozen import evaluating
from ganzoo.core.pixels import scaled
from ganzoo.core.player import PLAYERS
from ganzoo.penalties import BCR, R1, ZCR, LeCam, Orthogonal
from ganzoo.testing import BATCH, NoiseImages, fit
from tests.variants import small

TABLE = Path(__file__).parents[2] / ".github" / "docs" / "features.md"
BEGIN, END = "<!-- features: python -m tests.contract.test_features -->\n", "<!-- end of features -->"
ANSWERS = ("yes", "no")
REFUSED = (ValueError, TypeError, MisconfigurationException)


def make(name, **more):
    torch.manual_seed(0)
    return getattr(ganzoo, name)(**small(name), **more)


def trained(model, steps=1, **trainer):
    """Train and check that the weights are finite."""
    fit(model, steps=steps, **trainer)
    assert all(p.isfinite().all() for p in model.parameters())
    return "yes"


def with_argument(name, train=True, **argument):
    """Whether the constructor accepts the argument, with `n_critic` 1 if need be; a refusal must name one of them."""
    for turns, answer in (({}, "yes"), ({"n_critic": 1}, "with n_critic 1")):
        try:
            model = make(name, **argument, **turns)
        except REFUSED as error:
            assert next(iter(argument)) in str(error) or "n_critic" in str(error), error
            continue
        return trained(model) and answer if train else answer
    return "no"


def compiled(name):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))  # traced, no codegen
        return trained(make(name, compile_losses=True))


def half(name, kind):
    if kind == "16-mixed":  # Lightning's scaler is for GPUs
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
        return trained(make(name), plugins=[MixedPrecision("16-mixed", "cpu", scaler)])
    return trained(make(name), precision=kind)


def whole_half(name):
    with pytest.raises(MisconfigurationException, match="use 32-true, bf16-mixed or 16-mixed"):
        fit(make(name), steps=1, precision="bf16-true")
    return "no"


def synchronised(name):
    """Train with every batch norm converted to SyncBatchNorm, which in one process also runs on a CPU."""
    model = make(name)
    if not any(isinstance(m, torch.nn.modules.batchnorm._BatchNorm) for m in model.modules()):
        return "-"
    try:
        return trained(torch.nn.SyncBatchNorm.convert_sync_batchnorm(model))
    except TypeError:  # a subclass whose forward takes more than the images
        return "no"


def augmented(name, augment, **options):
    """Whether a variant trains with it, beyond the first change of its strength, if it has one; a refusal must name
    its cure.
    """
    steps = 1 if augment is DiffAugment else 5
    for p, answer in (({}, "yes"), ({"p": 0.5}, "with p")):
        try:
            return trained(make(name, augment=augment(**options, **p)), steps=steps) and answer
        except REFUSED as error:
            assert str(error).endswith("set p, for example to 0.2")
    return "no"


def accepted(name, **argument):
    """Whether a variant, at its default norms, accepts an option; `test_penalties` trains with all that it accepts."""
    try:
        penalised.check(make(name, **argument))
    except REFUSED as error:
        assert f"does not work with {name}: " in str(error)
        return "no"
    return "yes"


def drawn(model):
    batch = scaled(next(iter(NoiseImages(model).train_dataloader())))
    return {**batch, **model.draw(BATCH, torch.Generator().manual_seed(0))}


def gradients(model, batches):
    """Gradients of both players' losses, averaged over the batches."""
    found = []
    for player in PLAYERS:
        own = [p for p in getattr(model, player).parameters() if p.requires_grad]
        losses = [sum(getattr(model, f"{player}_loss")(batch).values()) for batch in batches]
        parts = torch.autograd.grad(sum(losses) / len(batches), own, allow_unused=True)
        found += [g.flatten() for g in parts if g is not None]
    return torch.cat(found)


def halves(name):
    """Whether the mean gradient of two half batches is that of the whole batch, as gradient accumulation and several
    processes assume. Without dropout and noise, which differ by process.
    """
    model = make(name)
    for module in model.modules():
        if not isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.training = False
    batch = drawn(model)
    whole, parts = gradients(model, [batch]), gradients(model, list(microbatches(batch, 2)))
    return "yes" if (whole - parts).norm() < 1e-3 * whole.norm() else "no"


def reads(name, key):
    """Whether a loss reads this key of a batch: without it the terms change or an error is raised."""
    model, read = make(name), False
    with evaluating(model):
        for player in PLAYERS:
            batch, equation = drawn(model), getattr(model, f"{player}_loss")
            terms = equation(batch)
            batch.pop(key)
            try:
                others = equation(batch)
                read |= others.keys() != terms.keys() or any(not torch.equal(others[k], terms[k]) for k in terms)
            except (KeyError, MisconfigurationException):
                read = True
    return "yes" if read else ""


FEATURES = {
    "`consensus`": lambda name: with_argument(name, consensus=1.0),
    "`share_fakes`": lambda name: with_argument(name, False, share_fakes=True),  # the contract tests train with both
    "`microbatches`": lambda name: with_argument(name, False, microbatches=2),
    "parts add up": halves,
    "`compile_losses`": compiled,
    "bf16-mixed": lambda name: half(name, "bf16-mixed"),
    "16-mixed": lambda name: half(name, "16-mixed"),
    "16-true, bf16-true, 64-true": whole_half,
    "`sync_batchnorm`": synchronised,
    "reads labels": lambda name: reads(name, "label"),
    "few labels": lambda name: reads(name, "labelled"),
    "sources": lambda name: reads(name, "source"),
    "`DiffAugment`": lambda name: augmented(name, DiffAugment, color=False),  # the sources here have two channels
    "`ADA`": lambda name: augmented(name, ADA, color=0.0),
    "`APA`": lambda name: augmented(name, APA),
    "`R1`, `R2`, `GradientPenalty`": lambda name: accepted(name, penalties=R1()),
    "`R1` by differences": lambda name: accepted(name, penalties=R1(difference=0.01)),
    "`BCR`": lambda name: accepted(name, penalties=BCR()),
    "`ZCR`": lambda name: accepted(name, penalties=ZCR()),
    "`LeCam`": lambda name: accepted(name, penalties=LeCam()),
    "`Orthogonal`": lambda name: accepted(name, penalties=Orthogonal()),
    "`top_k`": lambda name: accepted(name, top_k=0.5),
    "`freeze_d`": lambda name: accepted(name, freeze_d=1),
}


GROUPS = list(FEATURES)[:12], list(FEATURES)[12:]  # tables that fit on a page


def table(found):
    """Markdown of {(variant, feature): cell}: a line for the features that all variants have, or lack, and tables."""
    names = ganzoo.list_models()
    cells = {feature: {found[name, feature] for name in names} for feature in FEATURES}
    lines = [
        f"- {answer} for all variants: {'; '.join(f for f in FEATURES if cells[f] == {answer})}" for answer in ANSWERS
    ]
    for group in GROUPS:
        features = [feature for feature in group if len(cells[feature]) > 1]
        lines += ["", "| | " + " | ".join(features) + " |", "|---" * (len(features) + 1) + "|"]
        lines += [f"| `{name}` | {' | '.join(found[name, feature] for feature in features)} |" for name in names]
    return "\n".join([*lines, ""])


@functools.cache
def committed():
    """{(variant, feature): cell} of the committed lines and tables."""
    text, found, names = TABLE.read_text(), {}, ganzoo.list_models()
    first, *parts = text[text.index(BEGIN) + len(BEGIN) : text.index(END)].strip().split("\n\n")
    for line in first.splitlines():
        answer, _, features = line.removeprefix("- ").partition(" for all variants: ")
        found |= {(name, feature): answer for name in names for feature in features.split("; ")}
    for part in parts:
        head, _, *rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in part.splitlines()]
        for name, *cells in rows:
            found |= {(name.strip("`"), feature): cell for feature, cell in zip(head[1:], cells, strict=True)}
    return found


SLOW = {"`compile_losses`"}  # takes seconds per variant
SLOW |= {"bf16-mixed", "16-true, bf16-true, 64-true"}  # the contract tests and `test_turns` do the same


@pytest.mark.parametrize("feature", [pytest.param(f, marks=[pytest.mark.slow] * (f in SLOW)) for f in FEATURES])
@pytest.mark.parametrize("name", ganzoo.list_models())
def test_the_documented_feature_table_is_correct(name, feature):
    assert FEATURES[feature](name) == committed()[name, feature]


def test_the_table_has_all_variants():
    assert set(committed()) == {(name, feature) for name in ganzoo.list_models() for feature in FEATURES}


if __name__ == "__main__":
    torch.set_num_threads(1)
    made = table({(name, feature): FEATURES[feature](name) for name in ganzoo.list_models() for feature in FEATURES})
    text = TABLE.read_text()
    TABLE.write_text(re.sub(f"(?s){re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: BEGIN + made + END, text))
