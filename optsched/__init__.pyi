"""The public names, and where each lives; `__init__.py` imports them when they are used."""

from .control.budget import (
    Budget as Budget,
    BudgetSolution as BudgetSolution,
    solve_budget as solve_budget,
)
from .control.certificate import Certificate as Certificate
from .control.methods.collocation import Collocation as Collocation
from .control.methods.pontryagin import Pontryagin as Pontryagin
from .control.methods.shooting import Shooting as Shooting
from .control.problem import Problem as Problem
from .control.solution import Solution as Solution, Status as Status
from .control.solve import solve as solve
from .control.task import Iterate as Iterate, Method as Method, Task as Task
from .errors import (
    BadFile as BadFile,
    BadLog as BadLog,
    BadPart as BadPart,
    InvalidProblem as InvalidProblem,
    MissingExtra as MissingExtra,
    OptschedError as OptschedError,
    SolveFailed as SolveFailed,
)
from .logs.read import read_run as read_run, read_runs as read_runs
from .logs.run import Run as Run
from .model.dynamics import Dynamics as Dynamics
from .model.moments import (
    LinearOptimiser as LinearOptimiser,
    Transition as Transition,
    pytree as pytree,
)
from .model.replay import Replay as Replay, replay as replay
from .model.spectrum import (
    PowerLawSpectrum as PowerLawSpectrum,
    Spectrum as Spectrum,
    TabulatedSpectrum as TabulatedSpectrum,
)
from .model.stability import (
    momentum_limit as momentum_limit,
    noise_limit as noise_limit,
    stability_limit as stability_limit,
)
from .objectives import (
    ExcessAt as ExcessAt,
    FinalExcess as FinalExcess,
    MeanExcess as MeanExcess,
    Objective as Objective,
)
from .optimisers.base import Limit as Limit, Optimiser as Optimiser, Setting as Setting
from .optimisers.momentum import (
    QHM as QHM,
    SGD as SGD,
    HeavyBall as HeavyBall,
    Nesterov as Nesterov,
)
from .pilot.fitting import Fit as Fit, fit as fit
from .pilot.laws.law import Law as Law
from .pilot.lawfile import load_fit as load_fit, save_fit as save_fit
from .pilot.planning.optimal import Plan as Plan, plan as plan
from .pilot.prediction import Prediction as Prediction, predict as predict
from .schedules.exports.keras import to_keras as to_keras
from .schedules.exports.optax import to_optax as to_optax
from .schedules.exports.torch import to_lightning as to_lightning, to_torch as to_torch
from .schedules.families.family import Family as Family, Parameter as Parameter
from .schedules.schedule import Schedule as Schedule
from .studies.compare.families import compare as compare

__all__: list[str]
__version__: str
