"""Loading checkpoints and folders: variant and weights, without running code."""

from __future__ import annotations

import copy
import importlib
import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from safetensors.torch import load_file, save_file

import ganzoo
from ganzoo.checkpoint.pretrained import CheckpointError, load, read, read_checkpoint, save_pretrained
from ganzoo.data import Digits

OWN = """\
from ganzoo.variants.gan import GAN


class MyGAN(GAN):
    def __init__(self, image_size: int = 8, channels: int = 1, units: int = 8):
        super().__init__(image_size, channels, 4, units, units, 2, n_critic=2)
"""


class Payload:
    def __reduce__(self):
        return os.system, ("touch pwned",)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fit(model, steps: int = 3):
    trainer = Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, Digits(image_size=8, batch_size=50))
    trainer.save_checkpoint("model.ckpt")
    return model


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A DCGAN with an averaged generator after 3 steps, and its checkpoint."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("trained"))
        return fit(ganzoo.DCGAN(8, 1, 4, 4, ema_half_life=100)), Path("model.ckpt").absolute()


@pytest.fixture
def model(trained):
    """A copy of it; its checkpoint is `model.ckpt`."""
    shutil.copy(trained[1], "model.ckpt")
    return copy.deepcopy(trained[0])


def same(a, b) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


# Round trips


def test_a_checkpoint_loads_its_variant_and_weights(model):
    loaded = load("model.ckpt")
    assert type(loaded) is ganzoo.DCGAN and not loaded.training
    assert same(loaded, model) and loaded.hparams == model.hparams and int(loaded.images_seen) == 150
    assert torch.equal(loaded.sample(seeds=range(5)), model.sample(seeds=range(5)))


def test_a_run_folder_loads_its_last_checkpoint(model):
    Path("run/checkpoints").mkdir(parents=True)
    for name in ("best-fid", "step=000000001", "last"):
        Path(f"run/checkpoints/{name}.ckpt").symlink_to(Path("model.ckpt").absolute())
    assert same(load("run"), model)


def test_a_folder_round_trip_is_bit_identical(model):
    """From a model, a checkpoint, and a folder."""
    for source in (model, load("model.ckpt"), load(save_pretrained(model, "first"))):
        loaded = load(save_pretrained(source, "deep/folder"))
        assert same(loaded, model) and loaded.hparams == model.hparams
        assert torch.equal(loaded.sample(seeds=range(5)), model.sample(seeds=range(5)))


def test_a_loaded_model_samples_from_the_averaged_generator(model):
    loaded = load("model.ckpt")
    z = loaded.latent(3, torch.Generator().manual_seed(0))
    assert torch.equal(loaded.generate(z), loaded.ema.eval()(z))
    assert not torch.equal(loaded.generate(z), loaded.generator.eval()(z))


def test_a_folder_holds_json_and_safetensors_only(model):
    save_pretrained(model, "folder")
    config = json.loads(Path("folder/config.json").read_text())
    assert config["variant"] == "ganzoo.variants.dcgan.DCGAN"
    assert config["arguments"]["width"] == 4 and not any("optimizer" in key for key in config["arguments"])
    assert sorted(os.listdir("folder")) == ["config.json", "model.safetensors"]


def test_a_loaded_model_can_be_trained_further(model):
    fit(load("model.ckpt"), steps=2)
    assert int(load("model.ckpt").images_seen) == 250


def test_load_maps_to_a_device(model):
    assert load("model.ckpt", map_location="meta").device.type == "meta"


def test_read_returns_variant_arguments_and_weights(model):
    for name, arguments, weights, slim in (read("model.ckpt")[0], read(save_pretrained(model, "folder"))[0]):
        assert name == "ganzoo.variants.dcgan.DCGAN" and arguments == model.hparams
        assert weights.keys() == model.state_dict().keys() and not slim


# Slim folders


