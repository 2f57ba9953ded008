"""Pickles of the official StyleGAN2-ADA, StyleGAN3 and R3GAN code: converted without running them, or refused."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shlex
import subprocess
import sys
from collections import OrderedDict
from functools import cache
from io import BytesIO
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import ganzoo
from ganzoo.checkpoint import inert, layouts, official
from ganzoo.checkpoint.sealed import CheckpointError
from ganzoo.cli import main
from ganzoo.networks.stylegan2 import StyleGAN2Discriminator
from tests import official as theirs
from tests.official import EasyDict, Generator, Persistent, golden, network, write

MAKERS = {"stylegan2": theirs.stylegan2, "stylegan3": theirs.stylegan3, "r3gan": theirs.r3gan}
TAGS = [(name, tag) for name in ("stylegan2", "r3gan") for tag in ("uncond", "cond")]
TAGS += [("stylegan3", "t"), ("stylegan3", "r")]


def content(name, tag=None, **changes):
    g, d, _ = golden(f"{name}.npz", tag or ("t" if name == "stylegan3" else "uncond"))
    d = d or of_stylegan3(wide=tag != "r")
    return MAKERS[name](g, d, **changes)


@cache
def of_stylegan3(wide):
    """Tensors of a D, which the file of golden numbers does not have; R's G is twice as wide as D says."""
    torch.manual_seed(0)
    d = StyleGAN2Discriminator(16, 3, maps=128 if wide else 64, width=16 if wide else 8)
    return {layouts.stylegan2_key(name, {"image_size": 16}): w for name, w in d.state_dict().items()}


def converted(content, protocol=4):
    official.convert(write(Path("theirs.pkl"), content, protocol), "ours")
    return ganzoo.load("ours")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("name", "tag"), TAGS)
