"""Augmentation of what the discriminator sees, an option of every variant: `augment=DiffAugment()`."""

from ganzoo.augment.ada import ADA as ADA
from ganzoo.augment.apa import APA as APA
from ganzoo.augment.base import Augment as Augment
from ganzoo.augment.base import Identity as Identity
from ganzoo.augment.base import chosen as chosen
from ganzoo.augment.diffaugment import DiffAugment as DiffAugment
