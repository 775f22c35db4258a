"""The names meant for others; the frameworks are imported when a name is used."""

from .alignment import check_alignment as check_alignment
from .common import per_update as per_update
from .keras import to_keras as to_keras
from .optax import heavy_ball as heavy_ball, to_optax as to_optax
from .snippets import snippet as snippet
from .torch import BatchSampler as BatchSampler, to_lightning as to_lightning, to_torch as to_torch
