"""The command line: every bad input ends in one line that names the cause and the cure."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import shlex
import shutil
import signal
import subprocess
import sys
import time
import warnings
import zipfile
from collections.abc import Callable
from multiprocessing.context import ForkProcess
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch.accelerators import CPUAccelerator
from PIL import Image

import ganzoo
from ganzoo.checkpoint.pretrained import load, save_pretrained
from ganzoo.checkpoint.sealed import read
from ganzoo.cli import VERBS, main
from ganzoo.cli.config import find_all
from ganzoo.cli.errors import describe
from ganzoo.cli.paths import configs
from ganzoo.core.drawing import picture, to_pil
from ganzoo.core.pixels import to_float
from ganzoo.data.reading import Reading

SMALL = "--model DCGAN --data Digits --data.image_size 8 --data.batch_size 100 --model.width 4 --trainer.max_steps 4"
QUICK = f"{SMALL} --samples.rows 2 --samples.columns 2 --samples.video_fps 0 --scores.final_n 20 --scores.n 20"
CONFIG = """\
model:
  class_path: DCGAN
  init_args:
    width: 4
data:
  class_path: Digits
  init_args:
    image_size: 8
trainer:
  max_steps: 4
"""
VARIANT = """\
import torch
from torch import nn
from ganzoo import GANModule
from ganzoo.optim.adam import FusedAdam
from ganzoo.networks.mlp import MaxoutDiscriminator, MLPGenerator


class MyGAN(GANModule):
    def __init__(self, image_size: int = 8, channels: int = 1, num_classes: int | None = None, units: int = 8):
        super().__init__(optimizer=lambda params: FusedAdam(params))
        self.num_classes = num_classes
        self.generator = MLPGenerator(image_size, channels, 4, units)
        self.discriminator = MaxoutDiscriminator(image_size, channels, units, 2)

    def discriminator_loss(self, batch):
        return {"real": -self.discriminate(batch["image"]).mean()}

    def generator_loss(self, batch):
        return {"fake": self.discriminate(self.generator(batch["z"])).mean()}

    def latent(self, n, generator=None):
        return torch.randn(n, 4, generator=generator)
"""
OWN = {  # file name -> content
    "my_gan.py": VARIANT,
    "my_broken.py": VARIANT.replace("import torch\n", "import torch\nimport no_such_package\n", 1),
    "my_typo.py": VARIANT.replace("class MyGAN(GANModule):", "class MyGAN(GANModule)"),
    "my_name.py": VARIANT.replace("import torch\n", "import torch\ntorhc\n", 1),
    "my_blind.py": VARIANT.replace("self.generator =", "self.generater ="),
    "my_half.py": VARIANT.replace("def generator_loss", "def generators_loss"),
    "my_blank.py": VARIANT.replace("def latent", "def latents"),
    "my_slip.py": VARIANT.replace("self.num_classes = num_classes", "self.num_classes = {}['classes']"),
    "my_crash.py": VARIANT.replace('return {"fake"', 'raise ZeroDivisionError("mine")\n        return {"fake"'),
    "my_data.py": """\
from lightning.pytorch import LightningDataModule


class MyData(LightningDataModule):
    def __init__(self, batch_size: int = 4):
        super().__init__()
