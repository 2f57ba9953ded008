"""What keeps a network still: while the other player moves, or while it is looked at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn


class Still:
    """Holds everything that one player's update must not move.

    Args:
        networks: the players' networks.
        moving: the parameters that the update moves.
    """

    def __init__(self, networks: Sequence[nn.Module], moving: Sequence[nn.Parameter]) -> None:
        own = {id(p) for p in moving}
        still = [net for net in networks if not any(id(p) in own for p in net.parameters())]
        self.parameters = [p for net in networks for p in net.parameters() if id(p) not in own]
        self.buffers = [buffer for net in still for buffer in net.buffers()]

    @contextmanager
    def hold(self) -> Iterator[None]:
        """No gradients for the parameters; the buffers are kept."""
        frozen = [p for p in self.parameters if p.requires_grad]
        for p in frozen:
            p.requires_grad_(False)
        try:
            with self.keep():
                yield
        finally:
            for p in frozen:
                p.requires_grad_(True)

    @contextmanager
    def keep(self) -> Iterator[None]:
        """Running statistics, power iterations and other buffers end as they were."""
        kept = [buffer.clone() for buffer in self.buffers]
        try:
            yield
        finally:
            for buffer, value in zip(self.buffers, kept, strict=True):
                buffer.data.copy_(value)  # past autograd, for a graph that was built meanwhile and reads no buffer


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Eval mode, and back to what each sub-module was."""
    training = [m for m in network.modules() if m.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
