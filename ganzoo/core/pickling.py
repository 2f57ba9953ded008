"""Pickling a model: a lambda that is a constructor's default is pickled by the place where it stands."""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

from lightning.pytorch import LightningModule


class Default(NamedTuple):
    """The place of a constructor's default."""

    cls: type
    argument: str


def get_state(self: Any) -> dict[str, Any]:
    """A model's `__getstate__`: without what belongs to a training that is going on."""
    state = LightningModule.__getstate__(self)
    factories = {name: _by_place(type(self), factory) for name, factory in self.make_optimizer.items()}
    state |= {"make_optimizer": factories, "lr_scheduler": _by_place(type(self), self.lr_scheduler)}
    return {**state, "players": {}, "compiler": None, "rollback": None}


def set_state(self: Any, state: dict[str, Any]) -> None:
    """A model's `__setstate__`."""
    LightningModule.__setstate__(self, state)
    self.make_optimizer = {name: _value(factory) for name, factory in self.make_optimizer.items()}
    self.lr_scheduler = _value(self.lr_scheduler)


def _by_place(variant: type, value: Any) -> Any:
    """A `Default` for what is a default of the variant's constructors; anything else as it is."""
    for cls in variant.__mro__ if callable(value) else ():
        for argument, parameter in inspect.signature(cls.__init__).parameters.items():  # type: ignore[misc]
            if parameter.default is value:
                return Default(cls, argument)
    return value


def _value(factory: Any) -> Any:
    if not isinstance(factory, Default):
        return factory
    return inspect.signature(factory.cls.__init__).parameters[factory.argument].default  # type: ignore[misc]
