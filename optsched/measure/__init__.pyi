"""The names meant for others; a module is imported when a name of it is used."""

from .compute_law import (
    ComputeLaw as ComputeLaw,
    ComputeOptimal as ComputeOptimal,
    compute_optimal as compute_optimal,
    fit_compute_law as fit_compute_law,
    model_size as model_size,
)
from .exponent_fits import EigenvalueFit as EigenvalueFit, TargetFit as TargetFit
from .exponents import (
    MeasuredSpectrum as MeasuredSpectrum,
    measure_features as measure_features,
    measure_kernel as measure_kernel,
    measure_spectrum as measure_spectrum,
)
from .sample_spectrum import Population as Population
from .tangent import (
    measure_model as measure_model,
    tangent_features as tangent_features,
    tangent_kernel as tangent_kernel,
)