""",
}


class Payload:
    """An object whose unpickling runs a shell command."""

    def __reduce__(self):
        return __import__("os").system, ("touch pwned",)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Run every test in an empty folder; afterwards drop the imported `my_*` modules."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GANZOO_TRACEBACK", raising=False)
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        if name.startswith("my_"):
            del sys.modules[name]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a finished run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("trained"))
        patch.delenv("PL_GLOBAL_SEED", raising=False)
        assert main(["fit", *shlex.split(QUICK), "--trainer.log_every_n_steps", "1"]) == 0
        return Path.cwd() / "runs" / "001-dcgan-digits"


@pytest.fixture
def run(trained, folder):
    """A copy of the finished run."""
    return Path(shutil.copytree(trained, "runs/001-dcgan-digits")).relative_to(".")


@pytest.fixture
def refuse(capsys):
    """A function that runs a command, which must fail in one line, and returns that line."""

    def refuse(command: str, *words: str) -> str:
        capsys.readouterr()
        before = sorted(Path("runs").glob("*"))
        assert main(shlex.split(command)) == 2
        out, error = capsys.readouterr()
        lines = error.splitlines()
        assert len(lines) == 1, error
        assert lines[0].startswith("ganzoo: error: ")
        for word in words:
            assert word in lines[0]
        assert not out.strip()
        assert sorted(Path("runs").glob("*")) == before and (before or not Path("runs").exists())
        return lines[0]

    return refuse


def table(text: str) -> list:
    """Parameters from lines of the form `command | word | word`."""
    rows = [[cell.strip() for cell in line.split(" | ")] for line in text.strip().splitlines()]
    return [pytest.param(row[0], row[1:], id=row[0]) for row in rows]


# Bad input


@pytest.mark.parametrize(
    ("command", "words"),
    table("""
    fitt --config dcgan/digits | no command 'fitt' | did you mean 'fit'?
    xyzzy | no command 'xyzzy' | python -m ganzoo --help
    --config dcgan/digits fit | the command comes first | python -m ganzoo fit --config
    fit | no data and no model | --config dcgan/digits
    fit --model DCGAN | no data | --data Digits
    fit --data Digits | no model | --model DCGAN
    fit --model DCGANN --data Digits | model: Expected a dot import path string: DCGANN | did you mean 'DCGAN'?
    fit --model dcgan --data Digits | did you mean 'DCGAN'?
    fit --model DCGAN --data Digit | data: Expected a dot import path string: Digit | did you mean 'Digits'?
    fit --model DCGAN --data Qwertz | data: Expected a dot import path string: Qwertz | CIFAR10 | my_file.MyClass
    fit --model torch.nn.Linear --data Digits | model: names torch.nn.Linear, which was not imported | name a class
    fit --model.width 8 --data Digits | --model.width needs a class | --model DCGAN
    fit --config dcgan/digit | no config 'dcgan/digit' | did you mean 'dcgan/digits'?
    fit --config | no config '' | python -m ganzoo list
    fit --config= | no config '' | python -m ganzoo list
    fit --config nowhere.yaml | no config 'nowhere.yaml' | python -m ganzoo list
    fit dcgan/digits | unexpected argument 'dcgan/digits' | write --config dcgan/digits
    fit {dcgan/digits | unexpected argument | write --KEY
    fit --config dcgan/digits --ckpt_path "" | --ckpt_path is empty | leave it out
    validate --model DCGAN --data Digits | validate needs trained weights | --ckpt_path RUN
    fit --config mlpgan/ring --model.penalties R7 | model.penalties: Expected a dot import path string: R7 | R1, R2
    fit --config mlpgan/ring --model.penalties LeCan | did you mean 'LeCam'?
    fit --config mlpgan/ring --model.penalties R1 --model.penalties.weight -1 | model.penalties.weight is -1.0; it takes
    fit --config mlpgan/ring --model.penalties+ R1 --model.penalties.interval 0 | interval is 0; it takes a whole number
    fit --config mlpgan/ring --model.penalties R1 --model.penalties.wait 1 | model.penalties.wait: no such option
    fit --config acgan/digits --model.penalties R1 | penalties: R1 does not work with ACGAN: D has batch norm | use a D
    fit --config gan/digits --model.freeze_d 3 | freeze_d is 3, but D has 3 layers | use 0 to 2
    fit --model '{class_path: DCGAN, init_args: {image_size: 64}}' --data Digits | image_size is taken from the data
    fit '--model={class_path: DCGAN, init_args: {image_size: 64}}' --data Digits | image_size is taken from the data
    fit --config dcgan/folder --data.path stackoverflow | stackoverflow | check the path
    info LeCan | did you mean 'LeCam'?
    info qqq | no variant, config or file 'qqq' | python -m ganzoo list
    info DCGANN | did you mean 'DCGAN'?
    info | required: name | python -m ganzoo info --help
    list me | unexpected argument 'me' | paths with spaces need quotes | python -m ganzoo list --help
    sample | required: checkpoint | python -m ganzoo sample --help
    sample nowhere | no checkpoint 'nowhere' | name a run
    sample ~nobody/run | no checkpoint '~nobody/run' | name a run
    sample x --seed 3 | no option '--seed' | did you mean '--seeds'?
    checks --dta x | no option '--dta' | did you mean '--data'?
    checks --data nowhere | nowhere | check the path
    sample x --output y | no option '--output' | python -m ganzoo sample --help
    sample x --help-me | no option '--help-me' | python -m ganzoo sample --help
    theory --outdri x | no option '--outdri' | did you mean '--outdir'?
    sample dcgan-digits --seeds 0-99999999999 | --seeds 0-99999999999: more than 1,000,000 images
    sample dcgan-digits --seeds 0-600000,0-600000 | more than 1,000,000 images
    sample dcgan-digits --seeds 999999999999999999999 | cannot be read | 0,1,4-6
    sample dcgan-digits -n 1000001 | -n 1,000,001: more than 1,000,000 images
    sample dcgan-digits -n 10001 | a grid of 10,001 images is too large | --format png or npy
    bench dcgan/digits --trainer.precision 16-mixed | bench compares precisions | leave --trainer.precision out
    bench dcgan/digits --json nowhere/bench.json | --json nowhere/bench.json cannot be written
    """),
)
def test_bad_commands_are_refused(refuse, command, words):
    refuse(command, *words)


def test_advice_on_pictures_of_an_inner_data_module_names_its_option(refuse):
    for name in "ab":
        Path(f"pictures/{name}").mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(f"pictures/{name}/0.png")
    Path("pictures/b/1.png").write_bytes(b"junk")
    inner = "--data.data ImageFolder --data.data.path pictures --data.data.image_size 8 --data.data.labels true"
    refuse(f"fit --model ImprovedGAN --data SemiSupervised {inner}", "set data.data.corrupt to skip")


@pytest.mark.parametrize(
    ("options", "words"),
    table("""
    --modell DCGAN | modell: no such option | did you mean model?
    --model.widht 8 | model.widht: no such option | did you mean width?
    --model.optimizer.lrr 1 | model.optimizer.lrr: no such option | did you mean lr?
    --model.optimizer SGD --model.optimizer.beta1 1 | model.optimizer.beta1: no such option | momentum
    --data.batchsize 8 | data.batchsize: no such option | did you mean batch_size?
    --trainer.max_step 8 | trainer.max_step: no such option | did you mean trainer.max_steps?
    --samples.every 8 | samples.every: no such option | did you mean samples.every_n_steps?
    --width 8 | width: no such option | did you mean model.width?
    --batch_size=8 | batch_size: no such option | did you mean data.batch_size?
    --lr 1 | lr: no such option | did you mean model.optimizer.lr?
    --seed 1 | seed: no such option | did you mean seed_everything?
    stray | unexpected argument 'stray' | --KEY stray
    --model.optimizer Adamm | model.optimizer: | Adamm | did you mean 'Adam'?
    --model.optimizer torch.optim.Adamm | model.optimizer: | no attribute 'Adamm' | did you mean 'Adam'?
    --model.lr_scheduler StepLRR | model.lr_scheduler: | StepLRR | did you mean 'StepLR'?
    --model.lr_scheduler StepLR | model.lr_scheduler.step_size: has no value and no default
    --trainer.logger TensorBoardLoger | trainer.logger: | did you mean 'TensorBoardLogger'?
    --model.width eight | model.width: Expected | 'int' | eight
    --model.width | --model | expected one argument | --help
    --model.width 0 | model.width is 0; it takes a whole number from 1
    --model.optimizer.lr fast | model.optimizer.lr: Expected | 'float' | fast
    --model.n_critic 0 | model.n_critic is 0; it takes a whole number from 1
    --data.batch_size 1.5 | data.batch_size: Expected | 'int' | 1.5
    --data.batch_size 0 | data.batch_size is 0; it takes a whole number from 1
    --data.batch_size 5000 | 5000 | 1397 training images | lower batch_size
    --data.flip perhaps | data.flip: Expected | 'bool' | perhaps
    --data.image_size 20 | data.image_size 20 | try 16
    --model.microbatches 3 | data.batch_size 100 is not divisible | a multiple of 3, such as 99
    --trainer.max_steps four | trainer.max_steps: Expected | 'int' | four
    --trainer.max_steps 0 | trainer.max_steps is 0 | set it higher
    --trainer.log_every_n_steps 0 | trainer.log_every_n_steps is 0 | it takes a whole number from 1
    --trainer.limit_val_batches 2.5 | trainer.limit_val_batches is 2.5 | from 0 to 1
    --trainer.accelerator gpuu | no trainer.accelerator 'gpuu' | did you mean 'gpu'?
    --trainer.accelerator cpu --trainer.devices 0 | trainer: | devices='0' | python -m ganzoo checks
    --trainer.strategy ddp | no trainer.strategy 'ddp' | auto, gan
    --trainer.precision 17 | trainer.precision: Expected | 64 | bf16-mixed | null | Got value: 17
    --trainer.limit_val_batches x | trainer.limit_val_batches: Expected a | a whole number | a number | null | value: x
    --trainer.foo 1 | trainer.foo: no such option; the options are trainer.accelerator
    --trainer.gradient_penalty 1 | trainer.gradient_penalty: no such option; the options are trainer.accelerator
    --model '{class_path: DCGAN, width: 8}' | model.width is next to class_path; move it below init_args
    --trainer.gradient_clip_val 1 | trainer.gradient_clip_val | set model.clip_norm instead
    --trainer.accumulate_grad_batches 2 | two optimizers | set model.microbatches instead
    --seed_everything x | seed_everything: Expected | x
    --model.image_size 32 | model.image_size is taken from the data | set data.image_size instead
    --model.init_args.num_classes=3 | model.num_classes is taken from the data | leave it out
    --ckpt_path nowhere.ckpt | no checkpoint 'nowhere.ckpt' | name a run
    --trainer.default_root_dir /proc/nowhere | cannot be written | --trainer.default_root_dir DIR
    --samples.video_fps -1 | samples.video_fps is -1 | it takes a whole number from 0 to 100
    --samples.film_fps 8 | samples.film_fps: no such option | did you mean samples.video_fps?
    """),
)
def test_options(refuse, options, words):
    refuse(f"fit {SMALL} {options}", *words)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu(refuse):
    refuse(f"fit {SMALL} --trainer.accelerator gpu", "trainer: ", "python -m ganzoo checks")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("trainer:", "trainre:", ["trainre.max_steps: no such option", "did you mean trainer.max_steps?"]),
        ("max_steps:", "maxsteps:", ["trainer.maxsteps: no such option", "did you mean trainer.max_steps?"]),
        ("width:", "widht:", ["model.widht: no such option", "did you mean width?"]),
        ("image_size:", "imagesize:", ["data.imagesize: no such option", "did you mean image_size?"]),
        ("init_args:", "initargs:", ["model.initargs", "did you mean init_args?"]),
        ("  class_path: DCGAN\n", "", ["model has no class_path", "class_path"]),
        ("DCGAN", "DCGANN", ["model: ", "DCGANN", "did you mean 'DCGAN'?"]),
        ("Digits", "Digitz", ["data: ", "Digitz", "did you mean 'Digits'?"]),
        ("width: 4", "width: four", ["model.width: Expected", "four"]),
        ("  init_args:\n    width: 4", "  width: 4", ["model.width is next to class_path; move it below init_args"]),
        (
            "width: 4",
            "optimizer: {class_path: SGD, lr: 1}",
            ["model.init_args.optimizer.lr is next to class_path; move it below init_args"],
        ),
        ("max_steps: 4", "[max]: 4", ["mine.yaml, line", "a list is used as a key"]),
        ("max_steps: 4", "max_steps: four", ["trainer.max_steps: Expected", "four"]),
        ("image_size: 8", "batch_size: [8]", ["data.batch_size: Expected", "[8]"]),
        ("width: 4", "channels: 3", ["model.channels is taken from the data", "leave it out"]),
        (
            "width: 4",
            "optimizer: {class_path: torch.optim.Adam, init_args: {lrr: 1}}",
            ["model.optimizer.lrr: no such option", "did you mean lr?"],
        ),
        (
            "width: 4",
            "optimizer: {class_path: torch.optim.Adan}",
            ["model.optimizer: ", "no attribute 'Adan'", "'Adam'?"],
        ),
        (
            "width: 4",
            "lr_scheduler: {class_path: torch.optim.lr_scheduler.StepL}",
            ["model.lr_scheduler: ", "no attribute 'StepL'", "'StepLR'?"],
        ),
        ("model:", "model: [", ["mine.yaml, line 3 is not valid YAML", "info dcgan/digits"]),
        ("  init_args:", "\tinit_args:", ["mine.yaml, line 3 is not valid YAML", "info dcgan/digits"]),
        (CONFIG, "", ["mine.yaml is empty", "info dcgan/digits"]),
        (CONFIG, "- model\n- data\n", ["mine.yaml contains a list", "info dcgan/digits"]),
        (CONFIG, "DCGAN\n", ["mine.yaml contains a str", "info dcgan/digits"]),
    ],
)
def test_bad_configs_are_refused(refuse, old, new, words):
    assert old in CONFIG
    Path("mine.yaml").write_text(CONFIG.replace(old, new, 1))
    refuse("fit --config mine.yaml", *words)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("nowhere", ["nowhere", "check the path"]),
        ("empty", ["No pictures in", "looked for .png"]),
        ("file.txt", ["file.txt is a file", "give the folder"]),
    ],
)
def test_bad_image_folders_are_refused(refuse, path, words):
    Path("empty").mkdir()
    Path("file.txt").write_text("text")
    refuse(f"fit --model DCGAN --data ImageFolder --data.path {path}", *words)
    refuse(f"checks --data {path}", *words)


def test_an_image_folder_without_path_is_refused(refuse):
    refuse("fit --model DCGAN --data ImageFolder", "data.path: has no value and no default")


def test_corrupt_images_are_reported_by_checks_and_refused_by_fit(refuse, capsys):
    Path("pictures").mkdir()
    for name in ("good.png", "cut.jpg"):
        Image.effect_noise((64, 64), 50).save(f"pictures/{name}")
    Path("pictures/cut.jpg").write_bytes(Path("pictures/cut.jpg").read_bytes()[:900])
    Path("pictures/bad.png").write_text("text")
    assert main(["checks", "--data", "pictures"]) == 1
    out, error = capsys.readouterr()
    assert "3 images" in out and "cannot be read: 2" in out and "bad.png: not a picture" in out and "cut.jpg: " in out
    assert not error.strip()
    refuse(
        "fit --model DCGAN --data ImageFolder --data.path pictures", "bad.png: not a picture", "data.corrupt to skip"
    )


def test_checks_reports_images_below_the_requested_size(refuse, capsys):
    Path("small").mkdir()
    Image.new("RGB", (30, 40)).save("small/a.png")
    assert main(["checks", "--data", "small"]) == 0
    out = capsys.readouterr().out
    assert "below" not in out and out.endswith("--data.path small --model.augment DiffAugment\n")
    assert main(["checks", "--data", "small", "--image_size", "32"]) == 0
    out = capsys.readouterr().out
    assert "a.png: 30x40, below 32 pixels" in out and " --data.path small --data.image_size 32 " in out
    refuse("checks --image_size 32", "--image_size needs a folder of images; add --data DIR")


@pytest.mark.parametrize("name", ["CIFAR10", "LSUN"])
def test_missing_data_sets_are_refused_within_10_seconds(refuse, monkeypatch, name):
    def no_network(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr("urllib.request.urlopen", no_network)
    start = time.perf_counter()
    refuse(f"fit --model DCGAN --data {name}", f"{name} was not found in", "--data Digits")
    assert time.perf_counter() - start < 10


@pytest.mark.parametrize(
    ("batch_size", "words"),
    [(63, ["data.batch_size 63 is not divisible by 2 (processes)", "such as 62"]), (5000, ["5000", "1397"])],
)
def test_batch_sizes_unfit_for_two_processes_are_refused(refuse, batch_size, words):
    refuse(f"fit {SMALL} --trainer.devices 2 --trainer.accelerator cpu --data.batch_size {batch_size}", *words)


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_an_unwritable_run_folder_is_refused(refuse, place):
    Path("file").touch()
    refuse(f"fit {SMALL} --trainer.default_root_dir {place}", "cannot be written", "--trainer.default_root_dir DIR")


# The user's own files


@pytest.mark.parametrize(
    ("command", "words"),
    table("""
    --model my_nowhere.MyGAN --data Digits | no file or package 'my_nowhere' | my_nowhere.py
    --model my_gan.MyGANN --data Digits | no attribute 'MyGANN' | did you mean 'MyGAN'?
    --model my_gan.nn --data Digits | model: names torch.nn, which was not imported
    --model my_broken.MyGAN --data Digits | my_broken.py, line 2 | 'no_such_package' | GANZOO_TRACEBACK=1
    --model my_typo.MyGAN --data Digits | my_typo.py, line 8 | SyntaxError | GANZOO_TRACEBACK=1
    --model my_name.MyGAN --data Digits | my_name.py, line 2 | NameError | 'torhc'
    --model my_slip.MyGAN --data Digits | my_slip.py, line 11 | KeyError: 'classes' | GANZOO_TRACEBACK=1
    --model my_blind.MyGAN --data Digits | MyGAN has no generator | set self.generator
    --model my_half.MyGAN --data Digits | MyGAN has no generator_loss | define it
    --model my_blank.MyGAN --data Digits | MyGAN has no z_dim | set self.z_dim
    --model my_gan.MyGAN --model.units 0 --data Digits | no weights | set all sizes under model above 0
    --model DCGAN --data my_data.MyData | MyData has no image_size | GANDataModule
    --model DCGAN --data my_data.Data | no attribute 'Data' | did you mean 'MyData'?
    """),
)
def test_faulty_user_files_are_refused(refuse, command, words):
    for name, text in OWN.items():
        Path(name).write_text(text)
    refuse(f"fit {command}", *words)


def test_own_variant(refuse, capsys):
    """A variant in a user's file trains; its checkpoint is loaded only if `--variant` names the class."""
    Path("my_gan.py").write_text(VARIANT)
    fit = "fit --model my_gan.MyGAN --data Digits --trainer.max_steps 2 --samples.video_fps 0 --scores.final_n 0"
    assert main(shlex.split(fit)) == 0
    run = "runs/001-mygan-digits"
    assert f"sample {run} --seeds 0-63 --variant my_gan.MyGAN" in capsys.readouterr().err
    refuse(f"sample {run}", "is of class my_gan.MyGAN, which is not in the zoo", "--variant my_gan.MyGAN")
    refuse(f"sample {run} --variant my_gan.MyGANN", "--variant my_gan.MyGANN not found", "write my_file.MyGAN")
    refuse(f"sample {run} --variant ganzoo.DCGAN", "is of class my_gan.MyGAN", "own class")
    refuse(f"sample {run} --variant my_gan.MyGAN --class 10", "no class 10", "from 0 to 9")
    assert main(shlex.split(f"sample {run} --variant my_gan.MyGAN --class 9 -n 2")) == 0
    assert main(["info", run]) == 0


def test_a_crash_in_user_code_keeps_its_traceback(capsys):
    Path("my_crash.py").write_text(OWN["my_crash.py"])
    with pytest.raises(ZeroDivisionError, match="mine"):
        main(shlex.split("fit --model my_crash.MyGAN --data Digits --trainer.max_steps 2"))
    assert Path("runs/001-mygan-digits/config.yaml").exists()


def test_ganzoo_traceback_1_shows_the_traceback(monkeypatch, capsys):
    monkeypatch.setenv("GANZOO_TRACEBACK", "1")
    Path("my_slip.py").write_text(OWN["my_slip.py"])
    assert main(["fit", "--model", "my_slip.MyGAN", "--data", "Digits"]) == 2
    error = capsys.readouterr().err
    assert "Traceback" in error and "self.num_classes = {}['classes']" in error
    assert error.splitlines()[-1].startswith("ganzoo: error: ")


def test_describe_is_one_line():
    assert describe(ValueError("two\n  lines")) == "two lines"
    assert describe(KeyError("k")) == "KeyError: 'k'; GANZOO_TRACEBACK=1 shows the traceback"
    assert describe(FileNotFoundError(2, "No such file", "x")) == "x: No such file"


# Checkpoints


def damage(path: Path, how: str) -> None:
    data = path.read_bytes()
    if how == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "text":
        path.write_text("a text\n")
    elif how.startswith("pickle"):
        path.write_bytes(pickle.dumps({"ganzoo": Payload(), "state_dict": {}}, protocol=int(how[-1])))
    else:
        with zipfile.ZipFile(path) as old:
            files = {name: old.read(name) for name in old.namelist()}
        with zipfile.ZipFile(path, "w") as new:
            for name, content in files.items():
                evil = name.endswith("/data.pkl")
                new.writestr(name, pickle.dumps({"ganzoo": Payload()}, protocol=int(how[-1])) if evil else content)


@pytest.mark.parametrize("how", ["truncated", "empty", "text", "pickle 0", "pickle 2", "pickle 4", "zip 2", "zip 4"])
def test_damaged_and_malicious_checkpoints_are_refused(refuse, run, how):
    damage(run / "checkpoints" / "last.ckpt", how)
    for command in (f"fit {SMALL} --ckpt_path {run}", f"sample {run}", f"info {run}"):
        said = refuse(command, "last.ckpt")
        assert "would run code" in said or "is damaged, unsafe, or not a checkpoint" in said
    if how == "zip 2":
        assert "would run code" in said
    assert not Path("pwned").exists()


def test_weights_alone_are_the_start_of_a_new_run(refuse, run, capsys):
    model = load(run / "checkpoints" / "last.ckpt")
    model.origin = {"sha256": "abc"}
    save_pretrained(model, "start")
    assert main(["info", "start"]) == main(["sample", "start", "-n", "1"]) == 0
    losses = []
    for path in (run, "start"):
        capsys.readouterr()
        assert main(["validate", "--config", f"{run}/config.yaml", "--ckpt_path", str(path)]) == 0
        losses.append([line for line in capsys.readouterr().out.splitlines() if "loss" in line])
    assert losses[0] == losses[1] and losses[0]
    assert main(shlex.split(f"fit {QUICK} --scores.final_n 0 --ckpt_path start")) == 0
    new = Path("runs/002-dcgan-digits")
    assert json.loads((new / "environment.json").read_text())["parent"] == "start"
    trained = load(new / "checkpoints" / "last.ckpt")
    assert trained.images_seen == 400 and trained.origin == {"sha256": "abc"}  # images not of both runs
    refuse(f"fit {SMALL} --model.width 8 --ckpt_path start", "trained with model.width 4, not 8; set these")
    save_pretrained(model, "slim", slim=True)
    refuse(f"fit {SMALL} --ckpt_path slim", "slim has no discriminator; to train further, give a run")


def test_a_foreign_checkpoint_is_refused(refuse):
    torch.save({"state_dict": {}}, "other.ckpt")
    refuse("sample other.ckpt", "other.ckpt is not a checkpoint of ganzoo", "fit")
    for name in ("ffhq.pkl", "model.safetensors"):
        Path(name).touch()
    refuse("sample ffhq.pkl", "convert it first: python -m ganzoo convert ffhq.pkl OUT")
    refuse("evaluate model.safetensors", "name the folder")


@pytest.mark.parametrize(
    ("options", "words"),
    table("""
    --model GAN --data Digits | is a checkpoint of DCGAN, not GAN | use --model DCGAN
    --config {run}/config.yaml --trainer.max_steps 9 --model.width 16 | model.width 4, not 16 | --ckpt_path
    --config {run}/config.yaml --trainer.max_steps 9 --data.image_size 16 | data.image_size 8, not 16 | config.yaml
    --config {run}/config.yaml --trainer.max_steps 9 --model.ema_half_life 9 | model.ema_half_life None, not 9.0 | new
    --config {run}/config.yaml --trainer.max_steps 3 | is at step 4 of 3 | --trainer.max_steps 8
    """),
)
def test_a_checkpoint_that_differs_from_the_settings_is_refused(refuse, run, options, words):
    refuse(f"fit --ckpt_path {run} {options.format(run=run)}", *words)


@pytest.mark.parametrize(
    ("options", "words"),
    table("""
    --seeds 3-1 | --seeds '3-1' cannot be read | 0,1,4-6
    --seeds 1,,2 | --seeds '1,,2' cannot be read | 0,1,4-6
    --seeds "" | --seeds '' cannot be read | 0,1,4-6
    --seeds one | --seeds 'one' cannot be read | 0,1,4-6
    --seeds 1,2 -n 3 | -n 3 and the 2 seeds | leave -n out
    -n 0 | -n is 0 | it takes a whole number from 1
    -n -3 | -n is -3 | it takes a whole number from 1
    -n many | 'many' | python -m ganzoo sample --help
    --class 3 | DCGAN was trained without classes | leave --class out
    --device nonsense | --device nonsense | python -m ganzoo checks
    --format jpg | 'jpg' | grid
    --source file | DCGAN generates images from seeds only | leave --source out
    --source | --source | at least one
    --outdir file | file cannot be written (Not a directory) | choose another folder: --outdir DIR
    --variant nonsense | --variant nonsense not found | write my_file.MyGAN
    --variant my_broken.MyGAN | my_broken.py, line 2 | 'no_such_package'
    """),
)
def test_bad_sample_options_are_refused(refuse, run, options, words):
    Path("file").touch()
    Path("my_broken.py").write_text(OWN["my_broken.py"])
    refuse(f"sample {run} {options}", *words)


# What works


def test_a_run_folder_has_its_files(run):
    for name in ("reals.png", "interpolation.png", "samples/00000004.png", "environment.json", "checkpoints/last.ckpt"):
        assert (run / name).exists()
    assert steps(run) == [1, 2, 3, 4]


def test_home_is_expanded_in_the_folder_of_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert main([*f"fit {QUICK} --trainer.max_steps 1".split(), "--trainer.default_root_dir=~/runs"]) == 0
    assert list((tmp_path / "home" / "runs").glob("001-*/checkpoints/last.ckpt")) and not Path("~").exists()


@pytest.mark.parametrize("kind", ["grid", "png", "npy"])
def test_sample_writes_each_format(run, capsys, kind):
    assert main(["sample", str(run), "--seeds", "0,2-3", "--format", kind, "--outdir", "out"]) == 0
    assert "3 images of DCGAN (400 training images seen)" in capsys.readouterr().out
    names = {"grid": ["grid.png"], "png": [f"seed00000{i}.png" for i in (0, 2, 3)], "npy": ["samples.npy"]}
    assert sorted(path.name for path in Path("out").iterdir()) == names[kind]


def test_sample_shows_all_classes_in_columns(folder):
    """Unless `--class` or `--seeds` is given; the images of `--format npy` depend on their seeds alone."""
    model = ganzoo.CGAN(8, 1, num_classes=3, hidden=8, z_hidden=4, y_hidden=4, d_hidden=4, d_y_hidden=4).eval()
    save_pretrained(model, "weights")
    assert main(["sample", "weights"]) == main(["sample", "weights", "-n", "7", "--outdir", "few"]) == 0
    images = model.sample(seeds=range(60), label=[i % 3 for i in range(60)])
    assert np.array_equal(np.asarray(Image.open("samples/grid.png")), np.asarray(picture(images, 6)))
    assert np.array_equal(np.asarray(Image.open("few/grid.png")), np.asarray(picture(images[:7], 6)))
    assert main(["sample", "weights", "--seeds", "4,5"]) == 0
    assert np.array_equal(
        np.asarray(Image.open("samples/grid.png")), np.asarray(picture(model.sample(seeds=[4, 5]), 1))
    )
    assert main(["sample", "weights", "-n", "2", "--format", "npy"]) == 0
    assert np.array_equal(np.load("samples/samples.npy"), model.sample(2, seeds=range(2), output_type="np"))
    assert main(["sample", "weights", "-n", "2", "--format", "npy", "--class", "2"]) == 0
    assert np.array_equal(np.load("samples/samples.npy"), model.sample(2, seeds=range(2), label=2, output_type="np"))


@pytest.fixture
def translator(folder):
    """A Pix2Pix from colour to grey in `weights`, and images of another size in `photos`."""
    model = ganzoo.Pix2Pix(8, 1, 3, 4).eval()
    save_pretrained(model, "weights")
    for i, name in enumerate(("b.png", "a.jpg", "deep/a.webp")):
        Path("photos", name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 16), (80 * i, 100, 40)).save(Path("photos", name))
    return model


