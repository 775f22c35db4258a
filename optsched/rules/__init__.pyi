"""The names meant for others; a module is imported when a name of it is used."""

from .averaging import (
    MovingAverage as MovingAverage,
    average_for as average_for,
    decay_for as decay_for,
)
from .precision import (
    last_steps as last_steps,
    least_rate as least_rate,
    loss_scale as loss_scale,
    rounding as rounding,
)
from .stability import (
    SharpnessTrace as SharpnessTrace,
    StableRate as StableRate,
    UpdateRule as UpdateRule,
    stable_rate as stable_rate,
    stable_warmup as stable_warmup,
)
