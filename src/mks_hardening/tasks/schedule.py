"""Schedules of tasks: pure functions from a time to its slot.

A slot is identified by its start in UTC. Two schedulers that see the same slot enqueue the same key, and the
database stores one row, so the slot is enqueued once.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable
from zoneinfo import ZoneInfo

from mks_hardening._core.checks import choice, instance, whole_number
from mks_hardening._core.durations import seconds
from mks_hardening.exceptions import ConfigurationError

__all__ = ["Daily", "Every", "ScheduleRule"]

JST: Final = "Asia/Tokyo"
_MISSED: Final = ("once", "skip")


@runtime_checkable
class ScheduleRule(Protocol):
    """Schedule rule: returns the latest slot that has begun."""

    @property
    def missed(self) -> str:
        """``once`` or ``skip``: how to handle a slot that began while no scheduler was running."""
        ...

    def slot(self, now: float) -> float:
        """Return the start of the slot that contains ``now``, in seconds since the epoch."""
        ...

    def next_slot(self, now: float) -> float:
        """Return the start of the slot after the one that contains ``now``."""
        ...


@dataclass(frozen=True, slots=True)
class Every:
    """Schedule with one slot per interval, counted from the epoch.

    Args:
        interval: seconds, or a ``timedelta``; at least one second.
        missed: after a time without a scheduler, run the current slot ``once``, or ``skip`` slots that began
            before. A slot that began before the first scheduler of the task is not run.

    Raises:
        ConfigurationError: the interval is below one second, or ``missed`` is unknown.
    """

    interval: float | dt.timedelta
    missed: str = "once"

    def __post_init__(self) -> None:
        object.__setattr__(self, "interval", seconds(self.interval, parameter="interval", minimum=1.0))
        choice(self.missed, _MISSED, parameter="missed")

    def slot(self, now: float) -> float:
        """Return the start of the slot that contains ``now``."""
        interval = seconds(self.interval, parameter="interval")
        return now - now % interval

    def next_slot(self, now: float) -> float:
        """Return the start of the next slot."""
        return self.slot(now) + seconds(self.interval, parameter="interval")


@dataclass(frozen=True, slots=True)
class Daily:
    """Schedule with one slot a day at a fixed time, on every day, one weekday or one day of the month.

    A time that does not exist because clocks move forward runs after the change; a time that occurs twice runs
    once.

    Args:
        hour: 0 to 23, in ``zone``.
        minute: 0 to 59.
        weekday: 0 for Monday to 6 for Sunday; every day if None.
        day: day of the month, 1 to 28; every day if None.
        zone: IANA time zone.
        missed: as for ``Every``.

    Raises:
        ConfigurationError: a value is out of range, both weekday and day are given, or the zone is unknown.
    """

    hour: int
    minute: int = 0
    weekday: int | None = None
    day: int | None = None
    zone: str = JST
    missed: str = "once"

    def __post_init__(self) -> None:
        whole_number(self.hour, parameter="hour", minimum=0, maximum=23)
        whole_number(self.minute, parameter="minute", minimum=0, maximum=59)
        choice(self.missed, _MISSED, parameter="missed")
        if self.weekday is not None:
            whole_number(self.weekday, parameter="weekday", minimum=0, maximum=6)
        if self.day is not None:
            whole_number(self.day, parameter="day", minimum=1, maximum=28)
        if self.weekday is not None and self.day is not None:
            raise ConfigurationError("weekday and day cannot both be given", parameter="day")
        instance(self.zone, str, parameter="zone")
        try:
            ZoneInfo(self.zone)
        except (KeyError, ValueError, OSError):
            raise ConfigurationError("zone must be a known IANA time zone", parameter="zone") from None

    def slot(self, now: float) -> float:
        """Return the start of the latest slot that is not after ``now``."""
        # A month has at most 31 days, plus one on either side because of midnight in another time zone.
        return next(begin for begin in self._begins(now, range(0, -33, -1)) if begin <= now)

    def next_slot(self, now: float) -> float:
        """Return the start of the next slot."""
        return next(begin for begin in self._begins(now, range(34)) if begin > now)

    def _begins(self, now: float, days: Iterable[int]) -> Iterator[float]:
        """The starts of the slots on the days at these offsets from ``now``."""
        date = dt.datetime.fromtimestamp(now, ZoneInfo(self.zone)).date()
        begins = (self._begin(date + dt.timedelta(days=day)) for day in days)
        return (begin for begin in begins if begin is not None)

    def _begin(self, date: dt.date) -> float | None:
        day = dt.datetime.combine(date, dt.time(), ZoneInfo(self.zone))
        if self.weekday is not None and day.weekday() != self.weekday:
            return None
        if self.day is not None and day.day != self.day:
            return None
        # timestamp() converts a nonexistent time with the offset before the change, so it lies after the change;
        # for a time that occurs twice it uses the first (PEP 495, fold=0).
        return day.replace(hour=self.hour, minute=self.minute).timestamp()
