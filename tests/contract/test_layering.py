"""Which module may import which: the table of CONTRIBUTING.md."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ganzoo

ROOT = Path(__file__).parents[2] / "ganzoo"
FILES = sorted(path.relative_to(ROOT).with_suffix("").as_posix() for path in ROOT.rglob("*.py"))

RANK_0 = {
    f"core/{name}"
    for name in ("allocator", "atomic", "environment", "finite", "limits", "pixels", "random", "text", "types")
}
RANK_0 |= {"checkpoint/bounds", "checkpoint/inert", "checkpoint/pickles", "checkpoint/tensors", "core/files"}
RANK_0 |= {"core/signals", "core/processes"}
RANK_0 |= {"functional", "layers"}
RANK_1 = {"networks", "augment", "games", "penalties", "optim", "core/compiler", "core/ema", "core/frozen", "core/pool"}
RANK_1 |= {"core/options"}
PARTS = {"arguments", "batch", "consensus", "from_data", "held_out", "lightning_fixes", "loss_log", "pickling"}
PARTS |= {"penalised", "drawing", "player", "readings", "restored", "runs", "sampling", "strategy", "training_state"}
CORE = {"core/module", "checkpoint/sealed", *(f"core/{part}" for part in PARTS)}
TORCH = {"torch", "numpy"}
LIGHTNING = {*TORCH, "lightning", "torchvision", "torchmetrics", "torch_fidelity", "sklearn", "PIL", "av", "mlxtend"}
LIGHTNING |= {"pyarrow", "tifffile"}
DATA = {"checkpoint/bounds", *(f"core/{name}" for name in ("atomic", "files", "types", "random", "limits", "pixels"))}
DATA |= {
    "core/signals",
    "core/text",
    "data/agreed",
    "data/archive",
    "data/datasets",
    "data/order",
    "data/decoding",
    "data/finding",
    "data/labels",
    "data/reading",
    "data/rasters",
    "data/rows",
}
TOGETHER = {"choice", "comparison", "extractors", "measure", "sweep"}  # may import other modules of `evaluation`
ANYTHING = {"*"}

# package or file -> (modules of ganzoo that it may import besides its own base, libraries)
RULES: dict[str, tuple[set[str], set[str]]] = {
    **{name: (set(), TORCH) for name in RANK_0},
    "checkpoint/inert": (set(), set()),  # read in a small process
    "checkpoint/layouts": ({"checkpoint/inert"}, {"torch"}),
    "core/atomic": ({"core/files"}, TORCH),
    "core/options": ({"core/limits", "core/text"}, TORCH),
    "checkpoint/tensors": ({"checkpoint/bounds", "checkpoint/pickles"}, TORCH),
    **{name: (RANK_0, TORCH) for name in RANK_1},
    **{name: (RANK_0 | {"core/options"}, TORCH) for name in ("augment", "penalties")},
    "networks/features": (RANK_0 | {"evaluation/classifier", "evaluation/downloads"}, {*TORCH, "torchvision"}),
    "networks/perceptual": (RANK_0 | {"networks/features"}, {*TORCH, "torchmetrics"}),
    "networks/stylegan3": (RANK_0 | {"networks/stylegan2"}, TORCH),
    "optim/game": (RANK_0 | {"optim/adam"}, TORCH),
    "functional": (set(), {*TORCH, "scipy", "sklearn", "threadpoolctl"}),
    "games": (RANK_0, {*TORCH, "scipy"}),
    **{name: (RANK_0 | RANK_1 | CORE | {"data/decoding", "data/reading"}, LIGHTNING) for name in CORE},
    "data": (DATA, LIGHTNING),
    **{
        f"data/{name}": (DATA | {"data"}, LIGHTNING)
        for name in ("derived", "emoji", "paired", "prepare", "shards", "stacked")
    },
    "evaluation/inception": (RANK_0 | {"evaluation/downloads", "evaluation/interfaces"}, LIGHTNING),
    "evaluation": (RANK_0 | {"evaluation/determinism", "evaluation/interfaces"}, {*LIGHTNING, "safetensors"}),
    "evaluation/perceptual": (
        RANK_0 | {f"evaluation/{name}" for name in ("determinism", "downloads", "interfaces")},
        LIGHTNING,
    ),
    **{f"evaluation/{name}": (RANK_0 | {"evaluation"}, LIGHTNING) for name in TOGETHER},
    "evaluation/assemble": (RANK_0 | CORE | {"data", "evaluation", "networks/features"}, TORCH),
    "variants": (RANK_0 | RANK_1 | CORE, {"torch", "lightning"}),
    "callbacks": (RANK_0 | RANK_1 | CORE | {"evaluation"}, {*LIGHTNING, "rich", "yaml"}),
    "checkpoint/official": (RANK_0 | CORE | {"", "checkpoint", "variants"}, {"torch"}),
    "checkpoint/pretrained": (RANK_0 | CORE | {"", "variants"}, {"torch", "safetensors"}),
}


def rule(name: str) -> tuple[set[str], set[str]]:
    return RULES.get(name) or RULES.get(name.split("/")[0]) or (ANYTHING, ANYTHING)


def imports(name: str) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / f"{name}.py").read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def ours(module: str) -> str | None:
    """`ganzoo.core.types.Batch` -> `core/types`; None for a library."""
    parts = module.split(".")
    if parts[0] != "ganzoo":
        return None
    for length in range(len(parts), 1, -1):
        if (ROOT / Path(*parts[1:length])).with_suffix(".py").exists():
            return "/".join(parts[1:length])
    return parts[1] if len(parts) > 1 and (ROOT / parts[1]).is_dir() else ""


@pytest.mark.parametrize("name", [name for name in FILES if not name.endswith("__init__")])
def test_imports_follow_the_rules(name):
    mine, libraries = rule(name)
    package = name.rpartition("/")[0]
    found = imports(name)
    parents = {
        ours(module) for module in found if package == "variants" and (ours(module) or "").startswith("variants/")
    }
    assert len(parents) <= 1, f"{name} has more than one parent: {parents}"
    siblings = {f"{package}/base", *parents}
    for module in found:
        target = ours(module)
        if target is None:
            top = module.split(".")[0]
            allowed = top in libraries or "*" in libraries or top in sys.stdlib_module_names
            assert allowed, f"{name} imports {top}: not in its rank"
        else:
            allowed = "*" in mine or target in mine or target.split("/")[0] in mine or target in siblings
            assert allowed, f"{name} imports {target}: a rank above its own, or a sibling"


def test_every_module_has_a_rule():
    free = {"__init__", "__main__", "testing", "cli", "theory"}
    assert {name for name in FILES if rule(name)[0] == ANYTHING} <= {
        name for name in FILES if name.split("/")[0] in free or name.endswith("__init__")
    }


@pytest.mark.parametrize("name", FILES)
def test_no_class_accesses_private_names_of_another(name):
    """Except in `core/lightning_fixes`, for `torch._foreach_...`, and for the methods of named tuples."""
    tree = ast.parse((ROOT / f"{name}.py").read_text())
    defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}  # of the same module
    free = {"_asdict", "_fields", "_replace", "_exit", *defined}
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    inside = {id(node) for cls in classes for node in ast.walk(cls)}  # where `self` is an instance
    for node in ast.walk(tree) if name != "core/lightning_fixes" else ():
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            of = ast.unparse(node.value) if id(node) in inside else f"{ast.unparse(node.value)} outside of a class"
            of = of.replace("torch outside of a class", "torch")
            assert of in ("self", "cls", "super()", "torch") or node.attr in free, (
                f"line {node.lineno}: {of}.{node.attr}"
            )


def test_core_names_no_variant():
    """Neither as a class nor as a module."""
    names = {*ganzoo.list_models(), "ganzoo.variants"}
    for path in (ROOT / "core").glob("*.py"):
        strings = [n.value for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Constant)]
        assert not names & {value for value in strings if isinstance(value, str)}, path
        assert "ganzoo.variants" not in path.read_text(), path


def test_the_four_files_from_config_to_optimizer_step_are_short():
    """The config, the variant, the module and the player, without docstrings."""
    parts = ["../configs/dcgan/digits.yaml", "variants/dcgan.py", "core/module.py", "core/player.py"]
    lines = {part: len((ROOT / part).read_text().splitlines()) for part in parts}
    for part in parts[1:]:
        for node in ast.walk(ast.parse((ROOT / part).read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
                lines[part] -= node.body[0].end_lineno - node.body[0].lineno + 1
    assert sum(lines.values()) <= 500 and lines["core/module.py"] <= 340, lines


def test_importing_ganzoo_does_not_import_torch_lightning_or_yaml():
    code = "import sys, ganzoo, ganzoo.cli; print([m for m in ('torch', 'lightning', 'yaml') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_a_new_variant_is_registered_by_one_line(tmp_path):
    """A copy of the package with one more file and one more line lists the new variant without importing torch."""
    for folder in ("ganzoo", "ganzoo/variants"):
        (tmp_path / folder).mkdir()
        for path in (ROOT.parent / folder).iterdir():
            if path.name not in ("__init__.py", "variants", "__pycache__"):
                (tmp_path / folder / path.name).symlink_to(path)
    (tmp_path / "ganzoo/variants/new_gan.py").write_text('"""NewGAN: A paper (2026)."""\n\n\nclass NewGAN: ...\n')
    source = (ROOT / "__init__.py").read_text()
    after = "    from ganzoo.variants.dcgan import DCGAN as DCGAN\n"
    assert source.count("dcgan") == source.count(after) == 1, "a variant stands in one line"
    new = after.replace("dcgan", "new_gan").replace("DCGAN", "NewGAN")
    (tmp_path / "ganzoo/__init__.py").write_text(source.replace(after, after + new))
    code = """
import sys, ganzoo
from ganzoo.__main__ import main
names = ganzoo.list_models()
assert names[names.index("DCGAN") + 1] == "NewGAN" and "NewGAN" in dir(ganzoo)
main(["list"])
assert "torch" not in sys.modules
from ganzoo import NewGAN
assert NewGAN.__module__ == ganzoo.VARIANTS["NewGAN"] == "ganzoo.variants.new_gan"
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0 and "NewGAN" in run.stdout, run.stderr
