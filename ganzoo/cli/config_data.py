"""The data module that a config names, without its training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ganzoo.cli import trust
from ganzoo.cli.errors import UserError
from ganzoo.cli.paths import own_files


def data_of(file: Path, trusted: Sequence[str]) -> Any:
    """What a config says under `data`."""
    from ganzoo.cli.parsing import AT, OptionError
    from ganzoo.cli.preflight import read_config

    if not (settings := read_config(file).get("data")):
        raise UserError(f"{file} has no data section; name a config of a training")
    try:
        return datamodule(settings, trusted)
    except OptionError as error:
        raise UserError(f"{file}: {str(error).replace(AT, '')}") from error


def datamodule(settings: Any, trusted: Sequence[str] = ()) -> Any:
    """The data module of a config's `data` section; it may be of a trusted package."""
    from lightning.pytorch import LightningDataModule

    import ganzoo.data  # noqa: F401, so that its classes are found by their bare names
    from ganzoo.cli.parsing import Parser

    own_files()
    trust.guard(trusted)
    parser = Parser()
    parser.add_subclass_arguments(LightningDataModule, "data", required=True)
    return parser.instantiate(parser.parse_object({"data": settings})).data
