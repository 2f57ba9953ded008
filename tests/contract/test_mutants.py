"""The mutation campaign: the mutants that it makes, and its verdicts."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import pytest

import ganzoo
from tests.campaigns import mutants
from tests.campaigns.mutants import COMMON, NAMED, ROOT, Mutant, files_for, replacements, sources, tried


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("2", ["3", "-2"]),
        ("0", ["1"]),
        ("0.5", ["0.75", "1.5", "-0.5"]),
        ("nn.ReLU", ["nn.LeakyReLU"]),
        ("tanh", ["relu"]),
        ("True", []),
        ("'2'", []),
        ("nn.Linear", []),
    ],
)
def test_numbers_and_activations_are_mutated(code, changes):
    assert replacements(ast.parse(code, mode="eval").body) == changes


def test_the_mutated_networks_are_those_of_the_variant():
    names = {file.relative_to(ROOT / "ganzoo").as_posix() for file in sources("LSGAN")}
    networks = {f"networks/{name}.py" for name in ("base", "dcgan", "mlp")}
    assert names == {"variants/lsgan.py", *networks, "layers/base.py", "layers/init.py"}
    (mlp,) = [nodes for file, nodes in sources("LSGAN").items() if file.name == "mlp.py"]
    assert {node.name for node in mlp} == {"ReLUGenerator", "ReLUDiscriminator", "relu_stack"}


def test_mutants_of_shared_networks_run_the_tests_of_all_variants_that_use_them():
    assert files_for("CGAN", NAMED["CGAN"][0]) == files_for("CGAN", None) == ["tests/unit/test_cgan.py", *COMMON]
    own, *rest = files_for("LSGAN", NAMED["WGANGP"][-1])
    assert own == "tests/unit/test_lsgan.py" and {"tests/unit/test_dcgan.py", "tests/unit/test_wgangp.py"} < set(rest)
    assert all((ROOT / file).exists() for name in ganzoo.list_models() for file in files_for(name, None))


@pytest.mark.parametrize("name", ganzoo.list_models())
def test_every_variant_has_named_and_generated_mutants(name):
    assert NAMED[name]
    for file, old, _ in NAMED[name]:
        assert (ROOT / file).read_text().count(old) == 1, old
    found = list(mutants.mutants(name))
    assert len(found) > 10 and len({mutant.file for mutant in found}) > 1
    rounds = defaultdict(dict)  # mutants of different lines are parsed at once
    for file, old, new in found:
        rounds[file, sum(old in changes for (its, _), changes in rounds.items() if its == file)][old] = new
    for (file, _), changes in rounds.items():
        text = (ROOT / file).read_text()
        for old, new in changes.items():
            text = text.replace(old, new)
        ast.parse(text)


def test_mutants_are_caught_or_survive_by_the_exit_code_of_pytest(monkeypatch):
    codes = iter([0, 1])
    ran = []

    def run(command, cwd, **_):
        ran.append((Path(cwd, "ganzoo/variants/lsgan.py").read_text(), command[7:]))
        return type("Done", (), {"returncode": next(codes)})

    monkeypatch.setattr(mutants.subprocess, "run", run)
    mutant = Mutant("ganzoo/variants/lsgan.py", "beta1=0.5", "beta1=0.75")
    assert tried("LSGAN", mutant) == "SURVIVES" and tried("LSGAN", mutant) == "caught"
    assert "beta1=0.75" in ran[0][0] and "tests/unit/test_lsgan.py" in ran[0][1]
    assert tried("LSGAN", mutant._replace(old="beta1=0.6")) == "NOT THERE"
    assert tried("LSGAN", mutant._replace(old="b", new="c")) == "NOT ALONE" and len(ran) == 2
