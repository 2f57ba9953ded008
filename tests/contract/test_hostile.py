"""Untrusted files run no code and are refused in one line, within limits of memory and time: `tests/hostile.py`."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import runpy
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
import torchvision

from ganzoo.checkpoint.bounds import check_content, no_larger
from ganzoo.cli import main, trust
from ganzoo.cli.errors import UserError
from ganzoo.data import LSUN

GROUPS = ["checkpoints", "folders", "arrays", "weights", "pictures", "archives", "configs", "shards", "records"]
GROUPS += ["conversions", "runs", "controls"]
MEMORY = 280 << 20  # bytes by which all cases together may raise the process's peak; a bomb takes more

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are Linux's")


def child(folder: Path) -> None:
    """Runs `python -m tests.hostile` in a fork, which saves the imports; it prints to two files beside the folder."""
    places = {"TORCH_HOME": "torch", "GANZOO_CACHE": "cache", "TMPDIR": "", "MPLCONFIGDIR": ""}
    os.environ.update({name: str(folder / place) for name, place in places.items()})
    os.environ["PATH"] = f"{folder}:{os.environ['PATH']}"
    os.environ.pop("GANZOO_TRACEBACK", None)
    tempfile.tempdir = str(folder)
    torch.set_num_threads(1)
    os.chdir(folder)
    for number, name in enumerate(("out", "err"), 1):
        os.dup2(os.open(f"../{name}", os.O_WRONLY | os.O_CREAT), number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, encoding="utf-8") for number in (1, 2))
    sys.argv[1:] = GROUPS
    runpy.run_module("tests.hostile", run_name="__main__", alter_sys=True)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("hostile") / "here"
    folder.mkdir()
    process = multiprocessing.get_context("fork").Process(target=child, args=(folder,))
    process.start()
    process.join(900)
    process.kill()  # if it hangs
    process.join()
    out, err = ((folder.parent / name).read_text(encoding="utf-8") for name in ("out", "err"))
    lines = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    assert process.exitcode == 0, (lines[-1:], err[-2000:])
    assert not (folder / "canary").exists()
    return {group: [line for line in lines if line["group"] == group] for group in GROUPS}


@pytest.mark.parametrize("group", GROUPS[:-2])
def test_hostile_files_are_refused_in_one_line_without_running_or_writing(results, group):
    assert results[group]
    for case in results[group]:
        assert not case["did"], case
        assert not case["wrote"], case
        assert case["outcome"] == ("told" if case["name"].endswith("; checks") else "refused"), case
        assert case["words"] in case["said"], case
        assert "allow_pickle" not in case["said"] and "weights_only=False" not in case["said"], case
        if case["typed"]:
            assert case["said"].count("\n") == 1 and case["said"].strip().isprintable(), case
        assert case["memory"] - case["peak"] < MEMORY, case
        assert case["seconds"] < 20, case  # on a busy machine; 1 on an idle one


def test_a_resumed_run_writes_only_in_its_own_folder(results):
    assert len(results["runs"]) > 10
    for case in results["runs"]:
        assert not case["did"], case
        assert case["outcome"] in ("done", "refused") and "Traceback" not in case["said"], case
        assert all(path.startswith(case["words"]) for path in case["wrote"]), case
        assert case["wrote"], case


def test_the_positive_controls_are_detected(results):
    assert len(results["controls"]) == 7
    for case in results["controls"]:
        assert case["did"], case


def test_there_are_over_100_kinds_of_hostile_files(results):
    """Ten are required."""
    kinds = {case["name"].partition(";")[0] for group in GROUPS[:-1] for case in results[group]}
    assert len(kinds) > 100


def test_own_modules_are_the_python_files_of_the_working_folder(tmp_path, monkeypatch):
    """Not packages, nor files that shadow another module or are shadowed."""
    files = ("my_gan.py", "os.py", "torch.py", "ganzoo.py", "no-name.py", "my_package/__init__.py", "plain/x.py")
    for name in (*files, "hidden.py", "hidden/__init__.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    assert trust.own_modules() == ["my_gan"]


def test_trust_allows_classes_of_one_named_package(tmp_path, monkeypatch, capsys):
    elsewhere, here = tmp_path / "elsewhere", tmp_path / "here"
    elsewhere.mkdir()
    here.mkdir()
    (elsewhere / "their_gan.py").write_text("import ganzoo\n\nclass TheirGAN(ganzoo.GAN):\n    pass\n")
    monkeypatch.chdir(here)
    monkeypatch.syspath_prepend(str(elsewhere))
    Path("theirs.yaml").write_text(
        "model: {class_path: their_gan.TheirGAN, init_args: {hidden: 8, d_hidden: 8}}\ndata: {class_path: Digits}\n"
        "trainer: {max_steps: 1}\nscores: {final_n: 0}\n"
    )
    fit = ["fit", "--config", "theirs.yaml", "--trainer.enable_progress_bar", "false"]
    assert main(fit) == 2
    assert "model: names their_gan.TheirGAN" in (told := capsys.readouterr().err) and "--trust their_gan" in told
    assert "their_gan" not in sys.modules and not Path("runs").exists()
    assert main([*fit, "--trust", "their_gan"]) == 0
    (run,) = Path("runs").iterdir()
    again = ["fit", "--config", f"{run}/config.yaml", "--ckpt_path", str(run), "--trainer.max_steps", "2"]
    assert main([*again, "--trust=their_gan"]) == 0


@pytest.mark.parametrize("name", ["os", "jsonargparse", "their-gan", "", "a.b"])
def test_trust_refuses_unsafe_and_invalid_packages(name):
    with pytest.raises(UserError, match="--trust"):
        trust.guard([name])


def test_model_and_tensor_sizes_are_bounded():
    weights = {"a": torch.zeros(4, 3), "b": torch.zeros(4)}
    with no_larger(weights, 1):
        torch.nn.Linear(3, 4)
    with pytest.raises(ValueError, match="larger than its weights"), no_larger(weights, 1):
        torch.nn.Linear(5000, 5000, device="meta")  # a few parameters are allowed
    with pytest.raises(ValueError, match="larger than its weights"), no_larger(weights, 1):
        [torch.nn.Linear(1, 1) for _ in range(2)]
    torch.nn.Linear(30, 50)
    check_content({"a": [weights, (1, "x")]}, size=48)
    view = torch.zeros(12)
    check_content([view, view, view], size=48)  # tied
    with pytest.raises(ValueError, match="far more than its 48 bytes"):
        check_content([view.view(3, 4), view.view(4, 3), view, view], size=48)
    with pytest.raises(ValueError, match=r"\[4, 3\]"):
        check_content({"a": [weights]}, size=47)


def _lsun_cache(monkeypatch):
    """The file that torchvision makes for bedrooms, with an empty data base."""
    transaction = MagicMock()
    transaction.stat.return_value = {"entries": 0}
    transaction.cursor.return_value.iternext.return_value = iter(())
    lmdb = MagicMock()
    lmdb.open.return_value.begin.return_value.__enter__.return_value = transaction
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "lmdb", lmdb)
        torchvision.datasets.LSUN("data", classes=["bedroom_train"])
    (made,) = Path().glob("_cache_*")
    return made


def test_lsun_refuses_a_malicious_key_cache(tmp_path, monkeypatch):
    """torchvision unpickles the cache that it finds in the working folder."""
    monkeypatch.chdir(tmp_path)
    made = _lsun_cache(monkeypatch)
    file = Path("_cache_databedroomtrainlmdb")
    assert made == file, "torchvision has another name for it"
    file.write_bytes(pickle.dumps(print))
    with pytest.raises(ValueError, match="_cache_databedroomtrainlmdb is not a list of LSUN keys"):
        LSUN().make_dataset("train")
    file.write_bytes(pickle.dumps([b"a", b"b"]))
    Path("_cache_of_another_program").mkdir()
    with pytest.raises(RuntimeError, match="LSUN was not found"):
        LSUN().make_dataset("train")