def test_sample_translates_files_and_folders(translator, capsys):
    """An output file is named after its source."""
    files = [Path("photos", name) for name in ("a.jpg", "b.png", "deep/a.webp")]
    sources = torch.stack([to_float(Reading(8)(file)) for file in files])
    images = translator.sample(seeds=range(3), source=sources)
    assert main(["sample", "weights", "--source", "photos", "--format", "png", "--outdir", "out"]) == 0
    assert "3 images of Pix2Pix" in capsys.readouterr().out
    for name, image in zip(("a.png", "b.png", "deep/a.png"), to_pil(images), strict=True):
        assert np.array_equal(np.asarray(Image.open(Path("out", name))), np.asarray(image))
    assert sorted(path.name for path in Path("out").iterdir()) == ["a.png", "b.png", "deep"]
    npy = ["--format", "npy", "--outdir", "out"]
    assert main(["sample", "weights", "--source", "photos/b.png", "photos/a.jpg", *npy]) == 0
    again = translator.sample(seeds=range(2), source=sources[[1, 0]], output_type="np")
    assert np.array_equal(np.load("out/samples.npy"), again)
    assert main(["sample", "weights", "--source", "photos", "-n", "1", *npy]) == 0
    assert len(np.load("out/samples.npy")) == 1
    assert main(["sample", "weights", "--source", "photos/a.jpg", "--seeds", "5", *npy]) == 0
    assert np.array_equal(
        np.load("out/samples.npy"), translator.sample(seeds=[5], source=sources[:1], output_type="np")
    )


