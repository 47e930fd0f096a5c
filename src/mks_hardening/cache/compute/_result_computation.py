"""A computation whose result decides how it is stored: packed by its declared type, for how long, or not at all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, NamedTuple, TypeAlias

from mks_hardening._core.durations import seconds
from mks_hardening._core.missing import MISSING
from mks_hardening._core.operations import require_sync_result
from mks_hardening.cache._value_type import ValueType

__all__ = ["ResultComputation", "ResultRules"]

Result: TypeAlias = Any
"""What the function of the caller returns."""


class ResultRules(NamedTuple):
    """How results of one function are stored.

    Attributes:
        value_type: packs them; None for plain data.
        ttl: returns the seconds for which one is stored, or None for the default.
        store_if: returns whether one is stored.
    """

    value_type: ValueType | None = None
    ttl: Callable[[Result], float | timedelta | None] | None = None
    store_if: Callable[[Result], object] | None = None


class ResultComputation:
    """Calls a function once, and applies the rules to its result.

    Args:
        function: the function, without arguments; it may return an awaitable.
        rules: the rules.

    Attributes:
        lifetime: after the call, the seconds for which the result is stored; None for the default.
    """

    __slots__ = ("__wrapped__", "_packed", "_rules", "_value", "lifetime")

    def __init__(self, function: Callable[[], Result], rules: ResultRules) -> None:
        self.__wrapped__ = function  # names the function in warnings
        self._rules = rules
        self._value: Result = None
        self._packed: object = MISSING
        self.lifetime: float | None = None

    def __call__(self) -> Result:
        """Compute and pack the result; return an awaitable if the function does."""
        value = self.__wrapped__()
        return self._awaited(value) if hasattr(value, "__await__") else self._pack(value)

    def unpack(self, packed: object) -> Result:
        """Return the result in what the cache returned.

        Raises:
            DecodeError: data of another declaration, or of another writer.
        """
        # Computed by this caller: decoding it again would only take time.
        if packed is self._packed or self._rules.value_type is None:
            return self._value if packed is self._packed else packed
        return self._rules.value_type.unpack(packed)

    async def _awaited(self, value: Awaitable[Result]) -> object:
        return self._pack(await value)

    def _pack(self, value: Result) -> object:
        kind, ttl, store_if = self._rules
        self._value = value
        if store_if is not None and not require_sync_result(store_if(value)):
            self.lifetime = 0.0
        elif ttl is not None and (chosen := ttl(value)) is not None:
            self.lifetime = seconds(chosen, parameter="ttl")
        self._packed = value if kind is None else kind.pack(value)
        return self._packed