def test_converted_networks_compute_what_the_official_ones_do(name, tag, capsys):
    file = write(Path("theirs.pkl"), content(name, tag))
    assert main(["convert", "theirs.pkl", "ours"]) == 0
    origin = json.loads(Path("ours/config.json").read_text())["origin"]
    out = capsys.readouterr().out
    assert origin["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest() and origin["sha256"] in out
    assert "non-commercial" in origin["licence"] and origin["licence"] in out
    assert sorted(path.name for path in Path().iterdir()) == ["ours", "theirs.pkl"]
    assert main(["info", "ours"]) == 0 and f"origin: sha256          {origin['sha256']}" in capsys.readouterr().out
    gan, (_, _, found) = ganzoo.load("ours"), golden(f"{name}.npz", tag)
    z, y, x = found["z"], found.get("label"), found["image"]
    with torch.no_grad():
        torch.testing.assert_close(gan.ema(z, y), x, rtol=1e-4, atol=1e-4)
        if name != "stylegan3":
            torch.testing.assert_close(gan.discriminator(x, y), found["d_out"].flatten(), rtol=1e-4, atol=1e-4)
        if name == "stylegan2":
            image = gan.ema(z, y, torch.full((8,), 0.7))
            torch.testing.assert_close(image, found["image_trunc07"], rtol=1e-4, atol=1e-4)
    changed = "stages.0.0.basis" if name == "r3gan" else "w_mean"
    before, after = (net.state_dict() for net in (gan.ema, gan.generator))
    assert {key for key in before if not before[key].equal(after[key])} == {changed}
    torch.testing.assert_close(after[changed], before[changed] + 1)
    assert gan.images_seen == (2 * 640 if name == "r3gan" else 0)  # both players' images


@pytest.mark.parametrize("protocol", [3, 5])
def test_other_forms_of_the_same_networks(protocol):
    """Older and newer pickles, half precision, channels last, options of the code for StyleGAN3."""
    made = content("stylegan2", channel_base=128, mapping_kwargs=EasyDict(), synthesis_kwargs=EasyDict())
    conv = made["G_ema"]._modules["synthesis"]._modules["b8"]._modules["conv1"]
    conv.half()
    conv.weight.data = conv.weight.data.to(memory_format=torch.channels_last)
    assert conv.weight.stride() != conv.weight.contiguous().stride()
    gan = converted(made, protocol)
    weight = gan.ema.synthesis.convs[2].conv.weight
    assert weight.dtype == torch.float32 and weight.equal(conv.weight.float())


@pytest.mark.parametrize("arguments", [{"residual": False, "group": 1}, {"maps": 64, "channels": 1, "image_size": 32}])
def test_arguments_follow_from_the_networks(arguments):
    """D without residual blocks is that of CIFAR-10's weights."""
    made = {"image_size": 8, "z_dim": 6, "width": 8, "maps": 200, "mapping_layers": 3, "num_classes": 2, **arguments}
    before = ganzoo.StyleGAN2(**made)
    before.configure_model()
    pairs = zip(inert.NETWORKS, (before.generator, before.discriminator, before.ema), strict=True)
    named = {key: {layouts.stylegan2_key(name, made): w for name, w in net.state_dict().items()} for key, net in pairs}
    options = {"architecture": "orig", "mbstd_num_channels": 0} if "group" in made else {}
    after = converted({key: network(of, Persistent, **options if key == "D" else {}) for key, of in named.items()})
    assert {key: after.hparams[key] for key in made} == made | {"maps": 64}
    weights = after.state_dict()
    assert all(weight.equal(weights[key]) for key, weight in before.state_dict().items())


def test_the_printed_command_has_null_for_none(capsys):
    """R3GAN without groups."""
    made = {"image_size": 8, "z_dim": 6, "width": [8, 8], "blocks": 1, "group_size": None}
    gan = ganzoo.R3GAN(**made, ema_half_life=1e6)
    gan.configure_model()
    pairs = zip(inert.NETWORKS, (gan.generator, gan.discriminator, gan.ema), strict=True)
    named = {key: {layouts.r3gan_key(name, made): w for name, w in net.state_dict().items()} for key, net in pairs}
    write(Path("theirs.pkl"), theirs.r3gan(named["G"], named["D"]))
    assert main(["convert", "theirs.pkl", "ours"]) == 0
    assert "--model.group_size null " in capsys.readouterr().out


FURTHER = {
    ("stylegan2", "cond"): "--model.gamma 0.0016 ",
    ("stylegan3", "t"): "--model.gamma 0.0078125 --model.ema_ramp_up null ",
    ("stylegan3", "r"): "--model.gamma 0.0078125 --model.ema_ramp_up null --model.blur 0.0 ",
    ("r3gan", "cond"): "--model.burn_in null --model.optimizer FusedAdam --model.optimizer.lr 5e-05 ",
}


@pytest.mark.parametrize(("name", "tag"), FURTHER)
def test_the_printed_command_trains_further(name, tag, capsys):
    write(Path("theirs.pkl"), content(name, tag))
    for i in range(5):
        Path(f"PICTURES/{i}").mkdir(parents=True)
        for j in range(2):
            Image.effect_noise((16, 16), 50 + j).convert("RGB").save(f"PICTURES/{i}/{j}.png")
    assert main(["convert", "theirs.pkl", "ours"]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    labels = "PICTURES needs the official labels 0 to 4: subfolders named by number, or the official dataset.json"
    assert (lines[-1] == labels) == (tag == "cond")
    command = last.partition("python -m ganzoo ")[2]
    assert FURTHER[name, tag] in command and "--data.batch_size 32 --trainer.max_steps 10000" in command
    more = "--data.batch_size 4 --trainer.max_steps 1 --samples.video_fps 0 --scores.final_n 0 --model.augment ADA"
    more += " --model.augment.p 0.2" if name == "r3gan" else ""
    more += " --model.optimizer.lr 1e-9 --model.freeze_d 2"
    more += " --model.discriminator_optimizer.lr 1e-9" if name == "stylegan3" else ""
    assert main([*shlex.split(command), *more.split()]) == 0
    before, after = ganzoo.load("ours").state_dict(), ganzoo.load(f"runs/001-{name}-pictures").state_dict()
    for key, weight in before.items():
        if key.startswith(("generator", "discriminator", "ema")) and not key.endswith(("w_mean", "square", "basis")):
            torch.testing.assert_close(after[key], weight, rtol=1e-5, atol=1e-5, msg=key)
    assert after["images_seen"] == 4


SIZES = {"c_dim": 0, "img_resolution": 16, "img_channels": 3, "z_dim": 512, "w_dim": 512, "channel_max": 512}
SIZES |= {"num_fp16_res": 4, "conv_clamp": 256, "fused_modconv_default": "inference_only", "use_fp16": False}
OF_D = {**SIZES, "architecture": "resnet", "freeze_layers": 0}
OF_D |= {"epilogue_kwargs": {"mbstd_group_size": 8, "mbstd_num_channels": 1}}
OF_G = {
    "StyleGAN2": {"activation": "lrelu", "lr_multiplier": 0.01, "resample_filter": [1, 3, 3, 1], "use_noise": True},
    "StyleGAN3": {
        **{
            "conv_kernel": 1,
            "use_radial_filters": True,
            "num_critical": 2,
            "first_cutoff": 2,
            "first_stopband": 2**2.1,
        },
        **{"last_stopband_rel": 2**0.3, "margin_size": 10, "output_scale": 0.25, "filter_size": 6},
        **{"lrelu_upsampling": 2, "magnitude_ema_beta": 0.999},
    },
}


@pytest.mark.parametrize("name", OF_G)
def test_options_that_official_files_state_are_accepted(name):
    g = {**SIZES, "mapping_kwargs": {"num_layers": 8}, "synthesis_kwargs": OF_G[name]}
    of_g = layouts.OF_STYLEGAN3 if name == "StyleGAN3" else {"architecture": ["skip"]}
    assert layouts._group(name, {}, {"G": g, "D": OF_D, "G_ema": g}, of_g) == 8


def test_options_that_legacy_py_writes_are_accepted():
    """Of networks of TensorFlow, whose D has no mapping, and groups of 4 unless stated."""
    d = {**OF_D, "mapping_kwargs": {"num_layers": 0, "embed_features": None, "lr_multiplier": 0.1}}
    d |= {"epilogue_kwargs": {"mbstd_group_size": None, "mbstd_num_channels": 1}}
    assert layouts._group("StyleGAN2", {"b4.out.weight": torch.zeros(1, 8)}, {"D": d}, {}) == 4
    fc, embed = {f"mapping.fc{i}.weight": torch.ones(1) for i in range(8)}, {"mapping.embed.weight": torch.ones(1)}
    with pytest.raises(ValueError, match="D has lr_multiplier=0.1, which ganzoo's StyleGAN2 does not have"):
        layouts._group("StyleGAN2", {**embed, **fc}, {"D": d}, {})
    with pytest.raises(ValueError, match="D maps labels by 0 layers, ganzoo's StyleGAN2 by 8; use the official code"):
        layouts._group("StyleGAN2", embed, {"D": d}, {})


def test_suggested_settings_are_those_of_the_authors():
    gammas = {
        (size, classes): layouts.more_r3gan({"image_size": size, "num_classes": classes}).get("gamma")
        for size in (32, 64, 256)
        for classes in (None, 1000)
    }
    found = {key: gamma for key, gamma in gammas.items() if gamma}
    assert found == {(32, None): 0.005, (32, 1000): 0.05, (64, None): 0.2, (64, 1000): 0.1, (256, None): 15.0}
    adam = {"optimizer": "FusedAdam", "optimizer.lr": 5e-5, "optimizer.beta1": 0.0, "optimizer.beta2": 0.99}
    rest = {"burn_in": None, **adam, "ema_half_life": 1e4}
    assert layouts.more_r3gan({"image_size": 16, "num_classes": None}) == rest
    cifar = layouts.more_stylegan2({"residual": False, "image_size": 32})
    assert cifar == {"gamma": 0.01, "path_weight": 0.0, "mixing": 0.0, "ema_half_life": 500_000}
    assert layouts.more_stylegan2({"residual": True, "image_size": 256}) == {"gamma": 0.4096}
    t = {"gamma": 2.0, "ema_ramp_up": None}  # `blur` without `rotation` has no effect
    assert layouts.more_stylegan3({"rotation": False, "image_size": 256}) == t
    assert layouts.more_stylegan3({"rotation": True, "image_size": 256}) == {**t, "blur": 0.0}


# Refused


def without(name, key, owner="D"):
    def change(content):
        *path, last = key.split(".")
        module = content[owner]
        for part in path:
            module = module._modules[part]
        for held in (module._parameters, module._buffers):
            held.pop(last, None)

    return name, change


def changed(name, key, tensor, owner="G"):
    def change(content):
        added = network({key: tensor}, type(content[owner]))
        _merge(content[owner], added)

    return name, change


def _merge(module, added):
    module._parameters.update(added._parameters)
    module._buffers.update(added._buffers)
    for name, inner in added._modules.items():
        if name in module._modules:
            _merge(module._modules[name], inner)
        else:
            module._modules[name] = inner


def option(**changes):
    return lambda: content("stylegan2", **changes)


def edited(pair):
    name, change = pair

    def made():
        found = content(name)
        change(found)
        return found

    return made


def drop(key):
    return "stylegan2", lambda content: content.pop(key)


CHANGED = "of changed code; download it again, or use the code that wrote it"
UNLIKE = {
    "G of other blocks": (
        option(architecture="resnet"),
        "G has architecture='resnet', which ganzoo's StyleGAN2 does not have",
    ),
    "another filter, stated": (option(resample_filter=[1, 2, 1]), "resample_filter=[1, 2, 1]"),
    "another clamp": (option(conv_clamp=1), "conv_clamp=1"),
    "no noise": (option(use_noise=False), "use_noise=False"),
    "an unknown option": (option(attention=True), "attention=True, which ganzoo's"),
    "an option of a class": (option(activation=EasyDict), "activation="),
    "another filter": (
        edited(changed("stylegan2", "synthesis.b8.resample_filter", torch.eye(4))),
        "G.synthesis.b8.resample_filter is another filter than [1, 3, 3, 1]",
    ),
    "another filter of R3GAN": (
        edited(changed("r3gan", "Model.MainLayers.0.Layers.2.Resampler.Kernel", torch.ones(4, 4), "D")),
        "D.MainLayers.0.Layers.2.Resampler.Kernel is another filter",
    ),
    "a missing tensor": (
        edited(without("stylegan2", "b8.conv1.bias")),
        f"has no 'D.b8.conv1.bias': it is incomplete, or {CHANGED}",
    ),
    "a missing tensor that tells": (
        edited(without("r3gan", "Model.AggregationLayer.Layer.weight", "G")),
        "has no 'AggregationLayer.Layer.weight': it is incomplete",
    ),
    "a tensor that tells, of another shape": (
        edited(changed("stylegan2", "synthesis.b8.torgb.weight", torch.ones(3))),
        f"has tensors of odd shapes: it is damaged, or {CHANGED}",
    ),
    "a wrong shape": (
        edited(changed("stylegan2", "b8.conv1.bias", torch.ones(3), "D")),
        "D.b8.conv1.bias has the shape [3], unlike",
    ),
    "one more tensor": (
        edited(changed("stylegan2", "b16.extra.weight", torch.ones(3), "D")),
        "D has b16.extra.weight, which ganzoo's StyleGAN2 does not have",
    ),
    "w of another size than z": (
        edited(changed("stylegan2", "mapping.w_avg", torch.ones(8))),
        "z has 16 numbers and w 8",
    ),
    "a large image in a name": (
        edited(changed("stylegan2", "synthesis.b32768.torgb.weight", torch.ones(3, 16, 1, 1))),
        "its arguments do not fit ganzoo.variants.stylegan2.StyleGAN2",
    ),
    "no D": (edited(drop("D")), "it has no D; give a pickle with G, D and G_ema"),
    "StyleGAN3 with another margin": (
        lambda: content("stylegan3", synthesis_kwargs=EasyDict(margin_size=12)),
        "G has margin_size=12, which ganzoo's StyleGAN3 does not have",
    ),
    "StyleGAN3 with another filter": (
        edited(changed("stylegan3", "synthesis.L2_36_16.down_filter", torch.ones(12) / 12, "G_ema")),
        "G_ema.synthesis.L2.down_filter is another filter than that of StyleGAN3's paper",
    ),
    "StyleGAN3 without a mean": (
        edited(without("stylegan3", "synthesis.L2_36_16.magnitude_ema", "G")),
        "has no 'G.synthesis.L2.magnitude_ema': it is incomplete",
    ),
    "other networks": (
        lambda: dict.fromkeys(inert.NETWORKS, network({"a": torch.ones(1)}, Generator)),
        "its networks are not of",
    ),
    "no networks": (lambda: {"weights": [1.0]}, "has no networks G, D and G_ema"),
    "weights of a state_dict": (lambda: {"G_ema": {"a": torch.ones(1)}}, "has no networks G, D and G_ema"),
}


@pytest.mark.parametrize(("make", "words"), UNLIKE.values(), ids=UNLIKE)
def test_other_networks_are_refused(make, words):
    refused(write(Path("theirs.pkl"), make()), words)


def refused(file, words):
    before = sorted(Path().iterdir())
    with pytest.raises(CheckpointError) as error:
        official.convert(file, "ours")
    text = str(error.value)
    assert text.startswith(f"{file}") and words in text and "\n" not in text, text
    assert "; " in text and sorted(Path().iterdir()) == before  # a cure, and nothing written


class Calls:
    """Pickled, it is a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def bomb(opcodes):
    return b"\x80\x04" + opcodes


@cache
def whole():
    return pickle.dumps({"G": 1, "tensor": torch.ones(1000)}, 4)


def nested(depth):
    return bomb(b"}(" + b")" + b"\x85" * depth + b"K\x01u.")  # ((((),),),) as a key of a dict


def laughs():
    """Lists in lists: a few bytes that stand for 10^30 values."""
    value = ["ha"] * 10
    for _ in range(30):
        value = [value] * 10
    return value


def itself():
    value = []
    value.append(value)
    return value


def storing(*tensors):
    """A network with buffers that reduce to something else."""
    made = content("r3gan")
    made["G"]._buffers.update({f"x{i}": tensor for i, tensor in enumerate(tensors)})
    return made


BOMB = Calls(torch.storage._load_from_bytes, pickle.dumps(Calls(os.system, "touch canary"), 2))
LYING = {
    "a call in a storage": (lambda: storing(tensor(BOMB, 0, (3,), (1,))), "names 'posix.system', which is not part"),
    "a checkpoint in a storage": (
        lambda: storing(tensor(Calls(torch.storage._load_from_bytes, saved({"a": 1})), 0, (3,), (1,))),
        "is damaged, or not a pickle of the official networks",
    ),
    "a tensor beyond its storage": (
        lambda: storing(tensor(values(), 2, (3,), (1,))),
        "its tensors do not fit their data",
    ),
    "an expanded tensor": (lambda: storing(tensor(values(), 0, (1 << 40,), (0,))), "its tensors do not fit their data"),
    "one storage for many tensors": (
        lambda: storing(*[tensor(shared, 0, (1 << 20,), (1,)) for shared in [values(torch.half, 1 << 20)] * 200]),
        "its tensors do not fit their data",
    ),
    "a negative size": (lambda: storing(tensor(values(), 0, (-1,), (1,))), "its tensors do not fit their data"),
    "complex numbers": (
        lambda: storing(tensor(values(torch.complex64), 0, (3,), (1,))),
        "its tensors do not fit their data",
    ),
    "an object for a tensor": (lambda: storing(Persistent()), "is damaged, or not a pickle of the official networks"),
    "exponentially nested options": (
        option(channel_base=laughs()),
        "is damaged, or not a pickle of the official networks (ValueError)",
    ),
    "options that contain themselves": (option(channel_base=itself()), "is damaged, or not a pickle"),
}


def values(dtype=torch.float32, n=3):
    return torch.ones(n, dtype=dtype).storage()


def tensor(storage, offset, size, stride):
    return Calls(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, OrderedDict())


def saved(content):
    torch.save(content, file := BytesIO())
    return file.getvalue()


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
@pytest.mark.parametrize(("make", "words"), LYING.values(), ids=LYING)
def test_networks_that_lie_are_refused(make, words):
    refused(write(Path("theirs.pkl"), make()), words)
    assert not Path("canary").exists()


HOSTILE = {
    "os.system": (
        lambda: pickle.dumps({"G": Calls(os.system, "touch canary")}),
        "names 'posix.system', which is not part",
    ),
    "eval": (lambda: pickle.dumps(Calls(eval, "open('canary', 'w')")), "names 'builtins.eval'"),
    "torch.load": (lambda: pickle.dumps(Calls(torch.load, "canary")), "names 'torch.serialization.load'"),
    "getattr": (lambda: bomb(b"cbuiltins\ngetattr\n."), "names 'builtins.getattr'"),
    "a dotted name": (lambda: bomb(b"\x8c\x08training\x8c\x0dnetworks.a(b)\x93."), "names 'training.networks.a(b)'"),
    "a line break in a name": (lambda: bomb(b"\x8c\x04a\nos\x8c\x06system\x93."), "names 'a\\nos.system'"),
    "numpy's loader": (lambda: bomb(b"cnumpy\nload\n(X\x06\0\0\0canarytR."), "names 'numpy.load'"),
    "TensorFlow": (
        lambda: bomb(b"cdnnlib.tflib.network\nNetwork\n."),
        "is a TensorFlow pickle; convert it with legacy.py",
    ),
    "an extension": (lambda: bomb(b"\x82\x01."), "is damaged"),
    "truncated": (lambda: whole()[:-100], "is damaged, or not a pickle of the official networks (UnpicklingError)"),
    "a large memo": (lambda: bomb(b"Nr\xff\xff\xff\x7f."), "needs far more memory than its size"),
    "large bytes": (lambda: bomb(b"\x8e" + (1 << 40).to_bytes(8, "little") + b"."), "needs far more memory"),
    "a tuple as deep as the stack": (lambda: nested(300_000), "crashed the process that reads it"),
    "modules within each other": (
        lambda: bomb(
            b"}(X\x01\0\0\0Gctraining\nG\n)\x81q\0}(X\x0b\0\0\0_parameters}X\x08\0\0\0_buffers}X\x08\0\0\0_modules"
            b"}X\x01\0\0\0ah\0subu."
        ),
        "(RecursionError)",
    ),
    "html": (lambda: b"\n<!DOCTYPE html><title>Sign in</title>", "is a web page"),
    "text": (lambda: b"version https://git-lfs.github.com/spec/v1", "is not a Python 3 pickle"),
    "empty": (lambda: b"", "is not a Python 3 pickle"),
}


@pytest.mark.parametrize(("make", "words"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_and_wrong_files_are_refused(make, words):
    Path("theirs.pkl").write_bytes(make())
    refused("theirs.pkl", words)
    assert not Path("canary").exists()


def test_wrong_paths_are_refused(capsys):
    ganzoo.save_pretrained(gan := ganzoo.GAN(image_size=8, hidden=8, d_hidden=8), "full")
    torch.save({"state_dict": gan.state_dict()}, "a.ckpt")
    save_file({"a": torch.ones(1)}, "a.safetensors")
    write(Path("theirs.pkl"), content("r3gan"))
    before = sorted(Path().rglob("*"))
    for arguments, words in {
        "a.ckpt new": "a.ckpt is a file of torch.save, such as a checkpoint of ganzoo, which needs no conversion: ",
        "a.safetensors new": "a.safetensors is a safetensors file, not a pickle; give",
        "full new": "full is a folder; give a .pkl",
        "none.pkl new": "none.pkl: No such file",
        "http://127.0.0.1:9/a.pkl new": "No such file",
        "theirs.pkl full": "full exists, and is not an empty folder: choose a new one",
        "theirs.pkl a.ckpt": "a.ckpt exists, and is not an empty folder",
        "theirs.pkl": "OUT",
    }.items():
        assert main(["convert", *arguments.split()]) == 2
        out, error = capsys.readouterr()
        assert not out and error.startswith("ganzoo: error: ") and words in error and error.count("\n") == 1, error
    assert sorted(Path().rglob("*")) == before
    Path("deep/empty").mkdir(parents=True)
    official.convert("theirs.pkl", "deep/empty")
    assert ganzoo.load("deep/empty").z_dim == 16


def test_the_reader_stops_in_time(monkeypatch):
    monkeypatch.setattr(official, "SECONDS", 0.001)
    monkeypatch.setattr(official, "SPEED", 1e12)
    refused(write(Path("theirs.pkl"), content("r3gan")), "takes far too long to read")


@pytest.mark.skipif(sys.platform == "win32", reason="the limits are POSIX's")
def test_the_reader_can_open_and_run_nothing():
    code = """
import os, socket, subprocess
from ganzoo.checkpoint.inert import confine
confine(0)
for act in (socket.socket, lambda: open("canary", "w"), lambda: subprocess.run("true"), lambda: bytearray(2 << 30)):
    try:
        act()
    except (OSError, MemoryError) as error:
        print(type(error).__name__, getattr(error, "errno", ""))
print(os.system("touch canary") != 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["OSError", "24", "OSError", "24", "OSError", "24", "MemoryError", "True"], done
    assert not Path("canary").exists()
