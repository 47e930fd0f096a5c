"""Rules that select the requests which hold slots, and the refusal when there is none."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable
from math import ceil
from typing import Any, Final, Protocol

from mks_hardening._core.checks import instances, offers, text_of
from mks_hardening._core.web.environ_keys import SLOTS_KEY
from mks_hardening._edge.concurrency.waiting_lines import Place
from mks_hardening._edge.rate_limits.limit_keys import LimitKey
from mks_hardening._edge.rate_limits.rate_limit_rule import RateLimitRule
from mks_hardening._edge.refusal_response import RefusalResponse
from mks_hardening.exceptions import ConfigurationError

__all__ = [
    "NO_SLOT",
    "ConcurrencyRule",
    "HeldSlots",
    "RequestSlot",
    "SlotLimiter",
    "checked_slot_rules",
    "retry_after",
]

NO_SLOT: Final = RefusalResponse(
    "slots",
    503,
    "Too many requests are being processed at once. Please try again.",
    setting="MKS_MAX_REQUESTS, MKS_MAX_REQUESTS_PER_CLIENT",
)
"""The response to a request that gets no slot."""


class RequestSlot(Protocol):
    """What ``acquire`` of a ``ConcurrencyLimiter`` returns: true if the slot was acquired."""

    retry_after: float | None

    def __bool__(self) -> bool:
        """Return whether the slot was acquired."""
        ...

    def release(self) -> None:
        """Release the slot."""
        ...

    def arelease(self) -> Awaitable[None]:
        """``release`` for asyncio."""
        ...


class SlotLimiter(Protocol):
    """The methods of ``mks_hardening.security.ConcurrencyLimiter`` that the middleware calls."""

    def acquire(self, limit: str, key: str = "", /) -> RequestSlot:
        """Acquire a slot without waiting."""
        ...

    def aacquire(self, limit: str, key: str = "", /) -> Awaitable[RequestSlot]:
        """``acquire`` for asyncio."""
        ...


class ConcurrencyRule:
    """Selection of requests that hold a slot while they are handled, and the key that holds it.

    A request holds at most one slot of each limit and key, however many rules name them.

    Args:
        limit: name of a limit of the ``ConcurrencyLimiter``.
        methods: methods the rule applies to (``GET`` includes ``HEAD``); ``None`` for all.
        path: one path or several; a trailing slash includes everything below; ``None`` for all paths. Other
            spellings of the same path match as well.
        key: takes the WSGI environ or ASGI scope and returns the key that holds the slot, for example
            ``limit_by_address``, or ``None`` if the rule does not apply; without it, all requests share the slots.
            If it raises an error or returns anything else, the client address holds the slot, and the error is
            logged, at most once a minute.
        exempt: takes the same, and returns whether the request needs no slot. A request for which it raises an
            error needs one.

    Raises:
        ConfigurationError: ``limit`` is empty, a path does not begin with a slash, ``path`` or ``methods`` is
            empty, or a function is not callable or is asynchronous.
    """

    __slots__ = ("_requests", "limit")

    def __init__(
        self,
        limit: str,
        *,
        methods: Iterable[str] | None = None,
        path: str | Iterable[str] | None = None,
        key: LimitKey | None = None,
        exempt: Callable[[dict[str, Any]], bool] | None = None,
    ) -> None:
        self.limit: str = text_of(limit, parameter="limit", empty=False)
        self._requests = RateLimitRule(
            limit, methods=methods, path=path, key=_one_key if key is None else key, exempt=exempt
        )

    def key_of(self, request: dict[str, Any], method: str, path: str) -> str | None:
        """Return the key that holds a slot for the request; ``None`` if it needs none."""
        return self._requests.key_of(request, method, path)

    def __repr__(self) -> str:
        return f"ConcurrencyRule({self.limit!r})"


class HeldSlots:
    """The slots that one request holds in a limiter.

    Middleware inside that has the same limiter does not acquire them again: with one slot, the request would wait
    for itself.

    Args:
        request: WSGI environ or ASGI scope, which may be modified.
        limiter: the limiter.
    """

    __slots__ = ("_all", "_limiter", "_slots")

    def __init__(self, request: dict[str, Any], limiter: SlotLimiter) -> None:
        self._all: set[tuple[int, Place]] = request.setdefault(SLOTS_KEY, set())
        self._limiter = id(limiter)
        self._slots: list[tuple[Place, RequestSlot]] = []

    def has(self, place: Place) -> bool:
        """Return whether the request holds a slot of this place, here or in middleware outside."""
        return (self._limiter, place) in self._all

    def add(self, place: Place, slot: RequestSlot) -> None:
        """Add a slot that was acquired."""
        self._slots.append((place, slot))
        self._all.add((self._limiter, place))

    @property
    def places(self) -> list[Place]:
        """The places of the slots that were added."""
        return [place for place, _ in self._slots]

    def release(self) -> None:
        """Release the slots that were added; calling it twice is safe."""
        while self._slots:
            self._pop().release()

    async def arelease(self) -> None:
        """``release`` for asyncio."""
        while self._slots:
            await self._pop().arelease()

    def _pop(self) -> RequestSlot:
        place, slot = self._slots.pop()
        self._all.discard((self._limiter, place))
        return slot


def checked_slot_rules(rules: Iterable[ConcurrencyRule], limiter: object) -> tuple[ConcurrencyRule, ...]:
    """Return the rules of ``ConcurrencyMiddleware``.

    Raises:
        ConfigurationError: no rule is given, an item is not a rule, or the limiter does not have a limit.
    """
    offers(limiter, "acquire", "aacquire", parameter="limiter", kind="a ConcurrencyLimiter")
    checked = instances(rules, ConcurrencyRule, parameter="rules")
    if not checked:
        raise ConfigurationError("rules must contain at least one ConcurrencyRule", parameter="rules")
    limits: Collection[str] | None = getattr(limiter, "limits", None)
    for rule in checked:
        if limits is not None and rule.limit not in limits:
            raise ConfigurationError(
                f"the rule for {rule.limit!r} names no limit of the limiter; it has {', '.join(sorted(limits))}",
                parameter="rules",
            )
    return checked


def retry_after(slot: RequestSlot | None) -> tuple[str, str]:
    """Return the field ``Retry-After`` for a request that gets no slot."""
    known = None if slot is None else slot.retry_after
    return ("Retry-After", str(max(1, ceil(known or 1))))


def _one_key(_request: dict[str, Any]) -> str:
    return "all"
