"""Every shipped config trains for one step on the command line; noise replaces data that must be downloaded."""

from __future__ import annotations

import functools
import inspect
import re
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

import ganzoo
from ganzoo import data
from ganzoo.checkpoint.sealed import read
from ganzoo.cli import main, training
from ganzoo.cli.parsing import Parser
from ganzoo.cli.paths import additions, configs
from ganzoo.data.prepare import prepare
from ganzoo.testing import fit
from tests.variants import DEEP
from tests.variants import small as sizes_of

ROOT = Path(__file__).parents[2] / "configs"
EMBEDDED = {"Digits", "Emoji", "Gaussians", "MNIST5k", "Tones"}
QUICK = {"Digits", "Emoji", "Gaussians", "Tones"}  # to load and to train on
FOLDERS = {"ImageFolder", "PairedFolder", "UnpairedFolder"}
CONFIGS = configs()


def test_all_config_files_are_found():
    assert set(CONFIGS) | set(additions()) == {
        path.relative_to(ROOT).with_suffix("").as_posix() for path in ROOT.rglob("*.y*ml")
    }


@pytest.mark.parametrize("name", ganzoo.list_models())
def test_every_variant_has_a_config_on_embedded_data(name):
    mine = [yaml.safe_load(path.read_text()) for key, path in CONFIGS.items() if key.startswith(f"{name.lower()}/")]
    assert any(original(config) in EMBEDDED for config in mine)


@pytest.mark.parametrize("name", ganzoo.list_models())
def test_defaults_on_the_command_line_are_those_of_the_constructor(name):
    """Objects such as optimizers and augmentations, too, also if those of the base class are None."""
    parser, variant = Parser(), getattr(ganzoo, name)
    parser.add_subclass_arguments(ganzoo.GANModule, "model")
    found = parser.parse_args([f"--model={variant.__module__}.{name}"]).model.init_args
    for key, parameter in inspect.signature(variant.__init__).parameters.items():
        if key not in ("self", "game"):
            default, value = parameter.default, found[key]
            assert default is not None if hasattr(value, "class_path") else value == default


@pytest.mark.parametrize("name", CONFIGS)
def test_config_headers_state_command_expectation_and_time(name):
    """The `expect` and `time` lines may say that the value is unknown."""
    head = "\n".join(line for line in CONFIGS[name].read_text().splitlines() if line.startswith("#"))
    assert f"python -m ganzoo fit --config {name}" in head
    assert re.search(r"^# expect: \S", head, re.MULTILINE) and re.search(r"^# time:   \S", head, re.MULTILINE)


LIKE = [f"{name.lower()}/{data}" for name in DEEP for data in ("mnist5k", "cifar10")]  # the variant's other configs
LIKE += [f"stylegan3/{data}" for data in ("emoji", "emoji64", "cifar10")]


@pytest.mark.parametrize("name", LIKE)
def test_networks_and_data_of_a_config_take_its_arguments(name):
    """Names are in signatures, and plain values are valid; a slow test trains these configs."""
    config = yaml.safe_load(CONFIGS[name].read_text())
    variant, given = getattr(ganzoo, config["model"]["class_path"]), config["model"]["init_args"]
    module = getattr(data, config["data"]["class_path"])(**config["data"]["init_args"])
    names = {name for cls in variant.__mro__ for name in inspect.signature(cls.__init__).parameters}
    assert set(given) <= names
    plain = {key: value for key, value in given.items() if not isinstance(value, dict | list)}
    shape = {key: getattr(module, key) for key in {"image_size", "channels", "num_classes"} & names}
    with torch.device("meta"):
        variant(**shape, **plain)


def each_config():
    """Whole commands take a second."""
    for name in CONFIGS:
        yield pytest.param(name, marks=[pytest.mark.slow] * (name in LIKE))


