"""Penalties and regularisers, for any variant: `penalties=[R1(weight=10), LeCam()]`."""

from ganzoo.penalties.base import Penalty as Penalty
from ganzoo.penalties.base import View as View
from ganzoo.penalties.consistency import BCR as BCR
from ganzoo.penalties.consistency import ZCR as ZCR
from ganzoo.penalties.gradients import R1 as R1
from ganzoo.penalties.gradients import R2 as R2
from ganzoo.penalties.gradients import GradientPenalty as GradientPenalty
from ganzoo.penalties.lecam import LeCam as LeCam
from ganzoo.penalties.weights import Orthogonal as Orthogonal
