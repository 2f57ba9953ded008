"""Evaluation of both equations on held-out images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.utils._pytree import tree_map

from ganzoo.core import penalised
from ganzoo.core.batch import check_batch, size
from ganzoo.core.loss_log import Loss, refresh
from ganzoo.core.player import PLAYERS
from ganzoo.core.types import Batch

if TYPE_CHECKING:
    from ganzoo.core.module import GANModule


def start(model: GANModule) -> None:
    """Apply the schedules of the images seen, which `validate` and `test` have not applied yet."""
    model.schedule(model.images_seen)
    model.augment.schedule(model.images_seen)


def evaluate(model: GANModule, batch: Batch, batch_idx: int) -> None:
    """Evaluate both equations on a batch of held-out images, all networks in eval mode; each process draws its own
    latents."""
    log = model.loss_log
    check_batch(batch, model, values=batch_idx == 0)
    with torch.inference_mode(False), torch.enable_grad():  # for gradient penalties
        rank = model.trainer.global_rank
        model.randomness.restart(model.device, batch_idx, rank, rank=rank)
        log.held_out_images = size(batch)
        batch = tree_map(torch.clone, batch)
        n, apart = size(batch), model.randomness.apart
        batch |= model.draw(n, model.randomness.shared) | model.augment.draw(model, n, apart)
        for player in PLAYERS:
            with model.augment.shown(model, batch, player) as seen:
                found = Loss.of(penalised.held_out(model, player, seen), player)
            log.held_out.add((f"{player[0].upper()}/loss",), found.total[None], size(batch))


def report(model: GANModule, stage: str) -> None:
    """Log the means over all held-out images as `<stage>/<name>`."""
    log = model.loss_log
    log.collect(log.held_out)
    log.held_out_images = 0
    log.log(model, {f"{stage}/{name}": value for name, value in log.held_out.pop().items()})
    refresh(model)
