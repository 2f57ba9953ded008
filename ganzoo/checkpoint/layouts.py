"""How the official code of StyleGAN2-ADA, StyleGAN3 and R3GAN stores networks: names, options, filters."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from ganzoo.checkpoint.inert import NETWORKS

UNNAMED = r"^Model\.|^(synthesis\.L\d{1,3})_\d+_\d+(?=\.)"  # parts of official names that we leave out
Networks = dict[str, dict[str, Tensor]]


class Layout(NamedTuple):
    """How official code stores networks.

    Attributes:
        variant: its name here.
        arguments: of the variant, from the networks and the options of their constructors.
        theirs: our key and the variant's arguments -> theirs.
        licence: of the official weights.
        further: options to train a model with these arguments further in batches of 32.
        filters: the filters of our model's G that the file has, too, by their key.
    """

    variant: str
    arguments: Callable[[Networks, dict[str, Any]], dict[str, Any]]
    theirs: Callable[[str, Mapping[str, Any]], str]
    licence: str
    further: Callable[[Mapping[str, Any]], dict[str, Any]]
    filters: Callable[[Any], dict[str, Tensor]] = lambda model: {}


def layout_of(networks: Networks) -> Layout:
    """The layout of a file's networks, whose tensors lose the parts of their names that we leave out.

    Raises:
        ValueError: they were not written by the official code of a known variant.
    """
    for key in NETWORKS:
        if key not in networks:
            raise ValueError(f"it has no {key}; give a pickle with G, D and G_ema, as the official code writes them")
        networks[key] = {re.sub(UNNAMED, r"\1", name): tensor for name, tensor in networks[key].items()}
    for key, layout in LAYOUTS.items():
        if key in networks["G"]:
            return layout
    known = ", ".join(layout.variant for layout in LAYOUTS.values())
    raise ValueError(f"its networks are not of {known}; use the code that wrote them")


# StyleGAN2

FREE = {"z_dim", "c_dim", "w_dim", "img_resolution", "img_channels", "channel_base", "channel_max", "num_layers"}
FREE |= {"num_ws", "embed_features", "layer_features", "cmap_dim"}  # so far shapes; the others concern training
FREE |= {"num_fp16_res", "use_fp16", "fp16_channels_last", "fused_modconv_default", "w_avg_beta", "freeze_layers"}
FREE |= {"magnitude_ema_beta"}
VALUES: dict[str, list[Any]] = {  # of options that shapes do not show, as our networks have them
    "activation": ["lrelu"],
    "conv_clamp": [None, 256],  # as ours in half precision
    "kernel_size": [3],
    "lr_multiplier": [0.01],
    "mbstd_num_channels": [0, 1],
    "resample_filter": [[1, 3, 3, 1]],
    "use_noise": [True],
}


def stylegan2(networks: Networks, options: dict[str, Any]) -> dict[str, Any]:
    """Arguments of StyleGAN2."""
    g, d = networks["G"], networks["D"]
    group = _group("StyleGAN2", d, options, {"architecture": ["skip"]})
    images = {
        int(m[1]): w for name, w in g.items() if (m := re.fullmatch(r"synthesis\.b(\d{1,5})\.torgb\.weight", name))
    }
    widths = {side: weight.shape[1] for side, weight in images.items()}
    side, last = max(widths, default=0), d["b4.conv.weight"]
    return {
        **_mapping(g),
        "image_size": side,
        "channels": g[f"synthesis.b{side}.torgb.weight"].shape[0],
        "maps": max(width * side for side, width in widths.items()),
        "width": max(widths.values()),
        "group": group if last.shape[1] > last.shape[0] else 1,
        "residual": f"b{side}.skip.weight" in d,
    }


def _mapping(g: Mapping[str, Tensor]) -> dict[str, Any]:
    """Arguments of G's mapping.

    Raises:
        ValueError: w has another size than z.
    """
    embed = g.get("mapping.embed.weight")
    latent, size = g["mapping.fc0.weight"].shape[1] - (0 if embed is None else embed.shape[0]), len(g["mapping.w_avg"])
    if latent != size:
        raise ValueError(f"z has {latent} numbers and w {size}, but ganzoo needs equal sizes; use the official code")
    layers = sum(bool(re.fullmatch(r"mapping\.fc\d+\.weight", name)) for name in g)
    return {"num_classes": None if embed is None else embed.shape[1], "z_dim": latent, "mapping_layers": layers}


def _group(variant: str, d: Mapping[str, Tensor], options: dict[str, Any], of_g: dict[str, list[Any]]) -> int:
    """Images that D compares.

    Args:
        variant: its name.
        d: D's tensors.
        options: of the networks.
        of_g: G's further options, and the values that ours has.

    Raises:
        ValueError: a network has an option that ours does not have.
    """
    flat = {key: _flat(options.get(key, {})) for key in NETWORKS}
    layers = sum(bool(re.fullmatch(r"mapping\.fc\d+\.weight", name)) for name in d)
    if layers == 0:
        flat["D"].pop("lr_multiplier", None)  # of no layer; `legacy.py` writes 0.1
    if "mapping.embed.weight" in d and layers != 8:
        raise ValueError(f"D maps labels by {layers} layers, ganzoo's {variant} by 8; use the official code")
    for key, given in flat.items():
        values = VALUES | ({"architecture": ["resnet", "orig"]} if key == "D" else of_g)
        for option, value in given.items():
            if option not in FREE | {"mbstd_group_size"} and value not in values.get(option, []):
                raise ValueError(
                    f"{key} has {option}={value!r}, which ganzoo's {variant} does not have; use the official code"
                )
    return flat["D"].get("mbstd_group_size") or 4  # None: `legacy.py`'s, of a network whose code had 4


def _flat(options: Any) -> dict[str, Any]:
    """Options with those of the inner modules, which are in dicts."""
    found: dict[str, Any] = {}
    for option, value in options.items() if isinstance(options, dict) else ():
        found |= _flat(value) if isinstance(value, dict) else {option: value}
    return found


def more_stylegan2(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The authors' heuristic for R1; for CIFAR-10, whose D has no residual blocks, their penalties, mixing, average."""
    if not arguments["residual"]:
        return {"gamma": 0.01, "path_weight": 0.0, "mixing": 0.0, "ema_half_life": 500_000.0}
    return {"gamma": round(2e-4 * arguments["image_size"] ** 2 / 32, 4)}


