"""`python -m tests.campaigns.mutants`: do the tests of a variant detect a wrong number in it?

One number (times 1.5, plus 1, negated) or activation in `ganzoo/variants/X.py`, or in the networks and layers that it
imports, is changed in a copy of the package. The variant's test files run on the copy, then those of the other variants
that use the changed file. A mutant that passes all of them survives: the number is untested, or has no effect. Runs the
mutants that once survived (`NAMED`) and a few random ones.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import ganzoo

ROOT = Path(__file__).parents[2]
ACTIVATIONS = {"ReLU": "LeakyReLU", "LeakyReLU": "ReLU", "Tanh": "Sigmoid", "Sigmoid": "Tanh", "Softplus": "ReLU"}
ACTIVATIONS |= {"relu": "tanh", "leaky_relu": "relu", "tanh": "relu", "sigmoid": "tanh", "softplus": "relu"}
# Run in addition to a variant's own test file
COMMON = ["tests/contract/test_losses.py", "tests/unit/test_layers.py", "tests/unit/test_residual.py"]


class Mutant(NamedTuple):
    """A change of one file's text.

    Attributes:
        file: path from the repository's root.
        old: text that occurs once in it.
        new: its replacement.
    """

    file: str
    old: str
    new: str


NAMED: dict[str, list[Mutant]] = {  # mutants that once survived
    "GAN": [
        Mutant("ganzoo/variants/gan.py", "math.sqrt(3)", "1.0"),
        Mutant("ganzoo/variants/gan.py", "lr=0.1", "lr=0.15"),
        Mutant("ganzoo/variants/gan.py", "momentum=0.5", "momentum=0.75"),
        Mutant("ganzoo/networks/mlp.py", "logit(1e-7)", "logit(1e-6)"),
    ],
    "MLPGAN": [
        Mutant("ganzoo/variants/mlpgan.py", "lr=0.01", "lr=0.015"),
        Mutant("ganzoo/variants/mlpgan.py", "self.discriminator, 0.002", "self.discriminator, 0.003"),
    ],
    "LSGAN": [
        Mutant("ganzoo/variants/lsgan.py", "lr=1e-3", "lr=2e-3"),
        Mutant("ganzoo/variants/lsgan.py", "beta1=0.5", "beta1=0.75"),
        Mutant("ganzoo/variants/lsgan.py", "a: float = 0.0", "a: float = -1.0"),
    ],
    "WGAN": [Mutant("ganzoo/variants/wgan.py", "lr=5e-5", "lr=7.5e-5")],
    "WGANGP": [
        Mutant("ganzoo/variants/wgangp.py", "lr=1e-4", "lr=2e-4"),
        Mutant("ganzoo/variants/wgangp.py", "beta1=0.0", "beta1=0.5"),
        Mutant("ganzoo/variants/wgangp.py", "beta2=0.9", "beta2=0.99"),
        Mutant("ganzoo/variants/wgangp.py", "= 10.0", "= 15.0"),
        Mutant("ganzoo/variants/wgangp.py", "n_critic: Count = 5", "n_critic: Count = 6"),
        Mutant("ganzoo/networks/dcgan.py", "nn.GroupNorm(1, channels)", "nn.GroupNorm(channels, channels)"),
    ],
    "DCGAN": [
        Mutant("ganzoo/variants/dcgan.py", "beta1=0.5", "beta1=0.75"),
        Mutant("ganzoo/networks/dcgan.py", "top // 2), nn.ReLU()", "top // 2), nn.LeakyReLU()"),
        Mutant("ganzoo/networks/dcgan.py", "nn.LeakyReLU(0.2, inplace=True),", "nn.ReLU(),"),
        Mutant("ganzoo/networks/dcgan.py", "nn.LeakyReLU(0.2, inplace=True)]", "nn.ReLU()]"),
        Mutant("ganzoo/layers/init.py", "1.0 if isinstance(module, NORMS)", "1.5 if isinstance(module, NORMS)"),
    ],
    "CGAN": [Mutant("ganzoo/networks/cgan.py", "self.z(2 * z - 1)", "self.z(z)")],
    "CycleGAN": [
        Mutant("ganzoo/variants/cyclegan.py", "beta1=0.5", "beta1=0.75"),
        Mutant("ganzoo/variants/cyclegan.py", "cycle: NonNegative = 10.0", "cycle: NonNegative = 15.0"),
        Mutant("ganzoo/networks/resnet.py", 'padding=1, padding_mode="reflect"', 'padding=1, padding_mode="zeros"'),
    ],
    "InfoGAN": [
        Mutant("ganzoo/variants/infogan.py", "lr=1e-3, beta1=0.5", "lr=1e-3, beta1=0.75"),
        Mutant("ganzoo/variants/infogan.py", "lr=2e-4, beta1=0.5", "lr=2e-4, beta1=0.75"),
        Mutant("ganzoo/networks/infogan.py", "nn.LeakyReLU(0.1)", "nn.LeakyReLU(0.2)"),
    ],
    "ACGAN": [
        Mutant("ganzoo/variants/acgan.py", "lr=2e-4", "lr=3e-4"),
        Mutant("ganzoo/variants/acgan.py", "beta1=0.5", "beta1=0.75"),
    ],
    "ContraGAN": [
        Mutant("ganzoo/variants/contragan.py", "attention: Count = 16", "attention: Count = 8"),
    ],
    "ReACGAN": [
        Mutant("ganzoo/variants/reacgan.py", "attention: Count = 16", "attention: Count = 8"),
    ],
    "FastGAN": [
        Mutant("ganzoo/variants/fastgan.py", "0.8 + 0.2 * margins", "0.7 + 0.2 * margins"),
        Mutant("ganzoo/variants/fastgan.py", "reconstruction: NonNegative = 8.0", "reconstruction: NonNegative = 1.0"),
        Mutant(
            "ganzoo/networks/fastgan.py",
            "normal_(self, 0.02)\n        self.to(memory_format=torch.channels_last)\n\n    def forward(self, x",
            "normal_(self, 0.03)\n        self.to(memory_format=torch.channels_last)\n\n    def forward(self, x",
        ),
        Mutant("ganzoo/networks/fastgan.py", "[small, small, part]", "[small, part, small]"),
        Mutant("ganzoo/layers/gated.py", "torch.zeros(())", "torch.ones(())"),
    ],
    "Pix2Pix": [
        Mutant("ganzoo/variants/pix2pix.py", "lr=2e-4", "lr=3e-4"),
        Mutant("ganzoo/variants/pix2pix.py", "beta1=0.5", "beta1=0.75"),
    ],
    "EBGAN": [
        Mutant("ganzoo/variants/ebgan.py", "FusedAdam(params, lr=1e-3)", "FusedAdam(params, lr=2e-3)"),
        Mutant(
            "ganzoo/networks/autoencoder.py", "nn.Linear(pixels, hidden), nn.ReLU", "nn.Linear(pixels, hidden), nn.Tanh"
        ),
        Mutant("ganzoo/networks/autoencoder.py", "nn.BatchNorm1d(hidden), nn.ReLU", "nn.BatchNorm1d(hidden), nn.Tanh"),
        Mutant("ganzoo/networks/autoencoder.py", "*norm_down, nn.ReLU()", "*norm_down, nn.LeakyReLU()"),
    ],
    "ImprovedGAN": [
        Mutant("ganzoo/variants/improved_gan.py", "averaging: PositiveShare = 1e-4", "averaging: PositiveShare = 1e-3"),
        Mutant(
            "ganzoo/networks/improved.py", "nn.init.ones_(weight_norm(last).parametrizations.weight.original0)", "pass"
        ),
        Mutant("ganzoo/networks/improved.py", "weight_norm(last, dim=1)", "last"),
        Mutant("ganzoo/networks/improved.py", "(layers[:-1], layers[-1], ", "(layers, nn.Identity(), "),
    ],
    "LAPGAN": [
        Mutant("ganzoo/networks/laplacian.py", "nn.Dropout(0.5)", "nn.Dropout(0.75)"),
        Mutant("ganzoo/variants/lapgan.py", "layers=3, dropout=0.5", "layers=3, dropout=0.75"),
    ],
    "SNGAN": [
        Mutant("ganzoo/variants/sngan.py", "lr=2e-4", "lr=3e-4"),
        Mutant("ganzoo/networks/sndcgan.py", "2 * maps, maps, 4", "2 * maps, maps, 4, bias=False"),
        Mutant("ganzoo/layers/spectral.py", "if layer.training:", "if True:"),
    ],
    "ProjectionGAN": [Mutant("ganzoo/variants/projectiongan.py", "n_critic: Count = 5", "n_critic: Count = 6")],
    "SAGAN": [Mutant("ganzoo/variants/sagan.py", "attention=attention, wide=True", "attention=attention")],
    "BigGAN": [
        Mutant("ganzoo/variants/biggan.py", "wide=True, orthogonal=True", "wide=True"),
        Mutant("ganzoo/layers/standing.py", "True, None", "True, 0.1"),
    ],
    "R3GAN": [
        Mutant("ganzoo/variants/r3gan.py", "t[i::2]", "t.chunk(2)[i]"),
        Mutant("ganzoo/variants/r3gan.py", "max(1.0, at(0.0,", "max(1.0, at(self.final_half_life,"),
        Mutant("ganzoo/networks/r3gan.py", "n if of_d else 1", "1"),
    ],
    "ProjectedGAN": [
        Mutant("ganzoo/variants/projectedgan.py", "cutout=0.2", "cutout=0.3"),
        Mutant("ganzoo/variants/projectedgan.py", "20_000.0", "30_000.0"),
        Mutant("ganzoo/variants/projectedgan.py", "beta2=0.99", "beta2=0.999"),
        Mutant("ganzoo/networks/projected.py", "align_corners=True", "align_corners=False"),
        Mutant("ganzoo/networks/projected.py", "PROJECTED**-0.5", "PROJECTED**-1"),
        Mutant("ganzoo/networks/projected.py", "max(1, round(log2(side / 8)))", "round(log2(side / 8))"),
        Mutant("ganzoo/networks/projected.py", "self.first(self.normalise(z))", "self.first(1.5 * self.normalise(z))"),
        Mutant("ganzoo/networks/projected.py", "nn.LeakyReLU(0.2)]", "nn.ReLU()]"),
    ],
    "ProGAN": [
        Mutant("ganzoo/variants/progan.py", "k / self.norm", "1 / self.norm"),
        Mutant("ganzoo/variants/progan.py", "drift: NonNegative = 1e-3", "drift: NonNegative = 1e-2"),
        Mutant("ganzoo/networks/progan.py", "bias=1.0", "bias=2.0"),
        Mutant("ganzoo/functional/schedules.py", "stable + fade, images_seen - stable", "stable + fade, images_seen"),
    ],
    "StyleGAN2": [
        Mutant("ganzoo/variants/stylegan.py", "W_DECAY = 0.998", "W_DECAY = 0.995"),
        Mutant("ganzoo/variants/stylegan2.py", "t: t[::2]", "t: t"),
        Mutant("ganzoo/layers/modulated.py", "EPS = 1e-8", "EPS = 1e-3"),
        Mutant("ganzoo/layers/equalised.py", "LARGEST = 256.0", "LARGEST = 128.0"),
        Mutant("ganzoo/networks/stylegan2.py", "rate=0.01, active", "rate=0.1, active"),
    ],
    "StyleGAN3": [
        Mutant("ganzoo/variants/stylegan3.py", "Positive = 20_000.0", "Positive = 30_000.0"),
        Mutant("ganzoo/variants/stylegan3.py", "gamma: NonNegative = 32.8", "gamma: NonNegative = 10.0"),
        Mutant("ganzoo/networks/stylegan3.py", "MARGIN = 10", "MARGIN = 8"),
        Mutant("ganzoo/networks/stylegan3.py", "** 0.25", "** 0.5"),
        Mutant("ganzoo/layers/filtered.py", "cut = ((size - 1) * up", "cut = (size * up"),
    ],
    "LadderEBGAN": [
        Mutant("ganzoo/variants/ladder_ebgan.py", "noise: NonNegative = 0.3", "noise: NonNegative = 0.45"),
        Mutant("ganzoo/variants/ladder_ebgan.py", "(5000.0,)", "(7500.0,)"),
        Mutant("ganzoo/variants/ladder_ebgan.py", "lr=2e-3", "lr=3e-3"),
        Mutant("ganzoo/networks/ladder.py", "layer.in_features**-0.5", "layer.in_features**-0.75"),
        Mutant("ganzoo/networks/ladder.py", "self.a[[1, 6]] = 1.0", "self.a[[1, 6]] = 0.5"),
    ],
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m tests.campaigns.mutants", description=__doc__)
    parser.add_argument("--variant", choices=ganzoo.list_models(), help="one variant (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random choice of mutants (default: 0)")
    parser.add_argument("--drawn", type=int, default=3, help="number of random mutants per variant (default: 3)")
    options = parser.parse_args(arguments)
    survivors = 0
    for name in [options.variant] if options.variant else ganzoo.list_models():
        if tried(name, None) != "SURVIVES":
            parser.error(f"the tests of {name} fail without a mutant: fix them first")
        chosen = random.Random(f"{options.seed} {name}")
        every = list(mutants(name))
        for mutant in [*NAMED.get(name, []), *chosen.sample(every, min(options.drawn, len(every)))]:
            verdict = tried(name, mutant)
            survivors += verdict != "caught"
            print(f"{name}: {verdict}: {mutant.file}: {one_line(mutant.old)} -> {one_line(mutant.new)}", flush=True)
    print(f"{survivors} mutants not caught")
    return min(survivors, 1)


def one_line(text: str) -> str:
    return " ".join(text.split())


@cache
def sources(variant: str) -> dict[Path, list[ast.stmt]]:
    """The functions and classes that a variant uses, by file: its own, its parent's, those of networks and layers."""
    found: dict[Path, list[ast.stmt]] = {}
    queue = [(ROOT / "ganzoo" / Path(*ganzoo.VARIANTS[variant].split(".")[1:]).with_suffix(".py"), variant)]
    while queue:
        file, name = queue.pop()
        tree = parsed(file)
        for node in tree.body:
            if getattr(node, "name", None) != name or node in found.get(file, []):
                continue
            found.setdefault(file, []).append(node)
            used = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
            queue += [(file, other) for other in used]
            for line in ast.walk(tree):
                parts = (line.module or "").split(".") if isinstance(line, ast.ImportFrom) else []
                if parts[:1] == ["ganzoo"] and parts[1] in ("variants", "networks", "layers"):
                    place = ROOT.joinpath(*parts).with_suffix(".py")
                    queue += [(place, alias.name) for alias in line.names if alias.name in used]
    return found


