"""Schedules in PyTorch: a learning-rate scheduler, and batches of scheduled size.

The framework is imported when it is first needed, so this module imports without it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from optsched.checks import is_number, whole
from optsched.controls import MAX_HORIZON
from optsched.errors import InvalidProblem
from optsched.schedules.batches import batch_stages
from optsched.schedules.exports.common import check_exportable, framework
from optsched.schedules.schedule import Schedule

__all__ = ["BatchSampler", "to_lightning", "to_torch"]

Momentum = Literal["ignore", "write", "heavy-ball"]

# torch's SGD does not update its buffer at momentum 0, and would go on with a stale one.
TINY = 1e-30


Schedules = Schedule | Mapping[str, Schedule]
Scale = float | Sequence[float] | Mapping[str, float]


def to_torch(
    schedule: Schedules,
    optimizer: Any,
    *,
    momentum: Momentum | None = None,
    scale: Scale | None = None,
    every: int = 1,
    start: int = 0,
) -> Any:
    r"""Learning-rate scheduler that sets the rates of a schedule.

    Parameters
    ----------
    schedule : Schedule, or mapping of str to Schedule
        In updates: for samples or tokens see `optsched.schedules.exports.common.per_update`. A
        mapping gives each group the schedule of its ``"name"``, for Muon and AdamW, say.
    optimizer : torch.optim.Optimizer
        Its rates are overwritten: they are absolute, no multiples of what it was made with. A rate
        that is a tensor is written in place; one that groups share becomes one a group.
    momentum : {"ignore", "write", "heavy-ball"}, optional
        What becomes of ``beta``; to be chosen if the schedule has it. ``"write"`` sets
        ``momentum`` or ``betas[0]`` of every group as ``OneCycleLR`` does, and ``nu`` where the
        schedule has it. ``"heavy-ball"`` is for ``torch.optim.SGD``, whose buffer has no factor
        :math:`1 - \beta`: rate :math:`\eta_k (1-\beta_k)` and momentum
        :math:`\beta_k (1-\beta_{k-1})/(1-\beta_k)` make its update that of optsched, exactly.
    scale : float, sequence of float or mapping of str to float, optional
        Factor of the rate, for all groups, one a group, or by the groups' names; 1 by default.
        With one schedule it must be given for an optimizer whose groups have different rates.
    every : int
        Calls of ``scheduler.step()`` for one step of the schedule: the number of processes
        where Accelerate steps a prepared scheduler.
    start : int
        Calls that were made before, to go on without a checkpoint of the scheduler.

    Returns
    -------
    ScheduleLR
        A ``torch.optim.lr_scheduler.LRScheduler``. The first update uses the value of step 0; call
        ``step()`` after each. ``state_dict()`` holds numbers and strings only. Loading it sets the
        rates at once, and is refused for another schedule.

    Raises
    ------
    InvalidProblem
        A setting that does not fit the schedule or the optimizer.
    MissingExtra
        PyTorch is not installed.

    Notes
    -----
    Past the end: what ``schedule.extend`` says. With ``"raise"`` the T-th call of ``step()``, after
    the last update, passes, and the next one raises.
    """
    make = __getattr__("ScheduleLR")
    return make(optimizer, schedule, momentum=momentum, scale=scale, every=every, start=start)


def to_lightning(schedule: Schedules, optimizer: Any, **options: Any) -> dict[str, Any]:
    """What ``configure_optimizers`` of a Lightning module returns, stepped once an update.

    Parameters
    ----------
    schedule, optimizer, **options
        As for `to_torch`.

    Returns
    -------
    dict
        The optimizer and its scheduler with ``interval="step"``; Lightning's default is an epoch.
    """
    scheduler = to_torch(schedule, optimizer, **options)
    config = {"scheduler": scheduler, "interval": "step", "frequency": 1}
    return {"optimizer": optimizer, "lr_scheduler": config}


class _ScheduleLR:
    """A scheduler but for its base class, which is torch's; see `to_torch`."""

    optimizer: Any
    last_epoch: int
    _step_count: int
    _last_lr: list[Any]

    def __init__(
        self,
        optimizer: Any,
        schedule: Schedules,
        *,
        momentum: Momentum | None = None,
        scale: Scale | None = None,
        every: int = 1,
        start: int = 0,
    ) -> None:
        groups = optimizer.param_groups
        self.schedule = schedule
        _check_schedules(_of_groups(schedule, groups), momentum, groups)
        self.momentum = momentum
        self.scale = _check_scale(scale, groups, isinstance(schedule, Mapping))
        self.every = whole("every", every, 1, MAX_HORIZON)
        start = whole("start", start, 0, MAX_HORIZON)
        _own_tensors(groups)
        for group in groups:  # torch asks for it where a run goes on
            rate = group["lr"]
            group.setdefault("initial_lr", rate.clone() if hasattr(rate, "clone") else rate)
        base: Any = super()
        base.__init__(optimizer, last_epoch=start - 1)

    def get_lr(self) -> list[float]:
        """Rates of the groups at this step; writes the momentum, as ``OneCycleLR`` does."""
        groups = self.optimizer.param_groups
        scales = self.scale if isinstance(self.scale, list) else [self.scale] * len(groups)
        if len(scales) != len(groups):
            raise InvalidProblem("scale", scales, f"a number, or {len(groups)}, one a group")
        schedules = _of_groups(self.schedule, groups)
        parts = zip(groups, schedules, scales, strict=True)
        return [self._rate(group, schedule) * factor for group, schedule, factor in parts]

    def _rate(self, group: dict[str, Any], schedule: Schedule) -> float:
        """Rate of a group before its factor; writes its momentum."""
        k = self._k(schedule)
        rate = schedule(k)
        if "beta" not in schedule.controls:
            return rate
        if self.momentum == "write":
            _write_momentum(group, schedule(k, "beta"))
            if "nu" in schedule.controls:
                _write(group, "nu", schedule(k, "nu"))
        elif self.momentum == "heavy-ball":
            now, before = 1.0 - schedule(k, "beta"), 1.0 - schedule(max(k - 1, 0), "beta")
            _write(group, "momentum", max((1.0 - now) * before / now, TINY))
            rate *= now
        return rate

    def _k(self, schedule: Schedule) -> int:
        """Step of the schedule that the next update uses."""
        end = schedule.horizon
        if schedule.extend == "raise" and self.last_epoch == end * self.every:
            return end - 1  # after the last update; no update uses this
        return self.last_epoch // self.every

    def _settings(self) -> dict[str, Any]:
        given = self.schedule
        many = isinstance(given, Mapping)
        digest = {name: one.digest for name, one in given.items()} if many else given.digest
        names = ("momentum", "scale", "every")
        return {"digest": digest} | {name: getattr(self, name) for name in names}

    def state_dict(self) -> dict[str, Any]:
        """Numbers and strings, for ``torch.load(weights_only=True)``."""
        counts = {"last_epoch": self.last_epoch, "_step_count": self._step_count}
        return counts | {"_last_lr": [float(rate) for rate in self._last_lr]} | self._settings()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on where the state was saved; sets the rates of the optimizer too."""
        settings = self._settings()
        if not {"last_epoch", "_step_count", *settings} <= state_dict.keys():
            raise InvalidProblem("state_dict", [*state_dict], "the state of a ScheduleLR")
        for name, own in settings.items():
            if state_dict[name] != own:
                allowed = f"{own!r}, as now; for another schedule make a new one, with start="
                raise InvalidProblem(name, state_dict[name], allowed)
        self.last_epoch = state_dict["last_epoch"]
        self._step_count = state_dict["_step_count"]
        _own_tensors(self.optimizer.param_groups)
        rates = self.get_lr()
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            _write(group, "lr", rate)
        self._last_lr = rates


def __getattr__(name: str) -> Any:
    """Make the class when it is first asked for, so that a pickle of it loads by its name."""
    if name != "ScheduleLR":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name not in globals():
        base = framework("torch.optim.lr_scheduler", "torch").LRScheduler
        # A compiler that looked inside would compile anew for every step's numbers.
        step = framework("torch", "torch").compiler.disable(base.step)
        body = {
            "__module__": __name__,
            "__doc__": "Scheduler that `to_torch` returns.",
            "step": step,
        }
        globals()[name] = type(name, (_ScheduleLR, base), body)
    return globals()[name]


def _of_groups(given: Schedules, groups: list[Any]) -> list[Schedule]:
    """The schedule of every group."""
    if not isinstance(given, Mapping):
        return [given] * len(groups)
    return _by_name("schedule", given, groups)


def _by_name(field: str, given: Mapping[str, Any], groups: list[Any]) -> list[Any]:
    """What a mapping says of every group, by the group's name."""
    names = [group.get("name") for group in groups]
    if None in names:
        rule = f"groups with a name each, as {field} is given by name: add 'name' to the groups"
        raise InvalidProblem("optimizer", names, rule)
    if set(names) != set(given):
        raise InvalidProblem(field, sorted(given), f"the names of the groups: {sorted(set(names))}")
    return [given[name] for name in names]


