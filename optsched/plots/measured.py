"""Measured spectra with the laws that were fitted."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from optsched.measure.exponents import MeasuredSpectrum
from optsched.plots.common import BIAS, DASHED, DOTTED, OPTIMUM, OTHERS, VARIANCE

__all__ = ["plot_measured", "plot_measured_eigenvalues", "plot_measured_target"]

POINT = {"markersize": 2.5, "linestyle": "none", "rasterized": True}


def _frame(ax: Axes, measured: MeasuredSpectrum) -> None:
    first, last = measured.window
    ax.axvspan(first, last, color="#999999", alpha=0.15, linewidth=0.0, label="window of the fit")
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("mode $k$")


def plot_measured_eigenvalues(ax: Axes, measured: MeasuredSpectrum) -> Axes:
    """Eigenvalues of the sample, corrected ones and their law.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    measured : MeasuredSpectrum

    Returns
    -------
    matplotlib.axes.Axes
    """
    _frame(ax, measured)
    sample = measured.sample_eigenvalues
    k = np.arange(1.0, len(sample) + 1.0)
    last = measured.window[1]
    ax.plot(k, sample, "o", color=OTHERS[2][0], label="sample", **POINT)
    ax.plot(k[:last], measured.eigenvalues, "o", color=OPTIMUM, label="corrected", **POINT)
    label = rf"$k^{{-b}}$, $b = {measured.b:.3f} \pm {measured.b_stderr:.3f}$"
    law = measured.eigenvalue_scale * k**-measured.b
    ax.plot(k, law, color=BIAS, linestyle=DASHED, label=label)
    ax.set_ylim(0.3 * min(law[-1], sample[min(len(sample), 2 * last) - 1]), 3.0 * sample[0])
    ax.set_ylabel(r"eigenvalue $\lambda_k$")
    ax.legend(frameon=False)
    return ax


def plot_measured_target(ax: Axes, measured: MeasuredSpectrum) -> Axes:
    """Energies of the target in the modes of the sample, their fit and its parts.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    measured : MeasuredSpectrum

    Returns
    -------
    matplotlib.axes.Axes
    """
    _frame(ax, measured)
    energy = measured.sample_energy
    k = np.arange(1.0, len(energy) + 1.0)
    first, last = measured.window
    ax.plot(k, energy, "o", color=OTHERS[2][0], label="sample", **POINT)
    edges = np.unique(np.round(np.geomspace(1, len(energy) + 1, 40)).astype(int))
    means = np.add.reduceat(energy, edges[:-1] - 1) / np.diff(edges)
    middle = np.sqrt(edges[:-1] * (edges[1:] - 1.0))
    ax.plot(middle, means, "s", color=OPTIMUM, markersize=3.5, label="sample, mean of a bin")
    window = slice(first - 1, last)
    ax.plot(k[window], measured.means[window], color=VARIANCE, label="fit: law, mixing and noise")
    label = rf"$k^{{-a}}$, $a = {measured.a:.3f} \pm {measured.a_stderr:.3f}$"
    law = measured.target_scale * k**-measured.a
    ax.plot(k, law, color=BIAS, linestyle=DASHED, label=label)
    low, high = means[means > 0.0].min(), means.max()
    if np.isfinite(measured.samples) and measured.noise > 0.0:
        floor = measured.noise**2 / measured.samples
        if floor > 0.01 * low:
            ax.axhline(floor, color=VARIANCE, linestyle=DOTTED, label=r"noise $\sigma^2/n$")
            low = min(low, floor)
    ax.set_ylim(0.1 * low, 300.0 * high)  # room for the legend
    ax.set_ylabel(r"energy of the target $\lambda_k w_k^2$")
    ax.legend(frameon=False, fontsize="small", loc="upper right", ncols=2)
    return ax


def plot_measured(measured: MeasuredSpectrum) -> Figure:
    """A figure of the eigenvalues and of the target.

    Parameters
    ----------
    measured : MeasuredSpectrum

    Returns
    -------
    matplotlib.figure.Figure
        Not attached to pyplot; save it with ``savefig``.
    """
    figure = Figure(figsize=(9.0, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    plot_measured_eigenvalues(left, measured)
    plot_measured_target(right, measured)
    return figure