@pytest.mark.parametrize("half_life", [None, 100])
def test_a_slim_folder_holds_the_generator_only(half_life):
    """The samples stay the same."""
    model = fit(ganzoo.DCGAN(8, 1, 4, 4, ema_half_life=half_life))
    loaded = load(save_pretrained(model, "folder", slim=True))
    assert torch.equal(loaded.sample(seeds=range(5)), model.eval().sample(seeds=range(5)))
    assert int(loaded.images_seen) == 150 and (loaded.ema is None) == (half_life is None)
    if half_life:
        assert all(map(torch.equal, loaded.generator.state_dict().values(), model.ema.state_dict().values()))
        assert all(map(torch.equal, loaded.ema.state_dict().values(), model.ema.state_dict().values()))
    assert {name.partition(".")[0] for name in read("folder")[0].weights} == {"generator", "images_seen"}
    assert json.loads(Path("folder/config.json").read_text())["slim"] is True
    seen = [module.weight for module in (loaded.discriminator.score, model.discriminator.score)]
    assert not torch.equal(*seen)
    again = load(save_pretrained(loaded, "again", slim=True))
    assert torch.equal(again.sample(seeds=range(5)), model.sample(seeds=range(5)))


@pytest.mark.parametrize("half_life", [None, 100])
def test_an_averaged_folder_has_one_generator_and_the_discriminator(half_life):
    """The file lacks the other generator; a loaded model has the averaged weights in both."""
    model = fit(ganzoo.DCGAN(8, 1, 4, 4, ema_half_life=half_life)).eval()
    loaded = load(save_pretrained(model, "folder", averaged=True))
    assert torch.equal(loaded.sample(seeds=range(5)), model.sample(seeds=range(5)))
    assert same(loaded.discriminator, model.discriminator) and not read("folder")[0].slim
    assert int(loaded.images_seen) == 150 and (loaded.ema is None) == (half_life is None)
    if half_life:
        assert same(loaded.generator, model.ema) and same(loaded.ema, model.ema)
    assert {name.partition(".")[0] for name in load_file("folder/model.safetensors")} == {
        *("generator", "discriminator", "images_seen")
    }
    again = load(save_pretrained(loaded, "again"))
    assert same(again, loaded), "an ordinary folder of the loaded model"


@pytest.mark.parametrize("options", [{}, {"averaged": True}, {"slim": True}])
def test_a_model_that_was_never_trained_has_the_same_weights_in_its_average(options):
    model = ganzoo.DCGAN(8, 1, 4, 4, ema_half_life=100).eval()
    loaded = load(save_pretrained(model, "folder", **options))
    assert model.ema is None and same(loaded.generator, model.generator) and same(loaded.ema, model.generator)
    assert same(loaded.discriminator, model.discriminator) == ("slim" not in options)


def test_slim_translators_keep_both_directions():
    model = ganzoo.CycleGAN(8, 1, 1, 4, 1).eval()
    loaded = load(save_pretrained(model, "folder", slim=True))
    pictures = torch.rand(2, 1, 8, 8)
    assert torch.equal(loaded.sample(source=pictures), model.sample(source=pictures))
    assert torch.equal(loaded.translate_back(pictures), model.translate_back(pictures))


def test_half_precision_folders_are_smaller_and_load_in_the_models_types(model):
    """Weights are rounded in the file and loaded in the model's types; integers stay integers."""
    loaded = load(save_pretrained(model, "half", dtype=torch.float16))
    save_pretrained(model, "whole")
    assert os.path.getsize("half/model.safetensors") < 0.7 * os.path.getsize("whole/model.safetensors")
    assert read("half")[0].weights["images_seen"].dtype == torch.int64 and int(loaded.images_seen) == 150
    for name, weight in model.state_dict().items():
        rounded = weight.half().float() if weight.is_floating_point() else weight
        assert torch.equal(loaded.state_dict()[name], rounded) and loaded.state_dict()[name].dtype == weight.dtype


def test_weights_too_large_for_half_precision_are_refused(model):
    model.generator.get_parameter(next(name for name, _ in model.generator.named_parameters())).data[0] = 1e5
    with pytest.raises(ValueError, match=r"has numbers that are too large for torch.float16: choose torch.bfloat16"):
        save_pretrained(model, "half", dtype=torch.float16)
    assert not os.path.exists("half")


