"""ganzoo: GANs on PyTorch Lightning, one small file for each paper."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0.dev0"

# Name -> module. A new variant is one line here; nothing is imported before it is asked for.
VARIANTS = {
    "GAN": "ganzoo.variants.gan",
    "DCGAN": "ganzoo.variants.dcgan",
}
_LAZY = {
    **VARIANTS,
    "GANModule": "ganzoo.core.module",
    "GANStrategy": "ganzoo.core.strategy",
    "evaluate": "ganzoo.evaluation",
    "load": "ganzoo.hub",
    "save_pretrained": "ganzoo.hub",
}

if TYPE_CHECKING:
    from ganzoo.core.module import GANModule as GANModule
    from ganzoo.core.strategy import GANStrategy as GANStrategy
    from ganzoo.evaluation import evaluate as evaluate
    from ganzoo.hub import load as load
    from ganzoo.hub import save_pretrained as save_pretrained
    from ganzoo.variants.dcgan import DCGAN as DCGAN
    from ganzoo.variants.gan import GAN as GAN


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'ganzoo' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return [*_LAZY, "VARIANTS", "__version__", "list_models"]


def list_models() -> list[str]:
    """Names of all variants."""
    return list(VARIANTS)
