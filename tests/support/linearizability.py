"""Linearizability check: search for an order of all operations on an object that explains every result.

The search of Wing and Gong (1993) with the memory of Lowe (2017): operations are put in an order one after the
other; next may come what began before anything still open had ended; a set of operations with a state that was
reached once is not tried again. An operation whose outcome nobody knows (its answer was lost) may have happened at
any time after it began, or never. Objects are independent, so each key is looked at by itself.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any, Final, NamedTuple, Protocol

__all__ = [
    "UNKNOWN",
    "CompareAndSet",
    "HighestStep",
    "Model",
    "Operation",
    "SingleUse",
    "explained",
    "unexplained_keys",
]

UNKNOWN: Final = "unknown"
"""The answer that never came."""
_NEVER: Final = float("inf")


class Operation(NamedTuple):
    """One call.

    Attributes:
        key: the object.
        call: what was asked.
        answer: what came back, or ``UNKNOWN``.
        began: when, on a clock that all callers share.
        ended: when the answer was there.
    """

    key: str
    call: Any
    answer: Any
    began: float
    ended: float


class Model(Protocol):
    """The intended behaviour of the object, one operation at a time.

    A call with an answer that changes nothing in one state must change nothing in any state in which it is answered
    so: a refusal, or a reading.
    """

    start: Hashable

    def step(self, state: Any, call: Any) -> tuple[Any, Hashable]:
        """Return the result and the next state."""
        ...


class SingleUse:
    """A token: its first use returns ``True``, all others ``False``."""

    start = False

    def step(self, state: Any, call: Any) -> tuple[bool, bool]:
        return not state, True


class HighestStep:
    """Time steps; a step is accepted if it is later than all before."""

    start = -(10**9)

    def step(self, state: int, call: int) -> tuple[bool, int]:
        return call > state, max(call, state)


class CompareAndSet:
    """A version and a text: ``("load",)`` reads both, ``("set", version, text)`` requires that version."""

    start = (0, "{}")

    def step(self, state: tuple[int, str], call: Any) -> tuple[Any, tuple[int, str]]:
        if call[0] == "load":
            return list(state), state
        fits = call[1] == state[0]
        return fits, (state[0] + 1, call[2]) if fits else state


def explained(operations: Iterable[Operation], model: Model) -> bool:
    """Return whether an order of these operations on one key explains their results."""
    history = sorted(operations, key=lambda operation: operation.began)
    ends = [_NEVER if one.answer == UNKNOWN else one.ended for one in history]
    known = sum(1 << number for number, end in enumerate(ends) if end != _NEVER)
    seen: set[tuple[int, Hashable]] = set()
    stack: list[tuple[int, Hashable]] = [(0, model.start)]
    while stack:
        done, state = stack.pop()
        if done & known == known:
            return True
        if (done, state) not in seen:
            seen.add((done, state))
            stack += _next(history, ends, model, done, state)
    return False


def _next(
    history: list[Operation], ends: list[float], model: Model, done: int, state: Hashable
) -> list[tuple[int, Hashable]]:
    """Yield the possible next operations and states."""
    open_ones = [number for number in range(len(history)) if not done >> number & 1]
    first_end = min(ends[number] for number in open_ones)
    found: list[tuple[int, Hashable]] = []
    for number in open_ones:
        one = history[number]
        if one.began > first_end:
            break
        answer, after = model.step(state, one.call)
        if one.answer == UNKNOWN:
            if after != state:  # else it might as well not have happened
                found.append((done | 1 << number, after))
        elif answer == one.answer:
            if after == state:  # it may as well come now: with this answer it changes nothing anywhere
                return [(done | 1 << number, state)]
            found.append((done | 1 << number, after))
    return found


def unexplained_keys(operations: Iterable[Operation], model: Model) -> list[str]:
    """Return the keys whose results no order explains."""
    by_key: dict[str, list[Operation]] = {}
    for operation in operations:
        by_key.setdefault(operation.key, []).append(operation)
    return [key for key, some in by_key.items() if not explained(some, model)]