def stylegan2_key(key: str, arguments: Mapping[str, Any]) -> str:
    """Our key of a network of StyleGAN2, and the variant's arguments -> the official key."""
    side = arguments["image_size"]
    layers = {"style": "affine", "strength": "noise_strength", "noise": "noise_const"}
    parts = {"main.0": "conv0", "main.2": "conv1", "skip.1": "skip"}
    if match := re.fullmatch(r"synthesis\.(convs|images)\.(\d+)\.(?:conv\.)?(\w+)(.*)", key):
        kind, i, name, rest = match[1], int(match[2]), match[3], match[4]
        block, layer = (i, "torgb") if kind == "images" else ((i + 1) // 2, f"conv{(i + 1) % 2}")
        return f"synthesis.b{4 << block}.{layer}.{layers.get(name, name)}{rest}"
    if match := re.fullmatch(r"blocks\.(\d+)\.(main\.0|main\.2|skip\.1)\.(.*)", key):
        return f"b{2 * side >> int(match[1])}.{parts[match[2]]}.{match[3]}"
    for pattern, name in {
        r"mapping\.layers\.": "mapping.fc",
        r"w_mean": "mapping.w_avg",
        r"synthesis\.const": "synthesis.b4.const",
        r"linear\.": "b4.fc.",
        r"out\.": "b4.out.",
        r"blocks\.0\.": f"b{side}.fromrgb.",
        r"blocks\.\d+\.": "b4.conv.",
    }.items():
        key = re.sub(f"^{pattern}", name, key)
    return key


# StyleGAN3

OF_STYLEGAN3: dict[str, list[Any]] = {
    "conv_kernel": [1, 3],  # 1: R, with radial filters, which are compared
    "use_radial_filters": [False, True],
    "num_critical": [2],
    "first_cutoff": [2],
    "first_stopband": [2**2.1],
    "last_stopband_rel": [2**0.3],
    "margin_size": [10],
    "output_scale": [0.25],
    "filter_size": [6],
    "lrelu_upsampling": [2],
}


def stylegan3(networks: Networks, options: dict[str, Any]) -> dict[str, Any]:
    """Arguments of StyleGAN3; D is StyleGAN2's."""
    g, d = networks["G"], networks["D"]
    group = _group("StyleGAN3", d, options, OF_STYLEGAN3)
    found = [int(m[1]) for name in g if (m := re.fullmatch(r"synthesis\.L(\d+)\.weight", name))]
    layers = max(found, default=0)
    widths = {int(m[1]): w.shape[0] for name, w in d.items() if (m := re.fullmatch(r"b(\d{1,5})\.conv0\.weight", name))}
    widths[4] = d["b4.conv.weight"].shape[0]
    return {
        **_mapping(g),
        "image_size": max(widths),
        "channels": g[f"synthesis.L{layers}.weight"].shape[0],
        "rotation": g["synthesis.L0.weight"].shape[2] == 1,
        "maps": max(width * side for side, width in widths.items()),
        "width": max(widths.values()),
        "layers": layers,
        "group": group if d["b4.conv.weight"].shape[1] > widths[4] else 1,
    }


def more_stylegan3(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The authors' 0.5 for R1 at 128 pixels, by the number of pixels; as when they resume, an average that does not
    forget its weights early, and, for R, no blur.
    """
    blur = {"blur": 0.0} if arguments["rotation"] else {}
    return {"gamma": 0.5 * (arguments["image_size"] / 128) ** 2, "ema_ramp_up": None, **blur}


def stylegan3_key(key: str, arguments: Mapping[str, Any]) -> str:
    """Our key of a network of StyleGAN3, and the variant's arguments -> the official key, without sizes."""
    if not key.startswith("synthesis."):
        return stylegan2_key(key, arguments)
    for pattern, name in {
        r"\.layers\.": ".L",
        r"\.image\.(conv\.)?": f".L{arguments['layers']}.",
        r"\.style\.": ".affine.",
        r"\.square$": ".magnitude_ema",
    }.items():
        key = re.sub(pattern, name, key)
    return key


def stylegan3_filters(generator: Any) -> dict[str, Tensor]:
    """G's filters by their official key, without sizes."""
    layers = [(f"synthesis.L{i}", layer.leaky) for i, layer in enumerate(generator.synthesis.layers)]
    first = {f"{name}.up_filter": leaky.first / leaky.up for name, leaky in layers}
    return first | {f"{name}.down_filter": leaky.second for name, leaky in layers}


# R3GAN


def r3gan(networks: Networks, options: dict[str, Any]) -> dict[str, Any]:
    """Arguments of R3GAN."""
    g = networks["G"]
    start, embed = "MainLayers.0.Layers", g.get("EmbeddingLayer.weight")
    stages = 1 + max(int(m[1]) for name in g if (m := re.match(r"MainLayers\.(\d{1,3})\.", name)))
    inner = g[f"{start}.1.LinearLayer2.Layer.weight"]
    latent = g[f"{start}.0.LinearLayer.weight"].shape[1] - (0 if embed is None else embed.shape[0])
    return {
        "image_size": g[f"{start}.0.Basis"].shape[1] << stages - 1,
        "channels": g["AggregationLayer.Layer.weight"].shape[0],
        "num_classes": None if embed is None else embed.shape[1],
        "z_dim": latent,
        "embedding": None if embed is None else embed.shape[0],
        "width": [g[f"MainLayers.{s}.Layers.1.LinearLayer1.Layer.weight"].shape[1] for s in range(stages)],
        "blocks": sum(bool(re.fullmatch(rf"{start}\.\d+\.LinearLayer3\.Layer\.weight", name)) for name in g),
        "group_size": None if inner.shape[1] == inner.shape[0] else inner.shape[1],
        "ema_half_life": 1e6,  # the paper's for FFHQ, so that there is an average
    }


def more_r3gan(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The paper's values after the burn-in, with gamma for its sizes and data; and an average for short trainings."""
    gammas = {(32, False): 0.005, (32, True): 0.05, (64, False): 0.2, (64, True): 0.1, (256, False): 15.0}
    gamma = gammas.get((arguments["image_size"], arguments["num_classes"] == 1000))
    adam = {"optimizer": "FusedAdam", "optimizer.lr": 5e-5, "optimizer.beta1": 0.0, "optimizer.beta2": 0.99}
    return {"burn_in": None, **adam, "ema_half_life": 1e4, **({} if gamma is None else {"gamma": gamma})}


def r3gan_key(key: str, arguments: Mapping[str, Any]) -> str:
    """Our key of a network of R3GAN -> the official one."""
    for pattern, name in {
        r"^stages\.(\d+)\.(\d+)\.": r"MainLayers.\1.Layers.\2.",
        r"conv(\d)\.bias$": r"NonLinearity\1.Bias",
        r"conv(\d)\.weight$": r"LinearLayer\1.Layer.weight",
        r"(Layers\.\d+)\.[01]\.weight$": r"\1.LinearLayer.Layer.weight",  # before the doubling, after the halving
        r"\.linear\.": ".LinearLayer.",
        r"\.basis": ".Basis",
        r"^first\.": "ExtractionLayer.Layer.",
        r"^out\.": "AggregationLayer.Layer.",
        r"^(embed|table)\.": "EmbeddingLayer.",
    }.items():
        key = re.sub(pattern, name, key)
    return key


NVIDIA = "NVIDIA's own weights are under the NVIDIA Source Code License, for non-commercial use only"
UNSTATED = "R3GAN's repository states no licence, and its code is based on StyleGAN3's, for non-commercial use only"
LAYOUTS = {  # by a tensor of G that only this code has
    "synthesis.b4.const": Layout("StyleGAN2", stylegan2, stylegan2_key, NVIDIA, more_stylegan2),
    "synthesis.input.freqs": Layout("StyleGAN3", stylegan3, stylegan3_key, NVIDIA, more_stylegan3, stylegan3_filters),
    "MainLayers.0.Layers.0.Basis": Layout("R3GAN", r3gan, r3gan_key, UNSTATED, more_r3gan),
}
