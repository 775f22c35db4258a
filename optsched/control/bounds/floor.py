r"""A floor under every optimiser that is linear in the labels.

Over n fresh samples, whatever the number of steps and however the samples are divided among them,
plain SGD, momentum, weight averaging, decay, any diagonal preconditioner and any schedule of these
give an iterate that is linear in the labels, and that changes the sign of its k-th entry with that
of the k-th feature. Its risk therefore depends on the target w through the :math:`w_k^2` alone, and
equals its mean over independent signs of the :math:`w_k`. Over these w has the covariance
:math:`D = diag(w_k^2)`, and no estimator that is linear in the labels has a lower mean risk than
the best one for that covariance,

.. math:: E \ge \mathbb E_X\, \mathrm{tr}\, \Lambda
   \left(D^{-1} + \frac{X^T X}{\sigma^2}\right)^{-1}
   \ge \mathrm{tr}\, \Lambda \left(D^{-1} + \frac{n \Lambda}{\sigma^2}\right)^{-1}
   = \sum_k \frac{\mu_k}{1 + n \mu_k / \sigma^2}, \qquad \mu_k = \lambda_k w_k^2 ,

the second inequality by the convexity of the inverse. With E the excess loss that the recursion
gives (its mean over the samples).

Without label noise (:math:`\sigma = 0`) the sum is 0, and the floor says nothing.
"""

from __future__ import annotations

import math

import numpy as np

from optsched.model.spectrum import PowerLawSpectrum, Spectrum

__all__ = ["label_floor"]

DIRECT = 20_000  # modes of a power law that are summed one by one
RATIO = 1.001  # of the ends of a panel of the others


def label_floor(spectrum: Spectrum, sigma2: float, samples: float) -> float:
    """Least excess loss of every optimiser that is linear in the labels and blind to signs.

    Parameters
    ----------
    spectrum : Spectrum
    sigma2 : float
        Variance of the label noise.
    samples : float
        Number of fresh samples, the sum of the batch sizes.

    Returns
    -------
    float
        0 without label noise.
    """
    if sigma2 == 0.0:
        return 0.0
    share = samples / sigma2
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
