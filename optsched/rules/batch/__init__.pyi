"""The names meant for others; a module is imported when a name of it is used."""

from .accumulation import (
    Accumulation as Accumulation,
    at_batch as at_batch,
    in_samples as in_samples,
)
from .noise_scale import (
    NoiseScale as NoiseScale,
    RunningNoiseScale as RunningNoiseScale,
    per_example as per_example,
    sgd_noise_scale as sgd_noise_scale,
    two_batch as two_batch,
)
from .scaling import (
    AdamScaling as AdamScaling,
    CriticalBatch as CriticalBatch,
    RateScaling as RateScaling,
    fit_critical_batch as fit_critical_batch,
    rate_factor as rate_factor,
    samples_at_steps as samples_at_steps,
    samples_factor as samples_factor,
    scale_adam as scale_adam,
    scale_rate as scale_rate,
    steps_factor as steps_factor,
)
