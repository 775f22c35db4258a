"""The names meant for others; a module is imported when a name of it is used."""

from .solution import (
    plot_solution as plot_solution,
    plot_schedule as plot_schedule,
    plot_loss as plot_loss,
)
from .compare import (
    plot_comparison as plot_comparison,
    plot_comparison_figure as plot_comparison_figure,
    plot_bounds_figure as plot_bounds_figure,
    plot_best as plot_best,
    plot_parts as plot_parts,
)
from .scaling import plot_scaling as plot_scaling
from .compute import plot_compute as plot_compute
from .phases import plot_phase_diagram as plot_phase_diagram
from .figures import plot_paper_figure as plot_paper_figure
from .dashboard import plot_dashboard as plot_dashboard
from .pilot import (
    fit_figure as fit_figure,
    plan_figure as plan_figure,
    prediction_figure as prediction_figure,
)
from .convex import plot_run_figure as plot_run_figure
from .diffusion import plot_noise_figure as plot_noise_figure
from .invariance import plot_invariance as plot_invariance
from .lmo import plot_valley as plot_valley
from .measured import plot_measured as plot_measured
from .batch_rules import plot_rate_rules as plot_rate_rules, plot_tradeoff as plot_tradeoff
