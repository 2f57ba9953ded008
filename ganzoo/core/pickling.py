"""Pickling of models: callables that are constructor defaults, such as lambdas, are pickled as references to them."""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

from lightning.pytorch import LightningModule

from ganzoo.core.finite import Watch
from ganzoo.core.loss_log import LossLog
from ganzoo.core.random import Randomness


class Default(NamedTuple):
    """Reference to the default of a constructor argument."""

    cls: type
    argument: str


def get_state(model: Any) -> dict[str, Any]:
    """A model's `__getstate__`, without the state of a running training."""
    state = LightningModule.__getstate__(model)
    factories = {name: _by_place(type(model), factory) for name, factory in model.make_optimizer.items()}
    state |= {"make_optimizer": factories, "lr_scheduler": _by_place(type(model), model.lr_scheduler)}
    state |= {"randomness": Randomness(), "loss_log": LossLog(), "watch": Watch()}
    return {**state, "players": {}, "compiler": None, "updates": {}, "rollback": None}


def set_state(model: Any, state: dict[str, Any]) -> None:
    """A model's `__setstate__`."""
    LightningModule.__setstate__(model, state)
    model.make_optimizer = {name: _value(factory) for name, factory in model.make_optimizer.items()}
    model.lr_scheduler = _value(model.lr_scheduler)


def _by_place(variant: type, value: Any) -> Any:
    """A `Default` for a callable that is a default of one of the variant's constructors; other values unchanged."""
    for cls in variant.__mro__ if callable(value) else ():
        for argument, parameter in inspect.signature(cls.__init__).parameters.items():  # type: ignore[misc]
            if parameter.default is value:
                return Default(cls, argument)
    return value


def _value(factory: Any) -> Any:
    if not isinstance(factory, Default):
        return factory
    return inspect.signature(factory.cls.__init__).parameters[factory.argument].default  # type: ignore[misc]
