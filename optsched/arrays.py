"""Types of the arrays that the library takes and gives."""

from __future__ import annotations

import enum
from dataclasses import fields
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["Brief", "Bools", "Floats", "Ints"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

LONG = 60  # characters of a text


class Brief:
    """Base of results, dataclasses that are written with ``eq=False, repr=False``.

    Arrays and other results in them would fill pages, and cannot be compared or hashed by their
    fields: a result equals itself alone. Its representation has its numbers and short texts; of
    what is longer it has the size.

    Attributes
    ----------
    told : tuple of str
        Names of the attributes that are shown; all fields if there are none.
    """

    told: ClassVar[tuple[str, ...]] = ()

    def __repr__(self) -> str:
        names = self.told or tuple(field.name for field in fields(self))  # type: ignore[arg-type]
        parts = [f"{name}={_short(getattr(self, name))}" for name in names]
        return f"{type(self).__name__}({', '.join(parts)})"


def _short(value: Any) -> str:
    if isinstance(value, enum.Enum):
        return str(value.name)
    if getattr(value, "shape", None) == ():
        value = value.item()
    if isinstance(value, float):
        return f"{value:.6g}"
    if value is None or isinstance(value, (bool, int)):
        return repr(value)
    if isinstance(value, str):
        return repr(value if len(value) <= LONG else value[: LONG - 3] + "...")
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple):
        return f"<{' x '.join(map(str, shape))}>"
    if hasattr(value, "__len__"):
        return f"<{len(value)}>"
    name = getattr(value, "name", None)
    return name if isinstance(name, str) and len(name) <= LONG else f"<{type(value).__name__}>"
