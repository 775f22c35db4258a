"""Images without end: scikit-learn's handwritten digits, moved, turned, overlaid and noisy.

An image is one of the 1,797 digits, shifted, turned and scaled at random, with another one over it
at a random fraction of its strength and pixels of noise; the label is that of the first. Train
and validation are different draws of the same kind, so that what a run loses is optimisation: the
loss of the validation images is that of the population, up to its sampling error.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from optsched import InvalidProblem, MissingExtra

__all__ = ["CLASSES", "SIDE", "Images", "drawn_digits"]

SIDE, CLASSES = 8, 10
TRAIN, VALIDATION = 200_000, 16_384  # images; a run of 8,000 steps of 16 sees 128,000
SHIFT, TURN, SCALE = 0.7, 0.25, 0.15  # pixels, radians, logarithm; standard deviations
OVERLAY, NOISE = 0.5, 0.15  # largest strength of the other digit; of a pixel in [0, 1]
CHUNK = 16_384  # images drawn at a time


@dataclass(frozen=True, eq=False)
class Images:
    """Rows of 64 pixels and a label, all bytes.

    Attributes
    ----------
    train, validation : numpy.ndarray of uint8, shape (n, 65)
    digest : str
        Of both.
    """

    train: NDArray[np.uint8]
    validation: NDArray[np.uint8]
    digest: str

    def held_out(self, count: int) -> NDArray[np.uint8]:
        """The first images of the validation part.

        Raises
        ------
        InvalidProblem
            More than there are.
        """
        if count > len(self.validation):
            raise InvalidProblem("blocks", count, f"at most {len(self.validation)} images")
        return self.validation[:count]


def _moved(images: NDArray[np.float32], draw: np.random.Generator) -> NDArray[np.float32]:
    """Every image of shape (n, 8, 8) turned, scaled and shifted; zero outside, bilinear."""
    n = len(images)
    angle, stretch = TURN * draw.standard_normal(n), np.exp(SCALE * draw.standard_normal(n))
    shift = SHIFT * draw.standard_normal((2, n, 1))
    grid = np.arange(SIDE) - (SIDE - 1) / 2
    y, x = (axis.reshape(1, -1) for axis in np.meshgrid(grid, grid, indexing="ij"))
    cos, sin = (f(angle)[:, None] / stretch[:, None] for f in (np.cos, np.sin))
    # Where the pixel comes from, in an image with a border of zeros.
    places = np.stack([cos * y - sin * x, sin * y + cos * x]) + shift + (SIDE + 1) / 2
    places = np.clip(places, 0.0, SIDE + 1.0)
    low = places.astype(np.int64)
    (fy, fx), (iy, ix) = places - low, low
    padded = np.pad(images, ((0, 0), (1, 2), (1, 2)))
    row = np.arange(n)[:, None]
    above = (1 - fx) * padded[row, iy, ix] + fx * padded[row, iy, ix + 1]
    below = (1 - fx) * padded[row, iy + 1, ix] + fx * padded[row, iy + 1, ix + 1]
    return ((1 - fy) * above + fy * below).astype(np.float32)


def _draw(
    digits: NDArray[np.float32], labels: NDArray[np.uint8], count: int, seed: int
) -> NDArray[np.uint8]:
    rows = []
    for first in range(0, count, CHUNK):
        draw = np.random.default_rng((seed, first))
        n = min(CHUNK, count - first)
        this, other = draw.integers(0, len(digits), (2, n))
        strength = draw.uniform(0.0, OVERLAY, (n, 1))
        mixed = _moved(digits[this], draw) + strength * _moved(digits[other], draw)
        noisy = mixed + NOISE * draw.standard_normal(mixed.shape)
        # Bytes for the range from -1 to 2, which noise hardly leaves.
        pixels = np.clip(np.rint((noisy + 1.0) * 85.0), 0, 255).astype(np.uint8)
        rows.append(np.hstack([pixels, labels[this, None]]))
    return np.concatenate(rows)


@cache
def drawn_digits(train: int = TRAIN, validation: int = VALIDATION) -> Images:
    """Images to train on and to judge by: the same ones every time.

    Raises
    ------
    MissingExtra
        Without scikit-learn.
    """
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError:
        raise MissingExtra(
            "the digits need scikit-learn: pip install 'optsched[real-training]'"
        ) from None
    pixels, labels = load_digits(return_X_y=True)
    digits = (pixels / 16.0).reshape(-1, SIDE, SIDE).astype(np.float32)
    parts = [
        _draw(digits, labels.astype(np.uint8), count, seed)
        for seed, count in enumerate((train, validation))
    ]
    digest = hashlib.sha256(parts[0].tobytes() + b"|" + parts[1].tobytes()).hexdigest()[:16]
    return Images(parts[0], parts[1], digest)
