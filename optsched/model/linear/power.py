r"""Powers of affine maps by repeated squaring, for all runs and modes at once, with derivatives.

A *run* of n equal steps takes the moments S to :math:`S + D S + \sum_p z_p w_p` where the loss
along it is :math:`z_0 + z_1 k + z_2 k^2` at step k. It is kept as the array ``[D | w_0 w_1 w_2]``
of shape (d, d + 3, runs, modes): differences from the identity, so that slow modes keep their
digits. The run of twice as many steps is a product of two such arrays.
"""

from __future__ import annotations

import numpy as np

from optsched.arrays import Bools, Floats, Ints

__all__ = ["Powers", "joined", "joined_pull"]

CHUNK = 1200  # runs times modes that are raised together: what they need stays in the cache


def joined(first: Floats, second: Floats, by: Floats) -> Floats:
    """The run of one, then of another; ``by`` (runs,) is the length of the first."""
    d = len(first)
    out = first + second
    term = np.empty_like(out[0])
    for i in range(d):
        for k in range(d):
            out[i] += np.multiply(second[i, k], first[k], out=term)
    by = by[:, None]
    out[:, d + 1] += by * second[:, d]
    out[:, d + 2] += (2.0 * by) * second[:, d + 1] + (by * by) * second[:, d]
    return out


def _appended(run: Floats, one: Floats, by: Floats) -> Floats:
    """The run, then one more step; ``by`` is the length of the run."""
    d = len(run)
    more = np.zeros_like(run)
    more[:, : d + 1] = one
    return joined(run, more, by)


def joined_pull(
    pull: Floats, first: Floats, second: Floats, by: Floats, width: int
) -> tuple[Floats, Floats]:
    """Derivatives in both runs from those in `joined`; of the second, in ``width`` columns."""
    d = len(first)
    at_first, at_second = pull.copy(), pull[:, :width].copy()
    term = np.empty_like(pull[0])
    for i in range(d):
        for k in range(d):
            at_first[k] += np.multiply(second[i, k], pull[i], out=term)
            at_second[i, k] += np.multiply(pull[i], first[k], out=term).sum(0)
    by = by[:, None]
    at_second[:, d] += by * pull[:, d + 1] + (by * by) * pull[:, d + 2]
    if width > d + 1:
        at_second[:, d + 1] += (2.0 * by) * pull[:, d + 2]
    return at_first, at_second


class _Chunk:
    """Runs that are raised together, longest first."""

    def __init__(self, one: Floats, count: Ints, unit: Floats, keep: bool) -> None:
        d = len(one)
        self.one, self.unit = one, unit
        self.tape: list[tuple[Floats, Floats, Bools | None]] = []
        run = np.zeros((d, d + 3, 0, one.shape[-1]))
        for level in range(int(count[0]).bit_length() - 1, -1, -1):
            before = run.shape[2]
            if before:
                by = (count[:before] >> (level + 1)) * unit[:before]
                if keep:
                    self.tape.append((run, by, None))
                run = joined(run, run, by)
                odd = (count[:before] >> level & 1).astype(bool)
                if odd.any():
                    by = 2.0 * by[odd]
                    if keep:
                        self.tape.append((run[:, :, odd], by, odd))
                    run[:, :, odd] = _appended(run[:, :, odd], one[:, :, :before][:, :, odd], by)
            after = int(np.count_nonzero(count >> level))
            if after > before:  # runs that begin here
                new = np.zeros((d, d + 3, after, one.shape[-1]))
                new[:, :, :before] = run
                new[:, : d + 1, before:] = one[:, :, before:after]
                run = new
        self.run = run

    def pull(self, pull: Floats) -> Floats:
        """Derivatives in the single steps."""
        d = len(self.one)
        found = np.zeros_like(self.one)

        def begun(pull: Floats, still: int) -> Floats:
            found[:, :, still : pull.shape[2]] += pull[:, : d + 1, still:]
            return np.ascontiguousarray(pull[:, :, :still])

        for run, by, odd in reversed(self.tape):
            if odd is None:
                if run.shape[2] < pull.shape[2]:
                    pull = begun(pull, run.shape[2])
                first, second = joined_pull(pull, run, run, by, d + 3)
                pull = first + second
                continue
            before = len(odd)
            if before < pull.shape[2]:
                pull = begun(pull, before)
            one = self.one[:, :, :before][:, :, odd]
            first, second = joined_pull(pull[:, :, odd], run, one, by, d + 1)
            pull[:, :, odd] = first
            found[:, :, :before][:, :, odd] += second
        begun(pull, 0)
        return found


class Powers:
    """Runs of some numbers of equal steps.

    Parameters
    ----------
    one : numpy.ndarray, shape (d, d + 1, runs, modes)
        A single step: its change and, as last column, its source.
    count : numpy.ndarray of int, shape (runs,)
        Numbers of steps, 0 or more.
    unit : numpy.ndarray, shape (runs,)
        In which k is counted.
    keep : bool
        Keep what derivatives need.

    Attributes
    ----------
    maps : numpy.ndarray, shape (d, d + 3, runs, modes)
    """

    def __init__(self, one: Floats, count: Ints, unit: Floats, keep: bool = True) -> None:
        d, _, runs, modes = one.shape
        self._single = np.flatnonzero(count == 1)
        longer = np.flatnonzero(count > 1)
        longer = longer[np.argsort(-count[longer], kind="stable")]
        size = max(CHUNK // modes, 1)
        self._one, self._chunks = one, []
        self.maps = np.zeros((d, d + 3, runs, modes))
        self.maps[:, : d + 1, self._single] = one[:, :, self._single]
        for start in range(0, len(longer), size):
            here = longer[start : start + size]
            chunk = _Chunk(np.ascontiguousarray(one[:, :, here]), count[here], unit[here], keep)
            self.maps[:, :, here] = chunk.run
            if keep:
                self._chunks.append((here, chunk))

    def pull(self, pull: Floats) -> Floats:
        """Derivatives in the single steps from those in the maps."""
        d = len(pull)
        found = np.zeros_like(self._one)
        found[:, :, self._single] = pull[:, : d + 1, self._single]
        for here, chunk in self._chunks:
            found[:, :, here] = chunk.pull(np.ascontiguousarray(pull[:, :, here]))
        return found
