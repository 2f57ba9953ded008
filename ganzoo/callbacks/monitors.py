"""Values monitored by Lightning's EarlyStopping and ModelCheckpoint: each must be logged, and a score counts once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from ganzoo.core.lightning_fixes import (
    BatchEndCallback,
    check_as_usual,
    check_now,
    check_when_asked,
    save_nothing_now,
    saved_since,
    saves_now,
)
from ganzoo.core.player import LOSSES


class Monitors(BatchEndCallback):
    """Checks that every monitored value is logged: it is a loss, or in the `monitored` of an earlier callback.

    Values may be missing until they are first computed. A score is checked by EarlyStopping when it is measured, and
    saved by ModelCheckpoint once.
    """

    stopping: Sequence[EarlyStopping] = ()  # those on a score

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Checks the names of all monitored values.

        Raises:
            MisconfigurationException: nothing logs a monitored value.
        """
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        names = [*LOSSES, *(f"val/{name}" for name in LOSSES if trainer.enable_validation)]
        names += [name for callback in callbacks for name in getattr(callback, "monitored", [])]
        foreign = [part for part in (pl_module, *callbacks) if not _known(part)]
        self.measuring = [c for c in callbacks if isinstance(getattr(c, "measured", None), dict)]
        scores = {name for callback in self.measuring for name in getattr(callback, "monitored", [])}
        self.stopping = [callback for callback in _of(trainer, EarlyStopping) if callback.monitor in scores]
        self.saving = [callback for callback in _of(trainer, ModelCheckpoint) if callback.monitor is not None]
        for callback in self.stopping:
            check_when_asked(callback)
        for callback in _of(trainer, EarlyStopping, ModelCheckpoint):
            if callback.monitor is None or (callback.monitor not in names and foreign):  # a foreign part may log it
                continue
            if callback.monitor not in names:
                what = f"{type(callback).__name__}: monitor {callback.monitor!r} is never logged"
                raise MisconfigurationException(f"{what}; use one of {', '.join(names)}")
            if isinstance(callback, EarlyStopping):
                callback.strict = False  # it may be missing at first

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        for callback in self.stopping:
            if self._measured(callback.monitor) == trainer.global_step:
                check_now(callback, trainer)
        for callback in self.saving:
            if saves_now(callback, trainer) and self._is_old(callback):
                save_nothing_now(callback, trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        self._defer(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        self._defer(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: Any) -> None:
        for callback in self.stopping:
            check_as_usual(callback)

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        self.on_fit_end(trainer, pl_module)

    def _defer(self, trainer: Trainer) -> None:
        """Keeps ModelCheckpoint from saving for a value that does not exist yet, or for a score once more."""
        for callback in self.saving:
            if callback.monitor not in trainer.callback_metrics or self._is_old(callback):
                save_nothing_now(callback, trainer)

    def _is_old(self, callback: ModelCheckpoint) -> bool:
        """Whether there has been a checkpoint since the monitored score was measured, and none of the last state is
        asked for."""
        step = self._measured(callback.monitor)
        return step is not None and not callback.save_last and saved_since(callback, step)

    def _measured(self, name: str | None) -> int | None:
        """The step at which a score was last measured; None for other values."""
        return max((c.measured[name] for c in self.measuring if name in c.measured), default=None)


def _of(trainer: Trainer, *kinds: type) -> list[Any]:
    return [callback for callback in trainer.callbacks if isinstance(callback, kinds)]  # type: ignore[attr-defined]


def _known(part: Any) -> bool:
    return type(part).__module__.startswith(("ganzoo.", "lightning."))
