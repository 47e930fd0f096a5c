"""Limits that depend on the request: a function chooses among groups that are known in advance."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any

from mks_hardening._core.checks import function, is_async, strings, text_of
from mks_hardening._core.function_errors import log_function_error
from mks_hardening._core.operations import Call, arun, run
from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from mks_hardening._core.operations import Op

__all__ = ["GroupChoice", "checked_group"]


class GroupChoice:
    """Choice of a group of limits by a function of the request, for example by the plan of the user.

    Use it in place of the name of a group. The function returns a name and not a quota, so that the names in
    metrics and in Redis are known in advance. Each group has its own counts: a user who changes to another plan
    starts with the whole quota of that plan.

    If the function raises an error, or returns anything but one of ``groups``, the request is counted by
    ``fallback``, and the error is logged, at most once a minute. To not count a request, use ``exempt``.

    Args:
        choose: takes what ``key`` takes, and returns the name of a group. In ASGI applications and asynchronous
            views it may be ``async def``; a plain function must not block the event loop.
        groups: the names that it may return.
        fallback: group of all other requests, usually that with the smallest quota.

    Attributes:
        groups: all groups, including the fallback.
        fallback: the fallback.
        is_async: whether ``choose`` is ``async def``.

    Raises:
        ConfigurationError: ``choose`` is not callable, or a name is not a text or is empty.
    """

    __slots__ = ("_choose", "fallback", "groups", "is_async")

    def __init__(
        self,
        choose: Callable[..., str] | Callable[..., Awaitable[str]],
        *,
        groups: Iterable[str],
        fallback: str,
    ) -> None:
        self._choose: Callable[..., Any] = function(choose, parameter="choose", may_be_async=True)
        listed = strings(groups, parameter="groups", of="names of groups")
        if not listed or not all(listed):
            raise ConfigurationError(
                "groups must contain the names of groups that the function may return", parameter="groups"
            )
        self.fallback: str = text_of(fallback, parameter="fallback", empty=False)
        self.groups: tuple[str, ...] = tuple(dict.fromkeys((*listed, fallback)))
        self.is_async: bool = is_async(choose)

    def choose_group(self, *request: object) -> str:
        """Return the group of a request."""
        return run(self._group_of(request))

    async def achoose_group(self, *request: object) -> str:
        """Return the group of a request; the function may be asynchronous."""
        return await arun(self._group_of(request))

    def _group_of(self, request: tuple[object, ...]) -> Op[str]:
        error: Exception | None = None
        try:
            chosen: object = yield Call(lambda: self._choose(*request))
            if isinstance(chosen, str) and chosen in self.groups:
                return str(chosen)
        except Exception as raised:  # noqa: BLE001 - the request is counted by the fallback
            error = raised
        log_function_error(
            self._choose,
            error,
            parameter="choose",
            otherwise=f"requests are counted by {self.fallback!r}",
        )
        return self.fallback

    def __repr__(self) -> str:
        return f"GroupChoice(groups={self.groups!r}, fallback={self.fallback!r})"


def checked_group(group: object, *, message: str) -> tuple[str, GroupChoice | None]:
    """Return the name of a group, or the fallback of a choice and the choice.

    Args:
        group: the argument ``group``.
        message: what it must be, for the error.

    Raises:
        ConfigurationError: it is neither a name nor a choice.
    """
    if isinstance(group, GroupChoice):
        return group.fallback, group
    if not isinstance(group, str) or not group:
        raise ConfigurationError(message, parameter="group")
    return group, None
