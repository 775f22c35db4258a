"""What the configurations of runs say of their optimiser."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from optsched.logs.run import Run
from optsched.pilot.laws import Law, NormLaw

__all__ = ["Stated", "stated"]


@dataclass(frozen=True)
class Stated:
    """What the configurations of runs say of their optimiser, as a law takes it.

    Attributes
    ----------
    law : Law
        With the weight decay that they say, where it was not given.
    notes, warnings : tuple of str
    """

    law: Law
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def stated(law: Law, runs: Sequence[Run]) -> Stated:
    """The law with the weight decay on which the configurations of all runs agree.

    Parameters
    ----------
    law : Law
        What was given of it stays, with a warning where a configuration says something else.
    runs : sequence of Run
        Their ``metadata`` may hold ``weight_decay`` and ``optimizer``.
    """
    if not isinstance(law, NormLaw):
        return Stated(law)
    other = sorted({name for run in runs if (name := _kind(run.metadata)) not in (None, "adamw")})
    if other and law.optimiser == "adamw":
        names = ", ".join(str(name) for name in other)
        return Stated(
            law,
            warnings=(
                f"The configurations of the runs say optimiser {names}; the law takes it for AdamW"
                " unless it is told another: sgd, adam (no decay) or other.",
            ),
        )
    if law.optimiser not in ("adamw", "other"):
        return Stated(law)
    said = {run.metadata.get("weight_decay") for run in runs}
    known = sorted(float(one) for one in said if one is not None)
    if not known:
        return Stated(law)
    listed = ", ".join(f"{one:g}" for one in known)
    if law.weight_decay is not None:
        if all(math.isclose(one, law.weight_decay) for one in known):
            return Stated(law)
        text = f"The configurations of the runs say weight decay {listed}, not"
        return Stated(law, warnings=(f"{text} {law.weight_decay:g} as was given.",))
    if len(said) > 1:
        why = "differ" if len(known) > 1 else "say it of some only"
        return Stated(
            law,
            warnings=(
                f"The configurations of the runs {why} (weight decay {listed}): the law takes one"
                " for all of them, and it is guessed from the losses.",
            ),
        )
    return Stated(
        replace(law, weight_decay=known[0]), (f"weight decay {listed}, as the configurations say",)
    )


def _kind(facts: Mapping[str, Any]) -> str | None:
    """AdamW by its many names, or the name of another optimiser."""
    name = facts.get("optimizer")
    if name is None:
        return None
    return "adamw" if "adamw" in str(name).lower() else str(name)