def test_sources_stand_above_their_translations(translator):
    assert main(["sample", "weights", "--source", "photos"]) == 0
    sources = torch.stack([to_float(Reading(8)(Path("photos", name))) for name in ("a.jpg", "b.png", "deep/a.webp")])
    images = translator.sample(seeds=range(3), source=sources).expand(-1, 3, -1, -1)
    blank = torch.full((1, 3, 8, 8), -1.0)
    rows = [sources[:2], images[:2], sources[2:], blank, images[2:], blank]
    assert np.array_equal(np.asarray(Image.open("samples/grid.png")), np.asarray(picture(torch.cat(rows), 2)))


@pytest.mark.parametrize(
    ("options", "words"),
    table("""
    -n 4 | Pix2Pix translates pictures | --source PATH
    --source nowhere.png | --source nowhere.png does not exist | name pictures
    --source notes.txt | --source notes.txt cannot be read as a picture | not a picture
    --source empty | No pictures in | empty
    --source photos -n 4 | -n 4, but --source has only 3 pictures | leave -n out
    --source photos --seeds 1,2 | 3 pictures in --source, but 2 seeds | one seed per picture
    --source photos other --format png | several pictures that would be written as a.png | rename
    --source other --format png --outdir other | --outdir other would replace pictures of --source | another folder
    """),
)
def test_bad_sources_are_refused(refuse, translator, options, words):
    Path("notes.txt").write_text("a text")
    Path("empty").mkdir()
    Path("other").mkdir()
    Image.new("L", (8, 8)).save("other/a.png")
    before = Path("other/a.png").read_bytes()
    refuse(f"sample weights {options}", *words)
    assert Path("other/a.png").read_bytes() == before


