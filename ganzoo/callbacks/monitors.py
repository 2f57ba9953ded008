"""Values monitored by callbacks such as Lightning's EarlyStopping: each must be logged, and counts once."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from ganzoo.core.lightning_fixes import BatchEndCallback, save_nothing_now
from ganzoo.core.player import LOSSES


class Monitors(BatchEndCallback):
    """Checks that every monitored value is logged: it is a loss, or in the `monitored` of an earlier callback.

    Values may be missing until they are first computed; EarlyStopping counts each value once.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Checks the names of all monitored values.

        Raises:
            MisconfigurationException: nothing logs a monitored value.
        """
        names = [*LOSSES, *(f"val/{name}" for name in LOSSES if trainer.enable_validation)]
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            names += getattr(callback, "monitored", [])
        foreign = [part for part in (pl_module, *trainer.callbacks) if not _known(part)]  # type: ignore[attr-defined]
        for callback in _of(trainer, EarlyStopping, ModelCheckpoint):
            if callback.monitor is None or (callback.monitor not in names and foreign):  # a foreign part may log it
                continue
            if callback.monitor not in names:
                what = f"{type(callback).__name__}: monitor {callback.monitor!r} is never logged"
                raise MisconfigurationException(f"{what}; use one of {', '.join(names)}")
            if isinstance(callback, EarlyStopping):
                callback.strict = False  # it may be missing at first

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        kept = {callback.monitor for callback in _of(trainer, ModelCheckpoint)}
        for callback in _of(trainer, EarlyStopping):
            if callback.monitor not in (*LOSSES, *kept):
                trainer.callback_metrics.pop(callback.monitor, None)

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        for callback in _of(trainer, ModelCheckpoint):
            if callback.monitor is not None and callback.monitor not in trainer.callback_metrics:
                save_nothing_now(callback, trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        self.on_validation_end(trainer, pl_module)


def _of(trainer: Trainer, *kinds: type) -> list[Any]:
    return [callback for callback in trainer.callbacks if isinstance(callback, kinds)]  # type: ignore[attr-defined]


def _known(part: Any) -> bool:
    return type(part).__module__.startswith(("ganzoo.", "lightning."))
