"""ganzoo: GANs on PyTorch Lightning, one small file per paper."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0.dev0"
PRETRAINED = Path(__file__).parent / "pretrained"  # one folder per trained model

# Imports for type checkers. At run time, a name's module is imported at the first use of the name. A new variant
# needs one line here; `list_models` returns them in this order, that of the papers' dates.
if TYPE_CHECKING:
    # isort: off
    from ganzoo.variants.gan import GAN as GAN
    from ganzoo.variants.cgan import CGAN as CGAN
    from ganzoo.variants.lapgan import LAPGAN as LAPGAN
    from ganzoo.variants.dcgan import DCGAN as DCGAN
    from ganzoo.variants.improved_gan import ImprovedGAN as ImprovedGAN
    from ganzoo.variants.infogan import InfoGAN as InfoGAN
    from ganzoo.variants.ebgan import EBGAN as EBGAN
    from ganzoo.variants.ladder_ebgan import LadderEBGAN as LadderEBGAN
    from ganzoo.variants.mlpgan import MLPGAN as MLPGAN
    from ganzoo.variants.acgan import ACGAN as ACGAN
    from ganzoo.variants.lsgan import LSGAN as LSGAN
    from ganzoo.variants.pix2pix import Pix2Pix as Pix2Pix
    from ganzoo.variants.wgan import WGAN as WGAN
    from ganzoo.variants.cyclegan import CycleGAN as CycleGAN
    from ganzoo.variants.wgangp import WGANGP as WGANGP
    from ganzoo.variants.progan import ProGAN as ProGAN
    from ganzoo.variants.sngan import SNGAN as SNGAN
    from ganzoo.variants.projectiongan import ProjectionGAN as ProjectionGAN
    from ganzoo.variants.sagan import SAGAN as SAGAN
    from ganzoo.variants.biggan import BigGAN as BigGAN
    from ganzoo.variants.stylegan2 import StyleGAN2 as StyleGAN2
    from ganzoo.variants.contragan import ContraGAN as ContraGAN
    from ganzoo.variants.fastgan import FastGAN as FastGAN
    from ganzoo.variants.stylegan3 import StyleGAN3 as StyleGAN3
    from ganzoo.variants.projectedgan import ProjectedGAN as ProjectedGAN
    from ganzoo.variants.reacgan import ReACGAN as ReACGAN
    from ganzoo.variants.r3gan import R3GAN as R3GAN

    # isort: on
    from ganzoo.checkpoint.pretrained import load as load
    from ganzoo.checkpoint.pretrained import save_pretrained as save_pretrained
    from ganzoo.core.module import GANModule as GANModule
    from ganzoo.core.strategy import GANStrategy as GANStrategy
    from ganzoo.evaluation import evaluate as evaluate


# Name -> module, from the imports above.
_LAZY = {
    alias.name: node.module
    for node in ast.walk(ast.parse(Path(__file__).read_text(encoding="utf-8")))
    if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("ganzoo.")
    for alias in node.names
}
VARIANTS = {name: module for name, module in _LAZY.items() if module.startswith("ganzoo.variants.")}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'ganzoo' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return [*_LAZY, "VARIANTS", "__version__", "list_models", "list_pretrained"]


def list_models() -> list[str]:
    """Names of all variants."""
    return list(VARIANTS)


def list_pretrained() -> list[str]:
    """Names of the trained models that come with ganzoo, for `load`."""
    return sorted(file.parent.name for file in PRETRAINED.glob("*/config.json"))
