"""Colours and line styles that figures share."""

from __future__ import annotations

__all__ = ["BIAS", "DASHED", "DOTTED", "OPTIMUM", "OTHERS", "VARIANCE"]

OPTIMUM, BIAS, VARIANCE = "#000000", "#0072B2", "#D55E00"
DASHED, DOTTED = (0, (5, 2)), (0, (1, 1))
OTHERS = (("#009E73", DASHED), ("#CC79A7", (0, (3, 1, 1, 1))), ("#56B4E9", DOTTED))