def test_slim_folders_with_missing_or_extra_weights_are_refused(model):
    save_pretrained(model, "folder", slim=True)
    weights, config = load_file("folder/model.safetensors"), json.loads(Path("folder/config.json").read_text())
    first = next(name for name, w in weights.items() if name.startswith("generator.") and w.ndim > 1)

    def refused(words: str, weights: dict, config: dict = config) -> None:
        save_file(weights, "folder/model.safetensors")
        Path("folder/config.json").write_text(json.dumps(config))
        with pytest.raises(CheckpointError, match=words):
            load("folder")

    refused("its weights do not fit", {name: weight for name, weight in weights.items() if name != first})
    refused("its weights do not fit", {name: w for name, w in weights.items() if name != "images_seen"})
    refused("its weights do not fit", weights | {"generator.more": torch.zeros(1)})
    refused("its weights do not fit", weights | {first: torch.zeros(3)})
    for more in ("discriminator.score.weight", "ema.more", "other.part.weight"):
        refused(r"is declared slim \(generator only\), but has", weights | {more: torch.zeros(1)})
    refused("its weights do not fit", weights, {**config, "slim": False})
    refused("slim is 'yes'", weights, {**config, "slim": "yes"})


# Models that come with ganzoo


@pytest.fixture
def shipped(model, monkeypatch, tmp_path):
    monkeypatch.setattr(ganzoo, "PRETRAINED", tmp_path / "shipped")
    for name in ("dcgan-digits", "gan-digits"):
        save_pretrained(model, tmp_path / "shipped" / name, slim=True)


def test_pretrained_models_load_by_name(shipped, model):
    assert ganzoo.list_pretrained() == ["dcgan-digits", "gan-digits"]
    assert torch.equal(load("dcgan-digits").sample(seeds=[1]), model.sample(seeds=[1]))
    assert read("dcgan-digits")[0].slim


def test_an_existing_path_takes_precedence_over_a_pretrained_name(shipped):
    save_pretrained(ganzoo.DCGAN(8, 1, 4, 8), "dcgan-digits")
    assert load("dcgan-digits").hparams["width"] == 8


@pytest.mark.parametrize("name", ["dcgan-digit", "DCGAN-digits", "dcgan_digits"])
def test_an_unknown_name_suggests_the_closest_one(shipped, name):
    with pytest.raises(FileNotFoundError, match=f"no checkpoint {name}; did you mean 'dcgan-digits'?"):
        load(name)


@pytest.mark.parametrize("name", ["../shipped/dcgan-digits/config.json", "..", "", "/"])
def test_pretrained_names_cannot_be_paths(shipped, name):
    with pytest.raises((FileNotFoundError, CheckpointError)):
        load(name)


def test_list_pretrained_does_not_import_torch():
    code = "import sys, ganzoo; ganzoo.list_pretrained(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# A user's own variant


@pytest.fixture
def own(folder, monkeypatch):
    """A variant whose constructor takes fewer arguments than `GANModule` and sets the others itself."""
    monkeypatch.syspath_prepend(folder)
    (folder / "own_gan.py").write_text(OWN)
    monkeypatch.delitem(sys.modules, "own_gan", raising=False)
    return importlib.import_module("own_gan").MyGAN


def test_a_user_variant_loads_with_its_class(own):
    model = fit(own(units=6))
    for path in ("model.ckpt", save_pretrained(model, "folder")):
        with pytest.raises(CheckpointError, match=r"own_gan\.MyGAN, which is not in the zoo; .*variant=MyGAN"):
            load(path)
        loaded = load(path, variant=own)
        assert type(loaded) is own and same(loaded, model) and loaded.n_critic == 2


def test_loading_as_another_variant_is_refused(model, own):
    save_pretrained(model, "folder")
    for path in ("model.ckpt", "folder"):
        with pytest.raises(CheckpointError, match=r"is of class .*\.DCGAN, not .*\.GAN; load it with its own class"):
            load(path, variant=ganzoo.GAN)
        with pytest.raises(CheckpointError, match=r"not own_gan\.MyGAN"):
            load(path, variant=own)
        assert same(load(path, variant=ganzoo.DCGAN), model)