@pytest.mark.parametrize("name", list(each_config()))
def test_every_config_trains_for_one_step(name, tmp_path, monkeypatch):
    """With small networks where the shipped ones are slow; those are only built. Digits, and the first config of any
    other data, by the whole command, on digits with final scores and a video.
    """
    monkeypatch.chdir(tmp_path)
    config = yaml.safe_load(CONFIGS[name].read_text())
    model, arguments = config["model"], config["data"].get("init_args", {})
    cls = original(config)
    if cls in FOLDERS:
        sides = [arguments[key] for key in ("path", "source_path") if key in arguments]
        if cls == "UnpairedFolder" and len(sides) == 1:
            sides = [f"{sides[0]}/trainA", f"{sides[0]}/trainB"]
        for side in sides:
            Path(side).mkdir(parents=True)
            for i in range(8):
                Image.new("RGB", (140, 80), (i, 2 * i, 3 * i)).save(f"{side}/{i}.png")
    elif cls == "Shards":
        pytest.importorskip("pyarrow", reason='shards need pip install "ganzoo[shards]"')
        for i in range(8):
            Image.new("RGB", (140, 80), (i, 2 * i, 3 * i)).save(f"{i}.png")
        prepare(".", arguments["path"], image_size=64)
    elif cls not in QUICK:
        monkeypatch.setattr(getattr(data, cls), "prepare_data", lambda self: None)
        monkeypatch.setattr(getattr(data, cls), "make_dataset", noise)
    quick = ["--trainer.max_steps", "1", "--data.batch_size", "4", "--data.num_workers", "0", "--samples.rows", "1"]
    at_end = ("20", "8") if name.endswith("/digits") else ("0", "0")
    quick += ["--scores.n", "20", "--scores.final_n", at_end[0], "--samples.video_fps", at_end[1]]
    if arguments.get("image_size") == 256:
        quick += ["--data.image_size", "64"]
    variant = getattr(ganzoo, model["class_path"])
    takes = set(inspect.signature(variant.__init__).parameters)
    if "similarity" in takes and "similarity" not in model.get("init_args", {}):
        quick += ["--model.similarity", "pixels"]  # LPIPS' network is downloaded
    sizes = {"width", "hidden", "d_hidden", "blocks", "group_size"} & (set() if cls in QUICK else takes)
    small = {key: value for key, value in sizes_of(model["class_path"]).items() if key in sizes}
    if "features" in takes:
        quick += ["--model.features", "emoji-training"]  # others are downloaded
    quick += [word for key, value in small.items() for word in (f"--model.{key}", str(value))]
    command = ["--config", str(CONFIGS[name]), *quick]
    if "/digits" in name or name == firsts()[cls]:
        assert main(["fit", *command]) == 0
        (run,) = Path("runs").iterdir()
        built = read(run / "checkpoints" / "last.ckpt")["hyper_parameters"]
    else:
        cli = training.build("fit", command, dry=True)
        fit(cli.model, cli.datamodule, steps=1)
        built = dict(cli.model.hparams)
    given = {key: value for key, value in model.get("init_args", {}).items() if key in small}
    if arguments.get("image_size") == 256:
        given["image_size"] = 256
    with torch.device("meta"):
        variant(**{key: value for key, value in built.items() if key not in small} | given)


@functools.cache
def firsts():
    """The first config of each kind of data, but for the slow ones."""
    return {original(yaml.safe_load(CONFIGS[name].read_text())): name for name in reversed(CONFIGS) if name not in LIKE}


def original(config):
    """The class of the innermost data module."""
    section = config["data"]
    while "data" in section.get("init_args", {}):
        section = section["init_args"]["data"]
    return section["class_path"]


def noise(self, split):
    """Noise images, with enough of each class for semi-supervised configs; the same at each call, so that scores find
    their statistics in the cache.
    """
    n = 8 if self.num_classes is None else (400 if self.channels == 3 else 20) * min(self.num_classes, 10)
    shape, seeded = (n, self.channels, self.image_size, self.image_size), torch.Generator().manual_seed(0)
    images = torch.randint(256, shape, dtype=torch.uint8, generator=seeded)
    return data.ArrayImages(images, None if self.num_classes is None else torch.arange(n) % self.num_classes)