def test_the_checkpoint_of_the_most_steps_is_chosen(run, capsys):
    """By steps, not file times, which a copy of the run does not keep; `best-*.ckpt` only if there is no other."""
    last = run / "checkpoints" / "last.ckpt"
    for name, taken in {"best-fid": "last", "00000003": "last", "00000004": "last", "00000009": "00000009"}.items():
        shutil.copy(last, run / "checkpoints" / f"{name}.ckpt")
        assert main(["info", str(run)]) == 0
        assert f"{run / 'checkpoints' / taken}.ckpt: " in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["validate", "test"])
def test_validate_and_test_print_losses(run, capsys, verb):
    """With the config of a run, which sets `limit_val_batches: 0`."""
    assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["limit_val_batches"] == 0
    with warnings.catch_warnings(action="error"):
        assert main([verb, "--config", f"{run}/config.yaml", "--ckpt_path", str(run)]) == 0
    out = capsys.readouterr().out
    for player in "DG":
        row = next(line for line in out.splitlines() if f"/{player}/loss" in line)
        assert float(row.split("│")[2]) > 0
    assert sorted(path.name for path in Path("runs").iterdir()) == ["001-dcgan-digits"]


def test_a_resumed_run_continues_in_its_folder(run):
    """The command line overrides the config; the log has no gaps or duplicates; the config alone starts a new run."""
    log = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(log + '{"step": 5}\n')  # as after a crash later than the checkpoint
    arguments = ["--config", f"{run}/config.yaml", "--ckpt_path", str(run), "--trainer.max_steps", "7"]
    with warnings.catch_warnings(action="error"):
        assert main(["fit", *arguments, "--model.optimizer.lr", "0.001"]) == 0
    assert steps(run) == [1, 2, 3, 4, 5, 6, 7]
    assert (run / "metrics.jsonl").read_text().startswith(log)
    assert sorted(path.name for path in Path("runs").iterdir()) == ["001-dcgan-digits"]
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["ckpt_path"] is None and config["trainer"]["max_steps"] == 7
    assert config["model"]["init_args"]["optimizer"]["init_args"]["lr"] == 0.001
    assert main(["fit", "--config", f"{run}/config.yaml", "--trainer.max_steps", "1"]) == 0
    assert sorted(path.name for path in Path("runs").iterdir()) == ["001-dcgan-digits", "002-dcgan-digits"]