def _own_tensors(groups: list[Any]) -> None:
    """Give every group a rate of its own, where torch let them share one tensor."""
    seen: set[int] = set()
    for group in groups:
        rate = group["lr"]
        if hasattr(rate, "fill_"):
            if id(rate) in seen:
                group["lr"] = rate.clone()
            seen.add(id(rate))


def _write(group: dict[str, Any], key: str, value: float) -> None:
    if hasattr(group[key], "fill_"):  # compiled and captured optimizers hold on to the tensor
        group[key].fill_(value)
    else:
        group[key] = value


def _write_momentum(group: dict[str, Any], beta: float) -> None:
    if "betas" not in group:
        _write(group, "momentum", beta)
    elif hasattr(group["betas"][0], "fill_"):
        group["betas"][0].fill_(beta)
    else:
        group["betas"] = (beta, *group["betas"][1:])


def _check_schedules(schedules: list[Schedule], momentum: str | None, groups: list[Any]) -> None:
    """Check the schedule of every group, and that its momentum can be written there."""
    for schedule in schedules:
        check_exportable(schedule)
    pairs = list(zip(schedules, groups, strict=True))
    scheduled = [pair for pair in pairs if "beta" in pair[0].controls]
    if not scheduled and momentum not in (None, "ignore"):
        raise InvalidProblem("momentum", momentum, "none, as the schedule has no beta")
    if scheduled and momentum not in ("ignore", "write", "heavy-ball"):
        allowed = "ignore, write or heavy-ball, as the schedule has beta"
        raise InvalidProblem("momentum", momentum, allowed)
    for schedule, group in scheduled:
        _check_momentum("nu" in schedule.controls, momentum, group)


