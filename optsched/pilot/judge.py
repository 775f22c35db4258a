"""Whether a law describes the runs that it was fitted to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from optsched.arrays import Floats
from optsched.logs.run import Run

__all__ = ["UNDESCRIBED", "Verdict", "judged"]

UNDESCRIBED = "No law describes these losses"  # how the sentence begins that plans refuse with
FAR = 0.1  # relative: residuals from which a law says nothing
NOTICED = 0.03  # relative: what a warning is for, where the losses are not that noisy
MOST_ENDS = 2  # parameters at the end of their range, where the residuals are noticed too
BETTER = 0.9  # of the residuals of a constant, or of a power law in steps
FINAL = 4.0  # times the noise of a row and 1 %: a final loss that is missed
POWERS = np.geomspace(0.05, 3.0, 40)


@dataclass(frozen=True)
class Verdict:
    """What is wrong with a fit, in sentences.

    Attributes
    ----------
    failed : str
        Why nothing should rest on the fit; else empty.
    warnings : tuple of str
    """

    failed: str
    warnings: tuple[str, ...]


def judged(runs: Sequence[Run], residuals: Floats, ends: Sequence[str] = ()) -> Verdict:
    """Judge a fit by the runs it was fitted to.

    Parameters
    ----------
    runs : sequence of Run
        As fitted.
    residuals : numpy.ndarray, shape (rows,)
        Of the logarithm of the loss, law minus run, in the order of the runs.
    ends : sequence of str
        Parameters at the end of their range.
    """
    size = float(np.sqrt(np.mean(residuals**2)))
    noise = max(run.noise / float(np.median(run.loss)) if len(run.steps) > 2 else 0.0
                for run in runs)  # fmt: skip
    constant, power = simple_sizes(runs)
    far = size > max(FAR, 2.0 * noise)
    if far or (size > NOTICED and len(ends) >= MOST_ENDS):
        why = f"{100 * FAR:.0f} % already says nothing"
        if not far:
            why = f"the law is bent as far as it goes ({', '.join(ends)} at the end of their range)"
        failed = (
            f"{UNDESCRIBED}: they are off by {100 * size:.2g} % (rms), where {why}. A loss near 0,"
            " as of training data known by heart, has no such law; take a validation loss."
        )
        return Verdict(failed, (failed,))
    out = []
    for other, name in ((constant, "a constant"), (power, "a power of the steps alone")):
        if size > BETTER * other and size > noise:
            out.append(
                f"The law describes the runs no better than {name} does ({100 * size:.2g} % against"
                f" {100 * other:.2g} % rms): they do not show what the schedule does."
            )
            break
    if size > max(NOTICED, 1.5 * noise):
        out.append(
            f"The law is off by {100 * size:.1f} % of the loss (rms) on its own runs: predictions"
            " are as uncertain as their intervals say."
        )
    last = np.cumsum([len(run.steps) for run in runs]) - 1
    for run, off in zip(runs, residuals[last], strict=True):
        if abs(off) > FINAL * max(noise, size) and abs(off) > 0.01:
            out.append(
                f"The law misses the last loss of {run.name}, a run of the fit, by"
                f" {100 * off:+.1f} %."
            )
    return Verdict("", tuple(out))


def simple_sizes(runs: Sequence[Run]) -> tuple[float, float]:
    """Residuals (rms, relative) of the best constant and of the best ``a + b k^-c``."""
    steps = np.concatenate([run.steps for run in runs]).astype(float)
    loss = np.concatenate([run.loss for run in runs])
    constant = float(np.sqrt(np.mean((np.exp(np.mean(np.log(loss))) / loss - 1.0) ** 2)))
    best = constant
    for power in POWERS:
        columns = np.stack([np.ones_like(steps), (steps / steps.max()) ** -power], axis=1)
        matrix = columns / loss[:, None]
        found = np.linalg.lstsq(matrix, np.ones(len(loss)), rcond=None)[0]
        best = min(best, float(np.sqrt(np.mean((matrix @ found - 1.0) ** 2))))
    return constant, best