OLDER = """
model:
  class_path: ganzoo.variants.gan.GAN
  init_args:
    z_dim: 2
    hidden: 4
    d_hidden: 4
    pieces: 2
    n_critic: 2
    ema_half_life: 100.0
    discriminator_optimizer: {class_path: ganzoo.core.optim.FusedAdam, init_args: {lr: 0.001}}
data: {class_path: Digits, init_args: {image_size: 8, batch_size: 32}}
scores: {final_n: 0}
trainer: {max_steps: 9}
"""


def test_a_run_of_an_older_version_can_be_resumed():
    """Its checkpoint lacks the prior's bound and later arguments; its config names classes that have moved."""
    run = Path("runs/001-gan-digits")
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").write_text(OLDER)
    shutil.copy(Path(__file__).parents[1] / "data" / "gan-before-0.2.pt", run / "checkpoints" / "last.ckpt")
    before = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert main(["fit", "--config", f"{run}/config.yaml", "--ckpt_path", str(run)]) == 0
    after = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert (before["global_step"], after["global_step"], after["state_dict"]["images_seen"]) == (7, 9, 9 * 32)
    assert "z_bound" not in before["state_dict"] and after["state_dict"]["z_bound"] == 1
    old, new = (checkpoint["state_dict"]["generator.layers.4.bias"] for checkpoint in (before, after))
    assert 0 < (old - new).abs().max() < 0.1, "G goes on from its weights"
    assert [path.name for path in Path("runs").iterdir()] == [run.name]


