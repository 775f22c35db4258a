"""A schedule under a name, for trainers of Hugging Face that take nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from optsched.errors import InvalidProblem
from optsched.schedules.exports.torch import to_torch
from optsched.schedules.schedule import Schedule

__all__ = ["named_scheduler"]


@contextmanager
def named_scheduler(schedule: Schedule, name: str = "optsched", **settings: Any) -> Iterator[str]:
    """Make a schedule known to `transformers.get_scheduler` by a name, within a ``with`` block.

    For scripts and tools that take ``lr_scheduler_type`` as a name: run them within the block. The
    name is taken back at its end.

    Parameters
    ----------
    schedule : Schedule
    name : str
        None that transformers knows.
    **settings
        As for `optsched.schedules.exports.torch.to_torch`: ``scale``, ``every``, ...

    Yields
    ------
    str
        The name.

    Raises
    ------
    InvalidProblem
        A name that is taken. Within the block, a number of training steps that is not that of the
        schedule.
    """
    from transformers import optimization
    from transformers.trainer_utils import SchedulerType

    kinds: Any = SchedulerType
    members, values, names = kinds._member_map_, kinds._value2member_map_, kinds._member_names_
    label = name.upper()
    if name in values or label in members:
        taken = ", ".join(map(str, values))
        raise InvalidProblem("name", name, f"a name that transformers does not know; not {taken}")
    every = int(settings.get("every", 1))

    def make(
        optimizer: Any,
        num_warmup_steps: int | None = None,
        num_training_steps: int | None = None,
        **_: Any,
    ) -> Any:
        if num_training_steps is not None and num_training_steps != len(schedule) * every:
            allowed = f"{len(schedule) * every}, the length of the schedule"
            raise InvalidProblem("num_training_steps", num_training_steps, allowed)
        return to_torch(schedule, optimizer, **settings)

    member = str.__new__(kinds, name)
    member._name_, member._value_ = label, name
    table: Any = optimization.TYPE_TO_SCHEDULER_FUNCTION
    members[label], values[name], table[member] = member, member, make
    names.append(label)
    try:
        yield name
    finally:
        del members[label], values[name], table[member]
        names.remove(label)
