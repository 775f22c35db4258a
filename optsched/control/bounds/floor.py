r"""A floor under every optimiser that is linear in the labels.

Over n fresh samples, whatever the number of steps and however the samples are divided among them,
plain SGD, momentum, weight averaging, decay, any diagonal preconditioner and any schedule of these
give an iterate that is linear in the labels, and that changes the sign of its k-th entry with that
of the k-th feature. Its risk therefore depends on the target w through the :math:`w_k^2` alone, and
equals its mean over independent signs of the :math:`w_k`. Over these w has the covariance
:math:`D = diag(w_k^2)`, and no estimator that is linear in the labels has a lower mean risk than
the best one for that covariance. With :math:`\mu_k = \lambda_k w_k^2`, M their diagonal matrix and
Z an n x N matrix of standard normal numbers,

.. math:: E \ge \mathbb E\, \mathrm{tr} \left(M^{-1} + \frac{Z^T Z}{\sigma^2}\right)^{-1}
   \ge \sum_k \frac{\mu_k}{1 + \kappa \mu_k} , \qquad
   \kappa \ge \mathbb E\, \mathrm{tr}\,
   \Big(\sigma^2 + \sum_{j \ne k} \mu_j z_j z_j^T\Big)^{-1} .

The second inequality is Jensen's, on each diagonal entry. That :math:`\kappa = n/\sigma^2` will do
is plain; `seen` has a smaller one: what has been learnt of the J leading modes takes J of the n
samples, and what the others add to the labels is noise. Besides, n samples see n directions only,

.. math:: E \ge \sum_{k > n} \mu_k .

The theory page has the proofs. E is the excess loss that the recursion gives (its mean over the
samples); where batch sizes are no whole numbers, that of random ones.
"""

from __future__ import annotations

import math

import numpy as np

from optsched.arrays import Floats
from optsched.model.spectrum import PowerLawSpectrum, Spectrum

__all__ = ["label_floor", "mean_batch", "mode_sum", "seen", "unseen"]

DIRECT = 20_000  # modes of a power law that are summed one by one
RATIO = 1.001  # of the ends of a panel of the others
LEADING = 2_000  # modes that may take their samples, or are summed one by one
TRIES = 24  # of the number of leading modes
# Blocks of modes that are noise to the others: lengths in samples, and in modes before them.
BLOCKS = ((1.3, 0.1), (1.7, 0.2), (2.5, 0.5), (4.0, 1.0))
MOST_BLOCKS = 100


def mean_batch(batch_size: float) -> float:
    """Mean of the two whole batch sizes about m whose inverses have the mean 1/m.

    The recursion is linear in 1/m: with any m it is the mean over such random batches.
    """
    low = math.floor(batch_size)
    return low + (low + 1.0) * (1.0 - low / batch_size)


def mode_sum(spectrum: Spectrum, share: float) -> float:
    """The sum of mu/(1 + share mu) over all modes, from below."""
    if not isinstance(spectrum, PowerLawSpectrum):
        mu = spectrum.full().mu
        return float((mu / (1.0 + share * mu)).sum())
    a, size = spectrum.a, float(spectrum.size)
    first = min(size, float(DIRECT))
    mu = np.arange(1.0, first + 1.0) ** -a
    total = float((mu / (1.0 + share * mu)).sum())
    if size <= first:
        return total
    # Beyond: sums of a falling mass are above its integral, and the denominator falls along a
    # panel. The last panel goes to the end, from where the denominator is nearly 1.
    end = min(size + 1.0, max(first + 1.0, (1e4 * share) ** (1.0 / a)))
    count = math.ceil(math.log(end / (first + 1.0)) / math.log(RATIO))
    edges = np.append(np.geomspace(first + 1.0, end, count + 1), size + 1.0)
    powers = edges ** (1.0 - a) / (a - 1.0)
    weight = 1.0 + share * edges[:-1] ** -a
    return total + float(((powers[:-1] - powers[1:]) / weight).sum())


def _masses(spectrum: Spectrum) -> Floats:
    """Bias masses of a tabulated spectrum, the largest first."""
    return np.sort(spectrum.full().mu)[::-1]