@cache  # the nodes of a file are then the same objects
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


def mutants(variant: str) -> Iterator[Mutant]:
    """All mutants of the code that a variant uses: each replaces a line, with one number or activation changed."""
    for file, definitions in sources(variant).items():
        text = file.read_text()
        lines = text.splitlines()
        for node in (node for definition in definitions for node in ast.walk(definition)):
            for new in replacements(node):
                line, start, end = lines[node.lineno - 1], node.col_offset, node.end_col_offset
                if line.isascii() and text.count(line) == 1:  # columns count bytes
                    name = file.relative_to(ROOT).as_posix()
                    yield Mutant(name, line, line[:start] + new + line[end:])


def replacements(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        values = [type(node.value)(node.value * 1.5), node.value + 1, -node.value]
        return [repr(value) for value in dict.fromkeys(values) if value != node.value]
    if isinstance(node, ast.Attribute) and node.attr in ACTIVATIONS and isinstance(node.value, ast.Name):
        return [f"{node.value.id}.{ACTIVATIONS[node.attr]}"]
    return [ACTIVATIONS[node.id]] if isinstance(node, ast.Name) and node.id in ACTIVATIONS else []


def tried(variant: str, mutant: Mutant | None) -> str:
    """Runs the tests on a copy of the package, with the mutant if given: "SURVIVES" if they pass, else "caught"; "NOT
    THERE" or "NOT ALONE" if the old text does not occur exactly once."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for part in ("ganzoo", "tests", "configs"):
            shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
        for part in ("pyproject.toml", "README.md"):
            shutil.copy(ROOT / part, copy)
        if mutant is not None:
            file = copy / mutant.file
            text = file.read_text()
            if text.count(mutant.old) != 1:
                return "NOT THERE" if mutant.old not in text else "NOT ALONE"
            file.write_text(text.replace(mutant.old, mutant.new))
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "0", *files_for(variant, mutant)]
        environment = {**os.environ, "PYTHONPATH": folder, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    return "SURVIVES" if done.returncode == 0 else "caught"


def files_for(variant: str, mutant: Mutant | None) -> list[str]:
    """The test files to run, the variant's own first."""
    users = [name for name in ganzoo.list_models() if mutant and ROOT / mutant.file in sources(name)]
    modules = [ganzoo.VARIANTS[name].rsplit(".", 1)[-1] for name in dict.fromkeys([variant, *users])]
    own, *others = (f"tests/unit/test_{module}.py" for module in modules)
    return [own, *COMMON, *others]


if __name__ == "__main__":
    raise SystemExit(main())