def test_resuming_a_finished_run_changes_nothing(run, capsys):
    """It is no error, so scripts may repeat their command; the message says how to train longer."""
    before = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert main(["fit", "--config", f"{run}/config.yaml", "--ckpt_path", str(run)]) == 0
    error = capsys.readouterr().err
    assert "already at step 4" in error and error.rstrip().endswith("--trainer.max_steps 8")
    after = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert before["global_step"] == after["global_step"] and steps(run) == [1, 2, 3, 4]


def test_command_line_wins_over_config(capsys):
    """In either order."""
    for arguments in ("--model.width 5 --config dcgan/digits", "--config dcgan/digits --model.width 5"):
        assert main(["fit", *arguments.split(), "--print_config"]) == 0
        assert yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]["width"] == 5


def test_command_line_wins_over_checkpoint(run):
    """For `n_critic`, which the checkpoint stores."""
    arguments = f"fit --config {run}/config.yaml --ckpt_path {run} --trainer.max_steps 5 --model.n_critic 2"
    assert main(shlex.split(arguments)) == 0
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["hyper_parameters"]["n_critic"] == 2 and checkpoint["global_step"] == 5


@pytest.mark.parametrize("part", ["logger", "enable_progress_bar", "enable_checkpointing"])
def test_logger_progress_bar_and_checkpoints_can_be_disabled(part, capsys):
    """All other files are still written to the run's folder."""
    assert main(["fit", *shlex.split(QUICK), f"--trainer.{part}", "false"]) == 0
    assert ("took" in capsys.readouterr().err) == (part != "enable_progress_bar")
    assert [path.name for path in Path("runs").iterdir()] == ["001-dcgan-digits"]
    assert Path("runs/001-dcgan-digits/reals.png").exists() and len(list(Path().iterdir())) == 1


