"""Pictures during training: grids of fixed latents, reals, an interpolation, and a video."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from PIL import Image
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from ganzoo.callbacks.base import folder_of, held_out, on_training_device, size_of, some, warn_on_oserror
from ganzoo.core.atomic import write_atomically
from ganzoo.core.drawing import animation, check_bands, picture, shown, write_video
from ganzoo.core.lightning_fixes import BatchEndCallback
from ganzoo.core.limits import ArgumentError, Count, Limits, at_once, check
from ganzoo.core.module import GANModule
from ganzoo.core.pixels import as_bytes, is_points
from ganzoo.core.signals import TERMINATE
from ganzoo.core.types import Batch, Latent

Tiles = Annotated[int, Limits(1, 100)]


class Samples(BatchEndCallback):
    """Writes `reals.png`, `samples/<step>.png` and, at the end, `interpolation.png`, `samples.mp4` and, for variants
    with truncation or style mixing, `truncation.png` and `mixing.png`.

    They go to the trainer's log folder, and to loggers that accept them. A translator's grids show held-out sources,
    their translations below and, for paired data, the targets below those.

    Args:
        every_n_steps: batches between two grids; there is one more before the first batch and after the last.
        rows: of the grid, 1 to 100. Data in the plane is shown as 2,000 points.
        columns: of the grid, 1 to 100; for a conditional model, each column shows one class.
        video_fps: frames per second of the video of all grids, 1 to 100; 0: no video.
        bands: one or three channels to show, counted from 0. None: 1 to 4 channels are shown as grey or colour, with
            alpha (the second of 2, the last of 4) on a checkerboard; of more channels, the first three are shown.

    Raises:
        ValueError: the bands are not one or three.
    """

    def __init__(
        self,
        every_n_steps: Count = 500,
        rows: Tiles = 6,
        columns: Tiles = 10,
        video_fps: Annotated[int, Limits(0, 100)] = 8,
        bands: Sequence[int] | None = None,
    ) -> None:
        check(Samples, locals())
        self.every_n_steps = every_n_steps
        self.rows = rows
        self.columns = columns
        self.video_fps = video_fps
        self.bands = bands
        if bands is not None:
            try:
                check_bands(bands)
            except ValueError as error:
                raise ArgumentError(Samples, "bands", str(error).removeprefix("bands ")) from error

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.folder = folder_of(trainer)
        self.trained = False
        self.latents: Latent | None = None  # of all grids
        if self.bands is not None:
            try:
                check_bands(self.bands, getattr(trainer.datamodule, "channels", None))  # type: ignore[attr-defined]
            except ValueError as error:
                raise MisconfigurationException(f"samples.{error}") from error

    @rank_zero_only
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.trained = True
        (self.folder / "samples.mp4").unlink(missing_ok=True)  # of an earlier end of this run
        for grid in (self.folder / "samples").glob("*.png"):  # the run begins anew, or at an earlier step
            if re.fullmatch(r"[0-9]{8,}", grid.stem) and int(grid.stem) > trainer.global_step:
                with suppress(OSError):
                    grid.unlink()
        self.shows_reals = trainer.global_step == 0 or not (self.folder / "reals.png").exists()
        if trainer.global_step == 0:
            self._draw(trainer, pl_module)

    @rank_zero_only
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        if self.shows_reals:
            self.shows_reals = False
            n = self._count(batch["image"])
            reals = some(trainer, n, "train") or batch  # a batch may have too few
            self._show(trainer, "reals", self._grid(reals["image"][:n]))
        if trainer.global_step % self.every_n_steps == 0:
            self._draw(trainer, pl_module)

    @rank_zero_only
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        video = self.folder / "samples.mp4"
        if not self.trained and (video.exists() or not self.video_fps):
            return  # the run had ended before, and its video was written
        if any(getattr(callback, "signal", 0) in TERMINATE for callback in trainer.callbacks):  # type: ignore[attr-defined]
            return  # little time is left
        model = cast(GANModule, pl_module)
        with on_training_device(trainer, model):
            if trainer.global_step % self.every_n_steps:
                self._draw(trainer, model)
            if model.source_channels is None:
                for name, images in final_grids(model, self.rows, self.columns).items():
                    self._show(trainer, name, self._grid(images))
        frames = sorted((self.folder / "samples").glob("*.png"))
        if self.video_fps and len(frames) > 1:
            with warn_on_oserror(video):
                write_atomically(video, lambda file: write_video(file, frames, self.video_fps))
                log_video(trainer, "video", video, lambda: animation(frames, self.video_fps))

    def _draw(self, trainer: Trainer, model: Any) -> None:
        name = f"samples/{trainer.global_step:08d}"
        if model.source_channels is not None:
            if (images := self._translated(trainer, model)) is not None:
                self._show(trainer, "samples", picture(images, self.columns), name)
            return
        if self.latents is None:
            self.latents = model.seeded(range(self._count(model.sample(1, seeds=[0]))))
        self._show(trainer, "samples", self._grid(self._generated(model, self.latents)), name)

    def _generated(self, model: GANModule, latents: Latent) -> Tensor:
        """Images of the latents of seeds 0, 1, ..., as `sample` gives; one class per column."""
        given: Batch = {}
        if model.num_classes is not None:
            usual, n = model.trained_labels(), len(tree_leaves(latents)[0])
            labels = [usual[i % self.columns % len(usual)] for i in range(n)]
            given["label"] = torch.tensor(labels, device=model.device)
        return generated(model, latents, given)

    def _translated(self, trainer: Trainer, model: GANModule) -> Tensor | None:
        """Rows of sources, translations and, for paired data, targets; None without a data module of ganzoo's."""
        kinds = 3 if getattr(getattr(trainer, "datamodule", None), "paired", True) else 2
        n = max(1, self.rows // kinds) * self.columns
        if (batch := held_out(trainer, n)) is None:
            return None
        fakes = model.sample(n, seeds=range(n), source=batch["source"], batch_size=at_once(size_of(model)))
        rows = [shown(batch["source"]), *(shown(images, self.bands) for images in (fakes, batch["image"]))][:kinds]
        rows = [as_bytes(images) for images in rows]
        most = max(images.shape[1] for images in rows)
        rows = [images.expand(-1, most, -1, -1) if images.shape[1] == 1 else images for images in rows]
        return torch.stack([images.unflatten(0, (-1, self.columns)) for images in rows], 1).flatten(0, 2)

    def _count(self, images: Tensor) -> int:
        return 2000 if is_points(images) else self.rows * self.columns  # points in the plane

    def _grid(self, images: Tensor) -> Image.Image:
        return picture(images, self.columns, bands=self.bands)

    def _show(self, trainer: Trainer, key: str, image: Image.Image, name: str | None = None) -> None:
        path = self.folder / f"{name or key}.png"
        with warn_on_oserror(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, lambda file: image.save(file, "png"))  # so that frames of the video are complete
        log_image(trainer, key, image)


def final_grids(model: GANModule, rows: int, columns: int) -> dict[str, Tensor]:
    """Images [rows * columns, C, H, W] of the grids that a generator of latents can show."""
    found = {"interpolation": interpolation(model, rows, columns)}
    if type(model).truncate is not GANModule.truncate:
        found["truncation"] = truncations(model, rows, columns)
    if callable(getattr(model, "mix", None)) and rows > 1 and columns > 1:
        found["mixing"] = mixtures(model, rows, columns)
    return found


def truncations(model: GANModule, rows: int, columns: int) -> Tensor:
    """Images of fixed seeds, one per row, with truncations up to 1, the same in a column."""
    z, given = fixed(model, 0, rows)
    images = [generated(model, model.truncate(z, (i + 1) / columns), given) for i in range(columns)]
    return torch.stack(images, 1).flatten(0, 1)


def mixtures(model: Any, rows: int, columns: int) -> Tensor:
    """A first column and a first row of images, and in each other place the coarse styles of its row's image with the
    fine styles of its column's."""
    sources = fixed(model, 0, rows - 1), fixed(model, rows - 1, columns - 1)
    left, top = (model.generate(z, given) for z, given in sources)
    coarse, fine = ({"z": z, **given} for z, given in sources)
    lines = [torch.ones_like(top[:1]), top]
    for i in range(rows - 1):
        row = tree_map(lambda t, i=i: t[i : i + 1].expand(columns - 1, *t.shape[1:]), coarse)
        lines += [left[i : i + 1], model.mix(row, fine)]
    return torch.cat(lines)


def generated(model: GANModule, z: Latent, given: Batch) -> Tensor:
    """As `model.generate`, in parts, and on the CPU."""
    n, most = len(tree_leaves(z)[0]), at_once(size_of(model))
    parts = [tree_map(lambda t, start=start: t[start : start + most], (z, given)) for start in range(0, n, most)]
    return torch.cat([model.generate(*part).cpu() for part in parts])


def fixed(model: GANModule, first: int, n: int) -> tuple[Latent, Batch]:
    """Latents of n consecutive seeds and, if the model takes them, labels in turn."""
    seeds, usual, given = range(first, first + n), model.trained_labels(), Batch()
    if usual:
        given["label"] = torch.tensor([usual[i % len(usual)] for i in seeds], device=model.device)
    return model.seeded(seeds), given


def interpolation(model: GANModule, rows: int, columns: int) -> Tensor:
    """Images [rows * columns, C, H, W] on straight lines between latents of fixed seeds; one class per row."""
    (start, given), (end, _) = fixed(model, 0, rows), fixed(model, rows, rows)
    steps = torch.linspace(0, 1, columns, device=model.device)

    def line(a: Tensor, b: Tensor) -> Tensor:
        if not a.is_floating_point():  # discrete codes are not interpolated
            return a.repeat_interleave(columns, 0)
        t = steps.view(1, -1, *[1] * (a.ndim - 1)).to(a.dtype)
        return torch.lerp(a[:, None], b[:, None], t).flatten(0, 1)

    labels = tree_map(lambda y: y.repeat_interleave(columns), given)
    return generated(model, tree_map(line, start, end), labels)


def log_image(trainer: Trainer, key: str, image: Image.Image) -> None:
    """Passes a picture to every logger that accepts pictures."""

    def hand_over(logger: Logger) -> None:
        if isinstance(logger, WandbLogger):
            logger.log_image(key, [image], step=trainer.global_step)
        elif isinstance(logger, TensorBoardLogger):
            pixels = np.atleast_3d(np.asarray(image))
            logger.experiment.add_image(key, pixels, trainer.global_step, dataformats="HWC")

    cast(GANModule, trainer.lightning_module).loss_log.each_logger(trainer, hand_over)


def log_video(trainer: Trainer, key: str, video: Path, gif: Callable[[], bytes]) -> None:
    """Passes a video to every logger that accepts videos; TensorBoard gets a GIF among its images."""

    def hand_over(logger: Logger) -> None:
        if isinstance(logger, WandbLogger):
            logger.log_video(key, [str(video)], step=trainer.global_step, format=["mp4"])
        elif isinstance(logger, TensorBoardLogger):
            from torch.utils.tensorboard.summary import Summary

            width, height = Image.open(BytesIO(encoded := gif())).size
            shown = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=encoded)
            summary = Summary(value=[Summary.Value(tag=key, image=shown)])
            logger.experiment.file_writer.add_summary(summary, trainer.global_step)

    cast(GANModule, trainer.lightning_module).loss_log.each_logger(trainer, hand_over)
