"""Rules after which clients are banned."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from datetime import timedelta
from typing import Final, cast

from mks_hardening._core.checks import function, number, whole_number
from mks_hardening._core.durations import seconds
from mks_hardening._core.function_errors import call_predicate
from mks_hardening.exceptions import ConfigurationError

__all__ = ["DEFAULT_BAN_RULES", "LONGEST_BAN", "BanRule"]

LONGEST_BAN: Final = 30 * 86_400.0
"""Seconds; a block without end belongs on the deny list of ``ClientRules``, where it is seen."""
_MOST_STRIKES: Final = 1000
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}", re.ASCII)
_EVENT: Final = re.compile(r"(?:RequestRefused|SignInEvent)\.[a-z_]+", re.ASCII)


class BanRule:
    """A number of offences within a time, after which a client is banned.

    Use it for signs that no innocent user shows: many users can share one address, and a ban affects all of them.

    Args:
        name: name of the rule; each rule counts by itself.
        strikes: offences that lead to a ban, 1 to 1000.
        within: seconds within which they must occur.
        ban: seconds that the first ban lasts.
        growth: factor by which each further ban is longer than the one before.
        longest: seconds that a ban lasts at most; 30 days at most.
        forget: seconds without a ban after which the next one is short again.
        when: what an offence is: status codes of responses (``{404}``); a function that takes path and status of a
            response and returns whether it is one, which it is not if the function raises an error; names of events
            for ``BanList.observe``, such as ``RequestRefused.csrf`` (with the ``wrapper`` of the event) or
            ``SignInEvent.refused`` (with its ``change``). Without it, only ``BanList.strike`` counts offences.

    Raises:
        ConfigurationError: a value has the wrong type or is out of range.
    """

    __slots__ = (
        "_function", "ban", "events", "forget", "growth", "longest", "name", "statuses", "strikes", "within",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        *,
        strikes: int = 5,
        within: float | timedelta = 600,
        ban: float | timedelta = 900,
        growth: float = 2,
        longest: float | timedelta = 86_400,
        forget: float | timedelta = 604_800,
        when: Collection[int] | Collection[str] | Callable[[str, int], bool] = (),
    ) -> None:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ConfigurationError(
                "name must be 1 to 64 letters, digits, '_' or '-' that begin with a letter", parameter="name"
            )
        self.name: str = name
        self.strikes: int = whole_number(strikes, parameter="strikes", minimum=1, maximum=_MOST_STRIKES)
        self.within: float = _duration(within, parameter="within")
        self.ban: float = _duration(ban, parameter="ban")
        self.growth: float = number(growth, parameter="growth", minimum=1, maximum=1000)
        self.longest: float = _duration(longest, parameter="longest")
        if self.longest < self.ban:
            raise ConfigurationError("longest must not be shorter than ban", parameter="longest")
        self.forget: float = seconds(forget, parameter="forget")
        self._function: Callable[[str, int], bool] | None = None
        self.statuses: frozenset[int] = frozenset()
        self.events: frozenset[str] = frozenset()
        if callable(when):
            self._function = function(when, parameter="when")
        else:
            self._set_offences(when)

    def _set_offences(self, when: object) -> None:
        listed = isinstance(when, Collection) and not isinstance(when, (str, bytes))
        items = tuple(cast("Collection[object]", when)) if listed else (None,)
        numbers = frozenset(item for item in items if isinstance(item, int) and 400 <= item <= 599)
        names = frozenset(item for item in items if isinstance(item, str) and _EVENT.fullmatch(item))
        if not (numbers.issuperset(items) or names.issuperset(items)):
            raise ConfigurationError(
                "when must be status codes from 400 to 599, names of events such as 'RequestRefused.csrf' or "
                "'SignInEvent.refused', or a function",
                parameter="when",
            )
        self.statuses, self.events = numbers, names

    @property
    def judges_responses(self) -> bool:
        """Whether responses can be offences."""
        return bool(self.statuses) or self._function is not None

    def is_offence(self, path: str, status: int) -> bool:
        """Return whether a response is an offence."""
        if self._function is None:
            return status in self.statuses
        return call_predicate(
            self._function,
            path,
            status,
            parameter="when",
            otherwise="the response is no offence",
            logger="mks_hardening.client_rules",
        )

    def ban_length(self, bans: int) -> float:
        """Return the seconds of a ban after ``bans`` earlier ones."""
        try:
            return min(self.longest, self.ban * self.growth**bans)
        except OverflowError:
            return self.longest

    def __repr__(self) -> str:
        return f"BanRule({self.name!r}, strikes={self.strikes}, within={self.within:g}, ban={self.ban:g})"


def _duration(value: float | timedelta, *, parameter: str) -> float:
    found = seconds(value, parameter=parameter, minimum=1)
    if found > LONGEST_BAN:
        raise ConfigurationError(f"{parameter} must be at most 30 days", parameter=parameter)
    return found


DEFAULT_BAN_RULES: Final = (
    BanRule("not-found", strikes=100, within=60, when={404}),
    BanRule("csrf", strikes=20, within=600, when={"RequestRefused.csrf"}),
    BanRule("sign-in", strikes=30, within=600, when={"SignInEvent.refused", "SignInEvent.factor_refused"}),
    BanRule("rate-limit", strikes=100, within=600, when={"RequestRefused.rate_limit"}),
)
"""The rules of ``compose.ban_list``: sweeps for pages, forged requests, guessed passwords, ignored rate limits.

The numbers leave room for an office whose users share one address.
"""