def test_a_printed_config_can_be_loaded(capsys):
    assert main(["fit", *shlex.split(SMALL), "--model.width", "6", "--print_config"]) == 0
    text = capsys.readouterr().out
    Path("printed.yaml").write_text(text)
    assert main(["fit", "--config", "printed.yaml", "--print_config"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == yaml.safe_load(text)
    assert yaml.safe_load(text)["model"]["init_args"]["width"] == 6
    assert not Path("runs").exists()


@pytest.mark.parametrize("old", ["core.optim.FusedAdam", "core.game_optim.ExtraAdam"])
def test_moved_optimizer_paths_in_old_configs_are_read(old, capsys):
    Path("mine.yaml").write_text(CONFIG.replace("width: 4", f"optimizer: {{class_path: ganzoo.{old}}}", 1))
    assert main(["fit", "--config", "mine.yaml", "--print_config"]) == 0
    assert f"class_path: ganzoo.optim.{old.rpartition('.')[2]}" in capsys.readouterr().out


@pytest.mark.parametrize("form", ["--config dcgan/digits", "--config=dcgan/digits.yaml", "-c configs/dcgan/digits"])
def test_shipped_config_by_name(capsys, form):
    assert main(["fit", *form.split(), "--model.width", "5", "--print_config"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]["width"] == 5


def test_the_printed_resume_command_doubles_the_epochs(capsys):
    """If `max_epochs` ended the training."""
    options = QUICK.replace("--trainer.max_steps 4", "--trainer.max_epochs 1 --data.batch_size 600")
    assert main(["fit", *shlex.split(options)]) == 0
    command = next(line for line in capsys.readouterr().err.splitlines() if "ganzoo fit" in line)
    assert command.endswith(" --trainer.max_epochs 2")
    assert main(shlex.split(command)[3:]) == 0
    assert "Done at step 4" in capsys.readouterr().err


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_a_short_usage(verb, capsys):
    assert main([verb, "--help"]) == 0
    out, error = capsys.readouterr()
    assert out.startswith(f"usage: python -m ganzoo {verb}") and not error
    assert len(out.split("\n\n")[0].splitlines()) <= 5, "the usage alone fills the screen"
    assert "\\x08" not in out, "a backspace of jsonargparse's"


@pytest.mark.parametrize(
    ("option", "words"),
    table("""
    --model.help DCGAN | --model.width | --model.optimizer
    --data.help ImageFolder | --data.path | --data.batch_size
    --model.optimizer.help SGD | momentum
    """),
)
def test_help_of_a_class_lists_its_options(option, words, capsys):
    assert main(["fit", *option.split()]) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in words) and out.startswith("usage: python -m ganzoo fit ")


def test_usage_list_info_and_checks_print_their_contents(capsys):
    for arguments in ([], ["--help"], ["help"]):
        assert main(arguments) == 0
        out = capsys.readouterr().out
        assert all(f"  {verb} " in out for verb in VERBS)
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert "DCGAN" in out and all(name in out for name in configs())
    assert "--model.penalties PENALTY)\n  BCR " in out and "\n  R1  " in out and "Penalises the squared norm" in out
    assert main(["info", "R1"]) == 0 and "1801.04406" in capsys.readouterr().out
    assert main(["info", "dcgan/digits"]) == 0 and "class_path: DCGAN" in capsys.readouterr().out
    assert main(["info", "DCGAN"]) == 0
    out = capsys.readouterr().out
    assert (
        "1511.06434" in out
        and "Penalties: BCR, LeCam, Orthogonal, ZCR\n  not GradientPenalty, R1, R2: D has batch" in out
    )
    assert main(["checks"]) == 0 and torch.__version__.split("+")[0] in capsys.readouterr().out


def test_light_verbs_do_not_import_torch():
    code = """
import sys
from ganzoo.cli import main
for verb in ("--help", "--version", "list", "fitt"):
    main([verb])
assert not {"torch", "lightning", "numpy", "jsonargparse"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


# Ctrl-C


def steps(run: Path) -> list[int]:
    """The steps at which losses were logged."""
    logs = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [log["step"] for log in logs if "D/loss" in log]


def start(*options: str) -> tuple[ForkProcess, Path]:
    """Start an endless training in a forked process and wait for some steps; stderr goes to a file."""
    arguments = [*shlex.split(QUICK), "--trainer.max_steps", "-1", "--trainer.log_every_n_steps", "1", *options]

    def child() -> None:
        os.dup2(os.open("stderr", os.O_WRONLY | os.O_CREAT), 2)
        sys.stderr = os.fdopen(2, "w", buffering=1)  # not pytest's
        signal.signal(signal.SIGINT, signal.default_int_handler)  # pytest-xdist ignores SIGINT
        os._exit(main(["fit", *arguments]))

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    run = Path("runs/001-dcgan-digits")
    deadline = time.monotonic() + 120
    while not ((run / "metrics.jsonl").exists() and len(steps(run)) > 3):
        assert process.is_alive() and time.monotonic() < deadline, Path("stderr").read_text()
        time.sleep(0.05)
    return process, run


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def interrupt(process: ForkProcess) -> None:
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)


def end(process: ForkProcess) -> str:
    """Wait for the interrupted process and return its stderr."""
    process.join(60)
    if process.is_alive():
        process.kill()
        raise AssertionError("it goes on")
    assert process.exitcode == 130
    return Path("stderr").read_text()


def test_an_interrupted_run_can_be_resumed_without_loss(capsys):
    process, run = start()
    interrupt(process)
    error = end(process)
    assert "Traceback" not in error and "stopping after this batch" in error
    step = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    assert f"Stopped at step {step:,}" in error and steps(run)[-1] == step
    command = next(line for line in error.splitlines() if "ganzoo fit" in line)
    assert main([*shlex.split(command)[3:], "--trainer.max_steps", str(step + 3)]) == 0
    assert steps(run) == list(range(1, step + 4))
    assert [path.name for path in Path("runs").iterdir()] == [run.name]


def test_second_interrupt_stops_at_once():
    """During a batch that takes a minute."""
    Path("my_slow.py").write_text(
        "import time\nfrom lightning.pytorch import Callback\n\n\n"
        "class Slow(Callback):\n"
        "    def on_train_batch_start(self, trainer, *args):\n"
        "        if trainer.global_step == 5:\n"
        "            open('asleep', 'w')\n"
        "            time.sleep(60)\n"
    )
    process, run = start("--trainer.callbacks+", "my_slow.Slow")
    wait_for(lambda: Path("asleep").exists())
    interrupt(process)
    wait_for(lambda: "stopping after this batch" in Path("stderr").read_text())
    assert process.is_alive()
    interrupt(process)
    error = end(process)
    assert "Traceback" not in error and error.rstrip().endswith("ganzoo: stopped")


def test_an_optimizer_without_a_type_is_refused(tmp_path, capsys):
    Path("my_untyped.py").write_text(
        "from ganzoo import DCGAN\nfrom ganzoo.optim.adam import FusedAdam\n\n\nclass Untyped(DCGAN):\n"
        "    def __init__(self, width=4, optimizer=lambda p: FusedAdam(p), **game):\n"
        "        super().__init__(width=width, optimizer=optimizer, **game)\n"
    )
    assert main(["fit", "--model", "my_untyped.Untyped", "--data", "Digits", "--trainer.max_steps", "1"]) == 2
    assert "optimizer: OptimizerCallable = lambda" in capsys.readouterr().err
    assert not Path("runs").exists()


def test_checks_of_a_folder_without_a_readable_image_names_no_training(tmp_path, capsys):
    (tmp_path / "a.png").write_bytes(b"no picture")
    assert main(["checks", "--data", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "nothing to train on" in out and "train on it:" not in out


def test_one_device_is_the_default(tmp_path, monkeypatch):
    """Lightning's is all GPUs, which do not divide every batch."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(CPUAccelerator, "auto_device_count", staticmethod(lambda: 3))
    quick = "--trainer.max_steps 1 --scores.final_n 0 --samples.video_fps 0 --data.batch_size 4"
    assert main(shlex.split(f"fit --config dcgan/digits {quick}")) == 0


def test_checks_recommends_augmentation_for_few_images(tmp_path, monkeypatch, capsys):
    for i in range(3):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / f"{i}.png")
    for few in (3, 2):
        monkeypatch.setattr("ganzoo.cli.checks.FEW", few)
        assert main(["checks", "--data", str(tmp_path)]) == 0
        out = capsys.readouterr().out
        assert (few == 3) is ("few images:" in out) is out.rstrip().endswith("--model.augment DiffAugment")


def test_shipped_configs_come_before_the_user_s_in_any_form(tmp_path, monkeypatch):
    mine, shipped = tmp_path / "mine.yaml", configs()["dcgan/digits"]
    mine.write_text("trainer: {max_steps: 1}")
    monkeypatch.chdir(shipped.parents[1])
    for name in ("dcgan/digits", "dcgan/digits.yaml", str(shipped)):
        found = find_all(["--config", str(mine), "--config", name])
        assert [Path(path).resolve() for path in found[1::2]] == [shipped.resolve(), mine.resolve()]


def test_the_command_that_continues_a_run_lengthens_its_schedule(tmp_path, monkeypatch, capfd):
    """Whose learning rate would stay 0."""
    monkeypatch.chdir(tmp_path)
    options = "--trainer.max_steps 2 --samples.video_fps 0 --scores.final_n 0 --samples.rows 1 --model.hidden 8"
    options += " --model.lr_scheduler ganzoo.optim.LinearTail --model.lr_scheduler.total_iters 2"
    options += " --model.lr_scheduler.falling_iters 1 --scores.metrics []"
    assert main(shlex.split(f"fit --config mlpgan/digits {options}")) == 0
    (line,) = (line for line in "".join(capfd.readouterr()).splitlines() if " fit --config runs" in line)
    assert "--trainer.max_steps 4 --model.lr_scheduler.total_iters 4 --model.lr_scheduler.falling_iters 2" in line
    assert main([*shlex.split(line.partition("python -m ganzoo ")[2]), "--trainer.max_steps", "3"]) == 0
    rates = read(Path("runs/001-mlpgan-digits/checkpoints/last.ckpt"))["lr_schedulers"]
    assert [schedule["_last_lr"] for schedule in rates] == [[schedule["base_lrs"][0] / 2] for schedule in rates]
