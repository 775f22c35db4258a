"""The names meant for others; a module is imported when a name of it is used."""

from .alarms import ALARMS as ALARMS, Alarm as Alarm, Limits as Limits
from .append import AppendOnly as AppendOnly
from .curvature import (
    Hessian as Hessian,
    TraceEstimate as TraceEstimate,
    adam_preconditioner as adam_preconditioner,
)
from .lanczos import (
    DiagnosticFailed as DiagnosticFailed,
    Eigenvalue as Eigenvalue,
    extreme_eigenvalue as extreme_eigenvalue,
    matrix_eigenvalue as matrix_eigenvalue,
)
from .log import Log as Log, read_log as read_log
from .noise import from_micro_batches as from_micro_batches, from_two_batches as from_two_batches
from .recorder import NonFinite as NonFinite, Recorder as Recorder
from .trace import read_trace as read_trace