@pytest.mark.parametrize("name", ["os.system", "evil.DCGAN", "DCGAN", "None.Nobody", "ganzoo.core.types.Batch", ""])
def test_a_file_cannot_trigger_imports(model, monkeypatch, name):
    save_pretrained(model, "folder")
    config = json.loads(Path("folder/config.json").read_text())
    Path("folder/config.json").write_text(json.dumps(config | {"variant": name}))
    monkeypatch.setattr(importlib, "import_module", lambda name, *args: pytest.fail(f"imported {name}"))
    with pytest.raises(CheckpointError, match="not in the zoo"):
        load("folder")


# Files that are damaged or hostile


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("zipped", [False, True])
def test_loading_runs_no_code(model, protocol, zipped):
    evil = pickle.dumps({"ganzoo": Payload(), "state_dict": {}, "hyper_parameters": {}}, protocol=protocol)
    if zipped:
        with zipfile.ZipFile("model.ckpt") as old, zipfile.ZipFile("evil.ckpt", "w") as new:
            for name in old.namelist():
                new.writestr(name, evil if name.endswith("/data.pkl") else old.read(name))
    else:
        Path("evil.ckpt").write_bytes(evil)
    with pytest.raises(CheckpointError, match=r"would run code|damaged, unsafe, or not a checkpoint"):
        load("evil.ckpt")
    assert not os.path.exists("pwned")


def test_torch_load_is_called_with_weights_only(model, monkeypatch):
    seen = []
    original = torch.load
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: seen.append(kwargs) or original(*args, **kwargs))
    load("model.ckpt")
    assert [kwargs["weights_only"] for kwargs in seen] == [True]


def test_damaged_checkpoints_are_refused_or_load(model):
    """Truncated, or with one byte changed: CheckpointError or a model, no other exception."""
    data = Path("model.ckpt").read_bytes()
    pickled = data.index(b"hyper_parameters")
    versions = [data[: len(data) * part // 8] for part in range(8)]
    for place in range(pickled - 300, pickled + 300, 5):
        versions.append(data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :])
    refused = 0
    for version in versions:
        Path("bad.ckpt").write_bytes(version)
        try:
            load("bad.ckpt")
        except CheckpointError as error:
            refused += 1
            assert str(error).startswith("bad.ckpt")
    assert refused > 8


@pytest.mark.parametrize("content", [{}, [], 3, {"state_dict": {}}, {"ganzoo": 1}, {"ganzoo": {}, "state_dict": {}}])
def test_files_that_are_no_checkpoints_are_refused(content):
    torch.save(content, "other.ckpt")
    with pytest.raises(CheckpointError, match=r"other\.ckpt is (not a checkpoint of ganzoo|damaged)"):
        read_checkpoint(Path("other.ckpt"))


def test_damaged_folders_are_refused(model):
    save_pretrained(model, "folder")
    weights, config = (Path("folder", name).read_bytes() for name in ("model.safetensors", "config.json"))

    def refused(words: str, **files: bytes) -> None:
        Path("folder/model.safetensors").write_bytes(files.get("safetensors", weights))
        Path("folder/config.json").write_bytes(files.get("json", config))
        with pytest.raises(CheckpointError, match=words):
            load("folder")

    refused("damaged", safetensors=bytes([weights[0] ^ 0xFF]) + weights[1:])  # the header's length
    refused("damaged", safetensors=weights[:8] + b"]" + weights[9:])  # the header
    refused("damaged", safetensors=weights[:-9])
    refused("damaged", safetensors=b"")
    refused("damaged", json=b"{")
    refused("damaged", json=b"[]")
    refused("damaged", json=b"\xff\xfe")
    refused("damaged", json=b'{"variant": "ganzoo.variants.dcgan.DCGAN"}')
    changed = json.loads(config)
    changed["arguments"]["width"] = 8
    refused("its weights do not fit", json=json.dumps(changed).encode())
    changed["arguments"] = {"colour": 1}
    refused("its arguments do not fit", json=json.dumps(changed).encode())
    os.remove("folder/model.safetensors")
    with pytest.raises(
        FileNotFoundError, match=r"no model\.safetensors; give a run's folder, or one written by save_pretrained"
    ):
        load("folder")


def test_missing_files_are_named():
    with pytest.raises(FileNotFoundError, match="no checkpoint nowhere"):
        load("nowhere")
    os.mkdir("empty")
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        load("empty")
