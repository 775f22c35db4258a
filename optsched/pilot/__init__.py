"""From pilot runs to the next run: logs, laws fitted to them, predictions and plans."""

from optsched.logs.read import RateLog, read_rates, read_run, read_runs, read_schedule
from optsched.logs.run import Run
from optsched.logs.seeds import SeedGroup, average_seeds
from optsched.pilot.fitting import Fit, fit
from optsched.pilot.heldout import HeldOut, held_out
from optsched.pilot.lawfile import load_fit, save_fit
from optsched.pilot.laws import LAWS, Law, Prior
from optsched.pilot.planning.optimal import Plan, plan
from optsched.pilot.prediction import Prediction, Ranking, compare, predict

__all__ = [
    "LAWS",
    "Fit",
    "HeldOut",
    "Law",
    "Plan",
    "Prediction",
    "Prior",
    "Ranking",
    "RateLog",
    "Run",
    "SeedGroup",
    "average_seeds",
    "compare",
    "fit",
    "held_out",
    "load_fit",
    "plan",
    "predict",
    "read_rates",
    "read_run",
    "read_runs",
    "read_schedule",
    "save_fit",
]