def _check_momentum(nu: bool, momentum: str | None, group: dict[str, Any]) -> None:
    if momentum == "write":
        if "momentum" not in group and "betas" not in group:
            raise InvalidProblem("optimizer", [*group], "groups with momentum or betas")
        if nu and "nu" not in group:
            allowed = "groups with nu, which the schedule has: a QHM optimizer"
            raise InvalidProblem("optimizer", [*group], allowed)
        return
    bare = "momentum" in group and not (group.get("dampening", 0) or group.get("nesterov"))
    if momentum == "heavy-ball" and (nu or not bare):
        allowed = "for schedules without nu and SGD without dampening and nesterov"
        raise InvalidProblem("momentum", momentum, allowed)


def _check_scale(scale: Any, groups: list[Any], named: bool) -> float | list[float]:
    if scale is None:
        rates = [float(group["lr"]) for group in groups]
        if len(set(rates)) > 1 and not named:
            allowed = f"1.0, or one factor a group, as the groups have rates {rates}"
            raise InvalidProblem("scale", None, allowed)
        return 1.0
    if isinstance(scale, Mapping):
        scale = _by_name("scale", scale, groups)
    one: bool = is_number(scale)
    factors: list[Any] = [scale] if one else list(scale)
    if not all(is_number(factor) and 0.0 <= factor < np.inf for factor in factors):
        raise InvalidProblem("scale", scale, "finite numbers >= 0")
    if one:
        return float(scale)
    if len(factors) != len(groups):
        raise InvalidProblem("scale", scale, f"a number, or {len(groups)}, one a group")
    return [float(factor) for factor in factors]


class BatchSampler:
    """Indices of the samples of every update, for ``DataLoader(batch_sampler=...)``.

    Parameters
    ----------
    schedule : Schedule
        With whole batch sizes, as `optsched.schedules.batches.integer_batches` returns it.
    size : int
        Number of samples in the data set.
    seed : int
        Of the order of the samples, which is drawn anew for every pass over the data.
    start : int
        First update; a run that resumes there sees the samples that it would have seen.

    Raises
    ------
    InvalidProblem
        No whole batch sizes; a number that is not whole.

    Notes
    -----
    One iteration is the whole run, not an epoch: batches go on across passes over the data. For
    several processes take ``indices[rank::world_size]`` of each batch.
    """

    def __init__(self, schedule: Schedule, size: int, *, seed: int = 0, start: int = 0) -> None:
        check_exportable(schedule, "batch_size")
        self.stages = batch_stages(schedule)
        self.size = whole("size", size, 1, 10**10)
        self.seed = whole("seed", seed, 0, 2**63)
        self.start = whole("start", start, 0, schedule.horizon)
        self.horizon = schedule.horizon

    def __len__(self) -> int:
        """Number of updates that are left."""
        return self.horizon - self.start

    def __iter__(self) -> Iterator[list[int]]:
        """Batches of the updates from ``start`` on."""
        done, epoch, order = 0, -1, np.empty(0, np.int64)
        for start, stop, batch in self.stages:
            skipped = max(min(self.start, stop) - start, 0)
            done += skipped * batch
            for _ in range(start + skipped, stop):
                indices: list[int] = []
                while len(indices) < batch:
                    now, at = divmod(done + len(indices), self.size)
                    if now != epoch:
                        epoch = now
                        order = np.random.default_rng([self.seed, epoch]).permutation(self.size)
                    indices += order[at : at + batch - len(indices)].tolist()
                done += batch
                yield indices