def unseen(spectrum: Spectrum, samples: float) -> float:
    """Energy of all modes but the largest n, from below: n samples see n directions."""
    if not isinstance(spectrum, PowerLawSpectrum):
        mu = _masses(spectrum)
        return float(mu[math.ceil(samples) :].sum()) if samples < len(mu) else 0.0
    a, size, first = spectrum.a, float(spectrum.size), math.ceil(samples) + 1.0
    if first > size:
        return 0.0
    far = min(first + LEADING, size + 1.0)
    near = float(((first + np.arange(far - first)) ** -a).sum())
    return near + (far ** (1.0 - a) - (size + 1.0) ** (1.0 - a)) / (a - 1.0)


def seen(spectrum: Spectrum, sigma2: float, samples: float) -> float:
    r"""Upper bound of what n samples say of a mode, as an inverse energy.

    With J < n leading modes and the modes beyond them in blocks of :math:`r_i` with masses of at
    least :math:`\mu_{(i)}`,

    .. math:: \kappa = \frac1s \Big[n - J + 1 + \sum_{j \le J} \frac{1}{1 + (n-J) \mu_j / s}\Big] ,
       \qquad s = \sigma^2 + \sum_i \mu_{(i)} (r_i - n - 2)_+ ,

    the least over some J and some ways to cut blocks; and :math:`\kappa = n / s` with J = 0.

    Parameters
    ----------
    spectrum : Spectrum
    sigma2 : float
        Variance of the label noise.
    samples : float
        Their number n, rounded up.

    Returns
    -------
    float
        Infinite where n samples may tell all: without label noise and with few modes.
    """
    n, size = float(math.ceil(samples)), float(spectrum.size)
    most = int(min(LEADING, size, n - 1.0))
    leading = np.unique(np.append(0.0, np.geomspace(1.0, max(most, 1), TRIES).round()))
    leading = leading[leading <= most]
    if isinstance(spectrum, PowerLawSpectrum):
        mu = np.arange(1.0, max(most, 1) + 1.0) ** -spectrum.a
    else:
        mu = _masses(spectrum)
    best = math.inf
    for in_samples, in_modes in BLOCKS:
        noise = sigma2 + _noise(spectrum, mu, leading, n, in_samples, in_modes)
        for count, s in zip(leading.tolist(), noise.tolist(), strict=True):
            if s > 0.0:
                known = mu[: int(count)] / s
                spent = count and count - 1.0 - float((1.0 / (1.0 + (n - count) * known)).sum())
                best = min(best, (n - spent) / s)
    return best


def _noise(
    spectrum: Spectrum, mu: Floats, start: Floats, n: float, in_samples: float, in_modes: float
) -> Floats:
    """What blocks of modes beyond ``start`` add to the variance of the noise, at least."""
    size, end = float(spectrum.size), start
    found = np.zeros_like(start)
    for _ in range(MOST_BLOCKS):
        last = np.minimum(np.ceil(end + np.maximum(in_samples * (n + 2.0), in_modes * end)), size)
        length = last - end - n - 2.0
        if not (length > 0.0).any():
            break
        if isinstance(spectrum, PowerLawSpectrum):
            least = last**-spectrum.a
        else:
            least = mu[np.minimum(last, size).astype(int) - 1]
        found += np.where(length > 0.0, least * length, 0.0)
        end = last
    return found


def label_floor(
    spectrum: Spectrum, sigma2: float, samples: float, most: float | None = None
) -> float:
    """Least excess loss of every optimiser that is linear in the labels and blind to signs.

    Parameters
    ----------
    spectrum : Spectrum
    sigma2 : float
        Variance of the label noise.
    samples : float
        Number of fresh samples, the sum of the batch sizes: their mean, where that is random.
    most : float, optional
        The largest that it can be, where it is random.

    Returns
    -------
    float
        0 without label noise, where samples outnumber the modes.
    """
    most = samples if most is None else most
    share = samples / sigma2 if sigma2 > 0.0 else math.inf
    share = min(share, seen(spectrum, sigma2, most))
    found = mode_sum(spectrum, share) if math.isfinite(share) else 0.0
    return max(found, unseen(spectrum, most))
