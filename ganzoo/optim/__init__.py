"""Optimizers and schedules for games, beside torch's own."""

from ganzoo.optim.adam import EpsInRootAdam as EpsInRootAdam
from ganzoo.optim.adam import FusedAdam as FusedAdam
from ganzoo.optim.game import CorrectedAdam as CorrectedAdam
from ganzoo.optim.game import ExtraAdam as ExtraAdam
from ganzoo.optim.game import Lookahead as Lookahead
from ganzoo.optim.game import OptimisticAdam as OptimisticAdam
from ganzoo.optim.schedule import LinearTail as LinearTail
